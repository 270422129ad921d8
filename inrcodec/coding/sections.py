"""The sections that an `.inr` file consists of: heads, checksums and their order."""

import zlib
from collections.abc import Sequence
from io import SEEK_END, BytesIO
from typing import BinaryIO, NamedTuple

from inrcodec.coding.varint import MAX_BYTES, read_varint, write_varint
from inrcodec.errors import CorruptFile, NotAnInrFile, TruncatedFile, UnsupportedVersion, UsageError

# The first byte is no ASCII and begins no valid UTF-8 here, so that the file is not taken for text; whatever
# a transfer as text does to the rest, the checksums find.
MAGIC = b"\xf1INR"
VERSION = 1
MAX_SECTION_BYTES = 1 << 40
MAX_SECTIONS = 1 << 21
"""Sections of a file: a small one must not keep a reader busy."""

HEADER, INITIALIZATION, CHUNK, MISSING, RESIDUAL, END = b"S", b"I", b"C", b"M", b"R", b"E"
GAP = b""
LABELS = {
    HEADER: "header",
    INITIALIZATION: "initialization",
    CHUNK: "chunk",
    MISSING: "missing mask",
    RESIDUAL: "residual",
    END: "end",
    GAP: "damaged",
}
LETTERS = b"".join(LABELS)
CRC_BYTES = 4


def section(kind: bytes, payload: bytes) -> bytes:
    if len(payload) > MAX_SECTION_BYTES:
        raise UsageError(f"a {LABELS[kind]} of {len(payload)} bytes is beyond the format's {MAX_SECTION_BYTES}")
    start = kind + write_varint(len(payload))
    return start + crc(start, payload) + payload


def crc(start: bytes, payload: bytes | memoryview) -> bytes:
    return zlib.crc32(payload, zlib.crc32(start)).to_bytes(CRC_BYTES, "little")


class Head(NamedTuple):
    """The head of a section: where it begins, where its payload begins and ends."""

    kind: bytes
    begin: int
    payload: int
    end: int
    checksum: bytes


class Piece(NamedTuple):
    """A section of a file; of kind `GAP`, a place where some sections were.

    payload: None where it is damaged, or was not read. cut: the file ended here, before its end section did.
    """

    kind: bytes
    begin: int
    payload: bytes | None
    cut: bool = False


class Sections:
    """The sections of a file, to be taken in the order that the format prescribes."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self.position = 0

    @property
    def next(self) -> Piece:
        return self._pieces[self.position]

    def pass_over(self, kind: bytes) -> Piece:
        """Return the next section, read or not, and go on. Raises: CorruptFile if it is of another kind."""
        piece = self.next
        if piece.kind != kind:
            raise misplaced(piece, kind)
        self.position += 1
        return piece

    def take(self, kind: bytes) -> bytes:
        """Return the payload of the next section, which was read, and go on. Raises: as `pass_over`."""
        payload = self.pass_over(kind).payload
        assert payload is not None
        return payload


def whole_pieces(data: bytes) -> list[Piece]:
    """Return the sections of a file without damage. Raises: as `read_container`."""
    file = BytesIO(data)
    return [Piece(head.kind, head.begin, read_payload(file, head)) for head in read_heads(file)]


def read_preamble(file: BinaryIO) -> int:
    """Return the size of a file that begins as one of this version. Raises: NotAnInrFile and others."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise NotAnInrFile(f"the file begins with {magic!r}, an .inr file with {MAGIC!r}")
    if size == len(MAGIC):
        raise TruncatedFile(f"the file ends after {size} bytes, before its version: obtain the file again")
    version = file.read(1)[0]
    if version > VERSION:
        raise UnsupportedVersion(f"format version {version}, this program knows {VERSION}: update inrcodec")
    if version < VERSION:
        raise CorruptFile(f"format version {version} does not exist: obtain the file again")
    return size


def read_heads(file: BinaryIO) -> list[Head]:
    """Return the heads of all sections of a file; the last one, and only that, is the end section."""
    size = read_preamble(file)
    heads: list[Head] = []
    position = len(MAGIC) + 1
    while not heads or heads[-1].kind != END:
        if len(heads) == MAX_SECTIONS:
            raise CorruptFile(f"a file of more than {MAX_SECTIONS} sections: obtain the file again")
        heads.append(read_head(file, position, size))
        position = heads[-1].end
    end = heads[-1]
    if end.end != end.payload:
        raise CorruptFile(f"an end section of {end.end - end.payload} bytes: obtain the file again")
    if end.end != size:
        raise CorruptFile(f"{size - end.end} bytes follow the end section: cut them off")
    return heads


def read_head(file: BinaryIO, begin: int, size: int) -> Head:
    file.seek(begin)
    start = file.read(1 + MAX_BYTES + CRC_BYTES)
    kind = start[:1]
    if not kind:
        raise TruncatedFile(f"the file ends at byte {begin}, before its end section: obtain the file again")
    if kind not in LABELS or kind == GAP:
        raise CorruptFile(f"a section of unknown kind {kind!r} at byte {begin}: obtain the file again")
    length, position = read_varint(start, 1)
    if length > MAX_SECTION_BYTES or start[1:position] != write_varint(length):
        raise CorruptFile(f"a section at byte {begin} claims {length} bytes: obtain the file again")
    payload = begin + position + CRC_BYTES
    if payload + length > size:
        raise TruncatedFile(
            f"the file has {size} bytes, the section at byte {begin} ends at {payload + length}: obtain the file again"
        )
    return Head(kind, begin, payload, payload + length, start[position : position + CRC_BYTES])


def read_payload(file: BinaryIO, head: Head) -> bytes:
    """Return the payload of a section. Raises: CorruptFile if its checksum does not match."""
    file.seek(head.begin)
    start = file.read(head.payload - head.begin - CRC_BYTES)
    file.seek(head.payload)
    payload = file.read(head.end - head.payload)
    if crc(start, payload) != head.checksum:
        raise mismatch(head.kind, head.begin)
    return payload


def misplaced(piece: Piece, kind: bytes) -> CorruptFile | TruncatedFile:
    """Return what to say of a section where one of another kind should be."""
    if piece.cut:
        return TruncatedFile(
            f"the file is cut off at byte {piece.begin}, where its {LABELS[kind]} should be: obtain the file again"
        )
    return CorruptFile(
        f"the section at byte {piece.begin} is {LABELS[piece.kind]!r}, not {LABELS[kind]!r}: obtain the file again"
    )


def mismatch(kind: bytes, begin: int) -> CorruptFile:
    return CorruptFile(f"the checksum of the {LABELS[kind]} at byte {begin} does not match: obtain the file again")
