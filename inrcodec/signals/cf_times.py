"""Times as files store them, numbers of a unit since an epoch, and their exact conversion to other units and epochs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Any

import cftime
import numpy as np
from xarray import Variable

from inrcodec.signals.cf_grid import resolved
from inrcodec.signals.cf_packing import packing_of, unpack
from inrcodec.signals.netcdf import group_of

SECONDS = {
    name: seconds
    for names, seconds in (
        (("microseconds", "microsecond", "microsec", "microsecs"), Fraction(1, 10**6)),
        (("milliseconds", "millisecond", "millisec", "millisecs", "msec", "msecs", "ms"), Fraction(1, 1000)),
        (("seconds", "second", "sec", "secs", "s"), Fraction(1)),
        (("minutes", "minute", "min", "mins"), Fraction(60)),
        (("hours", "hour", "hr", "hrs", "h"), Fraction(3600)),
        (("days", "day", "d"), Fraction(86400)),
    )
    for name in names
}
"""Units of times in seconds; months and years have no fixed length."""

ROUNDING = Fraction(1, 100_000)
"""Seconds that a converted time may be off: what days in double precision are over thousands of years."""


@dataclass(frozen=True)
class Times:
    """What the numbers of a variable mean: a unit in seconds, its epoch, and the calendar. text: as it is stored."""

    seconds: Fraction
    epoch: Any
    calendar: str
    text: str

    @classmethod
    def of(cls, name: str, variables: Mapping[str, Variable]) -> "Times | None":
        """Return what a variable's numbers mean if it is one of times, or the bounds of one, else None.

        None too for units of no fixed length, as months, and unknown calendars.
        """
        attributes = variables[name].attrs
        if "units" not in attributes:
            owners = [
                each.attrs
                for other, each in variables.items()
                if name in (resolved(group_of(other), str(each.attrs.get(key)), variables) for key in _BOUNDS)
            ]
            attributes = owners[0] if owners else {}
        text = str(attributes.get("units", ""))
        unit, _, epoch = text.partition(" since ")
        calendar = calendar_of(attributes.get("calendar"))
        seconds = SECONDS.get(unit.strip().lower())
        if not epoch or seconds is None:
            return None
        try:
            return cls(seconds, cftime.num2date(0, text, calendar, only_use_cftime_datetimes=True), calendar, text)
        except (ValueError, TypeError, OverflowError):
            return None


_BOUNDS = ("bounds", "climatology")


def calendar_of(given: Any) -> str:
    """Return the calendar that an attribute names; None is the default one of CF."""
    name = "standard" if given is None else str(given).strip().lower()
    return "standard" if name == "gregorian" else name


def converted(times: Variable, own: Times, wanted: Times, dtype: np.dtype) -> np.ndarray:
    """Return the numbers of a variable of times in other units, of type `dtype`; what marks missing ones stays.

    Raises: ValueError if the type does not hold them to ten microseconds, calendars differ or numbers are packed;
        OverflowError if they are infinite or beyond the type.
    """
    packing = packing_of("", times.dtype, times.attrs)
    if own.calendar != wanted.calendar or packing.scale is not None or packing.number.kind not in "if":
        raise ValueError(f"times of {own.text!r} are not converted to {wanted.text!r}")
    shift: timedelta = own.epoch - wanted.epoch
    offset = Fraction(shift // timedelta(microseconds=1), 10**6)
    if (own.seconds, own.epoch) == (wanted.seconds, wanted.epoch) and dtype == times.dtype:
        return times.values
    _, missing = unpack(times.values, packing)
    result = times.values.astype(dtype)
    for place in zip(*np.nonzero(~missing), strict=True):
        exact = (Fraction(times.values[place].item()) * own.seconds + offset) / wanted.seconds
        result[place] = float(exact) if dtype.kind == "f" else round(exact)
        if abs(Fraction(result[place].item()) - exact) * wanted.seconds > ROUNDING:
            raise ValueError(f"{dtype} does not hold times of {own.text!r} as {wanted.text!r}")
    return result
