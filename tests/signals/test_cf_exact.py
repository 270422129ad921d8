"""What of a climate file survives any coding of its fields: all that is no field, and the exact parts of fields.

Coding is stood in for by noise on the values of the signals.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import cbor2
import netCDF4
import numpy as np
import pytest
import scipy.io
import xarray
from climate_files import EAST, NORTH, Values, at_resolution, contents, exact, field, grid, make, read, rewritten

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals import climate
from inrcodec.signals.cf_exact import ExactValues
from inrcodec.signals.cf_fills import Extremes
from inrcodec.signals.signal import Signal

SHAPE = (3, 19, 36)
DIMENSIONS = ("time", "lat", "lon")


def gridded(**variables: tuple[np.ndarray, dict[str, Any]]) -> dict[str, Values]:
    """Variables on (time, lat, lon) with their coordinates."""
    time = {
        "time": (("time",), np.array([15.0, 45.0, 75.0]), {"units": "days since 1850-01-01", "calendar": "360_day"})
    }
    horizontal = grid(np.linspace(90, -90, SHAPE[1]), np.arange(0.0, 360.0, 10.0))
    return time | horizontal | {name: (DIMENSIONS, *rest) for name, rest in variables.items()}


def pack_mask(mask: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), 9)


def corrected(values: np.ndarray, attributes: dict[str, Any], stored: tuple[int, ...] | None = None) -> np.ndarray:
    """Decoded values, corrected slice by slice. stored: sizes of the original grid, where these are others."""
    exact = ExactValues(attributes, stored or values.shape[:-1], values.shape[:-1], values.dtype)
    return np.concatenate([exact.apply(values[place : place + 1], place) for place in range(len(values))])


def smooth(low: float, high: float) -> np.ndarray:
    """A wavy single-precision field between two values."""
    t, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    waves = np.sin(y / 4 + t) * np.cos(x / 5) + 0.1 * np.sin(y * x / 3)
    return (low + (high - low) * (waves - waves.min()) / np.ptp(waves)).astype("f4")


def noisy(path: Path, noise: float, seed: int = 0) -> tuple[list[Signal], Path]:
    """Read a file, add noise to the values as a lossy coding would, write it again."""
    signals = read(path)
    random = np.random.default_rng(seed)
    decoded = []
    for signal in signals:
        values = signal.values + random.uniform(-noise, noise, signal.values.shape)
        attributes = cbor2.loads(cbor2.dumps(signal.attributes))
        noisy = dataclasses.replace(signal, values=values.astype(signal.values.dtype), attributes=attributes)
        decoded.append(exact(noisy))
    copy = path.with_name("copy.nc")
    climate.write(decoded, copy)
    return decoded, copy


def stored(path: Path, name: str) -> np.ndarray:
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        return np.asarray(dataset[name][...])


def assert_same_but(one: Path, other: Path, *names: str) -> None:
    """The files are the same, but for the numbers of the variables named."""
    before, after = contents(one), contents(other)
    assert list(before) == list(after)
    for name in before:
        if name.strip("/") in names:
            before[name], after[name] = ((*each[:2], each[3]) for each in (before[name], after[name]))
        assert before[name] == after[name], name


# --- values ---


def rain() -> np.ndarray:
    return np.where(smooth(-4e-3, 1e-3) < 0, np.float32(0), smooth(-4e-3, 1e-3))


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-2])
def test_zeros_stay_zeros_and_nothing_becomes_negative(tmp_path: Path, noise: float) -> None:
    path = make(tmp_path / "a.nc", gridded(pr=(rain(), {"units": "kg m-2 s-1"})))
    _, copy = noisy(path, noise)
    before, after = stored(path, "pr"), stored(copy, "pr")
    assert 0.5 < (before == 0).mean() < 1
    np.testing.assert_array_equal(after == 0, before == 0)
    assert after.min() >= 0 and after.max() <= before.max()
    assert np.abs(after - before).max() <= noise
    assert_same_but(path, copy, "pr")


def test_zeros_of_packed_values_and_of_both_signs(tmp_path: Path) -> None:
    numbers = np.rint(smooth(-900, 900)).astype("i2")
    numbers[:, :, :9] = 0
    path = make(tmp_path / "a.nc", gridded(u=(numbers, {"scale_factor": 0.01})))
    _, copy = noisy(path, 0.3)
    assert (stored(copy, "u")[numbers == 0] == 0).all()


def test_zeros_of_integers(tmp_path: Path) -> None:
    numbers = np.rint(smooth(-3000, 2000)).astype("i2")
    numbers[0, 0, 0], numbers[:, :, 30:] = -32768, 0
    path = make(tmp_path / "a.nc", gridded(x=(numbers, {})))
    _, copy = noisy(path, 20)
    assert (stored(copy, "x")[numbers == 0] == 0).all()


def test_the_zero_of_packed_rain(tmp_path: Path) -> None:
    """Packed numbers have none; what is next to it stands for no rain."""
    numbers = np.maximum(np.rint(smooth(-60000, 32000)), -32766).astype("i2")
    attributes = {"scale_factor": 1.3e-7, "add_offset": 32766 * 1.3e-7 + 1e-19, "_FillValue": np.int16(-32767)}
    path = make(tmp_path / "a.nc", gridded(tp=(numbers, attributes)))
    _, copy = noisy(path, 2e-3)
    np.testing.assert_array_equal(stored(copy, "tp") == -32766, numbers == -32766)


def test_a_chance_zero_of_both_signs_means_nothing(tmp_path: Path) -> None:
    values = smooth(-9, 9)
    values[1, 2, 3] = 0
    path = make(tmp_path / "a.nc", gridded(u=(values, {})))
    (signal,) = read(path)
    assert "zeros" not in signal.attributes


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (5e-13, 2e-6), (-40.0, 47.0)])
def test_values_stay_within_the_smallest_and_the_largest(tmp_path: Path, low: float, high: float) -> None:
    values = smooth(low, high)
    path = make(tmp_path / "a.nc", gridded(x=(values, {})))
    decoded, copy = noisy(path, (high - low) / 10)
    after = stored(copy, "x")
    assert values.min() <= after.min() and after.max() <= values.max()
    np.testing.assert_array_equal(decoded[0].values[..., 0], after)
    np.testing.assert_array_equal(climate.read_back(decoded[0])[..., 0], after)


@pytest.mark.parametrize("constant", [0.0, 273.15, 101325.0, -1e-9])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_constants_are_exact(tmp_path: Path, constant: float, dtype: str) -> None:
    values = np.full(SHAPE, constant if dtype[0] == "f" else 7, dtype)
    path = make(tmp_path / "a.nc", gridded(x=(values, {})))
    _, copy = noisy(path, 1.0)
    assert contents(path) == contents(copy)


def test_another_resolution_stays_within_the_limits(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nc", gridded(pr=(rain(), {"_FillValue": np.float32(-9)})))
    (signal,) = read(path)
    coarse = at_resolution(signal, 10, 18)
    coarse.values[0] = -1
    climate.write([exact(coarse, signal.shape)], tmp_path / "b.nc")
    after = stored(tmp_path / "b.nc", "pr")
    assert (after[0] == 0).all() and (after[1:] == rain().max()).all()


# --- missing values ---


def test_which_fill_value_was_where(tmp_path: Path) -> None:
    values = smooth(0, 50)
    values[:, 3:6], values[1, 8:] = -999, -99
    attributes = {"_FillValue": np.float32(-999), "missing_value": np.float32(-99)}
    path = make(tmp_path / "a.nc", gridded(dbz=(values, attributes)))
    (signal,), copy = noisy(path, 5)
    for fill in (-999, -99):
        np.testing.assert_array_equal(stored(copy, "dbz") == fill, values == fill)
    assert signal.missing is not None and signal.missing.sum() == np.isin(values, [-999, -99]).sum()
    assert_same_but(path, copy, "dbz")


def test_invalid_numbers_of_any_kind_are_kept(tmp_path: Path) -> None:
    numbers = np.rint(smooth(0, 1000)).astype("i2")
    numbers[0] = np.arange(numbers[0].size).reshape(numbers[0].shape) + 2000
    path = make(tmp_path / "a.nc", gridded(x=(numbers, {"valid_max": np.int16(1000), "scale_factor": 0.1})))
    _, copy = noisy(path, 0.0)
    assert contents(path) == contents(copy)


@pytest.mark.parametrize("fill", [1e36, -9999.0, -999.9, 1e20, -32768.0, 99999.0, -7777.0, 9.96921e36])
@pytest.mark.parametrize(("low", "high"), [(271.0, 305.0), (-5.0, 5.0), (0.0, 1e-6)])
def test_undeclared_fill_values(tmp_path: Path, fill: float, low: float, high: float) -> None:
    values = smooth(low, high)
    values[:, 4:7, 10:20] = fill
    path = make(tmp_path / "a.nc", gridded(sst=(values, {"units": "K"})))
    if fill == 9.96921e36:  # what the library itself puts where nothing was written
        (signal,), copy = noisy(path, 0.0)
    else:
        with pytest.warns(InrcodecWarning, match=rf"'sst' has 90 values of {fill:g}, far outside".replace("+", r"\+")):
            (signal,), copy = noisy(path, (high - low) / 10)
    assert signal.value_range == (values[values != np.float32(fill)].min(), values[values != np.float32(fill)].max())
    np.testing.assert_array_equal(stored(copy, "sst") == np.float32(fill), values == np.float32(fill))
    assert_same_but(path, copy, "sst")


def test_several_undeclared_fill_values_and_infinities(tmp_path: Path) -> None:
    values = smooth(271, 305)
    values[0, :2], values[1, :2], values[2, :2, :5], values[0, 5, 5], values[0, 5, 6] = (
        -9999,
        -8888,
        1e36,
        np.inf,
        -np.inf,
    )
    path = make(tmp_path / "a.nc", gridded(sst=(values, {})))
    with pytest.warns(InrcodecWarning) as caught:
        (signal,), copy = noisy(path, 2)
    messages = sorted(str(each.message).split("'sst' has ")[1].split(",")[0].split(":")[0] for each in caught)
    assert messages == [
        "1 infinite values (-inf)",
        "1 infinite values (inf)",
        "10 values of 1e+36",
        "72 values of -8888",
        "72 values of -9999",
    ]
    unusual = ~(np.abs(values) < 1000)
    np.testing.assert_array_equal(stored(copy, "sst")[unusual], values[unusual])
    assert signal.missing is not None
    np.testing.assert_array_equal(signal.missing, unusual)
    assert np.abs(stored(copy, "sst")[~unusual] - values[~unusual]).max() <= 2


@pytest.mark.parametrize(
    "values",
    [
        smooth(271, 305),
        smooth(-9999, 9999),
        smooth(0, 1e20),
        (smooth(0, 1) > 0.5).astype("f4"),
        np.where(smooth(0, 1) > 0.99, np.float32(0.05), rain()),
        np.where(smooth(0, 1) > 0.999, np.float32(99), smooth(0, 10)),
        np.zeros(SHAPE, "f4"),
        10 ** smooth(-12, 2),
        np.exp(np.random.default_rng(0).normal(0, 2, SHAPE)).astype("f4"),
        np.random.default_rng(1).standard_cauchy(SHAPE).astype("f4"),
    ],
)
def test_ordinary_fields_have_no_undeclared_fill_values(values: np.ndarray) -> None:
    extremes = Extremes()
    for part in np.array_split(values.ravel(), 7):
        extremes.add(part)
    assert extremes.fills() == []


def test_missing_values_at_another_resolution(tmp_path: Path) -> None:
    bytes_without_marker = np.arange(-128, 128).astype("i1")
    numbers = np.resize(bytes_without_marker, SHAPE)
    numbers[:, :4] = 100
    attributes = {"scale_factor": 1.0, "_FillValue": np.int8(100), "missing_value": np.int8(-100)}
    path = make(tmp_path / "a.nc", gridded(x=(numbers, attributes)))
    (signal,) = read(path)
    missing = np.zeros((3, 10, 18), bool)
    missing[:, :2] = True
    climate.write([dataclasses.replace(at_resolution(signal, 10, 18), missing=missing)], tmp_path / "b.nc")
    np.testing.assert_array_equal(stored(tmp_path / "b.nc", "x") == 100, missing)


# --- what no field can hold ---


def test_times_categories_and_integers_are_lossless(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    variables = gridded(
        overpass=(random.integers(0, 10**18, SHAPE), {"units": "nanoseconds since 2020-01-01"}),
        hours=(random.uniform(0, 24, SHAPE), {"units": "hours since 2020-01-01"}),
        soil=(random.integers(1, 17, SHAPE).astype("i4"), {"description": "DOMINANT SOIL CATEGORY"}),
        count=(random.integers(0, 2**40, SHAPE).astype("u8"), {}),
        t=(smooth(250, 310), {}),
        height=(np.rint(smooth(-400, 8000)).astype("i2"), {"units": "m"}),
    )
    variables["names"] = (("time", "length"), np.array([list("abc")] * 3, "S1"), {})
    path = make(tmp_path / "a.nc", variables, unlimited=("time",))
    signals, copy = noisy(path, 3)
    assert [signal.name for signal in signals] == ["t", "height"]
    assert_same_but(path, copy, "t", "height")


def test_lossless_variables_at_another_resolution(tmp_path: Path) -> None:
    soil = np.random.default_rng(0).integers(1, 17, SHAPE).astype("i4")
    flags = (soil.astype("i1"), {"flag_values": np.arange(17, dtype="i1")})
    path = make(tmp_path / "a.nc", gridded(soil=(soil, {}), flags=flags, t=(smooth(250, 310), {})))
    (signal,) = read(path)
    climate.write([at_resolution(signal, 37, 18)], tmp_path / "b.nc")
    for name in ("soil", "flags"):
        np.testing.assert_array_equal(stored(tmp_path / "b.nc", name)[:, ::2], soil[:, :, ::2])


def test_one_variable_does_not_block_the_others(tmp_path: Path) -> None:
    huge = np.linspace(-1, 1, 3 * 19 * 36).reshape(SHAPE)
    variables = gridded(
        t=(smooth(250, 310), {}),
        huge=(huge * 1e160, {}),
        tiny=(huge * 1e-170, {}),
        much=(np.ones(SHAPE, "i2"), {"scale_factor": "much"}),
        never=(np.ones(SHAPE, "i2"), {"scale_factor": np.nan}),
    )
    path = make(tmp_path / "a.nc", variables)
    with pytest.warns(InrcodecWarning) as caught:
        signals, copy = noisy(path, 3)
    assert [signal.name for signal in signals] == ["t"]
    assert all("it is stored losslessly" in str(each.message) for each in caught) and len(caught) == 4
    assert_same_but(path, copy, "t")


def test_files_without_fields_are_carried(tmp_path: Path) -> None:
    variables: dict[str, Values] = {
        "clat": (("cell",), np.linspace(-1, 1, 500), {"units": "radian", "standard_name": "latitude"}),
        "clon": (("cell",), np.linspace(-1, 3, 500), {"units": "radian", "standard_name": "longitude"}),
        "t": (("time", "cell"), field(2, 500), {"CDI_grid_type": "unstructured"}),
    }
    path = make(tmp_path / "a.nc", variables, attributes={"title": "cells"})
    with pytest.warns(
        InrcodecWarning, match=r"no variable of numbers has latitude .* stored losslessly: clat, clon, t$"
    ):
        (signal,), copy = noisy(path, 1)
    assert signal.shape == (1, 1, 1)
    assert contents(path) == contents(copy)


def test_types_of_ones_own(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nc", gridded(t=(smooth(250, 310), {})))
    with netCDF4.Dataset(path, "a") as dataset:
        weather = dataset.createEnumType(np.int8, "weather", {"rain": 0, "sun": 1})
        dataset.createVariable("w", weather, ("lat",), fill_value=1)[:] = np.arange(SHAPE[1]) % 2
        pair = dataset.createCompoundType(np.dtype([("a", "f4"), ("b", "i4")]), "pair")
        dataset.createVariable("pairs", pair, ("lat",))
        dataset.createVariable("ragged", dataset.createVLType(np.int32, "list"), ("lat",))
    with pytest.warns(InrcodecWarning, match=r"'(pairs|ragged)' has a type of its own .*: it is left out") as caught:
        _, copy = rewritten(path)
    assert len(caught) == 2
    with netCDF4.Dataset(copy) as dataset:
        assert dataset["w"].datatype.enum_dict == {"rain": 0, "sun": 1}
        np.testing.assert_array_equal(dataset["w"][:].filled(1), np.arange(SHAPE[1]) % 2)
        assert set(dataset.variables) == {"time", "lat", "lon", "t", "w"}


# --- attributes ---


def classic(path: Path, attributes: dict[str, Any], of_coordinates: dict[str, Any] | None = None) -> Path:
    """A classic file with attributes that the NetCDF library would not write."""
    with scipy.io.netcdf_file(path, "w") as file:
        for name, points, units in (("lat", np.linspace(90, -90, 5), NORTH), ("lon", np.arange(8) * 45.0, EAST)):
            file.createDimension(name, len(points))
            coordinate = file.createVariable(name, "f8", (name,))
            coordinate[:] = points
            for key, value in (units | (of_coordinates or {})).items():
                setattr(coordinate, key, value)
        variable = file.createVariable("t", "f4", ("lat", "lon"))
        variable[:] = field(5, 8)
        for owner in (variable, file):
            for key, value in attributes.items():
                setattr(owner, key, value)
    return path


def test_reserved_attribute_names_are_dropped(tmp_path: Path) -> None:
    names = ["_Netcdf4Dimid", "_Netcdf4Coordinates", "_NCProperties", "_nc3_strict", "_IsNetcdf4", "_SuperblockVersion"]
    names += ["_Format", "_Codecs", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_ARRAY_DIMENSIONS"]
    names += ["_nczarr_attr", "_nczarr_array", "_nczarr_group"]
    reserved = dict.fromkeys(names, "x")
    path = classic(tmp_path / "a.nc", reserved | {"units": "K"}, reserved)
    _, copy = rewritten(path)
    assert_same = contents(classic(tmp_path / "b.nc", {"units": "K"}))
    assert contents(copy) == assert_same


def test_text_in_another_encoding_keeps_its_bytes(tmp_path: Path) -> None:
    path = classic(
        tmp_path / "a.nc", {"units": b"\xb0C ", "institution": b"M\xe9t\xe9o", "utf": "Köln \ufffd".encode()}
    )
    signals, copy = rewritten(path)
    assert contents(path) == contents(copy)
    assert signals[0].attributes["attributes"]["units"] == b"\xb0C "


def test_attributes_of_all_types(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {kind: np.array([1, 2, 3], kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4")}
    attributes |= {kind: np.array([1, 2, 3], kind) for kind in ("i8", "u8", "f4", "f8")}
    attributes |= {f"one_{kind}": np.dtype(kind).type(7) for kind in ("i1", "u2", "i4", "i8", "u8", "f4", "f8")}
    attributes |= {"text": "ö\n", "texts": ["a", "", "ö"], "empty": "", "nan": np.nan, "many": np.arange(5000) ** 2}
    path = make(tmp_path / "a.nc", gridded(t=(smooth(0, 1), attributes)), attributes=attributes)
    _, copy = rewritten(path)
    assert contents(path) == contents(copy)


def items(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + items(each) for each in value.values())
    return 1 + sum(map(items, value)) if isinstance(value, list) else 1


def test_long_arrays_are_no_items_of_the_header(tmp_path: Path) -> None:
    count = 30_000
    variables = gridded(t=(smooth(0, 1), {"list": [str(number) for number in range(count)]}))
    variables["names"] = (("station",), np.array([f"station {number}" for number in range(count)], object), {})
    variables["places"] = (("station",), np.random.default_rng(0).random(count), {"flags": np.arange(count) ** 2})
    path = make(tmp_path / "a.nc", variables)
    (signal,), copy = rewritten(path)
    assert items(signal.attributes) < 200
    assert contents(path) == contents(copy)


# --- groups and stores ---


def grouped(path: Path) -> Path:
    with netCDF4.Dataset(path, "w") as file:
        file.title = "all"
        for name, points, attributes in (("lat", np.linspace(90, -90, 5), NORTH), ("lon", np.arange(8) * 45.0, EAST)):
            file.createDimension(name, len(points))
            file.createVariable(name, "f8", (name,))[:] = points
            file[name].setncatts(attributes)
        for place in ("forecast", "forecast/inner"):
            group = file.createGroup(place)
            group.title = place
            group.createDimension("time", None)
            group.createVariable("time", "i4", ("time",))[:] = [0, 6]
            group.createVariable("t", "f4", ("time", "lat", "lon"))[:] = field(2, 5, 8)
            group["t"].setncatts({"units": "K", "coordinates": "height"})
            group.createVariable("height", "f8", ())[...] = 2.0
        own = file.createGroup("analysis")
        own.createDimension("lat", 3)
        own.createVariable("lat", "f4", ("lat",))[:] = [60, 50, 40]
        own["lat"].setncatts(NORTH)
        own.createVariable("soil", "f4", ("lat", "lon"))[:] = field(3, 8)
        file.createGroup("empty")
    return path


def test_groups(tmp_path: Path) -> None:
    path = grouped(tmp_path / "a.nc")
    signals, copy = rewritten(path)
    shapes = {signal.name: signal.shape for signal in signals}
    assert shapes == {
        "forecast/t": (2, 5, 8),
        "forecast/inner/t": (2, 5, 8),
        "analysis/soil": (1, 3, 8),
    }
    assert all(signal.sphere for signal in signals)
    assert contents(path) == contents(copy)
    one, other = (xarray.open_groups(each) for each in (path, copy))
    assert one.keys() == other.keys()
    for name in one:
        xarray.testing.assert_identical(one[name], other[name])
        one[name].close(), other[name].close()


def test_groups_at_another_resolution(tmp_path: Path) -> None:
    signals = read(grouped(tmp_path / "a.nc"))
    climate.write(
        [at_resolution(signal, 9 if "soil" not in signal.name else 6, 16) for signal in signals], tmp_path / "b.nc"
    )
    with netCDF4.Dataset(tmp_path / "b.nc") as file:
        assert file["forecast/inner/t"].shape == (2, 9, 16)
        assert file["analysis/soil"].shape == (6, 16)
        assert file["lat"].shape == (9,) and file["analysis/lat"].shape == (6,)
        assert file["forecast/t"].coordinates == "height"
    climate.write(signals[1:2], tmp_path / "c.nc")
    with netCDF4.Dataset(tmp_path / "c.nc") as file:
        np.testing.assert_array_equal(file["forecast/inner/t"][:], field(2, 5, 8))


def test_odd_shapes(tmp_path: Path) -> None:
    variables = gridded(t=(smooth(250, 310), {}))
    variables["none"] = (("record", "lat", "lon"), np.zeros((0, 19, 36), "f4"), {"units": "K"})
    variables["texts"] = (("record",), np.zeros(0, object), {})
    variables["named"] = (("three",), np.array(["a", "", "none"], object), {"_FillValue": "none"})
    path = make(tmp_path / "a.nc", variables, unlimited=("record",))
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("unused", 5)
        file.createVariable("covariance", "f4", ("three", "three"))[:] = field(3, 3)
    _, copy = rewritten(path)
    assert contents(path) == contents(copy)


# --- malformed ---


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) within plain values."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def test_whatever_the_attributes_are(tmp_path: Path) -> None:
    values = rain()
    values[0, 0, :5] = np.nan
    variables = gridded(pr=(values, {"many": np.arange(20) ** 2}), soil=(np.ones(SHAPE, "i8"), {}))
    variables["names"] = (("station",), np.array(["a", "bc"], object), {"list": ["x", "y"]})
    (signal,) = read(make(tmp_path / "a.nc", variables))
    odd = [
        None,
        0,
        -1,
        2**62,
        10**30,
        1.5,
        np.nan,
        "",
        "/",
        "a/b",
        b"",
        b"x" * 9,
        [],
        {},
        [1],
        ["lat"],
        True,
        "O",
        "<f2",
    ]
    odd += [
        {"dtype": "<i8", "shape": [1 << 40], "start": 0, "step": 1},
        {"dtype": "text", "shape": [1], "data": b"\xff"},
    ]
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        attributes = deepcopy(signal.attributes)
        found = list(places(attributes))
        container, key = found[random.integers(len(found))]
        container[key] = odd[random.integers(len(odd))]
        damaged = dataclasses.replace(signal, attributes=attributes)
        assert climate.read_back(damaged).shape == signal.values.shape
        assert climate.stored_step(damaged) >= 0
        try:
            climate.write([exact(damaged)], tmp_path / "b.nc")
        except SignalError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": [1.0]},
        {"limits": ["a", "b"]},
        {"limits": 3},
        {"limits": [2.0, 1.0]},
        {"limits": [float("nan"), 1.0]},
        {"limits": ["0", "1"]},
        {"limits": [False, True]},
        {"zeros": [0.0, 3, 19, 36, b"no stream"]},
        {"zeros": [0.0, 3, 19, 36, b"x\x9c\x03\x00\x00\x00\x00\x01"]},
        {"zeros": [0.0, *SHAPE, pack_mask(np.ones(SHAPE, bool)) + b"\0"]},
        {"zeros": [0.0, *SHAPE, pack_mask(np.ones(SHAPE, bool))[:-1]]},
        {"zeros": [0.0, *SHAPE, zlib.compress(b"\xff" * 257)]},  # of 2052 bits; the last byte has 4 more
        {"zeros": [0.0, *SHAPE, zlib.compress(bytes(256))]},
        {"zeros": [0.0, *SHAPE, zlib.compress(bytes(258))]},
        {"zeros": [0.0, *SHAPE, "mask"]},
        {"zeros": [0.0, *SHAPE[1:], pack_mask(np.ones(SHAPE[1:], bool))]},
        {"zeros": [0.0, *SHAPE[:2], 36.0, pack_mask(np.ones(SHAPE, bool))]},
        {"zeros": [0.0, *SHAPE[:2], 0, pack_mask(np.ones(0, bool))]},
        {"zeros": [float("nan"), *SHAPE, pack_mask(np.ones(SHAPE, bool))]},
        {"zeros": ["0", *SHAPE, pack_mask(np.ones(SHAPE, bool))]},
        {"zeros": []},
        {"zeros": 4},
        {"gaps": []},
        {"gaps": [{"dtype": "<f8", "shape": [1], "data": b"12345678"}]},
        {"gaps": [{"dtype": "<f4", "shape": [1], "data": b"1234"}, {"dtype": "|u1", "shape": [1], "data": b"1"}]},
    ],
)
def test_malformed_exact_parts(tmp_path: Path, wrong: dict[str, Any]) -> None:
    values = rain()
    values[0, 0, 0] = np.nan
    path = make(tmp_path / "a.nc", gridded(pr=(values, {})))
    (signal,) = read(path)
    damaged = dataclasses.replace(signal, attributes=signal.attributes | wrong)
    with pytest.raises(SignalError, match="malformed"):
        climate.write([exact(damaged)], tmp_path / "b.nc")
    np.testing.assert_array_equal(climate.read_back(damaged), signal.values)


def test_gaps_that_end_early_are_found(tmp_path: Path) -> None:
    """Also where so many are whole that the first look finds nothing."""
    values = np.full((1, 1024, 1030), np.nan, "f4")
    values[0, :2, :2] = 1, 2
    axes = grid(np.linspace(90, -90, 1024), np.arange(1030.0) / 3)
    path = make(tmp_path / "a.nc", {"time": (("time",), np.zeros(1), {})} | axes | {"t": (DIMENSIONS, values, {})})
    (signal,) = read(path)
    count = int(np.count_nonzero(np.isnan(values)))
    numbers = zlib.compress(np.full(1 << 20, -1, "f4").tobytes())
    gaps = [{"dtype": "<f4", "shape": [count], "data": numbers, "deflated": True}]
    damaged = dataclasses.replace(signal, attributes=signal.attributes | {"gaps": gaps})
    with pytest.raises(SignalError, match="malformed"):
        climate.check(damaged)
    with pytest.raises(SignalError, match="malformed"):
        climate.write([damaged], tmp_path / "b.nc")
    climate.check(signal)


def test_zeros_of_another_resolution_only_widen_the_limits() -> None:
    values = np.linspace(-1, 5, 3 * 7 * 9, dtype="f4").reshape(3, 7, 9, 1)
    attributes = {"limits": [1.0, 4.0], "zeros": [0.0, *SHAPE, pack_mask(np.ones(SHAPE, bool))]}
    np.testing.assert_array_equal(corrected(values, attributes, SHAPE), values.clip(0, 4))
    attributes["zeros"] = [0.0, 3, 7, 9, pack_mask(values[..., 0] < 2)]
    np.testing.assert_array_equal(corrected(values, attributes), np.where(values < 2, 0, values.clip(1, 4)))
