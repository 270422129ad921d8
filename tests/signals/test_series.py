"""Several climate files as one; xarray and cftime are the independent readers."""

import datetime
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray
from climate_files import Values, contents, field, grid, make, read
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec.signals
from inrcodec.decoder import decode
from inrcodec.encoder import encode
from inrcodec.errors import InrcodecWarning, SignalError, UsageError
from inrcodec.options import EncodeOptions
from inrcodec.registry import default_initialization
from inrcodec.signals import cf_fields, cf_series, cf_slices, cf_survey, climate, climate_reading, lazy
from inrcodec.signals.cf_times import Times, converted
from inrcodec.signals.lazy import LazySignal
from inrcodec.signals.signal import Signal

HOURS = {"units": "hours since 2019-01-01", "calendar": "standard"}


def series(paths: list[Path], dimension: str = "time") -> list[Signal]:
    """Read files as one into memory."""
    with climate.opened_series(paths, dimension) as signals:
        return [signal.loaded() for signal in signals]


def hourly(
    data: np.ndarray, first: int = 0, times: dict[str, Any] | None = None, **attributes: Any
) -> dict[str, Values]:
    """A variable on (time, lat, lon) from an hour on."""
    hours = first + np.arange(len(data), dtype="i4")
    return {"time": (("time",), hours, times or HOURS)} | grid() | {"t": (("time", "lat", "lon"), data, attributes)}


def cut(whole: dict[str, Values], folder: Path, ends: list[int], dimension: str = "time") -> list[Path]:
    """Write files that follow each other along a dimension; each ends before one of these indices."""
    paths = []
    for begin, end in pairwise([0, *ends]):
        part = {
            name: (dims, data.take(range(begin, end), dims.index(dimension)) if dimension in dims else data, attributes)
            for name, (dims, data, attributes) in whole.items()
        }
        paths.append(make(folder / f"{begin:02}.nc", part, unlimited=("time",)))
    return paths


LEVELS: Values = (("level",), np.array([1000, 850, 500], "i4"), {"units": "hPa"})
BOUNDS: Values = (("time", "two"), np.stack([np.arange(11), 1 + np.arange(11)], 1).astype("i4"), {})
RAIN = np.maximum(field(11, 5, 8) - 280, 0)
GAPS = np.where(field(11, 5, 8) > 285, np.float32(np.nan), field(11, 5, 8))
WHOLE: dict[str, dict[str, Values]] = {
    "plain": hourly(field(11, 5, 8), units="K"),
    "packed": hourly(
        np.rint(field(11, 5, 8)).astype("i2"), scale_factor=0.1, add_offset=250.0, _FillValue=np.int16(280)
    ),
    "gaps and zeros": hourly(GAPS) | {"rain": (("time", "lat", "lon"), RAIN, {})},
    "levels": hourly(field(11, 5, 8))
    | {"level": LEVELS, "q": (("level", "time", "lat", "lon"), field(3, 11, 5, 8), {})},
    "bounds, categories and text": hourly(field(11, 5, 8), times=HOURS | {"bounds": "time_bnds"})
    | {
        "time_bnds": BOUNDS,
        "mask": (("lat", "lon"), np.arange(40, dtype="i1").reshape(5, 8) % 2, {}),
        "flag": (("time", "lat", "lon"), np.arange(440, dtype="i1").reshape(11, 5, 8) % 3, {}),
        "step": (("time",), np.array([f"step {number}" for number in range(11)], object), {}),
        "height": ((), np.array(2.0), {"units": "m"}),
    },
}


@pytest.mark.parametrize("ends", [[11], [4, 11], [1, 2, 3, 10, 11]], ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_files_make_what_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ends: list[int]) -> None:
    """A series is the file that was cut to make it, in whatever order its slices are read."""
    whole = make(tmp_path / "whole.nc", WHOLE[name], unlimited=("time",))
    paths = cut(WHOLE[name], tmp_path, ends)
    for module in (lazy, cf_survey, climate_reading, cf_fields):
        monkeypatch.setattr(module, "SLAB_VALUES", 2 * 40)
    monkeypatch.setattr(cf_slices, "BLOCK", 3 * 40 * 4)
    monkeypatch.setattr(cf_slices, "LARGEST_BLOCK", 5 * 40 * 4)
    monkeypatch.setattr(cf_series, "OPEN_FILES", 2)
    opened: list[Path] = []
    load = climate._load

    def watched(path: Path, stack: Any) -> Any:
        opened.append(path)
        stack.callback(opened.remove, path)
        assert len(opened) <= 2
        return load(path, stack)

    monkeypatch.setattr(climate, "_load", watched)
    expected = read(whole)
    with climate.opened_series(paths, "time") as signals:
        assert [signal.name for signal in signals] == [signal.name for signal in expected]
        for signal, one in zip(signals, expected, strict=True):
            for begin, end in ((0, 11), (3, 5), (10, 11), (0, 2), (2, 9)):
                part, other = signal.part(begin, end), one.part(begin, end)
                np.testing.assert_array_equal(part.values, other.values)
                if other.missing is not None:
                    np.testing.assert_array_equal(part.missing, other.missing)
        climate.write(signals, tmp_path / "joined.nc")
    assert contents(tmp_path / "joined.nc") == contents(whole)
    assert not opened
    if len(paths) > 2:
        assert any(isinstance(signal, LazySignal) for signal in signals)


