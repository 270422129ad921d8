"""The container: round trips, its exact bytes, and every way a file can be damaged."""

import zlib
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from typing import Any

import cbor2
import numpy as np
import pytest
from headers import CLIMATE, END, FIELDS, HEADERS, IMAGE, SOUND, file_with, header_as_values, header_section, section
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.bounds import Bound
from inrcodec.coding.container import (
    Container,
    Outline,
    Stream,
    read_container,
    read_outline,
    write_container,
)
from inrcodec.coding.sections import MAX_SECTIONS
from inrcodec.errors import ContainerError, CorruptFile, NotAnInrFile, TruncatedFile, UnsupportedVersion, UsageError

SMALL = Container((Stream(IMAGE, (b"first", b"")),))
LARGE = Container(
    (
        Stream(replace(CLIMATE, bound=Bound(0.25)), (b"chunk",), b"mask", b"residual"),
        Stream(SOUND, ()),
        Stream(IMAGE, (b"first", b"second")),
    ),
    (b"embedded", b""),
)
FOLLOWED = 4
"""The flags of a header after which one signal follows."""

GOLDEN = (
    "f1494e5201531d255fe85800880048010203040506070800821902001903000318400244ecf4032843056338"
    "11ec66697273744300390e8d9a4500bfa9d7cc"
)


def as_values(container: Container) -> list[Any]:
    streams = [(header_as_values(s.header), s.chunks, s.missing, s.residual) for s in container.streams]
    return [streams, container.initializations]


def numbered(container: Container) -> Container:
    """Return a container whose headers say how many signals follow, as those that are read do."""
    count = len(container.streams)
    streams = (
        replace(stream, header=replace(stream.header, following=count - number))
        for number, stream in enumerate(container.streams, 1)
    )
    return replace(container, streams=tuple(streams))


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
                None if header.bound is None else mask[::-1],
            )
            for number, (header, chunks, mask) in enumerate(streams)
        ),
        tuple(initializations),
    )
    data = write_container(container)
    expected = numbered(container)
    assert as_values(read_container(data)) == as_values(expected)
    outline = outline_of(data)
    assert list(map(header_as_values, outline.headers)) == [header_as_values(each.header) for each in expected.streams]
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
    first = header_section([*FIELDS[:6], 1, b"", None, "", FOLLOWED])
    chunk, mask, embedded, residual = (section(kind, b"x") for kind in (b"C", b"M", b"I", b"R"))
    named = header_section([*FIELDS, None, "other"])
    with_bound = header_section([*FIELDS[:6], 1, b"", None, "", 0, {}, 0.5])
    assert len(read_container(file_with(embedded, first, chunk, named, END)).streams) == 2
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
        [first, named, chunk, END],
        [first, chunk, END],
        [one_chunk, chunk, named, END],
        [first, chunk, header_section([*FIELDS, None, "other", FOLLOWED]), END],
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


def large_headers(counts: list[int]) -> list[bytes]:
    """Return the headers of a file, whose attributes have so many items."""
    return [
        header_section([*FIELDS, None, f"{number}", FOLLOWED * (len(counts) - number - 1), {"many": [0] * items}])
        for number, items in enumerate(counts)
    ]


def test_the_headers_of_a_file_share_one_budget() -> None:
    for counts in ([40_000], [20_000, 20_000], [10_000] * 6):
        headers = large_headers(counts)
        assert len(read_container(file_with(*headers, END)).streams) == len(counts)
    for counts in ([70_000], [40_000, 40_000], [10_000] * 7):
        headers = large_headers(counts)
        with pytest.raises(CorruptFile, match="more than 65536 values"):
            read_container(file_with(*headers, END))


def test_the_headers_of_a_file_share_one_growth() -> None:
    """By which their content is longer when it is inflated."""
    deflated = [
        section(b"S", payload)
        for name, flags in (("a", FOLLOWED), ("b", 0), ("c", 0))
        for payload in [b"\1" + zlib.compress(cbor2.dumps([*FIELDS, None, name, flags, {"raw": bytes(9 << 20)}]), 1)]
    ]
    for alone in deflated[1:]:
        read_container(file_with(alone, END))
    with pytest.raises(CorruptFile, match="more than"):
        read_container(file_with(*deflated[:2], END))


