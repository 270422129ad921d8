"""The interfaces of latent fields: what differs from signal to signal is grids of latents, sparse and cheap to code.

Latents are what a nearly orthonormal transform of the signal's grid gives, quantized to multiples of a step. They come
in levels, each of several bands, so that an entropy model can go from coarse to fine. All other parameters are shared
by all signals; only the latents are adapted, from theta_0 = 0.

Every latent is a *symbol*, an integer that is coded, times the quantization step, plus its *prediction* from what was
decoded before it.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from inrcodec.models.field import Family, Field, Parameters
from inrcodec.models.order import Order, Place
from inrcodec.models.wavelet import Level

STEPS_PER_OCTAVE = 8
"""Latents are multiples of a quantization step Delta = 2^(step_index / 8), an integer step index."""

_OCTAVE = (1.0, 1.0905077, 1.1892071, 1.2968396, 1.4142135, 1.5422108, 1.6817929, 1.8340081)
"""2^(n / 8) in float32, written out so that no machine's exponential takes part."""

STEP_SIZES = ("move", "price", "averaging")
"""The step sizes of the adaptation of latents; `inrcodec.latents.step_sizes` says what they do."""


def quantization_step(step_index: int) -> float:
    """Return Delta of a step index, a number of float32."""
    octaves, eighths = divmod(step_index, STEPS_PER_OCTAVE)
    return float(np.float32(_OCTAVE[eighths])) * 2.0**octaves


def condition_of(step_index: int) -> float:
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


Positions = Sequence[np.ndarray] | np.ndarray
"""Where a field is asked, in samples: at the product of positions along each axis, or, one array [axes, n], at points.
"""

Choose = Callable[[Place, Tensor], Tensor]
"""Gives the symbols of a pass, [B, channels, *shape], for its place and its predictions in quantization steps.

Predictions broadcast to the symbols.
"""


@dataclass(frozen=True, eq=False)
class Hints:
    """What references say about the details of a signal, in quantization steps.

    sizes, distances: of every level, finest first, [B, C * bands, *half]: magnitudes of the references' mean, and of
        what they are apart.
    single: whether there is one reference only, which is apart from nothing.
    """

    sizes: Sequence[Tensor]
    distances: Sequence[Tensor]
    single: bool


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
    def hinted_kinds(self) -> tuple[str, ...]:
        """Those of `kinds` whose entropy model is shown the references; see `LatentTransform.hints`."""
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

    def candidates(self, values: Tensor, step_index: int) -> Iterator[int]:
        """Yield the variants that are worth trying for values [B, C, *grid.shape] in [0, 1]."""
        yield from range(self.variants)


class LatentTransform(LatentField):
    """A latent field of which the latents are those of one transform."""

    def transform(self, variant: int = 0, kind: str = "") -> "LatentTransform":
        return self

    @abstractmethod
    def levels_of(self, grid: Grid) -> tuple[Level, ...]:
        """Return the levels of the latents of a grid, finest first."""

    def places(self, grid: Grid) -> list[Place]:
        """Return the passes of the details, in coding order."""
        return self.order.places(self.levels_of(grid))

    def means_shape(self, grid: Grid) -> tuple[int, ...]:
        """Return the shape of one signal's coarsest means, [C, *coarsest]."""
        return (self.out_features, *self.levels_of(grid)[-1].half)

    def size(self, grid: Grid) -> int:
        """Return how many latents a signal has, at most."""
        levels = self.levels_of(grid)
        halves = [level.bands * math.prod(level.half) for level in levels]
        return self.out_features * (sum(halves) + math.prod(levels[-1].half))

    @abstractmethod
    def analyse(self, values: Tensor, grid: Grid) -> list[Tensor]:
        """Return latents that reproduce values [B, C, *grid.shape], not divided by the quantization step.

        First the coarsest means, then the details of every pass.
        """

    def ready(self, parameters: Parameters, step_index: int) -> Parameters:
        """Return the shared parameters as the other methods take them, rounded and for one quantization step.

        Differentiable, straight through. Raises: ValueError for parameters with which sums need not be exact.
        """
        return parameters

    def predicted_means(self, step_index: int) -> Tensor | float:
        """Return the prediction of the coarsest means, in quantization steps; it broadcasts to them."""
        return 0.0

    def hints(self, step_index: int) -> "Hints | None":
        """Return what the entropy model is shown of the references; None where there are none."""
        return None

    @abstractmethod
    def decode(self, ready: Parameters, means: Tensor, grid: Grid, step_index: int, choose: Choose) -> Tensor:
        """Decode latents pass by pass: their predictions plus their symbols.

        means: [B, C, *coarsest], symbols of the coarsest ones.
        Returns the field in quantization steps: what `values` and `values_at` are asked with.
        """

    @abstractmethod
    def values(self, linear: Tensor, grid: Grid, step_index: int) -> Tensor:
        """Return the values [B, C, *grid.shape] at the samples of the grid, of what `decode` returned."""

    @abstractmethod
    def values_at(self, linear: Tensor, positions: Positions, grid: Grid, step_index: int) -> Tensor:
        """Return the values at positions, [B, C, *(len(p) for p in positions)], or [B, C, n] at points."""


def following(symbols: Sequence[Tensor]) -> Choose:
    """Return a `Choose` that gives the symbols of one pass after the other."""
    left = iter(symbols)
    return lambda place, prediction: next(left)


def of_kind(parameters: Parameters, kind: str) -> Parameters:
    """Return the tensors of one of a field's `kinds`, without the kind in their names; all where `kind` is ""."""
    if not kind:
        return parameters
    prefix = f"{kind}."
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
