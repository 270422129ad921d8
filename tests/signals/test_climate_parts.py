"""Climate files that are read and written part by part, as whole ones would be, in little memory."""

import contextlib
import subprocess
import sys
import warnings
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray
from climate_files import EAST, NORTH, Values, at_resolution, contents, exact, field, grid, make, read
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.masks import Inflater, MaskPacker, MaskReader
from inrcodec.signals import cf_fields, cf_slices, cf_streams, cf_survey, climate, climate_reading, lazy
from inrcodec.signals.cf_exact import ExactValues
from inrcodec.signals.cf_fills import Extremes
from inrcodec.signals.cf_streams import ArrayPacker, ArrayReader
from inrcodec.signals.lazy import AnySignal, LazySignal
from inrcodec.signals.signal import Signal

HEIGHT, WIDTH = 5, 8
PLANE = HEIGHT * WIDTH


def shrink(monkeypatch: pytest.MonkeyPatch, slices: int = 2) -> None:
    """Make parts and blocks of few slices of these tests' grid."""
    for module in (lazy, cf_survey, climate_reading, cf_fields):
        monkeypatch.setattr(module, "SLAB_VALUES", slices * PLANE)
    monkeypatch.setattr(cf_slices, "BLOCK", 3 * PLANE * 4)
    monkeypatch.setattr(cf_slices, "LARGEST_BLOCK", 5 * PLANE * 4)
    monkeypatch.setattr(cf_streams, "STREAMED_FROM", 40)


def on_times(data: np.ndarray, attributes: dict[str, Any] | None = None) -> dict[str, Values]:
    return grid() | {"x": (("time", "lat", "lon"), data, attributes or {})}


def waves(times: int = 11) -> np.ndarray:
    t, y, x = np.mgrid[:times, :HEIGHT, :WIDTH]
    return (270 + 20 * np.sin(t / 3 + y) * np.cos(x / 2 + t) + t / 7).astype("f4")


def rain() -> np.ndarray:
    return np.maximum(waves() - 275, 0)


def masked(fill: float, count: int = 5, values: np.ndarray | None = None) -> np.ndarray:
    """Values with a coast of fills, a slice of nothing else and a slice without."""
    values = (waves() if values is None else values).copy()
    values[:, :, :count] = fill
    values[3], values[7] = fill, waves()[7]
    return values


def invalid() -> np.ndarray:
    numbers = np.rint(waves()).astype("i2")
    numbers[2:5] = 2000 + np.arange(3 * PLANE).reshape(3, HEIGHT, WIDTH) % 90
    numbers[9, 0, :3] = 3000, 3001, 3002
    return numbers


LEVELS = {"level": (("level",), np.array([1000, 850, 500], "i4"), {"units": "hPa"})}
FILES: dict[str, dict[str, Values]] = {
    "plain": on_times(waves()),
    "double": on_times(waves().astype("f8") + 1e-9),
    "packed": on_times(
        np.rint(50 * (waves() - 270)).astype("i2"),
        {"scale_factor": 0.02, "add_offset": 270.0, "_FillValue": np.int16(-999)},
    ),
    "packed and masked": on_times(
        masked(-999, values=np.rint(waves())).astype("i2"), {"scale_factor": -0.5, "_FillValue": np.int16(-999)}
    ),
    "integers": on_times(np.arange(11 * PLANE, dtype="i4").reshape(11, HEIGHT, WIDTH) ** 2),
    "NaN": on_times(masked(np.nan)),
    "all missing": on_times(np.full((11, HEIGHT, WIDTH), np.nan, "f4")),
    "zeros": on_times(rain()),
    "zero of packed rain": on_times(
        np.rint(rain() * 100).astype("i2") - 30000, {"scale_factor": 0.01, "add_offset": 300.0 + 1e-9}
    ),
    "zero nearest of packed floats": on_times(rain() - 30, {"scale_factor": 0.5, "add_offset": 15.0 + 1e-4}),
    "zeros and fills": on_times(masked(-1, values=rain()), {"_FillValue": np.float32(-1)}),
    "gaps of two kinds": on_times(
        np.where(waves() > 280, np.float32(-99), masked(-999)),
        {"_FillValue": np.float32(-999), "missing_value": np.float32(-99)},
    ),
    "gaps of one kind, not the first": on_times(masked(-99), {"missing_value": np.array([-999.0, -99.0], "f4")}),
    "gaps of many kinds": on_times(invalid(), {"valid_max": np.int16(1000), "scale_factor": 0.1}),
    "gaps of too many kinds": on_times(
        np.where(waves() > 260, np.arange(1000, 1000 + 11 * PLANE).reshape(11, HEIGHT, WIDTH), waves()).astype("f4"),
        {"valid_max": np.float32(900)},
    ),
    "undeclared fill values": on_times(np.where(waves() > 285, np.float32(1e20), masked(-9999))),
    "infinities": on_times(np.where(waves() > 285, np.float32(-np.inf), masked(np.inf))),
    "slice ranges": on_times(waves() * 4.0 ** -np.arange(11, dtype="f4")[:, None, None]),
    "constant": on_times(np.full((11, HEIGHT, WIDTH), 7, "f4")),
    "time and level": LEVELS | grid() | {"x": (("time", "level", "lat", "lon"), field(5, 3, HEIGHT, WIDTH), {})},
    "(lon, time, lat)": grid() | {"x": (("lon", "time", "lat"), field(WIDTH, 11, HEIGHT), {})},
    "(level, lat, time, lon)": LEVELS
    | grid()
    | {"x": (("level", "lat", "time", "lon"), field(3, HEIGHT, 5, WIDTH), {})},
    "several": on_times(rain()) | {"y": (("time", "lat", "lon"), masked(np.nan), {})},
    "categories": on_times(waves()) | {"soil": (("time", "lat", "lon"), np.rint(rain() / 5).astype("i4"), {})},
    "values that no field can hold": on_times(waves())
    | {"huge": (("time", "lat", "lon"), 1e160 * waves().astype("f8"), {})},
}


