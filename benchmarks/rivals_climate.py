"""What NetCDF and its tools do to float32 arrays, and the error-bounded compressors of scientific data.

Missing points are NaN, and cost what they cost, but for SZ3 and ZFP: they are given the mean there, and no mask.
"""

import importlib.util
import struct
import zlib
from functools import partial

import numpy as np
from rivals import Rival

from inrcodec.signals.signal import Signal


def _with_gaps(signal: Signal) -> np.ndarray:
    values = signal.values.astype(np.float32)
    if signal.missing is not None:
        values[signal.missing] = np.nan
    return values


def shuffle_deflate(values: np.ndarray) -> bytes:
    """Deflate all first bytes, then all second bytes, and so on, as well as zlib can."""
    planes = np.frombuffer(values.tobytes(), np.uint8).reshape(-1, values.itemsize).T
    return zlib.compress(planes.tobytes(), 9)


def _inflate_unshuffle(data: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    itemsize = np.dtype(dtype).itemsize
    planes = np.frombuffer(zlib.decompress(data), np.uint8).reshape(itemsize, -1)
    return np.frombuffer(planes.T.tobytes(), dtype).reshape(shape)


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


def _encode_rounded(signal: Signal, bits: int) -> bytes:
    return shuffle_deflate(round_bits(_with_gaps(signal), bits))


def _decode_floats(data: bytes, signal: Signal) -> np.ndarray:
    return _inflate_unshuffle(data, "<f4", signal.values.shape)


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
    codes = _inflate_unshuffle(data[struct.calcsize(_PACKED) :], "<u2" if bits > 8 else "u1", signal.values.shape)
    values: np.ndarray = (low + codes.astype(np.float64) * scale).astype(np.float32)
    values[codes == (1 << bits) - 1] = np.nan
    return values


def _climate_obstacle(signal: Signal) -> str | None:
    return "all points are missing" if signal.missing is not None and signal.missing.all() else None


def _without_gaps(signal: Signal) -> np.ndarray:
    """Return values [height, width] or [slices, height, width], without axes of one sample."""
    values = _with_gaps(signal)
    return np.ascontiguousarray(np.nan_to_num(values, nan=float(np.nanmean(values))).squeeze())


def _bound(signal: Signal, setting: float, *, relative: bool) -> float:
    low, high = signal.value_range
    return float((high - low) / 2**setting if relative else setting)


def _encode_sz3(signal: Signal, setting: float, *, relative: bool) -> bytes:
    """Return the smallest of what SZ3's predictors make: which one is best depends on the field and the bound."""
    from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

    config = szConfig()
    config.errorBoundMode = szErrorBoundMode.ABS
    config.absErrorBound = _bound(signal, setting, relative=relative)
    values = _without_gaps(signal)
    results: list[bytes] = []
    for algorithm in (szAlgorithm.INTERP_LORENZO, szAlgorithm.LORENZO_REG, szAlgorithm.INTERP):
        config.cmprAlgo = algorithm
        compressed, _ = sz.compress(values, config)
        results.append(compressed.tobytes())
    return min(results, key=len)


def _decode_sz3(data: bytes, signal: Signal) -> np.ndarray:
    from pysz import sz

    values, _ = sz.decompress(np.frombuffer(data, np.uint8), np.float32, _without_gaps(signal).shape)
    return np.asarray(values, np.float32).reshape(signal.values.shape)


def _encode_zfp(signal: Signal, setting: float, *, relative: bool) -> bytes:
    import zfpy

    return bytes(zfpy.compress_numpy(_without_gaps(signal), tolerance=_bound(signal, setting, relative=relative)))


def _decode_zfp(data: bytes, signal: Signal) -> np.ndarray:
    import zfpy

    return np.asarray(zfpy.decompress_numpy(data), np.float32).reshape(signal.values.shape)


def _missing_package(signal: Signal, *, package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    return _climate_obstacle(signal)


def _error_bounded(unit: str, settings: tuple[float, ...], *, relative: bool) -> tuple[Rival, ...]:
    coders = (("SZ3", _encode_sz3, _decode_sz3, "pysz"), ("ZFP", _encode_zfp, _decode_zfp, "zfpy"))
    return tuple(
        Rival(
            name,
            unit,
            settings,
            partial(encode, relative=relative),
            decode,
            partial(_missing_package, package=package),
        )
        for name, encode, decode, package in coders
    )


BOUNDED = _error_bounded("bound", (), relative=False)
"""The rivals that keep a bound on the error, which is their setting."""

RIVALS = (
    *_error_bounded("bound: range / 2^", (4, 5, 6, 7, 8, 10, 12), relative=True),
    Rival("deflate", "mantissa bits", (23,), _encode_rounded, _decode_floats, _climate_obstacle),
    Rival(
        "bit rounding",
        "mantissa bits",
        (3, 4, 5, 6, 8, 10, 12, 14, 16),
        _encode_rounded,
        _decode_floats,
        _climate_obstacle,
    ),
    Rival("packing", "bits", (4, 6, 8, 10, 12, 14, 16), _encode_packed, _decode_packed, _climate_obstacle),
)
