"""The header of a stream.

It follows "Stream header" of docs/FORMAT.md.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cbor2
import numpy as np

from second_decoder.reading import Refused, inflate, require

MODALITIES = ("image", "video", "audio", "climate")
TYPES = ("u1", "<u2", "<u4", "i1", "<i2", "<i4", "<f2", "<f4", "<f8")
KINDS = ("cell", "start", "node", "periodic", "slice")
DEFAULTS: tuple[Any, ...] = (None, "", 0, {}, None)


@dataclass(frozen=True)
class Axis:
    """An axis of a signal's grid. rate: of *start* axes, in hertz. points: degrees, [size] float64."""

    size: int
    kind: str = "cell"
    rate: Fraction | None = None
    points: np.ndarray | None = None


@dataclass(frozen=True)
class Header:
    """The fields of a header, in the order of the page. identifier: of the initialization."""

    modality: str
    identifier: bytes
    dtype: np.dtype
    axes: tuple[Axis, ...]
    channels: int
    patches_per_chunk: int
    chunks: int
    coding_parameters: tuple[int, ...]
    value_ranges: np.ndarray
    name: str
    on_sphere: bool
    has_mask: bool
    attributes: dict[str, Any]
    largest_error: float | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The samples along every axis."""
        return tuple(axis.size for axis in self.axes)


class HeaderReader:
    """Reads the headers of a file, whose limits hold for all of them together."""

    def __init__(self) -> None:
        self.growth_left = 1 << 24
        self.items_left = 1 << 16

    def read(self, payload: bytes) -> Header:
        """Return the header that the payload of a section `S` is."""
        require(payload[:1] in (b"\0", b"\1"), "a header begins with 0 or 1")
        content = payload[1:]
        if payload[0] == 1:
            content = inflate(payload[1:], len(payload) - 1 + self.growth_left)
            self.growth_left -= max(0, len(content) - (len(payload) - 1))
        fields = _read_cbor(content)
        self.items_left -= _count_items(fields, depth=0)
        require(self.items_left >= 0, "all headers have at most 2^16 items")
        return _header_of(fields)


def _read_cbor(content: bytes) -> Any:
    try:
        value = cbor2.loads(content)
        again = cbor2.dumps(value)
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, RecursionError) as error:
        raise Refused(f"a header is no CBOR: {error}") from error
    require(again == content, "CBOR has the spelling that it gets when it is encoded again")
    return value


def _count_items(value: Any, depth: int) -> int:
    """Return how many items a value has, itself counted. depth: the arrays and maps around it."""
    if type(value) is list:
        inner = value
    elif type(value) is dict:
        require(all(type(key) is str for key in value), "keys are text")
        inner = [*value.keys(), *value.values()]
    else:
        known = value is None or type(value) in (bool, int, float, bytes, str)
        require(known, "a value is a number, a string, an array, a map, false, true or null")
        require(type(value) is not int or -(1 << 64) <= value < 1 << 64, "an integer is -2^64..2^64-1")
        return 1
    require(depth < 16, "at most 16 arrays and maps are inside each other")
    return 1 + sum(_count_items(item, depth + 1) for item in inner)


def _integer(value: Any, low: int, high: int, what: str) -> int:
    require(type(value) is int and low <= value <= high, f"{what} is an integer {low}..{high}")
    return int(value)


def _number(value: Any) -> float:
    require(type(value) in (int, float) and math.isfinite(value), "a number is an integer or a finite float")
    return float(value)


def _header_of(fields: Any) -> Header:
    require(type(fields) is list and 8 <= len(fields) <= 13, "a header is an array of 8 to 13 items")
    modality, identifier, kind, axes, channels, together, chunks, coding, *optional = fields
    value_range, name, flags, attributes, largest_error = [*optional, *DEFAULTS[len(optional) :]]
    require(type(identifier) is bytes and len(identifier) == 8, "an identifier has 8 bytes")
    require(type(axes) is list and 1 <= len(axes) <= 8, "a grid has 1..8 axes")
    require(type(coding) is bytes and len(coding) <= 8192, "coding parameters are at most 8192 bytes")
    require(type(name) is str, "a name is text")
    require(type(attributes) is dict, "attributes are a map")
    dtype = np.dtype(TYPES[_integer(kind, 0, 8, "the type")])
    flags = _integer(flags, 0, 3, "flags")
    header = Header(
        modality=MODALITIES[_integer(modality, 0, 3, "the modality")],
        identifier=identifier,
        dtype=dtype,
        axes=tuple(_axis_of(axis) for axis in axes),
        channels=_integer(channels, 1, 4096, "channels"),
        patches_per_chunk=_integer(together, 1, 1 << 31, "patches per chunk"),
        chunks=_integer(chunks, 0, 1 << 31, "chunks"),
        coding_parameters=tuple((byte ^ 128) - 128 for byte in coding),
        value_ranges=_value_ranges_of(value_range, dtype),
        name=name,
        on_sphere=bool(flags & 1),
        has_mask=bool(flags & 2),
        attributes=attributes,
        largest_error=None if largest_error is None else _number(largest_error),
    )
    if len(header.value_ranges) > 1 or type(value_range) is bytes:
        require(header.axes[0].kind == "slice", "slices have ranges of their own")
        require(len(header.value_ranges) == header.sizes[0], "there are as many value ranges as slices")
    samples = math.prod(header.sizes)
    require(samples <= 1 << 40, "a signal has at most 2^40 samples")
    if header.on_sphere:
        places = [axis for axis in header.axes[-2:] if axis.points is not None and axis.kind != "slice"]
        require(len(places) == 2, "a signal on a sphere has latitudes and longitudes")
    if header.largest_error is not None:
        require(2.0**-1000 <= header.largest_error <= 2.0**1000, "the largest error is 2^-1000..2^1000")
        require(samples * header.channels < 1 << 31, "a signal with a largest error has fewer than 2^31 values")
    return header


def _value_ranges_of(stored: Any, dtype: np.dtype) -> np.ndarray:
    """Return the value range of the signal, [1, 2], or those of its slices, [slices, 2]."""
    if stored is None:
        require(dtype.kind == "u", "only unsigned types have a usual value range")
        return np.array([[0.0, float(np.iinfo(dtype).max)]])
    if type(stored) is bytes:
        require(len(stored) > 0 and len(stored) % 16 == 0, "a value range has two float64")
        ranges = np.frombuffer(stored, "<f8").reshape(-1, 2)
        whole = np.array([[ranges[:, 0].min(), ranges[:, 1].max()]])
    else:
        require(type(stored) is list and len(stored) == 2, "a value range is two numbers")
        ranges = whole = np.array([[_number(value) for value in stored]])
    for low, high in np.concatenate([ranges, whole]):
        with np.errstate(all="ignore"):
            require(low < high and math.isfinite(high - low), "a value range is not empty, and its length is finite")
    return ranges


def _axis_of(stored: Any) -> Axis:
    size, kind, *rest = stored if type(stored) is list and len(stored) >= 2 else [stored, 0]
    size = _integer(size, 1, 1 << 31, "the size of an axis")
    kind = KINDS[_integer(kind, 0, 4, "the kind of an axis")]
    rate = points = None
    if kind == "start":
        require(len(rest) >= 2, "a start axis has a rate")
        numerator, denominator, *rest = rest
        largest = (1 << 63) - 1
        rate = Fraction(_integer(numerator, 1, largest, "a rate"), _integer(denominator, 1, largest, "a rate"))
    if rest:
        require(len(rest) == 1, "nothing follows the points of an axis")
        points = _points_of(rest[0], size)
    return Axis(size, kind, rate, points)


def _points_of(stored: Any, size: int) -> np.ndarray:
    require(size <= 1 << 20, "an axis with points has at most 2^20 of them")
    if type(stored) is bytes:
        require(len(stored) in (4 * size, 8 * size), "points are float32 or float64")
        points = np.frombuffer(stored, "<f4" if len(stored) == 4 * size else "<f8").astype(np.float64)
    else:
        require(type(stored) is list and len(stored) == 3, "points are bytes, or a rule and two numbers")
        points = _points_by_rule(_integer(stored[0], 0, 2, "a rule"), _number(stored[1]), _number(stored[2]), size)
    steps = points[:-1] < points[1:], points[:-1] > points[1:]
    require(bool(np.isfinite(points).all()), "points are finite")
    require(bool(steps[0].all() or steps[1].all()), "points rise or fall")
    return points


def _points_by_rule(rule: int, a: float, b: float, size: int) -> np.ndarray:
    i = np.arange(size, dtype=np.float64)
    with np.errstate(all="ignore"):  # points that overflow are refused
        if rule == 1:
            return i * b + a
        points = i * ((b - a) / max(size - 1, 1)) + a
        points[-1] = b
        return points.astype(np.float32).astype(np.float64) if rule == 2 else points
