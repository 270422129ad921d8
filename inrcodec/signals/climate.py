"""Climate fields: NetCDF (classic and HDF5), and reading of GRIB.

One signal per variable on a horizontal grid; the other variables travel losslessly in the attributes of the
first signal. A signal's attributes:

    "dimensions", "shape"   of the variable as stored, in the file's order
    "horizontal"            names of the latitude (or y) and the longitude (or x) dimension
    "dtype", "attributes"   as stored: packing, fill value, units, names
    "file"                  (first signal only) "dimensions" [[name, size, unlimited]], "attributes" and
                            "variables" in the file's order, those on grids by their name alone

Decoded at another resolution, the horizontal coordinates are replaced by the signal's own (projected ones are
interpolated), and other variables along these dimensions, such as bounds, cell areas or 2-D coordinates, are
left out together with the references to them.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.signal import Axis, Signal

if TYPE_CHECKING:
    from inrcodec.signals.cf_grid import Grid
    from inrcodec.signals.cf_packing import Packing
    from inrcodec.signals.netcdf import Contents, Variable

MODALITY = "climate"
GRIB_EXTENSIONS = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
LARGEST = 1e150
"""Beyond it, and for differences below its reciprocal, squares are no numbers of 64 bits."""

WRITABLE = (".nc", ".nc4", ".cdf", ".netcdf")
EXTENSIONS = (*WRITABLE, *GRIB_EXTENSIONS)
DEFAULT_EXTENSION = ".nc"


def read(path: Path) -> list[Signal]:
    """Signals of all variables on a horizontal grid, in the file's order, named by the variable.

    Values are unpacked: [S, H, W, 1], S the product of all leading dimensions, in the variable's own type or,
    if it was packed, float32 (float64 where float32 would not tell the packed numbers apart).

    Raises: SignalError if the file cannot be read, has no such variable, or has infinite values.
    """
    from inrcodec.signals import netcdf
    from inrcodec.signals.cf_grid import data_grids

    contents = _load(path)
    grids = data_grids(contents)
    if not grids:
        names = ", ".join(variable.name for variable in contents.variables) or "none"
        raise SignalError(
            f"{path}: no numeric variable has latitude and longitude (or y and x) dimensions; "
            f"the variables are: {names}"
        )
    variables = {variable.name: variable for variable in contents.variables}
    signals = [_signal(path, variables[name], grid) for name, grid in grids.items()]
    file = {
        "dimensions": [[each.name, each.size, each.unlimited] for each in contents.dimensions],
        "attributes": netcdf.plain_attributes(contents.attributes),
        "variables": [
            {"name": variable.name} if variable.name in grids else netcdf.plain_variable(variable)
            for variable in contents.variables
        ],
    }
    signals[0] = replace(signals[0], attributes=signals[0].attributes | {"file": file})
    return signals


def _load(path: Path) -> "Contents":
    if not path.is_file():
        raise SignalError(f"{path}: no such file")
    with path.open("rb") as file:
        grib_magic = file.read(4) == b"GRIB"
    if grib_magic or path.suffix.lower() in GRIB_EXTENSIONS:
        from inrcodec.signals import grib

        return grib.load(path)
    from inrcodec.signals import netcdf

    return netcdf.load(path)


def _signal(path: Path, variable: "Variable", grid: "Grid") -> Signal:
    from inrcodec.signals import netcdf
    from inrcodec.signals.cf_packing import packing_of, unpack

    label = f"{path}: variable {variable.name!r}"
    stored = np.moveaxis(
        variable.data, [variable.dimensions.index(grid.y), variable.dimensions.index(grid.x)], [-2, -1]
    )
    raw = np.ascontiguousarray(stored).reshape(-1, *stored.shape[-2:])
    values, missing = unpack(raw, packing_of(label, variable.data.dtype, variable.attributes))
    values = _narrowed(label, values, missing)
    infinite = np.count_nonzero(~np.isfinite(values) & ~missing)
    if infinite:
        raise SignalError(f"{label} has {infinite} infinite values; mark them as missing (_FillValue) first")
    low, high = (0.0, 1.0) if missing.all() else (float(f(values[~missing])) for f in (np.min, np.max))
    if not low < high:
        high = low + max(1.0, abs(low)) * 1e-6
    if not (max(abs(low), abs(high)) < LARGEST and high - low > 1 / LARGEST):
        raise SignalError(
            f"{label} has values from {low:g} to {high:g}; mark fillers as missing (_FillValue), or take another unit"
        )
    attributes = {
        "dimensions": list(variable.dimensions),
        "shape": list(variable.data.shape),
        "horizontal": [grid.y, grid.x],
        "dtype": variable.data.dtype.newbyteorder("<").str,
        "attributes": netcdf.plain_attributes(variable.attributes),
    }
    return Signal(
        modality=MODALITY,
        values=filled(values, missing)[..., np.newaxis],
        axes=(Axis(raw.shape[0], "slice"), *grid.axes),
        value_range=(low, high),
        name=variable.name,
        sphere=grid.sphere,
        missing=missing if missing.any() else None,
        attributes=attributes,
    )


def _narrowed(label: str, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Integers of 64 bits as ones of 32."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8:
        return values
    shown = np.where(missing, 0, values)
    limits = np.iinfo(np.int32)
    if shown.size and not (limits.min <= shown.min() and shown.max() <= limits.max):
        raise SignalError(
            f"{label} has integers from {shown.min()} to {shown.max()}, beyond 32 bits; store it as double first"
        )
    return shown.astype(np.int32)


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


def stored_step(signal: Signal) -> float:
    """The step between packed values, 0 for a variable that is not packed into integers."""
    packing = _packing(signal)
    return abs(packing.scale or 0.0) if packing is not None and packing.number.kind in "iu" else 0.0


def read_back(signal: Signal) -> np.ndarray:
    """The values [S, H, W, 1] that `read` returns of what `write` writes; whatever where they are missing.

    Those of the signal if it cannot be written.
    """
    from inrcodec.signals.cf_packing import pack, unpack

    packing = _packing(signal)
    if packing is None or (signal.missing is not None and not packing.markers):
        return signal.values
    raw = pack(f"variable {signal.name!r}", signal.values[..., 0], signal.missing, packing)
    return unpack(raw, packing)[0][..., np.newaxis]


def _packing(signal: Signal) -> "Packing | None":
    """How `write` stores the values; None if it cannot."""
    from inrcodec.signals.cf_writing import packing_of_signal

    try:
        return packing_of_signal(signal)
    except (SignalError, LookupError, TypeError, ValueError, AttributeError):
        return None


def write(signals: list[Signal], path: Path) -> None:
    """Write a NetCDF-4 file that holds these signals and what the first one's attributes say of the file.

    Signals without attributes become variables on (slice,) latitude, longitude.

    Raises: SignalError if the signals contradict each other or the file cannot be written.
    """
    from inrcodec.signals import netcdf
    from inrcodec.signals.cf_writing import contents_of

    if not signals:
        raise SignalError(f"{path}: no signals to write")
    try:
        contents = contents_of(signals)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise SignalError(f"{path}: the signals' attributes are malformed ({error!r})") from error
    netcdf.save(contents, path)
