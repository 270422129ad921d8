"""What of a climate variable is kept exactly beside its field: limits, zeros, what stands for missing values.

In a signal's attributes:

    "limits"  [smallest, largest] value: nothing decodes to a value beyond. A constant field has equal ones.
    "zeros"   [value, S, H, W, bytes]: where values are exactly zero, or what packed numbers have for it; the bytes are
              `MaskPacker`'s. The limits are those of the other values then, so that little rain does not become none.
    "gaps"    what was stored where values are missing, in the order of the mask, if that is not always the first of
              the packing's markers: [kinds, which] or [numbers], arrays as `plain_array` has them.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from inrcodec.masks import MaskReader
from inrcodec.signals.cf_packing import Packing
from inrcodec.signals.cf_streams import ArrayPacker, ArrayReader
from inrcodec.signals.netcdf import parse_array, plain_array

_SKIPPED = 1 << 20

GAP_KINDS = 256
"""How many different numbers stand for missing values at most, unless each is kept by itself."""


class ExactValues:
    """Corrects decoded values of a grid: none is beyond the limits and, on the original grid, zeros are exact.

    This brings no value further away from the original one.

    stored: sizes of the original grid. shape: of the decoded one. dtype: of its values.
    Raises: LookupError, TypeError, ValueError, OverflowError for malformed attributes, also later.
    """

    def __init__(
        self, attributes: dict[str, Any], stored: tuple[int, ...], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        kind = np.dtype(dtype).type
        limits = []
        if "limits" in attributes:
            low, high = map(_number, attributes["limits"])
            if not low <= high:
                raise ValueError(f"limits from {low} to {high}")
            limits = [kind(low), kind(high)]
        self._zeros: MaskReader | None = None
        if "zeros" in attributes:
            zero, *sizes, packed = attributes["zeros"]
            if sizes != list(stored) or not all(type(size) is int for size in sizes):
                raise ValueError(f"zeros of a grid of the sizes {sizes!r:.80}")
            if type(packed) is not bytes:
                raise TypeError(f"{packed!r:.80} where the mask of the zeros belongs")
            self._zero = kind(_number(zero))
            if shape == stored:
                self._zeros = MaskReader(packed, math.prod(shape))
            else:
                limits.append(self._zero)
        self._limits = (min(limits), max(limits)) if limits else None

    def apply(self, values: np.ndarray, begin: int) -> np.ndarray:
        """Return the decoded values [n, H, W, 1] of the slices from `begin` on, corrected.

        It is fast in ascending order. Whether the mask of the zeros ends where it should is checked with the last
        slice.
        """
        if self._limits is not None:
            values = np.clip(values, *self._limits)
        if self._zeros is None:
            return values
        plane = math.prod(values.shape[1:])
        zeros = self._zeros.bits(begin * plane, (begin + len(values)) * plane)
        return np.where(zeros.reshape(values.shape), self._zero, values)


def _number(value: Any) -> float:
    """Return a value of an attribute. Raises: TypeError, ValueError if it is no number."""
    if type(value) not in (int, float):
        raise TypeError(f"{value!r:.80} where a number belongs")
    if math.isnan(value):
        raise ValueError("NaN where a number belongs")
    return value


def gap_bits(numbers: np.ndarray) -> np.ndarray:
    """Return stored numbers as integers, by which they are told apart: there are several kinds of NaN."""
    return numbers.view(f"u{numbers.itemsize}")


def gap_kinds(kinds: np.ndarray, numbers: np.ndarray, packing: Packing) -> np.ndarray:
    """Add the numbers at missing points of a part to the kinds known so far, sorted `gap_bits`; stop at too many."""
    bits = gap_bits(numbers)
    if not bits.size or kinds.size > GAP_KINDS:
        return kinds
    marker = _marker_bits(packing)
    if marker.size and (bits == marker).all():
        bits = marker
    return np.union1d(kinds, bits)


def gaps_of(kinds: np.ndarray, numbers: Iterable[np.ndarray], packing: Packing) -> list[Any] | None:
    """Return the attribute "gaps"; None if nothing but the first marker is there.

    kinds: of all numbers, from `gap_kinds`. numbers: those stored at missing points, part by part.
    """
    if not kinds.size or np.array_equal(kinds, _marker_bits(packing)):
        return None
    if kinds.size > GAP_KINDS:
        every = ArrayPacker(packing.stored)
        for part in numbers:
            every.add(part)
        return [every.plain()]
    which = ArrayPacker(np.dtype(np.uint8))
    for part in numbers:
        which.add(np.searchsorted(kinds, gap_bits(part)))
    return [plain_array(kinds.view(packing.stored)), which.plain()]


def _marker_bits(packing: Packing) -> np.ndarray:
    """Return the first marker as `gap_bits`, [1] or, if there is none, [0]."""
    return gap_bits(np.array(packing.markers[:1], packing.number))


class GapNumbers:
    """What to store at missing points, taken in order from the attribute "gaps".

    frequent: [1] the most frequent number of all, for what is not on the original grid. It is None if nothing is known.
    samples: of the signal, which has no more gaps.
    Raises: LookupError, TypeError, ValueError for malformed gaps.
    """

    def __init__(self, gaps: list[Any] | None, packing: Packing, samples: int) -> None:
        self._gaps = gaps
        self._kinds: np.ndarray | None = None
        self._numbers: ArrayReader | None = None
        self._taken = 0
        if gaps is None:
            marker = np.array(packing.markers[:1], packing.number).view(packing.stored)
            self.frequent = marker if marker.size else None
            return
        self._numbers, checked = ArrayReader(gaps[-1]), ArrayReader(gaps[-1])
        if not 0 < checked.size <= samples:
            raise ValueError(f"{checked.size} gaps among {samples} values")
        if len(gaps) > 1:
            self._kinds = parse_array(gaps[0]).astype(packing.stored, casting="equiv")
            self.frequent = self._kinds[[_most_frequent(checked, self._kinds.size)]]
            return
        if checked.dtype != packing.stored:
            raise TypeError(f"gaps of {checked.dtype} among numbers of {packing.stored}")
        self.frequent = next(piece[:1] for piece in checked.pieces())

    def take(self, count: int) -> np.ndarray | None:
        """Return what to store at the next `count` missing points, one number for each or one for all."""
        if self._numbers is None:
            return self.frequent
        self._taken += count
        numbers = self._numbers.take(count)
        if numbers.size < count:
            return self.frequent
        return numbers if self._kinds is None else self._kinds[numbers]

    def between(self, begin: int, end: int) -> np.ndarray | None:
        """Return what to store at the missing points from number `begin` to before `end`, as `take`."""
        if self._gaps is None:
            return self.frequent
        if begin < self._taken:
            self._numbers, self._taken = ArrayReader(self._gaps[-1]), 0
        while self._taken < begin:
            self.take(min(begin - self._taken, _SKIPPED))
        return self.take(end - begin)

    def check(self) -> None:
        """Raises: as when all numbers are taken."""
        if self._numbers is not None:
            for _ in self._numbers.pieces():
                pass

    @property
    def fit(self) -> bool:
        """Say whether as many were taken as are known: the missing points are not the original ones otherwise."""
        return self._numbers is None or self._taken == self._numbers.size


def _most_frequent(which: ArrayReader, kinds: int) -> int:
    """Return the number of the most frequent kind. Raises: ValueError if there are others than `kinds`."""
    if which.dtype != np.uint8:
        raise ValueError(f"kinds of gaps that are numbered by {which.dtype}")
    counts = np.zeros(1 << 8, np.int64)
    for piece in which.pieces():
        counts += np.bincount(piece, minlength=counts.size)
    if counts[kinds:].any():
        raise ValueError("gaps of no known kind")
    return int(counts.argmax())
