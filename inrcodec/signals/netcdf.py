"""The contents of a NetCDF or Zarr file exactly as stored, and the same as plain values for a signal's attributes."""

import json
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray

Plain = dict[str, Any]

# Few bytes can unfold to any length: this bounds what a crafted file can ask for, in bytes of one array.
MAX_UNFOLDED = 1 << 30

# Shorter arrays are left to the compression of the whole header, which finds more in common.
DEFLATED_FROM = 1 << 16


@dataclass(frozen=True)
class Dimension:
    size: int
    unlimited: bool = False


@dataclass(frozen=True, eq=False)
class Contents:
    """All of a file, in the file's order, nothing interpreted.

    Names of what is in a group begin with the group's path, as in "forecast/t"; a dimension belongs to the group that
    defines it.

    dimensions: by name. attributes: of the file ("") and of each group, by path.
    variables: by name, packed numbers, single characters ("S1") or strings (dtype object). Numbers of two or more
        dimensions may stay in the file until they are asked for, see `StoredNumbers`; "chunks" in their encoding are
        the sizes of what the file compresses in one. Attributes, also those of the groups, are numpy scalars and
        arrays, strings, lists of strings, and bytes for text in an unknown encoding. An enumeration has "enum" in its
        encoding: its name, and the number of each of its words.
    """

    dimensions: dict[str, Dimension]
    attributes: dict[str, dict[str, Any]]
    variables: dict[str, xarray.Variable]


@contextmanager
def repeated_dimensions() -> Iterator[None]:
    """Let variables have the same dimension twice, as covariances do; xarray warns of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate dimension names", UserWarning)
        yield


def group_of(name: str) -> str:
    """Return the path of the group that a variable or dimension is in."""
    return name.rpartition("/")[0]


def qualified(group: str, name: str) -> str:
    """Return the name in `Contents` of the variable or dimension called `name` in a group."""
    return f"{group}/{name}" if group else name


def netcdf_data(data: np.ndarray) -> np.ndarray:
    """Convert data of types that NetCDF lacks as xarray does: to bytes from booleans, to strings from characters."""
    if data.dtype.kind == "b":
        return data.astype(np.int8)
    if data.dtype.kind in "UT" or (data.dtype.kind == "S" and data.dtype.itemsize > 1):
        texts = np.array([text.decode() if isinstance(text, bytes) else str(text) for text in data.reshape(-1)], object)
        return texts.reshape(data.shape)
    if data.dtype.kind == "f" and data.dtype.itemsize == 2:
        return data.astype(np.float32)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def netcdf_value(value: Any) -> Any:
    """Convert an attribute from JSON or Python to a NetCDF attribute; what NetCDF cannot hold stays JSON."""
    if isinstance(value, bool | np.bool_):
        return np.int8(value)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "bOU":
        value = value.tolist()
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, list) and value and np.asarray(value).dtype.kind in "iuf":
        return np.asarray(value)
    return json.dumps(value) if isinstance(value, dict | list | None) else value


# --- plain values ---


def plain_attributes(attributes: dict[str, Any]) -> Plain:
    """Return the attributes of a variable, group or file as plain values."""
    return {name: _plain_attribute(value) for name, value in attributes.items()}


def _plain_attribute(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, list):
        value = np.array(value, dtype=object)
    array = np.asarray(value)
    if array.shape == () and array.dtype == np.float64:
        return float(array)
    if array.shape == () and array.dtype == np.int64:
        return int(array)
    return plain_array(array)


def parse_attributes(plain: Plain) -> dict[str, Any]:
    """Undo `plain_attributes`. Raises: KeyError, TypeError, ValueError for malformed ones."""
    return {name: _parse_attribute(value) for name, value in plain.items()}


def _parse_attribute(value: Any) -> Any:
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, dict):
        array = parse_array(value)
        if array.dtype == object:
            return array.tolist()
        return array if array.shape else array[()]
    if isinstance(value, str | bytes):
        return value
    raise TypeError(f"no NetCDF attribute: {value!r}")


def plain_array(array: np.ndarray) -> Plain:
    """Return an array as plain values: {"dtype", "shape"} and its numbers.

    Equally spaced numbers are {"start", "step"}, others are bytes: {"data"} or {"planes"}. Planes have
    the first bytes of all numbers first, then the second bytes and so on. {"deflated"} says that they, or the data, are
    a zlib stream. The dtype "text" stands for strings (dtype object): UTF-8, a zero byte between two.
    """
    shape = list(array.shape)
    if array.dtype.kind in "OU":
        return {"dtype": "text", "shape": shape} | _packed("\0".join(map(str, array.reshape(-1))).encode(), 1)
    array = np.ascontiguousarray(array).reshape(shape)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    plain: Plain = {"dtype": array.dtype.str, "shape": shape}
    if array.ndim == 1 and array.size >= 3 and array.nbytes <= MAX_UNFOLDED:
        progression = _progression(array)
        if progression is not None:
            return plain | {"start": progression[0], "step": progression[1]}
    return plain | _packed(array.tobytes(), array.dtype.itemsize)


def _packed(data: bytes, width: int) -> Plain:
    """Return the bytes of numbers of `width` bytes each, in the order that deflates better."""
    planes = np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()
    as_is, apart = (zlib.compress(order, 9) for order in (data, planes))
    packed = {"planes": planes} if len(apart) < 0.95 * len(as_is) else {"data": data}
    ((order, stored),) = packed.items()
    deflated = apart if order == "planes" else as_is
    if DEFLATED_FROM <= len(stored) <= MAX_UNFOLDED and len(deflated) < len(stored):
        return {order: deflated, "deflated": True}
    return packed


def _unpacked(plain: Plain, width: int, limit: int) -> bytes:
    order = "planes" if "planes" in plain else "data"
    data: bytes = plain[order]
    if type(data) is not bytes:
        raise TypeError(f"{data!r:.80} where bytes belong")
    if "deflated" in plain:
        data = inflate(data, min(limit, MAX_UNFOLDED))
    return data if order == "data" else np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()


def inflate(deflated: bytes, limit: int) -> bytes:
    """Return the bytes in a zlib stream. Raises: ValueError if it is damaged or holds more than `limit` bytes."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(deflated, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) > limit or not inflater.eof or inflater.unused_data:
        raise ValueError(f"not a zlib stream of {limit} bytes at most")
    return data