def concatenated(paths: list[Path]) -> xarray.Dataset:
    return xarray.concat(
        [xarray.load_dataset(path) for path in paths], "time", data_vars="minimal", coords="minimal", compat="override"
    )


def test_a_series_is_coded_as_one(tmp_path: Path) -> None:
    paths = cut(WHOLE["levels"], tmp_path, [4, 9, 11])
    signals = series(paths)
    initializations = [default_initialization("climate")] * 2
    data, _ = encode(signals, initializations, EncodeOptions(steps=0, max_error=0.5, device="cpu"))
    decoded = decode(data, device="cpu")
    assert [signal.shape for signal in decoded] == [(11, 5, 8), (33, 5, 8)]
    inrcodec.signals.write(decoded, tmp_path / "one.nc")
    original = concatenated(paths)
    with xarray.open_dataset(tmp_path / "one.nc") as one:
        xarray.testing.assert_identical(one.time, original.time)
        for name in ("t", "q"):
            assert float(np.abs(one[name] - original[name]).max()) <= 0.5


# --- what is joined though it differs ---


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_times_are_converted_to_what_they_were(data: st.DataObject) -> None:
    """Dates that cftime makes of the numbers stay the same."""
    calendar = data.draw(st.sampled_from(["standard", "noleap", "360_day", "proleptic_gregorian"]))
    texts = []
    for _ in range(2):
        unit = data.draw(st.sampled_from(["seconds", "minutes", "hours", "days"]))
        year, month, day = (data.draw(st.integers(*limits)) for limits in ((1850, 2100), (1, 12), (1, 28)))
        texts.append(f"{unit} since {year}-{month}-{day} {data.draw(st.integers(0, 23))}:30")
    numbers = np.array(data.draw(st.lists(st.integers(-(10**5), 10**5), min_size=1, max_size=4)), "i8")
    variables = {
        name: xarray.Variable(["time"], numbers, {"units": text, "calendar": calendar})
        for name, text in zip("ab", texts, strict=True)
    }
    own, wanted = (Times.of(name, variables) for name in "ab")
    assert own is not None and wanted is not None
    dates = cftime.num2date(numbers, texts[0], calendar)
    try:
        found = converted(variables["a"], own, wanted, np.dtype("i8"))
    except ValueError:
        assert texts[1].startswith(("minutes", "hours", "days"))  # seconds hold all of these
        found = converted(variables["a"], own, wanted, np.dtype("f8"))
        assert (found != np.rint(found)).any()
    again = cftime.num2date(found, texts[1], calendar)
    assert max(np.abs(again - dates)) <= datetime.timedelta(microseconds=10)


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        ("hours since 2019-01-01", "hours since 2019-01-01 04:00", "i4"),
        ("days since 1900-01-01", "hours since 2019-01-01 04:00", "f8"),
        ("hours since 2019-01-01", "Minutes since 2018-12-31 23:00", "f8"),
        ("seconds since 1970-01-01", "hours since 2019-01-01 04:00:00.0", "i4"),
    ],
)
def test_times_of_other_units(tmp_path: Path, first: str, second: str, dtype: str) -> None:
    data = field(6, 5, 8)
    paths = []
    for number, units in enumerate((first, second)):
        times = cftime.num2date(4 * number + np.arange(3), "hours since 2019-01-01")
        bounds = cftime.num2date(4 * number + np.arange(3)[:, None] + [0, 1], "hours since 2019-01-01")
        stored, both = (
            cftime.date2num(dates, units).astype("f8" if "days" in units else "i4") for dates in (times, bounds)
        )
        if dtype == "f8":
            stored, both = stored.astype("f8"), both.astype("f8")
        variables = hourly(data[3 * number : 3 * number + 3]) | {
            "time": (("time",), stored, {"units": units, "bounds": "time_bnds"}),
            "time_bnds": (("time", "two"), both, {}),
        }
        paths.append(make(tmp_path / f"{number}.nc", variables))
    signals = series(paths)
    climate.write(signals, tmp_path / "one.nc")
    with netCDF4.Dataset(tmp_path / "one.nc") as one:
        assert one["time"].units == first and one["time"].dtype == dtype
        wanted = cftime.num2date([0, 1, 2, 4, 5, 6], "hours since 2019-01-01")
        np.testing.assert_array_equal(cftime.num2date(one["time"][:], first), wanted)
        np.testing.assert_array_equal(cftime.num2date(one["time_bnds"][:, 0], first), wanted)
    np.testing.assert_array_equal(signals[0].values[..., 0], data)


