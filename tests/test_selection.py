"""Parts of climate fields by their coordinates."""

from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray

from inrcodec.cli import main
from inrcodec.errors import UsageError
from inrcodec.files import decode_file, encode_file
from inrcodec.options import EncodeOptions
from inrcodec.selection import select_file, selected


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoded file of packed fields on (time, level, latitude, longitude) and (time, latitude, longitude)."""
    folder = tmp_path_factory.mktemp("fields")
    random = np.random.default_rng(0)
    sizes = {"time": 6, "level": 3, "latitude": 9, "longitude": 12}
    steps = {"time": 6, "level": 250, "latitude": 10, "longitude": 30}
    with netCDF4.Dataset(folder / "a.nc", "w") as file:
        for name, size in sizes.items():
            file.createDimension(name, size)
            file.createVariable(name, "f4", (name,))[:] = np.arange(size) * steps[name] + (name == "level") * 0.1
        file["latitude"].units, file["longitude"].units = "degrees_north", "degrees_east"
        file["time"].units = "hours since 2019-03-05"
        t = file.createVariable("t", "i2", tuple(sizes))
        t.scale_factor, t.add_offset = 0.01, 280.0
        t[:] = 280 + np.cumsum(random.normal(size=tuple(sizes.values())), axis=0)
        z = file.createVariable("z", "f4", ("time", "latitude", "longitude"))
        z[:] = random.normal(size=(6, 9, 12))
    encode_file(folder / "a.nc", folder / "a.inr", EncodeOptions(steps=0, device="cpu", max_error=0.5))
    decode_file(folder / "a.inr", folder / "whole.nc", device="cpu")
    return folder / "a.inr"


@pytest.mark.parametrize(
    ("selection", "key"),
    [
        ({"time": "2019-03-05T06"}, {"time": 1}),
        ({"time": "2019-03-06"}, {"time": [4, 5]}),
        ({"time": "2019-03-05T12..2019-03-06T00", "level": "250"}, {"time": [2, 3, 4], "level": 1}),
        ({"latitude": "60..20", "longitude": "90.2"}, {"latitude": [2, 3, 4, 5, 6], "longitude": 3}),
        ({"level": "0.1..260"}, {"level": [0, 1]}),
    ],
)
def test_a_part_is_that_of_the_whole(
    fields: Path, tmp_path: Path, selection: dict[str, str], key: dict[str, object]
) -> None:
    select_file(fields, tmp_path / "part.nc", selection, device="cpu")
    for decoding in ({}, {"mask_and_scale": False, "decode_times": False}):
        with (
            xarray.open_dataset(tmp_path / "part.nc", **decoding) as part,
            xarray.open_dataset(fields.with_name("whole.nc"), **decoding) as whole,
        ):
            expected = whole.isel(key)
            for name in ("t", "z", "latitude", "longitude"):
                np.testing.assert_array_equal(part[name].values, expected[name].values)
                assert part[name].dtype == expected[name].dtype and part[name].dims == expected[name].dims


@pytest.mark.parametrize(
    ("selection", "variables", "message"),
    [
        ({"height": "2"}, (), "no dimension is called 'height': there are time, level, latitude, longitude"),
        ({"level": "400"}, (), "level=400 is not among its 3 coordinates, 0.1 to 500.1; the nearest is 500.1"),
        ({"level": "high"}, (), "level=high is no number"),
        ({"level": "501..600"}, (), "there is nothing in level=501..600"),
        ({"time": "2018"}, (), "time=2018 is not among its 6 coordinates"),
        ({"time": "soon"}, (), "time=soon is not among"),
        ({}, ("u",), "no variable is called 'u': there are t, z"),
        ({"level": "250"}, ("z",), "no dimension is called 'level'"),
    ],
)
def test_what_is_not_there(fields: Path, selection: dict[str, str], variables: tuple[str, ...], message: str) -> None:
    with (
        xarray.open_dataset(fields.with_name("whole.nc"), mask_and_scale=False) as whole,
        pytest.raises(UsageError) as error,
    ):
        selected(whole, selection, variables)
    assert message in str(error.value)


def test_the_command(fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = tmp_path / "one.nc"
    command = ["decode", str(fields), "-o", str(part), "--device", "cpu"]
    assert main([*command, "--select", "time=2019-03-05T06", "--select", "level=500", "--variables", "t"]) == 0
    with xarray.open_dataset(part) as dataset:
        assert list(dataset.data_vars) == ["t"] and dict(dataset.sizes) == {"latitude": 9, "longitude": 12}
    capsys.readouterr()
    for arguments, message in (
        (["--select", "time"], "'time' is not DIM=VALUE"),
        (["--select", "level=1", "--select", "level=2"], "twice for 'level'"),
        (["--select", "level=500", "--resolution", "20"], "leave out other resolutions"),
        (["--select", "level=7000"], "level=7000"),
    ):
        assert main([*command, "--force", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
