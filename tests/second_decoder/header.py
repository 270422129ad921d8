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
class Bound:
    """How far values may be off. steps: k of every slice. knee: m of a share. linear: whether an error is beside it."""

    error: float
    steps: np.ndarray | None = None
    knee: float | None = None
    linear: bool = False

    @property
    def on_scale(self) -> float:
        """E."""
        if self.steps is not None:
            return 1.0
        return self.error if self.knee is None else float(log2(np.array(1 + self.error)))

    @property
    def at_knee(self) -> float:
        """K."""
        return self.on_scale / self.error if self.linear else (2 + 2**-10) * self.on_scale

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return values [*grid, C] of the whole signal on the scale."""
        if self.steps is not None:
            return values / self._errors(values)
        if self.knee is None:
            return values
        v = values.astype(np.float64)
        logarithms = self.at_knee + (log2(np.where(v == 0, 1, np.abs(v))) - log2(np.array(self.knee)))
        if self.linear:
            return np.sign(v) * np.where(np.abs(v) < self.knee, self.at_knee * np.abs(v) / self.knee, logarithms)
        return np.sign(v) * np.maximum(logarithms, 0.75 * self.at_knee)

    def unscaled(self, scaled: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return the native values of those on the scale."""
        if self.steps is not None:
            return rounded(scaled * self._errors(scaled), dtype)
        if self.knee is None:
            return scaled
        magnitudes = np.abs(scaled)
        powers = exp2(magnitudes - self.at_knee) * self.knee
        if self.linear:
            powers = np.where(magnitudes < self.at_knee, magnitudes / self.at_knee * self.knee, powers)
        else:
            powers = np.where(magnitudes <= self.at_knee / 2, 0, powers)
        return rounded(np.sign(scaled) * powers, dtype)

    def _errors(self, values: np.ndarray) -> np.ndarray:
        assert self.steps is not None
        return self.error * exp2(self.steps / -16).reshape(-1, *[1] * (values.ndim - 1))


def log2(v: np.ndarray) -> np.ndarray:
    """Return logarithms of positive numbers, computed as the page says."""
    f, n = np.frexp(v)
    low = f < 0.7071067811865476
    f, n = np.where(low, f * 2, f), np.where(low, n - 1, n)
    t = (f - 1) / (f + 1)
    s = t * t
    total = 1 / 21 + np.zeros_like(t)
    for j in reversed(range(10)):
        total = total * s + 1 / (2 * j + 1)
    return total * t * (2 / 0.6931471805599453) + n


def exp2(v: np.ndarray) -> np.ndarray:
    """Return powers of two, computed as the page says."""
    n = np.rint(v)
    u = (v - n) * 0.6931471805599453
    total = np.ones_like(u)
    for j in reversed(range(1, 16)):
        total = total * u / j + 1
    with np.errstate(over="ignore"):
        return np.ldexp(total, n.clip(-3000, 3000).astype(int))


def rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return float64 values as a native type."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    with np.errstate(over="ignore"):  # a number too large for the type becomes infinite
        return values.astype(dtype)


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
    bound: "Bound | None"
    following: int

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
    value_range, name, flags, attributes, bound = [*optional, *DEFAULTS[len(optional) :]]
    require(type(identifier) is bytes and len(identifier) == 8, "an identifier has 8 bytes")
    require(type(axes) is list and 1 <= len(axes) <= 8, "a grid has 1..8 axes")
    require(type(coding) is bytes and len(coding) <= 8192, "coding parameters are at most 8192 bytes")
    require(type(name) is str, "a name is text")
    require(type(attributes) is dict, "attributes are a map")
    dtype = np.dtype(TYPES[_integer(kind, 0, 8, "the type")])
    flags = _integer(flags, 0, 3 + 4 * (1 << 21), "flags")
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
        following=flags >> 2,
        attributes=attributes,
        bound=None if bound is None else _bound_of(bound),
    )
    if len(header.value_ranges) > 1 or type(value_range) is bytes:
        require(header.axes[0].kind == "slice", "slices have ranges of their own")
        require(len(header.value_ranges) == header.sizes[0], "there are as many value ranges as slices")
    samples = math.prod(header.sizes)
    require(samples <= 1 << 40, "a signal has at most 2^40 samples")
    if header.on_sphere:
        places = [axis for axis in header.axes[-2:] if axis.points is not None and axis.kind != "slice"]
        require(len(places) == 2, "a signal on a sphere has latitudes and longitudes")
    if header.bound is not None:
        require(2.0**-1000 <= header.bound.error <= 2.0**1000, "a bound is 2^-1000..2^1000")
        require(samples * header.channels < 1 << 31, "a signal with a bound has fewer than 2^31 values")
        if header.bound.steps is not None:
            require(header.axes[0].kind == "slice", "slices have bounds of their own")
            require(len(header.bound.steps) == header.sizes[0], "there are as many bounds as slices")
        if header.bound.knee is not None:
            require(2.0**-30 <= header.bound.error < 1, "a share is 2^-30 to less than 1")
            require(2.0**-1000 <= header.bound.knee <= 2.0**1000, "m is 2^-1000..2^1000")
            require(type(value_range) is not bytes, "slices have no value ranges beside a share")
    return header


def _bound_of(stored: Any) -> Bound:
    if type(stored) is not list:
        return Bound(_number(stored))
    if len(stored) == 2:
        require(type(stored[1]) is bytes and len(stored[1]) % 2 == 0, "slices have two bytes each")
        return Bound(_number(stored[0]), steps=np.frombuffer(stored[1], "<u2").astype(np.float64))
    require(len(stored) == 3 and type(stored[2]) is bool, "a share is two numbers, and false or true")
    return Bound(_number(stored[0]), knee=_number(stored[1]), linear=stored[2])


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
