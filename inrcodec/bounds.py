"""How far decoded values may be from the original ones: an error, an error of every slice, or a share of every value.

Where bounds differ from value to value, residuals correct the values on a *scale* on which they do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from inrcodec.powers import exp2, log2

SMALLEST_BOUND, LARGEST_BOUND = 2.0**-1000, 2.0**1000

SMALLEST_SHARE = 2.0**-30
"""On the scale of shares, numbers are known to about 2^-42."""

SLICE_STEPS = 16
"""Bounds of slices lie 2^(1/16) apart."""

MOST_STEPS = (1 << 16) - 1

_GAP = 2 + 2.0**-10
"""From zero to the smallest magnitude on a relative scale, in bounds: no correction within them reaches the other."""

_BLOCK = 1 << 18


@dataclass(frozen=True)
class Bound:
    """The largest absolute error of any value, 2^-1000..2^1000, in its unit.

    Raises: ValueError for another one.
    """

    error: float

    shown_on_scale: ClassVar = False
    """Whether fields show the scale, too."""

    def __post_init__(self) -> None:
        if not SMALLEST_BOUND <= self.error <= LARGEST_BOUND:
            raise ValueError(f"a bound that is not in 2^-1000..2^1000: {self.error!r:.80}")

    @property
    def limit(self) -> float:
        """What `worst` must not exceed."""
        return self.error

    @property
    def on_scale(self) -> float:
        """The largest error on the scale."""
        return self.error

    @property
    def shown(self) -> float:
        """The largest error of what fields show, a usual one where it is not the same everywhere."""
        return self.error

    def scaled(self, values: np.ndarray, begin: int) -> np.ndarray:
        """Return values [n, *grid, C] on the scale; `begin` is the index of the first along the first axis."""
        return values

    def unscaled(self, scaled: np.ndarray, begin: int, dtype: np.dtype) -> np.ndarray:
        """Return what `scaled` was given, as the nearest values of a type."""
        return scaled.astype(dtype, copy=False)

    def shown_range(self, low: float, high: float) -> tuple[float, float]:
        """Return what becomes 0 and 1 for the field, where a signal has a value range."""
        return low, high

    def worst(self, values: np.ndarray, errors: np.ndarray, number: int) -> float:
        """Return the largest error, NaN where one is, in the unit of `limit`.

        values: some original ones, float64, of the slice `number`. errors: theirs, of the same shape.
        """
        return float(np.abs(errors).max(initial=0.0))

    def plain(self) -> dict[str, float | str]:
        """Return what reports say of it."""
        return {"bound": self.error, "within": str(self)}

    def __str__(self) -> str:
        return f"{self.error:g}"


@dataclass(frozen=True)
class SliceBounds(Bound):
    """An error for every slice along the first axis.

    error: the largest of all. steps: 0..65535 for each slice, how often its error is 2^(1/16) smaller.
    """

    steps: tuple[int, ...]

    @classmethod
    def within(cls, errors: np.ndarray) -> "SliceBounds":
        """Return the largest bounds that are not above errors [S] float64."""
        largest = float(errors.max())
        steps = np.ceil(np.log2(largest / errors) * SLICE_STEPS).clip(0, MOST_STEPS)
        return cls(largest, tuple(steps.astype(int).tolist()))

    @cached_property
    def errors(self) -> np.ndarray:
        """The bound of each slice, [S] float64."""
        return self.error * exp2(np.array(self.steps) / -SLICE_STEPS)

    @property
    def shown(self) -> float:
        return float(np.median(self.errors))

    @property
    def limit(self) -> float:
        return 1.0

    @property
    def on_scale(self) -> float:
        return 1.0

    def scaled(self, values: np.ndarray, begin: int) -> np.ndarray:
        return values / self._errors_of(values, begin)

    def unscaled(self, scaled: np.ndarray, begin: int, dtype: np.dtype) -> np.ndarray:
        return as_type(scaled * self._errors_of(scaled, begin), dtype)

    def worst(self, values: np.ndarray, errors: np.ndarray, number: int) -> float:
        return super().worst(values, errors, number) / float(self.errors[number])

    def plain(self) -> dict[str, float | str]:
        return super().plain() | {"smallest_bound": float(self.errors.min())}

    def __str__(self) -> str:
        return f"{self.errors.min():.4g} to {self.error:.4g} by slice"

    def _errors_of(self, values: np.ndarray, begin: int) -> np.ndarray:
        return self.errors[begin : begin + len(values)].reshape(-1, *[1] * (values.ndim - 1))


@dataclass(frozen=True)
class ShareBound(Bound):
    """An error of no more than a share of each value, 2^-30 to less than 1. Zeros and signs are exact.

    error: the share. knee: the smallest magnitude of all values but zero. linear: there is an absolute error, too, and
    each value is within one of both; the knee is the magnitude at which they are equal, and zeros need not be exact.
    """

    knee: float
    linear: bool = False

    shown_on_scale: ClassVar = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (SMALLEST_SHARE <= self.error < 1 and SMALLEST_BOUND <= self.knee <= LARGEST_BOUND):
            raise ValueError(f"a share of {self.error!r:.80} of values from {self.knee!r:.80} on")

    @property
    def on_scale(self) -> float:
        return float(log2(np.array(1 + self.error)))

    @property
    def shown(self) -> float:
        return self.on_scale

    def scaled(self, values: np.ndarray, begin: int) -> np.ndarray:
        return blockwise(self._scaled, values, np.dtype(np.float64))

    def unscaled(self, scaled: np.ndarray, begin: int, dtype: np.dtype) -> np.ndarray:
        return blockwise(lambda some: as_type(self._unscaled(some), dtype), scaled, dtype)

    def shown_range(self, low: float, high: float) -> tuple[float, float]:
        lowest, highest = self._scaled(np.array([low, high])).tolist()
        return lowest, max(highest, lowest + self.on_scale)

    def worst(self, values: np.ndarray, errors: np.ndarray, number: int) -> float:
        magnitudes = np.abs(values)
        if self.linear:
            magnitudes = np.maximum(magnitudes, self.knee)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(errors == 0, 0.0, np.abs(errors) / magnitudes)
        return float(shares.max(initial=0.0))

    def plain(self) -> dict[str, float | str]:
        said: dict[str, float | str] = {"bound_share": self.error, "within": str(self)}
        return said | {"bound": self.error * self.knee} if self.linear else said

    def __str__(self) -> str:
        share = f"{100 * self.error:g} % of each value"
        return f"{share} or {self.error * self.knee:g}" if self.linear else share

    @property
    def _at_knee(self) -> float:
        """What the knee is on the scale."""
        return self.on_scale / self.error if self.linear else _GAP * self.on_scale

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        magnitudes = np.abs(values.astype(np.float64))
        above = self._at_knee + (log2(np.maximum(magnitudes, self.knee / 2)) - log2(np.array(self.knee)))
        if self.linear:
            scaled = np.where(
                magnitudes < self.knee, np.minimum(magnitudes, self.knee) / self.knee * self._at_knee, above
            )
        else:
            scaled = np.where(magnitudes == 0, 0.0, np.maximum(above, self._at_knee * 0.75))
        return np.copysign(scaled, values)

    def _unscaled(self, scaled: np.ndarray) -> np.ndarray:
        magnitudes = np.abs(scaled)
        above = exp2(magnitudes - self._at_knee)
        if self.linear:
            magnitudes = np.where(magnitudes < self._at_knee, magnitudes / self._at_knee, above)
        else:
            magnitudes = np.where(magnitudes <= self._at_knee / 2, 0.0, above)
        return np.copysign(magnitudes * self.knee, scaled)


def as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the nearest values of a type; what is too large becomes the largest integer, or an infinite float."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def blockwise(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Apply a function of every value to an array, for the memory that it needs some at a time."""
    flat = values.reshape(-1)
    result = np.empty(flat.shape, dtype)
    for begin in range(0, len(flat), _BLOCK):
        result[begin : begin + _BLOCK] = function(flat[begin : begin + _BLOCK])
    return result.reshape(values.shape)


def smallest_magnitude(values: np.ndarray) -> float:
    """Return the smallest magnitude of values but zeros; infinity if there are none."""
    magnitudes = np.abs(values[values != 0].astype(np.float64))
    return float(magnitudes.min(initial=math.inf))
