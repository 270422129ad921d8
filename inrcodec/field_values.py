"""Native values of a signal to what a field is shown, and back."""

import math

import numpy as np

from inrcodec.errors import UsageError
from inrcodec.signals.lazy import AnySignal

BLOCK_VALUES = 1 << 20
"""Values that are converted at once, about."""


def unit_values(signal: AnySignal, values: np.ndarray, slices: np.ndarray | None = None) -> np.ndarray:
    """Turn native values [points, C] into those in [0, 1] that the field is shown, float64.

    slices: numbers of the values' slices, each of as many points, where slices have ranges of their own.
    """
    low, high = signal.value_range
    if signal.slice_ranges is None or slices is None:
        return (values.astype(np.float64) - low) / (high - low)
    low, high = np.moveaxis(signal.slice_ranges[slices], 1, 0)[..., np.newaxis, np.newaxis]
    by_slice = values.astype(np.float64).reshape(len(slices), -1, values.shape[-1])
    return ((by_slice - low) / (high - low)).reshape(values.shape)


def native_values(values: np.ndarray, ranges: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Turn field values in [0, 1] into native ones; integers are rounded and clipped to what their type holds.

    ranges: [2], the native values of 0 and 1, or [len(values), 2], those of every slice. What is not a number, as the
    networks of strangers may give, counts as 1/2.
    """
    native = np.empty(values.shape, dtype)
    lows, highs = (
        np.broadcast_to(ranges, (len(values), 2)).reshape(-1, 2, *(1 for _ in values.shape[1:])).swapaxes(0, 1)
    )
    rows = max(1, BLOCK_VALUES // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):  # for the memory that 64 bits need
        some = slice(start, start + rows)
        shown = values[some]
        exact = np.where(np.isnan(shown), 0.5, shown.astype(np.float64)) * (highs[some] - lows[some]) + lows[some]
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            exact = np.rint(exact).clip(limits.min, limits.max)
        with np.errstate(over="ignore"):  # to infinity
            native[some] = exact
    return native


def field_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Return values [..., C] for a field with `channels` outputs: a single channel is shown to all of them."""
    return np.repeat(values, channels, axis=-1) if values.shape[-1] == 1 else values


def signal_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Undo `field_channels`: take the mean of the outputs that showed a single channel.

    They are added one after the other: the order that numpy chooses depends on how the values lie in memory.
    """
    if channels != 1:
        return values
    total = values[..., :1]
    for channel in range(1, values.shape[-1]):
        total = total + values[..., channel : channel + 1]
    return total / values.dtype.type(values.shape[-1])


def check_channels(signal: AnySignal, channels: int) -> None:
    """Raises: UsageError if a field with `channels` outputs cannot show a signal."""
    if signal.channels not in (1, channels):
        raise UsageError(
            f"the signal has {signal.channels} channels, the initialization's field {channels}: "
            "choose another initialization"
        )
