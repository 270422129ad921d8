"""Chunks of Zarr arrays as `.inr` files."""

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray
import zarr

from inrcodec.errors import UsageError
from inrcodec.zarr_codecs import ChunkOptions, NumcodecsCodec, ZarrCodec, decode_chunk, encode_chunk

QUICK = ChunkOptions(max_error=0.1, effort="instant")


def weather(*shape: int, dtype: str = "f4", seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (280 + np.cumsum(random.normal(0, 0.3, shape), -1)).astype(dtype)


@pytest.mark.parametrize("shape", [(3, 2, 9, 12), (9, 12), (12,), ()])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "i2", "u1"])
def test_arrays_of_any_shape(shape: tuple[int, ...], dtype: str) -> None:
    array = weather(*shape, dtype="f8").astype(dtype)
    bound = 0.5 if dtype == "f2" else 0.1
    again = decode_chunk(encode_chunk(array, ChunkOptions(max_error=bound, effort="instant"))).reshape(shape)
    assert again.dtype == array.dtype.newbyteorder("=")
    assert np.abs(again.astype("f8") - array.astype("f8")).max() <= bound


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_missing_values_stay_missing(share: float) -> None:
    array = weather(4, 9, 12)
    array[np.random.default_rng(1).random(array.shape) < share] = np.nan
    again = decode_chunk(encode_chunk(array, QUICK))
    np.testing.assert_array_equal(np.isnan(again), np.isnan(array))
    assert np.nanmax(np.abs(again - array), initial=0) <= 0.1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, np.inf]], "f4"), "no infinite values"),
        (np.zeros((2, 2), "i8"), "not int64"),
        (np.array([["a"]]), "codes numbers"),
        (np.zeros((0, 2), "f4"), "codes numbers"),
    ],
)
def test_what_is_not_coded(array: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encode_chunk(array, QUICK)


@pytest.mark.parametrize("options", [{}, {"max_error": 0.0}, {"quality": 101}, {"max_error": 1.0, "quality": 50}])
def test_options_that_say_nothing_or_too_much(options: dict[str, float]) -> None:
    for codec in (ZarrCodec, NumcodecsCodec):
        with pytest.raises(UsageError):
            codec(**options)  # type: ignore[arg-type]


def test_numcodecs_finds_it() -> None:
    codec = numcodecs.get_codec({"id": "inrcodec", "max_error": 0.1, "effort": "instant"})
    assert isinstance(codec, NumcodecsCodec)
    assert codec.get_config() == {"id": "inrcodec", "max_error": 0.1, "effort": "instant"}
    array = weather(3, 9, 12)
    data = codec.encode(array)
    out = np.empty_like(array)
    codec.decode(data, out=out)
    assert np.abs(out - array).max() <= 0.1 and len(data) < array.nbytes / 2


@pytest.mark.parametrize("bound", [0.1, 2.0])
def test_a_store_of_xarray(tmp_path: Path, bound: float) -> None:
    array = weather(10, 9, 12)
    array[3, 2:5] = np.nan
    dataset = xarray.Dataset({"t": (("time", "lat", "lon"), array), "flag": (("time",), np.arange(10))})
    codec = ZarrCodec(max_error=bound, effort="instant")
    encoding: dict[str, Any] = {"t": {"serializer": codec, "compressors": None, "chunks": (4, 9, 12)}}
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False, encoding=encoding)
    stored = zarr.open_group(tmp_path / "a.zarr", mode="r")["t"]
    assert stored.metadata.codecs[0] == codec and stored.chunks == (4, 9, 12)
    with xarray.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None) as again:
        assert again.t.dtype == np.float32
        assert float(np.abs(again.t - dataset.t).max()) <= bound
        np.testing.assert_array_equal(np.isnan(again.t), np.isnan(array))
        np.testing.assert_array_equal(again.flag, np.arange(10))
