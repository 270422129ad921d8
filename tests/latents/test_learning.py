"""The adaptation of integer latents as it is learned: its gradients, and its step sizes (ECoP)."""

from collections.abc import Iterator

import pytest
import torch
from random_latents import random_entropy_model, random_parameters
from tiny_latents import FIELD, GRID, STEP_INDEX, textured_patches
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.errors import UsageError
from inrcodec.latents.adaptation import State, adapt_for_training, first_state, next_state
from inrcodec.latents.decisions import TEMPERATURE
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task
from inrcodec.latents.step_sizes import initial_latent_step_sizes, latent_step_sizes
from inrcodec.meta.latent_trainer import objective_to_learn
from inrcodec.models import Parameters
from inrcodec.models.order import Place

STEPS = 3


def step_sizes(lower: float = 0.0) -> Parameters:
    """Return logarithms of step sizes that differ from the constants and from each other. lower: all by how much."""
    sizes = initial_latent_step_sizes("tensor-step", steps=STEPS, depth=2)
    generator = torch.Generator().manual_seed(4)
    return {name: value - lower + 0.3 * torch.randn(value.shape, generator=generator) for name, value in sizes.items()}


class Learner:
    """Random networks to be learned, and the model and task of them.

    theta_0, weights, sizes: leaves. gain: of the networks.
    """

    def __init__(self, gain: float = 1.0, sizes: Parameters | None = None) -> None:
        entropy_model, weights = random_entropy_model(FIELD, gain)
        self.theta_0, self.weights, self.sizes = (
            {name: value.clone().requires_grad_() for name, value in group.items()}
            for group in (random_parameters(FIELD, gain), weights, step_sizes() if sizes is None else sizes)
        )
        self.model = LatentModel.made(
            FIELD.transform(), self.theta_0, entropy_model, self.weights, STEP_INDEX, self.sizes
        )
        self.task = Task.of(self.model, textured_patches(), GRID)

    def states(self, steps: int) -> list[State]:
        """Return the first state and those of some steps as an encoder takes them."""
        with torch.no_grad():
            states = [first_state(self.model, self.task)]
            for index in range(steps):
                states.append(next_state(self.model, self.task, states[-1], index))
        return states

    def trained(self, steps: int = STEPS, start: int = 0) -> State:
        return adapt_for_training(self.model, self.task, start=start, steps=steps)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner()


# The differentiable loop


@pytest.mark.parametrize("start", [0, 2])
def test_training_goes_through_the_states_of_the_encoder(learner: Learner, start: int) -> None:
    first, *_, state = learner.states(start + STEPS)
    trained = learner.trained(start=start)
    for own, other in zip(trained.symbols, state.symbols, strict=True):
        assert torch.equal(own.detach(), other)
    torch.testing.assert_close(trained.objective, state.objective)
    assert not trained.choice.any()
    assert any(not torch.equal(a, b) for a, b in zip(first.details, state.details, strict=True))


def tensors(state: State) -> list[Tensor]:
    """Return all tensors of a state after a step."""
    assert state.pull is not None
    outputs = [each for both in state.outputs for each in both]
    pull = [*state.pull.moves, *state.pull.prices]
    return [*state.symbols, *state.magnitudes, *pull, *outputs, state.linear, state.objective, state.choice]


def test_a_state_without_graph_is_the_same(learner: Learner) -> None:
    state = learner.trained()
    assert state.linear.requires_grad and state.choice.requires_grad
    for own, other in zip(tensors(state), tensors(state.detached()), strict=True):
        assert torch.equal(own, other) and not other.requires_grad


def test_the_objective_to_learn_is_that_of_the_state(learner: Learner) -> None:
    state = learner.trained()
    for magnitudes in (None, state.magnitudes):
        distortion, bits = objective_to_learn(learner.model, state.symbols, learner.task, magnitudes)
        torch.testing.assert_close(distortion.detach(), state.distortion)
        torch.testing.assert_close(bits.detach(), state.rate)


def test_predictions_are_learned_through_the_decisions(learner: Learner) -> None:
    """A latent far from a decision's border follows its symbol, whatever its prediction: hardly a slope."""
    heads = [value for name, value in learner.theta_0.items() if name.endswith("head.weight")]
    norms = []
    for temperature in (TEMPERATURE, None):
        state = first_state(learner.model, learner.task, temperature)
        large: list[Tensor] = []
        left = iter(state.details)

        def choose(
            place: Place, prediction: Tensor, left: Iterator[Tensor] = left, large: list[Tensor] = large
        ) -> Tensor:
            symbols = next(left)
            large.append((prediction + symbols)[symbols.abs() > 1].sum())
            return symbols

        learner.model.decode(state.means, GRID, choose)
        slopes = torch.autograd.grad(torch.stack(large).sum(), heads, retain_graph=True)
        norms.append(sum(float(slope.norm()) for slope in slopes))
    assert norms[0] < 0.5 * norms[1]