def assert_same_signal(one: Signal, other: Signal) -> None:
    for key in ("modality", "name", "value_range", "sphere", "dtype", "shape", "channels", "has_missing"):
        assert getattr(one, key) == getattr(other, key), key
    np.testing.assert_array_equal(one.values, other.values)
    for a, b in ((one.missing, other.missing), (one.slice_ranges, other.slice_ranges)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_array_equal(a, b)
    assert one.attributes.keys() == other.attributes.keys()
    for key in one.attributes.keys() - {"zeros", "gaps"}:
        np.testing.assert_equal(one.attributes[key], other.attributes[key])
    if "zeros" in one.attributes:
        assert one.attributes["zeros"][:-1] == other.attributes["zeros"][:-1]
        assert zlib.decompress(one.attributes["zeros"][-1]) == zlib.decompress(other.attributes["zeros"][-1])
    if "gaps" in one.attributes:
        for a, b in zip(one.attributes["gaps"], other.attributes["gaps"], strict=True):
            np.testing.assert_array_equal(ArrayReader(a).take(10**6), ArrayReader(b).take(10**6))


def assert_reads_alike(signal: AnySignal, whole: Signal) -> None:
    """A lazy signal has the values of a whole one, in whatever order its slices are asked for."""
    assert isinstance(signal, LazySignal)
    for begin, end in ((0, 1), (5, 9), (9, 11), (2, 3), (1, 8), (10, 11), (4, 5), (0, 11)):
        part, expected = signal.part(begin, min(end, whole.shape[0])), whole.part(begin, min(end, whole.shape[0]))
        np.testing.assert_array_equal(part.values, expected.values)
        assert (part.missing is None) == (expected.missing is None)
        if part.missing is not None and expected.missing is not None:
            np.testing.assert_array_equal(part.missing, expected.missing)
    assert_same_signal(signal.loaded(), whole)


@pytest.mark.parametrize("chunks", [None, (1, 5, 8), (4, 3, 3), (11, 5, 8)], ids=str)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::inrcodec.errors.InrcodecWarning")
def test_parts_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunks: tuple[int, ...] | None
) -> None:
    path = make(tmp_path / "a.nc", FILES[name])
    if chunks is not None:
        if FILES[name]["x"][1].ndim != 3:
            pytest.skip("chunks are those of three dimensions")
        path = chunked(path, tmp_path / "chunked.nc", chunks)
    whole = read(path)
    climate.write(whole, tmp_path / "whole.nc")
    shrink(monkeypatch)
    with climate.opened(path) as signals:
        for signal, expected in zip(signals, whole, strict=True):
            assert_reads_alike(signal, expected)
        climate.write(signals, tmp_path / "parts.nc")
    assert contents(tmp_path / "parts.nc") == contents(tmp_path / "whole.nc") == contents(path)


