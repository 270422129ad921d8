"""The payload of a residual: symbols for the entropy coder, and the bits and values that go uncoded."""

import math

import numpy as np

from inrcodec.coding import entropy
from inrcodec.coding.varint import read_varint, write_varint
from inrcodec.errors import CorruptFile, TruncatedFile

# The rows beyond those of the entropy coder's table go on to scale 2^29; they code a symbol without its lowest bits.
ROWS = entropy.ROWS + 4 * 23
SIDE_ROW = entropy.ZERO_ROW - 4


class ResidualWriter:
    """Collects the batches that the entropy coder is to code, and the bits that go uncoded."""

    def __init__(self) -> None:
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []
        self._bits = [np.zeros(0, np.uint8)]

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """Add a batch: [n] int64, rows in 0..ROWS-1."""
        symbols, rows = symbols.copy(), rows.copy()
        for shift, places in _uncoded(rows):
            digits = symbols[places, None] >> np.arange(shift) & 1
            self._bits.append(digits.astype(np.uint8).ravel())
            symbols[places] >>= shift
            rows[places] -= 4 * shift
        self._batches.append((symbols, rows))

    def extend(self, other: "ResidualWriter") -> None:
        """Add all that another writer has collected."""
        self._batches += other._batches
        self._bits += other._bits

    def bits(self) -> float:
        """Return what the batches take."""
        coded = sum(float(entropy.code_length(symbols, rows).sum()) for symbols, rows in self._batches)
        return coded + sum(map(len, self._bits))

    def finish(self, stored: np.ndarray, original: np.ndarray) -> bytes:
        """Return the payload; may be called again.

        stored: [n] int64, ascending places in `original` whose values are stored as they are.
        """
        tail = ResidualWriter()
        tail.put(np.array([len(stored)]), np.array([0]))
        if len(stored):
            skipped = np.diff(stored, prepend=-1) - 1
            row = min(ROWS - 1, entropy.ZERO_ROW + round(4 * math.log2(max(skipped.mean(), 2**-6))))
            tail.put(np.array([row]), np.array([entropy.ZERO_ROW]))
            tail.put(skipped, np.full(len(skipped), row))
        coded = entropy.encode_batches(self._batches + tail._batches)
        bits = np.packbits(np.concatenate(self._bits + tail._bits), bitorder="little")
        values = original.reshape(-1)[stored]
        values = values.astype(values.dtype.newbyteorder("<"))
        return write_varint(len(coded)) + coded + bits.tobytes() + values.tobytes()


class ResidualReader:
    """Reads what a `ResidualWriter` has written. Raises: CorruptFile, in all methods."""

    def __init__(self, payload: bytes) -> None:
        try:
            length, begin = read_varint(payload, 0)
        except TruncatedFile as error:
            raise CorruptFile(f"a residual of {len(payload)} bytes has no length: obtain the file again") from error
        if length > len(payload) - begin or payload[:begin] != write_varint(length):
            raise CorruptFile(f"a residual of {len(payload)} bytes claims {length}: obtain the file again")
        self._decoder = entropy.Decoder(payload[begin : begin + length])
        self._uncoded = np.frombuffer(payload, np.uint8)[begin + length :]
        self._position = 0  # in bits

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the symbols of the next batch, [n] int64, given their rows."""
        rows = rows.copy()
        uncoded = _uncoded(rows)
        for shift, places in uncoded:
            rows[places] -= 4 * shift
        symbols = self._decoder.decode(rows)
        for shift, places in uncoded:
            digits = self._take_bits(len(places) * shift).reshape(-1, shift).astype(np.int64)
            symbols[places] = (symbols[places] << shift) + (digits << np.arange(shift)).sum(axis=1)
        return symbols

    def take_one(self, row: int) -> int:
        return int(self.take(np.array([row]))[0])

    def finish(self, size: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Return the places among `size` values of this type whose values are stored, and those values."""
        count = self.take_one(0)
        if not 0 <= count <= size:
            raise CorruptFile(f"a residual stores {count} of {size} values: obtain the file again")
        places = np.zeros(0, np.int64)
        if count:
            row = self.take_one(entropy.ZERO_ROW)
            if not 0 <= row < ROWS:
                raise CorruptFile(f"a residual has a row {row} of {ROWS}: obtain the file again")
            skipped = self.take(np.full(count, row))
            if skipped.min() < 0 or skipped.max() >= size or skipped.sum() + count > size:
                raise CorruptFile(f"a residual stores values that are not among the {size}: obtain the file again")
            places = np.cumsum(skipped + 1) - 1
        self._decoder.finish()
        if self._take_bits(-self._position % 8).any():
            raise CorruptFile("a residual's last uncoded bits are not zeros: obtain the file again")
        stored = self._uncoded[self._position // 8 :].tobytes()
        if len(stored) != count * dtype.itemsize:
            raise CorruptFile(f"a residual has {len(stored)} bytes for {count} stored values: obtain the file again")
        return places, np.frombuffer(stored, dtype.newbyteorder("<"))

    def _take_bits(self, count: int) -> np.ndarray:
        begin, end = self._position, self._position + count
        if end > 8 * len(self._uncoded):
            raise CorruptFile(f"a residual ends {end - 8 * len(self._uncoded)} bits early: obtain the file again")
        self._position = end
        taken = np.unpackbits(self._uncoded[begin // 8 : -(-end // 8)], bitorder="little")
        return taken[begin % 8 :][:count]


def _uncoded(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return how many of the lowest bits go uncoded, ascending, and the places of the symbols for which they do.

    They are the symbols in rows beyond the table's.
    """
    if rows.max(initial=0) < entropy.ROWS:
        return []
    shifts = np.maximum(0, rows - entropy.ROWS + 4) // 4
    return [(shift, np.flatnonzero(shifts == shift)) for shift in range(1, int(shifts.max()) + 1)]
