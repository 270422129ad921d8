"""The order of the leading dimensions of a climate field: neighbours along the last one predict each other best."""

from collections.abc import Sequence

import numpy as np

from inrcodec.signals.cf_packing import Packing, unpack

SAMPLED_VALUES = 1 << 20
"""Values that are looked at, about."""


def leading_order(stored: np.ndarray, packing: Packing) -> list[int]:
    """Return the leading dimensions of stored numbers [*leading, H, W] in the order that suits their coding.

    The further two neighbours along a dimension are apart, the earlier it comes. Where nothing differs, the order of
    the file stays.
    """
    leading = list(range(stored.ndim - 2))
    several = [axis for axis in leading if stored.shape[axis] > 1]
    if len(several) < 2:
        return leading
    step = max(1, int((stored.size / SAMPLED_VALUES) ** 0.5))
    sample = np.ascontiguousarray(stored[..., step // 2 :: step, step // 2 :: step])
    values, missing = unpack(sample, packing)
    values = np.where(missing | ~np.isfinite(values), np.nan, values.astype(np.float64))
    ordered = sorted(several, key=lambda axis: -_distance(values, axis))
    return leading if ordered == several else [axis for axis in leading if axis not in several] + ordered


def restored(values: np.ndarray, sizes: Sequence[int], order: Sequence[int]) -> np.ndarray:
    """Return slices [S, H, W] as [*sizes, H, W], the leading dimensions as they were before they came in an order.

    Raises: ValueError if `order` is no order of the dimensions.
    """
    if sorted(order) != list(range(len(sizes))):
        raise ValueError(f"{list(order)!r:.80} is no order of {len(sizes)} dimensions")
    ordered = values.reshape(*(sizes[axis] for axis in order), *values.shape[1:])
    places = [list(order).index(axis) for axis in range(len(sizes))]
    return ordered.transpose(*places, len(sizes), len(sizes) + 1)


def _distance(values: np.ndarray, axis: int) -> float:
    """Return how far neighbours along an axis are apart, in the mean."""
    differences = np.abs(np.diff(values, axis=axis))
    present = np.isfinite(differences)
    return float(differences[present].mean()) if present.any() else 0.0
