"""`dataset.inr.sample`: fields at any points."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from inrcodec.decoder import decode
from inrcodec.errors import UsageError
from inrcodec.files import encode_file
from inrcodec.options import EncodeOptions
from inrcodec.resolution import Resolution

HEIGHT, WIDTH = 9, 12
LATITUDES, LONGITUDES = np.linspace(80, -80, HEIGHT), np.arange(WIDTH) * 30.0
BOUND = EncodeOptions(steps=0, device="cpu", max_error=0.5)
SHARE = EncodeOptions(steps=0, device="cpu", max_error_rel=0.02)
QUALITY = EncodeOptions(steps=0, device="cpu", quality=60)


def weather(**more: Any) -> xarray.Dataset:
    """Temperatures of five hours on two levels."""
    values = 280 + np.cumsum(np.random.default_rng(0).normal(size=(2, HEIGHT, 5, WIDTH)), 2)
    return xarray.Dataset(
        {"t": (("level", "latitude", "time", "longitude"), values.astype("f4"), {"units": "K"}), **more},
        {
            "level": ("level", np.array([850, 500], "i4"), {"units": "hPa"}),
            "time": np.datetime64("2019-03-05T00", "ns") + np.arange(5) * np.timedelta64(1, "h"),
            "latitude": ("latitude", LATITUDES, {"units": "degrees_north"}),
            "longitude": ("longitude", LONGITUDES, {"units": "degrees_east"}),
        },
    )


def opened(dataset: xarray.Dataset, folder: Path, options: EncodeOptions = BOUND, **how: Any) -> xarray.Dataset:
    dataset.to_netcdf(folder / "a.nc")
    encode_file(folder / "a.nc", folder / "a.inr", options, **how)
    return xarray.open_dataset(folder / "a.inr")


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> xarray.Dataset:
    return opened(weather(), tmp_path_factory.mktemp("bounded"))


def mixed() -> xarray.Dataset:
    """Packed temperatures with gaps, rain with zeros, integers, and a mask, which is no field."""
    random = np.random.default_rng(1)
    shape = (5, HEIGHT, WIDTH)
    dims = ("time", "latitude", "longitude")
    temperature = 280 + np.cumsum(random.normal(size=shape), 0)
    temperature[random.random(shape) < 0.1] = np.nan
    dataset = weather(
        packed=(dims, temperature),
        rain=(dims, np.maximum(0, random.normal(size=shape)).astype("f4")),
        count=(dims, np.arange(540, dtype="i4").reshape(shape)),
        mask=(("latitude", "longitude"), random.integers(0, 2, shape[1:]).astype("i1")),
    )
    packing = {"dtype": "i2", "scale_factor": np.float32(0.01), "add_offset": 280.0, "_FillValue": -1}
    dataset["packed"].encoding = packing
    return dataset


@pytest.mark.parametrize("options", [BOUND, SHARE, QUALITY], ids=["bound", "share", "quality"])
def test_values_on_the_grid_are_those_of_the_dataset(tmp_path: Path, options: EncodeOptions) -> None:
    ours = opened(mixed(), tmp_path, options)
    sampled = ours.inr.sample(lat=ours.latitude, lon=ours.longitude)
    assert set(sampled) == {"t", "packed", "rain", "count"}
    for name in sampled:
        wanted = ours[name].transpose(*(each for each in ours[name].dims if each not in ("latitude", "longitude")), ...)
        np.testing.assert_array_equal(sampled[name], wanted)
        assert sampled[name].attrs == ours[name].attrs and sampled[name].dims == wanted.dims
    for name in ("t", "packed", "rain"):
        assert sampled[name].dtype == ours[name].dtype
    times, levels = ours.time[[4, 0, 2]].values, [500, 850, 850]
    track = ours.inr.sample(lat=[80, 40, -80], lon=[0, 390, -30], time=times, level=levels)
    for name in track:
        for point, (time, row, column) in enumerate([(4, 0, 0), (0, 2, 1), (2, 8, 11)]):
            wanted = ours[name].isel(time=time, latitude=row, longitude=column)
            if "level" in wanted.dims:
                wanted = wanted.sel(level=levels[point])
            np.testing.assert_array_equal(track[name][point], wanted)


@pytest.mark.parametrize(
    ("field", "options"),
    [("series", BOUND), ("series", SHARE), ("series", QUALITY), ("siren", QUALITY), ("siren", BOUND)],
)
def test_between_grid_points_it_is_the_field(tmp_path: Path, field: str, options: EncodeOptions) -> None:
    """The field as decoding at a finer resolution shows it, plus how far it is off at the corners, in their mean."""
    ours = opened(weather(), tmp_path, options, field=field)
    data = (tmp_path / "a.inr").read_bytes()
    (finer,) = decode(data, resolution=Resolution(size=(2 * HEIGHT - 1, 2 * WIDTH)), device="cpu")
    (own,) = decode(data, device="cpu")
    shown, known = (each.values[..., 0].astype("f8") for each in (finer, own))
    off = known - shown[:, ::2, ::2]
    row, column, number = 3, 11, 7  # beside the last longitude is the first one
    corners = off[number, [row, row, row + 1, row + 1], [column, 0, column, 0]]
    wanted = {
        (0.5, 0.5): shown[number, 2 * row + 1, 2 * column + 1] + corners.mean(),
        (0.5, 0.0): shown[number, 2 * row + 1, 2 * column] + corners[[0, 2]].mean(),
        (0.0, 0.5): shown[number, 2 * row, 2 * column + 1] + corners[:2].mean(),
    }
    order = own.attributes.get("leading", [0, 1])  # of level and time
    index = np.array(np.unravel_index(number, np.array([2, 5])[order]))[np.argsort(order)]
    for (down, across), value in wanted.items():
        lat, lon = LATITUDES[row] - 20 * down, LONGITUDES[column] + 30 * across
        sampled = ours.inr.sample(lat=lat, lon=lon).t.transpose("level", "time")
        assert float(sampled[tuple(index)]) == pytest.approx(value, abs=2e-4)
    if options is BOUND:
        assert np.abs(corners).max() > 1e-3  # there is a residual to care for


def test_arrays_broadcast(bounded: xarray.Dataset) -> None:
    every = bounded.inr.sample(lat=np.array([[33.0], [-12]]), lon=np.array([5.0, 100, 200]), level=500)
    assert every.t.dims == ("time", "point_0", "point_1") and every.t.shape == (5, 2, 3)
    assert every.level.shape == (2, 3) and (every.level == 500).all()
    single = bounded.inr.sample(lat=-12, lon=200, level=500, time="2019-03-05T03")
    assert single.t.shape == () and float(single.t) == float(every.t[3, 1, 2])
    assert single.time == np.datetime64("2019-03-05T03") and single.latitude == -12
    lat = xarray.DataArray([33.0, -12.0], dims="site", coords={"site": ["a", "b"]})
    lon = xarray.DataArray([5.0, 100.0, 200.0], dims="east")
    named = bounded.inr.sample(lat=lat, lon=lon, time=bounded.time[1:3], level=500)
    assert named.t.dims == ("site", "east", "time")
    np.testing.assert_array_equal(named.t.transpose("time", "site", "east"), every.t[1:3])
    np.testing.assert_array_equal(named.time, bounded.time[1:3])
    assert named.latitude.dims == ("site",) and named.longitude.dims == ("east",)


def test_longitudes_go_on_and_points_outside_have_no_value(tmp_path: Path, bounded: xarray.Dataset) -> None:
    same = bounded.inr.sample(lat=10, lon=[-10.0, 350, 710]).t
    np.testing.assert_array_equal(same[..., 0], same[..., 1])
    np.testing.assert_array_equal(same[..., 0], same[..., 2])
    beyond = bounded.inr.sample(lat=[80, 89.9, 90.0, np.nan], lon=[0.0, 0, 0, 0]).t
    np.testing.assert_array_equal(beyond[..., 0], beyond[..., 1])  # within half a step of the last latitude
    assert np.isfinite(beyond[..., 2]).all() and np.isnan(beyond[..., 3]).all()
    east = np.arange(150.0, 210, 5)
    for longitudes in (east, (east + 180) % 360 - 180, east[::-1]):
        region = weather().assign_coords(longitude=("longitude", longitudes, {"units": "degrees_east"}))
        ours = opened(region, tmp_path)
        place = {"level": 500, "time": "2019-03-05T03"}
        found = ours.inr.sample(lat=20, lon=[179.0, -181, 181, -179, 180, -180, 205 - 360, 147.6], **place).t
        np.testing.assert_array_equal(found[[0, 2, 4]], found[[1, 3, 5]])
        columns = [int(np.argmax(longitudes % 360 == at)) for at in (180, 205, 150)]
        np.testing.assert_array_equal(found[[4, 6, 7]], ours.t.sel(latitude=20, **place).values[columns])
        assert np.isnan(ours.inr.sample(lat=20, lon=[147.4, 208, 0], **place).t).all()


def test_what_is_missing_or_zero(tmp_path: Path) -> None:
    """Gaps have no value as far as halfway to the next grid point; between dry points it is dry."""
    values = np.full((HEIGHT, WIDTH), 5.0, "f4") + np.random.default_rng(0).normal(0, 0.5, (HEIGHT, WIDTH)).astype("f4")
    rain, gaps = values.copy(), values.copy()
    rain[2:5, 3:6], gaps[2:5, 3:6] = 0, np.nan
    dims = ("latitude", "longitude")
    dataset = weather(rain=(dims, rain), gaps=(dims, gaps)).drop_vars("t")
    ours = opened(dataset, tmp_path, EncodeOptions(steps=0, device="cpu", max_error=0.1))
    inside = ours.inr.sample(lat=[31.0, 15, 40], lon=[112.0, 141, 90])
    assert inside.rain.values.tolist() == [0, 0, 0]
    assert np.isnan(inside.gaps).all()
    beside = ours.inr.sample(lat=[20.0, 20], lon=[164.0, 166])
    assert np.isnan(beside.gaps[0]) and 3 < beside.gaps[1] < 8
    assert (beside.rain >= 0).all() and (beside.rain <= float(values.max()) + 0.1).all()


def test_parts_of_a_dataset(bounded: xarray.Dataset) -> None:
    """Slices that were selected, put in another order or decoded are still those of the file."""
    place = {"lat": 33.0, "lon": 77.0}
    every = bounded.inr.sample(**place).t
    assert every.dims == ("level", "time")
    for part, wanted in (
        (bounded.isel(time=[3, 1]), every.isel(time=[3, 1])),
        (bounded.sel(level=500), every.sel(level=500)),
        (bounded.isel(level=[0], time=2), every.isel(level=[0], time=2)),
        (bounded.sel(time=slice("2019-03-05T02", None)).transpose("time", ...), every.isel(time=slice(2, None)).T),
        (bounded.load(), every),
        (bounded.isel(latitude=slice(0, 2), longitude=3), every),
        (copy.deepcopy(bounded), every),
        (pickle.loads(pickle.dumps(bounded)), every),
    ):
        xarray.testing.assert_equal(part.inr.sample(**place).t.reset_coords(drop=True), wanted.reset_coords(drop=True))


def test_slices_are_exact_or_the_nearest(bounded: xarray.Dataset) -> None:
    place = {"lat": 33.0, "lon": 77.0, "level": 500}
    every = bounded.inr.sample(**place).t
    near = bounded.inr.sample(**place, time=["2019-03-05T01:20", "2019-03-05T02:50"], method="nearest")
    np.testing.assert_array_equal(near.t, every[[1, 3]])
    np.testing.assert_array_equal(near.time, bounded.time[[1, 3]])
    with pytest.raises(UsageError, match=r"time=2019-03-05T01:20.* is not among its 5 coord.*method=\"nearest\""):
        bounded.inr.sample(**place, time="2019-03-05T01:20")
    with pytest.raises(UsageError, match=r"its 5 coordinates, 2019-03-05 00:00:00 to 2019-03-05 04:00:00$"):
        bounded.inr.sample(**place, time="2019-03-06", method="nearest", tolerance=np.timedelta64(1, "h"))


def test_other_grids(tmp_path: Path) -> None:
    """Rotated and projected ones are asked by the names of their dimensions, in their units."""
    values = weather().t.values[0, :, 0]
    rotated = xarray.Dataset(
        {"t": (("rlat", "rlon"), values)},
        {
            "rlat": ("rlat", np.linspace(-8, 8, HEIGHT), {"standard_name": "grid_latitude", "units": "degrees"}),
            "rlon": ("rlon", np.arange(WIDTH) * 2.0 - 8, {"standard_name": "grid_longitude", "units": "degrees"}),
        },
    )
    ours = opened(rotated, tmp_path)
    np.testing.assert_array_equal(ours.inr.sample(rlat=[-8.0, 4.0], rlon=[0.0, 374]).t, ours.t.values[[0, 6], [4, 11]])
    with pytest.raises(UsageError, match="fields are not asked by 'lat', but by rlat, rlon"):
        ours.inr.sample(lat=1, lon=2)
    projected = xarray.Dataset(
        {"t": (("y", "x"), values)}, {"y": np.arange(HEIGHT) * -2000.0, "x": 1e6 + np.arange(WIDTH) * 2000.0}
    )
    ours = opened(projected, tmp_path)
    found = ours.inr.sample(y=[-4000.0, 900.0, 1100.0], x=[1e6, 1e6, 1e6]).t
    np.testing.assert_array_equal(found, [ours.t.values[2, 0], ours.t.values[0, 0], np.nan])
    ours = opened(projected.drop_vars(["x", "y"]), tmp_path)
    with pytest.raises(UsageError, match="no coordinates to ask by along 'y'"):
        ours.inr.sample(y=1, x=1)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"lat": 1}, "the field 't' is asked by lat and lon: give both"),
        ({}, "the field 't' is asked by lat and lon"),
        ({"lat": 1, "lon": 2, "tim": 3}, "fields are not asked by 'tim', but by lat, level, lon, time"),
        ({"lat": 91, "lon": 2}, "lat=91 is no latitude"),
        ({"lat": [1, 2], "lon": [1, 2, 3]}, r"arrays do not go together: lat of shape \(2,\), lon of shape \(3,\)"),
        ({"lat": [1, 2], "lon": xarray.DataArray([1, 2], dims="site")}, "give arrays of xarray only, or none"),
        ({"lat": xarray.DataArray([1, 2], dims="time"), "lon": 2}, "points along 'time', a dimension of the field 't'"),
        ({"lat": 1, "lon": 2, "time": "noon"}, "time cannot be looked up"),
        ({"lat": 1, "lon": 2, "level": 501}, 'level=501 is not among its 2 coordinates, 850 to 500; method="nearest"'),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(bounded: xarray.Dataset, places: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bounded.inr.sample(**places)


def test_datasets_that_are_no_inr_files(tmp_path: Path, bounded: xarray.Dataset) -> None:
    for dataset in (weather(), bounded + 1, bounded.map(np.sqrt), bounded.drop_vars("t")):
        with pytest.raises(UsageError, match="no variable of this dataset is a field as it is in an"):
            dataset.inr.sample(lat=1, lon=2)
    with pytest.raises(UsageError, match="the dimension 'time' of the field 't' is selected already"):
        bounded.isel(time=1).inr.sample(lat=1, lon=2, time="2019-03-05T01")
    with pytest.raises(UsageError, match="coordinates do not tell which part of 'time'"):
        bounded.isel(time=1, drop=True).inr.sample(lat=1, lon=2)
    bounded.to_netcdf(tmp_path / "saved.nc")
    with xarray.open_dataset(tmp_path / "saved.nc") as saved:
        xarray.testing.assert_equal(saved, bounded)


def test_datasets_in_chunks(tmp_path: Path, bounded: xarray.Dataset) -> None:
    pytest.importorskip("dask")
    source = bounded.encoding["source"]
    with xarray.open_dataset(source, chunks={"time": 1}) as lazy:
        xarray.testing.assert_equal(lazy.inr.sample(lat=33, lon=77).t, bounded.inr.sample(lat=33, lon=77).t)
        xarray.testing.assert_equal(lazy.load(), bounded)