def _progression(array: np.ndarray) -> tuple[float | int, float | int] | None:
    """Return start and step that give exactly these numbers, or None."""
    if array.dtype.kind in "iu":
        begin, width = int(array[0]), int(array[1]) - int(array[0])
        fits = abs(begin) + abs(width) * array.size < 2**62
        return (
            (begin, width) if fits and np.array_equal(unfold(begin, width, 0, array.size, array.dtype), array) else None
        )
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        return None
    first, last = float(array[0]), float(array[-1])
    mean = (last - first) / (array.size - 1)
    # Single-precision coordinates were rounded from short decimals.
    for start, step in ((first, mean), (round(first, 6), round(mean, 6)), (round(first, 6), round(mean, 9))):
        if math.isfinite(step) and unfold(start, step, 0, array.size, array.dtype).tobytes() == array.tobytes():
            return start, step
    return None


def unfold(start: float | int, step: float | int, begin: int, end: int, dtype: np.dtype) -> np.ndarray:
    """Return the numbers from `begin` to before `end` of equally spaced ones."""
    index: np.ndarray = np.arange(begin, end, dtype=np.int64 if dtype.kind in "iu" else np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(start + step * index).astype(dtype)


def parse_array(plain: Plain) -> np.ndarray:
    """Undo `plain_array`. Raises: KeyError, TypeError, ValueError for malformed ones."""
    shape = tuple(plain["shape"])
    size = math.prod(shape)
    if plain["dtype"] == "text":
        texts = _unpacked(plain, 1, MAX_UNFOLDED).decode().split("\0") if size else []
        array = np.empty(len(texts), dtype=object)
        array[:] = texts
        return array.reshape(shape)
    dtype = np.dtype(plain["dtype"])
    if dtype.kind not in "iufS" or not dtype.itemsize:
        raise ValueError(f"no NetCDF type: {dtype}")
    if "start" not in plain:
        array = np.frombuffer(_unpacked(plain, dtype.itemsize, size * dtype.itemsize), dtype)
    elif 0 <= size * dtype.itemsize <= MAX_UNFOLDED:
        array = unfold(plain["start"], plain["step"], 0, size, dtype)
    else:
        raise ValueError(f"too long: {size}")
    return array.reshape(shape).astype(dtype.newbyteorder("="))


def plain_variable(name: str, variable: xarray.Variable) -> Plain:
    plain = {
        "name": name,
        "dimensions": list(variable.dims),
        "attributes": plain_attributes(variable.attrs),
        **plain_array(variable.values),
    }
    return plain | ({"enum": list(variable.encoding["enum"])} if "enum" in variable.encoding else {})


def parse_variable(plain: Plain) -> xarray.Variable:
    """Undo `plain_variable`. Raises: KeyError, TypeError, ValueError for malformed ones."""
    attributes = parse_attributes(plain["attributes"])
    encoding = {"enum": plain["enum"]} if "enum" in plain else {}
    return xarray.Variable(plain["dimensions"], parse_array(plain), attributes, encoding)
