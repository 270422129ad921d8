"""Datasets of xarray to `.inr` files; what xarray itself saves is the oracle."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray

import inrcodec
from inrcodec.errors import InrcodecWarning, SignalError, UsageError
from inrcodec.signals import cf_slices, cf_survey, climate_files, climate_reading, lazy
from inrcodec.signals.climate_datasets import contents_of

QUICK: dict[str, Any] = {"steps": 0, "device": "cpu"}
LATITUDES = ("latitude", np.linspace(80, -80, 9), {"units": "degrees_north"})
LONGITUDES = ("longitude", np.arange(12) * 30.0, {"units": "degrees_east"})
DIMS = ("time", "latitude", "longitude")


def fields(times: int = 6, **more: Any) -> xarray.Dataset:
    values = 280 + np.cumsum(np.random.default_rng(0).normal(size=(times, 9, 12)), 0)
    start = np.datetime64("2019-03-05T00", "ns")
    return xarray.Dataset(
        {"t": (DIMS, values.astype("f4"), {"units": "K", "valid": [1, 2]}), **more},
        {
            "time": ("time", start + np.arange(times) * np.timedelta64(6, "h"), {"standard_name": "time"}),
            "latitude": LATITUDES,
            "longitude": LONGITUDES,
        },
        {"title": "six hours", "version": 3},
    )


def with_gaps() -> xarray.Dataset:
    return fields().where(fields().t < 284).assign_attrs(title="gaps")


def packed() -> xarray.Dataset:
    dataset = with_gaps()
    dataset.t.encoding = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -999, "zlib": True}
    return dataset


def with_everything() -> xarray.Dataset:
    """Types and coordinates of which xarray makes others in a file."""
    dataset = fields(
        land=(("latitude", "longitude"), np.arange(108).reshape(9, 12) % 3 == 0),
        step=("time", np.arange(6) * np.timedelta64(1, "h")),
        names=("time", np.array(["a", "ö", "", "long name", "b", "c"])),
        objects=("time", np.array(["a", None, "b", "", "c", "d"], object)),
        half=(("time", "latitude", "longitude"), np.ones((6, 9, 12), "f2") + np.arange(12)),
        time_bounds=(("time", "two"), fields().time.values[:, None] + np.array([0, 6], "m8[h]")),
        count=(("time", "latitude", "longitude"), np.arange(648, dtype="i8").reshape(6, 9, 12)),
    )
    dataset.time.attrs["bounds"] = "time_bounds"
    dataset.time.encoding = {"units": "hours since 1900-01-01", "dtype": "int32"}
    dataset.encoding["unlimited_dims"] = {"time"}
    dataset.attrs |= {"flag": True, "list": ["a", "b"], "numbers": (1.5, 2)}
    return dataset.assign_coords(
        height=((), 2.0, {"units": "m"}), lsm=(("latitude", "longitude"), np.ones((9, 12))), alone=("alone", [1, 2])
    )


def with_other_calendar() -> xarray.Dataset:
    times = [cftime.DatetimeNoLeap(2000, 2, day) for day in range(23, 29)]
    return fields().assign_coords(time=("time", times))


def save(dataset: xarray.Dataset, path: Path) -> None:
    """Save a dataset as xarray does; truth values, which no attribute may be there, as numbers."""
    numbers = {key: np.int8(value) for key, value in dataset.attrs.items() if isinstance(value, bool)}
    dataset.assign_attrs(numbers).to_netcdf(path)


DATASETS = {
    "floats": fields,
    "gaps": with_gaps,
    "packed": packed,
    "everything": with_everything,
    "another calendar": with_other_calendar,
    "no dimension but two": lambda: fields().isel(time=2),
    "transposed": lambda: fields().transpose("longitude", "time", "latitude"),
    "double": lambda: fields().astype("f8"),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["loaded", "dask"])
@pytest.mark.parametrize("name", DATASETS)
def test_contents_are_those_of_the_file_that_xarray_saves(tmp_path: Path, name: str, chunked: bool) -> None:
    dataset = DATASETS[name]()
    save(dataset, tmp_path / "a.nc")
    if chunked:
        pytest.importorskip("dask")
        dataset = dataset.chunk(dict.fromkeys(dataset.dims, 4))
    ours = contents_of(dataset)
    with ExitStack() as stack:
        expected = climate_files.load(tmp_path / "a.nc", stack)
        assert ours.variables.keys() == expected.variables.keys()
        assert ours.dimensions == expected.dimensions
        np.testing.assert_equal(ours.attributes, expected.attributes)
        for key, variable in expected.variables.items():
            found = ours.variables[key]
            assert (found.dims, found.dtype) == (variable.dims, variable.dtype), key
            np.testing.assert_array_equal(found.values, variable.values)
            np.testing.assert_equal(found.attrs, variable.attrs)
            assert {each: np.asarray(value).dtype for each, value in found.attrs.items() if each == "_FillValue"} == {
                each: np.asarray(value).dtype for each, value in variable.attrs.items() if each == "_FillValue"
            }


@pytest.mark.parametrize("name", ["gaps", "packed", "everything", "another calendar"])
def test_what_opens_is_what_was_saved(tmp_path: Path, name: str) -> None:
    dataset = DATASETS[name]()
    report = inrcodec.to_inr(dataset, tmp_path / "a.inr", max_error={"t": 0.5}, **QUICK)
    assert report.input == "the dataset" and report.bytes == (tmp_path / "a.inr").stat().st_size
    assert report.signals[0]["name"] == "t" and report.signals[0]["bound"] == 0.5
    save(dataset, tmp_path / "a.nc")
    coder = xarray.coders.CFDatetimeCoder(use_cftime=name == "another calendar")
    with (
        xarray.open_dataset(tmp_path / "a.inr", decode_times=coder) as ours,
        xarray.open_dataset(tmp_path / "a.nc", decode_times=coder) as saved,
    ):
        fields_of = [each["name"] for each in report.signals]
        xarray.testing.assert_identical(ours.drop_vars(fields_of).load(), saved.drop_vars(fields_of).load())
        np.testing.assert_equal(ours.t.attrs, saved.t.attrs)
        assert ours.t.dtype == saved.t.dtype
        assert ours.t.encoding.get("scale_factor") == saved.t.encoding.get("scale_factor")
        np.testing.assert_array_equal(np.isnan(ours.t), np.isnan(dataset.t))
        assert float(np.abs(ours.t - saved.t).max()) <= 0.5 + 1e-6


def test_arrays_and_what_was_opened_from_inr_files(tmp_path: Path) -> None:
    array = fields().t
    inrcodec.to_inr(array.rename(None), str(tmp_path / "a.inr"), max_error=0.5, **QUICK)
    with xarray.open_dataset(tmp_path / "a.inr") as ours:
        assert list(ours) == ["data"]
        assert float(np.abs(ours.data - array).max()) <= 0.5
        inrcodec.to_inr(ours.isel(time=slice(2, 5)), tmp_path / "b.inr", max_error=0.5, **QUICK)
        with xarray.open_dataset(tmp_path / "b.inr") as again:
            xarray.testing.assert_identical(again.time, ours.time[2:5])


def test_dask_arrays_are_computed_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pytest.importorskip("dask.array")
    plane = 9 * 12
    for module in (lazy, cf_survey, climate_reading):
        monkeypatch.setattr(module, "SLAB_VALUES", 2 * plane)
    monkeypatch.setattr(cf_slices, "BLOCK", 2 * plane * 4)
    monkeypatch.setattr(cf_slices, "LARGEST_BLOCK", 2 * plane * 4)
    values = fields(20).t.values
    computed: list[int] = []

    def block(block_info: Any = None) -> np.ndarray:
        (begin, end), *_ = block_info[None]["array-location"]
        computed.append(begin)
        return values[begin:end]

    blocks = array.map_blocks(block, chunks=((2,) * 10, (9,), (12,)), dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    computed.clear()
    dataset = fields(20)
    dataset["t"] = (DIMS, blocks)
    contents = contents_of(dataset)
    assert computed == []
    (signal,) = climate_reading.signals_of("the dataset", contents)
    assert len(computed) <= 3 * 10  # looked through, a few times
    computed.clear()
    np.testing.assert_array_equal(signal.part(5, 7).values[..., 0], values[5:7])
    assert sorted(set(computed)) == [4, 6]


def test_files_that_are_open_are_not_loaded(tmp_path: Path) -> None:
    save(fields(), tmp_path / "a.nc")
    with xarray.open_dataset(tmp_path / "a.nc") as dataset:
        inrcodec.to_inr(dataset, tmp_path / "a.inr", max_error=0.5, **QUICK)
        assert not dataset.variables["t"]._in_memory


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (fields(z=(DIMS, np.ones((6, 9, 12), "c8"))), "variable 'z' is of type complex64, which no NetCDF file has"),
        (fields().rename(t="a/b"), "a variable 'a/b', which no NetCDF file has: rename it"),
        (fields().rename(t=3), "a variable 3, which no NetCDF file has: rename it"),
        (fields().stack(x=("time", "latitude")), "the dataset cannot be saved as a NetCDF file would be"),
    ],
)  # fmt: skip
def test_what_no_file_holds(tmp_path: Path, dataset: xarray.Dataset, message: str) -> None:
    with pytest.raises(SignalError, match=message) as caught:
        inrcodec.to_inr(dataset, tmp_path / "a.inr", max_error=0.5, **QUICK)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_attributes_that_no_file_holds_are_left_out(tmp_path: Path) -> None:
    dataset = fields()
    dataset.t.attrs["when"] = np.datetime64("2019-03-05")
    with pytest.warns(InrcodecWarning, match="t has an attribute 'when' that is left out"):
        inrcodec.to_inr(dataset, tmp_path / "a.inr", max_error=0.5, **QUICK)
    with xarray.open_dataset(tmp_path / "a.inr") as ours:
        assert ours.t.attrs["units"] == "K" and "when" not in ours.t.attrs


def test_what_is_no_dataset_or_says_no_bound(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a list is no dataset"):
        inrcodec.to_inr([1, 2], tmp_path / "a.inr", max_error=0.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the dataset: say how far values may be off"):
        inrcodec.to_inr(fields(), tmp_path / "a.inr")
    with pytest.raises(TypeError, match="max_err"):
        inrcodec.to_inr(fields(), tmp_path / "a.inr", max_err=0.5)


def test_numbers_that_cannot_be_computed(tmp_path: Path) -> None:
    array = pytest.importorskip("dask.array")

    def fail(block: np.ndarray) -> np.ndarray:
        raise ConnectionError("the store went away")

    dataset = fields()
    dataset["t"] = (DIMS, array.ones((6, 9, 12), chunks=(2, 9, 12)).map_blocks(fail, dtype="f8"))
    with pytest.raises(SignalError, match="variable 't' cannot be read"):
        inrcodec.to_inr(dataset, tmp_path / "a.inr", max_error=0.5, **QUICK)
    assert list(tmp_path.iterdir()) == []
