"""What symbols cost, and which integers are chosen: against searches and tables."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.latents.costs import Costs
from inrcodec.latents.decisions import decide
from inrcodec.models.exact import ACTIVATION_UNIT

CURVATURE = 14.4


def costs_of(log_odds: Any, log2_scale: Any) -> Costs:
    """Return the costs of symbols, in float64, that are not zero at these odds, and of this scale."""
    outputs = (ACTIVATION_UNIT * torch.as_tensor(each, dtype=torch.float64) for each in (log_odds, log2_scale))
    return Costs.of(*outputs)


@pytest.mark.parametrize("log_odds", [-10.0, -3.25, 0.0, 0.5, 9.75])
@pytest.mark.parametrize("log2_scale", [-2.0, -0.25, 0.0, 3.5, 9.0])
def test_costs_are_those_of_the_distribution(log_odds: float, log2_scale: float) -> None:
    """A flag, a sign, and a magnitude whose probabilities fall by exp(-1 / scale)."""
    nonzero, ratio = 1 / (1 + np.exp(-log_odds)), np.exp(-(2.0**-log2_scale))
    magnitudes = np.arange(6)
    chances = np.where(magnitudes == 0, 1 - nonzero, nonzero * 0.5 * (1 - ratio) * ratio ** (magnitudes - 1))
    found = costs_of(log_odds, log2_scale)(torch.from_numpy(magnitudes).double())
    np.testing.assert_allclose(found, -np.log2(chances), rtol=1e-9)


@pytest.mark.parametrize(("log_odds", "log2_scale"), [(-6.25, -1.5), (-1.0, 0.0), (2.75, 4.25), (5.0, 8.0)])
def test_costs_are_those_of_the_tables(log_odds: float, log2_scale: float) -> None:
    """Whose frequencies are out of 2^16, one of them the escape's."""
    flag_row = entropy.FLAG_ROW + entropy.EVEN_FLAG + round(4 * log_odds)
    magnitude_row = entropy.MAGNITUDE_ROW + entropy.UNIT_MAGNITUDE + round(4 * log2_scale)
    magnitudes = np.arange(1, 2 + int(2 ** max(0, log2_scale)))
    coded = entropy.code_length(magnitudes - 1, np.full(len(magnitudes), magnitude_row))
    coded += 1 + entropy.code_length(np.array([1]), np.array([flag_row]))
    costs = costs_of(log_odds, log2_scale)
    np.testing.assert_allclose(costs(torch.from_numpy(magnitudes).double()), coded, atol=0.01)
    zero = entropy.code_length(np.array([0]), np.array([flag_row]))
    np.testing.assert_allclose(costs.zero, zero[0], rtol=0.01)


def total(magnitude: int, wanted: float, price: float, costs: Costs) -> float:
    """Return what a magnitude costs in distortion, own bits and bits of others."""
    own = float(costs(torch.tensor(float(magnitude), dtype=torch.float64)))
    return CURVATURE / 2 * (magnitude - wanted) ** 2 + own + price * float(np.log2(1 + magnitude))


@settings(deadline=None, max_examples=300)
@given(
    wanted=st.floats(0, 40) | st.integers(0, 5).map(float),
    price=st.floats(-0.5, 1.5),
    log_odds=st.floats(-12, 12),
    log2_scale=st.floats(-1, 8),
)
def test_decisions_are_the_cheapest_of_all_integers(
    wanted: float, price: float, log_odds: float, log2_scale: float
) -> None:
    """Magnitudes and prices cost so little per unit that no others than zero and the two nearest can be cheapest."""
    costs = costs_of(log_odds, log2_scale)
    decided, choice = decide(
        torch.tensor([[wanted]], dtype=torch.float64), torch.tensor([[price]]).double(), costs, CURVATURE, None
    )
    assert choice is None
    of_all = [total(magnitude, wanted, price, costs) for magnitude in range(60)]
    assert of_all[int(decided)] <= min(of_all) + 1e-9
    free, _ = decide(torch.tensor([[wanted]]).double(), None, costs, CURVATURE, None)
    of_all = [total(magnitude, wanted, 0.0, costs) for magnitude in range(60)]
    assert of_all[int(free)] <= min(of_all) + 1e-9


def test_the_gradient_of_decisions_is_that_of_the_soft_mean() -> None:
    """Against a loop over symbols, and finite differences of the mean over their candidates, in float64."""
    generator = torch.Generator().manual_seed(0)
    wanted = 3 * torch.rand((2, 3, 4), generator=generator, dtype=torch.float64)
    price = torch.rand(wanted.shape, generator=generator, dtype=torch.float64)
    costs = Costs(*(0.2 + 2 * torch.rand((3, *wanted.shape), generator=generator, dtype=torch.float64)))
    temperature = 0.7

    def means(wanted: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over candidates, each with a chance of 2^(-cost / temperature), of magnitude and own bits."""
        magnitudes, bits = torch.zeros_like(wanted), torch.zeros_like(wanted)
        for place in np.ndindex(*wanted.shape):
            here = Costs(*(part[place] for part in (costs.zero, costs.one, costs.more)))
            down = int(wanted[place])
            candidates = sorted({0, down, down + 1})
            exponents = [total(each, float(wanted[place]), float(price[place]), here) for each in candidates]
            chances = np.exp2(-np.array(exponents) / temperature)
            chances /= chances.sum()
            magnitudes[place] = float(chances @ candidates)
            bits[place] = float(chances @ here(torch.tensor(candidates, dtype=torch.float64)).numpy())
        return magnitudes, bits

    wanted.requires_grad_()
    price.requires_grad_()
    decided, choice = decide(wanted, price, costs, CURVATURE, temperature)
    assert choice is not None and choice.shape == (2,) and not choice.any()
    assert torch.equal(decided, decide(wanted, price, costs, CURVATURE, None)[0])
    for index, quantity in enumerate((decided, choice)):
        slopes = torch.autograd.grad(quantity.sum(), [wanted, price], retain_graph=True)
        for changed, slope in zip((0, 1), slopes, strict=True):
            around = []
            for change in (1e-6, -1e-6):
                moved = [wanted.detach(), price.detach()]
                moved[changed] = moved[changed] + change
                around.append(means(*moved)[index])
            # The floor changes nowhere within the difference.
            torch.testing.assert_close(slope, (around[0] - around[1]) / 2e-6, rtol=1e-4, atol=1e-7)