def test_whole_hours_become_parts_of_hours(tmp_path: Path) -> None:
    """Integers that do not hold the times of another file become numbers of double precision."""
    one = make(tmp_path / "0.nc", hourly(field(2, 5, 8)))
    halves = HOURS | {"units": "minutes since 2019-01-01"}
    two = make(tmp_path / "1.nc", hourly(field(2, 5, 8), 150, halves))
    climate.write(series([one, two]), tmp_path / "one.nc")
    with netCDF4.Dataset(tmp_path / "one.nc") as file:
        assert file["time"].dtype == "f8" and file["time"].units == HOURS["units"]
        np.testing.assert_array_equal(file["time"][:], [0, 1, 2.5, 151 / 60])


@pytest.mark.parametrize(
    ("dtype", "one", "other", "result"),
    [
        ("i2", {"scale_factor": 0.01, "add_offset": 280.0}, {"scale_factor": 0.02, "add_offset": 280.0}, "f8"),
        ("i2", {"scale_factor": 0.01, "_FillValue": np.int16(-9)}, {"scale_factor": 0.01}, "f8"),
        ("i2", {}, {"scale_factor": np.float32(0.1)}, "f8"),
        ("u1", {"add_offset": 1.5}, {"valid_max": np.uint8(200)}, "f8"),
        ("f4", {"_FillValue": np.float32(1e20)}, {"missing_value": np.float32(-99)}, "f4"),
        ("f4", {"scale_factor": 2.0}, {"scale_factor": 3.0}, "f8"),
    ],
)
def test_packings_that_differ(
    tmp_path: Path, dtype: str, one: dict[str, Any], other: dict[str, Any], result: str
) -> None:
    """The values are those that each file means; xarray is the oracle where it computes in double precision."""
    numbers = np.random.default_rng(1).integers(0, 250, (4, 5, 8)).astype(dtype)
    numbers[0, 0], numbers[3, 2] = (one.get("_FillValue", 3), other.get("missing_value", 4))
    paths = [
        make(tmp_path / f"{number}.nc", hourly(numbers[2 * number : 2 * number + 2], 2 * number, **attributes))
        for number, attributes in enumerate((one, other))
    ]
    with pytest.warns(
        InrcodecWarning, match=r"1\.nc packs variable 't' in another way than .*0\.nc: it is unpacked to"
    ):
        (signal,) = series(paths)
    climate.write([signal], tmp_path / "one.nc")
    expected = []
    for path in paths:
        with netCDF4.Dataset(path) as file:
            file["t"].set_auto_scale(False)
            values = np.ma.filled(file["t"][:].astype("f8"), np.nan)
            attributes = {key: float(file["t"].getncattr(key)) for key in file["t"].ncattrs() if key != "valid_max"}
            expected.append(values * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0))
    with xarray.open_dataset(tmp_path / "one.nc") as joined:
        assert joined.t.dtype == result and joined.t.encoding["dtype"] == result
        np.testing.assert_array_equal(joined.t, np.concatenate(expected).astype(result))


def test_one_time_a_file(tmp_path: Path) -> None:
    """Where a time is no dimension, fields get it; what else is one value a file follows it."""
    data = field(3, 5, 8)
    paths = []
    for hour in range(3):
        scalars: dict[str, Values] = {
            "time": ((), np.array(hour, "i4"), HOURS),
            "made": ((), np.array(2 * hour), {"units": "days since 2020-01-01"}),
            "height": ((), np.array(2.0), {"units": "m"}),
        }
        variables = scalars | grid() | {"t": (("lat", "lon"), data[hour], {"coordinates": "time made height"})}
        paths.append(make(tmp_path / f"{hour}.nc", variables))
    (signal,) = series(paths)
    np.testing.assert_array_equal(signal.values[..., 0], data)
    climate.write([signal], tmp_path / "one.nc")
    with xarray.open_dataset(tmp_path / "one.nc", decode_times=False) as one:
        assert one.t.dims == ("time", "lat", "lon")
        np.testing.assert_array_equal(one.time, range(3))
        assert one.made.dims == ("time",) and one.made.values.tolist() == [0, 2, 4]
        assert one.height.shape == ()


