"""The entropy coder: bytes to batches of integer symbols.

It follows "Entropy coding" of docs/FORMAT.md.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from second_decoder.reading import require

FLAG_ROWS, MAGNITUDE_ROWS = 49, 130
"""The first rows of flags and of magnitudes; those before are Laplace rows."""

TABLES = Path(__file__).parents[2] / "inrcodec" / "coding"
HASHES = {
    "laplace": "206b97c2517f8118aa450e482affb66f9859ce10fb5a9ed0738e88275f395bbc",
    "unsigned": "47413dfc3d83eadf376f5b92153be7f759d0312614730ce424cc42449a2b6871",
}


@cache
def frequencies(kind: str) -> np.ndarray:
    """Return one of the two tables of frequencies, [rows, columns]."""
    table = np.load(TABLES / f"{kind}_frequencies.npy", allow_pickle=False)
    if hashlib.sha256(table.astype("<u2").tobytes()).hexdigest() != HASHES[kind]:
        raise ValueError(f"the table of {kind} frequencies is another one")
    return table


@dataclass(frozen=True)
class Items:
    """The items that can be next, in the order of their intervals.

    symbols: what each stands for, None for the escape. begins, sizes: of the intervals. support: the largest symbol.
    """

    symbols: tuple[int | None, ...]
    begins: tuple[int, ...]
    sizes: tuple[int, ...]
    support: int


def _items_of(symbols: Sequence[int | None], sizes: Sequence[int], support: int) -> Items:
    return Items(tuple(symbols), tuple(accumulate(sizes, initial=0))[:-1], tuple(sizes), support)


BIT = _items_of((0, 1), (1 << 23, 1 << 23), 1)


@cache
def items_of_row(row: int) -> Items:
    """Return the items of a row 0..193."""
    laplace = row < FLAG_ROWS
    numbers = (frequencies("laplace")[row] if laplace else frequencies("unsigned")[row - FLAG_ROWS]).tolist()
    escape, *counts = (256 * number for number in numbers)
    support = max(k for k, count in enumerate(counts) if count)
    symbols: list[int | None] = [0]
    for k in range(1, support + 1):
        symbols += [k, -k] if laplace else [k]
    sizes = [counts[abs(symbol)] for symbol in symbols if symbol is not None]
    if escape:
        symbols.append(None)
        sizes.append(escape)
    return _items_of(symbols, sizes, support)


class EntropyDecoder:
    """Reads one batch after the other of some entropy-coded data. `finish` comes after the last one."""

    def __init__(self, data: bytes) -> None:
        require(not data.endswith(b"\0"), "entropy-coded data does not end in a zero byte")
        self._words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").tolist()
        self._state = self._words.pop() if self._words else 0
        if self._words:
            self._state = (self._state << 32) + self._words.pop()

    def finish(self) -> None:
        """Make sure that nothing is left."""
        require(self._state == 0 and not self._words, "nothing is left after the last symbol")

    def one(self, row: int) -> int:
        """Return the symbol of a batch of one symbol."""
        return int(self.batch(np.array([row]))[0])

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the symbols of a batch, int64, in the shape of their rows."""
        flat = rows.ravel()
        symbols = np.zeros(flat.size, np.int64)
        escapes = []
        for place in np.argsort(flat, kind="stable").tolist():
            symbol = self._item(items_of_row(int(flat[place])))
            if symbol is None:
                escapes.append(place)
            else:
                symbols[place] = symbol
        symbols[escapes] = self._escapes([int(flat[place]) for place in escapes])
        return symbols.reshape(rows.shape)

    def flagged(self, flag_rows: np.ndarray, magnitude_rows: np.ndarray) -> np.ndarray:
        """Return the integers of a flagged batch, in the shape of their rows."""
        flags = self.batch(flag_rows) == 1
        negative = self.batch(np.full(int(flags.sum()), 89)) == 1
        magnitudes = self.batch(magnitude_rows[flags]) + 1
        integers = np.zeros(flag_rows.shape, np.int64)
        integers[flags] = np.where(negative, -magnitudes, magnitudes)
        return integers

    def _item(self, items: Items) -> int | None:
        q = self._state % (1 << 24)
        which = bisect_right(items.begins, q) - 1
        self._state = (self._state >> 24) * items.sizes[which] + q - items.begins[which]
        if self._state < 1 << 32 and self._words:
            self._state = (self._state << 32) + self._words.pop()
        return items.symbols[which]

    def _bit(self) -> int:
        return int(self._item(BIT) or 0)

    def _escapes(self, rows: list[int]) -> list[int]:
        """Return the symbols behind some escapes, whose rows are sorted."""
        signs = [-1 if row < FLAG_ROWS and self._bit() else 1 for row in rows]
        prefixes = [0] * len(rows)
        going_on = list(range(len(rows)))
        while going_on:
            going_on = [escape for escape in going_on if self._bit()]
            for escape in going_on:
                prefixes[escape] += 1
                require(prefixes[escape] <= 30, "a prefix has at most 30 ones")
        orders = [max(0, (row - (24 if row < FLAG_ROWS else 138)) // 4) for row in rows]
        digits = [prefix + order for prefix, order in zip(prefixes, orders, strict=True)]
        values = [1] * len(rows)
        for i in reversed(range(max(digits, default=0))):
            for escape, count in enumerate(digits):
                if count > i:
                    values[escape] = 2 * values[escape] + self._bit()
        symbols = []
        for row, sign, order, value in zip(rows, signs, orders, values, strict=True):
            magnitude = value - (1 << order) + items_of_row(row).support + 1
            require(magnitude < 1 << 31, "a symbol is smaller than 2^31 in magnitude")
            symbols.append(sign * magnitude)
        return symbols
