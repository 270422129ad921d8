"""One look at all numbers of a variable on a grid, part by part: what a signal says of the whole."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.masks import MaskPacker
from inrcodec.signals.cf_exact import gap_kinds, gaps_of
from inrcodec.signals.cf_fills import Extremes
from inrcodec.signals.cf_packing import Packing, pack, unpack
from inrcodec.signals.cf_slices import Slices
from inrcodec.signals.climate_files import warn
from inrcodec.signals.lazy import SLAB_VALUES

ZERO_SHARE = 1 / 128
"""From this share of zeros on they mean something, also where values of both signs are possible."""

LARGEST = 1e150
"""Beyond it, and for differences below its reciprocal, squares are no numbers of 64 bits."""

UNEQUAL = 8.0
"""Slices whose ranges differ by more than this factor have ranges of their own."""

EXACT_INTEGERS = 1 << 53
"""Larger integers are not all exact as floats."""


class NoField(SignalError):
    """A variable on a grid cannot be coded as a field."""


@dataclass(frozen=True, eq=False)
class FieldNumbers:
    """The numbers of a variable on a grid, unpacked as they are read.

    fills: the values that stand for missing ones without being declared.
    """

    slices: Slices
    packing: Packing
    fills: tuple[float, ...] = ()

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the stored numbers, the values and where they are missing, of some slices. All are [n, H, W].

        Infinities are not counted among the missing ones.
        """
        raw = self.slices.read(begin, end)
        values, missing = unpack(raw, self.packing)
        for fill in self.fills:
            missing |= values == fill
        return raw, values, missing

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield what `read` returns, for all slices in order."""
        rows = max(1, SLAB_VALUES // math.prod(self.slices.shape[1:]))
        for begin in range(0, self.slices.shape[0], rows):
            yield self.read(begin, min(begin + rows, self.slices.shape[0]))

    def gaps(self) -> Iterator[np.ndarray]:
        """Yield the stored numbers where values are missing, part by part."""
        for raw, values, missing in self.parts():
            yield raw[missing | ~np.isfinite(values)]


@dataclass(frozen=True, eq=False)
class Findings:
    """What all values of a variable have in common, but the missing ones.

    value_range, slice_ranges: as a `Signal` has them. mean: of all values.
    zeros, limits, gaps: as `cf_exact` describes the attributes; None if there are none.
    """

    numbers: FieldNumbers
    value_range: tuple[float, float]
    slice_ranges: np.ndarray | None
    mean: float
    has_missing: bool
    zeros: list[object] | None
    limits: list[float] | None
    gaps: list[object] | None


def find(label: str, numbers: FieldNumbers) -> Findings:
    """Look through all numbers of a variable, as often as is needed. label: names the variable in messages.

    Warns of infinities and of undeclared fill values.
    Raises: NoField if a field cannot hold the values.
    """
    packing = numbers.packing
    zero = _packed_zero(packing)
    survey = _Survey(numbers, zero)
    if survey.largest_integer > EXACT_INTEGERS:
        raise NoField(f"{label} has numbers beyond 2^53, which no float tells apart")
    for infinity, count in sorted(survey.infinities.items()):
        warn(f"{label} has {count} infinite values ({infinity}): they are kept exactly, as if missing")
    fills = survey.extremes.fills()
    for value, count in fills:
        warn(
            f"{label} has {count} values of {value:g}, far outside the others, not declared as _FillValue: "
            "they are kept exactly, as if missing"
        )
    if fills:
        numbers = replace(numbers, fills=tuple(value for value, _ in fills))
        survey = _Survey(numbers, zero)
    low, high = survey.extremes.range() or (0.0, 1.0)
    if not low < high:
        high = low + max(1.0, abs(low)) * 1e-6
    if not (max(abs(low), abs(high)) < LARGEST and high - low > 1 / LARGEST):
        raise NoField(f"{label} has values from {low:g} to {high:g}, of which squares are no numbers")
    true_zero = survey.true_zero()
    if true_zero is not None and true_zero != zero:
        survey = _Survey(numbers, true_zero)
    zeros = None if true_zero is None else survey.zeros(true_zero)
    limits = survey.extremes.range(without=None if zeros is None else true_zero)
    return Findings(
        numbers=numbers,
        value_range=(low, high),
        slice_ranges=_slice_ranges(np.array(survey.ranges, np.float64)),
        mean=survey.total / max(1, survey.extremes.count),
        has_missing=survey.has_missing,
        zeros=zeros,
        limits=None if limits is None else list(limits),
        gaps=gaps_of(survey.gap_kinds, numbers.gaps(), packing),
    )


def _packed_zero(packing: Packing) -> float:
    """Return what stands for zero among values that are packed as integers, which may have no exact one; else 0."""
    if not packing.scale or packing.number.kind == "f":
        return 0.0
    with np.errstate(over="ignore"):
        zero = float(unpack(pack("", np.zeros(1), None, None, packing), packing)[0][0])
    return zero if abs(zero) < abs(packing.scale) / 2 else 0.0


class _Survey:
    """What one look at all numbers finds. zero: the value that the places of zeros are noted of."""

    def __init__(self, numbers: FieldNumbers, zero: float) -> None:
        self.extremes = Extremes()
        self.infinities: Counter[float] = Counter()
        self.largest_integer = 0
        self.total = 0.0
        self.has_missing = False
        self.ranges: list[tuple[float, float]] = []
        self.gap_kinds = np.empty(0, f"u{numbers.packing.stored.itemsize}")
        self._packing, self._shape = numbers.packing, numbers.slices.shape
        self._noted = zero
        self._places = MaskPacker()
        self._zeros = 0
        self._nearest = math.inf
        for part in numbers.parts():
            self._add(*part)

    def _add(self, raw: np.ndarray, values: np.ndarray, missing: np.ndarray) -> None:
        if raw.dtype.kind in "iu" and raw.dtype.itemsize == 8 and not missing.all():
            present = raw[~missing]
            self.largest_integer = max(self.largest_integer, abs(int(present.min())), abs(int(present.max())))
        infinite = ~np.isfinite(values) & ~missing
        if infinite.any():
            for infinity, count in zip(*np.unique(values[infinite], return_counts=True), strict=True):
                self.infinities[float(infinity)] += int(count)
            missing = missing | infinite
        if missing.any():
            self.has_missing = True
            self.gap_kinds = gap_kinds(self.gap_kinds, raw[missing], self._packing)
            slices = [each[~gaps] for each, gaps in zip(values, missing, strict=True)]
            present = np.concatenate(slices)
        else:
            slices, present = list(values), values.reshape(-1)
        self.ranges += [(float(each.min()), float(each.max())) if each.size else (0.0, 1.0) for each in slices]
        places = (values == self._noted) & ~missing
        self._places.add(places)
        self._zeros += int(np.count_nonzero(places))
        if present.size:
            self.extremes.add(present)
            with np.errstate(over="ignore", invalid="ignore"):
                self.total += float(present.sum(dtype=np.float64))
            nearest = 0.0
            if present.all():
                nearest = float(present[np.abs(present).argmin()]) if self._packing.scale else math.inf
            if abs(nearest) < abs(self._nearest):
                self._nearest = nearest

    def true_zero(self) -> float | None:
        """Return the value that stands for zero; None if there is none.

        Packed numbers may have no exact zero, only one less than half a step off, which no rain is stored as.
        """
        low, high = self.extremes.range() or (0.0, 0.0)
        if low == high:
            return None
        if self._nearest == 0:
            return 0.0
        scale = self._packing.scale
        return self._nearest if scale and abs(self._nearest) < abs(scale) / 2 else None

    def zeros(self, zero: float) -> list[object] | None:
        """Return the attribute "zeros", the places those of `zero`; None if zeros mean nothing."""
        one_sided = zero in (self.extremes.range() or ())
        if not one_sided and self._zeros < ZERO_SHARE * self.extremes.count:
            return None
        return [zero, *self._shape, self._places.packed()]


def _slice_ranges(limits: np.ndarray) -> np.ndarray | None:
    """Return the range of every slice, [S, 2], from its limits, [S, 2], where the ranges differ much; else None."""
    spans = limits[:, 1] - limits[:, 0]
    if spans.min() * UNEQUAL >= spans.max():
        return None
    smallest = np.maximum(np.abs(limits).max(1) * 1e-6, spans.max() * 1e-9)
    return np.stack([limits[:, 0], limits[:, 0] + np.maximum(spans, smallest)], 1)
