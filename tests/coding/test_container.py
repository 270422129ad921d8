"""The container: round trips, its exact bytes, and every way a file can be damaged."""

import zlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import cbor2
import pytest
from headers import CLIMATE, END, FIELDS, HEADERS, IMAGE, SOUND, file_with, header_as_values, header_section, section
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.container import Container, Outline, Stream, read_container, read_outline, write_container
from inrcodec.errors import ContainerError, CorruptFile, NotAnInrFile, TruncatedFile, UnsupportedVersion, UsageError

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


def as_values(container: Container) -> list[Any]:
    streams = [(header_as_values(s.header), s.chunks, s.missing, s.residual) for s in container.streams]
    return [streams, container.initializations]


def outline_of(data: bytes) -> Outline:
    return read_outline(BytesIO(data))


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(HEADERS, st.lists(st.binary(max_size=300), max_size=3), st.binary()),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.binary(max_size=300), max_size=2),
)
def test_containers_round_trip(streams: list[Any], initializations: list[bytes]) -> None:
    container = Container(
        tuple(
            Stream(
                replace(header, name=f"{header.name}{number}", chunks=len(chunks)),
                tuple(chunks),
                mask if header.has_missing else None,
                None if header.max_error is None else mask[::-1],
            )
            for number, (header, chunks, mask) in enumerate(streams)
        ),
        tuple(initializations),
    )
    data = write_container(container)
    assert as_values(read_container(data)) == as_values(container)
    outline = outline_of(data)
    assert list(map(header_as_values, outline.headers)) == [header_as_values(each.header) for each in container.streams]
    assert outline.embedded == len(initializations)
    assert sum(part.size for part in outline.sizes) == len(data)


def test_golden_bytes() -> None:
    """Written in the format's first version: never to be changed."""
    data = bytes.fromhex(GOLDEN)
    assert write_container(SMALL) == data
    assert as_values(read_container(data)) == as_values(SMALL)


def test_section_sizes_name_every_part() -> None:
    data = write_container(LARGE)
    parts = outline_of(data).sizes
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
            outline_of(data[:size])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.booleans())
def test_random_bytes_raise_nothing_else(content: bytes, checksummed: bool) -> None:
    data = file_with(section(b"S", content[:127]), END) if checksummed else b"\xf1INR" + content
    with pytest.raises(ContainerError):
        read_container(data)


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
    named = header_section([*FIELDS, None, "other"])
    with_bound = header_section([*FIELDS[:6], 1, b"", None, "", 0, {}, 0.5])
    assert len(read_container(file_with(embedded, one_chunk, chunk, named, END)).streams) == 2
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


def large_header(name: str, items: int) -> bytes:
    return header_section([*FIELDS, None, name, 0, {"many": [0] * items}])


def test_the_headers_of_a_file_share_one_budget() -> None:
    for counts in ([40_000], [20_000, 20_000], [10_000] * 6):
        headers = [large_header(f"{number}", count) for number, count in enumerate(counts)]
        assert len(read_container(file_with(*headers, END)).streams) == len(counts)
    for counts in ([70_000], [40_000, 40_000], [10_000] * 7):
        headers = [large_header(f"{number}", count) for number, count in enumerate(counts)]
        with pytest.raises(CorruptFile, match="more than 65536 values"):
            read_container(file_with(*headers, END))


def test_the_headers_of_a_file_share_one_size() -> None:
    """Of their content when inflated."""
    deflated = [
        section(b"S", payload)
        for name in "ab"
        for payload in [b"\1" + zlib.compress(cbor2.dumps([*FIELDS, None, name, 0, {"raw": bytes(9 << 20)}]), 1)]
    ]
    read_container(file_with(deflated[0], END))
    read_container(file_with(deflated[1], END))
    with pytest.raises(CorruptFile, match="more than"):
        read_container(file_with(*deflated, END))


def test_no_file_is_written_that_could_not_be_read() -> None:
    """Each header alone is small enough."""
    many = {"many": [0] * 40_000}
    streams = [Stream(replace(SOUND, name=name, attributes=many), ()) for name in "ab"]
    for stream in streams:
        read_container(write_container(Container((stream,))))
    with pytest.raises(UsageError, match="65536"):
        write_container(Container(tuple(streams)))


def test_names_tell_the_signals_of_a_file_apart() -> None:
    streams = (Stream(SOUND, ()), Stream(replace(SOUND, channels=2), ()))
    with pytest.raises(UsageError, match=r"different names, not .*'sound', 'sound'"):
        write_container(Container(streams))
    for name in ("", "sound"):
        header = header_section([*FIELDS, None, name])
        other = header_section([*FIELDS, None, f"{name}."])
        assert len(read_container(file_with(header, other, END)).streams) == 2
        with pytest.raises(CorruptFile, match=f"two signals are called '{name}'"):
            read_container(file_with(header, other, header, END))


def test_streams_that_disagree_with_their_header() -> None:
    for stream in (Stream(IMAGE, (b"one",)), Stream(IMAGE, (b"one", b"two"), b"mask")):
        with pytest.raises(UsageError):
            write_container(Container((stream,)))
    with pytest.raises(UsageError):
        write_container(Container(()))
