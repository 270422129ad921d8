"""What is read of damaged files of several signals: never a section as another's, and all that is whole."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from random import Random

import pytest
from headers import CLIMATE, IMAGE, SOUND, file_with, header_section, section

from inrcodec.bounds import Bound
from inrcodec.coding.container import Container, Stream, read_container, read_outline, write_container
from inrcodec.coding.header import StreamHeader
from inrcodec.errors import ContainerError, CorruptFile

MADE = Random(19)


def stream_of(header: StreamHeader, name: str, chunks: int, *, bounded: bool = False, masked: bool = False) -> Stream:
    """Return a signal of random sections."""
    header = replace(
        header, name=name, chunks=chunks, has_missing=masked, bound=Bound(0.5) if bounded else None, attributes={}
    )
    payloads = [MADE.randbytes(MADE.randrange(20, 60)) for _ in range(chunks + 2)]
    return Stream(header, tuple(payloads[2:]), payloads[0] if masked else None, payloads[1] if bounded else None)


ALPHA = replace(IMAGE, channels=1)
CLIP = replace(IMAGE, modality="video", axes=(*IMAGE.axes, *IMAGE.axes[:1]))
FILES = {
    "a picture with its transparency": [stream_of(IMAGE, "", 6), stream_of(ALPHA, "alpha", 6)],
    "the same within a bound": [stream_of(IMAGE, "", 6, bounded=True), stream_of(ALPHA, "alpha", 6, bounded=True)],
    "a clip with its sound": [stream_of(CLIP, "", 7), stream_of(SOUND, "sound", 3)],
    "two climate fields": [stream_of(CLIMATE, name, 4, bounded=True, masked=True) for name in ("t", "u")],
    "three climate fields": [stream_of(CLIMATE, name, 5) for name in ("t", "u", "v")],
}
Damage = Callable[[bytes, int, int, Random], bytes]
DAMAGES: dict[str, Damage] = {
    "a bit": lambda data, begin, end, random: data[:begin] + bytes([data[begin] ^ 4]) + data[begin + 1 :],
    "zeros": lambda data, begin, end, random: data[:begin] + bytes(end - begin) + data[end:],
    "noise": lambda data, begin, end, random: (
        data[:begin] + random.randbytes(random.randrange(end - begin + 30)) + data[end:]
    ),
    "cut out": lambda data, begin, end, random: data[:begin] + data[end:],
}


def owners(data: bytes) -> list[tuple[int, int, int | None]]:
    """Return where the sections of a file begin and end, and whose they are; the first five bytes are none."""
    places, begin = [], 5
    for part in read_outline(BytesIO(data)).sizes[1:]:
        places.append((begin, begin + part.size, part.stream))
        begin += part.size
    return places


def spans(data: bytes, many: int, random: Random) -> list[tuple[int, int]]:
    """Return pieces to be damaged: from each section to each later one, whole or from somewhere to somewhere."""
    places = owners(data)
    found = []
    for number, (begin, end, _) in enumerate(places):
        for until, to, _ in places[number:]:
            found.append((begin, to))
            found += [(random.randrange(begin, end), random.randrange(until + 1, to + 1)) for _ in range(many)]
    return [(begin, end) for begin, end in found if begin < end]


def check(streams: list[Stream], damaged: bytes, hurt: set[int | None], *, all_that_is_whole: bool = True) -> None:
    """Check what is read of a damaged file. hurt: the signals that had sections in what was damaged."""
    try:
        read = read_container(damaged, skip_damaged=True)
    except ContainerError:
        assert hurt >= set(range(len(streams))) or not all_that_is_whole
        return
    found = {stream.header.name: stream for stream in read.streams}
    assert bool(read.lost) == (len(found) < len(streams)) or not all_that_is_whole
    for number, stream in enumerate(streams):
        if stream.header.name not in found:
            assert number in hurt or not all_that_is_whole
            continue
        again = found[stream.header.name]
        whole = [chunk for n, chunk in enumerate(again.chunks) if n not in again.damaged]
        assert whole == [chunk for n, chunk in enumerate(stream.chunks) if n not in again.damaged]
        assert again.missing == stream.missing and again.residual in (stream.residual, None)
        if number not in hurt and all_that_is_whole:
            assert not again.damaged and again.residual == stream.residual


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_signals_that_are_not_hurt_come_back(file: str, damage: str) -> None:
    streams = FILES[file]
    data = write_container(Container(tuple(streams)))
    places = owners(data)
    random = Random(f"{file}, {damage}")
    for begin, end in spans(data, 3, random):
        end = begin + 1 if damage == "a bit" else end
        hurt = {owner for first, last, owner in places if first < end and begin < last}
        # Where sections were cut out between their borders, nothing tells where they were.
        seen = damage in ("a bit", "zeros") or begin not in {first for first, _, _ in places}
        check(streams, DAMAGES[damage](data, begin, end, random), hurt, all_that_is_whole=seen)


@pytest.mark.parametrize("file", FILES)
def test_no_section_is_taken_for_another_after_more_damage(file: str) -> None:
    streams = FILES[file]
    data = write_container(Container(tuple(streams)))
    everything: set[int | None] = set(range(len(streams)))
    random = Random(file)
    for _ in range(300):
        damaged = data
        for _ in range(random.randrange(2, 5)):
            begin = random.randrange(5, len(damaged) - 1)
            end = min(len(damaged), begin + random.randrange(1, 200))
            damaged = DAMAGES[random.choice(list(DAMAGES))](damaged, begin, end, random)
            if len(damaged) < 12:
                break
        check(streams, damaged, everything)


def test_chunks_behind_a_lost_header_are_not_of_the_signal_before() -> None:
    """They would fit: both signals have as many chunks, and their sizes are alike."""
    streams = FILES["three climate fields"]
    data = write_container(Container(tuple(streams)))
    places = owners(data)
    # Three chunks of the first signal, the header of the second and three of its chunks.
    read = read_container(DAMAGES["zeros"](data, places[3][0], places[9][1], Random()), skip_damaged=True)
    assert [stream.header.name for stream in read.streams] == ["t", "v"]
    assert read.streams[0].damaged == {2, 3, 4} and not read.streams[1].damaged
    assert read.lost == ("1 signal is lost after the signal 't'",)


def test_a_signal_without_its_mask_is_left_out() -> None:
    streams = FILES["two climate fields"]
    data = write_container(Container(tuple(streams)))
    _, end, _ = owners(data)[1]
    read = read_container(DAMAGES["a bit"](data, end - 1, end, Random()), skip_damaged=True)
    assert [stream.header.name for stream in read.streams] == ["u"]
    assert read.lost == ("the signal 't' is left out: its mask of missing values is damaged",)


@pytest.mark.parametrize("whole", [0, 1])
def test_initializations_that_are_whole_stay(whole: int) -> None:
    streams = tuple(FILES["a clip with its sound"])
    data = write_container(Container(streams, (b"one" * 20, b"two" * 20)))
    _, end, _ = owners(data)[1 - whole]
    read = read_container(DAMAGES["a bit"](data, end - 1, end, Random()), skip_damaged=True)
    assert read.initializations == ((b"one" * 20, b"two" * 20)[whole],)
    assert read.lacks_initializations and len(read.lost) == 1
    assert [stream.chunks for stream in read.streams] == [stream.chunks for stream in streams]


def test_headers_that_contradict_each_other_are_refused() -> None:
    fields = [0, b"12345678", 0, [4, 5], 3, 1, 0, b"", None]
    headers = header_section([*fields, "", 0]), header_section([*fields, "other", 0])
    with pytest.raises(CorruptFile, match="0 signals should follow the image, and others are there"):
        read_container(file_with(*headers, section(b"E", b"")), skip_damaged=True)
