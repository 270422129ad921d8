"""What of a climate variable is kept exactly beside its field: limits, zeros, what stands for missing values.

In a signal's attributes:

    "limits"  [smallest, largest] value: nothing decodes to a value beyond. A constant field has equal ones.
    "zeros"   [value, S, H, W, bytes]: where values are exactly zero, or what packed numbers have for it; the bytes are
              `pack_mask`'s. The limits are those of the other values then, so that little rain does not become none.
    "gaps"    what was stored where values are missing, in the order of the mask, if that is not always the first of
              the packing's markers: [kinds, which] or [numbers], arrays as `plain_array` has them.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from inrcodec.signals.cf_packing import Packing
from inrcodec.signals.netcdf import parse_array, plain_array

ZERO_SHARE = 1 / 128
"""From this share of zeros on they mean something, also where values of both signs are possible."""

FILL_DISTANCE = 10.0
"""How many ranges of the other values an undeclared fill value is away from them."""

FAR_DISTANCE = 100.0
"""The same of a value that no convention uses, but which occurs more than once."""

HUGE = 1e15
"""From here on, values far outside the others are fill values, whatever their digits."""

_EXTREMES = 4


def zeros_of(values: np.ndarray, missing: np.ndarray, packing: Packing) -> tuple[float, np.ndarray] | None:
    """The zero among values [S, H, W], and where it is; None if there is none that means something.

    Packed numbers may have no exact zero, only one less than half a step off, which no rain is stored as.
    """
    present = values[~missing]
    if not present.size or present.min() == present.max():
        return None
    zero = 0.0
    if not (present == 0).any():
        if not packing.scale:
            return None
        zero = float(present[np.abs(present).argmin()])
        if abs(zero) >= abs(packing.scale) / 2:
            return None
    places = (values == zero) & ~missing
    one_sided = zero in (present.min(), present.max())
    return (zero, places) if one_sided or np.count_nonzero(places) >= ZERO_SHARE * present.size else None


def pack_mask(mask: np.ndarray) -> bytes:
    """The bits of a mask, deflated."""
    return zlib.compress(np.packbits(mask).tobytes(), 9)


def unpack_mask(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `pack_mask`. Raises: TypeError, ValueError if `packed` is not exactly a mask of this shape."""
    count = math.prod(shape)
    size = -(-count // 8)
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(f"a mask that is no zlib stream ({error})") from error
    if len(content) != size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"a mask that is not a zlib stream of {size} bytes and nothing else")
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    if bits[count:].any():
        raise ValueError("a mask whose last byte has bits of no value")
    return bits[:count].astype(bool).reshape(shape)


def exact_values(values: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """Return decoded values [S, H, W, 1], none beyond the limits and, on the original grid, exact where that is known.

    This brings no value further away from the original one. A grid of other sizes than those of the zeros is taken for
    another resolution.
    Raises: TypeError, ValueError, OverflowError for malformed attributes.
    """
    kind = values.dtype.type
    limits = []
    if "limits" in attributes:
        low, high = map(_number, attributes["limits"])
        if not low <= high:
            raise ValueError(f"limits from {low} to {high}")
        limits = [kind(low), kind(high)]
    zeros = None
    if "zeros" in attributes:
        zero, *shape, packed = attributes["zeros"]
        if len(shape) != values.ndim - 1 or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"zeros of a grid of the sizes {shape!r:.80}")
        if type(packed) is not bytes:
            raise TypeError(f"{packed!r:.80} where the mask of the zeros belongs")
        limits.append(kind(_number(zero)))
        if shape == list(values.shape[:-1]):
            zeros = unpack_mask(packed, tuple(shape))[..., np.newaxis]
            del limits[-1]
    if limits:
        values = np.clip(values, min(limits), max(limits))
    return values if zeros is None else np.where(zeros, kind(zero), values)


def _number(value: Any) -> float:
    """Return a value of an attribute. Raises: TypeError, ValueError if it is no number."""
    if type(value) not in (int, float):
        raise TypeError(f"{value!r:.80} where a number belongs")
    if math.isnan(value):
        raise ValueError("NaN where a number belongs")
    return value


def gaps_of(raw: np.ndarray, missing: np.ndarray, packing: Packing) -> list[Any] | None:
    """The attribute "gaps" of the stored numbers `raw`; None if nothing but the first marker is there."""
    numbers = raw[missing]
    bits = numbers.view(f"u{numbers.itemsize}")
    kinds, which = np.unique(bits, return_inverse=True)
    if not kinds.size:
        return None
    if kinds.size == 1 and packing.markers and kinds[0].tobytes() == packing.markers[0].tobytes():
        return None
    if kinds.size > 256:
        return [plain_array(numbers)]
    return [plain_array(kinds.view(numbers.dtype)), plain_array(which.astype(np.uint8))]


def gap_numbers(gaps: list[Any] | None, count: int, packing: Packing) -> np.ndarray | None:
    """What to store at `count` missing points; that of another grid is the most frequent kind.

    Returns [count] or [1] numbers of the stored type, or None if nothing is known.
    Raises: KeyError, TypeError, ValueError for malformed gaps.
    """
    if gaps is None:
        return np.array(packing.markers[:1], packing.number).view(packing.stored) if packing.markers else None
    kinds = parse_array(gaps[0]).astype(packing.stored, casting="equiv")
    if len(gaps) == 1:
        return kinds if kinds.size == count else kinds[:1]
    which = parse_array(gaps[1])
    if which.dtype != np.uint8 or not which.size or which.max() >= kinds.size:
        raise ValueError("gaps of no known kind")
    if which.size == count:
        return kinds[which]
    return kinds[[np.bincount(which).argmax()]]


def undeclared_fills(values: np.ndarray) -> Iterator[tuple[float, int]]:
    """Numbers among finite values [N] that stand for missing ones without being declared, and how often.

    That is what lies far outside all others and is huge, or written in nines, or a type's limit, or there repeatedly.
    """
    if values.size < 2:
        return
    lows, highs = _extremes(values, lowest=True), _extremes(values, lowest=False)
    best: list[float] = []
    for below in range(len(lows)):
        for above in range(len(highs)):
            low, high = lows[below], highs[above]
            if not low <= high or below + above <= len(best):
                continue
            outside = lows[:below] + highs[:above]
            if outside and all(_is_far(value, low, high, values) for value in outside):
                best = outside
    for value in best:
        yield value, int(np.count_nonzero(values == value))


def _extremes(values: np.ndarray, lowest: bool) -> list[float]:
    """The few smallest or largest distinct values, from the outside in."""
    found: list[float] = []
    for _ in range(_EXTREMES):
        if found:
            values = values[values > found[-1]] if lowest else values[values < found[-1]]
        if not values.size:
            break
        found.append(float(values.min() if lowest else values.max()))
    return found


def _is_far(value: float, low: float, high: float, values: np.ndarray) -> bool:
    distance = low - value if value < low else value - high
    spread = high - low
    if distance > FILL_DISTANCE * spread and _is_conventional(value):
        return True
    return bool(spread and distance > FAR_DISTANCE * spread and np.count_nonzero(values == value) > 1)


def _is_conventional(value: float) -> bool:
    """Whether it looks like a fill value: huge, the smallest or largest integer of a type, or nines (or eights)."""
    size = abs(value)
    if size >= HUGE or any(abs(size - 2.0**bits) <= 1 for bits in (15, 16, 31, 32, 63, 64)):
        return True
    digits = f"{size:.7g}".replace(".", "")
    return size >= 99 and len(set(digits)) == 1 and digits[0] in "98"
