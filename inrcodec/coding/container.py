"""The `.inr` file: a sequence of checksummed sections; docs/FORMAT.md specifies it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from inrcodec.coding.header import StreamHeader, pack_header, unpack_header
from inrcodec.coding.plain import Budget
from inrcodec.coding.salvage import Salvage
from inrcodec.coding.sections import (
    CHUNK,
    END,
    HEADER,
    INITIALIZATION,
    LABELS,
    MAGIC,
    MAX_SECTIONS,
    MISSING,
    RESIDUAL,
    VERSION,
    Piece,
    Sections,
    read_heads,
    read_payload,
    section,
    whole_pieces,
)
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.signals.lazy import AnySignal


@dataclass(frozen=True, eq=False)
class Stream:
    """A coded signal of a file.

    chunks: `header.chunks` payloads. missing: what a `MissingWriter` returned, if `header.has_missing`.
    residual: the coded residual (`inrcodec.residual.section`), if `header.bound` is not None.
    damaged: the numbers of chunks that are damaged or cut off, where damage was to be skipped. These chunks are empty
        here, and a damaged residual is None.
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
    mended: heads of sections or the end of the file are damaged, without loss, where damage was to be skipped.
    """

    streams: tuple[Stream, ...]
    initializations: tuple[bytes, ...] = ()
    cut: bool = False
    mended: bool = False


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
    sections += [section(INITIALIZATION, content) for content in container.initializations]
    for stream in container.streams:
        header = stream.header
        said = (header.chunks, header.has_missing, header.bound is not None)
        there = (len(stream.chunks), stream.missing is not None, stream.residual is not None)
        if said != there:
            raise UsageError(
                f"the header of signal {header.name!r} disagrees with its stream about the number of chunks, a mask or "
                f"a residual: {said = }, {there = }"
            )
        sections.append(section(HEADER, pack_header(header, budget)))
        if stream.missing is not None:
            sections.append(section(MISSING, stream.missing))
        sections += [section(CHUNK, chunk) for chunk in stream.chunks]
        if stream.residual is not None:
            sections.append(section(RESIDUAL, stream.residual))
    sections.append(section(END, b""))
    return b"".join(sections)


def read_container(data: bytes, *, skip_damaged: bool = False) -> Container:
    """Return the container that `write_container` was given.

    skip_damaged: leave out damage instead of refusing the file. Chunks and residuals that do not match their checksum
        or are cut off are left out (see `Stream.damaged`). A section of which only the kind or the length is damaged
        is found again and mended by its checksum. Where more is damaged, reading goes on at the next section whose
        checksum matches, and the header's number of chunks says how many were lost; chunks between two such places
        are left out too if it is not clear which they are. A damaged end section and bytes after it are ignored.
        Headers, masks and initializations must be whole.
    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile.
    """
    pieces, mended = Salvage(data).pieces() if skip_damaged else (whole_pieces(data), False)
    sections = Sections(pieces)
    initializations = []
    while sections.next.kind == INITIALIZATION:
        initializations.append(sections.take_whole(INITIALIZATION))
    streams: list[Stream] = []
    budget = Budget()
    while sections.next.kind != END or not streams:
        header = unpack_header(sections.take_whole(HEADER), budget)
        _check_header(header, [stream.header for stream in streams])
        missing = sections.take_whole(MISSING) if header.has_missing else None
        chunks = sections.take_chunks(header)
        damaged = frozenset(number for number, chunk in enumerate(chunks) if chunk is None)
        residual = sections.take_residual() if header.bound is not None else None
        streams.append(Stream(header, tuple(chunk or b"" for chunk in chunks), missing, residual, damaged))
    return Container(tuple(streams), tuple(initializations), cut=sections.next.cut, mended=mended)


def read_outline(file: BinaryIO) -> Outline:
    """Return the parts of a file without reading more than its headers. file: seekable, at its beginning.

    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile. Checksums other than those of headers are not
    looked at.
    """
    heads = read_heads(file)
    sections = Sections([Piece(head.kind, head.begin, None) for head in heads])
    embedded = 0
    while sections.next.kind == INITIALIZATION:
        sections.take(INITIALIZATION)
        embedded += 1
    headers: list[StreamHeader] = []
    budget = Budget()
    while sections.next.kind != END or not headers:
        head = heads[sections.position]
        sections.take(HEADER)
        header = unpack_header(read_payload(file, head), budget)
        _check_header(header, headers)
        headers.append(header)
        kinds = [MISSING] * header.has_missing + [CHUNK] * header.chunks + [RESIDUAL] * (header.bound is not None)
        for kind in kinds:
            sections.take(kind)
    sizes = [SectionSize("preamble", None, len(MAGIC) + 1)]
    stream = -1
    for head in heads:
        stream += head.kind == HEADER
        own = stream if head.kind in (HEADER, MISSING, CHUNK, RESIDUAL) else None
        sizes.append(SectionSize(LABELS[head.kind], own, head.end - head.begin))
    return Outline(tuple(headers), embedded, tuple(sizes))


def _check_header(header: StreamHeader, others: Sequence[StreamHeader]) -> None:
    """Raises: CorruptFile if a header cannot follow others. Its chunks are counted before memory is taken for them."""
    chunks = header.chunks + sum(other.chunks for other in others)
    if chunks > MAX_SECTIONS:
        raise CorruptFile(f"a file of {chunks} chunks, more than {MAX_SECTIONS}: obtain the file again")
    if header.name in {other.name for other in others}:
        raise CorruptFile(f"two signals are called {header.name!r:.80}: obtain the file again")


def header_of(
    signal: AnySignal, initialization: bytes, coding: bytes, patches_per_chunk: int, chunks: int
) -> StreamHeader:
    """Return the header that describes a coded signal.

    initialization: its identifier. coding: the coding parameters of the field codec.
    """
    return StreamHeader(
        modality=signal.modality,
        name=signal.name,
        initialization=initialization,
        dtype=signal.dtype.newbyteorder("<").str,
        axes=signal.axes,
        channels=signal.channels,
        value_range=signal.value_range,
        sphere=signal.sphere,
        coding=coding,
        patches_per_chunk=patches_per_chunk,
        chunks=chunks,
        has_missing=signal.has_missing,
        attributes=signal.attributes,
        slice_ranges=signal.slice_ranges,
    )
