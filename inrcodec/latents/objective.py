"""The objective that latents are adapted for: D + lambda R, both in bits.

As the transform is nearly orthonormal, the squared error of the values is that of the latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from inrcodec.latents.model import LatentModel
from inrcodec.models import Grid
from inrcodec.models.latent import STEPS_PER_OCTAVE, quantization_step

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
    """The latents of some signals, and the trade-off of rate against distortion.

    means: [B, C, *coarsest], targets: one tensor [B, channels, *shape] per pass, in coding order; all in quantization
        steps, not rounded.
    curvature: second derivative of the distortion in bits with respect to a symbol.
    """

    grid: Grid
    means: Tensor
    targets: Sequence[Tensor]
    curvature: float

    @classmethod
    def of(cls, model: LatentModel, values: Tensor, grid: Grid, trade_off: float | None = None) -> Self:
        """Return the task of values [B, C, *grid.shape] in [0, 1].

        trade_off: lambda; by default the one that the model's step index is made for.
        """
        step = quantization_step(model.step_index)
        curvature = CURVATURE if trade_off is None else 2 * step**2 / (model.field.out_features * trade_off)
        with torch.no_grad():
            means, *targets = [latents * (1 / step) for latents in model.field.analyse(values, grid)]
        return cls(grid, means, targets, curvature)

    @property
    def nothing(self) -> Tensor:
        """A zero for each signal, [B]."""
        return self.means.new_zeros(len(self.means))
