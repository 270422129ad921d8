"""Reading and writing of Zarr stores through xarray's engine. Needs the extra `inrcodec[zarr]`.

Nothing is decoded on the way, as in `climate_files`.
"""

import itertools
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends.zarr import ZarrStore, encode_zarr_variable

from inrcodec.errors import SignalError
from inrcodec.signals.cf_packing import cast_exactly
from inrcodec.signals.cf_slices import Key, StoredNumbers
from inrcodec.signals.climate_files import stays_in_file, storable, warn
from inrcodec.signals.netcdf import (
    Contents,
    Dimension,
    group_of,
    netcdf_data,
    netcdf_value,
    qualified,
    repeated_dimensions,
)
from inrcodec.signals.reading_errors import reason, unreadable

CHUNK_ERRORS = (OSError, RuntimeError, ValueError, TypeError)
"""What reading of a damaged chunk raises."""

_store: Any = ZarrStore  # without types in xarray
_encode_text: Any = encode_zarr_variable


@repeated_dimensions()
def load(path: Path, stack: ExitStack) -> Contents:
    """Read a whole store, but for numbers on grids, which can be read as long as `stack` is open.

    Raises: SignalError if the folder is no store, or the library is missing.
    """
    check_library(path)

    contents = Contents({}, {}, {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is not consolidated
            for name, store in sorted(_store.open_store(path, group="/", consolidated=None).items()):
                stack.callback(store.close)
                place = name.strip("/")
                variables, attributes = store.load()
                contents.attributes[place] = {key: netcdf_value(value) for key, value in attributes.items()}
                for local, variable in sorted(variables.items()):  # folders are in any order
                    full = qualified(place, str(local))
                    sizes = {qualified(place, str(each)): Dimension(size) for each, size in variable.sizes.items()}
                    contents.dimensions.update(sizes)
                    chunks = Chunks(path, store.zarr_group[local])
                    label = f"{path}: variable {full!r}"
                    contents.variables[full] = _variable(label, place, str(local), variable, chunks)
    except SignalError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise unreadable(path, "a Zarr store", error, "is it complete?") from error
    if not contents.variables:
        raise SignalError(f"{path}: not a Zarr store, or an empty one")
    return storable(path, contents)


def check_library(path: Path) -> None:
    """Raises: SignalError that names `path` if the library is missing."""
    if find_spec("zarr") is None:
        raise SignalError(f"{path}: a Zarr store needs: pip install 'inrcodec[zarr]'")


MISSING, CUT = "is missing", "is cut off"

_BLOSC_HEADER = 16


class Chunks:
    """The chunks of an array that are files of a store, whole shards where it has these."""

    def __init__(self, path: Path, array: Any) -> None:
        self._folder = path / array.path
        self._key: Callable[[tuple[int, ...]], str] = array.metadata.encode_chunk_key
        self._sizes: tuple[int, ...] = array.shards or array.chunks
        last = array.compressors[-1] if array.compressors and not array.shards else None
        self._is_blosc = "blosc" in type(last).__name__.lower()

    def around(self, region: Key) -> Iterator[tuple[tuple[int, ...], Key]]:
        """Yield the numbers of the chunks that a region touches, and where they are."""
        spans = zip(region, self._sizes, strict=True)
        for number in itertools.product(*(range(each.start // size, -(-each.stop // size)) for each, size in spans)):
            yield number, tuple(slice(i * size, (i + 1) * size) for i, size in zip(number, self._sizes, strict=True))

    def fault(self, number: tuple[int, ...]) -> str | None:
        """Return what is wrong with a chunk that the library would not tell; None if nothing is."""
        path = self._folder / self._key(number)
        if not path.is_file():
            return MISSING  # to the library it is one of fill values
        size = path.stat().st_size
        if not size:
            return CUT  # to the library an empty shard is one of fill values
        if self._is_blosc:  # whose decoder reads beyond the end
            with path.open("rb") as file:
                head = file.read(_BLOSC_HEADER)
            if len(head) < _BLOSC_HEADER or int.from_bytes(head[12:], "little") > size:
                return CUT
        return None


def _variable(label: str, place: str, name: str, variable: xarray.Variable, chunks: Chunks) -> xarray.Variable:
    """Return a variable of a store. Raises: SignalError that names a chunk that is damaged, also later.

    Chunks of nothing but the fill value may have been left out when the store was written, as over land. Nobody can
    tell them from lost ones: a warning names the first that is missing. Coordinates are refused then.
    """
    attributes = {key: netcdf_value(value) for key, value in variable.attrs.items()}
    if variable.dtype.kind == "b":
        attributes["dtype"] = "bool"
    dims = [qualified(place, str(dimension)) for dimension in variable.dims]
    stays = stays_in_file(variable)
    is_coordinate = variable.dims == (name,) and variable.size > 1
    warned = False

    def read(region: Key) -> np.ndarray:
        nonlocal warned
        try:
            for number, _ in chunks.around(region):
                fault = chunks.fault(number)
                if fault == CUT or (fault == MISSING and is_coordinate):
                    raise SignalError(f"{label}: chunk {number} {fault}; fetch the store again")
                if fault == MISSING and stays and not warned:
                    warned = True
                    warn(f"{label}: chunk {number} {MISSING} and counts as fill values; is the store whole?")
            return netcdf_data(variable[region].values)
        except CHUNK_ERRORS as error:
            found = _damaged(variable, chunks, region)
            where, why = ("a chunk", error) if found is None else (f"chunk {found[0]}", found[1])
            raise SignalError(f"{label}: {where} cannot be read ({reason(why)}); fetch the store again") from why

    if stays:
        dtype = netcdf_data(np.empty(0, variable.dtype)).dtype
        sizes = variable.encoding.get("chunks") or variable.shape
        return StoredNumbers(variable.shape, dtype, read).variable(dims, attributes, sizes)
    return xarray.Variable(dims, read(tuple(slice(0, size) for size in variable.shape)), attributes)


def _damaged(variable: xarray.Variable, chunks: Chunks, region: Key) -> tuple[tuple[int, ...], Exception] | None:
    """Return the first chunk in a region that cannot be read, and why; None if all can be read now."""
    for number, place in chunks.around(region):
        try:
            _ = variable[place].values
        except CHUNK_ERRORS as error:
            return number, error
    return None


def save(contents: Contents, path: Path, fields: Mapping[str, Iterable[tuple[Key, np.ndarray]]]) -> None:
    """Write a store of format 3, as `climate_files.save` writes a file; no chunk is left out.

    Characters become strings, the words of enumerations attributes. Attributes lose their types, as JSON has none.
    Raises: SignalError if the store cannot be written.
    """
    check_library(path)
    attributes = {place: _json_attributes(place or "the file", each) for place, each in contents.attributes.items()}
    variables = {name: _stored(name, variable) for name, variable in contents.variables.items()}
    contents = replace(contents, attributes=attributes, variables=variables)
    with ExitStack() as stack:
        with _writing(path):
            targets = _save_groups(contents, path, fields.keys(), stack)
        for name, parts in fields.items():
            for key, numbers in parts:
                with _writing(path):
                    targets[name][key] = numbers


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the library raises while it writes a store into a SignalError; its warnings are of its own plans."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise SignalError(f"{path}: cannot be written as a Zarr store ({reason(error)})") from error


class _Targets:
    """Stands for what xarray writes variables with: notes their arrays, and writes those that are no fields."""

    def __init__(self, fields: Collection[str]) -> None:
        self._fields = fields
        self.arrays: dict[str, Any] = {}
        self.name = ""

    def add(self, source: np.ndarray, target: Any, region: Any = None) -> None:
        if self.name in self._fields:
            self.arrays[self.name] = target
        else:
            target[...] = source


@repeated_dimensions()
def _save_groups(contents: Contents, path: Path, fields: Collection[str], stack: ExitStack) -> dict[str, Any]:
    """Write all but the numbers of fields; return the arrays that those are to be written to."""
    targets = _Targets(fields)
    for place, attributes in contents.attributes.items():
        store = _store.open_group(path, mode="a" if place else "w", group=place or None, write_empty=True)
        stack.callback(store.close)
        store.set_attributes(attributes)
        for name, variable in contents.variables.items():
            if group_of(name) == place:
                targets.name = name
                store.set_variables({name.split("/")[-1]: variable}, frozenset(), targets)
    return targets.arrays


def _stored(name: str, variable: xarray.Variable) -> xarray.Variable:
    """Return a variable as a store has it."""
    data, dims = variable.values, [str(dimension).split("/")[-1] for dimension in variable.dims]
    attributes = _json_attributes(name, variable.attrs)
    fill = cast_exactly(variable.attrs.get("_FillValue", []), data.dtype) if data.dtype.kind not in "OUS" else None
    attributes.pop("_FillValue", None)
    if "enum" in variable.encoding and "flag_values" not in attributes:
        words = variable.encoding["enum"][1]
        attributes |= {"flag_values": list(words.values()), "flag_meanings": " ".join(words)}
    if data.dtype.kind == "S":
        rows = data.reshape(-1, data.shape[-1] if dims else 1)
        texts = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
        data, dims = np.array(texts, object).reshape(data.shape[:-1]), dims[:-1]
    if data.dtype.kind in "OU":
        return _encode_text(xarray.Variable(dims, data, attributes))
    attributes |= {} if fill is None else {"_FillValue": fill}
    encoding = {"chunks": variable.encoding["chunks"]} if "chunks" in variable.encoding else {}
    return xarray.Variable(dims, data, attributes, encoding)


def _json_attributes(owner: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them, without text in unknown encodings, which is warned of."""
    for key in [key for key, value in attributes.items() if isinstance(value, bytes)]:
        warn(f"{owner} has an attribute {key!r} in an unknown encoding, which is left out")
    return {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in attributes.items()
        if not isinstance(value, bytes)
    }
