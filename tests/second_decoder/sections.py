"""The sections of a file, and which of them belong to a stream.

It follows "File" of docs/FORMAT.md.
"""

import zlib
from dataclasses import dataclass

from second_decoder.header import Header, HeaderReader
from second_decoder.reading import Refused, read_varint, require

MAGIC_AND_VERSION = b"\xf1INR\x01"
KINDS = "ISMCRE"


@dataclass(frozen=True)
class StreamSections:
    """The header of a stream, and the payloads that follow it."""

    header: Header
    mask: bytes | None
    chunks: tuple[bytes, ...]
    residual: bytes | None


def read_sections(data: bytes) -> list[tuple[str, bytes]]:
    """Return the kind and the payload of every section; the last one, and only that, is `E`."""
    require(data[:5] == MAGIC_AND_VERSION, "the file begins with the magic and version 1")
    sections: list[tuple[str, bytes]] = []
    position = 5
    while not sections or sections[-1][0] != "E":
        require(len(sections) < 1 << 21, "a file has at most 2^21 sections")
        kind = data[position : position + 1].decode("latin-1")
        require(kind != "" and kind in KINDS, "a section of a known kind follows")
        length, checksum = read_varint(data, position + 1)
        payload = checksum + 4
        end = payload + length
        require(length <= 1 << 40 and end <= len(data), "a section ends within the file")
        covered = data[position:checksum] + data[payload:end]
        stored = int.from_bytes(data[checksum:payload], "little")
        require(zlib.crc32(covered) == stored, "the checksum of a section is right")
        sections.append((kind, data[payload:end]))
        position = end
    require(position == len(data) and sections[-1][1] == b"", "E is empty, and nothing follows it")
    return sections


def read_file(data: bytes) -> tuple[list[bytes], list[StreamSections]]:
    """Return the embedded initializations and the streams of a file: `I* (S M? C* R?)+ E`."""
    sections = read_sections(data)[::-1]

    def take(kind: str) -> bytes:
        if sections[-1][0] != kind:
            raise Refused(f"a section {kind} is missing before the section {sections[-1][0]}")
        return sections.pop()[1]

    initializations = []
    while sections[-1][0] == "I":
        initializations.append(take("I"))
    streams: list[StreamSections] = []
    headers = HeaderReader()
    while sections[-1][0] != "E" or not streams:
        header = headers.read(take("S"))
        if streams:
            require(header.following == streams[-1].header.following - 1, "a header says how many signals follow")
        mask = take("M") if header.has_mask else None
        chunks = tuple(take("C") for _ in range(header.chunks))
        residual = take("R") if header.bound is not None else None
        streams.append(StreamSections(header, mask, chunks, residual))
    require(streams[-1].header.following == 0, "no signal follows the last one")
    names = [stream.header.name for stream in streams]
    require(len(set(names)) == len(names), "the streams of a file have different names")
    return initializations, streams