def chunked(path: Path, copy: Path, chunks: tuple[int, ...]) -> Path:
    """Copy a file, the numbers of `x` in chunks of these sizes."""
    with netCDF4.Dataset(path) as before, netCDF4.Dataset(copy, "w") as after:
        for name, dimension in before.dimensions.items():
            after.createDimension(name, len(dimension))
        for name, variable in before.variables.items():
            attributes = {key: variable.getncattr(key) for key in variable.ncattrs()}
            sizes = tuple(map(min, chunks, variable.shape)) if name == "x" else None
            new = after.createVariable(
                name,
                variable.dtype,
                variable.dimensions,
                zlib=sizes is not None,
                chunksizes=sizes,
                fill_value=attributes.pop("_FillValue", None),
            )
            for each in (variable, new):
                each.set_auto_maskandscale(False)
            new.setncatts(attributes)
            new[...] = variable[...]
    return copy


def test_big_endian_and_classic_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.nc", on_times(waves()), "NETCDF3_CLASSIC", ("time",))
    (whole,) = read(path)
    shrink(monkeypatch)
    with climate.opened(path) as (signal,):
        assert signal.dtype == np.dtype("f4") and signal.dtype.isnative
        assert_reads_alike(signal, whole)
        climate.write([signal], tmp_path / "b.nc")
    assert contents(path) == contents(tmp_path / "b.nc")


def test_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, points, attributes in (("lat", np.linspace(90, -90, 5), NORTH), ("lon", np.arange(8) * 45.0, EAST)):
            file.createDimension(name, len(points))
            file.createVariable(name, "f8", (name,))[:] = points
            file[name].setncatts(attributes)
        for place, times in (("forecast", 4), ("forecast/inner", 6)):
            group = file.createGroup(place)
            group.createDimension("time", None)
            group.createVariable("t", "f4", ("time", "lat", "lon"))[:] = field(times, 5, 8)
            group.createVariable("u", "f4", ("time", "lat", "lon"))[:] = -field(times, 5, 8)
    whole = read(path)
    shrink(monkeypatch)
    with climate.opened(path) as signals:
        assert [signal.shape for signal in signals] == [(4, 5, 8), (4, 5, 8), (6, 5, 8), (6, 5, 8)]
        parts = [(signal.part(1, 3), expected.part(1, 3)) for signal, expected in zip(signals, whole, strict=True)]
        for part, expected in parts:
            np.testing.assert_array_equal(part.values, expected.values)
        climate.write(signals, tmp_path / "b.nc")
    assert contents(path) == contents(tmp_path / "b.nc")


@pytest.mark.parametrize("dtype", ["f2", "f4", "i2"])
def test_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    pytest.importorskip("zarr")
    values = (masked(0) * 50 if dtype == "i2" else masked(0)).astype(dtype)
    with xarray.open_dataset(make(tmp_path / "a.nc", on_times(waves()))) as dataset, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset["x"] = (("time", "lat", "lon"), values, {"units": "mm"})
        dataset.to_zarr(tmp_path / "a.zarr", encoding={"x": {"chunks": (4, 5, 3), "_FillValue": None}})
    # The library leaves out chunks of zeros.
    told = pytest.warns(InrcodecWarning, match="counts as fill values") if dtype == "i2" else contextlib.nullcontext()
    with told:
        (whole,) = read(tmp_path / "a.zarr")
    assert whole.dtype == ("f4" if dtype == "f2" else dtype)
    np.testing.assert_array_equal(whole.values[..., 0], values)
    shrink(monkeypatch)
    with told, climate.opened(tmp_path / "a.zarr") as (signal,):
        assert_reads_alike(signal, whole)


def test_grib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cfgrib")
    eccodes = pytest.importorskip("eccodes")
    angles = {"FirstGridPoint": (90, 0), "LastGridPoint": (-90, 315)}
    keys = {
        f"{way}Of{place}InDegrees": angles[place][way == "longitude"]
        for place in angles
        for way in ("latitude", "longitude")
    }
    keys |= {"iDirectionIncrementInDegrees": 45, "jDirectionIncrementInDegrees": 45, "Ni": 8, "Nj": 5}
    path = tmp_path / "a.grib2"
    with path.open("wb") as file:
        for number, plane in enumerate(waves(11)):
            message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            for key, value in (keys | {"shortName": "t", "bitsPerValue": 16, "dataDate": 20200601 + number}).items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, plane.astype("f8").ravel())
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    (whole,) = read(path)
    np.testing.assert_allclose(whole.values[..., 0], waves(11), atol=2e-3)
    shrink(monkeypatch)
    with climate.opened(path) as (signal,):
        assert_reads_alike(signal, whole)


