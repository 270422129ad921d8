"""The container: round trips, its exact bytes, and every way a file can be damaged."""

import math
import zlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.container import Container, Stream, read_container, section_sizes, write_container
from inrcodec.coding.header import StreamHeader, pack_header, unpack_header
from inrcodec.coding.missing import pack_missing, unpack_missing
from inrcodec.errors import ContainerError, CorruptFile, NotAnInrFile, TruncatedFile, UnsupportedVersion, UsageError
from inrcodec.signals.signal import Axis

IMAGE = StreamHeader(
    modality="image",
    initialization=b"\1\2\3\4\5\6\7\x08",
    dtype="|u1",
    axes=(Axis(512), Axis(768)),
    channels=3,
    value_range=(0.0, 255.0),
    steps=(-20, -12, 3, 40),
    shifts=(0, 0, 0, 0),
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
    steps=(5,) * 6,
    shifts=(-3, 0, 127, -128, 1, 2),
    patches_per_chunk=1,
    has_missing=True,
    attributes={"units": "K", "levels": [1, 2.5, None, True, -(2**63)], "nested": {"raw": b"\0\xff"}},
    chunks=1,
)
SOUND = replace(
    IMAGE,
    modality="audio",
    dtype="<i2",
    axes=(Axis(2, "slice"), Axis(44_100, "start", rate=Fraction(44_100))),
    channels=1,
    value_range=(-32768.0, 32767.0),
    chunks=0,
)
SMALL = Container((Stream(IMAGE, (b"first", b"")),))
LARGE = Container(
    (
        Stream(replace(CLIMATE, max_error=0.25), (b"chunk",), b"mask", b"residual"),
        Stream(SOUND, ()),
        Stream(IMAGE, (b"first", b"second")),
    ),
    (b"embedded", b""),
)

GOLDEN = (
    "f1494e5201531d255fe85800880048010203040506070800821902001903000318400244ecf4032843056338"
    "11ec66697273744300390e8d9a4500bfa9d7cc"
)


def header_as_values(header: StreamHeader) -> dict[str, Any]:
    axes = [
        (axis.size, axis.kind, axis.rate, None if axis.points is None else axis.points.tobytes())
        for axis in header.axes
    ]
    return vars(header) | {"axes": axes}


def as_values(container: Container) -> list[Any]:
    streams = [(header_as_values(s.header), s.chunks, s.missing, s.residual) for s in container.streams]
    return [streams, container.initializations]


def section(kind: bytes, payload: bytes, length: bytes | None = None) -> bytes:
    start = kind + (bytes([len(payload)]) if length is None else length)
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


@st.composite
def points(draw: st.DrawFn, size: int) -> np.ndarray:
    first = draw(st.floats(-180, 180))
    step = draw(st.sampled_from([0.25, -0.25, 0.1, -1 / 3, 2.8125]))
    kind = draw(st.sampled_from(["line", "steps", "single", "uneven", "uneven single"]))
    index = np.arange(size, dtype=np.float64)
    if kind == "line":
        return np.linspace(first, first + step * size, size)
    if kind == "steps":
        return first + step * index
    if kind == "single":
        return np.linspace(first, first + step * size, size).astype(np.float32).astype(np.float64)
    uneven = first + np.sign(step) * (index + index**2 / (10 * size))
    return uneven.astype(np.float32).astype(np.float64) if kind == "uneven single" else uneven


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    kind = draw(st.sampled_from(["cell", "start", "node", "periodic", "slice"]))
    size = draw(st.integers(1, 40))
    if kind == "start":
        return Axis(size, kind, rate=draw(st.fractions(Fraction(1, 1000), 10**9, max_denominator=10**6)))
    return Axis(size, kind, points=draw(st.none() | points(size)))


