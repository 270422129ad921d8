"""Climate fields: NetCDF (classic and HDF5), and reading of GRIB and Zarr.

One signal per variable on a horizontal grid; the other variables travel losslessly in the attributes of the
first signal, as do those that no field can hold: strings, times, categories, small and 64-bit integers. A file of
nothing else becomes one signal of one value that carries it. A signal's attributes:

    "dimensions", "shape"   of the variable as stored, in the file's order
    "horizontal"            names of the latitude (or y) and the longitude (or x) dimension
    "dtype", "attributes"   as stored: packing, fill value, units, names
    "limits", "zeros", "gaps"  what is kept exactly: see `cf_exact`
    "file"                  (first signal only) "dimensions" [[name, size, unlimited]], "attributes" and
                            "variables" in the file's order, those on grids by their name alone; "groups": the
                            attributes of each, by its path
    "carrier"               True of a signal that only carries the file

Decoded at another resolution, the horizontal coordinates are replaced by the signal's own (projected ones are
interpolated), of lossless variables on a grid the nearest numbers are taken, and other variables along these
dimensions, such as bounds, cell areas or 2-D coordinates, are left out together with the references to them.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.signal import Axis, Signal

if TYPE_CHECKING:
    import xarray

    from inrcodec.signals.cf_grid import Grid
    from inrcodec.signals.netcdf import Contents

MODALITY = "climate"
GRIB_EXTENSIONS = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError)
"""What attributes lead to that are not those that `read` gives."""

LARGEST = 1e150
"""Beyond it, and for differences below its reciprocal, squares are no numbers of 64 bits."""

UNEQUAL = 8.0
"""Slices whose ranges differ by more than this factor have ranges of their own."""

EXACT_INTEGERS = 1 << 53
"""Larger integers are not all exact as floats."""

CATEGORIES = 256
"""Integers of no more different values than these, each on average there four times, are taken for categories, unless
they are packed."""

WRITABLE = (".nc", ".nc4", ".cdf", ".netcdf")
EXTENSIONS = (*WRITABLE, *GRIB_EXTENSIONS, ".zarr")
DEFAULT_EXTENSION = ".nc"


def read(path: Path) -> list[Signal]:
    """Signals of all variables on a horizontal grid, in the file's order, named by the variable.

    Values are unpacked: [S, H, W, 1], S the product of all leading dimensions, in the variable's own type or,
    if it was packed, float32 (float64 where float32 would not tell the packed numbers apart). What was infinite, or
    seems to be an undeclared fill value, is missing; a warning says so.

    Raises: SignalError if the file cannot be read or holds nothing.
    """
    from inrcodec.signals.cf_grid import data_grids
    from inrcodec.signals.climate_files import warn

    contents = _load(path)
    if not contents.variables:
        raise SignalError(f"{path}: there are no variables in this file; give another one")
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


def _load(path: Path) -> "Contents":
    if path.is_file():
        with path.open("rb") as file:
            grib_magic = file.read(4) == b"GRIB"
        if grib_magic or path.suffix.lower() in GRIB_EXTENSIONS:
            from inrcodec.signals import grib

            return grib.load(path)
    from inrcodec.signals import climate_files

    return climate_files.load(path)


def _plain_file(contents: "Contents", fields: set[str]) -> dict[str, Any]:
    from inrcodec.signals.netcdf import plain_attributes, plain_variable

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
    """A signal of one value, for a file without fields."""
    axes = (Axis(1, "slice"), Axis(1, "node"), Axis(1, "node"))
    return Signal(MODALITY, np.zeros((1, 1, 1, 1), np.float32), axes, (0.0, 1.0), attributes={"carrier": True})


def _is_categorical(variable: "xarray.Variable") -> bool:
    """Whether the numbers are better not interpolated: times, 64-bit and few different integers, words."""
    from inrcodec.signals.cf_packing import packing_of, unpack

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


def _signal(path: Path, name: str, variable: "xarray.Variable", grid: "Grid") -> Signal:
    from inrcodec.signals.cf_exact import gaps_of, pack_mask, zeros_of
    from inrcodec.signals.cf_packing import packing_of, unpack
    from inrcodec.signals.netcdf import plain_attributes

    label = f"{path}: variable {name!r}"
    stored = np.moveaxis(variable.values, [variable.dims.index(grid.y), variable.dims.index(grid.x)], [-2, -1])
    raw = np.ascontiguousarray(stored).reshape(-1, *stored.shape[-2:])
    packing = packing_of(label, variable.dtype, variable.attrs)
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
        modality=MODALITY,
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
    """Where values [S, H, W] are infinite or seem to be undeclared fill values; warns of each kind."""
    from inrcodec.signals.cf_exact import undeclared_fills
    from inrcodec.signals.climate_files import warn

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
    """Fill gaps smoothly, so that a field can follow: with the nearest value of the slice, or the mean of all
    where a slice has none. values, missing: [S, H, W]."""
    if not missing.any():
        return values
    if missing.all():
        return np.zeros_like(values)
    from scipy.ndimage import distance_transform_edt

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


def exact_values(signal: Signal) -> np.ndarray:
    """The decoded values [S, H, W, 1], none beyond the file's smallest and largest one, zero where the file's are.

    The encoder's bound holds for them, too: no value gets further away from the original one.

    Raises: SignalError if the signal's attributes are malformed.
    """
    from inrcodec.signals import cf_exact

    try:
        return cf_exact.exact_values(signal.values, signal.attributes)
    except MALFORMED as error:
        raise SignalError(f"the limits or zeros of variable {signal.name!r} are malformed ({error!r})") from error


def stored_step(signal: Signal) -> float:
    """The step between packed values, 0 for a variable that is not packed into integers."""
    from inrcodec.signals.cf_writing import field_of

    try:
        packing = field_of(signal).packing
    except (SignalError, *MALFORMED):
        return 0.0
    return abs(packing.scale or 0.0) if packing.number.kind in "iu" else 0.0


def read_back(signal: Signal) -> np.ndarray:
    """The values [S, H, W, 1] that `read` returns of what `write` writes; whatever where they are missing.

    Those of the signal if it cannot be written.
    """
    from inrcodec.signals.cf_packing import unpack
    from inrcodec.signals.cf_writing import field_of

    try:
        field = field_of(signal)
        return unpack(field.numbers(), field.packing)[0][..., np.newaxis]
    except (SignalError, *MALFORMED):
        return signal.values


def write(signals: list[Signal], path: Path) -> None:
    """Write a NetCDF-4 file that holds these signals and what the first one's attributes say of the file.

    Signals without attributes become variables on (slice,) latitude, longitude.

    Raises: SignalError if the signals contradict each other or the file cannot be written.
    """
    from inrcodec.signals.cf_writing import contents_of
    from inrcodec.signals.climate_files import save

    if not signals:
        raise SignalError(f"{path}: no signals to write")
    try:
        contents = contents_of(signals)
    except MALFORMED as error:
        raise SignalError(f"{path}: the signals' attributes are malformed ({error!r})") from error
    save(contents, path)
