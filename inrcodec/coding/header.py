"""The header of a stream (one signal of an `.inr` file) to bytes and back; docs/FORMAT.md specifies it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import Any

import numpy as np

from inrcodec.bounds import Bound, ShareBound, SliceBounds
from inrcodec.coding import plain
from inrcodec.coding.axes import check_axis, compact, listed, number, pack_axis, unpack_axis
from inrcodec.coding.sections import MAX_SECTIONS
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.signals import MODALITIES
from inrcodec.signals.signal import Axis

assert MODALITIES == ("image", "video", "audio", "climate"), "the order is part of the format"
DTYPES = ("|u1", "<u2", "<u4", "|i1", "<i2", "<i4", "<f2", "<f4", "<f8")

MAX_AXES = 8
MAX_SAMPLES = 1 << 40
MAX_CHANNELS = 1 << 12
MAX_CODING_BYTES = 1 << 13
MAX_COUNT = 1 << 31

_STORED, _DEFLATED = 0, 1
_SPHERE, _MISSING, _FOLLOWING = 1, 2, 4
_REQUIRED_FIELDS = 8


@dataclass(frozen=True, eq=False)
class StreamHeader:
    """Everything a decoder needs to know about one signal, besides its chunks.

    modality: one of `MODALITIES`.
    name: tells the signals of one file apart, "" for the main one.
    initialization: [8] bytes, the identifier of the initialization.
    dtype: NumPy's name of the native values' type, one of `DTYPES`.
    axes: grid of the signal, slowest axis first, 1 to 8 axes; at most 2^40 samples.
    channels: values per grid point, 1..4096.
    value_range: the native values that become 0 and 1 for the field, low < high, their difference finite.
    coding: the coding parameters, whose meaning is the field codec's: at most 8192 bytes.
    patches_per_chunk: 1..2^31.
    chunks: how many chunks follow, 0..2^31.
    sphere: the last two axes are latitude and longitude, both with `points`.
    has_missing: a mask of missing values follows the header.
    attributes: plain values, as in `Signal`.
    bound: how far values on the original grid may be off, which a residual after the chunks ensures. None: there is no
        bound and no residual.
    slice_ranges: [S, 2] float64, the value range of every slice along the first axis, a "slice"; `value_range` is then
        that of all. None: it is that of each.
    following: how many signals of the file come after this one, 0..2^21. `write_container` sees to it.
    """

    modality: str
    initialization: bytes
    dtype: str
    axes: tuple[Axis, ...]
    channels: int
    value_range: tuple[float, float]
    coding: bytes
    patches_per_chunk: int
    chunks: int
    name: str = ""
    sphere: bool = False
    has_missing: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    bound: Bound | None = None
    slice_ranges: np.ndarray | None = None
    following: int = 0

    @property
    def label(self) -> str:
        """What messages call the signal."""
        return f"the signal {self.name!r}" if self.name else f"the {self.modality}"

    def patches_in(self, chunk: int, patches: int) -> int:
        """Return how many of the signal's patches a chunk has."""
        return min(self.patches_per_chunk, patches - chunk * self.patches_per_chunk)


def pack_header(header: StreamHeader, budget: plain.Budget | None = None) -> bytes:
    """Return the payload of a header section, and take what it needs from the budget, a whole file's unless given.

    Raises: UsageError if a field is out of the range that the format allows, or the budget is exceeded.
    """
    budget = budget or plain.Budget()
    try:
        _check(header)
        content = plain.dumps(_to_fields(header), budget)
        deflated = zlib.compress(content, 9)
        if len(deflated) >= len(content):
            return bytes([_STORED]) + content
        budget.grow(len(deflated), len(content))
    except ValueError as error:
        raise UsageError(f"cannot store the header of signal {header.name!r}: {error}") from error
    return bytes([_DEFLATED]) + deflated


def unpack_header(payload: bytes, budget: plain.Budget) -> StreamHeader:
    """Return the header that `pack_header` was given, and take what it needs from the budget.

    Raises: CorruptFile if `payload` is no header, or the budget is exceeded.
    """
    try:
        header = _from_fields(plain.loads(_inflated(payload, budget), budget))
        _check(header)
    except ValueError as error:
        raise CorruptFile(f"a stream header has {error}: obtain the file again") from error
    return header


