"""Sounds one after the other in one file: links of Ogg streams (radio), MP3 files that were joined.

Decoders stop after the first, or play the gaps that encoders leave at both ends.
"""

from mmap import mmap

_PAGE = b"OggS"
_PAGE_HEAD = 27
"""Bytes of an Ogg page before the table of its segments' lengths."""
_FIRST_PAGE = 2

_XING = (b"Xing", b"Info")
_HAS_FRAMES, _HAS_BYTES = 1, 2
_OLD_TAG = 128
"""Bytes of an ID3v1 tag, which follows the sound."""


def sound_links(data: bytes | mmap) -> list[tuple[int, int]]:
    """Return begin and end of every sound in the bytes of a file; only Ogg and MP3 files have more than one."""
    begins = _ogg_begins(data) if data[:4] == _PAGE else _mp3_begins(data)
    return list(zip(begins, [*begins[1:], len(data)], strict=True))


def _ogg_begins(data: bytes | mmap) -> list[int]:
    """Return where the links of an Ogg file begin: at a first page of a stream that follows another kind of page."""
    begins = [0]
    place, in_head = 0, True
    while (place := data.find(_PAGE, place)) >= 0 and place + _PAGE_HEAD <= len(data):
        is_first = bool(data[place + 5] & _FIRST_PAGE)
        if is_first and not in_head:
            begins.append(place)
        in_head = is_first
        segments = data[place + _PAGE_HEAD : place + _PAGE_HEAD + data[place + _PAGE_HEAD - 1]]
        place += _PAGE_HEAD + len(segments) + sum(segments)
    return begins


def _mp3_begins(data: bytes | mmap) -> list[int]:
    """Return where joined MP3 files begin: each at frames or a tag where the file before it says that it ends."""
    begins = [0]
    while True:
        frame = _first_frame(data, begins[-1])
        flags, fields = _xing(data, frame)
        if not flags & _HAS_BYTES:
            return begins
        place = 4 if flags & _HAS_FRAMES else 0
        end = frame + int.from_bytes(fields[place : place + 4], "big")
        if data[end : end + 3] == b"TAG":
            end += _OLD_TAG
        if end <= frame or not (data[end : end + 3] == b"ID3" or _is_frame(data, end)):
            return begins
        begins.append(end)


def states_length(data: bytes | mmap) -> bool:
    """Say whether an MP3 file states its number of frames, so that nobody estimates it."""
    return bool(_xing(data, _first_frame(data, 0))[0] & _HAS_FRAMES)


def _first_frame(data: bytes | mmap, begin: int) -> int:
    """Return where the frames begin, behind an ID3v2 tag."""
    head = data[begin : begin + 10]
    if head[:3] != b"ID3":
        return begin
    return begin + 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:])))


def _is_frame(data: bytes | mmap, place: int) -> bool:
    head = data[place : place + 2]
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _xing(data: bytes | mmap, frame: int) -> tuple[int, bytes]:
    """Return flags and fields of the first frame if it is a Xing frame, else 0 and no bytes."""
    head = data[frame : frame + 64]
    place = max(map(head.find, _XING))
    if not _is_frame(data, frame) or place < 0:
        return 0, b""
    return int.from_bytes(head[place + 4 : place + 8], "big"), head[place + 8 :]
