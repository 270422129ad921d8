"""`xarray.open_dataset("t2m.inr")`: climate fields of which xarray decodes what is asked for.

Importing this registers `dataset.inr`, see `xarray_accessor`.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from inrcodec.access import open_anywhere
from inrcodec.coding.container import read_container
from inrcodec.decoder import SAMPLES
from inrcodec.errors import ContainerError, InitializationError, SignalError, UsageError
from inrcodec.initialization import Initialization
from inrcodec.registry import named_initialization
from inrcodec.signals.cf_fields import Field, FieldReader
from inrcodec.signals.cf_grid import EAST, NORTH, coordinate_of, is_monotonic, is_rotated, numbers_of
from inrcodec.signals.cf_writing import contents_of
from inrcodec.signals.climate import malformed
from inrcodec.signals.lazy import LazySignal
from inrcodec.signals.netcdf import Contents, group_of
from inrcodec.xarray_accessor import ENCODING, Direction, FieldSource, local_name


class InrBackend(BackendEntrypoint):
    """The xarray backend of `.inr` files with climate fields.

    Variables are those that `inrcodec decode` writes. Time steps, levels and other slices are decoded when they are
    read, each with a few neighbours.
    """

    description = "Climate fields compressed by inrcodec"
    url = "https://docs.xarray.dev/en/stable/internals/how-to-add-new-backend.html"
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        "group",
        "init",
        "max_samples",
        "device",
        "mask_and_scale",
        "decode_times",
        "decode_timedelta",
        "use_cftime",
        "concat_characters",
        "decode_coords",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str = "",
        init: Iterable[str] = (),
        max_samples: int = SAMPLES,
        device: str = "auto",
        **decoding: Any,
    ) -> xarray.Dataset:
        """Open the fields of a file.

        group: of the file, by its path. init: initializations beside the installed ones, as for `inrcodec decode`.
        max_samples, device: as for `inrcodec.decode`. decoding: what xarray's own backends decode, as
        `mask_and_scale` and `decode_times`.
        Raises: ContainerError, InitializationError, SignalError, UsageError; also later, when values are read.
        """
        signals = _signals(Path(filename_or_obj), tuple(map(named_initialization, init)), max_samples, device)
        with malformed(f"{filename_or_obj}: the attributes of the fields"):
            contents, fields = contents_of(signals)
            readers = {name: FieldReader(field) for name, field in fields.items()}
        place = group.strip("/")
        if place and place not in contents.attributes:
            known = ", ".join(filter(None, contents.attributes)) or "none"
            raise UsageError(f"{filename_or_obj} has no group {group!r}; there are: {known}")
        variables = {}
        for name, variable in contents.variables.items():
            if group_of(name) != place:
                continue
            data: Any = variable.values
            if name in fields:
                data = indexing.LazilyIndexedArray(FieldArray(readers[name]))
            dimensions = [local_name(str(dimension)) for dimension in variable.dims]
            variables[local_name(name)] = xarray.Variable(dimensions, data, variable.attrs)
        asked = {key: value for key, value in decoding.items() if value is not None}
        decoded, attributes, coordinates = xarray.conventions.decode_cf_variables(
            variables, contents.attributes.get(place, {}), drop_variables=drop_variables, **asked
        )
        dataset = xarray.Dataset(decoded, attrs=attributes)
        for name, reader in readers.items():
            if group_of(name) == place and local_name(name) in dataset.variables:
                signal = reader.field.signal
                assert isinstance(signal, LazySignal) and signal.ask is not None
                source = FieldSource(reader, signal.ask, dict(dataset.indexes), _directions(reader.field, contents))
                dataset.variables[local_name(name)].encoding[ENCODING] = source
        return dataset.set_coords(coordinates & set(dataset.variables))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Say whether a file is named as these are."""
        return isinstance(filename_or_obj, str | os.PathLike) and Path(filename_or_obj).suffix.lower() == ".inr"


def _signals(path: Path, known: tuple[Initialization, ...], max_samples: int, device: str) -> list[Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    try:
        signals = open_anywhere(read_container(data), initializations=known, max_samples=max_samples, device=device)
    except (ContainerError, InitializationError) as error:
        raise type(error)(f"{path}: {error}") from error
    modality = signals[0].modality
    if modality != "climate":
        raise UsageError(f"{path} holds {modality}, no climate fields: decode it with inrcodec.decode")
    return list(signals)


def _directions(field: Field, contents: Contents) -> tuple[Direction, Direction]:
    """Return what a field is asked by along its grid."""
    directions = []
    for dimension, direction, axis in zip((field.y, field.x), (NORTH, EAST), field.signal.axes[1:], strict=True):
        name = coordinate_of(dimension, direction, contents.variables)
        points = axis.points
        if points is None and name is not None:
            numbers = numbers_of(contents.variables[name])
            points = numbers if numbers is not None and is_monotonic(numbers) else None
        keyword = local_name(dimension)
        if axis.points is not None and name is not None and not is_rotated(name, contents.variables[name]):
            keyword = "lat" if direction is NORTH else "lon"
        turns = axis.points is not None and direction is EAST
        directions.append(Direction(keyword, points, turns, axis.kind == "periodic"))
    return directions[0], directions[1]


class FieldArray(BackendArray):
    """The stored numbers of a variable, in the dimensions of its file."""

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self.shape = reader.field.stored_shape
        self.dtype = reader.packing.stored

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the numbers at an integer, a slice or an array of indices along every dimension."""
        field = self._reader.field
        chosen = [np.atleast_1d(np.arange(size)[each]) for size, each in zip(self.shape, key, strict=True)]
        leading = [chosen[place] for place in field.leading]
        slices = np.ravel_multi_index(np.ix_(*leading), field.sizes).ravel() if leading else np.zeros(1, np.int64)
        latitudes, longitudes = (chosen[place] for place in field.places)
        planes = self._reader.read(slices.tolist(), latitudes, longitudes)
        planes = planes.reshape(*map(len, leading), len(latitudes), len(longitudes))
        numbers = planes.transpose(np.argsort([*field.leading, *field.places]))
        return numbers[tuple(0 if np.ndim(each) == 0 and not isinstance(each, slice) else slice(None) for each in key)]