def check_header(header: StreamHeader, others: Sequence[StreamHeader]) -> None:
    """Check that a header can follow those before it, none of which is missing. Raises: CorruptFile."""
    check_together(header, others)
    if others and header.following != others[-1].following - 1:
        raise CorruptFile(
            f"{others[-1].following} signals should follow a signal, and {header.following} the next: obtain the file "
            "again"
        )


def check_together(header: StreamHeader, others: Sequence[StreamHeader]) -> None:
    """Check that a header can be in one file with others. Chunks are counted before memory is taken for them.

    Raises: CorruptFile.
    """
    chunks = header.chunks + sum(other.chunks for other in others)
    if chunks > MAX_SECTIONS:
        raise CorruptFile(f"a file of {chunks} chunks, more than {MAX_SECTIONS}: obtain the file again")
    if header.name in {other.name for other in others}:
        raise CorruptFile(f"two signals are called {header.name!r:.80}: obtain the file again")


def _inflated(payload: bytes, budget: plain.Budget) -> bytes:
    stored = payload[1:]
    if payload[:1] == bytes([_STORED]):
        return stored
    if payload[:1] != bytes([_DEFLATED]):
        raise ValueError(f"the compression {payload[:1]!r}")
    try:
        content = plain.inflate(stored, len(stored) + budget.growth)
    except ValueError as error:
        raise ValueError(f"malformed content ({error})") from error
    budget.grow(len(stored), len(content))
    return content


def _to_fields(header: StreamHeader) -> list[Any]:
    """Return the header as CBOR fields by position; the optional ones at the end are left out where default."""
    optional: list[tuple[Any, Any]] = [
        (_packed_range(header), None),
        (header.name, ""),
        (_SPHERE * header.sphere + _MISSING * header.has_missing + _FOLLOWING * header.following, 0),
        (header.attributes, {}),
        (_packed_bound(header.bound), None),
    ]
    while optional and optional[-1][0] == optional[-1][1]:
        optional.pop()
    return [
        MODALITIES.index(header.modality),
        header.initialization,
        DTYPES.index(header.dtype),
        [pack_axis(axis) for axis in header.axes],
        header.channels,
        header.patches_per_chunk,
        header.chunks,
        header.coding,
        *(value for value, _ in optional),
    ]


def _from_fields(fields: Any) -> StreamHeader:
    """Raises ValueError where a field cannot be understood; `_check` does the ranges."""
    defaults: list[Any] = [None, "", 0, {}, None]
    if type(fields) is not list or not 0 <= len(fields) - _REQUIRED_FIELDS <= len(defaults):
        raise ValueError(f"no list of {_REQUIRED_FIELDS} to {_REQUIRED_FIELDS + len(defaults)} fields")
    required, optional = fields[:_REQUIRED_FIELDS], fields[_REQUIRED_FIELDS:]
    modality, initialization, dtype, axes, channels, patches_per_chunk, chunks, coding = required
    value_range, name, flags, attributes, bound = optional + defaults[len(optional) :]
    dtype = listed(DTYPES, dtype, "dtype")
    if type(flags) is not int or not 0 <= flags < _FOLLOWING * (MAX_SECTIONS + 1):
        raise ValueError(f"{flags = !r:.80}")
    return StreamHeader(
        modality=listed(MODALITIES, modality, "modality"),
        initialization=initialization,
        dtype=dtype,
        axes=tuple(unpack_axis(axis) for axis in axes) if type(axes) is list else (),
        channels=channels,
        value_range=_unpacked_range(value_range, dtype),
        slice_ranges=_unpacked_slice_ranges(value_range),
        coding=coding,
        patches_per_chunk=patches_per_chunk,
        chunks=chunks,
        name=name,
        sphere=bool(flags & _SPHERE),
        has_missing=bool(flags & _MISSING),
        attributes=attributes,
        bound=_unpacked_bound(bound),
        following=flags // _FOLLOWING,
    )


def _default_range(dtype: str) -> tuple[float, float]:
    if np.dtype(dtype).kind != "u":
        raise ValueError(f"no value range, which only unsigned integers may leave out ({dtype = })")
    return 0.0, float(np.iinfo(dtype).max)


def _packed_range(header: StreamHeader) -> list[int | float] | bytes | None:
    if header.slice_ranges is not None:
        return header.slice_ranges.astype("<f8").tobytes()
    if np.dtype(header.dtype).kind == "u" and header.value_range == _default_range(header.dtype):
        return None
    return [compact(float(value)) for value in header.value_range]