def test_attributes_that_differ_are_left_out(tmp_path: Path) -> None:
    paths = [
        make(
            tmp_path / f"{number}.nc",
            hourly(field(2, 5, 8), 2 * number, units="K", actual_range=np.array([0.0, number]), note="same"),
            attributes={"history": f"made at {number}", "title": "fields"},
        )
        for number in range(2)
    ]
    with pytest.warns(InrcodecWarning, match="differ between the files are left out: history, t:actual_range"):
        signals = series(paths)
    climate.write(signals, tmp_path / "one.nc")
    with xarray.open_dataset(tmp_path / "one.nc", decode_times=False) as one:
        assert one.attrs == {"title": "fields"} and one.t.attrs == {"units": "K", "note": "same"}


@pytest.mark.parametrize("suffix", [".zarr", ".grib2"])
def test_files_of_other_formats(tmp_path: Path, suffix: str) -> None:
    data = field(4, 5, 8)
    paths = []
    for number in range(2):
        path = tmp_path / f"{number}{suffix}"
        if suffix == ".zarr":
            pytest.importorskip("zarr")
            with xarray.open_dataset(make(tmp_path / "a.nc", hourly(data[2 * number :][:2], 2 * number))) as part:
                part.to_zarr(path, zarr_format=2)
        else:
            path = make_messages(path, data[2 * number :][:2], 2 * number)
        paths.append(path)
    (signal,) = series(paths)
    np.testing.assert_allclose(signal.values[..., 0], data, atol=2e-3 if suffix == ".grib2" else 0)


def make_messages(path: Path, planes: np.ndarray, first: int) -> Path:
    """Write GRIB messages, an hour each."""
    pytest.importorskip("cfgrib")
    eccodes = pytest.importorskip("eccodes")
    keys = {"Ni": 8, "Nj": 5, "iDirectionIncrementInDegrees": 45, "jDirectionIncrementInDegrees": 45}
    keys |= {"latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90}
    keys |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 315}
    with path.open("wb") as file:
        for number, plane in enumerate(planes):
            message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            for key, value in (keys | {"bitsPerValue": 16, "dataDate": 20190101, "hour": first + number}).items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, plane.astype("f8").ravel())
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    return path


def test_levels_may_descend(tmp_path: Path) -> None:
    variables = grid() | {"level": LEVELS, "q": (("level", "lat", "lon"), field(3, 5, 8), {})}
    paths = cut(variables, tmp_path, [1, 3], "level")
    (signal,) = series(paths, "level")
    np.testing.assert_array_equal(signal.values[..., 0], field(3, 5, 8))
    with pytest.raises(SignalError, match="overlaps"):
        series([*paths, paths[1]], "level")


# --- what is refused ---


def changed(name: str, change: Callable[[Values], Values]) -> Callable[[dict[str, Values]], dict[str, Values]]:
    return lambda variables: variables | {name: change(variables[name])}


def with_attributes(name: str, **attributes: Any) -> Callable[[dict[str, Values]], dict[str, Values]]:
    return changed(name, lambda each: (each[0], each[1], each[2] | attributes))


def with_data(
    name: str, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[dict[str, Values]], dict[str, Values]]:
    return changed(name, lambda each: (each[0], change(each[1]), each[2]))


def smaller(variables: dict[str, Values]) -> dict[str, Values]:
    """Leave out the last latitude."""
    return {
        name: (dims, data.take(range(4), dims.index("lat")) if "lat" in dims else data, attributes)
        for name, (dims, data, attributes) in variables.items()
    }


