"""Latents and their networks written out in NumPy's and Python's integers, to compare with."""

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from inrcodec.models.order import Order
from inrcodec.models.wavelet import Level

Offsets = tuple[int | None, ...]


def phases_of(order: Order, level: int) -> list[Offsets]:
    """Return the offset of every phase along every axis, None where it has all places."""
    depth = max(order.splits)
    split = [axis for axis, splits in enumerate(order.splits) if min(level + 1, depth - 1) < splits]
    binary = list(itertools.product((0, 1), repeat=len(split)))
    result: list[Offsets] = []
    for corner in binary[: len(binary) // 2]:
        for offsets in (corner, tuple(1 - offset for offset in corner)):
            along = dict(zip(split, offsets, strict=True))
            result.append(tuple(along.get(axis) for axis in range(len(order.splits))))
    return result


def bands_of(order: Order, level: int) -> int:
    """Return how many detail bands a level has."""
    return int(2 ** sum(level < splits for splits in order.splits)) - 1


def has_parts(order: Order, level: int, phase: int, group: int) -> bool:
    return level < 3 and phase < order.divided and group == 0


def is_at(place: Sequence[int], offsets: Offsets) -> bool:
    return all(offset is None or p % 2 == offset for p, offset in zip(place, offsets, strict=True))


def cell_of(place: Sequence[int], offsets: Offsets) -> tuple[int, ...]:
    """Return where a place of a level stands in the grid of its phase."""
    return tuple(p if offset is None else p // 2 for p, offset in zip(place, offsets, strict=True))


def place_of(cell: Sequence[int], offsets: Offsets) -> tuple[int, ...]:
    """Undo `cell_of`."""
    return tuple(c if offset is None else 2 * c + offset for c, offset in zip(cell, offsets, strict=True))


def every_pass(order: Order, levels: Sequence[Level]) -> Iterator[tuple[tuple[int, int, int, int], list[tuple]]]:
    """Yield (level, phase, group, part) of every pass, and the (channel, *place) of each of its latents."""
    for level in reversed(range(len(levels))):
        phases, bands = phases_of(order, level), bands_of(order, level)
        for phase, group in itertools.product(range(len(phases)), range(len(order.groups))):
            if group > 0 and level < order.bare:
                continue
            first = bands * sum(order.groups[:group])
            channels = range(first, first + bands * order.groups[group])
            in_parts = has_parts(order, level, phase, group)
            for part in range(len(phases) if in_parts else 1):
                latents = [
                    (channel, *place)
                    for channel, *place in itertools.product(channels, *map(range, levels[level].half))
                    if is_at(place, phases[phase])
                    and (not in_parts or is_at(cell_of(place, phases[phase]), phases[part]))
                ]
                yield (level, phase, group, part), latents


def in_units(weight: np.ndarray, unit: int) -> np.ndarray:
    """Round weights to integers."""
    return np.rint(weight.astype(np.float64) * unit).astype(np.int64)


def parabola(table: np.ndarray, level: int, step_index: int) -> np.ndarray:
    """Return a level's biases [n], in units of a sum, from a table [levels + 2, n] and a step index."""
    units, eighths = in_units(table, 1 << 14), step_index + 24
    return (64 * units[level] + 8 * eighths * units[-2] + eighths**2 * units[-1]) // 64


def centred(values: Sequence[float]) -> list[int]:
    """Centre the weights of one channel, in units of 1 / 128, by fractions."""
    fine = [Fraction(round(Fraction(value) * 2**24), 2**24) for value in values]
    units = [128 * (value - sum(fine) / len(fine)) for value in fine]
    rounded = [math.floor(value) for value in units]
    by_loss = sorted(range(len(units)), key=lambda index: rounded[index] - units[index])
    for index in by_loss[: -sum(rounded)]:
        rounded[index] += 1
    return rounded


def convolved(values: np.ndarray, weight: np.ndarray, padding: str | int, stride: int = 1) -> np.ndarray:
    """Convolve integers [n, *grid] with [out, n, *taps] in int64; padding: zeros, or "edge" of one."""
    dimensions = values.ndim - 1
    if isinstance(padding, str):
        values = np.pad(values, [(0, 0)] + [(1, 1)] * dimensions, "edge")
    else:
        values = np.pad(values, [(0, 0)] + [(padding, padding)] * dimensions)
    windows = np.lib.stride_tricks.sliding_window_view(values, weight.shape[2:], axis=tuple(range(1, values.ndim)))
    windows = windows[(slice(None), *[slice(None, None, stride)] * dimensions)]
    contracted = [0, *range(1 + dimensions, 1 + 2 * dimensions)]
    result: np.ndarray = np.tensordot(weight, windows, (range(1, weight.ndim), contracted))
    return result


def activated(sums: np.ndarray) -> np.ndarray:
    """Apply the rectifier to sums in units of activations."""
    return np.floor(sums).clip(0, 2047).astype(np.int64)
