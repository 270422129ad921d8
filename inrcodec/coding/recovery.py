"""Which signals the sections of a damaged `.inr` file belong to."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inrcodec.coding.header import StreamHeader, check_together, unpack_header
from inrcodec.coding.plain import Budget
from inrcodec.coding.sections import CHUNK, GAP, HEADER, INITIALIZATION, MISSING, RESIDUAL, Piece, mismatch, misplaced
from inrcodec.errors import CorruptFile

_CONFUSED = "its sections cannot be told from others any more"


@dataclass(frozen=True)
class Found:
    """A signal of a damaged file.

    chunks: `header.chunks` payloads, None for those that are damaged, lost or not known. residual: likewise.
    """

    header: StreamHeader
    missing: bytes | None
    chunks: list[bytes | None]
    residual: bytes | None


@dataclass(frozen=True)
class _Block:
    """A header and the sections after it, up to the next header or the end of the file.

    pieces: those that are damaged and of no use where they are count as gaps.
    hides: headers are lost, perhaps in gaps of this block. What comes after the first gap may then be of other signals.
    spliced: there is no gap where these headers are lost, so that nobody knows where they were.
    cut: the file is cut off after these sections.
    """

    header: StreamHeader
    pieces: list[Piece]
    hides: bool
    spliced: bool
    cut: bool


class _Lost(Exception):
    """A signal cannot be told from the sections that are left. Its text says what is damaged."""


class Recovery:
    """The signals of a damaged file.

    Each header says how many signals follow. So it is known whether a header is lost between two others, and where none
    is, all sections between them belong to the first.

    initializations: those that are whole. lost: what is left out besides chunks and residuals, each in words; complete
    once `streams` was called. lacks_initializations: embedded ones may be lost.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Begin with the sections of a file, the last of which is its end."""
        self._pieces = pieces
        places = (place for place, piece in enumerate(pieces) if piece.kind == HEADER and piece.payload is not None)
        self._first = next(places, len(pieces) - 1)
        before = pieces[: self._first]
        payloads = [piece.payload for piece in before if piece.kind == INITIALIZATION]
        self.initializations = [payload for payload in payloads if payload is not None]
        self.lacks_initializations = None in payloads or any(piece.kind == GAP for piece in before)
        self.lost: list[str] = []
        if self.lacks_initializations:
            self.lost.append("what the file begins with is damaged: initializations or signals are lost there")
        elif any(piece.kind != INITIALIZATION for piece in before):
            self.lost.append("the first header of the file is damaged: its signal is lost")

    def streams(self) -> list[Found]:
        """Return the signals of which enough is whole.

        Raises: CorruptFile, TruncatedFile if there is none.
        """
        found = []
        reasons = []
        for block in self._blocks():
            try:
                found.append(_found(block))
            except _Lost as reason:
                reasons.append(f"{reason}: obtain the file again")
                self.lost.append(f"{block.header.label} is left out: {reason}")
        if not found:
            raise CorruptFile(reasons[0]) if reasons else self._without_header()
        return found

    def _without_header(self) -> Exception:
        """Return what to say of a file in which no header is whole."""
        piece = next(piece for piece in self._pieces if piece.kind != INITIALIZATION)
        return mismatch(HEADER, piece.begin) if piece.kind == HEADER else misplaced(piece, HEADER)

    def _blocks(self) -> Iterator[_Block]:
        """Yield the headers that are whole, with what follows them. Raises: CorruptFile if they contradict."""
        pieces, end = self._pieces, len(self._pieces) - 1
        budget = Budget()
        headers: list[StreamHeader] = []
        places = [place for place in range(self._first, end) if pieces[place].kind == HEADER]
        whole = [place for place in places if pieces[place].payload is not None]
        for place in whole:
            header = unpack_header(pieces[place].payload or b"", budget)
            check_together(header, headers)
            headers.append(header)
        for number, (place, header) in enumerate(zip(whole, headers, strict=True), 1):
            next_whole = whole[number] if number < len(whole) else end
            after = headers[number] if number < len(whole) else None
            lost = header.following - (after.following + 1 if after is not None else 0)
            if lost < 0:
                raise CorruptFile(
                    f"{header.following} signals should follow {header.label}, and others are there: obtain the file "
                    "again"
                )
            if lost:
                are = "1 signal is" if lost == 1 else f"{lost} signals are"
                self.lost.append(f"{are} lost after {header.label}")
            damaged = [each for each in places if place < each < next_whole]
            until = next_whole
            if len(damaged) <= lost:
                until, lost = next(iter(damaged), until), lost - len(damaged)
            usable = [_usable(piece) for piece in pieces[place + 1 : next_whole]]
            cut = pieces[next_whole].cut
            spliced = lost > 0 and not cut and all(piece.kind != GAP for piece in usable)
            yield _Block(header, usable[: until - place - 1], lost > 0, spliced, cut and until == next_whole)


def _usable(piece: Piece) -> Piece:
    """Return a section, as a gap if it is damaged and not of those whose number says something."""
    stays = piece.payload is not None or piece.kind in (CHUNK, MISSING, RESIDUAL)
    return piece if stays else Piece(GAP, piece.begin, None)


def _found(block: _Block) -> Found:
    """Return the signal of a block. Raises: _Lost."""
    header, pieces, cut = block.header, list(block.pieces), block.cut
    count = header.chunks
    if block.spliced:
        raise _Lost(_CONFUSED)
    if count > math.prod(axis.size for axis in header.axes):
        raise _Lost(f"a signal of fewer samples than its {count} chunks")
    missing = None
    if header.has_missing:
        missing = pieces.pop(0).payload if pieces and pieces[0].kind == MISSING else None
        if missing is None:
            raise _Lost("its mask of missing values is damaged")
    if block.hides:
        known = next((place for place, piece in enumerate(pieces) if piece.kind == GAP), len(pieces))
        known = min(known, count + (header.bound is not None))
        cut = cut or known < len(pieces)
        pieces = pieces[:known]
    residual = None
    ends = bool(pieces) and pieces[-1].kind == RESIDUAL and header.bound is not None
    if ends:
        residual = pieces.pop().payload
    return Found(header, missing, _chunks(header, pieces, cut and not ends, ends), residual)


def _chunks(header: StreamHeader, pieces: Sequence[Piece], cut: bool, ends: bool) -> list[bytes | None]:
    """Return the chunks of a signal, None where they are lost or their numbers are not known.

    cut: further ones may come after these sections. ends: the signal's residual comes after them. Raises: _Lost.
    """
    found: list[bytes | None] = []
    gaps: list[int] = []  # chunks found before each place where others are lost
    for piece in pieces:
        if piece.kind == CHUNK:
            found.append(piece.payload)
        elif piece.payload is not None:
            raise _Lost(_CONFUSED)
        elif not gaps or gaps[-1] < len(found):
            gaps.append(len(found))
    after = bool(gaps) and gaps[-1] == len(found)
    if cut and not after:
        gaps.append(len(found))
    # What ends the stream may have begun with chunks: a residual that is lost, or the end of the file.
    open_end = cut or (after and header.bound is not None and not ends)
    lost = header.chunks - len(found)
    if lost == 0:
        return found
    if lost < 0 or not gaps:
        raise _Lost(_CONFUSED)
    if len(gaps) == 1:
        return [*found[: gaps[0]], *[None] * lost, *found[gaps[0] :]]
    if lost == len(gaps) - open_end:
        for gap in reversed(gaps[: len(gaps) - open_end]):
            found.insert(gap, None)
        return found
    last = len(found) - gaps[-1]
    return [*found[: gaps[0]], *[None] * (header.chunks - gaps[0] - last), *found[gaps[-1] :]]
