"""The order in which the latents of a field are decoded.

Levels go from coarse to fine, each in 2^n interleaved *phases*: the grid is cut into its 2^n polyphase components
along the n axes that the next coarser level splits, so that a phase has exactly the shape of that level. Within a
phase the channels come in groups. The latents of one (level, phase, group) are a *pass*: what is expected of them may
depend on all passes before, and they are coded together.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Place:
    """Where the latents of one pass stand: `latents[level][index]` is [B, channels, *shape].

    index: of a level's latents [B, C * bands, *half]. phase, group: counted within the level.
    shape: of the phase. grid: in which all phases of the level fit.
    """

    level: int
    phase: int
    group: int
    index: tuple[slice, ...]
    shape: tuple[int, ...]
    grid: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """groups: sizes of the groups of channels. splits: how often each axis is halved."""

    groups: tuple[int, ...]
    splits: tuple[int, ...]

    @property
    def depth(self) -> int:
        return max(self.splits)

    def axes(self, level: int) -> tuple[int, ...]:
        """The axes that a level splits."""
        return tuple(axis for axis, splits in enumerate(self.splits) if level < splits)

    def interleaved(self, level: int) -> tuple[int, ...]:
        """The axes along which the phases of a level alternate."""
        return self.axes(min(level + 1, self.depth - 1))

    def bands(self, level: int) -> int:
        return int(2 ** len(self.axes(level))) - 1

    def phases(self, level: int) -> int:
        return int(2 ** len(self.interleaved(level)))

    def channels(self, level: int, group: int) -> slice:
        """Where the bands of a group stand among the channels of a level's latents."""
        bands, members = self.bands(level), self.members(group)
        return slice(bands * members.start, bands * members.stop)

    def members(self, group: int) -> slice:
        """The channels of a group."""
        return slice(sum(self.groups[:group]), sum(self.groups[: group + 1]))

    def name(self, level: int, phase: int, group: int) -> str:
        """Of a pass's networks: levels with the same bands and phases share them."""
        return f"{self.bands(level)}.{self.phases(level)}.{phase}.{group}"

    def passes(self, level: int, half: tuple[int, ...]) -> Iterator[Place]:
        """Those of a level whose bands have the shape `half`, in order."""
        grid = self.grid(level, half)
        for phase, slices in enumerate(self.phase_slices(level)):
            shape = tuple(len(range(size)[along]) for size, along in zip(half, slices, strict=True))
            for group in range(len(self.groups)):
                index = (slice(None), self.channels(level, group), *slices)
                yield Place(level, phase, group, index, shape, grid)

    def grid(self, level: int, half: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which the phases of a level fit."""
        axes = self.interleaved(level)
        return tuple(-(-size // 2) if axis in axes else size for axis, size in enumerate(half))

    def phase_slices(self, level: int) -> list[tuple[slice, ...]]:
        """The places of every phase: opposite corners follow each other, so that later phases see both sides."""
        axes = self.interleaved(level)
        corners = list(itertools.product((0, 1), repeat=len(axes)))
        first = corners[: len(corners) // 2]
        ordered = [corner for low in first for corner in (low, tuple(1 - offset for offset in low))]
        alternating = [dict(zip(axes, corner, strict=True)) for corner in ordered]
        return [
            tuple(slice(phase.get(axis, 0), None, 2 if axis in axes else 1) for axis in range(len(self.splits)))
            for phase in alternating
        ]


def assemble(parts: Sequence[tuple[Place, Tensor]], shape: tuple[int, ...]) -> Tensor:
    """The latents of one level, [B, C * bands, *half] = `shape`, from those of its passes."""
    whole = parts[0][1].new_empty(shape)
    for place, part in parts:
        whole[place.index] = part
    return whole


def padded(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Zeros at the end of axes shorter than `grid`."""
    ends = [end for axis in reversed(range(len(grid))) for end in (0, grid[axis] - values.shape[axis + 2])]
    return functional.pad(values, ends) if any(ends) else values


def cropped(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `padded`: the beginning of every axis."""
    return values[(slice(None), slice(None), *[slice(0, size) for size in shape])]
