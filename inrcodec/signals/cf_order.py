"""The order of the leading dimensions of a climate field: neighbours along the last one predict each other best."""

from collections.abc import Callable, Sequence

import numpy as np

PAIRS = 8
"""Pairs of neighbours along each dimension that are compared."""

SAMPLED_VALUES = 1 << 14
"""Values of a slice that are looked at, about."""


def leading_order(sizes: Sequence[int], read: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """Return the leading dimensions in the order that suits the coding of their slices, by their places.

    The further two neighbours along a dimension are apart, the earlier it comes. Where nothing differs, the order of
    the file stays.

    sizes: of the leading dimensions. read: returns values and mask [H, W] of a slice.
    """
    leading = list(range(len(sizes)))
    several = [axis for axis in leading if sizes[axis] > 1]
    if len(several) < 2:
        return leading
    distances = {axis: _distance(sizes, axis, read) for axis in several}
    ordered = sorted(several, key=lambda axis: -distances[axis])
    return leading if ordered == several else [axis for axis in leading if axis not in several] + ordered


def _distance(sizes: Sequence[int], axis: int, read: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> float:
    """Return how far neighbours along an axis are apart, in the mean."""
    total, count = 0.0, 0
    pairs = np.prod(sizes) // sizes[axis] * (sizes[axis] - 1)
    for pair in np.unique(np.linspace(0, pairs - 1, PAIRS).round().astype(int)):
        fewer = [size - (place == axis) for place, size in enumerate(sizes)]
        first = np.array(np.unravel_index(pair, fewer))
        second = first + (np.arange(len(sizes)) == axis)
        (one, gaps), (other, others) = (read(int(np.ravel_multi_index(tuple(each), sizes))) for each in (first, second))
        step = max(1, int((one.size / SAMPLED_VALUES) ** 0.5))
        some = (slice(step // 2, None, step),) * 2
        with np.errstate(over="ignore", invalid="ignore"):
            difference = np.abs(one[some].astype(np.float64) - other[some])
        present = ~(gaps[some] | others[some]) & np.isfinite(difference)
        total, count = total + float(difference[present].sum()), count + int(np.count_nonzero(present))
    return total / count if count else 0.0
