"""The wavelet transform by lifting in NumPy, one operation after the other in the type of the arrays."""

import math
from collections.abc import Sequence

import numpy as np

A, B, C, D = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971
K = math.sqrt(2) / 1.230174104914001


def split_axis(values: np.ndarray, axis: int, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high band along an axis."""
    values = np.moveaxis(values, axis, 0)
    closed = closed and len(values) % 2 == 0
    if len(values) % 2:
        values = np.concatenate([values, values[-1:]])
    even, odd = values[::2], values[1::2]
    odd = odd + A * (even + _after(even, closed))
    even = even + B * (odd + _before(odd, closed))
    odd = odd + C * (even + _after(even, closed))
    even = even + D * (odd + _before(odd, closed))
    return np.moveaxis(even * K, 0, axis), np.moveaxis(odd * (1 / K), 0, axis)


def split(values: np.ndarray, axes: Sequence[int], closed: Sequence[bool]) -> list[np.ndarray]:
    """Return the bands of one level of values [C, *grid]: the low one, then the others in binary order."""
    parts = [values]
    for axis in axes:
        parts = [half for part in parts for half in split_axis(part, axis + 1, closed[axis])]
    return parts


def join(
    bands: Sequence[np.ndarray], axes: Sequence[int], closed: Sequence[bool], grid: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Undo `split`: return the grid, [C, *grid], and before odd axes are cut."""
    count = len(axes)
    parts = []
    for number, band in enumerate(bands):
        highs = [number >> (count - 1 - digit) & 1 for digit in range(count)]
        parts.append(band * math.prod(K if high else 1 / K for high in highs))
    for axis in reversed(axes):
        open_end = not closed[axis] or grid[axis] % 2 == 1
        parts = [_woven(low, high, axis + 1, not open_end) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    (even,) = parts
    return even[(slice(None), *(slice(0, size) for size in grid))], even


def _woven(low: np.ndarray, high: np.ndarray, axis: int, closed: bool) -> np.ndarray:
    even, odd = np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0)
    even = even - D * (odd + _before(odd, closed))
    odd = odd - C * (even + _after(even, closed))
    even = even - B * (odd + _before(odd, closed))
    odd = odd - A * (even + _after(even, closed))
    return np.moveaxis(np.stack([even, odd], 1).reshape(-1, *even.shape[1:]), 0, axis)


def _after(values: np.ndarray, closed: bool) -> np.ndarray:
    return np.concatenate([values[1:], values[:1] if closed else values[-1:]])


def _before(values: np.ndarray, closed: bool) -> np.ndarray:
    return np.concatenate([values[-1:] if closed else values[:1], values[:-1]])
