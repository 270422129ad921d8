"""Reading of Zarr stores through xarray's engine. Needs the extra `inrcodec[zarr]`.

Nothing is decoded on the way, as in `climate_files`.
"""

import itertools
import json
import warnings
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from inrcodec.errors import SignalError
from inrcodec.signals.cf_slices import Key, StoredNumbers
from inrcodec.signals.climate_files import stays_in_file, storable
from inrcodec.signals.netcdf import Contents, Dimension, qualified, repeated_dimensions
from inrcodec.signals.reading_errors import reason, unreadable

CHUNK_ERRORS = (OSError, RuntimeError, ValueError, TypeError)
"""What reading of a damaged chunk raises."""

# `decode_cf=False` does not reach all engines.
_AS_STORED: Any = dict.fromkeys(
    ("mask_and_scale", "decode_times", "decode_timedelta", "decode_coords", "concat_characters"), False
)


@repeated_dimensions()
def load(path: Path, stack: ExitStack) -> Contents:
    """Read a whole store, but for numbers on grids, which can be read as long as `stack` is open.

    Raises: SignalError if the folder is no store, or the library is missing.
    """
    if find_spec("zarr") is None:
        raise SignalError(f"{path}: reading a Zarr store needs: pip install zarr")
    contents = Contents({}, {}, {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is not consolidated
            groups = xarray.open_groups(path, engine="zarr", cache=False, **_AS_STORED)
            for dataset in groups.values():
                stack.callback(dataset.close)
            for place, dataset in ((name.strip("/"), dataset) for name, dataset in groups.items()):
                contents.attributes[place] = {name: _netcdf_value(value) for name, value in dataset.attrs.items()}
                for name, size in dataset.sizes.items():
                    contents.dimensions[qualified(place, str(name))] = Dimension(size)
                for name, variable in dataset.variables.items():
                    full = qualified(place, str(name))
                    contents.variables[full] = _variable(f"{path}: variable {full!r}", place, variable)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise unreadable(path, "a Zarr store", error, "is it complete?") from error
    if not contents.variables:
        raise SignalError(f"{path}: not a Zarr store, or an empty one")
    return storable(path, contents)


def _variable(label: str, place: str, variable: xarray.Variable) -> xarray.Variable:
    """Return a variable of a store. Raises: SignalError that names a chunk that cannot be read, also later."""
    attributes = {key: _netcdf_value(value) for key, value in variable.attrs.items()}
    if variable.dtype.kind == "b":
        attributes["dtype"] = "bool"
    chunks = variable.encoding.get("chunks") or variable.shape
    dims = [qualified(place, str(dimension)) for dimension in variable.dims]

    def read(key: Key) -> np.ndarray:
        try:
            return _netcdf_data(variable[key].values)
        except CHUNK_ERRORS as error:
            found = _damaged_chunk(variable, key, chunks)
            where, why = ("a chunk", error) if found is None else (f"chunk {found[0]}", found[1])
            raise SignalError(f"{label}: {where} cannot be read ({reason(why)}); fetch the store again") from why

    if stays_in_file(variable):
        dtype = _netcdf_data(np.empty(0, variable.dtype)).dtype
        return StoredNumbers(variable.shape, dtype, read).variable(dims, attributes, chunks)
    return xarray.Variable(dims, read(tuple(slice(0, size) for size in variable.shape)), attributes)


def _damaged_chunk(
    variable: xarray.Variable, key: Key, chunks: tuple[int, ...]
) -> tuple[tuple[int, ...], Exception] | None:
    """Return the first chunk in a region that cannot be read, and why; None if all can be read now."""
    ranges = [range(each.start // size, -(-each.stop // size)) for each, size in zip(key, chunks, strict=True)]
    for number in itertools.product(*ranges):
        try:
            _ = variable[tuple(slice(i * size, (i + 1) * size) for i, size in zip(number, chunks, strict=True))].values
        except CHUNK_ERRORS as error:
            return number, error
    return None


def _netcdf_data(data: np.ndarray) -> np.ndarray:
    """Convert data of types that NetCDF lacks as xarray does: to bytes from booleans, to strings from characters."""
    if data.dtype.kind == "b":
        return data.astype(np.int8)
    if data.dtype.kind in "UT" or (data.dtype.kind == "S" and data.dtype.itemsize > 1):
        texts = np.array([text.decode() if isinstance(text, bytes) else str(text) for text in data.reshape(-1)], object)
        return texts.reshape(data.shape)
    if data.dtype.kind == "f" and data.dtype.itemsize == 2:
        return data.astype(np.float32)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _netcdf_value(value: Any) -> Any:
    """Convert an attribute from JSON to a NetCDF attribute; what NetCDF cannot hold stays JSON."""
    if isinstance(value, bool):
        return np.int8(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, list) and value and np.asarray(value).dtype.kind in "iuf":
        return np.asarray(value)
    return json.dumps(value) if isinstance(value, dict | list | None) else value
