"""Zarr stores of climate fields, read and written; xarray is the independent reader and writer."""

import warnings
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray
from climate_files import EAST, NORTH, field, grid, make, read, rewritten

import inrcodec.signals
from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals import cf_fields, cf_slices, cf_survey, climate, climate_reading, lazy

pytest.importorskip("zarr")

STORES: list[dict[str, Any]] = [
    {"zarr_format": 2, "consolidated": True},
    {"zarr_format": 2, "consolidated": False},
    {"zarr_format": 3, "consolidated": True},
    {"zarr_format": 3, "consolidated": False},
]
PACKED = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -999}


def weather() -> xarray.Dataset:
    random = np.random.default_rng(0)
    values = random.normal(280, 5, (8, 19, 36)).astype("f4")
    values[2, 3:5] = np.nan
    dataset = xarray.Dataset(
        {
            "t": (("time", "lat", "lon"), values, {"units": "K"}),
            "pr": (("time", "lat", "lon"), np.maximum(0, random.normal(size=(8, 19, 36))).astype("f4")),
            "flag": (("time", "lat", "lon"), random.integers(0, 3, (8, 19, 36)).astype("i1")),
            "names": (("time",), np.array([f"ö{number}" for number in range(8)], object)),
            "day": (("time",), np.arange(8) % 2 == 0),
        },
        {
            "time": ("time", np.arange(8), {"units": "hours since 2019-01-01"}),
            "lat": ("lat", np.linspace(90, -90, 19), NORTH),
            "lon": ("lon", np.arange(36) * 10.0, EAST),
            "height": ((), 2.0, {"units": "m"}),
        },
        {"title": "store", "numbers": [1, 2.5]},
    )
    return xarray.decode_cf(dataset)


def stored(path: Path, dataset: xarray.Dataset, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.to_zarr(path, mode="w", **options)
    return path


def opened(path: Path) -> xarray.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xarray.load_dataset(path, engine="zarr")


@pytest.mark.parametrize("extra", [{}, {"shards": (4, 19, 36)}, PACKED], ids=["chunks", "shards", "packed"])
@pytest.mark.parametrize("options", STORES, ids=str)
def test_stores_are_read(tmp_path: Path, options: dict[str, Any], extra: dict[str, Any]) -> None:
    if "shards" in extra and options["zarr_format"] == 2:
        pytest.skip("format 2 has no shards")
    path = stored(tmp_path / "a.zarr", weather(), **options, encoding={"t": {"chunks": (2, 19, 36), **extra}})
    signals, copy = rewritten(path)
    assert [signal.name for signal in signals] == ["pr", "t"]
    with xarray.open_dataset(copy) as ours:
        xarray.testing.assert_identical(ours.load(), opened(path))


def test_attributes_that_are_no_numbers_and_groups(tmp_path: Path) -> None:
    dataset = weather()
    dataset.attrs["nested"] = {"a": [1, None]}
    path = stored(tmp_path / "a.zarr", dataset[["day"]], zarr_format=3, consolidated=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.to_zarr(path, group="forecast/inner", mode="a", zarr_format=3, consolidated=False)
    signals, copy = rewritten(path)
    assert [signal.name for signal in signals] == ["forecast/inner/pr", "forecast/inner/t"]
    with netCDF4.Dataset(copy) as file:
        assert file["forecast/inner"].nested == '{"a": [1, null]}'
    inrcodec.signals.write(signals, tmp_path / "b.zarr")
    again = {signal.name: signal for signal in read(tmp_path / "b.zarr")}
    for signal in signals:
        np.testing.assert_array_equal(again[signal.name].values, signal.values)


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(SignalError, match=r"a\.zarr: cannot be read as a Zarr store"):
        read(tmp_path / "a.zarr")


# --- damage ---


@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "raw"])
@pytest.mark.parametrize("kind", ["2", "3", "shards"])
@pytest.mark.parametrize("name", ["t", "flag", "lat"])
def test_chunks_that_are_lost_or_cut(tmp_path: Path, name: str, kind: str, compressed: bool, damage: str) -> None:
    """A store that is cut is refused, naming the chunk. Lost ones are fill values to the library, with a warning."""
    encoding: dict[str, Any] = {each: {"chunks": (2, 19, 36)} for each in ("t", "flag")} | {"lat": {}}
    for each in encoding.values():
        each |= {} if compressed else {"compressors": None}
    for each in ("t", "flag") if kind == "shards" else ():
        encoding[each]["shards"] = (4, 19, 36)
    path = stored(tmp_path / "a.zarr", weather(), zarr_format=2 if kind == "2" else 3, encoding=encoding)
    number = (0,) if name == "lat" else (1, 0, 0)
    chunk = path / name / (".".join(map(str, number)) if kind == "2" else "/".join(map(str, ("c", *number))))
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(b"" if damage == "empty" else chunk.read_bytes()[:-7])
    text = f"a.zarr: variable '{name}': chunk {number} "
    if damage == "missing" and name != "lat":
        with pytest.warns(InrcodecWarning) as told, climate.opened(path) as signals:
            first = 4 if kind == "shards" else 2
            lost = signals[-1].part(first, first + 1) if name == "t" else None
        assert [str(each.message) for each in told] == [
            f"{tmp_path / text}is missing and counts as fill values; is the store whole?"
        ]
        assert lost is None or (lost.missing is not None and lost.missing.all())
        return
    with pytest.raises(SignalError) as caught, climate.opened(path):
        pass
    assert text in str(caught.value) and "fetch the store again" in str(caught.value)
    assert ("is missing" in str(caught.value)) == (damage == "missing")


