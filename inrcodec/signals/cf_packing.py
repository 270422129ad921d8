"""Stored numbers to physical values and back: the NetCDF and CF attributes `scale_factor`, `add_offset`,
`_FillValue`, `missing_value`, `valid_range`, `valid_min`, `valid_max` and `_Unsigned`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np

from inrcodec.errors import SignalError

PACKING_ATTRIBUTES = (
    *("scale_factor", "add_offset", "_FillValue", "missing_value"),
    *("valid_range", "valid_min", "valid_max", "_Unsigned"),
)
"""The attributes that say how numbers are stored."""


@dataclass(frozen=True, eq=False)
class Packing:
    """How the numbers of a variable are stored.

    stored: dtype in the file. number: the dtype those bytes mean, unsigned where `_Unsigned` says so.
    scale, offset: value = number * scale + offset; scale is None if the variable is not packed.
    lowest, highest: the valid numbers, scalars of dtype `number`; others are missing, as is NaN.
    markers: more numbers that stand for a missing value; the first one is written for all of them.
    """

    stored: np.dtype
    number: np.dtype
    scale: float | None
    offset: float
    lowest: Any
    highest: Any
    markers: tuple[Any, ...]

    @property
    def value_dtype(self) -> np.dtype:
        """The type of the unpacked values: float32 unless its steps are too coarse to tell the numbers apart."""
        if self.scale is None or self.number.kind == "f":
            return self.number
        info = np.iinfo(self.number)
        largest = max(abs(info.min), abs(info.max)) * abs(self.scale) + abs(self.offset)
        fine = largest < 1e38 and np.spacing(np.float32(largest)) <= abs(self.scale) / 4
        return np.dtype(np.float32 if fine else np.float64)


def packing_of(label: str, stored: np.dtype, attributes: Mapping[str, Any]) -> Packing:
    """Return how the numbers of a variable with these attributes are packed; `label` names it in messages.

    Raises: SignalError for a scale_factor or add_offset that is no finite number.
    """
    unsigned = stored.kind == "i" and str(attributes.get("_Unsigned", "")).lower() == "true"
    number = np.dtype(f"u{stored.itemsize}") if unsigned else stored
    scale, offset = (
        _coefficient(label, "scale_factor", attributes),
        _coefficient(label, "add_offset", attributes),
    )
    if scale is None and offset is not None:
        scale = 1.0
    offset = 0.0 if offset is None else offset
    lowest, highest = _valid_limits(stored, number, scale, offset, attributes)
    stated = [
        cast_exactly(value, stored)
        for key in ("_FillValue", "missing_value")
        for value in np.atleast_1d(np.asarray(attributes.get(key, [])))
    ]
    markers = [marker.view(number) for marker in stated if marker is not None]
    markers = markers or _unstated_markers(number, lowest, highest)
    return Packing(stored, number, scale, offset, lowest, highest, tuple(markers))


def cast_exactly(value: Any, dtype: np.dtype) -> Any:
    """Return a number or character as a scalar of `dtype`, or None where that changes it."""
    array = np.asarray(value).reshape(-1)[:1]
    if array.size == 0 or (array.dtype.kind in "SU") != (dtype.kind == "S"):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "S":
        return cast[0]
    if np.array_equal(cast.astype(array.dtype), array, equal_nan=array.dtype.kind == "f"):
        return cast[0]
    # A double attribute that was meant for single-precision values, such as 1e20, is rounded to them.
    return cast[0] if dtype.kind == "f" and array.dtype.kind == "f" else None


def _coefficient(label: str, key: str, attributes: Mapping[str, Any]) -> float | None:
    if key not in attributes:
        return None
    try:
        value = float(np.asarray(attributes[key]).reshape(-1)[0])
    except (ValueError, TypeError, IndexError):
        value = math.nan
    if not math.isfinite(value):
        raise SignalError(f"{label}: {key} = {attributes[key]!r} is not a finite number; repair the attribute")
    return value


def _valid_limits(
    stored: np.dtype, number: np.dtype, scale: float | None, offset: float, attributes: Mapping[str, Any]
) -> tuple[Any, Any]:
    both = np.asarray(attributes.get("valid_range", []))
    given = list(both) if both.shape == (2,) else [None, None]
    given = [attributes.get("valid_min", given[0]), attributes.get("valid_max", given[1])]
    # Limits of a wider type than the packed numbers are physical values (NetCDF attribute conventions).
    kinds = {np.asarray(limit).dtype.kind for limit in given}
    physical = scale is not None and scale != 0 and stored.kind in "iu" and "f" in kinds
    limits: list[float | None] = []
    for limit in given:
        scalar = np.asarray(limit).reshape(-1)[:1]
        if not scalar.size or scalar.dtype.kind not in "iuf" or not np.isfinite(scalar[0]):
            limits.append(None)
            continue
        value = float(scalar.view(number)[0] if scalar.dtype == stored else scalar[0])
        limits.append((value - offset) / (scale or 1.0) if physical else value)
    lowest, highest = reversed(limits) if physical and (scale or 0.0) < 0 else limits
    if number.kind == "f":
        return (
            number.type(-math.inf if lowest is None else lowest),
            number.type(math.inf if highest is None else highest),
        )
    info = np.iinfo(number)
    low = info.min if lowest is None else min(max(math.ceil(lowest - 1e-6), info.min), info.max)
    high = info.max if highest is None else min(max(math.floor(highest + 1e-6), info.min), info.max)
    return number.type(low), number.type(high)


def _unstated_markers(number: np.dtype, lowest: Any, highest: Any) -> list[Any]:
    """Return the numbers that stand for a missing value in a variable without such an attribute.

    They are NaN and the number that the NetCDF library puts where nothing was written; for bytes, which have no such
    number, one beside the valid ones.
    """
    default = number.type(netCDF4.default_fillvals[f"{number.kind}{number.itemsize}"])
    if number.kind == "f":
        return [number.type(math.nan), default]
    if number.itemsize > 1:
        return [default]
    info = np.iinfo(number)
    if lowest > info.min:
        return [number.type(lowest - 1)]
    return [number.type(highest + 1)] if highest < info.max else []


def unpack(raw: np.ndarray, packing: Packing) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (of `packing.value_dtype`, any number where missing) and where they are missing."""
    numbers = raw.view(packing.number)
    missing = (numbers < packing.lowest) | (numbers > packing.highest)
    for marker in packing.markers:
        missing |= numbers == marker
    if packing.number.kind == "f":
        missing |= np.isnan(numbers)
    if packing.scale is None:
        return numbers, missing
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers.astype(np.float64) * packing.scale + packing.offset
        return values.astype(packing.value_dtype), missing


