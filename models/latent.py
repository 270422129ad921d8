"""The interfaces of latent fields: what differs from signal to signal is grids of latents, sparse and cheap to code.

Latents are what a nearly orthonormal transform of the signal's grid gives, quantized to multiples of a step. They come
in levels, each of several bands, so that an entropy model can go from coarse to fine. All other parameters are shared
by all signals; only the latents are adapted, from theta_0 = 0.

Every latent is a *symbol*, an integer that is coded, times the quantization step, plus its *prediction* from what was
decoded before it.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from inrcodec.models.field import Family, Field, Parameters
from inrcodec.models.order import Order, Place, assemble
from inrcodec.models.wavelet import Level

STEPS_PER_OCTAVE = 8
"""Latents are multiples of a quantization step Delta = 2^(step_index / 8), an integer step index."""

STEP_SIZES = ("move", "price", "averaging")
"""The step sizes of the adaptation of latents; `inrcodec.latents.step_sizes` says what they do."""


def quantization_step(step_index: Tensor, axes: int = 0) -> Tensor:
    """Return Delta of step indices [B], as [B, 1, ...] that broadcasts over channels and `axes` more."""
    return spread(torch.exp2(step_index / STEPS_PER_OCTAVE), axes)


def spread(numbers: Tensor, axes: int) -> Tensor:
    """Return one number per signal, [B], as it broadcasts over [B, C, ...] with `axes` grid axes; 0 leaves it [B]."""
    return numbers.reshape(-1, *[1] * (axes + 1)) if axes else numbers


def condition_of(step_index: Tensor) -> Tensor:
    """Return what networks are told about the quantization: log2 of the step relative to 1/8."""
    return step_index / STEPS_PER_OCTAVE + 3


@dataclass(frozen=True)
class Grid:
    """The grid of a signal or patch. periodic: which axes are closed."""

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]

    @classmethod
    def open(cls, shape: Sequence[int]) -> "Grid":
        """Return a grid without closed axes."""
        return cls(tuple(shape), (False,) * len(shape))


Choose = Callable[[Place, Tensor], Tensor]
"""Gives the symbols of a pass, [B, channels, *shape], for its place and its predictions in quantization steps."""


@dataclass(frozen=True)
class LatentField(Field):
    """Configuration of a latent field.

    levels: how often each axis of the latents' plane is halved; the first levels, shared by its axes, come first.
    """

    levels: tuple[int, ...] = ()

    family: ClassVar[Family] = "latents"

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that all signals share; those of the latents follow from a signal's grid."""

    def step_size_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return one number per level and name."""
        return dict.fromkeys(STEP_SIZES, (self.order.depth,))

    @property
    def groups(self) -> tuple[int, ...]:
        """Sizes of the groups of channels that are coded together, in coding order."""
        return (self.out_features,)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of parts that have networks of their own; their tensors are named KIND.NAME. None: no kinds."""
        return ()

    @property
    def order(self) -> Order:
        """The order in which latents are decoded."""
        return Order(self.groups, self.levels)

    @property
    def variants(self) -> int:
        """How many transforms a signal can choose from; they share all parameters."""
        return 1

    @abstractmethod
    def transform(self, variant: int = 0, kind: str = "") -> "LatentTransform":
        """Return the field of a variant, or of one kind of parts, which has a transform."""


class LatentTransform(LatentField):
    """A latent field of which the latents are those of one transform."""

    def transform(self, variant: int = 0, kind: str = "") -> "LatentTransform":
        return self

    @abstractmethod
    def levels_of(self, grid: Grid) -> tuple[Level, ...]:
        """Return the levels of the latents of a grid, finest first."""

    def latent_shapes(self, grid: Grid) -> list[tuple[int, ...]]:
        """Return the shapes of one signal's latents.

        They are [C * bands, *half] per level, finest first, and last that of the means, [C, *coarsest].
        """
        levels = self.levels_of(grid)
        return [
            *((self.out_features * level.bands, *level.half) for level in levels),
            (self.out_features, *levels[-1].half),
        ]

    @abstractmethod
    def analyse(self, values: Tensor, grid: Grid) -> list[Tensor]:
        """Return latents, as `latent_shapes`, that reproduce values [B, C, *grid.shape].

        What a network restores is not taken into account.
        """

    def latents(
        self, parameters: Parameters, means: Tensor, grid: Grid, step_index: Tensor, choose: Choose
    ) -> list[Tensor]:
        """Decode latents pass by pass, in quantization steps: their predictions plus their symbols.

        means: [B, C, *coarsest], symbols of the coarsest ones. step_index: [B] float, whole.
        Returns tensors as `latent_shapes`, with a batch dimension.
        """
        details = []
        for index, level in reversed(list(enumerate(self.levels_of(grid)))):
            shape = (len(means), self.out_features * level.bands, *level.half)
            nothing = means.new_zeros(shape)
            passes = self.order.passes(index, level.half)
            details.append(assemble([(place, choose(place, nothing[place.index])) for place in passes], shape))
        return [*details[::-1], means]

    def predicted_means(self, step_index: Tensor) -> Tensor:
        """Return the prediction of the coarsest means, in quantization steps; it broadcasts to them."""
        return step_index.new_zeros(())

    def decoded(
        self, parameters: Parameters, symbols: Sequence[Tensor], grid: Grid, step_index: Tensor
    ) -> list[Tensor]:
        """Return the latents of all symbols, [B, ...] as `latent_shapes`; see `latents`."""
        return self.latents(
            parameters, symbols[-1], grid, step_index, lambda place, prediction: symbols[place.level][place.index]
        )

    @abstractmethod
    def maps(self, parameters: Parameters, latents: Sequence[Tensor], grid: Grid, step_index: Tensor) -> Tensor:
        """Return what a coordinate is looked up in.

        latents: as `latent_shapes`, with a batch dimension, in quantization steps. step_index: [B] float, whole.
        """

    @abstractmethod
    def values(self, parameters: Parameters, maps: Tensor, grid: Grid, step_index: Tensor) -> Tensor:
        """Return the values [B, C, *grid.shape] at the samples of the grid."""

    def partly_restored(
        self, parameters: Parameters, maps: Tensor, grid: Grid, step_index: Tensor, points: Tensor
    ) -> Tensor:
        """Return `values`, for which a network beside the linear field need only be asked at some samples.

        points: [B, n], indices into the samples of the grid in row-major order.
        """
        return self.values(parameters, maps, grid, step_index)

    def feature_energy(self, parameters: Parameters, maps: Tensor) -> Tensor:
        """Return the squared norm of the penultimate features at the samples, which broadcasts to [B, *grid.shape]."""
        return maps.new_zeros(())

    @abstractmethod
    def values_at(
        self, parameters: Parameters, maps: Tensor, positions: Sequence[np.ndarray], grid: Grid, step_index: Tensor
    ) -> Tensor:
        """Return the values at the product of positions along each axis, in samples: [B, C, *(len(p) for p)]."""


def of_kind(parameters: Parameters, kind: str) -> Parameters:
    """Return the tensors of one of a field's `kinds`, without the kind in their names; all where `kind` is ""."""
    if not kind:
        return parameters
    prefix = f"{kind}."
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