def test_values_that_are_written_without_chunks(tmp_path: Path) -> None:
    """The library leaves out chunks of fill values, as those of a single time that is 0, which nothing is lost with."""
    dataset = weather().isel(time=[0]).drop_encoding()
    dataset = dataset.assign_coords(time=("time", [0]), height=((), 0.0))
    path = stored(tmp_path / "a.zarr", dataset, zarr_format=3)
    assert not (path / "time" / "c").exists()
    signals = read(path)
    assert [signal.name for signal in signals] == ["pr", "t"]


# --- writing ---


def test_a_store_is_what_a_netcdf_file_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long fields are written part by part, a chunk for each slice."""
    original = stored(tmp_path / "a.zarr", weather(), zarr_format=3, encoding={"t": PACKED})
    for slices in (1000, 2):
        for module in (lazy, cf_survey, climate_reading, cf_fields):
            monkeypatch.setattr(module, "SLAB_VALUES", slices * 19 * 36)
        monkeypatch.setattr(cf_slices, "BLOCK", slices * 19 * 36)
        with climate.opened(original) as signals:
            for name in ("b.nc", "b.zarr"):
                inrcodec.signals.write(signals, tmp_path / name)
        ours = opened(tmp_path / "b.zarr")
        with xarray.open_dataset(tmp_path / "b.nc") as file:
            xarray.testing.assert_identical(ours, file.load())
        xarray.testing.assert_identical(ours, opened(original))
        assert ours.t.encoding["chunks"] == ((8, 19, 36) if slices == 1000 else (1, 19, 36))
        assert {ours.t.encoding[key] for key in ("dtype", "scale_factor", "_FillValue")} == {np.dtype("i2"), 0.01, -999}
    again = read(tmp_path / "b.zarr")
    for signal, before in zip(again, read(original), strict=True):
        np.testing.assert_array_equal(signal.values, before.values)


def test_chunks_of_zeros_are_written(tmp_path: Path) -> None:
    """What we write is not refused for chunks that are not there."""
    dry = np.zeros((3, 5, 8), "f4")
    dry[1] = 1 + np.arange(40).reshape(5, 8)
    path = make(tmp_path / "a.nc", grid() | {"pr": (("time", "lat", "lon"), dry, {})})
    inrcodec.signals.write(read(path), tmp_path / "b.zarr")
    (signal,) = read(tmp_path / "b.zarr")
    np.testing.assert_array_equal(signal.values[..., 0], dry)


def test_what_stores_have_no_types_for(tmp_path: Path) -> None:
    """Characters become strings and the words of enumerations attributes; text in unknown encodings is left out."""
    path = make(tmp_path / "a.nc", grid() | {"t": (("time", "lat", "lon"), field(3, 5, 8), {})})
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("letters", 4)
        file.createVariable("station", "S1", ("time", "letters"))[:] = np.array(
            [list("abc\0"), list("\0\0\0\0"), list("wxyz")], "S1"
        )
        kinds = file.createEnumType("u1", "kinds", {"land": 0, "sea": 1})
        file.createVariable("kind", kinds, ("time",))[:] = np.array([0, 1, 1], "u1")
        file.setncattr_string("title", "fields")
    signals = read(path)
    signals[0].attributes["file"]["attributes"]["odd"] = b"\xff"
    with pytest.warns(InrcodecWarning, match="the file has an attribute 'odd' in an unknown encoding"):
        inrcodec.signals.write(signals, tmp_path / "b.zarr")
    ours = opened(tmp_path / "b.zarr")
    assert ours.station.values.tolist() == ["abc", "", "wxyz"]
    assert ours.kind.values.tolist() == [0, 1, 1]
    assert ours.kind.attrs == {"flag_values": [0, 1], "flag_meanings": "land sea"}
    assert ours.attrs == {"title": "fields"}


def test_a_store_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.nc", grid() | {"t": (("time", "lat", "lon"), field(3, 5, 8), {})})
    (signal,) = read(path)
    inrcodec.signals.write([signal], tmp_path / "b.zarr")
    before = opened(tmp_path / "b.zarr")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with (
        monkeypatch.context() as patch,
        pytest.raises(SignalError, match=r"b\.zarr: cannot be written as a Zarr"),
    ):
        patch.setattr("zarr.Array.__setitem__", fail)
        inrcodec.signals.write([signal], tmp_path / "b.zarr")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.nc", "b.zarr"]
    xarray.testing.assert_identical(opened(tmp_path / "b.zarr"), before)
    (tmp_path / "b.zarr" / "more").write_text("of the old one")
    inrcodec.signals.write([signal], tmp_path / "b.zarr")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.nc", "b.zarr"]
    assert not (tmp_path / "b.zarr" / "more").exists()
    xarray.testing.assert_identical(opened(tmp_path / "b.zarr"), before)
    (tmp_path / "c.zarr").write_bytes(b"a file")
    with pytest.raises(SignalError, match=r"c\.zarr: it is there and no folder"):
        inrcodec.signals.write([signal], tmp_path / "c.zarr")
    with pytest.raises(SignalError, match="nowhere"):
        inrcodec.signals.write([signal], tmp_path / "nowhere" / "b.zarr")
