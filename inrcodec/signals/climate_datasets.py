"""Datasets of xarray as the contents of the NetCDF file that they would be saved as. Nothing is loaded as a whole."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.conventions import cf_encoder, encode_cf_variable, encode_dataset_coordinates

from inrcodec.errors import SignalError
from inrcodec.signals.cf_slices import Key, StoredNumbers
from inrcodec.signals.climate_files import stays_in_file, storable
from inrcodec.signals.netcdf import Contents, Dimension, netcdf_data, netcdf_value, repeated_dimensions
from inrcodec.signals.reading_errors import reason

NAME = "the dataset"
"""What messages call a dataset."""

_encode_all: Any = cf_encoder  # without types in xarray


@repeated_dimensions()
def contents_of(dataset: xarray.Dataset) -> Contents:
    """Return what `dataset.to_netcdf` would store, with the encoding of its variables, as their packing.

    Numbers of two or more dimensions stay where they are, a file or a Dask graph, and are read part by part.
    Raises: SignalError, also later, for what NetCDF files cannot hold.
    """
    variables, attributes = encode_dataset_coordinates(dataset)
    for name, variable in variables.items():
        if not isinstance(name, str) or "/" in name or not name:
            raise SignalError(f"{NAME} has a variable {name!r}, which no NetCDF file has: rename it")
        if variable.dtype.kind not in "biufmMOSTU":
            raise SignalError(f"{NAME}: variable {name!r} is of type {variable.dtype}, which no NetCDF file has")
    try:
        encoded, _ = _encode_all(
            {name: _outlined(each) if stays_in_file(each) else each.compute() for name, each in variables.items()}, {}
        )
    except (TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise SignalError(f"{NAME} cannot be saved as a NetCDF file would be ({reason(error)})") from error
    stored = {
        str(name): _numbers(str(name), variable, encoded[name]) if stays_in_file(variable) else _small(encoded[name])
        for name, variable in variables.items()
    }
    unlimited = dataset.encoding.get("unlimited_dims", ())
    dimensions = {str(name): Dimension(size, name in unlimited) for name, size in dataset.sizes.items()}
    plain = {str(key): netcdf_value(value) for key, value in attributes.items()}
    return storable(Path(NAME), Contents(dimensions, {"": plain}, stored))


def _outlined(variable: xarray.Variable) -> xarray.Variable:
    """Return a variable of one zero, which tells how numbers are encoded."""
    zero = np.zeros((1,) * variable.ndim, variable.dtype)
    return xarray.Variable(variable.dims, zero, variable.attrs, variable.encoding)


def _attributes(variable: xarray.Variable) -> dict[str, Any]:
    return {str(key): netcdf_value(value) for key, value in variable.attrs.items()}


def _small(encoded: xarray.Variable) -> xarray.Variable:
    data = encoded.values
    if data.dtype == object:
        data = np.where(encoded.isnull().values, "", data)
    dims = [str(dimension) for dimension in encoded.dims]
    return xarray.Variable(dims, netcdf_data(data), _attributes(encoded))


def _numbers(name: str, variable: xarray.Variable, outline: xarray.Variable) -> xarray.Variable:
    """Return a variable whose numbers are encoded when they are read. outline: one of them, encoded."""

    def read(region: Key) -> np.ndarray:
        part = variable[region]
        try:
            values = np.asarray(part.values)
        except Exception as error:  # of whatever the numbers come from
            raise SignalError(f"{NAME}: variable {name!r} cannot be read ({reason(error)})") from error
        encoded = encode_cf_variable(xarray.Variable(part.dims, values, variable.attrs, variable.encoding), name=name)
        return netcdf_data(encoded.values)

    dtype = netcdf_data(np.empty(0, outline.dtype)).dtype
    dims = [str(dimension) for dimension in variable.dims]
    return StoredNumbers(variable.shape, dtype, read).variable(dims, _attributes(outline), _chunks(variable))


def _chunks(variable: xarray.Variable) -> tuple[int, ...] | None:
    """Return the sizes of what is computed or read at a time, if they are known."""
    if variable.chunks is not None:
        return tuple(max(sizes) for sizes in variable.chunks)
    for key in ("chunksizes", "chunks"):
        sizes = variable.encoding.get(key)
        if isinstance(sizes, tuple) and len(sizes) == variable.ndim and all(isinstance(each, int) for each in sizes):
            return sizes
    return None
