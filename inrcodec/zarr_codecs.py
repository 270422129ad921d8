"""Chunks of Zarr arrays as `.inr` files: a codec for Zarr 3, and one for numcodecs. Both are called "inrcodec".

>>> from inrcodec.zarr_codecs import ZarrCodec
>>> encoding = {"t2m": {"serializer": ZarrCodec(max_error=0.1), "compressors": None}}

for `xarray.Dataset.to_zarr`. A chunk is fields over its last two dimensions; what is before them, as time, are
neighbours that predict each other, so 16 to 32 of those are well in one chunk. NaN stays NaN.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration

from inrcodec.decoder import decode
from inrcodec.encoder import encode
from inrcodec.errors import UsageError
from inrcodec.options import Effort, EncodeOptions
from inrcodec.registry import default_initialization
from inrcodec.signals.climate_reading import Filler
from inrcodec.signals.signal import Axis, Signal

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "inrcodec"


@dataclass(frozen=True)
class ChunkOptions:
    """How chunks are coded.

    max_error: the largest error of any value, in the unit of the array, or as "0.1%" a share of the range of its field
        over the last two dimensions. max_error_rel: as a share of each value. quality: 1 to 100, where there is no
        bound.
    effort: as of `EncodeOptions`.
    Raises: UsageError, also if neither a bound nor a quality is given.
    """

    max_error: float | str | None = None
    quality: float | None = None
    effort: Effort = "fast"
    max_error_rel: float | None = None

    def __post_init__(self) -> None:
        if self.max_error is None and self.max_error_rel is None and self.quality is None:
            raise UsageError("say how far values may be off with max_error, or give a quality without such a promise")
        self.encoder()

    def encoder(self) -> EncodeOptions:
        return EncodeOptions(**vars(self))

    def to_config(self) -> dict[str, Any]:
        """Return what is not the default, as plain values."""
        return {key: value for key, value in vars(self).items() if value is not None}


def encode_chunk(array: np.ndarray, options: ChunkOptions) -> bytes:
    """Return an array of numbers [..., H, W], or of fewer dimensions, as an `.inr` file.

    Raises: UsageError if the numbers are no floats and no integers of up to 32 bits, some are infinite, or there are
        none.
    """
    if array.dtype.kind not in "iuf" or (array.dtype.kind != "f" and array.dtype.itemsize > 4) or not array.size:
        raise UsageError(f"{NAME} codes numbers, of no more than 32 bits if they are integers, not {array.dtype}")
    height, width = (1, 1, *array.shape)[-2:]
    values = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(-1, height, width)
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    present = values[~missing]
    low, high = (float(present.min()), float(present.max())) if present.size else (0.0, 1.0)
    if not np.isfinite(high - low):
        raise UsageError(f"{NAME} codes no infinite values: mark them as missing (NaN)")
    filled = Filler(float(present.mean(dtype=np.float64)) if present.size else 0.0).fill(values, missing)
    signal = Signal(
        "climate",
        filled[..., np.newaxis],
        (Axis(len(values), "slice"), Axis(height, "node"), Axis(width, "node")),
        (low, high if low < high else low + max(1.0, abs(low)) * 1e-6),
        missing=missing if missing.any() else None,
    )
    data, _ = encode([signal], [default_initialization("climate")], options.encoder())
    return data


def decode_chunk(data: bytes) -> np.ndarray:
    """Return the numbers of a chunk as [S, H, W]. Raises: ContainerError and others, as `inrcodec.decode`."""
    (signal,) = decode(data)
    values = signal.values[..., 0]
    if signal.missing is not None:
        values[signal.missing] = np.nan
    return values


class ZarrCodec(ArrayBytesCodec):
    """The codec of Zarr 3, of array to bytes: a "serializer" of xarray. Arguments are those of `ChunkOptions`."""

    is_fixed_size = False

    def __init__(
        self,
        max_error: float | str | None = None,
        quality: float | None = None,
        effort: Effort = "fast",
        max_error_rel: float | None = None,
    ) -> None:
        self._options = ChunkOptions(max_error, quality, effort, max_error_rel)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrCodec) and other._options == self._options

    def __hash__(self) -> int:
        return hash(self._options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        configuration: dict[str, Any] = dict(parse_named_configuration(data, NAME)[1])
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the configuration, as the array's metadata have them."""
        return {"name": NAME, "configuration": self._options.to_config()}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: "ArraySpec") -> int:
        """Raises: NotImplementedError, which Zarr expects of a codec whose chunks have no fixed size."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: "NDBuffer", chunk_spec: "ArraySpec") -> "Buffer":
        data = await asyncio.to_thread(encode_chunk, chunk_data.as_numpy_array(), self._options)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: "Buffer", chunk_spec: "ArraySpec") -> "NDBuffer":
        array = await asyncio.to_thread(decode_chunk, chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array.reshape(chunk_spec.shape))


class NumcodecsCodec(Codec):  # type: ignore[misc]
    """The codec of numcodecs, as Zarr 2 and others take it. Arguments are those of `ChunkOptions`."""

    codec_id = NAME

    def __init__(
        self,
        max_error: float | str | None = None,
        quality: float | None = None,
        effort: Effort = "fast",
        max_error_rel: float | None = None,
    ) -> None:
        self._options = ChunkOptions(max_error, quality, effort, max_error_rel)

    def encode(self, buf: Any) -> bytes:
        """Return the `.inr` file of an array."""
        return encode_chunk(np.asarray(buf), self._options)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the array of such a file, [S, H, W], or put it into `out`."""
        return ndarray_copy(decode_chunk(ensure_contiguous_ndarray(buf).tobytes()), out)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same codec again."""
        return {"id": NAME} | self._options.to_config()