def test_the_file_is_open_as_long_as_its_signals_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.nc", on_times(waves()))
    shrink(monkeypatch)
    with climate.opened(path) as (signal,):
        signal.part(0, 1)
    with pytest.raises(SignalError, match=r"a\.nc: cannot be read"):
        signal.part(9, 10)
    with netCDF4.Dataset(path, "a") as dataset:
        dataset.setncattr("written", "while nobody reads")
    with pytest.raises(OSError, match="mine"), climate.opened(path):
        raise OSError("mine")


def test_errors_of_who_makes_the_values_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = read(make(tmp_path / "a.nc", on_times(waves())))
    shrink(monkeypatch)

    def broken(begin: int, end: int) -> lazy.Rows:
        raise RuntimeError("no memory")

    signal = lazy_of(whole, broken)
    with pytest.raises(RuntimeError, match="no memory"):
        climate.write([signal], tmp_path / "b.nc")
    assert contents(tmp_path / "b.nc")  # it is closed


def lazy_of(signal: Signal, read: Any = None) -> LazySignal:
    def rows(begin: int, end: int) -> lazy.Rows:
        return signal.values[begin:end], None if signal.missing is None else signal.missing[begin:end]

    return LazySignal(
        "climate",
        signal.dtype,
        signal.axes,
        1,
        signal.value_range,
        read or rows,
        signal.name,
        signal.sphere,
        signal.missing is not None,
        signal.attributes,
        signal.slice_ranges,
    )


