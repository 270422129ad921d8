"""Arithmetic on arrays: convolutions, interpolation and gelu.

It follows "Notation" of docs/FORMAT.md. Arrays are [n, channels, *grid] unless said otherwise.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def ceil_div(a: int, b: int) -> int:
    """Return ⌈a / b⌉."""
    return -(-a // b)


def at(slices: Sequence[slice]) -> tuple[slice, ...]:
    """Return the index of some points of the grid, of all channels."""
    return (slice(None), slice(None), *slices)


def cropped(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the first points along every axis of the grid."""
    return values[at([slice(size) for size in shape])]


def gelu(x: np.ndarray) -> np.ndarray:
    """Return x (1 + erf(x / √2)) / 2."""
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def along(numbers: np.ndarray, dimension: int, dimensions: int) -> np.ndarray:
    """Return numbers [n] as they broadcast along one dimension of several."""
    return numbers.reshape([-1 if each == dimension else 1 for each in range(dimensions)])


def bias(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return numbers, one for each channel, as they are added to values."""
    return along(numbers, 1, values.ndim)


def pointwise(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Apply a weight [out, in] at every point."""
    return (weight @ values.reshape(*values.shape[:2], -1)).reshape(len(values), len(weight), *values.shape[2:])


def convolution(values: np.ndarray, weight: np.ndarray, *, edge: bool = False) -> np.ndarray:
    """Convolve with a weight [out, in, *taps], with zeros beyond the grid, or its nearest points (edge)."""
    sizes = values.shape[2:]
    wide = np.pad(values, [(0, 0), (0, 0), *[(1, 1)] * len(sizes)], mode="edge" if edge else "constant")
    result = np.zeros((len(values), len(weight), *sizes), np.result_type(values, weight))
    for taps in itertools.product(range(3), repeat=len(sizes)):
        seen = wide[at([slice(tap, tap + size) for tap, size in zip(taps, sizes, strict=True)])]
        result += pointwise(seen, weight[(slice(None), slice(None), *taps)])
    return result


def cubic_weight(distance: np.ndarray, a: float) -> np.ndarray:
    """Return c(d) of cubic convolution."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def cubic_convolution(values: np.ndarray, dimension: int, positions: np.ndarray, *, closed: bool) -> np.ndarray:
    """Interpolate at positions [m] along one dimension, with a = -1/2. At whole positions the samples return."""
    size = values.shape[dimension]
    first = np.floor(positions).astype(int) - 1
    total = np.zeros(())
    for sample in range(4):
        index = first + sample
        weight = cubic_weight(positions - index, -0.5)
        index = index % size if closed else index.clip(0, size - 1)
        total = total + np.take(values, index, dimension) * along(weight, dimension, values.ndim)
    return total.astype(values.dtype)