def pack(
    label: str, values: np.ndarray, missing: np.ndarray | None, gaps: np.ndarray | None, packing: Packing
) -> np.ndarray:
    """Undo `unpack`: return the stored numbers nearest to the values that are valid and stand for no missing value.

    gaps: stored numbers for the missing values, one for each or one for all.
    Raises: SignalError if values are missing and there is no number for that.
    """
    numbers = _nearest_numbers(values, packing)
    for marker in packing.markers:
        hits = numbers == marker
        if hits.any():
            numbers[hits] = _neighbour(marker, packing)
    raw = numbers.view(packing.stored)
    if missing is not None and missing.any():
        if gaps is None:
            raise SignalError(f"{label} has missing values but no _FillValue; give it one")
        raw[missing] = gaps
    return raw


def _nearest_numbers(values: np.ndarray, packing: Packing) -> np.ndarray:
    if values.dtype == packing.number and packing.scale is None:
        return np.asarray(np.clip(values, packing.lowest, packing.highest))
    numbers = values.astype(np.float64)
    if packing.scale is not None:
        # A scale of zero has lost the numbers: any of them means the offset.
        numbers = (numbers - packing.offset) / packing.scale if packing.scale else np.zeros_like(numbers)
    if packing.number.kind == "f":
        return np.asarray(np.clip(numbers.astype(packing.number), packing.lowest, packing.highest))
    numbers = np.rint(numbers)
    low, high = float(packing.lowest), float(packing.highest)
    if int(high) > int(packing.highest):
        high = math.nextafter(high, 0.0)
    return np.clip(numbers, low, high).astype(packing.number)


def _neighbour(marker: Any, packing: Packing) -> Any:
    """Return the valid number that is closest to a marker."""
    up = down = marker
    for _ in range(len(packing.markers)):
        if packing.number.kind == "f":
            up, down = np.nextafter(up, np.inf), np.nextafter(down, -np.inf)
        else:
            up = up + 1 if up < packing.highest else up
            down = down - 1 if down > packing.lowest else down
        for candidate in (up, down):
            if packing.lowest <= candidate <= packing.highest and candidate not in packing.markers:
                return candidate
    return marker