@pytest.mark.parametrize("name", ["gaps of two kinds", "gaps of too many kinds", "NaN"])
def test_more_values_are_missing_after_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Which number was where is not known any more: the most frequent one, or the first of many, is taken for all."""
    path = make(tmp_path / "a.nc", FILES[name])
    (signal,) = read(path)
    assert signal.missing is not None
    signal.missing[6, 2] = True
    shrink(monkeypatch)
    climate.write([lazy_of(signal)], tmp_path / "b.nc")
    with netCDF4.Dataset(path) as before, netCDF4.Dataset(tmp_path / "b.nc") as after:
        for dataset in (before, after):
            dataset.set_auto_maskandscale(False)
        stored, written = before["x"][...], after["x"][...]
    numbers, counts = np.unique(stored[signal.missing & ~(written == stored)], return_counts=True)
    assert np.unique(written[signal.missing]).size == 1
    np.testing.assert_array_equal(written[~signal.missing], stored[~signal.missing])
    assert not numbers.size or counts.max() < np.count_nonzero(signal.missing)


def test_another_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (signal,) = read(make(tmp_path / "a.nc", FILES["gaps of two kinds"]))
    other = at_resolution(signal, 9, 16)
    other.values[...] = np.arange(11, dtype="f4")[:, None, None, None] + 270
    missing = np.zeros(other.shape, bool)
    missing[4:, 3] = True
    shrink(monkeypatch)
    climate.write([lazy_of(Signal(**(vars(other) | {"missing": missing})))], tmp_path / "b.nc")
    with netCDF4.Dataset(tmp_path / "b.nc") as dataset:
        dataset.set_auto_maskandscale(False)
        expected = np.where(missing, np.float32(-999), other.values[..., 0])
        np.testing.assert_array_equal(dataset["x"][...], expected)


def test_large_fields_have_a_chunk_for_each_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (signal,) = read(make(tmp_path / "a.nc", FILES["(lon, time, lat)"]))
    shrink(monkeypatch)
    climate.write([signal], tmp_path / "b.nc")
    monkeypatch.setattr(cf_fields, "CHUNK", 4 * 20)
    climate.write([signal], tmp_path / "c.nc")
    with netCDF4.Dataset(tmp_path / "b.nc") as b, netCDF4.Dataset(tmp_path / "c.nc") as c:
        assert b["x"].chunking() == [8, 1, 5]
        assert c["x"].chunking() == [8, 1, 2]
        np.testing.assert_array_equal(b["x"][...], c["x"][...])


@pytest.mark.parametrize("name", ["plain", "packed", "packed and masked", "zeros", "integers"])
def test_what_is_read_back_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (signal,) = read(make(tmp_path / "a.nc", FILES[name]))
    noise = np.random.default_rng(0).uniform(-1, 1, signal.values.shape)
    values = (signal.values + noise).astype(signal.dtype)
    decoded = exact(Signal(**(vars(signal) | {"values": values})))
    climate.write([decoded], tmp_path / "b.nc")
    (again,) = read(tmp_path / "b.nc")
    for begin in (0, 7, 3):
        part = decoded.part(begin, begin + 3)
        own = slice(begin, begin + 3)
        there = slice(None) if signal.missing is None else ~signal.missing[own]
        np.testing.assert_array_equal(climate.read_back(part)[there], again.values[own][there])


# --- the pieces ---


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), max_size=4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_blocks_and_boxes_cover_all_slices(
    sizes_chunks: list[tuple[int, int]], most: int, wanted: int, random: Any
) -> None:
    sizes = [size for size, _ in sizes_chunks]
    chunks = [min(size, chunk) for size, chunk in sizes_chunks]
    count = int(np.prod(sizes, dtype=int))
    slices = np.arange(count).reshape(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cf_slices, "LARGEST_BLOCK", 8 * most)
        patch.setattr(cf_slices, "BLOCK", 8 * min(most, wanted))
        group, rows = cf_slices.block_rows(sizes, chunks, 8)
    assert count % group == 0 and 1 <= rows <= most
    for start in range(0, count, group):
        for begin in range(start, start + group, rows):
            end = min(begin + rows, start + group)
            ((box, size),) = cf_slices.boxes(sizes, begin, end)
            assert size == end - begin
            np.testing.assert_array_equal(slices[box].ravel(), np.arange(begin, end))
    begin, end = sorted((random.randint(0, count), random.randint(0, count)))
    found = [slices[box].ravel() for box, _ in cf_slices.boxes(sizes, begin, end)]
    np.testing.assert_array_equal(np.concatenate([np.arange(0), *found]), np.arange(begin, end))


def test_chunks_are_read_once(tmp_path: Path) -> None:
    """Blocks are whole chunks where memory allows, or even parts of them."""
    plane = 1 << 20
    assert cf_slices.block_rows([500], [1], plane) == (500, 16)
    assert cf_slices.block_rows([500], [63], plane) == (500, 63)
    assert cf_slices.block_rows([500], [7], plane) == (500, 14)
    assert cf_slices.block_rows([500], [400], plane) == (500, 200)
    assert cf_slices.block_rows([24, 10], [6, 5], plane) == (240, 60)
    assert cf_slices.block_rows([24, 10], [1, 5], plane) == (10 * 24, 10)
    assert cf_slices.block_rows([24, 100], [6, 50], plane) == (2400, 200)
    assert cf_slices.block_rows([], [], plane) == (1, 1)


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_masks_in_parts(bits: list[bool], cuts: list[int]) -> None:
    mask = np.array(bits)
    places = sorted({0, mask.size, *(min(cut, mask.size) for cut in cuts)})
    packer = MaskPacker()
    for begin, end in pairwise(places):
        packer.add(mask[begin:end])
    packed = packer.packed()
    assert zlib.decompress(packed) == np.packbits(mask).tobytes()
    reader = MaskReader(packed, mask.size)
    for begin, end in pairwise(places):
        np.testing.assert_array_equal(reader.bits(begin, end), mask[begin:end])
    for cut in cuts:
        begin = min(cut, mask.size - 1)
        np.testing.assert_array_equal(reader.bits(begin, mask.size), mask[begin:])


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">i2"])
def test_arrays_in_parts(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(cf_streams, "STREAMED_FROM", 100)
    numbers = (np.arange(1000) ** 2 % 251).astype(dtype)
    for count in (0, 3, 25, 200, 1000):
        packer = ArrayPacker(np.dtype(dtype))
        for begin in range(0, count, 7):
            packer.add(numbers[begin : min(count, begin + 7)])
        plain = packer.plain()
        reader = ArrayReader(plain)
        assert reader.size == count and reader.dtype.isnative
        taken = np.concatenate([reader.take(3), reader.take(count // 2), *reader.pieces()])
        np.testing.assert_array_equal(taken, numbers[:count])
        assert not reader.take(1).size


def test_streams_that_are_too_short_too_long_or_damaged() -> None:
    data = np.random.default_rng(0).bytes(200_000)
    whole = zlib.compress(data)
    for deflated, count in ((whole[:-5], len(data)), (whole[:1000], len(data)), (b"", 1), (whole, len(data) + 1)):
        inflater = Inflater(deflated)
        with pytest.raises(ValueError, match=r"short|cut off"):
            inflater.take(count)
            inflater.check_end()
    for deflated, count in ((whole, len(data) - 1), (whole + b"\0", len(data)), (b"x" + whole, len(data))):
        inflater = Inflater(deflated)
        with pytest.raises(ValueError, match=r"long|behind|no zlib"):
            inflater.take(count)
            inflater.check_end()
    inflater = Inflater(whole)
    assert inflater.take(70_000) + inflater.take(130_000) == data
    inflater.check_end()


def test_exact_values_in_any_order() -> None:
    values = waves()[..., np.newaxis]
    mask = values[..., 0] > 270
    packer = MaskPacker()
    packer.add(mask)
    attributes = {"limits": [260.0, 268.0], "zeros": [0.0, *mask.shape, packer.packed()]}
    exactly = ExactValues(attributes, mask.shape, mask.shape, values.dtype)
    expected = np.where(mask[..., np.newaxis], 0, values.clip(260, 268))
    for begin, end in ((0, 2), (2, 3), (7, 11), (1, 2), (0, 11), (10, 11)):
        np.testing.assert_array_equal(exactly.apply(values[begin:end], begin), expected[begin:end])


@given(st.lists(st.integers(-6, 6), max_size=60), st.integers(1, 7))
def test_extremes_in_parts(numbers: list[int], parts: int) -> None:
    values = 10.0 ** np.array(numbers, "f8") * np.sign(np.array(numbers) + 0.5)
    extremes = Extremes()
    for part in np.array_split(values, parts):
        extremes.add(part)
    distinct, counts = np.unique(values, return_counts=True)
    known = dict(zip(distinct.tolist(), counts.tolist(), strict=True))
    assert list(extremes.lowest.items()) == list(known.items())[:4]
    assert list(extremes.highest.items()) == list(known.items())[::-1][:4]
    assert extremes.count == values.size


# --- memory ---

PROGRAM = """
import sys
from pathlib import Path
from inrcodec.signals import cf_writing, climate, climate_reading, climate_files
from inrcodec.signals.lazy import slabs_of

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10

