"""The `.inr` file: a sequence of checksummed sections; docs/FORMAT.md specifies it."""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from inrcodec.coding.header import StreamHeader, pack_header, unpack_header
from inrcodec.coding.missing import pack_missing
from inrcodec.coding.plain import Budget
from inrcodec.coding.varint import read_varint, write_varint
from inrcodec.errors import CorruptFile, NotAnInrFile, TruncatedFile, UnsupportedVersion, UsageError
from inrcodec.signals.signal import Signal

# The first byte is no ASCII and begins no valid UTF-8 here, so that the file is not taken for text; whatever
# a transfer as text does to the rest, the checksums find.
MAGIC = b"\xf1INR"
VERSION = 1
MAX_SECTION_BYTES = 1 << 40

_HEADER, _INITIALIZATION, _CHUNK, _MISSING, _RESIDUAL, _END = b"S", b"I", b"C", b"M", b"R", b"E"
_LABELS = {
    _HEADER: "header",
    _INITIALIZATION: "initialization",
    _CHUNK: "chunk",
    _MISSING: "missing mask",
    _RESIDUAL: "residual",
    _END: "end",
}
_CRC_BYTES = 4


@dataclass(frozen=True, eq=False)
class Stream:
    """A coded signal of a file.

    chunks: `header.chunks` payloads. missing: what `pack_missing` returned, if `header.has_missing`.
    residual: the coded residual (`inrcodec.residual.section`), if `header.max_error` is not None.
    """

    header: StreamHeader
    chunks: tuple[bytes, ...]
    missing: bytes | None = None
    residual: bytes | None = None


@dataclass(frozen=True, eq=False)
class Container:
    """A whole file: at least one stream, and the initializations embedded for archiving (opaque here)."""

    streams: tuple[Stream, ...]
    initializations: tuple[bytes, ...] = ()


class SectionSize(NamedTuple):
    """Bytes that a part of a file takes. stream: which stream it belongs to, None for those of the file."""

    label: str
    stream: int | None
    size: int


def write_container(container: Container) -> bytes:
    """Return the file as bytes.

    Raises: UsageError for a header that the format cannot hold, or one that disagrees with its stream.
    """
    if not container.streams:
        raise UsageError("a file of no signals cannot be written: give at least one")
    names = [stream.header.name for stream in container.streams]
    if len(set(names)) < len(names):
        raise UsageError(f"the signals of a file need different names, not {names!r:.200}")
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
        sections.append(_section(_HEADER, pack_header(header)))
        if stream.missing is not None:
            sections.append(_section(_MISSING, stream.missing))
        sections += [_section(_CHUNK, chunk) for chunk in stream.chunks]
        if stream.residual is not None:
            sections.append(_section(_RESIDUAL, stream.residual))
    sections.append(_section(_END, b""))
    return b"".join(sections)


def read_container(data: bytes) -> Container:
    """Return the container that `write_container` was given.

    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile.
    """
    sections = _read_sections(data)
    sections.reverse()

    def take(kind: bytes) -> bytes:
        if sections[-1].kind != kind:
            raise CorruptFile(
                f"the section before byte {sections[-1].end} is {_LABELS[sections[-1].kind]!r}, not "
                f"{_LABELS[kind]!r}: obtain the file again"
            )
        return sections.pop().payload

    initializations = []
    while sections[-1].kind == _INITIALIZATION:
        initializations.append(take(_INITIALIZATION))
    streams: list[Stream] = []
    budget = Budget()
    while sections[-1].kind != _END or not streams:
        header = unpack_header(take(_HEADER), budget)
        missing = take(_MISSING) if header.has_missing else None
        chunks = tuple(take(_CHUNK) for _ in range(header.chunks))
        residual = take(_RESIDUAL) if header.max_error is not None else None
        if header.name in {stream.header.name for stream in streams}:
            raise CorruptFile(f"two signals are called {header.name!r:.80}: obtain the file again")
        streams.append(Stream(header, chunks, missing, residual))
    return Container(tuple(streams), tuple(initializations))


def section_sizes(data: bytes) -> list[SectionSize]:
    """Return what each part of a file takes, checksums included, in file order; the sum is the size of the file.

    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile.
    """
    sizes = [SectionSize("preamble", None, len(MAGIC) + 1)]
    begin, stream = len(MAGIC) + 1, -1
    for section in _read_sections(data):
        stream += section.kind == _HEADER
        own = stream if section.kind in (_HEADER, _MISSING, _CHUNK, _RESIDUAL) else None
        sizes.append(SectionSize(_LABELS[section.kind], own, section.end - begin))
        begin = section.end
    return sizes


def _section(kind: bytes, payload: bytes) -> bytes:
    if len(payload) > MAX_SECTION_BYTES:
        raise UsageError(f"a {_LABELS[kind]} of {len(payload)} bytes is beyond the format's {MAX_SECTION_BYTES}")
    start = kind + write_varint(len(payload))
    return start + _crc(start, payload) + payload


def _crc(start: bytes, payload: bytes) -> bytes:
    return zlib.crc32(payload, zlib.crc32(start)).to_bytes(_CRC_BYTES, "little")


class _Section(NamedTuple):
    kind: bytes
    payload: bytes
    end: int


def _read_sections(data: bytes) -> list[_Section]:
    """Return every section of the file; the last one, and only that, is the end section."""
    if data[: len(MAGIC)] != MAGIC:
        raise NotAnInrFile(f"the file begins with {data[: len(MAGIC)]!r}, an .inr file with {MAGIC!r}")
    position = len(MAGIC)
    if position == len(data):
        raise TruncatedFile(f"the file ends after {position} bytes, before its version: obtain it again")
    version = data[position]
    if version > VERSION:
        raise UnsupportedVersion(f"format version {version}, this program knows {VERSION}: update inrcodec")
    if version < VERSION:
        raise CorruptFile(f"format version {version} does not exist: obtain the file again")
    sections = [_read_section(data, position + 1)]
    while sections[-1].kind != _END:
        sections.append(_read_section(data, sections[-1].end))
    if sections[-1].payload:
        raise CorruptFile(f"an end section of {len(sections[-1].payload)} bytes: obtain the file again")
    if sections[-1].end != len(data):
        raise CorruptFile(f"{len(data) - sections[-1].end} bytes follow the end section: cut them off")
    return sections


def _read_section(data: bytes, begin: int) -> _Section:
    kind = data[begin : begin + 1]
    if not kind:
        raise TruncatedFile(f"the file ends at byte {begin}, before its end section: obtain it again")
    if kind not in _LABELS:
        raise CorruptFile(f"a section of unknown kind {kind!r} at byte {begin}: obtain the file again")
    length, position = read_varint(data, begin + 1)
    if length > MAX_SECTION_BYTES or data[begin + 1 : position] != write_varint(length):
        raise CorruptFile(f"a section at byte {begin} claims {length} bytes: obtain the file again")
    end = position + _CRC_BYTES + length
    if end > len(data):
        raise TruncatedFile(
            f"the file has {len(data)} bytes, the section at byte {begin} ends at {end}: obtain it again"
        )
    payload = data[position + _CRC_BYTES : end]
    if _crc(data[begin:position], payload) != data[position : position + _CRC_BYTES]:
        raise CorruptFile(f"the checksum of the {_LABELS[kind]} at byte {begin} does not match: obtain the file again")
    return _Section(kind, payload, end)


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
    )
    return Stream(header, chunks, None if signal.missing is None else pack_missing(signal.missing))
