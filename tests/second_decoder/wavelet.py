"""The wavelet transform: bands to grids and back, in float32, every operation rounded.

It follows "How does the wavelet transform join bands?" and the section after it of docs/FORMAT.md. Arrays are
[n, channels, *grid]; axes are counted from the first of the grid.
"""

import math
from collections.abc import Sequence

import numpy as np

A, B, C, D = (np.float32(a) for a in (1.586134342059924, 0.052980118572961, 0.882911075530934, 0.443506852043971))
_K = math.sqrt(2) / 1.230174104914001
POWERS_OF_K = {n: np.float32(_K**n) for n in range(-3, 4)}


def _with_previous(values: np.ndarray, axis: int, closed: bool) -> np.ndarray:
    """Return each number plus the one before it, along an axis."""
    count = values.shape[axis + 2]
    return values + np.take(values, [count - 1 if closed else 0, *range(count - 1)], axis + 2)


def _with_next(values: np.ndarray, axis: int, closed: bool) -> np.ndarray:
    """Return each number plus the one after it, along an axis."""
    count = values.shape[axis + 2]
    return values + np.take(values, [*range(1, count), 0 if closed else count - 1], axis + 2)


def _join_axis(e: np.ndarray, o: np.ndarray, axis: int, closed: bool) -> np.ndarray:
    e = e - D * _with_previous(o, axis, closed)
    o = o - C * _with_next(e, axis, closed)
    e = e + B * _with_previous(o, axis, closed)
    o = o + A * _with_next(e, axis, closed)
    shape = list(e.shape)
    shape[axis + 2] *= 2
    return np.stack([e, o], axis + 3).reshape(shape)


def _split_axis(values: np.ndarray, axis: int, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    size = values.shape[axis + 2]
    e = np.take(values, range(0, size, 2), axis + 2)
    o = np.take(values, [min(place, size - 1) for place in range(1, size + 1, 2)], axis + 2)
    o = o - A * _with_next(e, axis, closed)
    e = e - B * _with_previous(o, axis, closed)
    o = o + C * _with_next(e, axis, closed)
    e = e + D * _with_previous(o, axis, closed)
    return e * POWERS_OF_K[1], o * POWERS_OF_K[-1]


def join(low: np.ndarray, details: np.ndarray, axes: Sequence[int], closed: Sequence[bool]) -> np.ndarray:
    """Return what a level's low band [n, C, *halves] and details [n, C B, *halves] make, not cut to the level's grid.

    axes: those that the level splits. closed: whether each axis is closed on this level.
    """
    bands = [low, *np.moveaxis(details.reshape(*low.shape[:2], -1, *low.shape[2:]), 2, 0)]
    bands = [band * POWERS_OF_K[2 * number.bit_count() - len(axes)] for number, band in enumerate(bands)]
    for axis in reversed(axes):
        pairs = zip(bands[::2], bands[1::2], strict=True)
        bands = [_join_axis(e, o, axis, closed[axis]) for e, o in pairs]
    return bands[0]


def split(values: np.ndarray, axes: Sequence[int], closed: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Return the low band and the details of a grid. axes, closed: as for `join`."""
    bands = [values]
    for axis in axes:
        bands = [half for band in bands for half in _split_axis(band, axis, closed[axis])]
    details = np.stack(bands[1:], 2)
    return bands[0], details.reshape(len(values), -1, *details.shape[3:])
