"""NetCDF files as plain data: dimensions, attributes and variables exactly as stored, nothing interpreted.

The whole file is read into memory. NetCDF classic and NetCDF-4 are read, NetCDF-4 (HDF5) is written.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals import netcdf_classic

Plain = dict[str, Any]

# A progression is a few bytes that unfold to any length: this bounds what a crafted file can ask for.
MAX_PROGRESSION = 1 << 24


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable as stored: packed values, not unpacked ones.

    data: array of the shape of `dimensions`; numbers, single characters ("S1") or strings (dtype object).
    attributes: numpy scalars and arrays, strings, lists of strings.
    """

    name: str
    dimensions: tuple[str, ...]
    attributes: dict[str, Any]
    data: np.ndarray


@dataclass(frozen=True)
class Dimension:
    name: str
    size: int
    unlimited: bool = False


@dataclass(frozen=True, eq=False)
class Contents:
    """All of a NetCDF file, in the file's order."""

    dimensions: tuple[Dimension, ...]
    attributes: dict[str, Any]
    variables: tuple[Variable, ...]


def load(path: Path) -> Contents:
    """Read a whole NetCDF file.

    Raises: SignalError if it is not a complete NetCDF file, or has groups or user-defined types.
    """
    if not path.is_file():
        raise SignalError(f"{path}: no such file")
    try:
        netcdf_classic.check_length(path)
        with netCDF4.Dataset(os.fspath(path)) as dataset:
            dataset.set_auto_maskandscale(False)
            dataset.set_auto_chartostring(False)
            if dataset.groups:
                raise SignalError(
                    f"{path}: the groups {sorted(dataset.groups)} are not supported; "
                    "extract the wanted group to a file of its own"
                )
            dimensions = tuple(
                Dimension(name, len(dimension), dimension.isunlimited())
                for name, dimension in dataset.dimensions.items()
            )
            variables = tuple(_load_variable(path, variable) for variable in dataset.variables.values())
            return Contents(dimensions, _load_attributes(dataset), variables)
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise SignalError(f"{path}: not a readable NetCDF file ({error}); is it complete?") from error
    except MemoryError as error:
        raise SignalError(f"{path}: does not fit in memory; split it, for example by time") from error


def _load_attributes(owner: Any) -> dict[str, Any]:
    return {name: owner.getncattr(name) for name in owner.ncattrs()}


def _load_variable(path: Path, variable: Any) -> Variable:
    user_defined = (netCDF4.CompoundType, netCDF4.EnumType, netCDF4.VLType)
    if variable.dtype is not str and isinstance(variable.datatype, user_defined):
        raise SignalError(
            f"{path}: variable {variable.name!r} has a user-defined type (compound, enum, variable length), "
            "which is not supported; remove it, for example with: ncks -x -v"
        )
    if variable.dtype is str:
        data = np.empty(variable.shape, dtype=object)
        data[...] = variable[...]
    else:
        data = np.asarray(variable[...]).reshape(variable.shape)
        data = data.astype(data.dtype.newbyteorder("="), copy=False)
    return Variable(variable.name, tuple(variable.dimensions), _load_attributes(variable), data)


