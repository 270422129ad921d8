"""NetCDF files for tests, made with the netCDF4 library, and comparison of two of them by independent readers."""

import dataclasses
from pathlib import Path
from typing import Any

import cbor2
import netCDF4
import numpy as np
import xarray
from loaded import loaded

from inrcodec.signals import climate
from inrcodec.signals.signal import Signal

NORTH = {"units": "degrees_north", "standard_name": "latitude"}
EAST = {"units": "degrees_east", "standard_name": "longitude"}

Values = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]


def make(
    path: Path,
    variables: dict[str, Values],
    netcdf_format: Any = "NETCDF4",
    unlimited: tuple[str, ...] = (),
    attributes: dict[str, Any] | None = None,
) -> Path:
    """Write {name: (dimensions, stored numbers, attributes)} as they are."""
    with netCDF4.Dataset(path, "w", format=netcdf_format) as dataset:
        dataset.setncatts(attributes or {})
        for name, (dimensions, data, variable_attributes) in variables.items():
            for dimension, size in zip(dimensions, data.shape, strict=True):
                if dimension not in dataset.dimensions:
                    dataset.createDimension(dimension, None if dimension in unlimited else size)
            rest = dict(variable_attributes)
            dtype = str if data.dtype == object else data.dtype
            variable = dataset.createVariable(name, dtype, dimensions, fill_value=rest.pop("_FillValue", None))
            variable.set_auto_maskandscale(False)
            variable.set_auto_chartostring(False)
            variable.setncatts(rest)
            variable[...] = data.item() if data.dtype == object and not dimensions else data
    return path


def grid(latitudes: np.ndarray | None = None, longitudes: np.ndarray | None = None) -> dict[str, Values]:
    latitudes = np.linspace(90, -90, 5) if latitudes is None else latitudes
    longitudes = np.arange(0.0, 360.0, 45.0) if longitudes is None else longitudes
    return {"lat": (("lat",), latitudes, NORTH), "lon": (("lon",), longitudes, EAST)}


def field(*shape: int, dtype: str = "f4") -> np.ndarray:
    return (280 + 10 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


def contents(path: Path) -> dict[str, tuple[Any, ...]]:
    """All of a file as the netCDF4 library sees it, text as its bytes; variables and groups by their paths."""

    def walk(group: Any, place: str) -> None:
        dimensions = {name: (len(each), each.isunlimited()) for name, each in group.dimensions.items()}
        found[place + "/"] = (dimensions, attributes(group))
        for name, variable in group.variables.items():
            variable.set_auto_maskandscale(False)
            variable.set_auto_chartostring(False)
            data = np.asarray(variable[...])
            numbers = data.tolist() if data.dtype == object else data.tobytes()
            found[f"{place}/{name}"] = variable.dtype, variable.dimensions, numbers, attributes(variable)
        for name, inner in group.groups.items():
            walk(inner, f"{place}/{name}")

    def attributes(owner: Any) -> dict[str, Any]:
        exact = {}
        for name in owner.ncattrs():
            value = owner.getncattr(name)
            if isinstance(value, str):
                value = owner.getncattr(name, encoding="latin-1")
            exact[name] = (type(value), np.asarray(value).dtype, np.asarray(value).tobytes())
        return exact

    found: dict[str, tuple[Any, ...]] = {}
    with netCDF4.Dataset(path) as dataset:
        walk(dataset, "")
    return found


def read(path: Path) -> list[Signal]:
    """Read the signals of a file into memory."""
    return loaded(climate, path)


def exact(signal: Signal, stored: tuple[int, ...] | None = None) -> Signal:
    """Correct decoded values as the decoder does. stored: sizes of the original grid, where these are others."""
    correct = climate.exact_reader(signal.name, signal.attributes, stored or signal.shape, signal.shape, signal.dtype)
    return dataclasses.replace(signal, values=correct(signal.values, 0))


def rewritten(path: Path) -> tuple[list[Signal], Path]:
    """Read a file, send the attributes through the container's serialization, write the signals again."""
    signals = read(path)
    carried = [
        dataclasses.replace(signal, attributes=cbor2.loads(cbor2.dumps(signal.attributes))) for signal in signals
    ]
    copy = path.with_name("copy.nc")
    climate.write(carried, copy)
    return signals, copy


def assert_same_dataset(one: Path, other: Path) -> None:
    for masked in (True, False):
        with (
            xarray.open_dataset(one, mask_and_scale=masked, decode_times=False) as a,
            xarray.open_dataset(other, mask_and_scale=masked, decode_times=False) as b,
        ):
            xarray.testing.assert_identical(a, b)
            assert list(a.variables) == list(b.variables)
            for name in a.variables:
                assert a[name].dtype == b[name].dtype, name
            assert set(a.encoding["unlimited_dims"]) == set(b.encoding["unlimited_dims"])


def at_resolution(signal: Signal, height: int, width: int) -> Signal:
    axes = (signal.axes[0], signal.axes[1].resampled(height), signal.axes[2].resampled(width))
    values = np.full((signal.axes[0].size, height, width, 1), 280, signal.values.dtype)
    return dataclasses.replace(signal, values=values, axes=axes, missing=None)
