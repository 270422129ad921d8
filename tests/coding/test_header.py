"""Stream headers: round trips, one spelling of everything, and every way one can be wrong."""

import zlib
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cbor2
import numpy as np
import pytest
from headers import FIELDS, HEADERS, IMAGE, header_as_values
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding import plain
from inrcodec.coding.container import Container, Stream, write_container
from inrcodec.coding.header import StreamHeader, pack_header, unpack_header
from inrcodec.coding.plain import Budget
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.signals.signal import Axis


@settings(deadline=None, max_examples=60)
@given(HEADERS)
def test_headers_round_trip(header: StreamHeader) -> None:
    payload = pack_header(header)
    again = unpack_header(payload, Budget())
    assert repr(header_as_values(again)) == repr(header_as_values(header))  # repr tells 1 from 1.0, -0.0 from 0.0
    assert pack_header(again) == payload


def test_an_ordinary_image_needs_few_bytes() -> None:
    assert len(pack_header(IMAGE)) <= 25 + len(IMAGE.coding)
    assert len(write_container(Container((Stream(replace(IMAGE, chunks=1), (b"",)),)))) <= 52


def test_regular_latitudes_and_longitudes_need_few_bytes() -> None:
    for values in (np.linspace(90, -90, 721), np.arange(1440) * 0.25, np.linspace(-9.9, 9.9, 100)):
        single = values.astype(np.float32).astype(np.float64)
        for axis in (Axis(len(values), "node", points=values), Axis(len(values), "node", points=single)):
            assert len(pack_header(replace(IMAGE, axes=(axis,)))) < 60


def test_a_large_header_is_deflated() -> None:
    header = replace(IMAGE, attributes={"history": "converted, " * 1000})
    payload = pack_header(header)
    assert payload[0] == 1 and len(payload) < 200
    assert unpack_header(payload, Budget()).attributes == header.attributes


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 1), st.integers(0, 40), st.integers(0, 40))
def test_damaged_headers_with_good_checksums(noise: bytes, deflated: int, begin: int, end: int) -> None:
    content = cbor2.dumps([*FIELDS, None, "name", 0, {"key": [1, 2.5, b"x"]}])
    content = content[:begin] + noise + content[end:]
    try:
        header = unpack_header(bytes([deflated]) + (zlib.compress(content) if deflated else content), Budget())
    except CorruptFile:
        return
    pack_header(header)


