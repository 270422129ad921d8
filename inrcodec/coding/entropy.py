"""Integers to bytes and back, under models whose probabilities are a shipped integer table.

A symbol is coded with the model of its row; there are three kinds:
- rows 0 to 48: any integer, under a zero-mean Laplace density of scale 2^((row - 24) / 4);
- 81 rows from `FLAG_ROW`: 0 or 1; the log odds of a 1 are (row - FLAG_ROW - 40) / 4;
- 64 rows from `MAGNITUDE_ROW`: 0, 1, 2, ..., with probabilities that fall by exp(-1 / b) from each to the next,
  b = 2^((row - MAGNITUDE_ROW - 8) / 4).
The table gives every symbol within the row's support a frequency out of 2^16. One more frequency, but for flags, is
that of the escape, which is followed by a sign (Laplace only) and an exp-Golomb code. docs/FORMAT.md has all of it.

Decoding is integer arithmetic. The one place with floats is where constriction takes a model: its
`Categorical(weights, perfect=False)` gives symbol i of n the interval that begins at
floor(sum(weights[:i]) * scale) + i of 2^24, with scale = (2^24 - n) / sum(weights). We pass the weights
256 * frequency - 1, whose sum is 2^24 - n: the scale is exactly 1, every sum is an integer below 2^53, no
operation rounds, and the intervals are 256 times those of the table on every machine.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from io import BytesIO

import constriction
import numpy as np

from inrcodec.errors import CorruptFile

ROWS = 49  # of the Laplace models
ZERO_ROW = 24  # the row of scale 1
FLAG_ROWS, EVEN_FLAG = 81, 40  # how many; the row of even odds, counted from the first
MAGNITUDE_ROWS, UNIT_MAGNITUDE = 64, 8  # how many; the row of b = 1, counted from the first
FLAG_ROW = ROWS  # the first
MAGNITUDE_ROW = FLAG_ROW + FLAG_ROWS
ALL_ROWS = MAGNITUDE_ROW + MAGNITUDE_ROWS
SYMBOL_LIMIT = 1 << 31  # symbols lie strictly between -SYMBOL_LIMIT and SYMBOL_LIMIT

Batch = tuple[np.ndarray, np.ndarray]
"""Symbols and the rows they are coded with, [n] int64 each."""

_TOTAL_BITS = 16
_PREFIX_LIMIT = 31  # an exp-Golomb prefix of more ones would be of an excess beyond SYMBOL_LIMIT
_GOLOMB_ORDERS = np.concatenate(
    [
        np.maximum(0, (np.arange(ROWS) - ZERO_ROW) // 4),
        np.zeros(FLAG_ROWS, np.int64),
        np.maximum(0, (np.arange(MAGNITUDE_ROWS) - UNIT_MAGNITUDE) // 4),
    ]
)


def encode(symbols: np.ndarray, rows: np.ndarray) -> bytes:
    """Code each symbol with the model of its row.

    symbols: [n] int64, |symbol| < 2^31. rows: [n] int64 in 0..ALL_ROWS-1.
    Returns b"" where every symbol is 0.
    Raises: ValueError for symbols or rows of another shape or range.
    """
    return encode_batches([(symbols, rows)])


def encode_batches(batches: Sequence[Batch]) -> bytes:
    """Code several (symbols, rows) as one; the rows of a batch may depend on the symbols of those before.

    Saves some 3 bytes for each batch over calls of their own. Shapes and errors are those of `encode`.
    """
    coder = constriction.stream.stack.AnsCoder()  # last in, first out: everything is coded in reverse
    for symbols, rows in reversed(batches):
        _push(coder, *_checked(symbols, rows))
    return bytes(coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))


def decode(data: bytes, rows: np.ndarray) -> np.ndarray:
    """Return the symbols that `encode` was given: [n] int64.

    rows: [n] int64 in 0..ALL_ROWS-1, the same as for `encode`.
    Raises: CorruptFile if `data` is not what `encode` returns for any symbols with these rows; ValueError for
        rows of another shape or range.
    """
    decoder = Decoder(data)
    symbols = decoder.decode(rows)
    decoder.finish()
    return symbols


class Decoder:
    """Reads the batches that `encode_batches` was given, one after the other.

    Raises: CorruptFile if `data` is not what `encode_batches` returns for any symbols, here or in the methods.
    """

    def __init__(self, data: bytes) -> None:
        if data.endswith(b"\0"):
            raise CorruptFile(f"{len(data)} bytes of entropy-coded data end in a zero: obtain the file again")
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), "<u4").astype(np.uint32)
        self._coder = constriction.stream.stack.AnsCoder(words)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """Return the symbols of the next batch, [n] int64, whose rows are [n] int64 in 0..ALL_ROWS-1."""
        _, rows = _checked(np.zeros(np.shape(rows), np.int64), rows)
        return _pop(self._coder, rows)

    def finish(self) -> None:
        """Make sure that nothing is left: to be called after the last batch."""
        if not self._coder.is_empty():
            raise CorruptFile("entropy-coded data goes on after its last symbol: obtain the file again")


def code_length(symbols: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what each symbol costs: [n] float64 bits. Their sum is within some 3 bytes of the size of `encode`.

    symbols: [n] int64, |symbol| < 2^31. rows: [n] int64 in 0..ALL_ROWS-1.
    Raises: ValueError for symbols or rows of another shape or range.
    """
    symbols, rows = _checked(symbols, rows)
    magnitudes, supports = np.abs(symbols), _supports()[rows]
    escaped = magnitudes > supports
    bits: np.ndarray = _symbol_bits()[rows, np.where(escaped, 0, magnitudes + 1)]
    if escaped.any():
        orders = _GOLOMB_ORDERS[rows[escaped]]
        digits = _digits(magnitudes[escaped] - supports[escaped] - 1 + (1 << orders))
        signs = rows[escaped] < ROWS
        bits[escaped] += signs + 1 + 2 * digits - orders  # sign, prefix with its end, digits
    return bits


