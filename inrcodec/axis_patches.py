"""The patches along one axis of a grid, and what each covers of the axis at another resolution."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from inrcodec.signals.signal import Axis


@dataclass(frozen=True)
class AxisPatches:
    """The patches along one axis: `size` samples each, first sample of patch i at `starts[i]`.

    On a periodic axis a patch may run past the end and goes on at the beginning.
    """

    axis: Axis
    size: int
    starts: tuple[int, ...]

    def samples(self, patch: int) -> np.ndarray:
        """Return the sample indices of a patch, [size]; the last group of slices is filled up with the last one."""
        samples = self.starts[patch] + np.arange(self.size)
        return samples.clip(max=self.axis.size - 1) if self.axis.kind == "slice" else samples % self.axis.size

    def local(self, patch: int, positions: np.ndarray) -> np.ndarray:
        """Map positions (in samples) to [-1, 1] over the patch; the ends are the outer edges of its end samples."""
        return (positions - self.starts[patch] + 0.5) * (2 / self.size) - 1

    def resampled(self, target: Axis) -> "AxisCoverage":
        """Return what the patches cover of `target`, this axis at another resolution."""
        return AxisCoverage(self, target)

    @cached_property
    def overlap(self) -> int:
        """How many samples neighbours share."""
        gaps = [after - before for before, after in zip(self.starts, self.starts[1:], strict=False)]
        if self.axis.kind == "periodic" and len(self.starts) > 1:
            gaps.append(self.starts[0] + self.axis.size - self.starts[-1])
        return max(0, self.size - max(gaps)) if gaps else 0

    def shares(self, patch: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which positions (in samples) a patch covers, where they lie as it counts, and its shares there.

        Along slices positions are whole. The shares of all patches sum to one, up to half a sample beyond the ends.
        """
        start = self.starts[patch]
        if self.axis.kind == "slice":
            inside = np.flatnonzero((positions >= start) & (positions < start + self.size))
            return inside, positions[inside], np.ones(len(inside))
        unwrapped, ramp = self._ramp(start, positions)
        inside = np.flatnonzero(ramp)
        total = np.zeros(len(inside))
        for other in self._around(start):
            total += self._ramp(other, positions[inside])[1]
        return inside, unwrapped[inside], ramp[inside] / total

    def _ramp(self, start: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions as the patch at `start` counts them, and its weights there: not yet shares, 0 outside."""
        unwrapped = positions
        if self.axis.kind == "periodic":
            unwrapped = start - 0.5 + (positions - start + 0.5) % self.axis.size
        local = unwrapped - (start - 0.5)
        ramp = np.minimum(local, self.size - local) / self.overlap if self.overlap else np.ones_like(local)
        return unwrapped, np.where((local >= 0) & (local <= self.size), np.clip(ramp, 1e-3, 1.0), 0.0)

    def _around(self, start: int) -> list[int]:
        """Return the starts of all patches that may share samples with the one at `start`, ascending."""
        starts, size, whole = self.starts, self.size + 1, self.axis.size
        turns = (-whole, 0, whole) if self.axis.kind == "periodic" else (0,)
        found: set[int] = set()
        for turn in turns:
            first = bisect_left(starts, start - size - turn)
            found.update(starts[first : bisect_right(starts, start + size - turn)])
        return sorted(found)


KEPT_SAMPLES = 1 << 18
"""Samples of patches along an axis whose coverage is kept, as it is asked for again by each patch beside."""


class AxisCoverage:
    """The samples of `target` that each patch along an axis covers; found when asked for, as there may be many."""

    def __init__(self, patches: AxisPatches, target: Axis) -> None:
        self._patches = patches
        self._target = target
        self._found = lru_cache(max(2, KEPT_SAMPLES // patches.size))(self._find)

    def __getitem__(self, patch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the indices int64 [m], positions float64 [m] and weights float64 [m] of a patch.

        The weights of all patches sum to one at every index.
        """
        return self._found(patch)

    def _find(self, patch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        patches = self._patches
        start = patches.starts[patch]
        if patches.axis.kind == "slice":
            near = np.arange(start, min(start + patches.size, patches.axis.size))
            positions = near.astype(np.float64)
        else:
            near, positions = self._near(start)
        inside, unwrapped, shares = patches.shares(patch, positions)
        order = np.argsort(unwrapped, kind="stable")
        return near[inside[order]], unwrapped[order], shares[order]

    def _near(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of all samples that the patch at `start` may cover, ascending, and their positions."""
        axis, size = self._patches.axis, self._patches.size
        turns = (-axis.size, 0, axis.size) if axis.kind == "periodic" else (0,)
        ranges = []
        for turn in turns:
            first, last = axis.indices(self._target, start - 1 - turn, start + size + 1 - turn)
            ranges.append(np.arange(first, last))
        near = ranges[0] if len(ranges) == 1 else np.unique(np.concatenate(ranges))
        return near, axis.positions_at(self._target, near)


def axis_layout(axis: Axis, nominal: int, overlap: int) -> tuple[int, int]:
    """Return how many patches of how many samples cover an axis evenly, as near to `nominal` as can be."""
    if axis.kind == "slice":
        count = max(1, round(axis.size / nominal))
        size = -(-axis.size // count)
        return -(-axis.size // size), size
    if axis.kind == "periodic" and axis.size > nominal:
        count = max(2, round(axis.size / (nominal - overlap)))
        return count, min(axis.size, -(-axis.size // count) + overlap)
    count = max(1, round((axis.size - overlap) / (nominal - overlap)))
    return count, min(axis.size, -(-(axis.size + (count - 1) * overlap) // count))


def cover_axis(axis: Axis, nominal: int, overlap: int) -> AxisPatches:
    """Return the patches along an axis."""
    count, size = axis_layout(axis, nominal, overlap)
    if axis.kind == "slice":
        return AxisPatches(axis, size, tuple(range(0, axis.size, size)))
    if axis.kind == "periodic" and count > 1:
        return AxisPatches(axis, size, tuple(patch * axis.size // count for patch in range(count)))
    last = axis.size - size
    return AxisPatches(axis, size, tuple(patch * last // max(count - 1, 1) for patch in range(count)))
