"""The `.inr` file: a sequence of checksummed sections; docs/FORMAT.md specifies it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from inrcodec.coding.header import StreamHeader, check_header, pack_header, unpack_header
from inrcodec.coding.plain import Budget
from inrcodec.coding.recovery import Recovery
from inrcodec.coding.salvage import Salvage
from inrcodec.coding.sections import (
    CHUNK,
    END,
    HEADER,
    INITIALIZATION,
    LABELS,
    MAGIC,
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

    Where damage was to be skipped:

    cut: the file ended before its end section did.
    mended: heads of sections or the end of the file are damaged, without loss.
    lost: what of the file is left out besides chunks and residuals, each in words.
    lacks_initializations: embedded ones may be among that.
    """

    streams: tuple[Stream, ...]
    initializations: tuple[bytes, ...] = ()
    cut: bool = False
    mended: bool = False
    lost: tuple[str, ...] = ()
    lacks_initializations: bool = False


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
    for number, stream in enumerate(container.streams, 1):
        header = replace(stream.header, following=len(container.streams) - number)
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
        or are cut off are left out (see `Stream.damaged`), and so are signals whose header or mask is not whole (see
        `Container.lost`). A section of which only the kind or the length is damaged is found again and mended by its
        checksum. Where more is damaged, reading goes on at the next section whose checksum matches; what is not known
        to belong to a signal, and to be a certain chunk of it, is left out. A damaged end section and bytes after it
        are ignored.
    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile.
    """
    if skip_damaged:
        return _recovered(data)
    sections = Sections(whole_pieces(data))
    initializations = []
    while sections.next.kind == INITIALIZATION:
        initializations.append(sections.take(INITIALIZATION))
    streams: list[Stream] = []
    headers: list[StreamHeader] = []
    budget = Budget()
    while sections.next.kind != END or not streams:
        header = unpack_header(sections.take(HEADER), budget)
        check_header(header, headers)
        headers.append(header)
        missing = sections.take(MISSING) if header.has_missing else None
        chunks = tuple(sections.take(CHUNK) for _ in range(header.chunks))
        residual = sections.take(RESIDUAL) if header.bound is not None else None
        streams.append(Stream(header, chunks, missing, residual))
    _check_end(headers)
    return Container(tuple(streams), tuple(initializations))


def _recovered(data: bytes) -> Container:
    """Return what is whole of a file. Raises: as `read_container`."""
    pieces, mended = Salvage(data).pieces()
    recovery = Recovery(pieces)
    streams = []
    for found in recovery.streams():
        damaged = frozenset(number for number, chunk in enumerate(found.chunks) if chunk is None)
        chunks = tuple(chunk or b"" for chunk in found.chunks)
        streams.append(Stream(found.header, chunks, found.missing, found.residual, damaged))
    return Container(
        tuple(streams),
        tuple(recovery.initializations),
        cut=pieces[-1].cut,
        mended=mended,
        lost=tuple(recovery.lost),
        lacks_initializations=recovery.lacks_initializations,
    )


def read_outline(file: BinaryIO) -> Outline:
    """Return the parts of a file without reading more than its headers. file: seekable, at its beginning.

    Raises: NotAnInrFile, UnsupportedVersion, TruncatedFile, CorruptFile. Checksums other than those of headers are not
    looked at.
    """
    heads = read_heads(file)
    sections = Sections([Piece(head.kind, head.begin, None) for head in heads])
    embedded = 0
    while sections.next.kind == INITIALIZATION:
        sections.pass_over(INITIALIZATION)
        embedded += 1
    headers: list[StreamHeader] = []
    budget = Budget()
    while sections.next.kind != END or not headers:
        head = heads[sections.position]
        sections.pass_over(HEADER)
        header = unpack_header(read_payload(file, head), budget)
        check_header(header, headers)
        headers.append(header)
        kinds = [MISSING] * header.has_missing + [CHUNK] * header.chunks + [RESIDUAL] * (header.bound is not None)
        for kind in kinds:
            sections.pass_over(kind)
    _check_end(headers)
    sizes = [SectionSize("preamble", None, len(MAGIC) + 1)]
    stream = -1
    for head in heads:
        stream += head.kind == HEADER
        own = stream if head.kind in (HEADER, MISSING, CHUNK, RESIDUAL) else None
        sizes.append(SectionSize(LABELS[head.kind], own, head.end - head.begin))
    return Outline(tuple(headers), embedded, tuple(sizes))


def _check_end(headers: Sequence[StreamHeader]) -> None:
    """Raises: CorruptFile if signals should follow those of a file that has ended."""
    if headers[-1].following:
        raise CorruptFile(
            f"the file ends after {len(headers)} signals, {headers[-1].following} should follow: obtain the file again"
        )


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
