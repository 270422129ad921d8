"""How a signal is cut into patches, where the samples of other resolutions lie, and how patches are joined.

It follows "Patches" of docs/FORMAT.md.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from second_decoder.arrays import ceil_div
from second_decoder.header import Axis
from second_decoder.reading import require


class Covered(NamedTuple):
    """What a patch covers of a grid along an axis.

    indices: of the grid's samples. positions: theirs, in samples of the original axis. weights: of the patch there.
    """

    indices: np.ndarray
    positions: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class AxisPatches:
    """The patches along one axis.

    count, size: how many (c), and of how many samples (p). has_entry: whether `patches.shape` has one for the axis.
    """

    axis: Axis
    count: int
    size: int
    has_entry: bool = True

    @property
    def goes_all_around(self) -> bool:
        """Whether a patch has the whole of a periodic axis."""
        return self.axis.kind == "periodic" and self.size == self.axis.size

    def first_sample(self, patch: int) -> int:
        """Return where a patch starts."""
        if self.axis.kind == "periodic" and self.count > 1:
            return patch * self.axis.size // self.count
        if self.axis.kind == "slice":
            return patch * self.size
        return patch * (self.axis.size - self.size) // max(self.count - 1, 1)

    @cached_property
    def overlap(self) -> int:
        """How many samples neighbours share, at least."""
        starts = [self.first_sample(patch) for patch in range(self.count)]
        distances = [after - before for before, after in itertools.pairwise(starts)]
        if self.axis.kind == "periodic" and self.count > 1:
            distances.append(starts[0] + self.axis.size - starts[-1])
        return max(0, self.size - max(distances)) if distances else 0

    def covered(self, positions: np.ndarray) -> list[Covered]:
        """Return what each patch covers of a grid with samples at these positions."""
        if self.axis.kind == "slice":
            starts = [self.first_sample(patch) for patch in range(self.count)]
            own = [np.arange(start, min(start + self.size, self.axis.size)) for start in starts]
            return [Covered(samples, samples.astype(np.float64), np.ones(len(samples))) for samples in own]
        total = np.zeros(len(positions))
        parts = []
        for patch in range(self.count):
            begin = self.first_sample(patch) - 0.5
            moved = begin + (positions - begin) % self.axis.size if self.axis.kind == "periodic" else positions
            indices = np.flatnonzero((moved >= begin) & (moved <= begin + self.size))
            distances = np.minimum(moved - begin, begin + self.size - moved)[indices]
            weights = (distances / self.overlap).clip(0.001, 1) if self.overlap else np.ones(len(indices))
            total[indices] += weights
            parts.append(Covered(indices, moved[indices], weights))
        return [Covered(part.indices, part.positions, part.weights / total[part.indices]) for part in parts]


@dataclass(frozen=True)
class Patch:
    """A patch. number: counted over the signal. starts: its first sample along each axis."""

    number: int
    along: tuple[int, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The patches of a signal. axes: along each axis of the signal."""

    axes: tuple[AxisPatches, ...]

    @property
    def count(self) -> int:
        """How many patches there are."""
        return math.prod(axis.count for axis in self.axes)

    @property
    def regular(self) -> list[AxisPatches]:
        """The patches along the axes that have entries: all, or those that are not *slice*."""
        return [axis for axis in self.axes if axis.has_entry]

    def patches(self) -> Iterator[Patch]:
        """Yield all patches in order."""
        for number, along in enumerate(itertools.product(*(range(axis.count) for axis in self.axes))):
            yield Patch(number, along, tuple(axis.first_sample(i) for axis, i in zip(self.axes, along, strict=True)))


def layout_of(axes: Sequence[Axis], settings: Mapping[str, Any]) -> Layout:
    """Return how a grid is cut. settings: `patches` of the initialization."""
    nominal = list(zip(settings["shape"], settings["overlap"], strict=True))
    samples = math.prod(axis.size for axis in axes)
    if len(nominal) == len(axes):
        return Layout(tuple(_cut(axis, *sizes, samples) for axis, sizes in zip(axes, nominal, strict=True)))
    regular = sum(axis.kind != "slice" for axis in axes)
    require(regular == len(nominal), "a signal has the axes of its initialization's patches")
    entries = iter(nominal)
    return Layout(
        tuple(
            AxisPatches(axis, axis.size, 1, False) if axis.kind == "slice" else _cut(axis, *next(entries), samples)
            for axis in axes
        )
    )


def _cut(axis: Axis, nominal: int, overlap: int, samples: int) -> AxisPatches:
    """Return the patches along an axis. samples: of the whole grid."""
    n = axis.size
    if axis.kind == "slice":
        nominal = min(nominal, max(1, (1 << 24) // (samples // n)))
        size = ceil_div(n, max(1, round(n / nominal)))
        return AxisPatches(axis, ceil_div(n, size), size)
    if axis.kind == "periodic" and n > nominal:
        count = max(2, round(n / (nominal - overlap)))
        return AxisPatches(axis, count, min(n, ceil_div(n, count) + overlap))
    count = max(1, round((n - overlap) / (nominal - overlap)))
    return AxisPatches(axis, count, min(n, ceil_div(n + (count - 1) * overlap, count)))


def positions_of(axis: Axis, size: int) -> np.ndarray:
    """Return where the samples of another size lie, in samples of the axis; *start* axes keep their duration."""
    j = np.arange(size, dtype=np.float64)
    if size == axis.size:
        return j
    if axis.kind == "cell":
        return (j + 0.5) * axis.size / size - 0.5
    if axis.kind == "start":
        return np.minimum(j * axis.size / size, axis.size - 1)
    if axis.kind == "node":
        return j * (axis.size - 1) / max(size - 1, 1)
    if axis.kind == "periodic":
        return j * axis.size / size
    raise ValueError(f"a slice axis has no other size: {axis.size = }, {size = }")


def evaluated_size(axis: Axis, size: int) -> int:
    """Return how many samples are evaluated to get some number of them without aliasing."""
    if size >= axis.size or axis.kind in ("node", "periodic") or (axis.rate is not None and axis.rate < 1000):
        return size
    if axis.kind == "start":
        raise ValueError("sound at a lower rate goes through a low-pass filter of each decoder's choice")
    return size * ceil_div(axis.size, size)
