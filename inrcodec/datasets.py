"""Datasets of xarray to `.inr` files."""

import os
import time
from pathlib import Path
from typing import Any

import xarray

from inrcodec.errors import UsageError
from inrcodec.files import EncodeReport, encode_opened
from inrcodec.initialization import Initialization
from inrcodec.options import EncodeOptions, ProgressCallback
from inrcodec.signals.climate_datasets import NAME, contents_of
from inrcodec.signals.climate_reading import signals_of


def to_inr(
    data: xarray.Dataset | xarray.DataArray,
    path: str | os.PathLike[str],
    *,
    initialization: Initialization | None = None,
    field: str | None = None,
    embed: bool = False,
    on_progress: ProgressCallback | None = None,
    **options: Any,
) -> EncodeReport:
    """Encode a dataset into an `.inr` file, which `xarray.open_dataset` opens; it appears whole or not at all.

    The file holds what `data.to_netcdf` would store: coordinates, attributes, and numbers packed as the encoding of the
    variables says; bounds hold for these numbers. Fields of files or Dask arrays are read part by part.

    >>> import xarray
    >>> dataset = xarray.Dataset({"t": (("lat", "lon"), [[280.0, 281.0], [279.0, 280.0]])})
    >>> report = to_inr(dataset, output, max_error={"t": 0.1})
    >>> abs(xarray.open_dataset(output).t - dataset.t).max().item() <= 0.1
    True

    data: of an array without a name, the variable is called "data".
    options: those of `EncodeOptions`, as `max_error` or `quality`. Other arguments as for `encode_file`.
    Raises: SignalError if NetCDF files cannot hold the data, or they cannot be read; UsageError as `encode_file`.
    """
    began = time.perf_counter()
    if isinstance(data, xarray.DataArray):
        data = data.to_dataset(name=data.name or "data")
    if not isinstance(data, xarray.Dataset):
        raise UsageError(f"a {type(data).__name__} is no dataset or data array of xarray: make one of it")
    signals = signals_of(NAME, contents_of(data))
    return encode_opened(
        signals,
        NAME,
        Path(path),
        EncodeOptions(**options),
        initialization=initialization,
        field=field,
        embed=embed,
        on_progress=on_progress,
        began=began,
    )
