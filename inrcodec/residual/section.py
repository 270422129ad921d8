"""The coded residual: what brings a lossy reconstruction within an absolute error bound.

Errors beyond the bound are corrected by multiples of a step of about twice the bound; these integers, most of them 0
where the reconstruction is good, are the symbols, which `inrcodec.residual.lattice` codes. docs/FORMAT.md has it all.

A signal's values are corrected slab by slab (`inrcodec.signals.lazy.slab_rows`). In a file, the length of each slab
and the bound that its steps follow stand before its payload: an encoder may correct to a smaller error than the one it
promises.
"""

import math
import struct
from collections.abc import Sequence

import numpy as np

from inrcodec.bounds import LARGEST_BOUND, SMALLEST_BOUND
from inrcodec.coding.varint import read_varint, write_varint
from inrcodec.errors import CorruptFile, TruncatedFile
from inrcodec.residual.lattice import SYMBOL_LIMIT, read_slices, write_slices
from inrcodec.residual.payload import SIDE_ROW, ResidualReader, ResidualWriter

# The step depends on the bound and on the gap, the bound's exponent less that of the spacing between the values.
_FINEST_GAP = 12  # a spacing that is finer still makes no difference
_COARSEST_GAP = -2200
_LARGEST_SPACING = 1000
_UNUSUAL_SHARE = 1e-3

_BOUND_BYTES = 8

MAX_SLAB_VALUES = (1 << 31) - 1
"""Values of a slab, at most."""


def pack_residual(original: np.ndarray, decoded: np.ndarray, bound: float, missing: np.ndarray | None = None) -> bytes:
    """Return what `apply_residual` needs to bring every value of `decoded` that matters within `bound` of `original`.

    original, decoded: [*grid, C] of one type, floats or integers of up to 32 bits.
    bound: the largest absolute error allowed, in the unit of the values; differences are taken in float64.
    missing: bool [*grid], points whose values do not matter.
    That the bound holds is verified with this very `decoded`. For one from a machine whose floats round otherwise, the
    step leaves room for differences of 8e-4 of the bound.
    Returns b"" where nothing needs to be corrected.
    Raises: ValueError for arrays or a bound of another kind.
    """
    _check(decoded, bound)
    if original.dtype != decoded.dtype or original.shape != decoded.shape:
        raise ValueError(
            f"original and decoded differ: {original.dtype = }, {decoded.dtype = }, {original.shape = }, "
            f"{decoded.shape = }"
        )
    if missing is not None and (missing.dtype != bool or missing.shape != decoded.shape[:-1]):
        raise ValueError(f"missing is no mask of the grid: {missing.dtype = }, {missing.shape = }, {decoded.shape = }")
    beyond = _beyond(original, decoded, bound, missing)
    if not beyond.any():
        return b""
    gap = _best_gap(original[beyond], bound)
    symbols = _quantize(_differences(original, decoded), _step(bound, gap))
    if missing is not None:
        symbols[missing] = 0
    writer = ResidualWriter()
    writer.put(np.array([_FINEST_GAP - gap]), np.array([SIDE_ROW]))
    write_slices(writer, _as_slices(symbols))
    payload = writer.finish(np.zeros(0, np.int64), original)
    wrong = np.flatnonzero(_beyond(original, apply_residual(decoded, payload, bound), bound, missing))
    return writer.finish(wrong, original) if len(wrong) else payload