@st.composite
def headers(draw: st.DrawFn) -> StreamHeader:
    grid = draw(st.lists(axes(), min_size=1, max_size=4))
    low, high = sorted(draw(st.sets(st.floats(-1e6, 1e6) | st.integers(-9, 9).map(float), min_size=2, max_size=2)))
    steps = draw(st.lists(st.integers(-128, 127), max_size=12))
    shifts = draw(st.lists(st.integers(-128, 127), min_size=len(steps), max_size=len(steps)))
    channels = draw(st.integers(1, 4096))
    few = math.prod(axis.size for axis in grid) * channels < 2**31
    return StreamHeader(
        modality=draw(st.sampled_from(["image", "video", "audio", "climate"])),
        name=draw(st.text(max_size=6)),
        initialization=draw(st.binary(min_size=8, max_size=8)),
        dtype=draw(st.sampled_from(["|u1", "<u2", "<u4", "|i1", "<i2", "<i4", "<f2", "<f4", "<f8"])),
        axes=tuple(grid),
        channels=channels,
        value_range=draw(st.sampled_from([(low, high), (0.0, 255.0), (0.0, 65535.0), (-0.0, 1.0)])),
        sphere=len(grid) > 1 and all(axis.points is not None and axis.kind != "slice" for axis in grid[-2:]),
        steps=tuple(steps),
        shifts=draw(st.sampled_from([tuple(shifts), (0,) * len(steps)])),
        patches_per_chunk=draw(st.integers(1, 2**31)),
        has_missing=draw(st.booleans()),
        attributes=draw(st.dictionaries(st.text(max_size=4), plain_values, max_size=3)),
        chunks=draw(st.integers(0, 2**31)),
        max_error=draw(st.none() | st.sampled_from([1.0, 0.1, 2.0**-1000, 2.0**1000])) if few else None,
    )


@settings(deadline=None, max_examples=60)
@given(headers())
def test_headers_round_trip(header: StreamHeader) -> None:
    payload = pack_header(header)
    again = unpack_header(payload)
    assert repr(header_as_values(again)) == repr(header_as_values(header))  # repr tells 1 from 1.0, -0.0 from 0.0
    assert pack_header(again) == payload


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(headers(), st.lists(st.binary(max_size=300), max_size=3), st.binary()),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.binary(max_size=300), max_size=2),
)
def test_containers_round_trip(streams: list[Any], initializations: list[bytes]) -> None:
    container = Container(
        tuple(
            Stream(
                replace(h, chunks=len(chunks)),
                tuple(chunks),
                mask if h.has_missing else None,
                None if h.max_error is None else mask[::-1],
            )
            for h, chunks, mask in streams
        ),
        tuple(initializations),
    )
    data = write_container(container)
    assert as_values(read_container(data)) == as_values(container)
    assert sum(part.size for part in section_sizes(data)) == len(data)


def test_golden_bytes() -> None:
    """Written in the format's first version: never to be changed."""
    data = bytes.fromhex(GOLDEN)
    assert write_container(SMALL) == data
    assert as_values(read_container(data)) == as_values(SMALL)


def test_an_ordinary_image_needs_few_bytes() -> None:
    assert len(pack_header(IMAGE)) <= 25 + len(IMAGE.steps)
    assert len(write_container(replace(SMALL, streams=(Stream(replace(IMAGE, chunks=1), (b"",)),)))) <= 52


def test_regular_latitudes_and_longitudes_need_few_bytes() -> None:
    for values in (np.linspace(90, -90, 721), np.arange(1440) * 0.25, np.linspace(-9.9, 9.9, 100)):
        single = values.astype(np.float32).astype(np.float64)
        for axis in (Axis(len(values), "node", points=values), Axis(len(values), "node", points=single)):
            assert len(pack_header(replace(IMAGE, axes=(axis,)))) < 60


def test_a_large_header_is_deflated() -> None:
    header = replace(IMAGE, attributes={"history": "converted, " * 1000})
    payload = pack_header(header)
    assert payload[0] == 1 and len(payload) < 200
    assert unpack_header(payload).attributes == header.attributes


def test_section_sizes_name_every_part() -> None:
    data = write_container(LARGE)
    parts = section_sizes(data)
    assert [(label, stream) for label, stream, _ in parts] == [
        ("preamble", None),
        ("initialization", None),
        ("initialization", None),
        ("header", 0),
        ("missing mask", 0),
        ("chunk", 0),
        ("residual", 0),
        ("header", 1),
        ("header", 2),
        ("chunk", 2),
        ("chunk", 2),
        ("end", None),
    ]
    assert sum(part.size for part in parts) == len(data)
    assert parts[-2].size == len(b"second") + 6


@pytest.mark.parametrize("container", [SMALL, LARGE], ids=["small", "large"])
def test_every_flipped_bit_is_noticed(container: Container) -> None:
    data = write_container(container)
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ContainerError):
            read_container(bytes(damaged))


@pytest.mark.parametrize("container", [SMALL, LARGE], ids=["small", "large"])
def test_every_truncation_is_noticed(container: Container) -> None:
    data = write_container(container)
    for size in range(len(data)):
        with pytest.raises(TruncatedFile if size >= 4 else NotAnInrFile):
            read_container(data[:size])
        with pytest.raises(TruncatedFile if size >= 4 else NotAnInrFile):
            section_sizes(data[:size])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.booleans())
