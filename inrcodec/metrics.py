"""How near a decoded signal is to its original."""

import math

import numpy as np

from inrcodec.bounds import Bound
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.signal import Signal


class Fidelity:
    """How near a decoded signal is to its original, from parts that are compared one after the other.

    bound: what errors are compared with, if there is one. first: index of the first part along the first axis.
    max_error: the largest absolute error in native units so far, without missing points.
    worst: the largest in the unit of the bound's limit; NaN counts as infinite.
    """

    def __init__(self, original: AnySignal, bound: Bound | None = None, first: int = 0) -> None:
        self.bound = bound
        self.max_error = self.worst = 0.0
        low, high = original.value_range
        self._peak = 255.0 if original.dtype == np.uint8 else high - low
        self._count, self._first = 0, first
        self._error = self._power = 0.0
        self._slices: list[float] | None = [] if original.axes[0].kind == "slice" else None
        self._by_slice = original.slice_ranges is not None

    def add(self, original: Signal, decoded: Signal) -> None:
        """Compare the next part. Raises: ValueError if the parts' grids differ."""
        if original.values.shape != decoded.values.shape:
            raise ValueError(f"the grids differ: {original.values.shape = }, {decoded.values.shape = }")
        ranges = original.value_range if original.slice_ranges is None else original.slice_ranges
        by_row = np.broadcast_to(np.array(ranges, np.float64), (len(original.values), 2))
        rows = 1 if self._slices is not None else max(1, (1 << 18) // max(1, original.values[:1].size))
        for begin in range(0, len(original.values), rows):  # for the memory that 64 bits need
            some = slice(begin, begin + rows)
            values = original.values[some].astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                errors = values - decoded.values[some].astype(np.float64)
            if original.missing is not None:
                present = ~original.missing[some]
                values, errors = values[present], errors[present]
            error = float(np.sum(errors**2))
            worst = float(np.abs(errors).max()) if errors.size else 0.0
            if not math.isfinite(worst):  # a value that is not a number is as far off as can be
                error = worst = math.inf
            self.max_error = max(self.max_error, worst)
            if self.bound is not None:
                measured = self.bound.worst(values, errors, self._first + begin)
                self.worst = max(self.worst, measured if math.isfinite(measured) else math.inf)
            self._count += errors.size
            self._error += error
            self._power += float(np.sum(values**2))
            if self._slices is not None:
                low, high = by_row[begin]
                self._slices.append(math.sqrt(error / errors.size) / (high - low) if errors.size else 0.0)
        self._first += len(original.values)

    @property
    def mean_squared_error(self) -> float:
        """The mean squared error in native units over all channels, without missing points."""
        return self._error / self._count if self._count else 0.0

    @property
    def psnr(self) -> float:
        """The peak signal-to-noise ratio in dB; infinite if nothing differs.

        The peak is 255 for 8 bits, and the value range for everything else: of 16-bit pictures that is the range of the
        data, as one of 12 bits would look 24 dB better against 65535. Where slices have ranges of their own, each
        counts against its own.
        """
        error = float(np.mean(self.slice_errors**2)) if self._by_slice else self.mean_squared_error / self._peak**2
        return math.inf if error == 0 else -10 * math.log10(error)

    @property
    def snr(self) -> float:
        """The signal-to-noise ratio in dB: power of the signal over the power of the error."""
        if self._error == 0:
            return math.inf
        ratio = self._power / self._error
        return 10 * math.log10(ratio) if ratio > 0 else -math.inf

    @property
    def slice_errors(self) -> np.ndarray:
        """The root mean square of every slice's error, as a share of the slice's range: [S] float64.

        Raises: ValueError if the first axis is none of slices.
        """
        if self._slices is None:
            raise ValueError("a signal without slices")
        return np.array(self._slices)


def fidelity(original: Signal, decoded: Signal) -> Fidelity:
    """Compare whole signals. Raises: ValueError if their grids differ."""
    found = Fidelity(original)
    found.add(original, decoded)
    return found


def psnr(original: Signal, decoded: Signal) -> float:
    """Return the `Fidelity.psnr` of whole signals."""
    return fidelity(original, decoded).psnr


def max_error(original: Signal, decoded: Signal) -> float:
    """Return the largest absolute error in native units, without missing points."""
    return fidelity(original, decoded).max_error


def within(bound: Bound, original: Signal, decoded: Signal, first: int = 0) -> bool:
    """Say whether parts that begin at an index of the first axis differ by no more than a bound."""
    found = Fidelity(original, bound, first)
    found.add(original, decoded)
    return found.worst <= bound.limit