def test_a_header_may_have_what_the_file_has() -> None:
    """Masks of zeros and bounds of cells take no more memory than their bytes in the file."""
    raw = np.random.default_rng(0).bytes(20 << 20)
    stream = Stream(replace(SOUND, attributes={"raw": raw}), ())
    assert read_container(write_container(Container((stream,)))).streams[0].header.attributes["raw"] == raw
    with pytest.raises(UsageError, match="more content than"):
        write_container(Container((Stream(replace(SOUND, attributes={"raw": bytes(20 << 20)}), ()),)))


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
        first = header_section([*FIELDS, None, name, FOLLOWED])
        header, other = (header_section([*FIELDS, None, each]) for each in (name, f"{name}."))
        assert len(read_container(file_with(first, other, END)).streams) == 2
        with pytest.raises(CorruptFile, match=f"two signals are called '{name}'"):
            read_container(file_with(first, header, END))


def test_streams_that_disagree_with_their_header() -> None:
    for stream in (Stream(IMAGE, (b"one",)), Stream(IMAGE, (b"one", b"two"), b"mask")):
        with pytest.raises(UsageError):
            write_container(Container((stream,)))
    with pytest.raises(UsageError):
        write_container(Container(()))


PAYLOADS = tuple(bytes([number]) * (20 + number) for number in range(6))
SIX = Container(
    (
        Stream(replace(IMAGE, chunks=6, bound=Bound(0.5)), PAYLOADS, residual=b"residual"),
        Stream(SOUND, ()),
    )
)


def places_of(data: bytes) -> list[int]:
    """Return where the sections of a file begin, and the end of the last."""
    sizes = [part.size for part in outline_of(data).sizes]
    return [sum(sizes[: number + 1]) for number in range(len(sizes))]


def salvaged(data: bytes) -> Container:
    return read_container(data, skip_damaged=True)


def zeroed(data: bytes, begin: int, end: int) -> bytes:
    return data[:begin] + bytes(end - begin) + data[end:]


@pytest.mark.parametrize("cut", [False, True])
def test_chunks_that_are_not_there_take_no_memory(cut: bool) -> None:
    header = header_section([0, b"12345678", 0, [1 << 15, 1 << 15], 3, 1, 20_000_000, b""])
    data = file_with(header, *([] if cut else [END]))
    for read in (read_container, salvaged, outline_of):
        with pytest.raises(ContainerError):
            read(data)
    with pytest.raises(CorruptFile, match=f"20000000 chunks, more than {MAX_SECTIONS}"):
        salvaged(data)