REFUSED: dict[str, tuple[Callable[[dict[str, Values]], dict[str, Values]], str]] = {
    "a grid of another size": (smaller, "'lat' has 4 points, not 5"),
    "another grid": (with_data("lon", lambda lon: lon + 1), "variable 'lon' has other values"),
    "a mask that differs": (
        with_data("mask", lambda mask: 1 - mask),
        "'mask' has other values, and no dimension 'time'",
    ),
    "another variable": (lambda every: every | {"u": every["t"]}, "only one of them has a variable 'u'"),
    "other dimensions": (
        changed("t", lambda each: (("lat", "time", "lon"), each[1].transpose(1, 0, 2), each[2])),
        r"variable 't' is on \(lat, time, lon\), not on \(time, lat, lon\)",
    ),
    "another type": (with_data("t", lambda t: t.astype("f8")), "variable 't' is of type float64, not float32"),
    "another unit": (with_attributes("t", units="degC"), "variable 't' has units 'degC', not 'K'"),
    "another calendar": (with_attributes("time", calendar="noleap"), "has calendar 'noleap', not 'standard'"),
    "months": (with_attributes("time", units="months since 2019-01-01"), "'time' has units 'months since 2019-01-01'"),
    "packed wide integers": (with_attributes("count", scale_factor=2.0), "'count' of type int64 is packed in another"),
    "times before": (
        with_data("time", lambda time: time - 9),
        r"comes before .*0\.nc along 'time' \(-7 to -6, and 0 to 1 hours since 2019-01-01\): give the files in order",
    ),
    "times that overlap": (with_data("time", lambda time: time - 1), "overlaps .*: leave out what is there twice"),
    "the same times": (with_data("time", lambda time: time - 2), "overlaps"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_series(tmp_path: Path, what: str) -> None:
    variables = [
        hourly(field(2, 5, 8), 2 * number, units="K")
        | {
            "mask": (("lat", "lon"), np.arange(40, dtype="i1").reshape(5, 8) % 2, {}),
            "count": (("time", "lat", "lon"), np.arange(80).reshape(2, 5, 8), {}),
        }
        for number in range(3)
    ]
    change, message = REFUSED[what]
    variables[1] = change(variables[1])
    paths = [make(tmp_path / f"{number}.nc", each) for number, each in enumerate(variables)]
    with pytest.raises(SignalError, match=message) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore", InrcodecWarning)
        series(paths)
    assert str(paths[0]) in str(caught.value) and str(paths[1]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dimensions_there_are_none_of(tmp_path: Path) -> None:
    paths = cut(WHOLE["plain"], tmp_path, [4, 11])
    with pytest.raises(SignalError, match=r"00\.nc has no dimension 'step' for a series; there are: time, lat, lon"):
        series(paths, "step")


def test_files_without_coordinates_come_as_given(tmp_path: Path) -> None:
    variables = {name: each for name, each in WHOLE["plain"].items() if name != "time"}
    paths = cut(variables, tmp_path, [4, 11])
    with pytest.warns(InrcodecWarning, match="'time' has no numbers to put files in order by"):
        (signal,) = series(paths[::-1])
    np.testing.assert_array_equal(signal.values[:7, ..., 0], variables["t"][1][4:])


def test_other_modalities_and_lists_without_a_dimension(tmp_path: Path) -> None:
    paths = cut(WHOLE["plain"], tmp_path, [4, 11])
    (tmp_path / "a.png").write_bytes(b"")
    with (
        pytest.raises(UsageError, match=r"a\.png is image: only climate files"),
        inrcodec.signals.opened([*paths, tmp_path / "a.png"], series="time"),
    ):
        pass
    with pytest.raises(UsageError, match="2 files as one: say along which dimension"), inrcodec.signals.opened(paths):
        pass
    with (
        pytest.raises(SignalError, match="no such file"),
        inrcodec.signals.opened([*paths, tmp_path / "b.nc"], series="time"),
    ):
        pass


# --- memory ---

PROGRAM = """
import sys
from pathlib import Path
from inrcodec.signals import cf_series, cf_writing, climate, climate_reading, climate_files
from inrcodec.signals.lazy import slabs_of

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10

before = peak()
with climate.opened_series(sorted(Path(sys.argv[1]).glob("*.nc")), "time") as (signal,):
    assert signal.shape == (80, 721, 1440)
    for begin, part in slabs_of(signal):
        assert (part.values[:, 0, 0, 0] == range(begin, begin + len(part.values))).all()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is asked of Linux")
def test_memory_is_that_of_a_part(tmp_path: Path) -> None:
    plane = np.add.outer(np.linspace(0, 9, 721), np.linspace(0, 12, 1440)).astype("f4")
    axes = grid(np.linspace(90, -90, 721), np.arange(1440) / 4)
    for first in range(0, 80, 4):
        data = plane + np.arange(first, first + 4, dtype="f4")[:, None, None]
        make(tmp_path / f"{first:02}.nc", hourly(data, first) | axes)
    program = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path)]
    growth = int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert growth < 250 << 20  # all values have 330 MB, a part of them and its mask 100