BAD_FIELDS: dict[str, Any] = {
    "not a list": {"a": 1},
    "too few": FIELDS[:7],
    "too many": [*FIELDS, None, "", 0, {}, 1, 0],
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
    "coding parameters": [*FIELDS[:7], [1, 2]],
    "coding parameters as text": [*FIELDS[:7], "12"],
    "coding parameters many": [*FIELDS[:7], bytes(8193)],
    "range as bytes": [*FIELDS, b"\1\2"],
    "range beyond floats": [*FIELDS, [-1.7e308, 1.7e308]],
    "range order": [*FIELDS, [1, 0]],
    "range empty": [*FIELDS, [1, 1]],
    "range infinite": [*FIELDS, [0, float("inf")]],
    "range nan": [*FIELDS, [0, float("nan")]],
    "range length": [*FIELDS, [0, 1, 2]],
    "range type": [*FIELDS, 7],
    "range missing": [*FIELDS[:2], 7, *FIELDS[3:]],
    "name": [*FIELDS, None, 5],
    "flags": [*FIELDS, None, "", 4 + (4 << 21)],
    "flags type": [*FIELDS, None, "", True],
    "sphere": [*FIELDS, None, "", 1],
    "attributes": [*FIELDS, None, "", 0, [1]],
    "attributes key": [*FIELDS, None, "", 0, {1: 2}],
    "largest error 0": [*FIELDS, None, "", 0, {}, 0],
    "largest error negative": [*FIELDS, None, "", 0, {}, -0.5],
    "largest error tiny": [*FIELDS, None, "", 0, {}, 2.0**-1001],
    "largest error huge": [*FIELDS, None, "", 0, {}, 2.0**1001],
    "largest error infinite": [*FIELDS, None, "", 0, {}, float("inf")],
    "largest error type": [*FIELDS, None, "", 0, {}, "1"],
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_bad_fields_are_corrupt(fields: Any) -> None:
    payload = b"\0" + cbor2.dumps(fields)
    with pytest.raises(CorruptFile, match=r"stream header has .* obtain the file again"):
        unpack_header(payload, Budget())


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
        unpack_header(b"\0" + content, Budget())
    with pytest.raises(CorruptFile):
        unpack_header(b"\1" + zlib.compress(content), Budget())


def with_attribute(value: bytes) -> bytes:
    """Return the content of a header with an attribute of this CBOR."""
    return cbor2.dumps([*FIELDS, None, "", 0, {"key": 0}])[:-1] + value


@pytest.mark.parametrize(
    ("usual", "others"),
    [
        (b"\x05", [b"\x18\x05", b"\x19\x00\x05", b"\x1a\x00\x00\x00\x05", b"\x1b" + bytes(7) + b"\x05"]),
        (b"\x18\xff", [b"\x19\x00\xff", b"\x1a\x00\x00\x00\xff", b"\x1b" + bytes(7) + b"\xff"]),
        (b"\x25", [b"\x38\x05", b"\x39\x00\x05"]),
        (b"\x61a", [b"\x78\x01a", b"\x79\x00\x01a", b"\x7f\x61a\xff"]),
        (b"\x41a", [b"\x58\x01a", b"\x5a\x00\x00\x00\x01a"]),
        (b"\x81\x00", [b"\x98\x01\x00", b"\x9f\x00\xff"]),
        (b"\xa1\x61a\x00", [b"\xb8\x01\x61a\x00", b"\xa1\x78\x01a\x00"]),
        (b"\xfb\x3f\xf0" + bytes(6), [b"\xf9\x3c\x00", b"\xfa\x3f\x80\x00\x00"]),
        (b"\xf9\x7c\x00", [b"\xfa\x7f\x80\x00\x00", b"\xfb\x7f\xf0" + bytes(6)]),
        (b"\xf9\x7e\x00", [b"\xf9\x7e\x01", b"\xfb\x7f\xf8" + bytes(6)]),
        (b"\xf5", [b"\xf8\x15"]),
        (b"\xa2\x61a\x00\x61b\x00", [b"\xa2\x61a\x00\x61a\x00", b"\xa2\x61a\x00\x61a\x01"]),
    ],
    ids=["5", "255", "-6", "text", "bytes", "array", "map", "1.0", "infinity", "not a number", "true", "keys"],
)
def test_every_value_has_one_spelling(usual: bytes, others: list[bytes]) -> None:
    """The shortest integers and lengths, the longest floats, and no key twice."""
    content = with_attribute(usual)
    assert pack_header(unpack_header(b"\0" + content, Budget())) == b"\0" + content
    for other in others:
        with pytest.raises(CorruptFile, match=r"stream header has .* obtain the file again"):
            unpack_header(b"\0" + with_attribute(other), Budget())


def test_the_fields_of_a_header_have_one_spelling() -> None:
    content = cbor2.dumps(FIELDS)
    assert content[0] == 0x88
    unpack_header(b"\0" + content, Budget())
    for other in (b"\x98\x08" + content[1:], content[:1] + b"\x18\x00" + content[2:]):
        with pytest.raises(CorruptFile):
            unpack_header(b"\0" + other, Budget())


def test_items_are_counted() -> None:
    """Every value, arrays and keys included."""
    for value, items in ((0, 1), ([], 1), ([0, [0, 0]], 5), ({"a": 0, "b": {"c": 0}}, 7)):
        plain.loads(plain.dumps(value), Budget(items=items))
        with pytest.raises(ValueError, match="more than"):
            plain.loads(plain.dumps(value), Budget(items=items - 1))
    plain.loads(plain.dumps([0] * (2**16 - 1)), Budget())
    with pytest.raises(ValueError, match="more than 65536 values"):
        plain.dumps([0] * 2**16)
    with pytest.raises(ValueError, match="more than 65536 values"):
        plain.loads(cbor2.dumps([0] * 2**16), Budget())


def test_hostile_deflate_is_corrupt() -> None:
    content = cbor2.dumps(FIELDS)
    assert unpack_header(b"\1" + zlib.compress(content), Budget()).channels == 3
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
            unpack_header(payload, Budget())


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
        {"value_range": (-1.7e308, 1.7e308)},
        {"coding": "text"},
        {"coding": (1, 2)},
        {"coding": bytes(8193)},
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
    unpack_header(pack_header(replace(IMAGE, attributes={"deep": value})), Budget())
    value.append(value)
    with pytest.raises(UsageError, match="nested"):
        pack_header(replace(IMAGE, attributes={"endless": value}))