def test_random_bytes_raise_nothing_else(content: bytes, checksummed: bool) -> None:
    data = file_with(section(b"S", content[:127]), END) if checksummed else b"\xf1INR" + content
    with pytest.raises(ContainerError):
        read_container(data)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 1), st.integers(0, 40), st.integers(0, 40))
def test_damaged_headers_with_good_checksums(noise: bytes, deflated: int, begin: int, end: int) -> None:
    content = cbor2.dumps([*FIELDS, None, None, "name", 0, {"key": [1, 2.5, b"x"]}])
    content = content[:begin] + noise + content[end:]
    try:
        header = unpack_header(bytes([deflated]) + (zlib.compress(content) if deflated else content))
    except CorruptFile:
        return
    pack_header(header)


def test_what_is_not_an_inr_file() -> None:
    for data in (b"", b"\xf1", b"INR\xf1\1", b"\x89PNG\r\n\x1a\n", b"\xc3\xb1INR\1"):
        with pytest.raises(NotAnInrFile):
            read_container(data)
    with pytest.raises(UnsupportedVersion, match="version 2"):
        read_container(b"\xf1INR\2")
    with pytest.raises(CorruptFile, match="version 0"):
        read_container(b"\xf1INR\0")


def test_sections_in_another_order_are_corrupt() -> None:
    header, one_chunk = header_section(FIELDS), header_section([*FIELDS[:6], 1, b""])
    chunk, mask, embedded, residual = (section(kind, b"x") for kind in (b"C", b"M", b"I", b"R"))
    with_bound = header_section([*FIELDS[:6], 1, b"", None, None, "", 0, {}, 0.5])
    assert len(read_container(file_with(embedded, one_chunk, chunk, header, END)).streams) == 2
    assert read_container(file_with(with_bound, chunk, residual, END)).streams[0].residual == b"x"
    for sections in (
        [END],
        [embedded, END],
        [chunk, END],
        [header, chunk, END],
        [header, mask, END],
        [header, residual, END],
        [with_bound, chunk, END],
        [with_bound, residual, chunk, END],
        [with_bound, chunk, residual, residual, END],
        [header, embedded, END],
        [one_chunk, END],
        [one_chunk, mask, chunk, END],
        [one_chunk, header, chunk, END],
        [header, END, b"\0"],
        [header, END, END],
        [header, section(b"X", b""), END],
        [header, section(b"E", b"x")],
    ):
        with pytest.raises(CorruptFile):
            read_container(file_with(*sections))


def test_lengths_are_not_believed() -> None:
    header = header_section(FIELDS)
    for length, error in (
        (b"\x80\x00", CorruptFile),  # 0 in two bytes
        (b"\x81\x80\x80\x80\x80\x20", CorruptFile),  # 2^40 + 1
        (b"\x80\x80\x80\x80\x80\x20", TruncatedFile),  # 2^40
        (b"\xff" * 9, ContainerError),
    ):
        with pytest.raises(error):
            read_container(file_with(header, section(b"C", b"", length), END))


