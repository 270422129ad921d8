"""The outer loop of latent pyramids: the restoring network and the entropy model, learned at adapted latents.

Every outer step adapts integer latents to a batch of signals (the inner loop as the encoder runs it) and descends the
logarithm of J = D / lambda + R at them, each signal at a quantization step of its own, so that one initialization
serves all qualities.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from inrcodec.coding.context_model import ContextModel, integer_weights
from inrcodec.errors import UsageError
from inrcodec.meta.context import Context
from inrcodec.meta.initialization import ContextPrior
from inrcodec.meta.pyramid_adaptation import Pyramid, adapt_latents, trade_off_of_step
from inrcodec.meta.training import MAX_DIVERGED, OuterLoss, TrainingConfig, load_tensors, save_tensors, scheduled
from inrcodec.models import Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, LatentField
from inrcodec.models.order import Place

PLAIN_SHARE = 0.5
"""Share of a run before the latents take more than the first step: the prices mean little until the rate does."""

UNTRAINED_STEPS = 20
"""Outer steps with latents rounded to the nearest, after which the entropy model is worth asking."""

FLOOR = 1e-3
"""Added to J, in bits per sample, so that blank signals do not outweigh all others."""


class PyramidTrainer:
    """State of a run: shared parameters, weights of the entropy model, Adam's moments, outer steps done.

    All randomness of step n comes from (seed, n), so a run resumed from `state` goes on as if it had not stopped.
    """

    def __init__(
        self,
        model: LatentField,
        config: TrainingConfig,
        shape: tuple[int, ...],
        hidden: int,
        device: torch.device,
        squeeze: int = 0,
    ) -> None:
        """shape: samples of a training patch along each axis. hidden, squeeze: see `ContextModel`."""
        generator = torch.Generator().manual_seed(config.seed)
        self.model = model
        self.config = config
        self.grid = Grid(shape, (False,) * len(shape))
        self.step = 0
        self.diverged = 0
        self.contexts = ContextModel(model.groups, model.levels, hidden, squeeze)
        self.theta_0 = _learned(model.initialize(generator), device)
        self.weights = _learned(self.contexts.initialize(generator), device)
        parameters = [*self.theta_0.values(), *self.weights.values()]
        self.optimizer = torch.optim.Adam(parameters, lr=config.outer_step_size, betas=(0.9, 0.98))

    @property
    def prior(self) -> ContextPrior:
        """The entropy model as it is coded with."""
        return ContextPrior(self.contexts, integer_weights({k: v.detach().cpu() for k, v in self.weights.items()}))

    @property
    def _groups(self) -> dict[str, Parameters]:
        return {"theta_0": self.theta_0, "contexts": self.weights}

    def train_step(self, context: Context) -> OuterLoss:
        """One outer step on a batch; its loss is log J, and the reconstruction the mean squared error.

        Raises: UsageError after `MAX_DIVERGED` batches in a row without a finite gradient.
        """
        config = self.config
        for group in self.optimizer.param_groups:
            warm_up = min(1.0, (self.step + 1) / 30)
            group["lr"] = config.outer_step_size * warm_up * scheduled(config, self.step)
        values = context.values.transpose(1, 2).unflatten(2, self.grid.shape)
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + self.step) % 2**63)
        finest, coarsest = config.quantization
        steps = torch.randint(finest, coarsest + 1, (len(values),), generator=generator).to(values)
        variant = int(torch.randint(self.model.variants, (), generator=generator))
        pyramid = Pyramid(self.model.variant(variant), self.theta_0, self.contexts, self.weights)
        symbols = self._symbols(pyramid, values, steps)
        error, bits = objective_to_learn(pyramid, symbols, values, self.grid, steps)
        rate = bits / values[0, 0].numel()
        trade_off = torch.tensor([trade_off_of_step(int(step), values.shape[1]) for step in steps]).to(values)
        loss = torch.log(error / trade_off + rate + FLOOR).mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        learned = [value for group in self._groups.values() for value in group.values()]
        norm = torch.nn.utils.clip_grad_norm_(learned, config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.diverged = 0
        else:
            self.diverged += 1
            if self.diverged == MAX_DIVERGED:
                raise UsageError(f"meta-training diverged at outer step {self.step}: use a smaller --outer-step-size")
        self.step += 1
        return OuterLoss(loss.detach(), error.mean().detach(), torch.zeros_like(loss))

    def _symbols(self, pyramid: Pyramid, values: Tensor, steps: Tensor) -> list[Tensor]:
        if self.step < UNTRAINED_STEPS:
            scale = 1 / torch.exp2(steps / STEPS_PER_OCTAVE).reshape(-1, *[1] * (1 + len(pyramid.field.levels)))
            return [torch.round(level * scale) for level in pyramid.field.analyse(values, self.grid)]
        plain = self.step < PLAIN_SHARE * self.config.outer_steps
        return adapt_latents(pyramid, values, self.grid, steps, steps=0 if plain else self.config.adaptation.steps)

    def state(self) -> dict[str, Tensor]:
        """Everything a later `load_state` needs, as named tensors on the CPU."""
        counts = {"step": torch.tensor([self.step]), "diverged": torch.tensor([self.diverged])}
        return counts | save_tensors(self._groups, self.optimizer)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up a `state`. Raises: UsageError if it is another field's."""
        self.step = int(tensors["step"])
        self.diverged = int(tensors["diverged"])
        load_tensors(tensors, self._groups, self.optimizer)


def objective_to_learn(
    pyramid: Pyramid, symbols: Sequence[Tensor], values: Tensor, grid: Grid, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean squared error and bits of the details, both [B], with gradients for all that is shared.

    Symbols do not move with what is expected of them, so a gradient at fixed symbols would miss what predictions are
    for. Of the bits, the gradient is therefore that of the distance between a latent and its expectation at the local
    cost of a unit; of the error, expectations get a gradient only where the symbol is zero, as the others are
    rounded to the same distance wherever the expectation is.
    """
    scale = torch.exp2(step / STEPS_PER_OCTAVE).reshape(-1, *[1] * (1 + len(pyramid.field.levels)))
    with torch.no_grad():
        targets = [level / scale for level in pyramid.field.analyse(values, grid)]
    costs = pyramid.costs(grid, step, [level.abs() for level in symbols])
    bits = torch.zeros_like(step)

    def choose(place: Place, expected: Tensor) -> Tensor:
        nonlocal bits
        _, cost = next(costs)
        coded = symbols[place.level][place.index]
        distance = (targets[place.level][place.index] - expected).abs()
        unit = torch.where(distance < 1, torch.maximum(cost.one - cost.zero, cost.more), cost.more).detach()
        pull = unit * (distance - distance.detach())
        bits = bits + (cost(coded.abs()) + pull).flatten(1).sum(1)
        return coded - torch.where(coded == 0, 0.0, expected - expected.detach())

    latents = pyramid.field.latents(pyramid.shared, symbols[-1], grid, step, choose)
    error = (pyramid.values_of(latents, grid, step) - values).square().flatten(1).mean(1)
    return error, bits


def _learned(parameters: Parameters, device: torch.device) -> Parameters:
    return {name: value.to(device).requires_grad_() for name, value in parameters.items()}