def test_the_choice_has_the_gradient_of_the_bits(learner: Learner) -> None:
    """Where non-zeros are dearer, fewer are chosen: the bits that a choice takes at the costs as they were fall."""
    state = first_state(learner.model, learner.task, TEMPERATURE)
    last = f"{FIELD.order.name(0, 1, 1)}.flags.bias"  # what is decided last makes nothing else dearer
    (slope,) = torch.autograd.grad(state.choice.sum(), learner.weights[last], retain_graph=True)
    assert (slope[0] > 0).all()
    assert not slope[1].any()  # of another level


def test_everything_learned_gets_a_gradient_through_the_steps(learner: Learner) -> None:
    """From the symbols alone: networks through their slopes and costs, step sizes of every row."""
    moment = torch.stack([level.square().sum() for level in learner.trained().details]).sum()
    for group in (learner.theta_0, learner.weights, learner.sizes):
        slopes = torch.autograd.grad(moment, list(group.values()), retain_graph=True, allow_unused=True)
        found = {name: slope for name, slope in zip(group, slopes, strict=True) if slope is not None}
        assert all(torch.isfinite(slope).all() for slope in found.values())
        without = {name for name in group if name not in found or not found[name].any()}
        # The first pass of a level without parents sees nothing but a bias, which the rectifier may hide.
        layers = ("input.weight", "input.bias", "hidden.weight", "hidden.bias")
        assert without <= {f"{bands}.2.0.0.{layer}" for bands in (1, 3) for layer in layers}
    rows = torch.autograd.grad(moment, learner.sizes["move"], retain_graph=True)[0]
    assert rows.abs().sum(1).min() > 0


# Step sizes


def test_initializations_without_step_sizes_have_the_constants() -> None:
    """Prices are charged with more confidence after the first step; gradients are the mean of all so far."""
    start = initial_latent_step_sizes("tensor-step", steps=8, depth=4)
    for step, constants in ((0, (0.2, 0.5, 1.0)), (1, (0.25, 0.8, 1 / 2)), (7, (0.25, 0.8, 1 / 8))):
        sizes = latent_step_sizes({SHARED: torch.zeros(1)}, step, 4, torch.zeros(1))
        assert [size.tolist() for size in sizes] == [[pytest.approx(each)] * 4 for each in constants]
        for found, wanted in zip(latent_step_sizes(start, step, 4, torch.zeros(1)), sizes, strict=True):
            torch.testing.assert_close(found, wanted)


def test_step_sizes_are_learned_per_level_and_step() -> None:
    for kind, rows in (("tensor", 1), ("tensor-step", 3)):
        start = initial_latent_step_sizes(kind, steps=3, depth=4)  # type: ignore[arg-type]
        assert {name: tuple(value.shape) for name, value in start.items()} == dict.fromkeys(
            ("move", "price", "averaging"), (rows, 4)
        )
        last = latent_step_sizes(start, rows - 1, 4, torch.zeros(1))
        later = latent_step_sizes(start, 9, 4, torch.zeros(1))
        assert all(torch.equal(a, b) for a, b in zip(last, later, strict=True))
    with pytest.raises(UsageError, match="per scalar"):
        initial_latent_step_sizes("scalar", steps=3, depth=4)


def test_an_average_has_no_weight_beyond_one() -> None:
    found = latent_step_sizes(step_sizes(-3.0), 1, 2, torch.zeros(1))
    assert found.averaging.tolist() == [1.0, 1.0] and found.price.min() > 1


def test_step_sizes_scale_moves_and_prices() -> None:
    """With neither, a step decides as the first did; with either alone it does not."""
    nothing = {name: torch.full((1, 2), -50.0) for name in ("move", "price", "averaging")}
    changes = []
    for changed in ({}, {"move": torch.zeros(1, 2)}, {"price": torch.zeros(1, 2)}):
        first, state = Learner(sizes=nothing | changed).states(1)
        changes.append(sum(int((a != b).sum()) for a, b in zip(first.details, state.details, strict=True)))
    assert changes[0] == 0 < min(changes[1:])


def test_learned_step_sizes_are_worth_more() -> None:
    """From bad ones, by a few steps along the gradient that goes through the adaptation."""
    learner = Learner(2.0, step_sizes(2.0))

    def gained() -> float:
        """Return log J after the steps over that before."""
        first, *_, last = learner.states(STEPS)
        return float((last.objective / first.objective).log().mean())

    before = gained()
    optimizer = torch.optim.Adam(learner.sizes.values(), 0.6)
    for _ in range(4):
        state = learner.trained()
        distortion, bits = objective_to_learn(learner.model, state.symbols, learner.task, state.magnitudes)
        loss = (distortion + bits + state.choice).log().mean()
        slopes = torch.autograd.grad(loss, list(learner.sizes.values()), retain_graph=True)
        for value, slope in zip(learner.sizes.values(), slopes, strict=True):
            value.grad = slope
        optimizer.step()
    assert gained() < 1.2 * before < 0
