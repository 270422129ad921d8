"""NetCDF and GRIB files as climate signals; xarray is the independent reader."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import cbor2
import netCDF4
import numpy as np
import pytest
import xarray
from climate_files import EAST, NORTH, Values, assert_same_dataset, at_resolution, field, grid, make, read, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import inrcodec.signals
from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals import climate
from inrcodec.signals.signal import Axis, Signal

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4_CLASSIC", "NETCDF4"]

FLAVOURS: dict[str, tuple[dict[str, Values], tuple[int, ...]]] = {
    "no leading dimension": (grid() | {"t": (("lat", "lon"), field(5, 8), {"units": "K"})}, (1, 5, 8)),
    "south to north": (
        grid(np.linspace(-90, 90, 5)) | {"t": (("lat", "lon"), field(5, 8), {})},
        (1, 5, 8),
    ),
    "longitudes from -180": (
        grid(None, np.arange(-180.0, 180.0, 45.0)) | {"t": (("lat", "lon"), field(5, 8), {})},
        (1, 5, 8),
    ),
    "time": (
        {"time": (("time",), np.arange(3) * 6, {"units": "hours since 1900-01-01"})}
        | grid()
        | {"t": (("time", "lat", "lon"), field(3, 5, 8), {"units": "K", "cell_methods": "time: mean"})},
        (3, 5, 8),
    ),
    "time and level": (
        {"level": (("level",), np.array([1000, 850], "i4"), {"units": "hPa"})}
        | grid()
        | {"t": (("time", "level", "lat", "lon"), field(3, 2, 5, 8), {})},
        (6, 5, 8),
    ),
    "transposed": (grid() | {"t": (("lon", "time", "lat"), field(8, 3, 5), {})}, (3, 5, 8)),
    "one point": (
        grid(np.array([50.0]), np.array([8.5])) | {"t": (("lat", "lon"), field(1, 1), {})},
        (1, 1, 1),
    ),
    "double": (grid() | {"t": (("lat", "lon"), field(5, 8, dtype="f8"), {})}, (1, 5, 8)),
    "packed": (
        grid()
        | {
            "t": (
                ("lat", "lon"),
                np.arange(-20, 20, dtype="i2").reshape(5, 8) * 1600,
                {"scale_factor": 0.01, "add_offset": 273.15, "_FillValue": np.int16(-32767)},
            )
        },
        (1, 5, 8),
    ),
    "packed bytes, single-precision scale": (
        grid()
        | {
            "t": (
                ("lat", "lon"),
                np.arange(40, dtype="i1").reshape(5, 8) - 20,
                {"scale_factor": np.float32(-0.5), "add_offset": np.float32(3)},
            )
        },
        (1, 5, 8),
    ),
    "fill value": (
        grid()
        | {
            "t": (
                ("lat", "lon"),
                np.where(np.eye(5, 8, dtype=bool), np.float32(1e20), field(5, 8)),
                {"_FillValue": np.float32(1e20), "missing_value": np.float32(1e20)},
            )
        },
        (1, 5, 8),
    ),
    "only missing_value": (
        grid()
        | {
            "t": (
                ("lat", "lon"),
                np.where(np.eye(5, 8, dtype=bool), np.float32(-999), field(5, 8)),
                {"missing_value": np.float32(-999)},
            )
        },
        (1, 5, 8),
    ),
    "NaN": (
        grid()
        | {
            "t": (
                ("time", "lat", "lon"),
                np.where(np.eye(5, 8, dtype=bool), np.float32(np.nan), field(2, 5, 8)),
                {},
            )
        },
        (2, 5, 8),
    ),
    "constant": (grid() | {"t": (("lat", "lon"), np.full((5, 8), 7, "f4"), {})}, (1, 5, 8)),
    "all missing": (grid() | {"t": (("lat", "lon"), np.full((5, 8), np.nan, "f4"), {})}, (1, 5, 8)),
    "integers": (grid() | {"t": (("lat", "lon"), np.arange(40, dtype="i4").reshape(5, 8), {})}, (1, 5, 8)),
}


@pytest.mark.parametrize("netcdf_format", ["NETCDF3_CLASSIC", "NETCDF4"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_flavour_comes_back_as_it_was(tmp_path: Path, flavour: str, netcdf_format: str) -> None:
    variables, shape = FLAVOURS[flavour]
    if netcdf_format == "NETCDF3_CLASSIC":
        variables = {
            name: (dimensions, data.astype("i4") if data.dtype == np.int64 else data, attributes)
            for name, (dimensions, data, attributes) in variables.items()
        }
    # In a classic file only the first dimension of a variable can be unlimited.
    unlimited = ("time",) if flavour != "transposed" else ()
    path = make(tmp_path / "a.nc", variables, netcdf_format, unlimited, {"title": "test", "number": np.int32(3)})
    (signal,), copy = rewritten(path)
    assert signal.modality == "climate"
    assert signal.name == "t"
    assert signal.values.shape == (*shape, 1)
    assert np.isfinite(signal.values).all()
    assert signal.value_range[0] < signal.value_range[1]
    assert signal.sphere
    assert [axis.kind for axis in signal.axes] == ["slice", "node", "node" if shape[2] == 1 else "periodic"]
    np.testing.assert_array_equal(signal.axes[1].points, variables["lat"][1])
    np.testing.assert_array_equal(signal.axes[2].points, variables["lon"][1])
    with xarray.open_dataset(path, decode_times=False) as dataset:
        expected = dataset["t"].transpose(..., "lat", "lon").values.reshape(shape)
    missing = np.isnan(expected)
    if missing.any():
        np.testing.assert_array_equal(signal.missing, missing)
    else:
        assert signal.missing is None
    np.testing.assert_allclose(signal.values[..., 0][~missing], expected[~missing], rtol=1e-6)
    if not missing.all() and flavour != "constant":
        assert signal.value_range == pytest.approx((np.nanmin(expected), np.nanmax(expected)), rel=1e-6)
    assert_same_dataset(path, copy)


def test_value_types_follow_the_stored_precision(tmp_path: Path) -> None:
    coarse = {"scale_factor": 1e-3, "add_offset": 1e9}
    stored = {
        "single": (field(5, 8), {}, "f4"),
        "double": (field(5, 8, dtype="f8"), {}, "f8"),
        "short": (np.ones((5, 8), "i2"), {"scale_factor": 0.01}, "f4"),
        "short far from zero": (np.ones((5, 8), "i2"), coarse, "f8"),
        "long": (np.ones((5, 8), "i4"), {"scale_factor": 0.01}, "f8"),
        "plain": (np.ones((5, 8), "i2"), {}, "i2"),
    }
    variables = grid() | {n: (("lat", "lon"), data, attributes) for n, (data, attributes, _) in stored.items()}
    signals, copy = rewritten(make(tmp_path / "a.nc", variables))
    assert {signal.name: signal.values.dtype.str[1:] for signal in signals} == {
        name: dtype for name, (_, _, dtype) in stored.items()
    }
    assert_same_dataset(tmp_path / "a.nc", copy)


def test_everything_that_is_no_field_travels_losslessly(tmp_path: Path) -> None:
    variables: dict[str, Values] = {
        "crs": (
            (),
            np.array(b"", "S1"),
            {"grid_mapping_name": "latitude_longitude", "earth_radius": 6371229.0},
        ),
        "expver": ((), np.array("0001", object), {}),
        "names": (("station",), np.array(["Köln", "", "Oslo"], object), {"long_name": "names"}),
        "letters": (("station", "length"), np.array([[b"a", b"\xff"]] * 3, "S1"), {}),
        "time": (("time",), np.array([0, 6, 18]), {"units": "hours since 1900-01-01", "bounds": "time_bnds"}),
        "time_bnds": (("time", "two"), np.arange(6.0).reshape(3, 2) / 7, {}),
    }
    variables |= grid()
    variables["lat_bnds"] = (("lat", "two"), np.random.default_rng(1).random((5, 2)), {})
    variables["lat"] = (("lat",), variables["lat"][1], NORTH | {"bounds": "lat_bnds"})
    variables["soil"] = (
        ("lat", "lon"),
        np.arange(40, dtype="i1").reshape(5, 8) % 3,
        {"flag_values": np.array([0, 1, 2], "i1"), "flag_meanings": "sand loam clay"},
    )
    variables["area"] = (("lat", "lon"), field(5, 8), {"units": "m2"})
    variables["t"] = (
        ("time", "lat", "lon"),
        field(3, 5, 8),
        {"coordinates": "expver", "grid_mapping": "crs", "cell_measures": "area: area", "list": ["a", "ö"]},
    )
    variables["u"] = (("lat", "lon"), field(5, 8), {"valid": np.array([1, 2], "u2"), "empty": ""})
    path = make(tmp_path / "a.nc", variables, unlimited=("time",), attributes={"history": "one\ntwo", "x": 0.1})
    signals, copy = rewritten(path)
    assert [signal.name for signal in signals] == ["t", "u"]
    assert "file" not in signals[1].attributes
    assert_same_dataset(path, copy)


@pytest.mark.parametrize("netcdf_format", FORMATS)
def test_every_format(tmp_path: Path, netcdf_format: str) -> None:
    path = ordinary(tmp_path / "ö #1 a.nc", netcdf_format)
    _, copy = rewritten(path)
    assert_same_dataset(path, copy)


def test_attributes_stay_small(tmp_path: Path) -> None:
    longitudes = np.arange(0, 360, 0.1, dtype="f8").astype("f4")
    variables = grid(np.linspace(-90, 90, 1801), longitudes)
    variables["time"] = (("time",), np.arange(0, 24000, 6), {"units": "hours since 1900-01-01"})
    variables["t"] = (("lat", "lon"), np.zeros((1801, 3600), "i1"), {})
    (signal,), copy = rewritten(make(tmp_path / "a.nc", variables))
    assert signal.axes[2].kind == "periodic"
    assert len(cbor2.dumps(signal.attributes)) < 1000
    assert_same_dataset(tmp_path / "a.nc", copy)


@pytest.mark.parametrize(
    ("longitudes", "kind"),
    [
        (np.arange(0, 360, 0.25, dtype="f4"), "periodic"),
        (np.arange(0, 360, 0.28125).round(3), "periodic"),
        (np.arange(180.0, -180.0, -10.0), "periodic"),
        (np.linspace(0, 360, 37), "node"),
        (np.arange(-10.0, 2.0, 0.5), "node"),
        (np.array([0.0, 100.0, 180.0, 270.0]), "node"),
    ],
)
def test_periodic_longitudes(tmp_path: Path, longitudes: np.ndarray, kind: str) -> None:
    variables = grid(None, longitudes) | {"t": (("lat", "lon"), field(5, longitudes.size), {})}
    (signal,) = read(make(tmp_path / "a.nc", variables))
    assert signal.sphere
    assert signal.axes[2].kind == kind
    np.testing.assert_array_equal(signal.axes[2].points, longitudes)


def test_longitudes_that_jump_are_continued(tmp_path: Path) -> None:
    jumping = np.array([0.0, 90, 180, -90])
    variables = grid(None, jumping) | {"t": (("lat", "lon"), field(5, 4), {})}
    (signal,), copy = rewritten(make(tmp_path / "a.nc", variables))
    np.testing.assert_array_equal(signal.axes[2].points, [0, 90, 180, 270])
    assert signal.axes[2].kind == "periodic"
    assert_same_dataset(tmp_path / "a.nc", copy)


def projected() -> dict[str, Values]:
    metres = {"units": "m", "standard_name": "projection_y_coordinate"}
    east = {"units": "m", "standard_name": "projection_x_coordinate"}
    return {
        "y": (("y",), np.arange(4) * 1000.0, metres),
        "x": (("x",), np.arange(6) * 1000.0, east),
        "t": (("time", "y", "x"), field(2, 4, 6), {}),
    }


def curvilinear() -> dict[str, Values]:
    return {
        "nav_lat": (("j", "i"), field(4, 6, dtype="f8"), NORTH),
        "nav_lon": (("j", "i"), field(4, 6, dtype="f8"), EAST),
        "t": (("time", "j", "i"), field(2, 4, 6), {"coordinates": "nav_lat nav_lon"}),
    }


@pytest.mark.parametrize("variables", [projected(), curvilinear()])
def test_grids_without_true_angles_are_flat(tmp_path: Path, variables: dict[str, Values]) -> None:
    path = make(tmp_path / "a.nc", variables)
    (signal,), copy = rewritten(path)
    assert not signal.sphere
    assert signal.values.shape == (2, 4, 6, 1)
    assert [(axis.kind, axis.points) for axis in signal.axes] == [
        ("slice", None),
        ("node", None),
        ("node", None),
    ]
    assert_same_dataset(path, copy)


def test_a_rotated_pole_is_a_sphere(tmp_path: Path) -> None:
    variables: dict[str, Values] = {
        "rotated_pole": ((), np.array(b"", "S1"), {"grid_north_pole_latitude": 39.25}),
        "rlat": (("rlat",), np.linspace(-20, 20, 4), {"units": "degrees", "standard_name": "grid_latitude"}),
        "rlon": (("rlon",), np.linspace(-30, 20, 6), {"units": "degrees", "standard_name": "grid_longitude"}),
        "lat": (("rlat", "rlon"), field(4, 6), NORTH),
        "lon": (("rlat", "rlon"), field(4, 6), EAST),
        "t": (("rlat", "rlon"), field(4, 6), {"grid_mapping": "rotated_pole", "coordinates": "lat lon"}),
    }
    path = make(tmp_path / "a.nc", variables)
    (signal,), copy = rewritten(path)
    assert signal.sphere
    assert signal.axes[2].kind == "node"
    assert_same_dataset(path, copy)


def test_a_coordinate_may_have_another_name_than_its_dimension(tmp_path: Path) -> None:
    variables: dict[str, Values] = {
        "latitude": (("rows",), np.linspace(-90, 90, 5), NORTH),
        "longitude": (("columns",), np.arange(0.0, 360.0, 45.0), EAST),
        "t": (("rows", "columns"), field(5, 8), {}),
    }
    (signal,) = read(make(tmp_path / "a.nc", variables))
    assert signal.sphere
    climate.write([at_resolution(signal, 3, 4)], tmp_path / "b.nc")
    with netCDF4.Dataset(tmp_path / "b.nc") as dataset:
        np.testing.assert_allclose(dataset["latitude"][:], [-90, 0, 90])
        assert dataset["longitude"].dimensions == ("columns",)


def test_fillers_are_the_nearest_values(tmp_path: Path) -> None:
    data = np.tile(np.arange(8, dtype="f4"), (2, 5, 1))
    data[0, :, 5:] = np.nan
    data[1] = np.nan
    path = make(tmp_path / "a.nc", grid() | {"t": (("time", "lat", "lon"), data, {})})
    (signal,) = read(path)
    np.testing.assert_array_equal(signal.values[0, :, 5:, 0], 4)
    np.testing.assert_array_equal(signal.values[1], 2)
    assert signal.value_range == (0, 4)


@pytest.mark.parametrize(
    ("dtype", "attributes", "outside"),
    [
        ("f4", {"valid_range": np.array([-2, 45], "f4")}, 99),
        ("f4", {"valid_min": -2.0, "valid_max": 45.0}, -3),
        ("i2", {"valid_range": np.array([0, 100], "i2")}, 101),
        ("i1", {"valid_min": np.int8(0)}, -5),
        ("i2", {"valid_range": np.array([0.0, 10.0]), "scale_factor": -0.1, "_FillValue": np.int16(-999)}, 5),
    ],
)
def test_invalid_values_are_missing(tmp_path: Path, dtype: str, attributes: dict[str, Any], outside: int) -> None:
    inside = -20 if "scale_factor" in attributes else 20
    data = np.full((5, 8), inside, dtype)
    data[2, 3] = outside
    (signal,), copy = rewritten(make(tmp_path / "a.nc", grid() | {"t": (("lat", "lon"), data, attributes)}))
    assert signal.missing is not None
    assert np.argwhere(signal.missing).tolist() == [[0, 2, 3]]
    (again,) = read(copy)
    np.testing.assert_array_equal(again.missing, signal.missing)
    np.testing.assert_array_equal(again.values, signal.values)


def test_unsigned_packing(tmp_path: Path) -> None:
    data = np.arange(0, 240, 6, dtype="u1").reshape(5, 8)
    attributes = {"_Unsigned": "true", "_FillValue": np.int8(-1), "scale_factor": 0.5}
    path = make(tmp_path / "a.nc", grid() | {"t": (("lat", "lon"), data.view("i1"), attributes)})
    (signal,), copy = rewritten(path)
    np.testing.assert_array_equal(signal.values[0, ..., 0], data * np.float32(0.5))
    assert_same_dataset(path, copy)


def test_decoded_values_never_become_the_fill_value(tmp_path: Path) -> None:
    attributes = {"scale_factor": 1.0, "_FillValue": np.int16(-32768), "missing_value": np.int16(-32767)}
    data = np.zeros((5, 8), "i2")
    data[1, :2] = -32766, 32767
    (signal,) = read(make(tmp_path / "a.nc", grid() | {"t": (("lat", "lon"), data, attributes)}))
    del signal.attributes["zeros"]
    values = signal.values.copy()
    values[0, 0, :3, 0] = -1e9, -32767, 1e9
    climate.write([dataclasses.replace(signal, values=values)], tmp_path / "b.nc")
    (again,) = read(tmp_path / "b.nc")
    assert again.missing is None
    np.testing.assert_array_equal(again.values[0, 0, :3, 0], [-32766, -32766, 32767])


def test_another_resolution_has_its_own_coordinates(tmp_path: Path) -> None:
    variables = grid()
    variables["lat"] = (("lat",), variables["lat"][1].astype("f4"), NORTH | {"bounds": "lat_bnds"})
    variables["lon"] = (("lon",), variables["lon"][1].astype("i4"), EAST)
    variables["lat_bnds"] = (("lat", "two"), field(5, 2), {})
    variables["area"] = (("lat", "lon"), field(5, 8), {})
    variables["height"] = ((), np.array(2.0), {"units": "m"})
    for name in ("t", "u"):
        attributes = {"coordinates": "height area", "cell_measures": "area: area", "GRIB_Nx": np.int64(8)}
        variables[name] = (("time", "lat", "lon"), field(2, 5, 8), attributes)
    signals = read(make(tmp_path / "a.nc", variables, unlimited=("time",)))
    climate.write([at_resolution(signal, 9, 16) for signal in signals], tmp_path / "b.nc")
    with xarray.open_dataset(tmp_path / "b.nc") as dataset:
        assert dataset.sizes["lat"] == 9
        assert dataset.sizes["lon"] == 16
        np.testing.assert_array_equal(dataset["lat"], np.linspace(90, -90, 9))
        np.testing.assert_array_equal(dataset["lon"], np.arange(0, 360, 22.5))
        assert dataset["lat"].dtype == np.float32
        assert dataset["lat"].attrs == NORTH
        assert set(dataset.variables) == {"lat", "lon", "height", "t", "u"}
        assert dataset["t"].attrs == {}
        assert dataset["t"].encoding["coordinates"] == "height"
        assert dataset.encoding["unlimited_dims"] == {"time"}


def test_projected_coordinates_are_interpolated(tmp_path: Path) -> None:
    (signal,) = read(make(tmp_path / "a.nc", projected()))
    climate.write([at_resolution(signal, 7, 3)], tmp_path / "b.nc")
    with xarray.open_dataset(tmp_path / "b.nc") as dataset:
        np.testing.assert_array_equal(dataset["y"], np.arange(0, 3001, 500))
        np.testing.assert_array_equal(dataset["x"], [0, 2500, 5000])


def test_two_dimensional_coordinates_are_left_out_at_another_resolution(tmp_path: Path) -> None:
    (signal,) = read(make(tmp_path / "a.nc", curvilinear()))
    climate.write([at_resolution(signal, 7, 3)], tmp_path / "b.nc")
    with xarray.open_dataset(tmp_path / "b.nc") as dataset:
        assert list(dataset.variables) == ["t"]
        assert dataset["t"].attrs == {}


def test_variables_on_grids_of_their_own(tmp_path: Path) -> None:
    variables = grid()
    variables["lat_2"] = (("lat_2",), np.linspace(-60, 60, 3), NORTH)
    variables["t"] = (("lat", "lon"), field(5, 8), {})
    variables["u"] = (("lat_2", "lon"), field(3, 8), {})
    path = make(tmp_path / "a.nc", variables)
    signals, copy = rewritten(path)
    assert [signal.shape for signal in signals] == [(1, 5, 8), (1, 3, 8)]
    assert_same_dataset(path, copy)
    with pytest.raises(SignalError, match="one resolution"):
        climate.write([at_resolution(signals[0], 5, 4), signals[1]], tmp_path / "b.nc")


def test_some_of_the_signals_can_be_written(tmp_path: Path) -> None:
    variables = grid() | {name: (("lat", "lon"), field(5, 8), {"units": name}) for name in ("t", "u", "v")}
    signals = read(make(tmp_path / "a.nc", variables))
    climate.write(signals[:1], tmp_path / "first.nc")
    climate.write(signals[1:], tmp_path / "rest.nc")
    with xarray.open_dataset(tmp_path / "a.nc") as whole:
        with xarray.open_dataset(tmp_path / "first.nc") as first:
            xarray.testing.assert_identical(first, whole[["t"]])
        with xarray.open_dataset(tmp_path / "rest.nc") as rest:
            xarray.testing.assert_equal(rest, whole[["u", "v"]])
            assert rest["v"].attrs == {"units": "v"}


def test_signals_without_attributes(tmp_path: Path) -> None:
    axes = (
        Axis(2, "slice"),
        Axis(3, "node", points=np.array([-90.0, 0.0, 90.0])),
        Axis(4, "periodic", points=np.array([0.0, 90.0, 180.0, 270.0])),
    )
    missing = np.zeros((2, 3, 4), bool)
    missing[1, 2, 3] = True
    signal = Signal("climate", field(2, 3, 4, 1), axes, (0.0, 1.0), sphere=True, missing=missing)
    climate.write([signal], tmp_path / "a.nc")
    (again,) = read(tmp_path / "a.nc")
    assert again.name == "data"
    np.testing.assert_array_equal(again.missing, missing)
    np.testing.assert_array_equal(again.values[~missing], signal.values[~missing])
    np.testing.assert_array_equal(again.axes[2].points, axes[2].points)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_numbers_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]))
    elements = hnp.from_dtype(np.dtype(dtype))
    numbers = data.draw(hnp.arrays(dtype, (2, 3, 4), elements=elements))
    attributes: dict[str, Any] = {}
    if data.draw(st.booleans(), label="fill value"):
        attributes["_FillValue"] = numbers.reshape(-1)[0]
    if dtype[0] != "f" and data.draw(st.booleans(), label="packed"):
        scales = st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3)
        attributes |= {"scale_factor": data.draw(scales), "add_offset": data.draw(st.floats(-1e4, 1e4))}
    path = tmp_path_factory.mktemp("any") / "a.nc"
    variables = grid(np.linspace(-60, 60, 3), np.arange(4.0)) | {"t": (("n", "lat", "lon"), numbers, attributes)}
    make(path, variables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InrcodecWarning)
        _, copy = rewritten(path)
    with netCDF4.Dataset(copy) as dataset:
        dataset.set_auto_maskandscale(False)
        # A negative zero is a zero.
        assert (dataset["t"][...] + numbers.dtype.type(0)).tobytes() == (numbers + numbers.dtype.type(0)).tobytes()


@pytest.mark.parametrize("name", ["t2m.nc", *(f"climate/{p.name}" for p in (SAMPLES / "climate").glob("*.nc"))])
def test_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes((SAMPLES / name).read_bytes())
    signals, copy = rewritten(path)
    for signal in signals:
        assert signal.sphere
        assert signal.axes[2].kind == "periodic"
        assert signal.missing is None
        assert signal.values.dtype == np.float32
    assert_same_dataset(path, copy)


def test_sizes_of_the_samples() -> None:
    files = [SAMPLES / "t2m.nc", *(SAMPLES / "climate").glob("*.nc")]
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) < 350_000


# --- what is refused ---


def ordinary(path: Path, netcdf_format: str = "NETCDF4") -> Path:
    return make(path, grid() | {"t": (("time", "lat", "lon"), field(3, 5, 8), {})}, netcdf_format, ("time",))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"CDF", b"CDF\x01", b"CDF\x05" + b"\xff" * 60, b"\x89HDF\r\n\x1a\n"]
)
def test_files_that_are_not_netcdf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(content)
    with pytest.raises(SignalError, match=r"a\.nc"):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "a.nc", tmp_path):
        with pytest.raises(SignalError, match="no such file"):
            read(path)


@pytest.mark.parametrize("netcdf_format", FORMATS)
def test_files_that_are_cut_off(tmp_path: Path, netcdf_format: str) -> None:
    path = ordinary(tmp_path / "a.nc", netcdf_format)
    (expected,) = read(path)
    # The library may pad a file with zeros, which nothing depends on.
    whole = path.read_bytes().rstrip(b"\0") if "3" in netcdf_format else path.read_bytes()
    for length in (*range(4, len(whole), 197), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SignalError, match=r"a\.nc"):
            read(path)
    path.write_bytes(whole)
    np.testing.assert_array_equal(read(path)[0].values, expected.values)


def test_no_variable(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w"):
        pass
    with pytest.raises(SignalError, match="no variables"):
        read(tmp_path / "a.nc")


def test_files_are_closed_and_folders_left_alone(tmp_path: Path) -> None:
    path = ordinary(tmp_path / "a.nc")
    for _ in range(2):
        read(path)
        assert [each.name for each in tmp_path.iterdir()] == ["a.nc"]
        with netCDF4.Dataset(path, "a") as dataset:
            dataset.setncattr("written", "while nobody reads")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (signal,) = read(ordinary(tmp_path / "a.nc"))
    with pytest.raises(SignalError, match=r"'\.grib'; use one of \.nc "):
        inrcodec.signals.write([signal], tmp_path / "a.grib")
    with pytest.raises(SignalError, match="no signals"):
        climate.write([], tmp_path / "b.nc")
    with pytest.raises(SignalError, match="same name"):
        climate.write([signal, signal], tmp_path / "b.nc")
    with pytest.raises(SignalError, match="cannot be written"):
        climate.write([signal], tmp_path / "nowhere" / "b.nc")
    fewer = dataclasses.replace(signal, values=signal.values[:1], axes=(Axis(1, "slice"), *signal.axes[1:]))
    with pytest.raises(SignalError, match="slices"):
        climate.write([fewer], tmp_path / "b.nc")
    image = Signal("image", np.zeros((4, 4, 3), "u1"), (Axis(4), Axis(4)), (0.0, 255.0))
    with pytest.raises(SignalError, match="no climate field"):
        climate.write([image], tmp_path / "b.nc")


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "O"},
        {"dtype": 3.5},
        {"dimensions": ["a"]},
        {"shape": [1]},
        {"horizontal": "no"},
        {"attributes": {"units": None}},
        {"attributes": {"x": {"dtype": "<f8", "shape": [3], "data": b"1"}}},
        {"file": {}},
        {"file": {"dimensions": [["lat"]], "attributes": {}, "variables": []}},
        {"file": {"dimensions": [], "attributes": {}, "variables": [{"dimensions": []}]}},
        {"file": {"dimensions": [["time", 77, False]], "attributes": {}, "variables": []}},
    ],
)
def test_malformed_attributes(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (signal,) = read(ordinary(tmp_path / "a.nc"))
    with pytest.raises(SignalError):
        climate.write([dataclasses.replace(signal, attributes=signal.attributes | wrong)], tmp_path / "b.nc")


# --- GRIB ---


def make_grib(path: Path, fields: list[dict[str, Any]]) -> Path:
    eccodes = pytest.importorskip("eccodes")
    with path.open("wb") as file:
        for keys in fields:
            message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            try:
                for key, value in keys.items():
                    if key == "values":
                        eccodes.codes_set_values(message, value.ravel())
                    else:
                        eccodes.codes_set(message, key, value)
                eccodes.codes_write(message, file)
            finally:
                eccodes.codes_release(message)
    return path


def grib_field(short_name: str, level: int, height: int = 5, width: int = 8, **keys: Any) -> dict[str, Any]:
    return {
        "Ni": width,
        "Nj": height,
        "latitudeOfFirstGridPointInDegrees": 90,
        "latitudeOfLastGridPointInDegrees": -90,
        "longitudeOfFirstGridPointInDegrees": 0,
        "longitudeOfLastGridPointInDegrees": 360 - 360 / width,
        "iDirectionIncrementInDegrees": 360 / width,
        "jDirectionIncrementInDegrees": 180 / (height - 1),
        "dataDate": 20200615,
        "level": level,
        "shortName": short_name,
        "bitsPerValue": 16,
        "values": level + field(height, width, dtype="f8"),
        **keys,
    }


def test_grib(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib")
    levels = [850, 500]
    path = make_grib(tmp_path / "a.grib2", [grib_field("t", level) for level in levels])
    (signal,) = read(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.grib2"]
    assert signal.name == "t"
    assert signal.values.shape == (2, 5, 8, 1)
    assert signal.sphere
    assert signal.axes[2].kind == "periodic"
    np.testing.assert_array_equal(signal.axes[1].points, np.linspace(90, -90, 5))
    climate.write([signal], tmp_path / "b.nc")
    with xarray.open_dataset(tmp_path / "b.nc", decode_timedelta=True) as dataset:
        assert dataset["t"].dims == ("isobaricInhPa", "latitude", "longitude")
        assert dataset["t"].attrs["units"] == "K"
        assert dataset["time"] == np.datetime64("2020-06-15T12:00")
        assert dataset["step"] == np.timedelta64(0)
        for level in levels:
            expected = level + field(5, 8, dtype="f8")
            np.testing.assert_allclose(dataset["t"].sel(isobaricInhPa=level), expected, atol=2e-3)


def test_grib_by_its_content_and_fields_that_clash(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib")
    fields = [
        grib_field("t", 850),
        grib_field("z", 850),
        grib_field("t", 2, typeOfLevel="heightAboveGround", shortName="t"),
        grib_field("t", 850, height=3, width=4),
    ]
    signals = read(make_grib(tmp_path / "download.nc", fields))
    assert len(signals) == 4
    assert len({signal.name for signal in signals}) == 4
    assert sorted(signal.shape for signal in signals) == [(1, 3, 4), (1, 5, 8), (1, 5, 8), (1, 5, 8)]
    climate.write(signals, tmp_path / "b.nc")
    again = read(tmp_path / "b.nc")
    for one, other in zip(signals, again, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.values, other.values)


def test_grib_that_is_cut_off_or_none(tmp_path: Path) -> None:
    pytest.importorskip("cfgrib")
    path = make_grib(tmp_path / "a.grib", [grib_field("t", 850), grib_field("t", 500)])
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2 + 20, 30):
        path.write_bytes(whole[:length])
        with pytest.raises(SignalError, match="complete"):
            read(path)
    path.write_bytes(b"no weather")
    with pytest.raises(SignalError, match="not a GRIB file"):
        read(path)


def test_grib_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.grib"
    path.write_bytes(b"GRIB")
    monkeypatch.setitem(__import__("sys").modules, "cfgrib", None)
    with warnings.catch_warnings(), pytest.raises(SignalError, match=r"pip install 'inrcodec\[grib\]'"):
        read(path)


def test_levels_of_other_sizes_have_ranges_of_their_own(tmp_path: Path) -> None:
    for name, scale in (("alike.nc", [1.0, 0.5, 0.3]), ("unlike.nc", [1.0, 0.5, 1e-3])):
        numbers = (field(3, 3, 4) * np.array(scale)[:, None, None]).astype(np.float32)
        variables = grid(np.linspace(-60, 60, 3), np.arange(4.0)) | {"q": (("level", "lat", "lon"), numbers, {})}
        make(tmp_path / name, variables)
        (signal,) = read(tmp_path / name)
        if name == "alike.nc":
            assert signal.slice_ranges is None
            continue
        assert signal.slice_ranges is not None
        np.testing.assert_array_equal(signal.slice_ranges[:, 0], numbers.min((1, 2)))
        np.testing.assert_array_equal(signal.slice_ranges[:, 1], numbers.max((1, 2)).astype(np.float64))
