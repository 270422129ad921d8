"""The interfaces of latent fields: the parameters of a signal are grids of latents, sparse and cheap to code.

Latents are what a nearly orthonormal transform of the signal's grid gives, quantized to multiples of a step. They come
in levels, each of several bands, so that an entropy model can go from coarse to fine. All other parameters are shared
by all signals; only the latents are adapted, from theta_0 = 0.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from inrcodec.models.field import Field, Parameters
from inrcodec.models.order import Order, Place, assemble
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
    def kinds(self) -> tuple[str, ...]:
        """Prefixes of the names of networks, where several kinds of parts have networks of their own."""
        return ()

    @property
    def order(self) -> Order:
        """The order in which latents are decoded."""
        return Order(self.groups, self.levels)

    @property
    def variants(self) -> int:
        """How many transforms a signal can choose from; they share all parameters."""
        return 1

    def variant(self, index: int) -> Self:
        """The field with one of the transforms."""
        return self

    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        raise NotImplementedError("a latent field is asked on grids: see values and values_at")


class LatentTransform(LatentField):
    """A latent field of which the latents are those of one transform."""

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

    def latents(
        self, parameters: Parameters, means: Tensor, grid: Grid, step: Tensor, choose: Callable[[Place, Tensor], Tensor]
    ) -> list[Tensor]:
        """Decode latents pass by pass, in units of the quantization step: what is expected of them plus their symbols.

        means: [B, C, *coarsest], symbols of the coarsest ones. step: [B] float, indices of the quantization step.
        choose: gives the symbols of a pass for its place and what is expected of it.
        Returns tensors as `latent_shapes`, with a batch dimension.
        """
        details = []
        for index, level in reversed(list(enumerate(self.levels_of(grid)))):
            shape = (len(means), self.out_features * level.bands, *level.half)
            nothing = means.new_zeros(shape)
            passes = self.order.passes(index, level.half)
            details.append(assemble([(place, choose(place, nothing[place.index])) for place in passes], shape))
        return [*details[::-1], means]

    def expected_means(self, step: Tensor) -> Tensor:
        """What the coarsest means are expected to be, in units of the quantization step; broadcasts to them."""
        return step.new_zeros(())

    def decoded(self, parameters: Parameters, symbols: Sequence[Tensor], grid: Grid, step: Tensor) -> list[Tensor]:
        """The latents of all symbols, [B, ...] as `latent_shapes`; see `latents`."""
        return self.latents(
            parameters, symbols[-1], grid, step, lambda place, expected: symbols[place.level][place.index]
        )

    @abstractmethod
    def maps(self, parameters: Parameters, latents: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """What a coordinate is looked up in.

        latents: as `latent_shapes`, with a batch dimension, in units of the quantization step.
        step: [B] float, indices of the quantization step.
        """

    @abstractmethod
    def values(self, parameters: Parameters, maps: Tensor, grid: Grid, step: Tensor) -> Tensor:
        """Values [B, C, *grid.shape] at the samples of the grid."""

    def partly_restored(self, parameters: Parameters, maps: Tensor, grid: Grid, step: Tensor, points: Tensor) -> Tensor:
        """`values`, for which a network beside the linear field need only be asked at some samples.

        points: [B, n], indices into the samples of the grid in row-major order.
        """
        return self.values(parameters, maps, grid, step)

    def feature_energy(self, parameters: Parameters, maps: Tensor) -> Tensor:
        """Squared norm of the penultimate features at the samples of the grid, to be broadcast to [B, *grid.shape]."""
        return maps.new_zeros(())

    @abstractmethod
    def values_at(
        self, parameters: Parameters, maps: Tensor, positions: Sequence[np.ndarray], grid: Grid, step: Tensor
    ) -> Tensor:
        """Values [B, C, *(len(p) for p in positions)] at the product of positions along each axis, in samples."""


def of_kind(parameters: Parameters, kind: str) -> Parameters:
    """The tensors of the networks of one of a field's `kinds`, by their names among them."""
    prefix = f"{kind}."
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def condition_of(step: Tensor) -> Tensor:
    """What networks are told about the quantization: log2 of the step relative to 1/8."""
    return step / STEPS_PER_OCTAVE + 3