def test_the_chunks_of_all_signals_are_counted_together() -> None:
    fields = [0, b"12345678", 0, [1 << 15, 1 << 15], 3, 1, MAX_SECTIONS * 2 // 3, b""]
    damaged = section(b"C", b"xy")[:-1] + b"z" + b"\0\0\0"
    headers = header_section([*fields, None, "", FOLLOWED]), header_section([*fields, None, "other"])
    with pytest.raises(CorruptFile, match="chunks, more than"):
        salvaged(file_with(headers[0], damaged, headers[1], damaged, END))


def test_more_chunks_than_samples_are_not_made_up() -> None:
    with pytest.raises(CorruptFile, match="fewer samples than its 21 chunks"):
        salvaged(file_with(header_section([*FIELDS[:6], 21, b""])))


@pytest.mark.parametrize("container", [SMALL, LARGE, SIX], ids=["small", "large", "six"])
def test_whole_files_are_salvaged_as_they_are(container: Container) -> None:
    read = salvaged(write_container(container))
    assert as_values(read) == as_values(numbered(container))
    assert not (read.cut or read.mended or read.lost or read.lacks_initializations)


def test_damage_at_the_end_is_no_loss() -> None:
    data = write_container(SIX)
    flipped = [data[:-1] + bytes([data[-1] ^ 1]), data[:-6] + b"D" + data[-5:], data[:-5] + b"\1" + data[-4:]]
    for damaged in (*flipped, data + b"\0", data + data):
        read = salvaged(damaged)
        assert as_values(read) == as_values(numbered(SIX)) and read.mended and not read.cut and not read.lost


def test_a_flipped_bit_costs_one_section_at_most() -> None:
    """Headers are mended where their kind or length is damaged; a signal is lost where it is their content."""
    data = write_container(SIX)
    places = places_of(data)
    for position in range(8 * places[0], 8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        number, begin = max((number, place) for number, place in enumerate(places) if place <= position // 8)
        read = salvaged(bytes(damaged))
        beyond_mending = position // 8 > begin + 1
        if beyond_mending and number in (0, 8):
            assert [stream.header.name for stream in read.streams] == ["sound" if number == 0 else ""]
            (lost,) = read.lost
            assert (
                "header of the file is damaged" in lost if number == 0 else lost == "1 signal is lost after the image"
            )
            assert number == 0 or read.streams[0].chunks == PAYLOADS
            continue
        streams = read.streams
        assert len(streams) == 2 and not read.lost
        lost = {number - 1} if 1 <= number <= 6 and beyond_mending else set()
        assert streams[0].damaged == lost
        assert all(chunk == PAYLOADS[n] for n, chunk in enumerate(streams[0].chunks) if n not in lost)
        assert (streams[0].residual is None) == (number == 7 and beyond_mending)


def test_chunks_after_damaged_heads_keep_their_numbers() -> None:
    data = write_container(SIX)
    places = places_of(data)
    chunk = {number: places[number + 1] for number in range(7)}  # 6 is the residual
    for damage, lost in (
        ([(1, 1)], {1}),
        ([(1, 3)], {1, 2, 3}),
        ([(0, 5)], set(range(6))),
        ([(1, 1), (4, 4)], {1, 4}),
        ([(1, 2), (4, 4)], {1, 2, 3, 4}),  # which one is between is not known
    ):
        damaged = data
        for first, last in damage:
            damaged = zeroed(damaged, chunk[first], chunk[last + 1] - 3)
        (stream, _) = salvaged(damaged).streams
        assert stream.damaged == lost and stream.residual == b"residual"
        assert all(each == PAYLOADS[n] for n, each in enumerate(stream.chunks) if n not in lost)
    (stream, _) = salvaged(zeroed(data, chunk[6], chunk[6] + 9)).streams
    assert stream.damaged == set() and stream.residual is None
    (stream, _) = salvaged(zeroed(data, chunk[4], chunk[6] + 9)).streams
    assert stream.damaged == {4, 5} and stream.residual is None


@pytest.mark.parametrize("data", [zeroed(write_container(SMALL), 5, 20), file_with(section(b"C", b"x"), END)])
def test_a_file_without_any_whole_header_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptFile, match=r"at byte 5 .*obtain the file again"):
        salvaged(data)


def test_cut_files_keep_what_is_before_the_cut() -> None:
    data = write_container(SIX)
    places = places_of(data)
    for size in range(5, len(data)):
        if size < places[1]:
            with pytest.raises(TruncatedFile, match=r"cut off at byte 5, where its header .* obtain the file again"):
                salvaged(data[:size])
            continue
        read = salvaged(data[:size])
        whole = sum(end <= size for _, end in pairwise(places[1:8]))
        assert read.cut and not read.mended and len(read.streams) == 1 + (size >= places[9])
        assert len(read.lost) == (size < places[9])
        assert read.streams[0].damaged == set(range(whole, 6))
        assert read.streams[0].residual == (b"residual" if size >= places[8] else None)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_damage_is_skipped_or_refused(data: Any) -> None:
    content = bytearray(write_container(SIX))
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(5, len(content) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=12))
        content[begin : begin + data.draw(st.integers(0, 12))] = noise
    try:
        streams = salvaged(bytes(content)).streams
    except ContainerError:
        return
    for stream in (stream for stream in streams if not stream.header.name):
        assert len(stream.chunks) == 6
        assert all(chunk == PAYLOADS[n] for n, chunk in enumerate(stream.chunks) if n not in stream.damaged)


@pytest.mark.parametrize("filling", [b"C", b"E\0", b"C\xff\xff\x01", b"C\x80\x80\x20CCCC"])
def test_a_search_for_sections_ends(filling: bytes) -> None:
    """Each place may begin a section that is nearly as long as the file."""
    header = header_section([*FIELDS[:6], 1, b""])
    read = salvaged(file_with(header, b"\0", filling * (400_000 // len(filling))))
    assert read.cut and read.streams[0].damaged == {0}
