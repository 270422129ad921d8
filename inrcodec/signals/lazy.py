"""Signals that are never whole in memory: read, coded and written slab by slab.

A slab is some neighbouring indices of the first axis.

A `Signal` holds its values, a `LazySignal` reads them when they are asked for.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.signal import Axis, Signal

Rows = tuple[np.ndarray, np.ndarray | None]
"""Values [rows, *grid, C], and where they are missing: bool [rows, *grid], or None if none are."""


@dataclass(frozen=True, eq=False)
class LazySignal:
    """A signal whose values are not in memory. Fields are those of `Signal`, but

    dtype: of the values. channels: C. has_missing: whether any may be missing.
    read: returns the values and the mask of samples `begin` to before `end` of the first axis; asking for what comes
        later is always fast, going back need not be. The mask is None only where none are missing.
    count_missing: returns how many values are missing before an index of the first axis; None if that takes reading.
    ask: returns what fields show at points [axes, n], in samples, as [n, C] float64 in the unit of the values. None
        where there are no fields.
    """

    modality: str
    dtype: np.dtype
    axes: tuple[Axis, ...]
    channels: int
    value_range: tuple[float, float]
    read: Callable[[int, int], Rows]
    name: str = ""
    sphere: bool = False
    has_missing: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    slice_ranges: np.ndarray | None = None
    count_missing: Callable[[int], int] | None = None
    ask: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Grid shape, without the channels."""
        return tuple(axis.size for axis in self.axes)

    @property
    def samples(self) -> int:
        """Number of grid points."""
        return math.prod(self.shape)

    def part(self, begin: int, end: int) -> Signal:
        """Return the samples from `begin` to before `end` of the first axis; the attributes are those of the whole."""
        values, missing = self.read(begin, end)
        if missing is None and self.has_missing:
            missing = np.zeros(values.shape[:-1], bool)
        return Signal(
            modality=self.modality,
            values=values,
            axes=(self.axes[0].part(begin, end), *self.axes[1:]),
            value_range=self.value_range,
            name=self.name,
            sphere=self.sphere,
            missing=missing,
            attributes=self.attributes,
            slice_ranges=None if self.slice_ranges is None else self.slice_ranges[begin:end],
        )

    def loaded(self) -> Signal:
        """Return the signal with its values in memory."""
        return self.part(0, self.axes[0].size)


AnySignal = Signal | LazySignal


def lazy_like(signal: AnySignal, read: Callable[[int, int], Rows]) -> LazySignal:
    """Return what is said of a signal, with values that are read."""
    return LazySignal(
        modality=signal.modality,
        dtype=signal.dtype,
        axes=signal.axes,
        channels=signal.channels,
        value_range=signal.value_range,
        read=read,
        name=signal.name,
        sphere=signal.sphere,
        has_missing=signal.has_missing,
        attributes=signal.attributes,
        slice_ranges=signal.slice_ranges,
    )


SLAB_VALUES = 1 << 22
"""Values of a slab, about: what of a signal is in memory at least."""


def slab_rows(axes: tuple[Axis, ...], channels: int) -> int:
    """Return how many indices of the first axis make a slab; the last one of a signal may be shorter."""
    return max(1, SLAB_VALUES // (math.prod(axis.size for axis in axes[1:]) * channels))


def slab_count(axes: tuple[Axis, ...], channels: int) -> int:
    """Return how many slabs there are."""
    return -(-axes[0].size // slab_rows(axes, channels))


def slabs_of(signal: AnySignal) -> Iterator[tuple[int, Signal]]:
    """Yield the slabs of a signal in order, each with its first index."""
    size, rows = signal.axes[0].size, slab_rows(signal.axes, signal.channels)
    for begin in range(0, size, rows):
        yield begin, signal.part(begin, min(begin + rows, size))


class ForwardReader:
    """Reads rows, for `LazySignal.read`, from what yields them one block after the other.

    begin: starts to yield from the first row on; called again when a row is asked for that went by.
    """

    def __init__(self, begin: Callable[[], Iterator[Rows]]) -> None:
        self._begin = begin
        self._blocks: Iterator[Rows] | None = None
        self._first = 0  # row of the first of `_kept`
        self._kept: list[Rows] = []

    def __call__(self, begin: int, end: int) -> Rows:
        if self._blocks is None or begin < self._first:
            self._blocks, self._first, self._kept = self._begin(), 0, []
        while self._kept and self._first + len(self._kept[0][0]) <= begin:
            self._first += len(self._kept.pop(0)[0])
        last = self._first + sum(len(values) for values, _ in self._kept)
        while last < end:
            block = next(self._blocks, None)
            if block is None:
                raise SignalError(f"only {last} of {end} samples can be read: the file has changed since it was opened")
            last += len(block[0])
            if last <= begin:
                self._first = last
            else:
                self._kept.append(block)
        values = joined([values for values, _ in self._kept])
        masks = [mask for _, mask in self._kept]
        missing = None
        if any(mask is not None for mask in masks):
            missing = joined(
                [np.zeros(values.shape[:-1], bool) if mask is None else mask for values, mask in self._kept]
            )
        own = slice(begin - self._first, end - self._first)
        return values[own], None if missing is None else missing[own]


def joined(blocks: list[np.ndarray]) -> np.ndarray:
    """Return arrays one after the other, without a copy of a single one."""
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


class Window:
    """Rows of a signal of which each is read once: those that were asked for, without those that are done with.

    It stands for the signal itself where rows are asked for in about ascending order.
    """

    def __init__(self, signal: AnySignal) -> None:
        self.signal = signal
        self.channels, self.value_range, self.slice_ranges = signal.channels, signal.value_range, signal.slice_ranges
        self._first = self._last = 0
        self._kept: list[Signal] = []
        self._found: tuple[int, int, Signal] | None = None

    def part(self, begin: int, end: int) -> Signal:
        """Return the rows from `begin` to before `end`; none may be done with."""
        if isinstance(self.signal, Signal):
            return self.signal.part(begin, end)
        if self._found is not None and self._found[:2] == (begin, end):
            return self._found[2]
        if end > self._last:
            self._kept.append(self.signal.part(self._last, end))
            self._last = end
        place = self._first
        some = []
        for part in self._kept:
            low, high = max(begin - place, 0), min(end - place, len(part.values))
            if low < high:
                some.append(part.part(low, high))
            place += len(part.values)
        found = some[0] if len(some) == 1 else _together(some, self.signal.axes[0].part(begin, end))
        self._found = begin, end, found
        return found

    def done(self, end: int) -> None:
        """Let go of the rows before `end`."""
        while self._kept and self._first + len(self._kept[0].values) <= end:
            self._first += len(self._kept.pop(0).values)


def _together(parts: list[Signal], axis: Axis) -> Signal:
    masks = [part.missing for part in parts if part.missing is not None]
    ranges = [part.slice_ranges for part in parts if part.slice_ranges is not None]
    return replace(
        parts[0],
        values=np.concatenate([part.values for part in parts]),
        axes=(axis, *parts[0].axes[1:]),
        missing=np.concatenate(masks) if masks else None,
        slice_ranges=np.concatenate(ranges) if ranges else None,
    )
