"""The contents of a climate file to signals. Importing this imports xarray, netCDF4 and scipy."""

from dataclasses import replace
from typing import Any

import numpy as np
import xarray
from scipy.ndimage import distance_transform_edt

from inrcodec.errors import SignalError
from inrcodec.signals.cf_grid import Grid, data_grids
from inrcodec.signals.cf_order import leading_order
from inrcodec.signals.cf_packing import packing_of
from inrcodec.signals.cf_slices import Kept, Slices
from inrcodec.signals.cf_survey import FieldNumbers, NoField, find
from inrcodec.signals.climate_files import warn
from inrcodec.signals.lazy import SLAB_VALUES, AnySignal, LazySignal, Rows
from inrcodec.signals.netcdf import Contents, plain_attributes, plain_variable
from inrcodec.signals.signal import Axis, Signal

CATEGORIES = 256
"""Integers of no more different values than these, each on average there four times, are taken for categories, unless
they are packed."""


def signals_of(label: str, contents: Contents) -> list[AnySignal]:
    """Return the signals of a file's contents, as `climate.opened` does. label: names the file in messages."""
    signals: list[AnySignal] = []
    kept = Kept()
    for name, grid in data_grids(contents).items():
        variable = contents.variables[name]
        slices = Slices(variable, grid, kept)
        if _is_categorical(variable, slices):
            continue
        try:
            signal = _signal(f"{label}: variable {name!r}", name, variable, grid, slices)
        except NoField as error:
            warn(f"{error}: it is stored losslessly")
            continue
        signals.append(signal if signal.samples > SLAB_VALUES else signal.loaded())
    if not signals:
        names = ", ".join(contents.variables)
        warn(
            f"{label}: no variable of numbers has latitude and longitude (or y and x) dimensions; all of them are "
            f"stored losslessly: {names}"
        )
        signals = [_carrier()]
    file = _plain_file(contents, {signal.name for signal in signals})
    signals[0] = replace(signals[0], attributes=signals[0].attributes | {"file": file})
    return signals


def _plain_file(contents: Contents, fields: set[str]) -> dict[str, Any]:
    attributes = {place: plain_attributes(each) for place, each in contents.attributes.items()}
    file = {
        "dimensions": [[name, each.size, each.unlimited] for name, each in contents.dimensions.items()],
        "attributes": attributes.pop("", {}),
        "variables": [
            {"name": name} if name in fields else plain_variable(name, variable)
            for name, variable in contents.variables.items()
        ],
    }
    return file | ({"groups": attributes} if attributes else {})


def _carrier() -> Signal:
    """Return a signal of one value, for a file without fields."""
    axes = (Axis(1, "slice"), Axis(1, "node"), Axis(1, "node"))
    return Signal("climate", np.zeros((1, 1, 1, 1), np.float32), axes, (0.0, 1.0), attributes={"carrier": True})


def _is_categorical(variable: xarray.Variable, slices: Slices) -> bool:
    """Say whether the numbers are better not interpolated: times, 64-bit and few different integers, words."""
    if " since " in str(variable.attrs.get("units", "")) or "enum" in variable.encoding:
        return True
    if {"flag_values", "flag_masks"} & variable.attrs.keys():
        return True
    if variable.dtype.kind == "f" or {"scale_factor", "add_offset"} & variable.attrs.keys():
        return False
    if variable.dtype.itemsize == 8:
        return True
    kinds, count = np.empty(0, variable.dtype), 0
    for _, values, missing in FieldNumbers(slices, packing_of("", variable.dtype, variable.attrs)).parts():
        present = values[~missing]
        kinds, count = np.union1d(kinds, present), count + present.size
        if kinds.size > CATEGORIES:
            return False
    return 1 < kinds.size <= count // 4


def _signal(label: str, name: str, variable: xarray.Variable, grid: Grid, slices: Slices) -> LazySignal:
    try:
        packing = packing_of(label, variable.dtype, variable.attrs)
    except SignalError as error:
        raise NoField(str(error)) from error
    numbers = FieldNumbers(slices, packing)

    def read_one(number: int) -> tuple[np.ndarray, np.ndarray]:
        _, values, missing = numbers.read(number, number + 1)
        return values[0], missing[0]

    order = leading_order(slices.sizes, read_one)
    slices.put_in_order(order)
    found = find(label, numbers)
    exactly: dict[str, Any] = {"zeros": found.zeros, "limits": found.limits, "gaps": found.gaps}
    if order != sorted(order):
        exactly["leading"] = order
    filler = Filler(found.mean)

    def read(begin: int, end: int) -> Rows:
        _, values, missing = found.numbers.read(begin, end)
        missing |= ~np.isfinite(values)
        return filler.fill(values, missing)[..., np.newaxis], missing if found.has_missing else None

    return LazySignal(
        modality="climate",
        dtype=packing.value_dtype,
        axes=(Axis(slices.shape[0], "slice"), *grid.axes),
        channels=1,
        value_range=found.value_range,
        read=read,
        name=name,
        sphere=grid.sphere,
        has_missing=found.has_missing,
        attributes={
            "dimensions": [str(dimension) for dimension in variable.dims],
            "shape": list(variable.shape),
            "horizontal": [grid.y, grid.x],
            "dtype": variable.dtype.newbyteorder("<").str,
            "attributes": plain_attributes(variable.attrs),
            **{key: value for key, value in exactly.items() if value is not None},
        },
        slice_ranges=found.slice_ranges,
    )


class Filler:
    """Fills gaps smoothly, so that a field can follow.

    A gap gets the nearest value of its slice, or the mean of all slices where its own has no value.
    """

    def __init__(self, mean: float) -> None:
        self._mean = mean
        # Masks of land repeat from slice to slice.
        self._hole = np.empty(0, bool)
        self._nearest = np.empty(0, np.int32)

    def fill(self, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return values with the gaps filled. values, missing: [n, H, W]."""
        if not missing.any():
            return values
        result = values.copy()
        for piece, hole in zip(result, missing, strict=True):
            if hole.all():
                piece[...] = self._mean
            elif hole.any():
                if not np.array_equal(hole, self._hole):
                    self._nearest = distance_transform_edt(hole, return_distances=False, return_indices=True)
                    self._hole = hole
                piece[hole] = piece[tuple(self._nearest)][hole]
        return result