BAD_FIELDS: dict[str, Any] = {
    "not a list": {"a": 1},
    "too few": FIELDS[:7],
    "too many": [*FIELDS, None, None, "", 0, {}, 1, 0],
    "modality": [4, *FIELDS[1:]],
    "negative modality": [-1, *FIELDS[1:]],
    "boolean modality": [False, *FIELDS[1:]],
    "short identifier": [0, b"1234567", *FIELDS[2:]],
    "text identifier": [0, "12345678", *FIELDS[2:]],
    "dtype": [*FIELDS[:2], 9, *FIELDS[3:]],
    "no axes": [*FIELDS[:3], [], *FIELDS[4:]],
    "nine axes": [*FIELDS[:3], [1] * 9, *FIELDS[4:]],
    "axes": [*FIELDS[:3], 4, *FIELDS[4:]],
    "axis size 0": [*FIELDS[:3], [0, 5], *FIELDS[4:]],
    "axis size": [*FIELDS[:3], [2**31 + 1], *FIELDS[4:]],
    "axis size real": [*FIELDS[:3], [4.0], *FIELDS[4:]],
    "samples": [*FIELDS[:3], [2**21, 2**20], *FIELDS[4:]],
    "axis kind": [*FIELDS[:3], [[4, 5]], *FIELDS[4:]],
    "axis without kind": [*FIELDS[:3], [[4]], *FIELDS[4:]],
    "axis with more": [*FIELDS[:3], [[4, 0, [0, 1, 2], 7]], *FIELDS[4:]],
    "rate missing": [*FIELDS[:3], [[4, 1]], *FIELDS[4:]],
    "rate 0": [*FIELDS[:3], [[4, 1, 0, 1]], *FIELDS[4:]],
    "rate by 0": [*FIELDS[:3], [[4, 1, 1, 0]], *FIELDS[4:]],
    "rate real": [*FIELDS[:3], [[4, 1, 2.5, 1]], *FIELDS[4:]],
    "rate huge": [*FIELDS[:3], [[4, 1, 2**63, 1]], *FIELDS[4:]],
    "points rule": [*FIELDS[:3], [[4, 2, [3, 0, 1]]], *FIELDS[4:]],
    "points real rule": [*FIELDS[:3], [[4, 2, [0.0, 0, 1]]], *FIELDS[4:]],
    "points infinite": [*FIELDS[:3], [[4, 2, [0, 0, float("inf")]]], *FIELDS[4:]],
    "points not a number": [*FIELDS[:3], [[4, 2, [0, 0, None]]], *FIELDS[4:]],
    "points overflow": [*FIELDS[:3], [[4, 2, [1, 1e308, 1e308]]], *FIELDS[4:]],
    "points overflow line": [*FIELDS[:3], [[4, 2, [0, -1e308, 1e308]]], *FIELDS[4:]],
    "points overflow single": [*FIELDS[:3], [[4, 2, [2, 0, 1e300]]], *FIELDS[4:]],
    "points constant": [*FIELDS[:3], [[4, 2, [1, 5, 0]]], *FIELDS[4:]],
    "points bytes": [*FIELDS[:3], [[4, 2, bytes(15)]], *FIELDS[4:]],
    "points unordered": [*FIELDS[:3], [[2, 2, np.float64([np.nan, 1]).tobytes()]], *FIELDS[4:]],
    "points many": [*FIELDS[:3], [[2**31, 2, [0, 0, 1]]], *FIELDS[4:]],
    "channels 0": [*FIELDS[:4], 0, *FIELDS[5:]],
    "channels": [*FIELDS[:4], 4097, *FIELDS[5:]],
    "patches": [*FIELDS[:5], 0, *FIELDS[6:]],
    "chunks": [*FIELDS[:6], -1, *FIELDS[7:]],
    "steps": [*FIELDS[:7], [1, 2]],
    "steps many": [*FIELDS[:7], bytes(4097)],
    "shifts": [*FIELDS[:7], b"\1", b"\1\2"],
    "range order": [*FIELDS, None, [1, 0]],
    "range empty": [*FIELDS, None, [1, 1]],
    "range infinite": [*FIELDS, None, [0, float("inf")]],
    "range nan": [*FIELDS, None, [0, float("nan")]],
    "range length": [*FIELDS, None, [0, 1, 2]],
    "range type": [*FIELDS, None, 7],
    "range missing": [*FIELDS[:2], 7, *FIELDS[3:]],
    "name": [*FIELDS, None, None, 5],
    "flags": [*FIELDS, None, None, "", 4],
    "flags type": [*FIELDS, None, None, "", True],
    "sphere": [*FIELDS, None, None, "", 1],
    "attributes": [*FIELDS, None, None, "", 0, [1]],
    "attributes key": [*FIELDS, None, None, "", 0, {1: 2}],
    "largest error 0": [*FIELDS, None, None, "", 0, {}, 0],
    "largest error negative": [*FIELDS, None, None, "", 0, {}, -0.5],
    "largest error tiny": [*FIELDS, None, None, "", 0, {}, 2.0**-1001],
    "largest error huge": [*FIELDS, None, None, "", 0, {}, 2.0**1001],
    "largest error infinite": [*FIELDS, None, None, "", 0, {}, float("inf")],
    "largest error type": [*FIELDS, None, None, "", 0, {}, "1"],
    "largest error of many values": [*FIELDS[:3], [2**16, 2**15], 1, *FIELDS[5:], None, None, "", 0, {}, 1],
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_bad_fields_are_corrupt(fields: Any) -> None:
    payload = b"\0" + cbor2.dumps(fields)
    with pytest.raises(CorruptFile, match=r"stream header has .* obtain the file again"):
        unpack_header(payload)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x88",  # array of 8 items that do not come
        b"\x9b" + b"\xff" * 8,  # array of 2^64 - 1
        b"\xbb" + b"\xff" * 8,  # map of 2^64 - 1
        b"\x5b" + b"\xff" * 8,  # bytes of 2^64 - 1
        b"\x81" * 100_000 + b"\0",  # nested
        b"\x9f\x00\xff",  # indefinite length
        b"\x80\x00",  # something behind
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that contains itself
        b"\xc4\x82\x1b" + b"\x7f" * 8 + b"\1",  # decimal fraction with a huge exponent
        b"\xd8\x23\x64(a+)",  # regular expression
        b"\xc2\x58\x40" + b"\xff" * 64,  # big integer
        b"\x62\xff\xfe",  # no UTF-8
        b"\xa1\x01\x02",  # integer key
        b"\xf7",  # undefined
        b"\xf8\x20",  # simple value
        b"\x9a\x00\x20\x00\x00" + bytes(2**21),  # 2^21 zeros
    ],
)
def test_hostile_cbor_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptFile):
        unpack_header(b"\0" + content)
    with pytest.raises(CorruptFile):
        unpack_header(b"\1" + zlib.compress(content))


