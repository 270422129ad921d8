"""The order of leading dimensions: neighbours that are alike come last, and the file gets its own order back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray

from inrcodec.errors import SignalError
from inrcodec.files import encode_file
from inrcodec.options import EncodeOptions
from inrcodec.signals import climate_reading, read, write
from inrcodec.verification import verify_file


def ensemble(*, missing: bool = False) -> xarray.DataArray:
    """Return members that hardly differ, of levels that do."""
    random = np.random.default_rng(0)
    levels = np.array([200.0, 280.0])[None, :, None, None]
    values = levels + random.normal(0, 5, (1, 1, 8, 10)) + random.normal(0, 0.1, (5, 2, 8, 10))
    if missing:
        values[:, :, :3] = np.nan
    coordinates = {"lat": np.linspace(70, 0, 8), "lon": np.linspace(0, 90, 10)}
    return xarray.DataArray(values.astype(np.float32), coordinates, ("member", "level", "lat", "lon"), "t")


@pytest.mark.parametrize("missing", [False, True])
def test_members_come_next_to_each_other(tmp_path: Path, missing: bool) -> None:
    array = ensemble(missing=missing)
    array.to_netcdf(tmp_path / "a.nc")
    (signal,) = read(tmp_path / "a.nc", "climate")
    assert signal.attributes["leading"] == [1, 0]
    for slot, (level, member) in enumerate(np.ndindex(2, 5)):
        present = np.isfinite(array.values[member, level])
        np.testing.assert_array_equal(signal.values[slot, ..., 0][present], array.values[member, level][present])
    write([signal], tmp_path / "b.nc")
    with xarray.open_dataset(tmp_path / "b.nc") as again:
        assert again["t"].dims == array.dims
        np.testing.assert_array_equal(again["t"].values, array.values)


@pytest.mark.parametrize("dimensions", [("level", "member"), ("member",)])
def test_an_order_that_suits_stays(tmp_path: Path, dimensions: tuple[str, ...]) -> None:
    array = ensemble().transpose("level", "member", "lat", "lon")
    (array if len(dimensions) == 2 else array[0]).to_netcdf(tmp_path / "a.nc")
    (signal,) = read(tmp_path / "a.nc", "climate")
    assert "leading" not in signal.attributes


@pytest.mark.parametrize("order", [[0], [0, 0], [1, 2], [0, 1, 2]])
def test_what_is_no_order_is_refused(tmp_path: Path, order: list[int]) -> None:
    ensemble().to_netcdf(tmp_path / "a.nc")
    (signal,) = read(tmp_path / "a.nc", "climate")
    wrong = replace(signal, attributes=signal.attributes | {"leading": order})
    with pytest.raises(SignalError, match="no order of 2 dimensions"):
        write([wrong], tmp_path / "b.nc")


def test_an_original_in_another_order_is_compared_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is the reader's choice, which may be another one day."""
    ensemble().to_netcdf(tmp_path / "a.nc")
    encode_file(tmp_path / "a.nc", tmp_path / "a.inr", EncodeOptions(steps=0, device="cpu", max_error=0.5))
    monkeypatch.setattr(climate_reading, "leading_order", lambda sizes, read: list(range(len(sizes))))
    (signal,) = read(tmp_path / "a.nc", "climate")
    assert "leading" not in signal.attributes
    (checked,) = verify_file(tmp_path / "a.inr", against=tmp_path / "a.nc", device="cpu").signals
    assert 0 < checked["max_error"] <= 0.5
