"""Reading and writing of NetCDF files through xarray's engine.

Nothing is decoded on the way (scales, times, characters), so that what is written is what was stored.
"""

import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray
from xarray.backends import NetCDF4DataStore

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.cf_packing import cast_exactly
from inrcodec.signals.cf_slices import Key, StoredNumbers
from inrcodec.signals.netcdf import Contents, Dimension, group_of, qualified, repeated_dimensions
from inrcodec.signals.netcdf_classic import check_length
from inrcodec.signals.reading_errors import reason, unreadable

# What the libraries note about their own files: in a new file it would be refused, or believed.
RESERVED = frozenset(
    {"CLASS", "NAME", "DIMENSION_LABELS", "DIMENSION_LIST", "REFERENCE_LIST", "_ARRAY_DIMENSIONS", "_Codecs"}
    | {"_Format", "_IsNetcdf4", "_NCProperties", "_Netcdf4Coordinates", "_Netcdf4Dimid", "_SuperblockVersion"}
    | {"_nc3_strict", "_nczarr_array", "_nczarr_attr", "_nczarr_attrs", "_nczarr_group", "_nczarr_superblock"}
)


class _AsStored(NetCDF4DataStore):
    """Variables are written as they are: their numbers and characters are the file's own already."""

    def encode_variable(self, variable: xarray.Variable, name: Any = None) -> xarray.Variable:
        return variable


_open: Any = _AsStored  # without types in xarray


@repeated_dimensions()
def load(path: Path, stack: ExitStack) -> Contents:
    """Read a whole NetCDF file, but for numbers on grids, which can be read as long as `stack` is open.

    A variable that cannot be read is left out with a warning.

    Raises: SignalError if the file is none, or is incomplete.
    """
    if not path.is_file():
        raise SignalError(f"{path}: no such file")
    with _reading(path):
        check_length(path)
        file = stack.enter_context(netCDF4.Dataset(os.fspath(path)))
        return storable(path, _load_groups(path, file))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the NetCDF library raises about a file into a SignalError."""
    try:
        yield
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise unreadable(path, "a NetCDF file", error, "is it complete?") from error


def stays_in_file(variable: xarray.Variable) -> bool:
    """Say whether the numbers of a variable need not be in memory: they may be those of a field."""
    return variable.dtype.kind in "iuf" and variable.ndim >= 2 and len(set(variable.dims)) == variable.ndim


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
            dims = [_defined(place, dimension, contents.dimensions) for dimension in variable.dimensions]
            stored = store.open_store_variable(name, variable)
            if stays_in_file(stored) and not isinstance(kind, netCDF4.EnumType):
                contents.variables[full] = _netcdf_numbers(path, stored, dims, _attributes(variable))
                continue
            try:
                data = stored.values
            except UnicodeDecodeError:
                warn(f"{path}: variable {full!r} has text that is not UTF-8: it is left out")
                continue
            data = data.astype(data.dtype.newbyteorder("="), copy=False)
            encoding = {"enum": [kind.name, dict(kind.enum_dict)]} if isinstance(kind, netCDF4.EnumType) else {}
            contents.variables[full] = xarray.Variable(dims, data, _attributes(variable), encoding)
    return contents


def _netcdf_numbers(
    path: Path, stored: xarray.Variable, dims: list[str], attributes: dict[str, Any]
) -> xarray.Variable:
    dtype = stored.dtype.newbyteorder("=")

    def read(key: Key) -> np.ndarray:
        with _reading(path):
            return stored[key].values.astype(dtype, copy=False)

    return StoredNumbers(stored.shape, dtype, read).variable(dims, attributes, stored.encoding.get("chunksizes"))


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


def save(contents: Contents, path: Path, fields: Mapping[str, Iterable[tuple[Key, np.ndarray]]]) -> None:
    """Write a NetCDF-4 file, numbers deflated.

    A `_FillValue` that its variable's type cannot hold is left out: NetCDF-4, unlike the classic format, has no place
    for it.

    fields: yield, for the variables of these names, numbers and the region that they are written to; what the contents
        have for them is not written. Errors of these iterables are passed on.
    Raises: SignalError if the file cannot be written or the contents contradict themselves.
    """
    with ExitStack() as stack:
        with _writing(path):
            file = stack.enter_context(netCDF4.Dataset(os.fspath(path), "w", format="NETCDF4"))
            targets = _save_groups(contents, file, fields.keys())
        for name, parts in fields.items():
            for key, numbers in parts:
                with _writing(path):
                    targets[name][key] = numbers
        with _writing(path):
            stack.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the NetCDF library raises while it writes a file into a SignalError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise SignalError(f"{path}: cannot be written as NetCDF ({reason(error)})") from error


@repeated_dimensions()
def _save_groups(contents: Contents, file: netCDF4.Dataset, fields: Collection[str]) -> dict[str, Any]:
    """Write all but the numbers of fields; return where those are to be written."""
    targets = {}
    for place, attributes in contents.attributes.items():
        group = file.createGroup(place) if place else file
        for name, dimension in contents.dimensions.items():
            if group_of(name) == place:
                group.createDimension(name.split("/")[-1], None if dimension.unlimited else dimension.size)
        store = _open(group)
        store.set_attributes(attributes)
        for name, variable in contents.variables.items():
            if group_of(name) != place:
                continue
            target, data = store.prepare_variable(name.split("/")[-1], _local(variable))
            if name in fields:
                targets[name] = target
            else:
                target[...] = data
    return targets


def _local(variable: xarray.Variable) -> xarray.Variable:
    """Return a variable as the store of its group wants it."""
    data, attributes = variable.values, dict(variable.attrs)
    text = data.dtype.kind in "OU"
    encoding: dict[str, Any] = {"zlib": True, "shuffle": True} if variable.dims and not text else {}
    if "chunks" in variable.encoding:
        encoding["chunksizes"] = variable.encoding["chunks"]
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