def test_hostile_deflate_is_corrupt() -> None:
    content = cbor2.dumps(FIELDS)
    assert unpack_header(b"\1" + zlib.compress(content)).channels == 3
    bomb = zlib.compress(bytes(2**26 + 1), 9)
    for payload in (
        b"",
        b"\2" + content,
        b"\1" + zlib.compress(content)[:-1],
        b"\1" + zlib.compress(content) + b"x",
        b"\1" + content,
        b"\1" + bomb,
    ):
        with pytest.raises(CorruptFile):
            unpack_header(payload)


@pytest.mark.parametrize(
    "change",
    [
        {"modality": "text"},
        {"initialization": b"short"},
        {"dtype": ">u2"},
        {"axes": ()},
        {"axes": (Axis(4, "start"),)},
        {"axes": (Axis(4, "cell", rate=Fraction(1)),)},
        {"axes": (Axis(4, "node", points=np.array([1.0, 2.0, 2.0, 3.0])),)},
        {"axes": (Axis(4, "node", points=np.array([1.0, np.inf])),)},
        {"channels": 0},
        {"value_range": (1.0, 0.0)},
        {"steps": (1, 200), "shifts": (0, 0)},
        {"shifts": (1,)},
        {"patches_per_chunk": 0},
        {"sphere": True},
        {"attributes": {"when": np.float64(1)}},
        {"attributes": {"tuple": (1, 2)}},
        {"attributes": {1: 2}},
        {"attributes": {"big": 2**64}},
        {"attributes": {"text": "\ud800"}},
        {"attributes": {"many": [0] * 2**20}},
    ],
)
def test_headers_the_format_cannot_hold(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        pack_header(replace(IMAGE, **change))


def test_nested_attributes() -> None:
    value: Any = []
    for _ in range(13):
        value = [value]
    unpack_header(pack_header(replace(IMAGE, attributes={"deep": value})))
    value.append(value)
    with pytest.raises(UsageError, match="nested"):
        pack_header(replace(IMAGE, attributes={"endless": value}))


def test_streams_that_disagree_with_their_header() -> None:
    for stream in (Stream(IMAGE, (b"one",)), Stream(IMAGE, (b"one", b"two"), b"mask")):
        with pytest.raises(UsageError):
            write_container(Container((stream,)))
    with pytest.raises(UsageError):
        write_container(Container(()))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_masks_round_trip(shape: list[int], seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.3
    again = unpack_missing(pack_missing(mask), mask.shape)
    assert again.dtype == bool and np.array_equal(again, mask)


def test_a_constant_coast_costs_one_slice() -> None:
    coast = np.random.default_rng(0).random((60, 120)) < 0.5
    slices = np.broadcast_to(coast, (50, 60, 120))
    assert len(pack_missing(slices)) < 1.3 * len(pack_missing(slices[:1]))


def test_damaged_masks_are_corrupt() -> None:
    mask = np.zeros((3, 7), bool)
    mask[1, 2:] = True
    data = pack_missing(mask)
    for damaged in (b"", data[:-1], data + b"x", b"x" + data, pack_missing(np.zeros((4, 7), bool))):
        with pytest.raises(CorruptFile):
            unpack_missing(damaged, mask.shape)
    for shape in ((4, 8), (2, 7)):
        with pytest.raises(CorruptFile):
            unpack_missing(data, shape)
    with pytest.raises(CorruptFile):
        unpack_missing(zlib.compress(b"\0\0\1"), mask.shape)  # a padding bit
    with pytest.raises(CorruptFile):
        unpack_missing(zlib.compress(bytes(2**26), 9), mask.shape)
