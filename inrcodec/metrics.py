"""How near a decoded signal is to its original."""

import math

import numpy as np

from inrcodec.signals.signal import Signal


def mean_squared_error(original: Signal, decoded: Signal) -> float:
    """Return the mean squared error in native units over all channels, without missing points.

    Raises: ValueError if the signals' grids differ.
    """
    difference = _errors(original, decoded)
    return float(np.mean(difference**2)) if difference.size else 0.0


def psnr(original: Signal, decoded: Signal) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite if nothing differs.

    The peak is 255 for 8 bits, and the value range for everything else: of 16-bit pictures that is the range of the
    data, as one of 12 bits would look 24 dB better against 65535. Where slices have ranges of their own, each counts
    against its own.
    """
    if original.slice_ranges is None:
        error = mean_squared_error(original, decoded) / _peak(original) ** 2
    else:
        error = float(np.mean(slice_errors(original, decoded) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def slice_errors(original: Signal, decoded: Signal) -> np.ndarray:
    """Return the root mean square of every slice's error, as a share of the slice's range: [S] float64.

    original: a signal with slices along its first axis. Missing points do not count.
    """
    ranges = np.broadcast_to(
        np.array(original.value_range) if original.slice_ranges is None else original.slice_ranges,
        (len(original.values), 2),
    )
    errors = []
    for number, (low, high) in enumerate(ranges):
        difference = original.values[number].astype(np.float64) - decoded.values[number].astype(np.float64)
        if original.missing is not None:
            difference = difference[~original.missing[number]]
        errors.append(float(np.sqrt(np.mean(difference**2))) / (high - low) if difference.size else 0.0)
    return np.array(errors)


def snr(original: Signal, decoded: Signal) -> float:
    """Return the signal-to-noise ratio in dB: power of the signal over the power of the error."""
    values = original.values if original.missing is None else original.values[~original.missing]
    power = float(np.mean(values.astype(np.float64) ** 2)) if values.size else 0.0
    error = mean_squared_error(original, decoded)
    if error == 0:
        return math.inf
    return 10 * math.log10(power / error) if power else -math.inf


def max_error(original: Signal, decoded: Signal) -> float:
    """Return the largest absolute error in native units, without missing points."""
    difference = _errors(original, decoded)
    return float(np.abs(difference).max()) if difference.size else 0.0


def _peak(signal: Signal) -> float:
    low, high = signal.value_range
    return 255.0 if signal.values.dtype == np.uint8 else high - low


def _errors(original: Signal, decoded: Signal) -> np.ndarray:
    if original.values.shape != decoded.values.shape:
        raise ValueError(f"the grids differ: {original.values.shape = }, {decoded.values.shape = }")
    difference = original.values.astype(np.float64) - decoded.values.astype(np.float64)
    return difference if original.missing is None else difference[~original.missing]
