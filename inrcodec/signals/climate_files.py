"""Reading and writing of whole NetCDF files, and reading of Zarr stores, through xarray's engines.

Nothing is decoded on the way (scales, times, characters), so that what is written is what was stored.
"""

import json
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray
from xarray.backends import NetCDF4DataStore
from xarray.backends.common import ArrayWriter

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.cf_packing import cast_exactly
from inrcodec.signals.netcdf import Contents, Dimension, group_of, qualified, repeated_dimensions
from inrcodec.signals.netcdf_classic import check_length
from inrcodec.signals.reading_errors import reason, unreadable

# What the libraries note about their own files: in a new file it would be refused, or believed.
RESERVED = frozenset(
    {"CLASS", "NAME", "DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST", "_ARRAY_DIMENSIONS", "_Codecs"}
    | {"_Format", "_IsNetcdf4", "_NCProperties", "_Netcdf4Coordinates", "_Netcdf4Dimid", "_SuperblockVersion"}
    | {"_nc3_strict", "_nczarr_array", "_nczarr_attr", "_nczarr_attrs", "_nczarr_group", "_nczarr_superblock"}
)


# `decode_cf=False` does not reach all engines.
_AS_STORED: Any = dict.fromkeys(
    ("mask_and_scale", "decode_times", "decode_timedelta", "decode_coords", "concat_characters"), False
)


class _AsStored(NetCDF4DataStore):
    """Variables are written as they are: their numbers and characters are the file's own already."""

    def encode_variable(self, variable: xarray.Variable, name: Any = None) -> xarray.Variable:
        return variable


# Without types in xarray.
_open: Any = _AsStored
_writer: Any = ArrayWriter


@repeated_dimensions()
def load(path: Path) -> Contents:
    """Read a whole NetCDF file or Zarr store. A variable that cannot be read is left out with a warning.

    Raises: SignalError if the file is neither of the two, or is incomplete.
    """
    if path.is_dir() and path.suffix.lower() == ".zarr":
        return _load_zarr(path)
    if not path.is_file():
        raise SignalError(f"{path}: no such file")
    try:
        check_length(path)
        with netCDF4.Dataset(os.fspath(path)) as file:
            return storable(path, _load_groups(path, file))
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise unreadable(path, "a NetCDF file", error, "is it complete?") from error
    except MemoryError as error:
        raise SignalError(f"{path}: does not fit in memory; split it, for example by time") from error


