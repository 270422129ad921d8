"""The order in which the latents of a field are decoded.

Levels go from coarse to fine, each in 2^n interleaved *phases*: the grid is cut into its 2^n polyphase components
along the n axes that the next coarser level splits, so that a phase has exactly the shape of that level. Within a
phase the channels come in groups. The first phases see no neighbours on the lines that edges follow; so they can be
divided, each group into 2^n interleaved *parts* in the same way. The latents of one (level, phase, group, part) are a
*pass*: their predictions may depend on all passes before, and they are coded together.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Place:
    """Where the latents of one pass stand: `latents[level][index]` is [B, channels, *shape].

    index: of a level's latents [B, C * bands, *half]. phase, group, part: counted within level, phase and group.
    shape: of the pass. grid: in which all phases of the level fit. within: which points of the grid the pass has.
    """

    level: int
    phase: int
    group: int
    part: int
    index: tuple[slice, ...]
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    within: tuple[slice, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape in which a pass like this one fits, at most one sample larger along each axis."""
        return _shape(self.grid, self.within)


@dataclass(frozen=True)
class Order:
    """The order in which the latents of a field are decoded.

    groups: sizes of the groups of channels. splits: how often each axis is halved.
    divided: how many of the first phases of a level come in parts.
    """

    groups: tuple[int, ...]
    splits: tuple[int, ...]
    divided: int = 0

    @property
    def depth(self) -> int:
        return max(self.splits)

    def axes(self, level: int) -> tuple[int, ...]:
        """Return the axes that a level splits."""
        return tuple(axis for axis, splits in enumerate(self.splits) if level < splits)

    def interleaved(self, level: int) -> tuple[int, ...]:
        """Return the axes along which the phases of a level alternate."""
        return self.axes(min(level + 1, self.depth - 1))

    def bands(self, level: int) -> int:
        return int(2 ** len(self.axes(level))) - 1

    def phases(self, level: int) -> int:
        return int(2 ** len(self.interleaved(level)))

    def parts(self, level: int, phase: int) -> int:
        return self.phases(level) if phase < self.divided else 1

    def channels(self, level: int, group: int) -> slice:
        """Return where the bands of a group stand among the channels of a level's latents."""
        bands, members = self.bands(level), self.members(group)
        return slice(bands * members.start, bands * members.stop)

    def members(self, group: int) -> slice:
        """Return the channels of a group."""
        return slice(sum(self.groups[:group]), sum(self.groups[: group + 1]))

    def name(self, level: int, phase: int, group: int) -> str:
        """Return the name of a pass's networks: levels with the same bands and phases share them."""
        return f"{self.bands(level)}.{self.phases(level)}.{phase}.{group}"

    def passes(self, level: int, half: tuple[int, ...]) -> Iterator[Place]:
        """Yield the passes of a level whose bands have the shape `half`, in order."""
        grid = self.grid(level, half)
        for phase, slices in enumerate(self.phase_slices(level)):
            for group, (part, within) in itertools.product(
                range(len(self.groups)), enumerate(self.part_slices(level, phase))
            ):
                if 0 in _shape(grid, within):
                    continue
                along = tuple(_nested(outer, inner) for outer, inner in zip(slices, within, strict=True))
                index = (slice(None), self.channels(level, group), *along)
                yield Place(level, phase, group, part, index, _shape(half, along), grid, within)

    def grid(self, level: int, half: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in which all phases of a level fit."""
        axes = self.interleaved(level)
        return tuple(-(-size // 2) if axis in axes else size for axis, size in enumerate(half))

    def phase_slices(self, level: int) -> list[tuple[slice, ...]]:
        """Return the places of every phase: opposite corners follow each other, so that later phases see both sides."""
        axes = self.interleaved(level)
        corners = list(itertools.product((0, 1), repeat=len(axes)))
        first = corners[: len(corners) // 2]
        ordered = [corner for low in first for corner in (low, tuple(1 - offset for offset in low))]
        alternating = [dict(zip(axes, corner, strict=True)) for corner in ordered]
        return [
            tuple(slice(phase.get(axis, 0), None, 2 if axis in axes else 1) for axis in range(len(self.splits)))
            for phase in alternating
        ]

    def part_slices(self, level: int, phase: int) -> list[tuple[slice, ...]]:
        """Return the places of every part of a phase in its grid: as phases stand in a level."""
        if self.parts(level, phase) == 1:
            return [(slice(0, None, 1),) * len(self.splits)]
        return self.phase_slices(level)


def _shape(sizes: Sequence[int], slices: Sequence[slice]) -> tuple[int, ...]:
    return tuple(len(range(size)[along]) for size, along in zip(sizes, slices, strict=True))


def _nested(outer: slice, inner: slice) -> slice:
    """Return the places that `inner` has among those of `outer`; neither has an end."""
    return slice(outer.start + outer.step * inner.start, None, outer.step * inner.step)


def assemble(parts: Sequence[tuple[Place, Tensor]], shape: tuple[int, ...]) -> Tensor:
    """Put the latents of one level, [B, C * bands, *half] = `shape`, together from those of its passes."""
    whole = parts[0][1].new_empty(shape)
    for place, part in parts:
        whole[place.index] = part
    return whole


def padded(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Add zeros at the end of axes shorter than `grid`."""
    ends = [end for axis in reversed(range(len(grid))) for end in (0, grid[axis] - values.shape[axis + 2])]
    return functional.pad(values, ends) if any(ends) else values


def cropped(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `padded`: keep the beginning of every axis."""
    return values[(slice(None), slice(None), *[slice(0, size) for size in shape])]


def filled(earlier: Tensor | None, place: Place, values: Tensor) -> Tensor:
    """Add the values of one more pass to what is known of its phase, [B, channels, *grid]; None: nothing yet."""
    if place.extent == place.grid:
        return padded(values, place.grid)
    whole = values.new_zeros(*values.shape[:2], *place.grid) if earlier is None else earlier.clone()
    whole[(slice(None), slice(None), *place.within)] = padded(values, place.extent)
    return whole
