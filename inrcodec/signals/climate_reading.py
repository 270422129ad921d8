"""The contents of a climate file to signals. Importing this imports xarray, netCDF4 and scipy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from scipy.ndimage import distance_transform_edt

from inrcodec.errors import SignalError
from inrcodec.signals.cf_exact import gaps_of, pack_mask, undeclared_fills, zeros_of
from inrcodec.signals.cf_grid import Grid, data_grids
from inrcodec.signals.cf_order import leading_order
from inrcodec.signals.cf_packing import packing_of, unpack
from inrcodec.signals.climate_files import warn
from inrcodec.signals.netcdf import Contents, plain_attributes, plain_variable
from inrcodec.signals.signal import Axis, Signal

LARGEST = 1e150
"""Beyond it, and for differences below its reciprocal, squares are no numbers of 64 bits."""

UNEQUAL = 8.0
"""Slices whose ranges differ by more than this factor have ranges of their own."""

EXACT_INTEGERS = 1 << 53
"""Larger integers are not all exact as floats."""

CATEGORIES = 256
"""Integers of no more different values than these, each on average there four times, are taken for categories, unless
they are packed."""


def signals_of(path: Path, contents: Contents) -> list[Signal]:
    """Return the signals of a file's contents, as `climate.read` does; `path` is for messages."""
    signals = []
    for name, grid in data_grids(contents).items():
        variable = contents.variables[name]
        if _is_categorical(variable):
            continue
        try:
            signals.append(_signal(path, name, variable, grid))
        except SignalError as error:
            warn(f"{error}: it is stored losslessly")
    if not signals:
        names = ", ".join(contents.variables)
        warn(
            f"{path}: no variable of numbers has latitude and longitude (or y and x) dimensions; all of them are "
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


def _is_categorical(variable: xarray.Variable) -> bool:
    """Say whether the numbers are better not interpolated: times, 64-bit and few different integers, words."""
    if " since " in str(variable.attrs.get("units", "")) or "enum" in variable.encoding:
        return True
    if {"flag_values", "flag_masks"} & variable.attrs.keys():
        return True
    if variable.dtype.kind == "f" or {"scale_factor", "add_offset"} & variable.attrs.keys():
        return False
    values, missing = unpack(variable.values, packing_of("", variable.dtype, variable.attrs))
    present = values[~missing]
    return variable.dtype.itemsize == 8 or 1 < np.unique(present).size <= min(CATEGORIES, present.size // 4)


def _extremes(numbers: np.ndarray) -> tuple[int, int]:
    return int(numbers.min()), int(numbers.max())


def _signal(path: Path, name: str, variable: xarray.Variable, grid: Grid) -> Signal:
    label = f"{path}: variable {name!r}"
    stored = np.moveaxis(variable.values, [variable.dims.index(grid.y), variable.dims.index(grid.x)], [-2, -1])
    packing = packing_of(label, variable.dtype, variable.attrs)
    leading = leading_order(stored, packing)
    stored = stored.transpose(*leading, -2, -1)
    raw = np.ascontiguousarray(stored).reshape(-1, *stored.shape[-2:])
    values, missing = unpack(raw, packing)
    if raw.dtype.kind in "iu" and raw[~missing].size and max(map(abs, _extremes(raw[~missing]))) > EXACT_INTEGERS:
        raise SignalError(f"{label} has numbers beyond 2^53, which no float tells apart")
    missing = missing | _unusual(label, values, missing)
    present = values[~missing]
    low, high = (float(present.min()), float(present.max())) if present.size else (0.0, 1.0)
    if not low < high:
        high = low + max(1.0, abs(low)) * 1e-6
    if not (max(abs(low), abs(high)) < LARGEST and high - low > 1 / LARGEST):
        raise SignalError(f"{label} has values from {low:g} to {high:g}, of which squares are no numbers")
    attributes: dict[str, Any] = {
        "dimensions": [str(dimension) for dimension in variable.dims],
        "shape": list(variable.shape),
        "horizontal": [grid.y, grid.x],
        "dtype": variable.dtype.newbyteorder("<").str,
        "attributes": plain_attributes(variable.attrs),
    }
    if leading != sorted(leading):
        attributes["leading"] = leading
    zeros, gaps = zeros_of(values, missing, packing), gaps_of(raw, missing, packing)
    if zeros is not None:
        zero, places = zeros
        attributes["zeros"] = [zero, *places.shape, pack_mask(places)]
        present = values[~(missing | places)]
    if present.size:
        attributes["limits"] = [float(present.min()), float(present.max())]
    if gaps is not None:
        attributes["gaps"] = gaps
    return Signal(
        modality="climate",
        slice_ranges=_slice_ranges(values, missing),
        values=filled(values, missing)[..., np.newaxis],
        axes=(Axis(raw.shape[0], "slice"), *grid.axes),
        value_range=(low, high),
        name=name,
        sphere=grid.sphere,
        missing=missing if missing.any() else None,
        attributes=attributes,
    )


def _slice_ranges(values: np.ndarray, missing: np.ndarray) -> np.ndarray | None:
    """Return the range of every slice of values [S, H, W], [S, 2], where they differ much; else None."""
    present = [part[~gaps] for part, gaps in zip(values, missing, strict=True)]
    limits = np.array([(part.min(), part.max()) if part.size else (0.0, 1.0) for part in present], np.float64)
    spans = limits[:, 1] - limits[:, 0]
    if spans.min() * UNEQUAL >= spans.max():
        return None
    smallest = np.maximum(np.abs(limits).max(1) * 1e-6, spans.max() * 1e-9)
    return np.stack([limits[:, 0], limits[:, 0] + np.maximum(spans, smallest)], 1)


def _unusual(label: str, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return where values [S, H, W] are infinite or seem to be undeclared fill values; warn of each kind."""
    unusual = ~np.isfinite(values) & ~missing
    for infinity, count in zip(*np.unique(values[unusual], return_counts=True), strict=True):
        warn(f"{label} has {count} infinite values ({infinity}): they are kept exactly, as if missing")
    for value, count in undeclared_fills(values[~(missing | unusual)]):
        warn(
            f"{label} has {count} values of {value:g}, far outside the others, not declared as _FillValue: "
            "they are kept exactly, as if missing"
        )
        unusual |= values == value
    return unusual


def filled(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Fill gaps smoothly, so that a field can follow. values, missing: [S, H, W].

    A gap gets the nearest value of its slice, or the mean of all slices where its own has no value.
    """
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    result = values.copy()
    mean = values[~missing].mean(dtype=np.float64)
    previous: np.ndarray | None = None
    for piece, hole in zip(result, missing, strict=True):
        if hole.all():
            piece[...] = mean
        elif hole.any():
            # Masks of land repeat from slice to slice.
            if previous is None or not np.array_equal(hole, previous):
                nearest = distance_transform_edt(hole, return_distances=False, return_indices=True)
                previous = hole
            piece[hole] = piece[tuple(nearest)][hole]
    return result
