"""The `.inr` file: a sequence of checksummed sections; docs/FORMAT.md specifies it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import BinaryIO, NamedTuple, overload

from inrcodec.coding.header import StreamHeader, pack_header, unpack_header
from inrcodec.coding.missing import pack_missing
from inrcodec.coding.plain import Budget
from inrcodec.coding.varint import MAX_BYTES, read_varint, write_varint
from inrcodec.errors import CorruptFile, NotAnInrFile, TruncatedFile, UnsupportedVersion, UsageError
from inrcodec.signals.signal import Signal

# The first byte is no ASCII and begins no valid UTF-8 here, so that the file is not taken for text; whatever
# a transfer as text does to the rest, the checksums find.
MAGIC = b"\xf1INR"
VERSION = 1
MAX_SECTION_BYTES = 1 << 40
MAX_SECTIONS = 1 << 21
"""Sections of a file: a small one must not keep a reader busy."""

_HEADER, _INITIALIZATION, _CHUNK, _MISSING, _RESIDUAL, _END = b"S", b"I", b"C", b"M", b"R", b"E"
_LABELS = {
    _HEADER: "header",
    _INITIALIZATION: "initialization",
    _CHUNK: "chunk",
    _MISSING: "missing mask",
    _RESIDUAL: "residual",
    _END: "end",
}
_SKIPPABLE = (_CHUNK, _RESIDUAL)
_CRC_BYTES = 4


@dataclass(frozen=True, eq=False)
class Stream:
    """A coded signal of a file.

    chunks: `header.chunks` payloads. missing: what `pack_missing` returned, if `header.has_missing`.
    residual: the coded residual (`inrcodec.residual.section`), if `header.max_error` is not None.
    damaged: the numbers of chunks that are damaged or cut off, where such were to be skipped; they are empty here, and
        a damaged residual is None.
    """

    header: StreamHeader
    chunks: tuple[bytes, ...]
    missing: bytes | None = None
    residual: bytes | None = None
    damaged: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Container:
    """A whole file: at least one stream, and the initializations embedded for archiving (opaque here).

    cut: the file ended before its end section did, where damage was to be skipped.
    """

    streams: tuple[Stream, ...]
    initializations: tuple[bytes, ...] = ()
    cut: bool = False


class SectionSize(NamedTuple):
    """Bytes that a part of a file takes. stream: which stream it belongs to, None for those of the file."""

    label: str
    stream: int | None
    size: int


@dataclass(frozen=True, eq=False)
class Outline:
    """The parts of a file, as its heads say; nothing but the headers was read.

    headers: of the streams. embedded: the number of initializations in the file. sizes: what each part takes, checksums
    included, in file order; their sum is the size of the file.
    """

    headers: tuple[StreamHeader, ...]
    embedded: int
    sizes: tuple[SectionSize, ...]


def write_container(container: Container) -> bytes:
    """Return the file as bytes.

    Raises: UsageError for a header that the format cannot hold, or one that disagrees with its stream.
    """
    if not container.streams:
        raise UsageError("a file of no signals cannot be written: give at least one")
    names = [stream.header.name for stream in container.streams]
    if len(set(names)) < len(names):
        raise UsageError(f"the signals of a file need different names, not {names!r:.200}")
    budget = Budget()
    sections = [MAGIC, bytes([VERSION])]
    sections += [_section(_INITIALIZATION, content) for content in container.initializations]
    for stream in container.streams:
        header = stream.header
        said = (header.chunks, header.has_missing, header.max_error is not None)
        there = (len(stream.chunks), stream.missing is not None, stream.residual is not None)
        if said != there:
            raise UsageError(
                f"the header of signal {header.name!r} disagrees with its stream about the number of chunks, a mask or "
                f"a residual: {said = }, {there = }"
            )
        sections.append(_section(_HEADER, pack_header(header, budget)))
        if stream.missing is not None:
            sections.append(_section(_MISSING, stream.missing))
        sections += [_section(_CHUNK, chunk) for chunk in stream.chunks]
        if stream.residual is not None:
            sections.append(_section(_RESIDUAL, stream.residual))
    sections.append(_section(_END, b""))
    return b"".join(sections)


def read_container(data: bytes, *, skip_damaged: bool = False) -> Container:
    """Return the container that `write_container` was given.

    skip_damaged: leave out chunks and residuals whose checksum does not match or that are cut off, instead of refusing
        the file; see `Stream.damaged`. All else must be whole.
    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile.
    """
    file = BytesIO(data)
    sections = _Sections(_read_heads(file, skip_damaged))

    def take(kind: bytes) -> bytes | None:
        head = sections.take(kind)
        return None if head is None else _read_payload(file, head, skip_damaged)

    initializations = []
    while sections.next.kind == _INITIALIZATION:
        initializations.append(take(_INITIALIZATION) or b"")
    streams: list[Stream] = []
    budget = Budget()
    while sections.next.kind != _END or not streams:
        header = unpack_header(take(_HEADER) or b"", budget)
        _check_name(header, [stream.header for stream in streams])
        missing = take(_MISSING) if header.has_missing else None
        chunks = [take(_CHUNK) for _ in range(header.chunks)]
        damaged = frozenset(number for number, chunk in enumerate(chunks) if chunk is None)
        residual = take(_RESIDUAL) if header.max_error is not None else None
        streams.append(Stream(header, tuple(chunk or b"" for chunk in chunks), missing, residual, damaged))
    end = sections.next
    if not end.cut:
        _read_payload(file, end)
    return Container(tuple(streams), tuple(initializations), cut=end.cut)


def read_outline(file: BinaryIO) -> Outline:
    """Return the parts of a file without reading more than its headers. file: seekable, at its beginning.

    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile. Checksums other than those of headers are not
    looked at.
    """
    heads = _read_heads(file)
    sections = _Sections(heads)
    embedded = 0
    while sections.next.kind == _INITIALIZATION:
        sections.take(_INITIALIZATION)
        embedded += 1
    headers: list[StreamHeader] = []
    budget = Budget()
    while sections.next.kind != _END or not headers:
        head = sections.take(_HEADER)
        assert head is not None  # nothing is skipped here
        header = unpack_header(_read_payload(file, head), budget)
        _check_name(header, headers)
        headers.append(header)
        kinds = (
            [_MISSING] * header.has_missing + [_CHUNK] * header.chunks + [_RESIDUAL] * (header.max_error is not None)
        )
        for kind in kinds:
            sections.take(kind)
    sizes = [SectionSize("preamble", None, len(MAGIC) + 1)]
    stream = -1
    for head in heads:
        stream += head.kind == _HEADER
        own = stream if head.kind in (_HEADER, _MISSING, _CHUNK, _RESIDUAL) else None
        sizes.append(SectionSize(_LABELS[head.kind], own, head.end - head.begin))
    return Outline(tuple(headers), embedded, tuple(sizes))


def _check_name(header: StreamHeader, others: Sequence[StreamHeader]) -> None:
    if header.name in {other.name for other in others}:
        raise CorruptFile(f"two signals are called {header.name!r:.80}: obtain the file again")


def _section(kind: bytes, payload: bytes) -> bytes:
    if len(payload) > MAX_SECTION_BYTES:
        raise UsageError(f"a {_LABELS[kind]} of {len(payload)} bytes is beyond the format's {MAX_SECTION_BYTES}")
    start = kind + write_varint(len(payload))
    return start + _crc(start, payload) + payload


def _crc(start: bytes, payload: bytes) -> bytes:
    return zlib.crc32(payload, zlib.crc32(start)).to_bytes(_CRC_BYTES, "little")


class _Head(NamedTuple):
    """The head of a section: where it begins, where its payload begins and ends. cut: it was cut off."""

    kind: bytes
    begin: int
    payload: int
    end: int
    checksum: bytes
    cut: bool = False


class _Sections:
    """The sections of a file, to be taken in the order that the format prescribes."""

    def __init__(self, heads: Sequence[_Head]) -> None:
        self._heads = heads
        self._position = 0

    @property
    def next(self) -> _Head:
        return self._heads[self._position]

    def take(self, kind: bytes) -> _Head | None:
        """Return the next section; None if it was cut off. Raises: CorruptFile if it is of another kind."""
        head = self.next
        if head.cut and kind in _SKIPPABLE:
            return None
        if head.kind != kind:
            raise CorruptFile(
                f"the section before byte {head.end} is {_LABELS[head.kind]!r}, not {_LABELS[kind]!r}: obtain the file "
                "again"
            )
        self._position += 1
        return head


def _read_heads(file: BinaryIO, skip_damaged: bool = False) -> list[_Head]:
    """Return the heads of all sections of a file; the last one, and only that, is the end section.

    skip_damaged: where the file is cut off, the end section that is missing is there, and cut.
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise NotAnInrFile(f"the file begins with {magic!r}, an .inr file with {MAGIC!r}")
    if size == len(MAGIC):
        raise TruncatedFile(f"the file ends after {size} bytes, before its version: obtain it again")
    version = file.read(1)[0]
    if version > VERSION:
        raise UnsupportedVersion(f"format version {version}, this program knows {VERSION}: update inrcodec")
    if version < VERSION:
        raise CorruptFile(f"format version {version} does not exist: obtain the file again")
    heads: list[_Head] = []
    position = len(MAGIC) + 1
    while not heads or heads[-1].kind != _END:
        if len(heads) == MAX_SECTIONS:
            raise CorruptFile(f"a file of more than {MAX_SECTIONS} sections: obtain it again")
        try:
            heads.append(_read_head(file, position, size))
        except TruncatedFile:
            if not skip_damaged:
                raise
            heads.append(_Head(_END, position, size, size, b"", cut=True))
        position = heads[-1].end
    end = heads[-1]
    if end.end != end.payload:
        raise CorruptFile(f"an end section of {end.end - end.payload} bytes: obtain the file again")
    if end.end != size:
        raise CorruptFile(f"{size - end.end} bytes follow the end section: cut them off")
    return heads


