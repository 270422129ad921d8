"""Headers and sections of `.inr` files for the tests, and strategies that draw them."""

import math
import zlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cbor2
import numpy as np
from hypothesis import strategies as st

from inrcodec.bounds import Bound, ShareBound, SliceBounds
from inrcodec.coding.header import StreamHeader
from inrcodec.coding.varint import write_varint
from inrcodec.signals.signal import Axis

IMAGE = StreamHeader(
    modality="image",
    initialization=b"\1\2\3\4\5\6\7\x08",
    dtype="|u1",
    axes=(Axis(512), Axis(768)),
    channels=3,
    value_range=(0.0, 255.0),
    coding=b"\xec\xf4\x03\x28",
    patches_per_chunk=64,
    chunks=2,
)
LATITUDES = np.linspace(90, -90, 13)
LONGITUDES = np.arange(24) * 15.0
CLIMATE = StreamHeader(
    modality="climate",
    name="t2m",
    initialization=b"climate1",
    dtype="<f4",
    axes=(
        Axis(3, "slice"),
        Axis(13, "node", points=LATITUDES),
        Axis(24, "periodic", points=LONGITUDES),
    ),
    channels=1,
    value_range=(210.5, 310.25),
    sphere=True,
    coding=bytes(range(250, 256)),
    patches_per_chunk=1,
    has_missing=True,
    attributes={"units": "K", "levels": [1, 2.5, None, True, -(2**63)], "nested": {"raw": b"\0\xff"}},
    chunks=1,
)
SOUND = replace(
    IMAGE,
    modality="audio",
    name="sound",
    dtype="<i2",
    axes=(Axis(44_100, "start", rate=Fraction(44_100)), Axis(2, "slice")),
    channels=1,
    value_range=(-32768.0, 32767.0),
    chunks=0,
)


def header_as_values(header: StreamHeader) -> dict[str, Any]:
    axes = [
        (axis.size, axis.kind, axis.rate, None if axis.points is None else axis.points.tobytes())
        for axis in header.axes
    ]
    return vars(header) | {"axes": axes}


def section(kind: bytes, payload: bytes, length: bytes | None = None) -> bytes:
    start = kind + (write_varint(len(payload)) if length is None else length)
    return start + zlib.crc32(start + payload).to_bytes(4, "little") + payload


def file_with(*sections: bytes) -> bytes:
    return b"\xf1INR\1" + b"".join(sections)


def header_section(fields: Any) -> bytes:
    return section(b"S", b"\0" + cbor2.dumps(fields))


END = section(b"E", b"")
FIELDS: list[Any] = [0, b"12345678", 0, [4, 5], 3, 1, 0, b""]
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
# Strategies that depend on nothing are made once: making them takes longer than drawing from them.
STARTS = st.floats(-180, 180)
SPACINGS = st.sampled_from([0.25, -0.25, 0.1, -1 / 3, 2.8125])
WAYS = st.sampled_from(["line", "steps", "single", "uneven", "uneven single"])
KINDS = st.sampled_from(["cell", "start", "node", "periodic", "slice"])
SIZES = st.integers(1, 40)
RATES = st.fractions(Fraction(1, 1000), 10**9, max_denominator=10**6)


@st.composite
def points(draw: st.DrawFn, size: int) -> np.ndarray:
    first, spacing, way = draw(STARTS), draw(SPACINGS), draw(WAYS)
    index = np.arange(size, dtype=np.float64)
    if way == "line":
        return np.linspace(first, first + spacing * size, size)
    if way == "steps":
        return first + spacing * index
    if way == "single":
        return np.linspace(first, first + spacing * size, size).astype(np.float32).astype(np.float64)
    uneven = first + np.sign(spacing) * (index + index**2 / (10 * size))
    return uneven.astype(np.float32).astype(np.float64) if way == "uneven single" else uneven


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    kind, size = draw(KINDS), draw(SIZES)
    if kind == "start":
        return Axis(size, kind, rate=draw(RATES))
    return Axis(size, kind, points=draw(points(size)) if draw(st.booleans()) else None)


FIELDS_OF_HEADERS = st.fixed_dictionaries(
    {
        "modality": st.sampled_from(["image", "video", "audio", "climate"]),
        "name": st.text(max_size=6),
        "initialization": st.binary(min_size=8, max_size=8),
        "dtype": st.sampled_from(["|u1", "<u2", "<u4", "|i1", "<i2", "<i4", "<f2", "<f4", "<f8"]),
        "axes": st.lists(axes(), min_size=1, max_size=4).map(tuple),
        "channels": st.integers(1, 4096),
        "value_range": st.sets(st.floats(-1e6, 1e6) | st.integers(-9, 9).map(float), min_size=2, max_size=2).map(
            lambda ends: tuple(sorted(ends))
        )
        | st.sampled_from([(0.0, 255.0), (0.0, 65535.0), (-0.0, 1.0)]),
        "coding": st.binary(max_size=12),
        "patches_per_chunk": st.integers(1, 2**31),
        "has_missing": st.booleans(),
        "attributes": st.dictionaries(st.text(max_size=4), plain_values, max_size=3),
        "chunks": st.integers(0, 2**31),
        "bound": st.none()
        | st.sampled_from([Bound(1.0), Bound(0.1), Bound(2.0**-1000), Bound(2.0**1000)])
        | st.sampled_from([ShareBound(0.01, 1e-9), ShareBound(2.0**-30, 4.0, linear=True)])
        | st.builds(SliceBounds, st.just(0.5), st.lists(st.integers(0, 65535), max_size=4).map(tuple)),
    }
)


def header_of(fields: dict[str, Any]) -> StreamHeader:
    """Return a header of these fields, but with no bound where there are too many values for one."""
    grid = fields["axes"]
    few = math.prod(axis.size for axis in grid) * fields["channels"] < 2**31
    sphere = len(grid) > 1 and all(axis.points is not None and axis.kind != "slice" for axis in grid[-2:])
    bound = fields["bound"] if few else None
    slices = grid[0].size if grid[0].kind == "slice" else None
    if isinstance(bound, SliceBounds) and len(bound.steps) != slices:
        bound = None
    return StreamHeader(**fields | {"sphere": sphere, "bound": bound})


HEADERS = FIELDS_OF_HEADERS.map(header_of)