def _unpacked_range(values: Any, dtype: str) -> tuple[float, float]:
    if values is None:
        return _default_range(dtype)
    ranges = _unpacked_slice_ranges(values)
    if ranges is not None:
        return float(ranges[:, 0].min()), float(ranges[:, 1].max())
    if type(values) is not list or len(values) != 2:
        raise ValueError(f"value range {values!r:.80}")
    return number(values[0]), number(values[1])


def _unpacked_slice_ranges(values: Any) -> np.ndarray | None:
    """Return the ranges of all slices, where there is one of each."""
    if type(values) is not bytes:
        return None
    if not values or len(values) % 16:
        raise ValueError(f"{len(values)} bytes of value ranges")
    return np.frombuffer(values, "<f8").astype(np.float64).reshape(-1, 2)


def _packed_bound(bound: Bound | None) -> int | float | list[Any] | None:
    if bound is None:
        return None
    error = compact(float(bound.error))
    if isinstance(bound, SliceBounds):
        return [error, np.array(bound.steps, "<u2").tobytes()]
    if isinstance(bound, ShareBound):
        return [error, compact(float(bound.knee)), bound.linear]
    return error


def _unpacked_bound(stored: Any) -> Bound | None:
    """Raises: ValueError."""
    if stored is None:
        return None
    if type(stored) is not list:
        return Bound(number(stored))
    if len(stored) == 2 and type(stored[1]) is bytes and len(stored[1]) % 2 == 0:
        return SliceBounds(number(stored[0]), tuple(np.frombuffer(stored[1], "<u2").tolist()))
    if len(stored) == 3 and type(stored[2]) is bool:
        return ShareBound(number(stored[0]), number(stored[1]), stored[2])
    raise ValueError(f"the bound {stored!r:.80}")


def _check(header: StreamHeader) -> None:
    """Raises ValueError for a field out of its range. Types are exact: what is stored is what comes back."""

    def require(good: bool, what: str, value: Any) -> None:
        if not good:
            raise ValueError(f"{what} {value!r:.80}")

    def integer(value: Any, low: int, high: int, what: str) -> None:
        require(type(value) is int and low <= value <= high, f"{what} ({low} to {high} allowed)", value)

    require(header.modality in MODALITIES, "modality", header.modality)
    require(type(header.name) is str, "name", header.name)
    identifier = header.initialization
    require(type(identifier) is bytes and len(identifier) == 8, "initialization identifier", identifier)
    require(header.dtype in DTYPES, "dtype", header.dtype)
    require(type(header.axes) is tuple, "axes", header.axes)
    require(1 <= len(header.axes) <= MAX_AXES, f"number of axes (1 to {MAX_AXES} allowed)", len(header.axes))
    for axis in header.axes:
        check_axis(axis)
    shape = [axis.size for axis in header.axes]
    require(prod(shape) <= MAX_SAMPLES, f"shape (at most {MAX_SAMPLES} samples allowed)", shape)
    integer(header.channels, 1, MAX_CHANNELS, "number of channels")
    low, high = header.value_range
    require(isfinite(high - low) and low < high, "value range", header.value_range)
    ranges = header.slice_ranges
    if ranges is not None:
        with np.errstate(all="ignore"):  # what overflows is no range
            spans = ranges[:, 1] - ranges[:, 0]
        slices = header.axes[0].size if header.axes[0].kind == "slice" else 0
        require(len(ranges) == slices, "number of value ranges", len(ranges))
        require(bool((np.isfinite(spans) & (spans > 0)).all()), "value ranges", ranges.tolist())
    coding = header.coding
    require(type(coding) is bytes and len(coding) <= MAX_CODING_BYTES, "coding parameters", coding)
    integer(header.patches_per_chunk, 1, MAX_COUNT, "number of patches per chunk")
    integer(header.chunks, 0, MAX_COUNT, "number of chunks")
    integer(header.following, 0, MAX_SECTIONS, "number of signals that follow")
    grid = len(shape) >= 2 and all(axis.points is not None and axis.kind != "slice" for axis in header.axes[-2:])
    require(grid or not header.sphere, "sphere without the points of two last axes, shape", shape)
    require(type(header.attributes) is dict, "attributes", header.attributes)
    if isinstance(header.bound, ShareBound):
        require(header.slice_ranges is None, "value ranges of slices beside a bound of shares", header.bound.error)
    if isinstance(header.bound, SliceBounds):
        slices = header.axes[0].size if header.axes[0].kind == "slice" else 0
        require(len(header.bound.steps) == slices, "number of bounds of slices", len(header.bound.steps))
