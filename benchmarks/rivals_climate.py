"""What NetCDF and its tools do to float32 arrays, and the error-bounded compressors of scientific data.

Missing points are NaN to lossless codecs and to packing, and cost what they cost. To the others the mask is a present.
"""

import importlib.util
import math
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rivals import Rival
from scipy.ndimage import distance_transform_edt

from inrcodec.signals.signal import Signal


def _with_gaps(signal: Signal) -> np.ndarray:
    values = signal.values.astype(np.float32)
    if signal.missing is not None:
        values[signal.missing] = np.nan
    return values


def _shuffled(values: np.ndarray) -> bytes:
    """Return all first bytes, then all second bytes, and so on."""
    return np.ascontiguousarray(np.frombuffer(values.tobytes(), np.uint8).reshape(-1, values.itemsize).T).tobytes()


def _unshuffled(data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    planes = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.frombuffer(planes.T.tobytes(), dtype).reshape(shape)


def shuffle_deflate(values: np.ndarray) -> bytes:
    """Deflate all first bytes, then all second bytes, and so on, as well as zlib can."""
    return zlib.compress(_shuffled(values), 9)


def round_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 values to `bits` (0..23) of their 23 mantissa bits, to nearest, ties to even.

    NaN stays.
    """
    dropped = 23 - bits
    if dropped == 0:
        return values
    integers = values.view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1)
    tie = (integers >> np.uint32(dropped)) & np.uint32(1)
    mask = np.uint32((0xFFFFFFFF >> dropped) << dropped)
    rounded = ((integers + half + tie) & mask).view(np.float32)
    return np.where(np.isnan(values), values, rounded)


def _encode_deflate(signal: Signal, level: float) -> bytes:
    return zlib.compress(_shuffled(_with_gaps(signal)), int(level))


def _decode_deflate(data: bytes, signal: Signal) -> np.ndarray:
    return _unshuffled(zlib.decompress(data), "<f4", signal.values.shape)


def _encode_pco(signal: Signal, level: float) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.pcodec_encode(_with_gaps(signal), level=int(level)))


def _decode_pco(data: bytes, signal: Signal) -> np.ndarray:
    import imagecodecs

    shape = signal.values.shape
    return np.asarray(imagecodecs.pcodec_decode(data, shape=shape, dtype=np.float32)).reshape(shape)


_PACKED = "<Bdd"
"""Bits, offset, scale."""


def _encode_packed(signal: Signal, bits: int) -> bytes:
    """Pack bits, offset and scale, then integers of 8 or 16 bits with 2**bits - 1 levels.

    The last code is a missing point.
    """
    values = _with_gaps(signal).astype(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    gap = (1 << bits) - 1
    scale = (high - low) / (gap - 1) or 1.0
    codes = np.where(np.isnan(values), gap, np.rint((values - low) / scale))
    return struct.pack(_PACKED, bits, low, scale) + shuffle_deflate(codes.astype("<u2" if bits > 8 else "u1"))


def _decode_packed(data: bytes, signal: Signal) -> np.ndarray:
    bits, low, scale = struct.unpack_from(_PACKED, data)
    planes = zlib.decompress(data[struct.calcsize(_PACKED) :])
    codes = _unshuffled(planes, "<u2" if bits > 8 else "u1", signal.values.shape)
    values: np.ndarray = (low + codes.astype(np.float64) * scale).astype(np.float32)
    values[codes == (1 << bits) - 1] = np.nan
    return values


@dataclass(frozen=True)
class Compressor:
    """A compressor of float32 arrays [height, width] or [slices, height, width] that is told how far off it may be.

    package: that it comes from.
    settings: (values, bound) to rows of settings, each from the loosest to the tightest.
    encode: (values, setting) to bytes; decode: (bytes, shape) to values.
    """

    package: str
    settings: Callable[[np.ndarray, float], Sequence[Sequence[Any]]]
    encode: Callable[[np.ndarray, Any], bytes]
    decode: Callable[[bytes, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Told:
    """What a compressor is told: `values` without gaps, and the setting."""

    values: np.ndarray
    setting: Any


def _filled(signal: Signal) -> list[np.ndarray]:
    """Return values [height, width] or [slices, height, width], without axes of one sample, filled in several ways.

    Missing points get the mean, or the value of the nearest point of their slice: a compressor may do better with
    either.
    """
    values = _with_gaps(signal)
    shape = values.squeeze().shape
    if signal.missing is None or not signal.missing.any():
        return [np.ascontiguousarray(values.reshape(shape))]
    mean = np.nan_to_num(values, nan=float(np.nanmean(values)))
    nearest = mean.copy()
    for number, gaps in enumerate(signal.missing):
        if gaps.any() and not gaps.all():
            places = distance_transform_edt(gaps, return_distances=False, return_indices=True)
            nearest[number] = mean[number][tuple(places)]
    return [np.ascontiguousarray(each.reshape(shape)) for each in (mean, nearest)]


def _tune(signal: Signal, setting: float, *, compressor: Compressor, relative: bool) -> Told:
    """Find what makes the smallest data that hold a bound, by decoding them. Raises: ValueError if nothing does."""
    low, high = signal.value_range
    bound = (high - low) / 2**setting if relative else setting
    missing = np.zeros((), bool) if signal.missing is None else signal.missing
    found = [
        _loosest(compressor, values, ~missing.reshape(values.shape if missing.shape else ()), row, bound)
        for values in _filled(signal)
        for row in compressor.settings(values, bound)
    ]
    held = [each for each in found if each is not None]
    if not held:
        raise ValueError(f"no setting of it holds a bound of {bound:g}")
    return min(held, key=lambda each: each[0])[1]


def _loosest(
    compressor: Compressor, values: np.ndarray, present: np.ndarray, row: Sequence[Any], bound: float
) -> tuple[int, Told] | None:
    """Return the loosest setting of a row that holds a bound, and its bytes; None if none does.

    present: which values count. A setting that follows one which holds the bound is taken to hold it, too.
    """
    sizes: dict[int, int] = {}

    def holds(number: int) -> bool:
        data = compressor.encode(values, row[number])
        sizes[number] = len(data)
        errors = np.abs(compressor.decode(data, values.shape).astype(np.float64) - values)
        return bool(np.max(errors, where=present, initial=0.0) <= bound)

    number = bisect_left(range(len(row)), True, key=holds)
    return None if number == len(row) else (sizes[number], Told(values, row[number]))


def _tolerances(values: np.ndarray, bound: float, looser: Sequence[float] = ()) -> list[float]:
    """Return bounds to be told to a compressor that means to keep them, but for the rounding of float32."""
    rounding = float(np.spacing(np.abs(values).max())) / bound
    shares = [*looser, 1.0, 1 - rounding, 0.99, 0.95, 0.9, 0.75, 0.5]
    return [share * bound for share in sorted(shares, reverse=True) if share > 0]


def _settings_sz3(values: np.ndarray, bound: float) -> list[list[tuple[str, float]]]:
    """Which of SZ3's predictors is best depends on the field and the bound."""
    names = ("INTERP_LORENZO", "LORENZO_REG", "INTERP")
    return [[(name, tolerance) for tolerance in _tolerances(values, bound)] for name in names]


def _encode_sz3(values: np.ndarray, setting: tuple[str, float]) -> bytes:
    from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

    config = szConfig()
    config.errorBoundMode = szErrorBoundMode.ABS
    config.cmprAlgo, config.absErrorBound = getattr(szAlgorithm, setting[0]), setting[1]
    compressed, _ = sz.compress(values, config)
    return compressed.tobytes()


def _decode_sz3(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    from pysz import sz

    values, _ = sz.decompress(np.frombuffer(data, np.uint8), np.float32, shape)
    return np.asarray(values)


def _settings_zfp(values: np.ndarray, bound: float) -> list[list[float]]:
    """ZFP rounds a tolerance down to a power of two, and stays far below it."""
    return [_tolerances(values, bound, looser=(16, 8, 4, 2))]


def _encode_zfp(values: np.ndarray, tolerance: float) -> bytes:
    import zfpy

    return bytes(zfpy.compress_numpy(values, tolerance=tolerance))


def _decode_zfp(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import zfpy

    return np.asarray(zfpy.decompress_numpy(data)).reshape(shape)


def _encode_sperr(values: np.ndarray, tolerance: float) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.sperr_encode(values, tolerance, "pwe", numthreads=1))


def _decode_sperr(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import imagecodecs

    return np.asarray(imagecodecs.sperr_decode(data, shape=shape, dtype=np.float32, numthreads=1)).reshape(shape)


def _picture(values: np.ndarray) -> np.ndarray:
    """Put slices below each other, every other one upside down, so that rows at their edges are alike."""
    picture = values.reshape(-1, *values.shape[-2:]).copy()
    picture[1::2] = picture[1::2, ::-1].copy()
    return picture.reshape(-1, values.shape[-1])


def _slices(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `_picture`."""
    return _picture(picture.reshape(shape)).reshape(shape)


_GRAY = "<dd"
"""The value of the integer 0, and the step between integers."""


def _settings_jpeg2000(values: np.ndarray, bound: float) -> list[list[float]]:
    """PSNR in dB, peak 65535, from where the root mean square of the errors would be the bound."""
    loosest = 20 * math.log10(float(np.ptp(values)) / bound)
    return [[max(1.0, loosest + quarter / 4) for quarter in range(121)]]


def _encode_jpeg2000(values: np.ndarray, psnr: float) -> bytes:
    import imagecodecs

    low = float(values.min())
    step = (float(values.max()) - low) / 65535
    gray = np.rint((_picture(values) - np.float64(low)) / step).astype(np.uint16)
    coded = imagecodecs.jpeg2k_encode(gray, level=psnr, codecformat="j2k", reversible=False, numthreads=1)
    return struct.pack(_GRAY, low, step) + bytes(coded)


def _decode_jpeg2000(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import imagecodecs

    low, step = struct.unpack_from(_GRAY, data)
    gray = imagecodecs.jpeg2k_decode(data[struct.calcsize(_GRAY) :], numthreads=1)
    return _slices((low + gray.astype(np.float64) * step).astype(np.float32), shape)


def _settings_jpegxl(values: np.ndarray, bound: float) -> list[list[float]]:
    """Steps of integers, of which there are 16 bits."""
    finest = float(np.ptp(values)) / 65535
    return [[2 * tolerance for tolerance in _tolerances(values, bound) if 2 * tolerance >= finest]]


def _encode_jpegxl(values: np.ndarray, step: float) -> bytes:
    import imagecodecs

    low = float(values.min())
    gray = np.rint((_picture(values) - np.float64(low)) / step).astype(np.uint16)
    return struct.pack(_GRAY, low, step) + bytes(imagecodecs.jpegxl_encode(gray, lossless=True, effort=7, numthreads=1))


def _decode_jpegxl(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import imagecodecs

    low, step = struct.unpack_from(_GRAY, data)
    gray = np.asarray(imagecodecs.jpegxl_decode(data[struct.calcsize(_GRAY) :], numthreads=1))
    return _slices((low + gray.astype(np.float64) * step).astype(np.float32).reshape(-1, shape[-1]), shape)


def _settings_ebcc(values: np.ndarray, bound: float) -> list[list[float]]:
    """Return the bound alone, as EBCC tries many rates itself and takes long."""
    return [[bound]]


def _encode_ebcc(values: np.ndarray, tolerance: float) -> bytes:
    from numcodecs_wasm_ebcc import Ebcc

    picture = _picture(values)[None]
    return np.asarray(Ebcc(residual="absolute", error=tolerance, base_cr=100.0).encode(picture)).tobytes()


def _decode_ebcc(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    from numcodecs_wasm_ebcc import Ebcc

    # What the encoder was told is in the data.
    picture = Ebcc(residual="jpeg2000-only").decode(np.frombuffer(data, np.uint8))
    return _slices(np.asarray(picture).reshape(-1, shape[-1]), shape)


def _settings_rounding(values: np.ndarray, bound: float) -> list[list[tuple[int, bool]]]:
    """As few mantissa bits as hold the bound, and whether bytes are shuffled."""
    original = values.astype(np.float64)
    bits = next(bits for bits in range(24) if np.abs(round_bits(values, bits) - original).max() <= bound)
    return [[(bits, shuffled)] for shuffled in (True, False)]


def _encode_rounded(values: np.ndarray, setting: tuple[int, bool]) -> bytes:
    import imagecodecs

    bits, shuffled = setting
    rounded = round_bits(values, bits)
    return bytes([shuffled]) + bytes(imagecodecs.zstd_encode(_shuffled(rounded) if shuffled else rounded, level=19))


def _decode_rounded(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import imagecodecs

    content = bytes(imagecodecs.zstd_decode(data[1:]))
    return _unshuffled(content, "<f4", shape) if data[0] else np.frombuffer(content, "<f4").reshape(shape)


COMPRESSORS = {
    "SZ3": Compressor("pysz", _settings_sz3, _encode_sz3, _decode_sz3),
    "ZFP": Compressor("zfpy", _settings_zfp, _encode_zfp, _decode_zfp),
    "SPERR": Compressor(
        "imagecodecs", lambda values, bound: [_tolerances(values, bound)], _encode_sperr, _decode_sperr
    ),
    "JPEG 2000": Compressor("imagecodecs", _settings_jpeg2000, _encode_jpeg2000, _decode_jpeg2000),
    "EBCC": Compressor("numcodecs_wasm_ebcc", _settings_ebcc, _encode_ebcc, _decode_ebcc),
    "integers, JPEG XL": Compressor("imagecodecs", _settings_jpegxl, _encode_jpegxl, _decode_jpegxl),
    "bit rounding, zstd": Compressor("imagecodecs", _settings_rounding, _encode_rounded, _decode_rounded),
}


def _obstacle(signal: Signal, *, package: str = "zlib") -> str | None:
    if importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    if signal.missing is not None and signal.missing.all():
        return "all points are missing"
    present = signal.values if signal.missing is None else signal.values[~signal.missing]
    return "all values are the same" if present.min() == present.max() else None


def _encode_told(signal: Signal, told: Told, *, compressor: Compressor) -> bytes:
    return compressor.encode(told.values, told.setting)


def _decode_told(data: bytes, signal: Signal, *, compressor: Compressor) -> np.ndarray:
    return compressor.decode(data, signal.values.squeeze().shape).reshape(signal.values.shape)


def _error_bounded(unit: str, settings: tuple[float, ...], *, relative: bool) -> tuple[Rival, ...]:
    return tuple(
        Rival(
            name,
            unit,
            settings,
            partial(_encode_told, compressor=compressor),
            partial(_decode_told, compressor=compressor),
            partial(_obstacle, package=compressor.package),
            partial(_tune, compressor=compressor, relative=relative),
        )
        for name, compressor in COMPRESSORS.items()
    )


LOSSLESS = (
    Rival("deflate", "lossless, level", (9,), _encode_deflate, _decode_deflate, _obstacle),
    Rival("PCO", "lossless, level", (12,), _encode_pco, _decode_pco, partial(_obstacle, package="imagecodecs")),
)

BOUNDED = (*_error_bounded("bound", (), relative=False), *LOSSLESS)
"""The rivals that keep a bound on the error."""

RIVALS = (
    *_error_bounded("bound: range / 2^", (4, 5, 6, 7, 8, 10, 12), relative=True),
    *LOSSLESS,
    Rival("packing", "bits", (4, 6, 8, 10, 12, 14, 16), _encode_packed, _decode_packed, _obstacle),
)
