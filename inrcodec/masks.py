"""Masks too large for memory, as deflated bits: packed and unpacked part by part, in order."""

import zlib

import numpy as np

_PIECE = 1 << 16


class Inflater:
    """Takes the bytes of a zlib stream in order. Errors are ValueErrors."""

    def __init__(self, deflated: bytes) -> None:
        self._deflated = deflated
        self._place = 0
        self._fed = b""
        self._inflater = zlib.decompressobj()

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises: ValueError if the stream is damaged or shorter."""
        pieces = []
        while count:
            piece = self._next(count)
            if not piece and self._is_over():
                raise ValueError(f"a zlib stream that is {count} bytes too short")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def check_end(self) -> None:
        """Raises: ValueError unless all was taken and nothing comes behind the stream."""
        while not self._is_over():
            if self._next(1):
                raise ValueError("a zlib stream that is too long")
        if not self._inflater.eof or self._inflater.unused_data or self._place < len(self._deflated):
            raise ValueError("a zlib stream that is cut off, or has something behind it")

    def _next(self, most: int) -> bytes:
        if not self._fed:
            self._fed = self._deflated[self._place : self._place + _PIECE]
            self._place += len(self._fed)
        try:
            piece = self._inflater.decompress(self._fed, most)
        except zlib.error as error:
            raise ValueError(f"no zlib stream ({error})") from error
        self._fed = self._inflater.unconsumed_tail
        return piece

    def _is_over(self) -> bool:
        return self._inflater.eof or (not self._fed and self._place >= len(self._deflated))


class MaskPacker:
    """Packs the bits of a mask, part by part: the highest bit of a byte first, deflated."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(9)
        self._packed: list[bytes] = []
        self._rest = np.empty(0, bool)

    def add(self, mask: np.ndarray) -> None:
        bits = np.concatenate([self._rest, mask.reshape(-1)])
        whole = bits.size // 8 * 8
        self._packed.append(self._deflater.compress(np.packbits(bits[:whole]).tobytes()))
        self._rest = bits[whole:]

    def packed(self) -> bytes:
        """Return the whole mask; nothing can be added any more."""
        last = self._deflater.compress(np.packbits(self._rest).tobytes())
        return b"".join([*self._packed, last, self._deflater.flush()])


class MaskReader:
    """Undoes `MaskPacker`, part by part: fast in ascending order, or where the same is asked for again.

    count: bits of the whole mask.
    """

    def __init__(self, packed: bytes, count: int) -> None:
        self._packed, self._count = packed, count
        self._range, self._found = (0, 0), np.zeros(0, bool)
        self._restart()

    def _restart(self) -> None:
        self._inflater = Inflater(self._packed)
        self._read = 0  # bytes
        self._last = b""  # of the bytes read; some of its bits may be asked for next
        self._end = 0

    def bits(self, begin: int, end: int) -> np.ndarray:
        """Return the bits from `begin` to before `end` as bool.

        Raises: ValueError if that is impossible or, where `end` is that of the mask, if the mask is longer.
        """
        if (begin, end) == self._range:
            return self._found.copy()
        if begin < self._end:
            self._restart()
        first = begin // 8
        while self._read < first:
            self._take(min(first - self._read, _PIECE))
        data = (self._last if first < self._read else b"") + self._take(-(-end // 8) - self._read)
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        own = slice(begin - 8 * first, end - 8 * first)
        self._end = end
        if end == self._count:
            self._inflater.check_end()
            if bits[own.stop :].any():
                raise ValueError("a mask whose last byte has bits of no value")
        self._range, self._found = (begin, end), bits[own].astype(bool)
        return self._found.copy()

    def _take(self, count: int) -> bytes:
        data = self._inflater.take(count)
        self._read += count
        self._last = data[-1:] or self._last
        return data