def _read_head(file: BinaryIO, begin: int, size: int) -> _Head:
    file.seek(begin)
    start = file.read(1 + MAX_BYTES + _CRC_BYTES)
    kind = start[:1]
    if not kind:
        raise TruncatedFile(f"the file ends at byte {begin}, before its end section: obtain it again")
    if kind not in _LABELS:
        raise CorruptFile(f"a section of unknown kind {kind!r} at byte {begin}: obtain the file again")
    length, position = read_varint(start, 1)
    if length > MAX_SECTION_BYTES or start[1:position] != write_varint(length):
        raise CorruptFile(f"a section at byte {begin} claims {length} bytes: obtain the file again")
    payload = begin + position + _CRC_BYTES
    if payload + length > size:
        raise TruncatedFile(
            f"the file has {size} bytes, the section at byte {begin} ends at {payload + length}: obtain it again"
        )
    return _Head(kind, begin, payload, payload + length, start[position : position + _CRC_BYTES])


@overload
def _read_payload(file: BinaryIO, head: _Head) -> bytes: ...
@overload
def _read_payload(file: BinaryIO, head: _Head, skip_damaged: bool) -> bytes | None: ...
def _read_payload(file: BinaryIO, head: _Head, skip_damaged: bool = False) -> bytes | None:
    """Return the payload of a section; None where it is damaged and may be skipped. Raises: CorruptFile."""
    file.seek(head.begin)
    start = file.read(head.payload - head.begin - _CRC_BYTES)
    file.seek(head.payload)
    payload = file.read(head.end - head.payload)
    if _crc(start, payload) == head.checksum:
        return payload
    if skip_damaged and head.kind in _SKIPPABLE:
        return None
    raise CorruptFile(
        f"the checksum of the {_LABELS[head.kind]} at byte {head.begin} does not match: obtain the file again"
    )


def stream_of(
    signal: Signal,
    initialization: bytes,
    coding: bytes,
    patches_per_chunk: int,
    chunks: tuple[bytes, ...],
) -> Stream:
    """Return a coded signal with the header that describes it.

    initialization: its identifier. coding: the coding parameters of the field codec.
    """
    header = StreamHeader(
        modality=signal.modality,
        name=signal.name,
        initialization=initialization,
        dtype=signal.values.dtype.newbyteorder("<").str,
        axes=signal.axes,
        channels=signal.channels,
        value_range=signal.value_range,
        sphere=signal.sphere,
        coding=coding,
        patches_per_chunk=patches_per_chunk,
        chunks=len(chunks),
        has_missing=signal.missing is not None,
        attributes=signal.attributes,
        slice_ranges=signal.slice_ranges,
    )
    return Stream(header, chunks, None if signal.missing is None else pack_missing(signal.missing))
