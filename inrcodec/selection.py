"""Parts of the climate fields of a file, by their coordinates: decoded alone, written as NetCDF or Zarr."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from inrcodec.decoder import SAMPLES
from inrcodec.errors import SignalError, UsageError
from inrcodec.signals import ZARR, check_writable, write_whole, write_whole_folder
from inrcodec.signals.reading_errors import reason

RANGE = ".."
"""Stands between the first and the last coordinate of a range."""


def select_file(
    path: Path,
    output: Path,
    selection: Mapping[str, str],
    variables: Sequence[str] = (),
    *,
    init: Sequence[str] = (),
    max_samples: int = SAMPLES,
    device: str = "auto",
) -> dict[str, int]:
    """Decode a part of a climate file into a NetCDF file or a Zarr store; only the slabs around it are decoded.

    selection: by dimension, a coordinate ("500", "2019-03-05T06", or less exactly "2019-03"), or the first and the last
        of some ("30..60"). Numbers need be right to a hundredth of a step only.
    variables: their names; all unless given.
    Returns the sizes of the part's dimensions.
    Raises: UsageError if there is no such dimension, coordinate or variable; ContainerError, InitializationError,
        SignalError.
    """
    check_writable("climate", output)
    options: dict[str, Any] = {"init": tuple(init), "max_samples": max_samples, "device": device}
    # Stored numbers are written again as they are; only times are understood.
    with xarray.open_dataset(path, engine="inrcodec", mask_and_scale=False, **options) as dataset:
        part = selected(dataset, selection, variables)
        for name, variable in part.variables.items():
            if variable.dtype.kind in "iuf" and "_FillValue" not in variable.attrs:
                variable.encoding["_FillValue"] = None  # xarray gives every float one
            if name in part.data_vars and variable.dims:
                variable.encoding["zlib"] = True

        def write(temporary: Path) -> None:
            try:
                if output.suffix.lower() == ZARR:
                    part.to_zarr(temporary, mode="w", write_empty_chunks=True, consolidated=False)
                else:
                    part.to_netcdf(os.fspath(temporary), engine="netcdf4")
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                raise SignalError(f"{temporary}: cannot be written as {output.suffix} ({reason(error)})") from error

        writing = write_whole_folder if output.suffix.lower() == ZARR else write_whole
        writing(output, write)
        return {str(name): size for name, size in part.sizes.items()}


def selected(dataset: xarray.Dataset, selection: Mapping[str, str], variables: Sequence[str]) -> xarray.Dataset:
    """Return a part of a dataset; arguments and errors as for `select_file`."""
    missing = [name for name in variables if name not in dataset.data_vars]
    if missing:
        raise UsageError(f"no variable is called {missing[0]!r}: there are {', '.join(map(str, dataset.data_vars))}")
    if variables:
        dataset = dataset[list(variables)]
    for dimension, wanted in selection.items():
        if dimension not in dataset.dims:
            raise UsageError(
                f"no dimension is called {dimension!r}: there are {', '.join(str(name) for name in dataset.dims)}"
            )
        if dimension not in dataset.indexes:
            raise UsageError(f"the dimension {dimension!r} has no coordinates to select by")
        dataset = dataset.sel({dimension: _labels(dataset[dimension], wanted)})
        if not dataset.sizes.get(dimension, 1):
            raise UsageError(f"there is nothing in {dimension}={wanted}")
    return dataset


def _labels(coordinate: xarray.DataArray, wanted: str) -> Any:
    """Return what `Dataset.sel` takes for a coordinate, or for a range of them."""
    first, between, last = wanted.partition(RANGE)
    if coordinate.dtype.kind not in "iuf":
        label = slice(first, last) if between else first
        try:
            coordinate.sel({coordinate.name: label})
        except (KeyError, ValueError, TypeError) as error:
            raise UsageError(_absent(coordinate, wanted)) from error
        return label
    try:
        ends = [float(each) for each in ((first, last) if between else (first,))]
    except ValueError as error:
        raise UsageError(f"{coordinate.name}={wanted} is no number: give one, or two with {RANGE} between") from error
    values = coordinate.values.astype(np.float64)
    if between:
        within = (values >= min(ends)) & (values <= max(ends))
        return coordinate.values[within]
    nearest = int(np.abs(values - ends[0]).argmin())
    step = np.abs(np.diff(np.sort(values))).min() if len(values) > 1 else 0.0
    if not abs(values[nearest] - ends[0]) <= max(step / 100, 1e-6 * abs(ends[0])):
        raise UsageError(f"{_absent(coordinate, wanted)}; the nearest is {coordinate.values[nearest]:g}")
    return coordinate.values[nearest]


def _absent(coordinate: xarray.DataArray, wanted: str) -> str:
    first, last = (str(coordinate.values[place]) for place in (0, -1))
    return f"{coordinate.name}={wanted} is not among its {coordinate.size} coordinates, {first} to {last}"
