"""The wavelet transform: bands to grids and back.

It follows "How does the wavelet transform join bands?" and the section after it of docs/FORMAT.md. Arrays are
[n, channels, *grid]; axes are counted from the first of the grid.
"""

import math
from collections.abc import Sequence

import numpy as np

K = math.sqrt(2) / 1.230174104914001
A, B, C, D = 1.586134342059924, 0.052980118572961, 0.882911075530934, 0.443506852043971


def _ends(values: np.ndarray, axis: int, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what comes before the first and after the last along an axis."""
    first, last = np.take(values, [0], axis + 2), np.take(values, [-1], axis + 2)
    return (last, first) if closed else (first, last)


def _with_previous(values: np.ndarray, axis: int, closed: bool) -> np.ndarray:
    """Return each number plus the one before it, along an axis."""
    before, _ = _ends(values, axis, closed)
    count = values.shape[axis + 2]
    return values + np.take(np.concatenate([before, values], axis + 2), range(count), axis + 2)


def _with_next(values: np.ndarray, axis: int, closed: bool) -> np.ndarray:
    """Return each number plus the one after it, along an axis."""
    _, after = _ends(values, axis, closed)
    count = values.shape[axis + 2]
    return values + np.take(np.concatenate([values, after], axis + 2), range(1, count + 1), axis + 2)


def _join_axis(low: np.ndarray, high: np.ndarray, axis: int, size: int, around: bool) -> np.ndarray:
    closed = around and size % 2 == 0
    e, o = low / K, high * K
    e = e - D * _with_previous(o, axis, closed)
    o = o - C * _with_next(e, axis, closed)
    e = e + B * _with_previous(o, axis, closed)
    o = o + A * _with_next(e, axis, closed)
    shape = list(e.shape)
    shape[axis + 2] *= 2
    return np.take(np.stack([e, o], axis + 3).reshape(shape), range(size), axis + 2)


def _split_axis(values: np.ndarray, axis: int, around: bool) -> tuple[np.ndarray, np.ndarray]:
    size = values.shape[axis + 2]
    closed = around and size % 2 == 0
    e = np.take(values, range(0, size, 2), axis + 2)
    o = np.take(values, [min(place, size - 1) for place in range(1, size + 1, 2)], axis + 2)
    o = o - A * _with_next(e, axis, closed)
    e = e - B * _with_previous(o, axis, closed)
    o = o + C * _with_next(e, axis, closed)
    e = e + D * _with_previous(o, axis, closed)
    return e * K, o / K


def join(
    low: np.ndarray, details: np.ndarray, axes: Sequence[int], whole: Sequence[int], around: Sequence[bool]
) -> np.ndarray:
    """Return the grid that a level's low band [n, C, *halves] and details [n, C B, *halves] make.

    axes: those that the level splits. whole: sizes of the grid. around: whether the patch goes around each axis.
    """
    bands = [low, *np.moveaxis(details.reshape(*low.shape[:2], -1, *low.shape[2:]), 2, 0)]
    for axis in reversed(axes):
        pairs = zip(bands[::2], bands[1::2], strict=True)
        bands = [_join_axis(u, v, axis, whole[axis], around[axis]) for u, v in pairs]
    return bands[0]


def split(values: np.ndarray, axes: Sequence[int], around: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Return the low band and the details of a grid: what `join` was given."""
    bands = [values]
    for axis in axes:
        bands = [half for band in bands for half in _split_axis(band, axis, around[axis])]
    details = np.stack(bands[1:], 2)
    return bands[0], details.reshape(len(values), -1, *details.shape[3:])
