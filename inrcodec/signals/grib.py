"""GRIB files as the contents of a NetCDF file. Needs the extra `inrcodec[grib]`."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from inrcodec.errors import SignalError
from inrcodec.signals.cf_slices import Key, StoredNumbers
from inrcodec.signals.climate_files import stays_in_file, storable
from inrcodec.signals.netcdf import Contents, Dimension
from inrcodec.signals.reading_errors import unreadable


def load(path: Path) -> Contents:
    """Read a whole GRIB file (edition 1 or 2), but for the numbers of fields; nothing is written beside it.

    Fields that do not fit into one hypercube become several: a coordinate that differs gets a number behind
    its name, a variable of the same name its level type.

    Raises: SignalError if the file is incomplete, its fields cannot be arranged, or the extra is missing.
    """
    try:
        import cfgrib
        import eccodes
    except (ImportError, RuntimeError) as error:
        raise SignalError("reading GRIB needs: pip install 'inrcodec[grib]'") from error
    if not path.is_file():
        raise SignalError(f"{path}: no such file")
    reading = partial(_reading, path, eccodes.CodesInternalError)
    with reading():
        with path.open("rb") as file:
            messages = eccodes.codes_count_in_file(file)
        if messages == 0:
            raise SignalError(f"{path}: not a GRIB file; give it the extension of its format")
        with _quiet():
            options = {"decode_times": False, "mask_and_scale": False, "cache": False}
            datasets = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": ""}, **options)
            _check_all_fields_arranged(path, datasets, messages)
            whole = merged(datasets)
            variables, attributes = xarray.conventions.encode_dataset_coordinates(whole)
            dimensions = {str(name): Dimension(size) for name, size in whole.sizes.items()}
            stored = {
                str(name): _variable(variable.to_base_variable(), reading) for name, variable in variables.items()
            }
        return storable(path, Contents(dimensions, {"": dict(attributes)}, stored))


@contextmanager
def _reading(path: Path, kind: type[Exception]) -> Iterator[None]:
    """Turn what the libraries raise about a file, errors of this kind among them, into a SignalError."""
    try:
        yield
    except SignalError:
        raise
    except (OSError, EOFError, ValueError, KeyError, kind) as error:
        raise unreadable(path, "a GRIB file", error, "is it complete?") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the warnings about calls between libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _variable(variable: xarray.Variable, reading: Callable[[], AbstractContextManager[None]]) -> xarray.Variable:
    """Return a variable whose numbers stay in the file, if they may be those of a field, a message for each slice."""
    if not stays_in_file(variable):
        return variable.load()

    def read(key: Key) -> np.ndarray:
        with reading(), _quiet():
            return variable[key].values

    dims = [str(dimension) for dimension in variable.dims]
    return StoredNumbers(variable.shape, variable.dtype, read).variable(dims, variable.attrs, None)


def _check_all_fields_arranged(path: Path, datasets: list[Any], messages: int) -> None:
    """Refuse a file if the library left out fields that it cannot arrange; only its log tells."""
    horizontal = {"latitude", "longitude", "y", "x", "values"}
    fields = sum(
        math.prod(size for name, size in variable.sizes.items() if name not in horizontal)
        for dataset in datasets
        for variable in dataset.data_vars.values()
    )
    if fields < messages:
        raise SignalError(
            f"{path}: only {fields} of {messages} fields can be arranged by time, step, level and number; "
            "split the file, for example with grib_copy"
        )


def merged(datasets: list[Any]) -> Any:
    """Merge xarray datasets into one; rename what clashes."""
    result = datasets[0]
    for dataset in datasets[1:]:
        dataset = dataset.rename({name: _free_name(name, dataset, result) for name in dataset.dims})
        scalars = [name for name in dataset.coords if name not in dataset.dims]
        dataset = dataset.rename({name: _free_name(name, dataset, result) for name in scalars})
        dataset = dataset.rename({name: _free_variable_name(name, dataset, result) for name in dataset.data_vars})
        result = xarray.merge([result, dataset], compat="override", join="exact", combine_attrs="override")
    shared = dict(datasets[0].attrs)
    for dataset in datasets[1:]:
        shared = {key: value for key, value in shared.items() if dataset.attrs.get(key) == value}
    return result.assign_attrs(shared)


def _free_name(name: Any, dataset: Any, taken: Any) -> str:
    """Return the name, with a number behind it unless it is free or taken for the same coordinate."""
    candidate, number = str(name), 1
    while candidate in taken.variables or candidate in taken.dims:
        wanted = dataset[name].variable.to_base_variable()
        if name in dataset.dims:
            wanted = wanted._replace(dims=(candidate,))
        if candidate in taken.variables and taken[candidate].variable.to_base_variable().equals(wanted):
            break
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _free_variable_name(name: Any, dataset: Any, taken: Any) -> str:
    level = dataset[name].attrs.get("GRIB_typeOfLevel", "other")
    candidates = [str(name), f"{name}_{level}"] + [f"{name}_{level}_{number}" for number in range(2, 1000)]
    return next(candidate for candidate in candidates if candidate not in taken.variables)
