"""The search for what is whole of a damaged `.inr` file."""

import re
from io import BytesIO

from inrcodec.coding.sections import (
    CRC_BYTES,
    END,
    GAP,
    LABELS,
    LETTERS,
    MAGIC,
    MAX_SECTIONS,
    Head,
    Piece,
    crc,
    read_head,
    read_preamble,
)
from inrcodec.coding.varint import MAX_BYTES, write_varint
from inrcodec.errors import CorruptFile, TruncatedFile

_KINDS = re.compile(b"[%b]" % LETTERS)

_SEARCHED_PER_BYTE, _SEARCHED, _SEARCHED_PER_PLACE = 32, 1 << 27, 2048
"""How many bytes are looked at in vain for sections of a damaged file: for each of its bytes, and besides; and as how
many a place counts where one might begin."""


class Salvage:
    """The search for sections in a file that may be damaged.

    A section is trusted if its checksum matches. What is looked at in vain is limited, in proportion to the file: when
    that is used up, the file counts as cut off.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._file = BytesIO(data)
        self._size = read_preamble(self._file)
        self._left = _SEARCHED_PER_BYTE * self._size + _SEARCHED

    def pieces(self) -> tuple[list[Piece], bool]:
        """Return the sections up to the end, and whether heads or the end are damaged without loss."""
        pieces: list[Piece] = []
        mended = False
        position = len(MAGIC) + 1
        while not pieces or pieces[-1].kind != END:
            if len(pieces) >= MAX_SECTIONS:
                raise CorruptFile(f"a file of more than {MAX_SECTIONS} sections: obtain the file again")
            head = self._sound_head(position)
            if head is not None:
                pieces.append(Piece(head.kind, position, self._data[head.payload : head.end]))
                position = head.end
                continue
            goal = self._next_sound(position)
            repaired = self._repaired(position, goal)
            if repaired is not None:
                pieces.append(repaired)
                mended = True
            elif chain := self._chain(position, goal):
                pieces += chain
                mended |= chain[-1].kind == END and not chain[-1].cut
            elif goal < self._size:
                pieces.append(Piece(GAP, position, None))
            else:
                pieces.append(Piece(END, position, None, cut=True))
            position = goal
        return pieces, mended or (position < self._size and not pieces[-1].cut)

    def _head(self, begin: int) -> Head | None:
        try:
            return read_head(self._file, begin, self._size)
        except (CorruptFile, TruncatedFile):
            return None

    def _is_sound(self, head: Head) -> bool:
        start = self._data[head.begin : head.payload - CRC_BYTES]
        sound = (
            head.end - head.payload <= self._left
            and (head.kind != END or head.end == head.payload)
            and crc(start, memoryview(self._data)[head.payload : head.end]) == head.checksum
        )
        if not sound:
            self._left -= head.end - head.payload
        return sound

    def _sound_head(self, begin: int) -> Head | None:
        head = self._head(begin)
        return head if head is not None and self._is_sound(head) else None

    def _next_sound(self, begin: int) -> int:
        """Return where the next section with a right checksum begins, the size of the file if there is none."""
        head = self._head(begin)
        if head is not None and head.end < self._size and self._sound_head(head.end) is not None:
            return head.end
        for place in _KINDS.finditer(self._data, begin + 1):
            self._left -= _SEARCHED_PER_PLACE
            if self._left <= 0:
                break
            head = self._head(place.start())
            if head is None or (head.end < self._size and head.kind != END and self._data[head.end] not in LETTERS):
                continue  # most are no heads, and nearly all of those are found without their checksum
            if self._is_sound(head):
                return place.start()
        return self._size

    def _repaired(self, begin: int, end: int) -> Piece | None:
        """Return the section at these bytes if only its kind or its length is damaged."""
        for digits in range(1, MAX_BYTES + 1):
            payload = begin + 1 + digits + CRC_BYTES
            if payload > end or len(length := write_varint(end - payload)) != digits:
                continue
            content = memoryview(self._data)[payload:end]
            for kind in LABELS:
                self._left -= len(content)
                if self._left <= 0 or kind == GAP or (kind == END and content):
                    continue
                if crc(kind + length, content) == self._data[payload - CRC_BYTES : payload]:
                    return Piece(kind, begin, bytes(content))
        return None

    def _chain(self, begin: int, end: int) -> list[Piece]:
        """Return the damaged sections at these bytes, none if their heads do not lead from one to the other."""
        pieces: list[Piece] = []
        while begin < end:
            head = self._head(begin)
            if head is None or head.end > end or (head.kind == END and not head.payload == head.end == self._size):
                return []
            pieces.append(Piece(head.kind, begin, None))
            begin = head.end
        if begin == self._size and (not pieces or pieces[-1].kind != END):
            pieces.append(Piece(END, begin, None, cut=True))
        return pieces
