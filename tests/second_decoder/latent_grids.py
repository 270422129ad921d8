"""The grids of latents, and the passes in which they are coded.

It follows "Which grids do latents have?" and "Which groups, phases and parts are there?" of docs/FORMAT.md.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from second_decoder.arrays import at, ceil_div, cropped

Slices = tuple[slice, ...]
Shape = tuple[int, ...]

DIVIDED_LEVELS = 3
"""How many of the finest levels have parts."""


@dataclass(frozen=True)
class Pass:
    """The symbols of one level, phase, group and part.

    name: B.N.p.g. channels, details: those of the group, among the channels and the details of the level.
    before: the details of the groups before it. points: of the phase grid, the part's. shape: how many of them there
    are along every axis that have details. place: these on the level's grid, as an index of [patches, C B, *grid].
    """

    level: int
    phase: int
    group: int
    part: int
    name: str
    channels: slice
    details: slice
    before: slice
    points: Slices
    shape: Shape
    place: tuple[slice, ...]


@dataclass(frozen=True)
class LatentGrids:
    """The grids of a field's latents.

    levels: how often each axis is split (L_a). groups: the channels of each. divided: phases that have parts.
    grid: of the patch, or of the spectrum's plane. bare: how many of the finest levels have the first group only.
    """

    levels: Sequence[int]
    groups: Sequence[int]
    divided: int
    grid: Shape
    bare: int = 0

    @property
    def depth(self) -> int:
        """D, the number of levels."""
        return max(self.levels)

    @property
    def channels(self) -> int:
        """C, of all groups."""
        return sum(self.groups)

    def split_axes(self, level: int) -> list[int]:
        """Return the axes that a level splits."""
        return [axis for axis, splits in enumerate(self.levels) if level < splits]

    def closed(self, level: int, around: Sequence[bool]) -> list[bool]:
        """Return which axes are closed on a level. around: which the patch goes all around."""
        return [each and size % 2 == 0 for each, size in zip(around, self.whole(level), strict=True)]

    def bands(self, level: int) -> int:
        """Return B, how many bands of details a level has."""
        return int(2 ** len(self.split_axes(level))) - 1

    def whole(self, level: int) -> Shape:
        """Return the grid that a level splits; that of level D is the means'."""
        sizes = list(self.grid)
        for finer in range(level):
            for axis in self.split_axes(finer):
                sizes[axis] = ceil_div(sizes[axis], 2)
        return tuple(sizes)

    def halves(self, level: int) -> Shape:
        """Return the grid of the halves of a level."""
        return self.whole(level + 1)

    def details_shape(self, level: int) -> Shape:
        """Return the shape of a level's details."""
        return (self.channels * self.bands(level), *self.halves(level))

    @property
    def means_shape(self) -> Shape:
        """The shape of the means."""
        return (self.channels, *self.whole(self.depth))

    @property
    def latents(self) -> int:
        """How many latents a patch has."""
        details = sum(math.prod(self.details_shape(level)) for level in range(self.depth))
        return details + math.prod(self.means_shape)

    def interleaved(self, level: int) -> list[int]:
        """Return the interleaved axes of a level."""
        return self.split_axes(min(level + 1, self.depth - 1))

    def phases(self, level: int) -> list[Slices]:
        """Return where the details of each phase stand along the axes of a level's grid."""
        axes = self.interleaved(level)
        binary = list(itertools.product((0, 1), repeat=len(axes)))
        ordered = []
        for offsets in binary[: len(binary) // 2]:
            ordered += [offsets, tuple(1 - offset for offset in offsets)]
        by_axis = [dict(zip(axes, offsets, strict=True)) for offsets in ordered]
        return [
            tuple(slice(each[axis], None, 2) if axis in each else slice(0, None, 1) for axis in range(len(self.levels)))
            for each in by_axis
        ]

    def phase_grid(self, level: int) -> Shape:
        """Return the sizes of a level's phase grid."""
        axes = self.interleaved(level)
        return tuple(ceil_div(n, 2) if axis in axes else n for axis, n in enumerate(self.halves(level)))

    def on_phase_grid(self, details: np.ndarray, level: int, phase: int) -> np.ndarray:
        """Return the details of a phase on the phase grid, 0 where there is none."""
        there = details[at(self.phases(level)[phase])]
        grid = self.phase_grid(level)
        result = np.zeros((*there.shape[:2], *grid), there.dtype)
        cropped(result, there.shape[2:])[...] = there
        return result

    def parts(self, level: int, phase: int, group: int) -> list[Slices]:
        """Return the points of the phase grid that each part of a phase and group has, empty parts included."""
        if level < DIVIDED_LEVELS and phase < self.divided and group == 0:
            return self.phases(level)
        return [(slice(0, None, 1),) * len(self.levels)]

    def coded_groups(self, level: int) -> int:
        """Return how many groups have symbols on a level."""
        return 1 if level < self.bare else len(self.groups)

    def networks(self) -> Iterator[tuple[int, int, int]]:
        """Yield a (level, phase, group) for each combination; some have equal names."""
        for level in range(self.depth):
            for phase, group in itertools.product(range(len(self.phases(level))), range(len(self.groups))):
                yield level, phase, group

    def name(self, level: int, phase: int, group: int) -> str:
        """Return B.N.p.g."""
        return f"{self.bands(level)}.{len(self.phases(level))}.{phase}.{group}"

    def passes(self, level: int) -> Iterator[Pass]:
        """Yield the passes of a level in coding order."""
        grid, bands = self.phase_grid(level), self.bands(level)
        for phase, in_level in enumerate(self.phases(level)):
            for group, channels in enumerate(self.groups[: self.coded_groups(level)]):
                first = sum(self.groups[:group])
                details = slice(bands * first, bands * (first + channels))
                for part, points in enumerate(self.parts(level, phase, group)):
                    if 0 in _sizes(grid, points):
                        continue
                    place = tuple(map(_nested, in_level, points))
                    yield Pass(
                        level=level,
                        phase=phase,
                        group=group,
                        part=part,
                        name=self.name(level, phase, group),
                        channels=slice(first, first + channels),
                        details=details,
                        before=slice(0, details.start),
                        points=points,
                        shape=_sizes(self.halves(level), place),
                        place=(slice(None), details, *place),
                    )


def _sizes(grid: Shape, slices: Slices) -> Shape:
    """Return how many points of a grid some slices have."""
    return tuple(len(range(size)[of_axis]) for size, of_axis in zip(grid, slices, strict=True))


def _nested(outer: slice, inner: slice) -> slice:
    """Return the places of `inner`, counted among those of `outer`."""
    return slice(outer.start + outer.step * inner.start, None, outer.step * inner.step)
