"""The objective that latents are adapted for: D + lambda R of a field's values and symbols, both in bits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from inrcodec.latents.model import LatentModel
from inrcodec.models import Grid
from inrcodec.models.latent import STEPS_PER_OCTAVE, quantization_step, spread

CURVATURE = 14.4
"""Second derivative of the distortion, in bits, with respect to a symbol; ties lambda to the quantization step."""


def trade_off_of_step_index(step_index: int, channels: int) -> float:
    """Return lambda of mean squared error + lambda * bits per sample for which a quantization step is made."""
    return float(2 * 4 ** (step_index / STEPS_PER_OCTAVE) / (CURVATURE * channels))


def step_index_of_trade_off(trade_off: float, channels: int) -> int:
    """Return the step index for lambda."""
    return round(STEPS_PER_OCTAVE * math.log2(CURVATURE * channels * trade_off / 2) / 2)


@dataclass(frozen=True, eq=False)
class Task:
    """The values that latents are adapted to, and the trade-off of rate against distortion.

    values: [B, C, *grid.shape] in [0, 1]. step_index: [B] float, whole.
    curvature: [B], second derivative of the distortion in bits with respect to a symbol.
    axes: of the latents' plane.
    """

    values: Tensor
    grid: Grid
    step_index: Tensor
    curvature: Tensor
    axes: int

    @classmethod
    def of(
        cls, model: LatentModel, values: Tensor, grid: Grid, step_index: Tensor, trade_off: Tensor | None = None
    ) -> Self:
        """Return the task for lambda = `trade_off`, [B]; by default for the one that the step index is made for."""
        curvature = torch.full_like(step_index, CURVATURE)
        if trade_off is not None:
            curvature = 2 * quantization_step(2 * step_index) / (model.field.out_features * trade_off)
        return cls(values, grid, step_index, curvature, len(model.field.levels))

    @property
    def scale(self) -> Tensor:
        """The quantization step, as it broadcasts over latents."""
        return quantization_step(self.step_index, self.axes)

    def distortion(self, shown: Tensor) -> Tensor:
        """Return the distortion of field values [B, C, *grid.shape], in bits per signal: [B]."""
        error = (shown - self.values).square().flatten(1).sum(1)
        return error * self.curvature / (2 * quantization_step(2 * self.step_index))

    def spread(self, numbers: Tensor) -> Tensor:
        """Return one number per signal, [B], as it broadcasts over latents."""
        return spread(numbers, self.axes)


def objective(model: LatentModel, task: Task, symbols: Sequence[Tensor]) -> Tensor:
    """Return D / lambda + R of symbols, in bits per signal, without graph: [B]."""
    with torch.no_grad():
        shown = model.values(symbols, task.grid, task.step_index)
        magnitudes = [level.abs() for level in symbols[:-1]]
        return task.distortion(shown) + model.bits(symbols, task.grid, task.step_index, magnitudes)
