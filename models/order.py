"""The order in which the latents of a field are decoded.

Levels go from coarse to fine, each in 2^n interleaved *phases*: the grid is cut into its 2^n polyphase components
along the n axes that the next coarser level splits, so that a phase has exactly the shape of that level. Within a
phase the channels come in groups. The first phases see no neighbours on the lines that edges follow; so those of the
first group can be divided, on the finest levels, into 2^n interleaved *parts* in the same way. The latents of one
(level, phase, group, part) are a *pass*: their predictions may depend on all passes before, and they are coded
together. All that there is of latents, symbols among them, comes as a list with one tensor per pass, in this order.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.exact import applied, empty, in_layout
from inrcodec.models.wavelet import Level

DIVIDED_LEVELS = 3
"""Finest levels of which phases are divided: the others have few latents, and every pass takes its time."""

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Place:
    """Where the latents of one pass stand. Its tensors are [B, channels, *shape].

    level, phase, group, part: counted within the field, its level, phase and group.
    channels: how many. shape: along the grid axes; it can be empty.
    within: which points of the phase's grid the pass has.
    """

    level: int
    phase: int
    group: int
    part: int
    channels: int
    shape: tuple[int, ...]
    within: Slices

    @property
    def size(self) -> int:
        """Latents of one signal."""
        return self.channels * math.prod(self.shape)


@dataclass(frozen=True)
class Order:
    """The order in which the latents of a field are decoded.

    groups: sizes of the groups of channels. splits: how often each axis is halved.
    divided: how many of the first phases of a level come in parts.
    bare: how many of the finest levels have latents of the first group only; the others' are zero.
    """

    groups: tuple[int, ...]
    splits: tuple[int, ...]
    divided: int = 0
    bare: int = 0

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

    def parts(self, level: int, phase: int, group: int) -> int:
        divided = level < DIVIDED_LEVELS and phase < self.divided and group == 0
        return self.phases(level) if divided else 1

    def members(self, group: int) -> slice:
        """Return the channels of a group."""
        return slice(sum(self.groups[:group]), sum(self.groups[: group + 1]))

    def coded_groups(self, level: int) -> range:
        """Return the groups that have latents at a level."""
        return range(1 if level < self.bare else len(self.groups))

    def name(self, level: int, phase: int, group: int) -> str:
        """Return the name of a pass's networks: levels with the same bands and phases share them."""
        return f"{self.bands(level)}.{self.phases(level)}.{phase}.{group}"

    def networks(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield the networks there are: name, a level that has them, phase, group."""
        seen = set()
        for level in range(self.depth):
            for phase, group in itertools.product(range(self.phases(level)), range(len(self.groups))):
                name = self.name(level, phase, group)
                if name not in seen:
                    seen.add(name)
                    yield name, level, phase, group

    def places(self, levels: Sequence[Level]) -> list[Place]:
        """Return all passes of a field of these levels, finest first, in coding order."""
        return [
            place
            for level in reversed(range(len(levels)))
            for phase in range(self.phases(level))
            for group in self.coded_groups(level)
            for place in self.pass_places(level, phase, group, levels[level].half)
        ]

    def pass_places(self, level: int, phase: int, group: int, half: tuple[int, ...]) -> tuple[Place, ...]:
        """Return the passes of a phase and group of a level whose bands have the shape `half`."""
        return _pass_places(self, level, phase, group, half)

    def grid(self, level: int, half: Sequence[int]) -> tuple[int, ...]:
        """Return the shape in which all phases of a level fit."""
        axes = self.interleaved(level)
        return tuple(-(-size // 2) if axis in axes else size for axis, size in enumerate(half))

    def phase_slices(self, level: int) -> list[Slices]:
        """Return the places of every phase: opposite corners follow each other, so that later phases see both sides."""
        return _phase_slices(self.interleaved(level), len(self.splits))

    def part_slices(self, level: int, phase: int, group: int) -> list[Slices]:
        """Return the places of every part of a phase in its grid: as phases stand in a level."""
        if self.parts(level, phase, group) == 1:
            return [(slice(0, None, 1),) * len(self.splits)]
        return self.phase_slices(level)

    def split(self, details: Sequence[Tensor]) -> list[Tensor]:
        """Cut the details of every level, [B, C * bands, *half], finest first, into passes."""
        passes = []
        for level, whole in reversed(list(enumerate(details))):
            bands = self.bands(level)
            for phase, slices in enumerate(self.phase_slices(level)):
                for group in self.coded_groups(level):
                    members = self.members(group)
                    of_phase = whole[(slice(None), slice(bands * members.start, bands * members.stop), *slices)]
                    passes += [
                        in_layout(of_phase[(slice(None), slice(None), *within)])
                        for within in self.part_slices(level, phase, group)
                    ]
        return passes

    def together(self, phases: Sequence[Tensor], level: int, half: Sequence[int]) -> Tensor:
        """Put the phases of a level together, [B, n, *half]."""
        axes = self.interleaved(level)
        even = [2 * size if axis in axes else size for axis, size in enumerate(phases[0].shape[2:])]
        return cropped(interleave(phases, self.phase_slices(level), even), half)

    def merge(self, passes: Sequence[Tensor], levels: Sequence[Level]) -> list[Tensor]:
        """Undo `split`; where a group is not coded, its details are zero."""
        left = iter(passes)
        merged = []
        for index, level in reversed(list(enumerate(levels))):
            grid = self.grid(index, level.half)
            phases: list[list[Tensor]] = [[] for _ in self.groups]
            for phase in range(self.phases(index)):
                for group in self.coded_groups(index):
                    parts = self.part_slices(index, phase, group)
                    extents = [points_within(grid, within) for within in parts]
                    found = [padded(next(left), extent) for extent in extents]
                    phases[group].append(interleave(found, parts, grid))
            known = phases[0][0]
            details = [
                self.together(of_group, index, level.half)
                if of_group
                else known.new_zeros(len(known), size * self.bands(index), *level.half)
                for of_group, size in zip(phases, self.groups, strict=True)
            ]
            merged.append(torch.cat(details, 1))
        return merged[::-1]


@lru_cache(maxsize=1024)
def _pass_places(order: Order, level: int, phase: int, group: int, half: tuple[int, ...]) -> tuple[Place, ...]:
    own = points_within(half, order.phase_slices(level)[phase])
    channels = order.bands(level) * order.groups[group]
    return tuple(
        Place(level, phase, group, part, channels, points_within(own, within), within)
        for part, within in enumerate(order.part_slices(level, phase, group))
    )


@lru_cache(maxsize=64)
def _phase_slices(axes: tuple[int, ...], dimensions: int) -> list[Slices]:
    corners = [dict(zip(axes, corner, strict=True)) for corner in phase_corners(len(axes))]
    return [
        tuple(slice(corner.get(axis, 0), None, 2 if axis in axes else 1) for axis in range(dimensions))
        for corner in corners
    ]


def phase_corners(axes: int) -> list[tuple[int, ...]]:
    """Return the offsets of the phases along their axes, in order."""
    corners = list(itertools.product((0, 1), repeat=axes))
    first = corners[: len(corners) // 2]
    return [corner for low in first for corner in (low, tuple(1 - offset for offset in low))] or [()]


class _Interleave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shape: tuple[int, ...], slices: Sequence[Slices], *parts: Tensor | None) -> Tensor:
        known = next(part for part in parts if part is not None)
        whole = empty((*known.shape[:2], *shape), known)
        if any(part is None for part in parts):
            whole.zero_()
        for part, within in zip(parts, slices, strict=True):
            if part is not None:
                whole[(slice(None), slice(None), *within)] = part
        ctx.slices, ctx.known = slices, [part is not None for part in parts]
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        parts = [
            in_layout(gradients[0][(slice(None), slice(None), *within)]) if known else None
            for within, known in zip(ctx.slices, ctx.known, strict=True)
        ]
        return None, None, *parts


def interleave(parts: Sequence[Tensor | None], slices: Sequence[Slices], shape: Sequence[int]) -> Tensor:
    """Put tensors [B, n, ...] at their places in one of [B, n, *shape]; where there is None stands zero."""
    return applied(_Interleave, tuple(shape), tuple(slices), *parts)


def padded(values: Tensor, grid: Sequence[int]) -> Tensor:
    """Add zeros at the end of axes shorter than `grid`."""
    ends = [end for axis in reversed(range(len(grid))) for end in (0, grid[axis] - values.shape[axis + 2])]
    return functional.pad(values, ends) if any(ends) else values


def cropped(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo `padded`: keep the beginning of every axis."""
    if tuple(values.shape[2:]) == tuple(shape):
        return values
    return in_layout(values[(slice(None), slice(None), *[slice(0, size) for size in shape])])


def points_within(sizes: Sequence[int], slices: Slices) -> tuple[int, ...]:
    """Return how many points of a grid slices take along each axis."""
    return tuple(len(range(size)[along]) for size, along in zip(sizes, slices, strict=True))