def _push(coder: constriction.stream.stack.AnsCoder, symbols: np.ndarray, rows: np.ndarray) -> None:
    order = _by_row(rows)
    symbols, rows = symbols[order], rows[order]
    magnitudes, supports = np.abs(symbols), _supports()[rows]
    escaped = magnitudes > supports
    # 0, 1, -1, 2, -2, ..., escape: as the interval of 0 begins at 0, coding it leaves an empty coder empty.
    signed = rows < ROWS
    indices = np.where(signed, 2 * magnitudes - (symbols > 0), magnitudes)
    indices = np.where(escaped, np.where(signed, 2, 1) * supports + 1, indices).astype(np.int32)
    for bits in reversed(_escape_bits(symbols[escaped], rows[escaped])):
        coder.encode_reverse(bits, _bit_model())
    for row, begin, end in reversed(_runs(rows)):
        coder.encode_reverse(indices[begin:end], _model(row))


def _pop(coder: constriction.stream.stack.AnsCoder, rows: np.ndarray) -> np.ndarray:
    order = _by_row(rows)
    rows = rows[order]
    indices = np.zeros(len(rows), np.int64)
    for row, begin, end in _runs(rows):
        indices[begin:end] = coder.decode(_model(row), end - begin)
    signed = rows < ROWS
    magnitudes = np.where(signed, (indices + 1) // 2, indices)
    sorted_symbols = np.where(signed & (indices % 2 == 0), -magnitudes, magnitudes)
    supports = _supports()[rows]
    escaped = indices == np.where(signed, 2, 1) * supports + 1
    if escaped.any():
        sorted_symbols[escaped] = _decode_escapes(coder, rows[escaped])
    symbols = np.empty_like(sorted_symbols)
    symbols[order] = sorted_symbols
    return symbols


def _escape_bits(symbols: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Return the bits that follow the table-coded symbols, in decoding order: an array per round over escapes."""
    magnitudes, orders = np.abs(symbols), _GOLOMB_ORDERS[rows]
    values = magnitudes - _supports()[rows] - 1 + (1 << orders)
    digits = _digits(values)
    prefixes = digits - orders
    rounds = [symbols[rows < ROWS] < 0]
    rounds += [prefixes[prefixes >= i] > i for i in range(int(prefixes.max(initial=-1)) + 1)]
    rounds += [values[digits > i] >> i & 1 for i in reversed(range(int(digits.max(initial=0))))]
    return [bits.astype(np.int32) for bits in rounds]


def _decode_escapes(coder: constriction.stream.stack.AnsCoder, rows: np.ndarray) -> np.ndarray:
    """Decode the symbols behind the escapes, the inverse of `_escape_bits`: [n] int64."""
    supports, orders = _supports()[rows], _GOLOMB_ORDERS[rows]
    negative = np.zeros(len(rows), bool)
    negative[rows < ROWS] = coder.decode(_bit_model(), int(np.sum(rows < ROWS))) == 1
    prefixes = np.zeros(len(supports), np.int64)
    unfinished = np.arange(len(supports))
    while len(unfinished):
        unfinished = unfinished[coder.decode(_bit_model(), len(unfinished)) == 1]
        prefixes[unfinished] += 1
        if len(unfinished) and prefixes[unfinished[0]] == _PREFIX_LIMIT:
            raise CorruptFile(f"an escape has a prefix of {_PREFIX_LIMIT} ones: obtain the file again")
    digits = prefixes + orders
    values = np.ones(len(supports), np.int64)
    for i in reversed(range(int(digits.max()))):
        values[digits > i] = values[digits > i] << 1 | coder.decode(_bit_model(), int(np.sum(digits > i)))
    magnitudes = values - (1 << orders) + supports + 1
    if magnitudes.max() >= SYMBOL_LIMIT:
        raise CorruptFile(f"a symbol has magnitude {magnitudes.max()}, beyond 2^31: obtain the file again")
    symbols: np.ndarray = np.where(negative, -magnitudes, magnitudes)
    return symbols


def _by_row(rows: np.ndarray) -> np.ndarray:
    """Return the coding order: row after row, within a row as they come. The narrow type makes it a radix sort."""
    order: np.ndarray = np.argsort(rows.astype(np.uint8), kind="stable")
    return order


def _runs(rows: np.ndarray) -> list[tuple[int, int, int]]:
    """Return sorted rows as (row, begin, end) of those that occur, in coding order."""
    if not len(rows):
        return []
    begins = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist()]
    return list(zip(rows[begins].tolist(), begins, [*begins[1:], len(rows)], strict=True))


def _digits(values: np.ndarray) -> np.ndarray:
    """Count the binary digits after the leading one, for values in 1..2^52."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1


def _checked(symbols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    symbols, rows = np.asarray(symbols), np.asarray(rows)
    if symbols.ndim != 1 or symbols.shape != rows.shape:
        raise ValueError(f"symbols and rows must be as long: {symbols.shape = }, {rows.shape = }")
    if symbols.dtype.kind not in "iu" or rows.dtype.kind not in "iu":
        raise ValueError(f"symbols and rows must be integers: {symbols.dtype = }, {rows.dtype = }")
    if len(rows) and not (rows.min() >= 0 and rows.max() < ALL_ROWS):
        raise ValueError(f"rows must lie in 0..{ALL_ROWS - 1}: {rows.min() = }, {rows.max() = }")
    if len(symbols) and not (symbols.min() > -SYMBOL_LIMIT and symbols.max() < SYMBOL_LIMIT):
        raise ValueError(f"symbols must lie within 2^31: {symbols.min() = }, {symbols.max() = }")
    unsigned = rows >= ROWS
    if unsigned.any():
        if symbols[unsigned].min() < 0:
            raise ValueError(f"flags and magnitudes cannot be negative: {symbols[unsigned].min() = }")
        flags = symbols[unsigned & (rows < MAGNITUDE_ROW)]
        if flags.max(initial=0) > 1:
            raise ValueError(f"flags are 0 or 1: {flags.max() = }")
    return symbols.astype(np.int64), rows.astype(np.int64)


@cache
def _table() -> np.ndarray:
    """Return [ALL_ROWS, 2 + largest support] int64 frequencies: escape, 0, (+-)1, (+-)2, ...; 0 beyond the support."""
    tables = []
    for name in ("laplace", "unsigned"):
        content = files("inrcodec.coding").joinpath(f"{name}_frequencies.npy").read_bytes()
        tables.append(np.load(BytesIO(content), allow_pickle=False).astype(np.int64))
    width = max(table.shape[1] for table in tables)
    padded: np.ndarray = np.concatenate([np.pad(table, ((0, 0), (0, width - table.shape[1]))) for table in tables])
    return padded


@cache
def _supports() -> np.ndarray:
    """Return [ALL_ROWS] int64: the largest magnitude that has a frequency of its own."""
    supports: np.ndarray = np.count_nonzero(_table()[:, 1:], axis=1) - 1
    return supports


@cache
def _symbol_bits() -> np.ndarray:
    """Return [ALL_ROWS, 2 + largest support] float64: the table's frequencies as bits."""
    bits: np.ndarray = _TOTAL_BITS - np.log2(np.maximum(_table(), 1))
    return bits


@cache
def _model(row: int) -> constriction.stream.model.Categorical:
    escape, zero, *others = _table()[row, : _supports()[row] + 2]
    alphabet = [zero, *(np.repeat(others, 2) if row < ROWS else others), *([escape] if escape else [])]
    return _exact_model(np.array(alphabet))


@cache
def _bit_model() -> constriction.stream.model.Categorical:
    return _exact_model(np.full(2, 1 << (_TOTAL_BITS - 1)))


def _exact_model(frequencies: np.ndarray) -> constriction.stream.model.Categorical:
    """Return a model with these frequencies out of 2^16; the module's docstring says why it is exact."""
    weights = (frequencies << 8) - 1
    return constriction.stream.model.Categorical(weights.astype(np.float64), lazy=False, perfect=False)