before = peak()
with climate.opened(Path(sys.argv[1])) as (signal,):
    correct = climate.exact_reader(signal.name, signal.attributes, signal.shape, signal.shape, signal.dtype)
    for begin, part in slabs_of(signal):
        correct(part.values, begin)
    climate.write([signal], Path(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is asked of Linux")
def test_memory_is_that_of_a_part(tmp_path: Path) -> None:
    times, height, width = 60, 721, 1440
    path = tmp_path / "a.nc"
    waves = np.sin(np.linspace(0, 9, height))[:, None] * np.cos(np.linspace(0, 12, width))
    make(path, grid(np.linspace(90, -90, height), np.arange(width) / 4))
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("time", times)
        attributes = {"scale_factor": 0.01, "add_offset": 0.0}
        chunks = (1, height, width)
        packed = file.createVariable(
            "x", "i2", ("time", "lat", "lon"), fill_value=-999, zlib=True, complevel=1, chunksizes=chunks
        )
        packed.set_auto_maskandscale(False)
        packed.setncatts(attributes)
        for time in range(times):
            packed[time] = np.where(waves < -0.9, -999, np.rint(np.maximum(900 * waves + time, 0)))
    program = [sys.executable, "-P", "-c", PROGRAM, str(path), str(tmp_path / "b.nc")]
    growth = int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert growth < 450 << 20  # whole arrays, of several types, need more than twice as much
    with netCDF4.Dataset(path) as before, netCDF4.Dataset(tmp_path / "b.nc") as after:
        for time in (0, 31, times - 1):
            np.testing.assert_array_equal(before["x"][time], after["x"][time])


def test_warnings_are_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.nc", FILES["undeclared fill values"])
    shrink(monkeypatch)
    with pytest.warns(InrcodecWarning) as caught, climate.opened(path) as (signal,):
        signal.loaded()
    assert len(caught) == 2
