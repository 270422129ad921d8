"""`.inr` files in xarray are the files that they decode to."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray

from inrcodec.access import SlabReader
from inrcodec.errors import InrcodecWarning, UsageError
from inrcodec.files import decode_file, encode_file
from inrcodec.options import EncodeOptions
from inrcodec.signals import lazy

OPTIONS = EncodeOptions(steps=0, device="cpu", max_error=0.5)
SAMPLES = Path(__file__).parent.parent / "assets" / "samples"


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """A file of packed temperatures on (level, latitude, time, longitude) with gaps, rain with zeros, and flags."""
    random = np.random.default_rng(0)
    path = tmp_path / "a.nc"
    sizes = {"level": 2, "latitude": 9, "time": 5, "longitude": 12}
    with netCDF4.Dataset(path, "w") as file:
        for name, size in sizes.items():
            file.createDimension(name, size)
            coordinate = file.createVariable(name, "f4", (name,))
            coordinate[:] = np.arange(size) * {"latitude": 10, "longitude": 30}.get(name, 1)
        file["latitude"].units, file["longitude"].units = "degrees_north", "degrees_east"
        file["time"].units = "days since 2001-01-01"
        temperature = file.createVariable("t", "i2", tuple(sizes), fill_value=-999)
        temperature.scale_factor, temperature.add_offset, temperature.units = 0.01, 280.0, "K"
        values = 280 + np.cumsum(random.normal(size=tuple(sizes.values())), axis=2)
        temperature[:] = np.ma.masked_array(values, random.random(values.shape) < 0.1)
        rain = file.createVariable("pr", "f4", ("time", "latitude", "longitude"))
        rain[:] = np.maximum(0, random.normal(size=(5, 9, 12)))
        flag = file.createVariable("mask", "i1", ("latitude", "longitude"))
        flag[:] = random.integers(0, 2, (9, 12))
        file.title = "two levels"
    return path


def opened(path: Path) -> tuple[xarray.Dataset, xarray.Dataset]:
    """Encode a file; return it opened in xarray, and what it decodes to."""
    encode_file(path, path.with_suffix(".inr"), OPTIONS)
    decode_file(path.with_suffix(".inr"), path.with_name("again.nc"), device="cpu")
    return xarray.open_dataset(path.with_suffix(".inr")), xarray.open_dataset(path.with_name("again.nc"))


def test_all_is_as_decoded(fields: Path) -> None:
    ours, decoded = opened(fields)
    xarray.testing.assert_identical(ours, decoded)
    with xarray.open_dataset(fields) as original:
        assert set(ours) == set(original) and ours.t.dims == original.t.dims
        assert float(np.abs(ours.t - original.t).max()) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "key",
    [
        {"time": 3},
        {"time": [4, 0], "level": 1},
        {"latitude": slice(2, 7, 2), "longitude": 5},
        {"level": slice(None, None, -1), "time": slice(1, 4)},
        {"longitude": [3, 1, 1]},
        {"time": slice(2, 2)},
    ],
)
def test_parts_are_parts_of_the_whole(fields: Path, key: dict[str, object]) -> None:
    ours, decoded = opened(fields)
    xarray.testing.assert_identical(ours.isel(key).load(), decoded.isel(key).load())


def test_only_what_is_asked_for_is_decoded(fields: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "SLAB_VALUES", 1)
    decoded: list[int] = []
    whole = SlabReader._shown

    def watch(self: SlabReader, begin: int, end: int) -> np.ndarray:
        decoded.append(begin)
        return whole(self, begin, end)

    monkeypatch.setattr(SlabReader, "_shown", watch)
    ours, _ = opened(fields)
    assert not decoded
    ours.t.isel(time=2, level=1).load()
    assert decoded == [7]
    ours.t.sel(latitude=20, longitude=30, time="2001-01-04").load()
    assert decoded == [7, 3, 8]


def test_it_is_stored_numbers_if_asked_for(fields: Path) -> None:
    opened(fields)
    raw = xarray.open_dataset(fields.with_suffix(".inr"), mask_and_scale=False, decode_times=False)
    with xarray.open_dataset(fields.with_name("again.nc"), mask_and_scale=False, decode_times=False) as decoded:
        assert raw.t.dtype == np.int16
        xarray.testing.assert_identical(raw, decoded)


def test_infinities_and_points_are_as_decoded(tmp_path: Path) -> None:
    """What stands for missing values is kept, also where a part is read."""
    random = np.random.default_rng(0)
    values = np.cumsum(random.normal(size=(6, 9, 12)), 0).astype(np.float32)
    values[2, 3, 4], values[4, 1, 1], values[5, 5, 5], values[1, 2, 2] = np.inf, -np.inf, 1e20, np.nan
    axes = {"latitude": np.arange(9) * 10.0, "longitude": np.arange(12) * 30.0}
    data = xarray.DataArray(values, axes, ("time", "latitude", "longitude"), "p")
    data.latitude.attrs["units"], data.longitude.attrs["units"] = "degrees_north", "degrees_east"
    path = tmp_path / "a.nc"
    data.to_netcdf(path, encoding={"p": {"_FillValue": None}})
    with pytest.warns(InrcodecWarning):
        encode_file(path, path.with_suffix(".inr"), OPTIONS)
    decode_file(path.with_suffix(".inr"), path.with_name("again.nc"), device="cpu")
    ours, decoded = (xarray.open_dataset(tmp_path / name) for name in ("a.inr", "again.nc"))
    xarray.testing.assert_identical(ours.isel(time=[4, 2, 5, 1]).load(), decoded.isel(time=[4, 2, 5, 1]).load())
    xarray.testing.assert_identical(
        ours.isel(latitude=3, longitude=[4, 1]).load(), decoded.isel(latitude=3, longitude=[4, 1]).load()
    )
    assert np.isinf(ours.p.values).sum() == 2
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        xarray.testing.assert_identical(
            other.submit(xarray.open_dataset(tmp_path / "a.inr").isel(time=3).load).result(),
            decoded.isel(time=3).load(),
        )


def test_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    with xarray.open_dataset(SAMPLES / "t2m.nc") as sample:
        sample.isel(latitude=slice(60, 80), longitude=slice(0, 40)).to_netcdf(path, group="forecast")
    opened(path)
    ours, decoded = (
        xarray.open_dataset(each, group="forecast") for each in (path.with_suffix(".inr"), tmp_path / "again.nc")
    )
    xarray.testing.assert_identical(ours, decoded)
    with pytest.raises(UsageError, match="no group 'other'; there are: forecast"):
        xarray.open_dataset(path.with_suffix(".inr"), group="other")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.inr"
    encode_file(SAMPLES / "image" / "cat.webp", path, EncodeOptions(steps=0, device="cpu"))
    with pytest.raises(UsageError, match="holds image, no climate fields"):
        xarray.open_dataset(path)
