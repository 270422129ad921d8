"""The interface of latent fields: the parameters of a signal are grids of latents, sparse and cheap to code.

A field's latents are what a nearly orthonormal transform of the signal's grid gives, quantized to multiples of a step.
They come in levels, each of several bands, so that an entropy model can go from coarse to fine. All other parameters
are shared by all signals; only the latents are adapted, from theta_0 = 0.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from inrcodec.models.field import Field, Parameters
from inrcodec.models.wavelet import Level

STEPS_PER_OCTAVE = 8
"""Latents are multiples of a quantization step Delta = 2^(index / 8), an integer index."""


@dataclass(frozen=True)
class Grid:
    """The grid of a signal or patch. periodic: which axes are closed."""

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]


@dataclass(frozen=True)
class LatentField(Field):
    """Configuration of a latent field.

    levels: how often each axis of the latents' plane is halved; the first levels, shared by its axes, come first.
    """

    levels: tuple[int, ...] = ()

    @property
    def constants(self) -> frozenset[str]:  # type: ignore[override]
        """All but the latents."""
        return frozenset(self.shapes())

    @property
    def groups(self) -> tuple[int, ...]:
        """Channels that are coded together, in coding order."""
        return (self.out_features,)

    @property
    def variants(self) -> int:
        """How many transforms a signal can choose from; they share all parameters."""
        return 1

    def variant(self, index: int) -> Self:
        """The field with one of the transforms."""
        return self

    @abstractmethod
    def levels_of(self, grid: Grid) -> tuple[Level, ...]:
        """The levels of the latents of a grid, finest first."""

    def latent_shapes(self, grid: Grid) -> list[tuple[int, ...]]:
        """Shapes of the latents of one signal: [C * bands, *half] per level, finest first, and [C, *coarsest]."""
        levels = self.levels_of(grid)
        return [
            *((self.out_features * level.bands, *level.half) for level in levels),
            (self.out_features, *levels[-1].half),
        ]

    @abstractmethod
    def analyse(self, values: Tensor, grid: Grid) -> list[Tensor]:
        """Latents, as `latent_shapes`, that reproduce values [B, C, *grid.shape] but for what a network restores."""

    @abstractmethod
    def maps(self, parameters: Parameters, symbols: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """What a coordinate is looked up in.

        symbols: as `latent_shapes`, with a batch dimension, in units of the quantization step.
        step: [B] float, indices of the quantization step.
        """

    @abstractmethod
    def values(self, parameters: Parameters, maps: Tensor, grid: Grid, step: Tensor) -> Tensor:
        """Values [B, C, *grid.shape] at the samples of the grid."""

    @abstractmethod
    def values_at(
        self, parameters: Parameters, maps: Tensor, positions: Sequence[np.ndarray], grid: Grid, step: Tensor
    ) -> Tensor:
        """Values [B, C, *(len(p) for p in positions)] at the product of positions along each axis, in samples."""

    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        raise NotImplementedError("a latent field is asked on grids: see values and values_at")


def condition_of(step: Tensor) -> Tensor:
    """What networks are told about the quantization: log2 of the step relative to 1/8."""
    return step / STEPS_PER_OCTAVE + 3