def apply_residual(decoded: np.ndarray, payload: bytes, bound: float) -> np.ndarray:
    """Return the reconstruction within `bound`: an array like `decoded`, which `pack_residual` was given.

    Raises: CorruptFile if `payload` is not what that returned for such an array and bound; ValueError for an array or
        a bound of another kind.
    """
    _check(decoded, bound)
    if not payload:
        return decoded.copy()
    reader = ResidualReader(payload)
    gap = _FINEST_GAP - int(reader.take(np.array([SIDE_ROW]))[0])
    if not _COARSEST_GAP <= gap <= _FINEST_GAP or _exponent(bound) - gap > _LARGEST_SPACING:
        raise CorruptFile(f"a residual is for values 2^{-gap} bounds apart: obtain the file again")
    height, width = _plane(decoded.shape)
    channels = decoded.shape[-1]
    slices = read_slices(reader, (decoded.size // (height * width * channels), channels, height, width))
    corrected = _corrected(decoded, _from_slices(slices, decoded.shape), _step(bound, gap))
    places, values = reader.finish(decoded.size, decoded.dtype)
    corrected.reshape(-1)[places] = values
    return corrected


def pack_slab(payload: bytes, bound: float) -> bytes:
    """Return what a file stores of the `payload` that `pack_residual` has made of a slab for a bound."""
    return struct.pack("<d", bound) + payload if payload else b""


def apply_slab(decoded: np.ndarray, slab: bytes, max_error: float) -> np.ndarray:
    """Return a slab of the reconstruction within `max_error`, which the header promises: an array like `decoded`.

    Raises: CorruptFile if `slab` is not what `pack_slab` returns for such an array and a bound up to `max_error`.
    """
    if not slab:
        return decoded.copy()
    if len(slab) <= _BOUND_BYTES:
        raise CorruptFile(f"a residual has {len(slab)} bytes: obtain the file again")
    (bound,) = struct.unpack_from("<d", slab)
    if not SMALLEST_BOUND <= bound <= max_error:
        raise CorruptFile(f"a residual is for an error of {bound}, the header says {max_error}: obtain the file again")
    return apply_residual(decoded, slab[_BOUND_BYTES:], bound)


def pack_section(slabs: Sequence[bytes]) -> bytes:
    """Return the residual of a signal from those of its slabs; empty if all are."""
    return b"".join(write_varint(len(slab)) + slab for slab in slabs) if any(slabs) else b""


def unpack_section(section: bytes, count: int) -> list[bytes]:
    """Return the residuals of `count` slabs. Raises: CorruptFile if the section is not of so many."""
    if not section:
        return [b""] * count
    slabs, position = [], 0
    for _ in range(count):
        try:
            size, position = read_varint(section, position)
        except TruncatedFile:
            break
        slabs.append(section[position : position + size])
        position += size
        if position > len(section):
            break
    if len(slabs) < count or position != len(section) or not any(slabs):
        raise CorruptFile(f"a residual of {len(section)} bytes is not one of {count} slabs: obtain the file again")
    return slabs


def _check(decoded: np.ndarray, bound: float) -> None:
    kind, size = decoded.dtype.kind, decoded.dtype.itemsize
    if not ((kind == "f" and size <= 8) or (kind in "iu" and size <= 4)):
        raise ValueError(f"values must be floats or integers of up to 32 bits: {decoded.dtype = }")
    if decoded.ndim < 2 or not 0 < decoded.size <= MAX_SLAB_VALUES:
        raise ValueError(f"values must be [*grid, C], fewer than 2^31 but some: {decoded.shape = }")
    if not SMALLEST_BOUND <= bound <= LARGEST_BOUND:
        raise ValueError(f"a bound must lie in 2^-1000..2^1000: {bound = }")


def _beyond(original: np.ndarray, decoded: np.ndarray, bound: float, missing: np.ndarray | None) -> np.ndarray:
    """Say which values matter and are not within the bound; NaN never is."""
    beyond = ~(np.abs(_differences(original, decoded)) <= bound)
    if missing is not None:
        beyond[missing] = False
    return beyond


def _differences(original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return original.astype(np.float64) - decoded.astype(np.float64)


def _exponent(bound: float) -> int:
    return math.frexp(bound)[1] - 1


def _step(bound: float, gap: int) -> float:
    """Return the step for values that are a spacing u of 2^(exponent of the bound - gap) apart.

    A value may be k = floor(bound / u) spacings off, and what is rounded to one any less than (k + 1/2) u. The step is
    twice that, but for 2^-10 of it.
    """
    spacings = math.floor(math.ldexp(bound, gap - _exponent(bound)))
    return math.ldexp(1023 * (2 * spacings + 1), _exponent(bound) - gap - 10)


def _best_gap(values: np.ndarray, bound: float) -> int:
    """Return the gap with the coarsest step that suits all of these values but a few, which may have to be stored."""
    spacings = np.zeros(len(values), np.int64)  # as powers of two
    if values.dtype.kind == "f":
        kind = np.finfo(values.dtype)
        exponents = np.where(values == 0, kind.minexp, np.frexp(values)[1] - 1)
        spacings = exponents.clip(min=kind.minexp) - kind.nmant
    gaps = (_exponent(bound) - spacings).clip(_COARSEST_GAP, _FINEST_GAP)
    found, counts = np.unique(gaps, return_counts=True)
    suited = 0
    for _, gap, count in sorted((_step(bound, gap), gap, count) for gap, count in np.c_[found, counts].tolist()):
        suited += count
        if suited > _UNUSUAL_SHARE * len(values):
            return gap
    return _FINEST_GAP


def _quantize(residual: np.ndarray, step: float) -> np.ndarray:
    """Return the nearest multiples of the step, int64; 0 where they are not numbers below `SYMBOL_LIMIT`."""
    with np.errstate(over="ignore"):
        multiples = np.rint(residual / step)
    return np.where(np.abs(multiples) < SYMBOL_LIMIT, multiples, 0).astype(np.int64)


def _corrected(decoded: np.ndarray, symbols: np.ndarray, step: float) -> np.ndarray:
    """Return decoded + symbols * step in float64, clipped to what the type of `decoded` holds and rounded to it."""
    corrected = decoded.flatten()
    places = np.flatnonzero(symbols)
    with np.errstate(over="ignore"):
        values = corrected[places].astype(np.float64) + symbols.reshape(-1)[places] * step
    if decoded.dtype.kind == "f":
        limit = float(np.finfo(decoded.dtype).max)
        corrected[places] = values.clip(-limit, limit)
    else:
        limits = np.iinfo(decoded.dtype)
        corrected[places] = np.rint(values).clip(limits.min, limits.max)
    return corrected.reshape(decoded.shape)


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of the slices of values [*grid, C]; a grid of one axis has height 1."""
    return (1, *shape)[-3], shape[-2]


def _as_slices(symbols: np.ndarray) -> np.ndarray:
    """Return [*grid, C] as [slices, C, height, width]."""
    height, width = _plane(symbols.shape)
    return np.moveaxis(symbols.reshape(-1, height, width, symbols.shape[-1]), -1, 1)


def _from_slices(slices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(slices, 1, -1).reshape(shape)
