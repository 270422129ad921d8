"""What latents are adapted for: D + lambda R of a field's values and symbols, both in bits."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Self

import torch
from torch import Tensor

from inrcodec.coding.context_model import ContextModel, Costs
from inrcodec.meta.adaptation import SHARED, AdaptationConfig
from inrcodec.meta.latent_step_sizes import StepSizes, latent_step_sizes
from inrcodec.models import Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, LatentTransform, condition_of
from inrcodec.models.order import Place

CURVATURE = 14.4
"""Second derivative of the distortion in bits with respect to a symbol, which ties the trade-off to the step."""


def trade_off_of_step(index: int, channels: int) -> float:
    """lambda of mean squared error + lambda * bits per sample for which a quantization step is made."""
    return float(2 * 4 ** (index / STEPS_PER_OCTAVE) / (CURVATURE * channels))


def step_of_trade_off(trade_off: float, channels: int) -> int:
    """The index of the quantization step for lambda."""
    return round(STEPS_PER_OCTAVE * math.log2(CURVATURE * channels * trade_off / 2) / 2)


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A field with its shared parameters and its entropy model, float32 on one device.

    field: the configuration; shared: its constants; contexts: the entropy model's configuration and weights.
    log_step_sizes: see `inrcodec.meta.latent_step_sizes`. adaptation: the K steps they were learned for.
    """

    field: LatentTransform
    shared: Parameters
    contexts: ContextModel
    weights: Parameters
    log_step_sizes: Parameters = dataclass_field(default_factory=lambda: {SHARED: torch.zeros(1)})
    adaptation: AdaptationConfig = dataclass_field(
        default_factory=lambda: AdaptationConfig(steps=1, gamma=1.0, score="full")
    )

    def step_sizes(self, step: int, like: Tensor) -> StepSizes:
        """Of a step of the adaptation."""
        return latent_step_sizes(self.log_step_sizes, step, self.field.order.depth, like)

    def values(self, symbols: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """Field values [B, C, *grid] for symbols (float) and indices of the quantization step [B]."""
        return self.values_of(self.field.decoded(self.shared, symbols, grid, step), grid, step)

    def values_of(self, latents: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """Field values [B, C, *grid] for decoded latents, in units of the quantization step."""
        return self.field.values(self.shared, self.field.maps(self.shared, latents, grid, step), grid, step)

    def bits(self, symbols: Sequence[Tensor], grid: Grid, step: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """Bits of the details of every signal, [B], with contexts of the magnitudes `contexts`."""
        total = torch.zeros_like(step)
        for place, costs in self.costs(grid, step, contexts):
            magnitudes = symbols[place.level][place.index].detach().abs()
            total = total + costs(magnitudes).flatten(1).sum(1)
        return total

    def costs(self, grid: Grid, step: Tensor, contexts: Sequence[Tensor]) -> Iterator[tuple[Place, Costs]]:
        """What symbols cost, pass by pass; the magnitudes of a pass must be there when the next one is asked for."""
        levels = self.field.levels_of(grid)
        for place, flags, scales in self.contexts.passes(self.weights, contexts, levels, condition_of(step)):
            yield place, Costs.of(flags, scales)


@dataclass(frozen=True, eq=False)
class Task:
    """What latents are adapted to.

    values: [B, C, *grid.shape] in [0, 1]. step: [B] float, whole indices of the quantization step.
    curvature: [B], second derivative of the distortion in bits with respect to a symbol.
    axes: of the latents' plane.
    """

    values: Tensor
    grid: Grid
    step: Tensor
    curvature: Tensor
    axes: int

    @classmethod
    def of(cls, pyramid: Pyramid, values: Tensor, grid: Grid, step: Tensor, trade_off: Tensor | None = None) -> Self:
        """For lambda = `trade_off`, [B]; the one the step is made for unless given."""
        curvature = torch.full_like(step, CURVATURE)
        if trade_off is not None:
            curvature = 2 * torch.exp2(2 * step / STEPS_PER_OCTAVE) / (pyramid.field.out_features * trade_off)
        return cls(values, grid, step, curvature, len(pyramid.field.levels))

    def distortion(self, shown: Tensor) -> Tensor:
        """Of field values [B, C, *grid.shape], in bits per signal: [B]."""
        error = (shown - self.values).square().flatten(1).sum(1)
        return error * self.curvature / (2 * torch.exp2(2 * self.step / STEPS_PER_OCTAVE))

    def spread(self, numbers: Tensor) -> Tensor:
        """One number per signal, [B], as it broadcasts over latents."""
        return numbers.reshape(-1, *[1] * (1 + self.axes))


def objective(pyramid: Pyramid, task: Task, symbols: Sequence[Tensor]) -> Tensor:
    """D / lambda + R of symbols, in bits per signal, without graph: [B]."""
    with torch.no_grad():
        shown = pyramid.values(symbols, task.grid, task.step)
        magnitudes = [level.abs() for level in symbols[:-1]]
        return task.distortion(shown) + pyramid.bits(symbols, task.grid, task.step, magnitudes)