def _groups(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, group
    for name, inner in group.groups.items():
        yield from _groups(inner, qualified(path, name))


def _load_groups(path: Path, file: netCDF4.Dataset) -> Contents:
    contents = Contents({}, {}, {})
    for place, group in _groups(file):
        contents.attributes[place] = _attributes(group)
        for name, dimension in group.dimensions.items():
            contents.dimensions[qualified(place, name)] = Dimension(len(dimension), dimension.isunlimited())
        store = _open(group)
        for name, variable in group.variables.items():
            kind = variable.datatype
            full = qualified(place, name)
            if isinstance(kind, netCDF4.CompoundType | netCDF4.VLType) and variable.dtype is not str:
                warn(f"{path}: variable {full!r} has a type of its own (compound, variable length): it is left out")
                continue
            try:
                data = store.open_store_variable(name, variable).values
            except UnicodeDecodeError:
                warn(f"{path}: variable {full!r} has text that is not UTF-8: it is left out")
                continue
            data = data.astype(data.dtype.newbyteorder("="), copy=False)
            encoding = {"enum": [kind.name, dict(kind.enum_dict)]} if isinstance(kind, netCDF4.EnumType) else {}
            dims = [_defined(place, dimension, contents.dimensions) for dimension in variable.dimensions]
            contents.variables[full] = xarray.Variable(dims, data, _attributes(variable), encoding)
    return contents


def _defined(group: str, name: str, known: dict[str, Dimension]) -> str:
    """Return the dimension that a name means in a group: the group's own, or that of the nearest group around."""
    while group and qualified(group, name) not in known:
        group = group_of(group)
    return qualified(group, name)


def _attributes(owner: Any) -> dict[str, Any]:
    attributes = {name: owner.getncattr(name) for name in owner.ncattrs()}
    for name, value in attributes.items():
        if isinstance(value, str) and "\ufffd" in value:  # what the library puts for bytes that are no UTF-8
            exact = owner.getncattr(name, encoding="latin-1").encode("latin-1")
            try:
                attributes[name] = exact.decode()
            except UnicodeDecodeError:
                attributes[name] = exact
    return attributes


def _load_zarr(path: Path) -> Contents:
    if find_spec("zarr") is None:
        raise SignalError(f"{path}: reading a Zarr store needs: pip install zarr")
    contents = Contents({}, {}, {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is not consolidated
            groups = xarray.open_groups(path, engine="zarr", **_AS_STORED)
            for place, dataset in ((name.strip("/"), dataset) for name, dataset in groups.items()):
                contents.attributes[place] = {name: _netcdf_value(value) for name, value in dataset.attrs.items()}
                for name, size in dataset.sizes.items():
                    contents.dimensions[qualified(place, str(name))] = Dimension(size)
                for name, variable in dataset.variables.items():
                    full = qualified(place, str(name))
                    contents.variables[full] = _zarr_variable(f"{path}: variable {full!r}", place, variable)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise unreadable(path, "a Zarr store", error, "is it complete?") from error
    if not contents.variables:
        raise SignalError(f"{path}: not a Zarr store, or an empty one")
    return storable(path, contents)


def _zarr_variable(label: str, place: str, variable: xarray.Variable) -> xarray.Variable:
    """Load a variable of a store into memory. Raises: SignalError that names a chunk that cannot be read."""
    attributes = {key: _netcdf_value(value) for key, value in variable.attrs.items()}
    if variable.dtype.kind == "b":
        attributes["dtype"] = "bool"
    chunks = variable.encoding.get("chunks") or variable.shape
    counts = [-(-size // chunk) for size, chunk in zip(variable.shape, chunks, strict=True)]
    data = np.empty(variable.shape, variable.dtype)
    for number in np.ndindex(*counts):
        part = tuple(slice(index * size, (index + 1) * size) for index, size in zip(number, chunks, strict=True))
        try:
            data[part] = variable[part].values
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise SignalError(
                f"{label}: chunk {number} cannot be read ({reason(error)}); fetch the store again"
            ) from error
    dims = [qualified(place, str(dimension)) for dimension in variable.dims]
    return xarray.Variable(dims, _netcdf_data(data), attributes)


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


def storable(path: Path, contents: Contents) -> Contents:
    """Remove attributes that cannot be written from the contents: reserved ones, and others with a warning."""
    with netCDF4.Dataset("trial.nc", "w", diskless=True, persist=False) as trial:
        variable = trial.createVariable("trial", "i1")
        owners: list[tuple[Any, str, dict[Any, Any]]] = [
            *((trial, place or "the file", attributes) for place, attributes in contents.attributes.items()),
            *((variable, name, each.attrs) for name, each in contents.variables.items()),
        ]
        for owner, where, attributes in owners:
            for key in RESERVED & attributes.keys():
                del attributes[key]
            for key in [key for key in attributes if owner is trial or key != "_FillValue"]:
                try:
                    owner.setncattr(key, attributes[key])
                except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
                    warn(f"{path}: {where} has an attribute {key!r} that is left out ({error})")
                    del attributes[key]
    return contents


@repeated_dimensions()
def save(contents: Contents, path: Path) -> None:
    """Write a NetCDF-4 file, numbers deflated.

    A `_FillValue` that its variable's type cannot hold is left out: NetCDF-4, unlike the classic format, has no place
    for it.

    Raises: SignalError if the file cannot be written or the contents contradict themselves.
    """
    try:
        with netCDF4.Dataset(os.fspath(path), "w", format="NETCDF4") as file:
            for place, attributes in contents.attributes.items():
                group = file.createGroup(place) if place else file
                for name, dimension in contents.dimensions.items():
                    if group_of(name) == place:
                        group.createDimension(name.split("/")[-1], None if dimension.unlimited else dimension.size)
                store = _open(group)
                store.set_attributes(attributes)
                variables = {
                    name.split("/")[-1]: _local(variable)
                    for name, variable in contents.variables.items()
                    if group_of(name) == place
                }
                store.set_variables(variables, set(), _writer())
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise SignalError(f"{path}: cannot be written as NetCDF ({reason(error)})") from error


def _local(variable: xarray.Variable) -> xarray.Variable:
    """Return a variable as the store of its group wants it."""
    data, attributes = variable.values, dict(variable.attrs)
    text = data.dtype.kind in "OU"
    encoding: dict[str, Any] = {"zlib": True, "shuffle": True} if variable.dims and not text else {}
    if text:
        encoding["dtype"] = str
    if "_FillValue" in attributes and not text:
        fill = cast_exactly(attributes.pop("_FillValue"), data.dtype)
        attributes |= {} if fill is None else {"_FillValue": fill}
    if "enum" in variable.encoding:
        name, words = variable.encoding["enum"]
        data = data.astype(np.dtype(data.dtype.str, metadata={"enum": words, "enum_name": name}))
    return xarray.Variable([str(dimension).split("/")[-1] for dimension in variable.dims], data, attributes, encoding)


def warn(message: str) -> None:
    """Warn of something in a file."""
    warnings.warn(message, InrcodecWarning, stacklevel=2)