def save(contents: Contents, path: Path) -> None:
    """Write a NetCDF-4 file, numbers deflated. A `_FillValue` that its variable's type cannot hold is left
    out: NetCDF-4, unlike the classic format, has no place for it.

    Raises: SignalError if the file cannot be written or the contents contradict themselves.
    """
    try:
        with netCDF4.Dataset(os.fspath(path), "w", format="NETCDF4") as dataset:
            dataset.set_auto_maskandscale(False)
            dataset.set_auto_chartostring(False)
            for dimension in contents.dimensions:
                dataset.createDimension(dimension.name, None if dimension.unlimited else dimension.size)
            dataset.setncatts(contents.attributes)
            for variable in contents.variables:
                _save_variable(dataset, variable)
    except (OSError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise SignalError(f"{path}: cannot be written as NetCDF ({error})") from error


def _save_variable(dataset: Any, variable: Variable) -> None:
    attributes = dict(variable.attributes)
    fill = attributes.pop("_FillValue", None)
    text = variable.data.dtype == object
    if fill is not None and not text:
        fill = cast_exactly(fill, variable.data.dtype)
    created = dataset.createVariable(
        variable.name,
        str if text else variable.data.dtype,
        variable.dimensions,
        fill_value=fill,
        compression="zlib" if variable.dimensions and not text else None,
    )
    created.set_auto_maskandscale(False)
    created.set_auto_chartostring(False)
    created.setncatts(attributes)
    if text and not variable.dimensions:
        created[...] = variable.data.item()
    else:
        created[...] = variable.data


def cast_exactly(value: Any, dtype: np.dtype) -> Any:
    """A number or character as a scalar of `dtype`, or None where that changes it."""
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


# --- plain values, for a signal's attributes ---


def plain_attributes(attributes: dict[str, Any]) -> Plain:
    return {name: _plain_attribute(value) for name, value in attributes.items()}


def _plain_attribute(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [str(item) for item in value]
    array = np.asarray(value)
    if array.shape == () and array.dtype == np.float64:
        return float(array)
    if array.shape == () and array.dtype == np.int64:
        return int(array)
    return plain_array(array)


def parse_attributes(plain: Plain) -> dict[str, Any]:
    """Inverse of `plain_attributes`. Raises: KeyError, TypeError, ValueError for malformed ones."""
    return {name: _parse_attribute(value) for name, value in plain.items()}


def _parse_attribute(value: Any) -> Any:
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, dict):
        array = parse_array(value)
        return array if array.shape else array[()]
    if isinstance(value, str | list):
        return value
    raise TypeError(f"no NetCDF attribute: {value!r}")


def plain_array(array: np.ndarray) -> Plain:
    """{"dtype", "shape"} with {"data"}: bytes, or with {"start", "step"} for equally spaced numbers, or with
    {"text"}: a list of strings."""
    shape = list(array.shape)
    if array.dtype == object:
        return {"dtype": "text", "shape": shape, "text": [str(item) for item in array.reshape(-1)]}
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    plain: Plain = {"dtype": array.dtype.str, "shape": shape}
    progression = _progression(array) if array.ndim == 1 and 3 <= array.size <= MAX_PROGRESSION else None
    if progression is not None:
        return plain | {"start": progression[0], "step": progression[1]}
    return plain | {"data": array.tobytes()}


def _progression(array: np.ndarray) -> tuple[float | int, float | int] | None:
    """Start and step that give exactly these numbers, or None."""
    if array.dtype.kind in "iu":
        begin, width = int(array[0]), int(array[1]) - int(array[0])
        fits = abs(begin) + abs(width) * array.size < 2**62
        return (begin, width) if fits and np.array_equal(_unfold(begin, width, array), array) else None
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        return None
    first, last = float(array[0]), float(array[-1])
    mean = (last - first) / (array.size - 1)
    # Single-precision coordinates were rounded from short decimals.
    for start, step in ((first, mean), (round(first, 6), round(mean, 6)), (round(first, 6), round(mean, 9))):
        if math.isfinite(step) and _unfold(start, step, array).tobytes() == array.tobytes():
            return start, step
    return None


def _unfold(start: float | int, step: float | int, like: np.ndarray) -> np.ndarray:
    index: np.ndarray = np.arange(like.size, dtype=np.int64 if like.dtype.kind in "iu" else np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(start + step * index).astype(like.dtype)


def parse_array(plain: Plain) -> np.ndarray:
    """Inverse of `plain_array`. Raises: KeyError, TypeError, ValueError for malformed ones."""
    shape = tuple(plain["shape"])
    if "text" in plain:
        array = np.empty(len(plain["text"]), dtype=object)
        array[:] = [str(item) for item in plain["text"]]
        return array.reshape(shape)
    dtype = np.dtype(plain["dtype"])
    if dtype.kind not in "iufS":
        raise ValueError(f"no NetCDF type: {dtype}")
    if "data" in plain:
        array = np.frombuffer(plain["data"], dtype)
    else:
        size = math.prod(shape)
        if not 0 <= size <= MAX_PROGRESSION:
            raise ValueError(f"too long: {size}")
        array = _unfold(plain["start"], plain["step"], np.broadcast_to(np.zeros(1, dtype), size))
    return array.reshape(shape).astype(dtype.newbyteorder("="))


def plain_variable(variable: Variable) -> Plain:
    return {
        "name": variable.name,
        "dimensions": list(variable.dimensions),
        "attributes": plain_attributes(variable.attributes),
        **plain_array(variable.data),
    }


def parse_variable(plain: Plain) -> Variable:
    """Inverse of `plain_variable`. Raises: KeyError, TypeError, ValueError for malformed ones."""
    attributes = parse_attributes(plain["attributes"])
    return Variable(plain["name"], tuple(plain["dimensions"]), attributes, parse_array(plain))
