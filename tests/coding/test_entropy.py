"""The entropy coder against an rANS decoder in Python integers and against the Laplace density."""

from hashlib import sha256
from importlib.resources import files
from itertools import pairwise
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile

TABLE = np.load(files("inrcodec.coding").joinpath("laplace_frequencies.npy")).astype(int)
LIMIT = 2**31 - 1


def laplace_symbols(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    return np.rint(rng.laplace(0, 2.0 ** ((rows - entropy.ZERO_ROW) / 4))).astype(np.int64)


def naive_decode(data: bytes, rows: list[int]) -> list[int]:
    """Decode by docs/FORMAT.md, "Entropy coding", in Python integers, symbol by symbol."""
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    state = 0
    for word in reversed(words[-2:]):
        state = state << 32 | word
    del words[-2:]

    def pop(frequencies: list[int]) -> int:
        nonlocal state
        quantile, begin, index = state % 2**24, 0, 0
        while begin + 256 * frequencies[index] <= quantile:
            begin += 256 * frequencies[index]
            index += 1
        state = (state >> 24) * 256 * frequencies[index] + quantile - begin
        if state < 2**32 and words:
            state = state << 32 | words.pop()
        return index

    order = sorted(range(len(rows)), key=lambda i: rows[i])
    symbols = [0] * len(rows)
    escapes = []
    for i in order:
        escape, zero, *others = (int(f) for f in TABLE[rows[i]] if f)
        index = pop([zero] + [f for f in others for _ in "+-"] + [escape])
        symbols[i] = (index + 1) // 2 if index % 2 else -index // 2
        if index == 2 * len(others) + 1:
            escapes.append((i, len(others), max(0, (rows[i] - 24) // 4)))

    def bit() -> int:
        return pop([2**15, 2**15])

    negative = [bit() for _ in escapes]
    prefixes = [0] * len(escapes)
    open_ones = list(range(len(escapes)))
    while open_ones:
        open_ones = [j for j in open_ones if bit()]
        for j in open_ones:
            prefixes[j] += 1
    digits = [prefix + order for prefix, (_, _, order) in zip(prefixes, escapes, strict=True)]
    values = [1] * len(escapes)
    for position in reversed(range(max(digits, default=0))):
        for j in range(len(escapes)):
            if digits[j] > position:
                values[j] = 2 * values[j] + bit()
    for (i, support, golomb_order), value, sign in zip(escapes, values, negative, strict=True):
        magnitude = value - 2**golomb_order + support + 1
        symbols[i] = -magnitude if sign else magnitude
    assert state == 0 and not words
    return symbols


symbol_and_row = st.tuples(
    st.one_of(st.integers(-3, 3), st.integers(-1000, 1000), st.integers(-LIMIT, LIMIT)),
    st.integers(0, entropy.ROWS - 1),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(symbol_and_row, max_size=60))
def test_round_trip_and_independent_decoder(pairs: list[tuple[int, int]]) -> None:
    symbols, rows = np.array(pairs, np.int64).reshape(-1, 2).T
    data = entropy.encode(symbols, rows)
    assert entropy.decode(data, rows).tolist() == symbols.tolist()
    assert naive_decode(data, rows.tolist()) == symbols.tolist()
    assert not data.endswith(b"\0")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(symbol_and_row, max_size=20), max_size=4))
def test_parts_come_back_one_after_the_other(lists: list[list[tuple[int, int]]]) -> None:
    parts = [tuple(np.array(pairs, np.int64).reshape(-1, 2).T) for pairs in lists]
    decoder = entropy.Decoder(entropy.encode_batches(parts))
    for symbols, rows in parts:
        assert decoder.decode(rows).tolist() == symbols.tolist()
    decoder.finish()


def test_golden_bytes() -> None:
    """Written in the format's first version: never to be changed."""
    rows = np.array([24, 24, 30, 12, 48, 0, 24, 18, 40, 36])
    symbols = np.array([0, -1, 4, 0, -77, 0, 2, 1, 10, -3])
    assert entropy.encode(symbols, rows).hex() == "00fbc3b85c3a02"
    escaped = np.array([1, -2, 100, 0, 2**31 - 1, -(2**31 - 1), 700, -360, 1, 5])
    assert entropy.encode(escaped, rows).hex() == "000080f49e1efeffffffffffbfeffffe77fffff1ff66fff19165b6e856fffff60f"


def test_table_is_that_of_the_first_version() -> None:
    assert TABLE.shape == (49, 361)
    assert (
        sha256(TABLE.astype("<u2").tobytes()).hexdigest()
        == "206b97c2517f8118aa450e482affb66f9859ce10fb5a9ed0738e88275f395bbc"
    )


@pytest.mark.parametrize("row", range(entropy.ROWS))
def test_table_holds_laplace_probabilities(row: int) -> None:
    frequencies = TABLE[row]
    support = np.count_nonzero(frequencies) - 2
    assert np.all(frequencies[: support + 2] >= 1) and not np.any(frequencies[support + 2 :])
    assert frequencies[0] + frequencies[1] + 2 * frequencies[2:].sum() == 2**16
    scale = 2.0 ** ((row - 24) / 4)
    tails = [exp(-(k + 0.5) / scale) for k in range(support + 1)]
    masses = [tails[-1], 1 - tails[0]] + [(a - b) / 2 for a, b in pairwise(tails)]
    for frequency, mass in zip(frequencies, masses, strict=False):
        # Where the least frequency of 1 raises the tail, the rest has to give: less than 3 %.
        assert frequency == pytest.approx(2**16 * mass, rel=0.03, abs=1)


def test_code_length_is_what_the_frequencies_say() -> None:
    for row, symbol, extra_bits in [(24, 0, 0), (24, -6, 0), (24, 7, 2), (24, -8, 4), (24, 10, 6), (0, 1, 2)]:
        support = np.count_nonzero(TABLE[row]) - 2
        frequency = TABLE[row][0] if abs(symbol) > support else TABLE[row][abs(symbol) + 1]
        (bits,) = entropy.code_length(np.array([symbol]), np.array([row]))
        assert bits == pytest.approx(16 - np.log2(frequency) + extra_bits)
    # Order-6 exp-Golomb: sign, then 1 + 6 bits for an excess of 0..63, 3 + 6 bits for the next 128.
    support = np.count_nonzero(TABLE[48]) - 2
    bits = entropy.code_length(support + 1 + np.array([0, 63, 64, 191, 192]), np.full(5, 48))
    assert (bits - 16 + np.log2(TABLE[48][0])).tolist() == pytest.approx([8, 8, 10, 10, 12])


@pytest.mark.parametrize("widest", [10, 24, 48])
def test_code_length_is_the_size(widest: int) -> None:
    rng = np.random.default_rng(widest)
    rows = rng.integers(0, widest + 1, 20_000)
    symbols = laplace_symbols(rng, rows)
    symbols[::1000] *= 50
    size = len(entropy.encode(symbols, rows))
    assert abs(size - entropy.code_length(symbols, rows).sum() / 8) < 5


def test_size_is_close_to_the_entropy() -> None:
    rng = np.random.default_rng(1)
    for row in (8, 16, 24, 32, 40):
        symbols = laplace_symbols(rng, np.full(50_000, row))
        _, counts = np.unique(symbols, return_counts=True)
        ideal = -np.sum(counts * np.log2(counts / counts.sum())) / 8
        assert len(entropy.encode(symbols, np.full(50_000, row))) < 1.01 * ideal + 8


def test_little_costs_little() -> None:
    rows = np.full(10, 20)
    assert entropy.encode(np.zeros(0, np.int64), np.zeros(0, np.int64)) == b""
    assert entropy.encode(np.zeros(10, np.int64), rows) == b""
    assert entropy.decode(b"", rows).tolist() == [0] * 10
    assert len(entropy.encode(np.array([0, 0, 1, 0, 0, -1, 0, 0, 0, 0]), rows)) <= 6


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=40), st.lists(st.integers(0, entropy.ROWS - 1), max_size=30))
def test_any_bytes_decode_or_are_corrupt(data: bytes, rows: list[int]) -> None:
    try:
        symbols = entropy.decode(data, np.array(rows, np.int64))
    except CorruptFile:
        return
    assert entropy.encode(symbols, np.array(rows, np.int64)) == data


def test_data_that_does_not_end_with_its_symbols_is_corrupt() -> None:
    rows = np.full(50, 24)
    data = entropy.encode(laplace_symbols(np.random.default_rng(0), rows), rows)
    for damaged in (data + b"\0", data + b"\1", data + b"\0\0\0\0\1"):
        with pytest.raises(CorruptFile):
            entropy.decode(damaged, rows)
    with pytest.raises(CorruptFile, match="goes on"):
        entropy.decode(data, rows[:20])


def escape_with_bits(row: int, bits: str) -> bytes:
    """Return the code of one escape and the bits behind it, whatever they say."""
    words, state = [], 0
    escape = 2**8 * int(TABLE[row][0])
    for begin, size in [(int(bit) * 2**23, 2**23) for bit in reversed(bits)] + [(2**24 - escape, escape)]:
        if state >= size << 40:
            words.append(state % 2**32)
            state >>= 32
        state = state // size * 2**24 + begin + state % size
    words += [state % 2**32, state >> 32]
    return b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0")


def test_escapes_beyond_the_limit_are_corrupt() -> None:
    rows = np.zeros(1, np.int64)
    assert entropy.decode(escape_with_bits(0, "0" + "10" + "1"), rows).tolist() == [3]
    assert entropy.decode(escape_with_bits(0, "1" + "1" * 30 + "0" + "1" * 30), rows).tolist() == [-LIMIT]
    with pytest.raises(CorruptFile, match="prefix of 31 ones"):
        entropy.decode(escape_with_bits(0, "0" + "1" * 31 + "0" + "1" * 31), rows)
    rows[0] = 24
    with pytest.raises(CorruptFile, match=r"beyond 2\^31"):
        entropy.decode(escape_with_bits(24, "0" + "1" * 30 + "0" + "1" * 30), rows)


@pytest.mark.parametrize(
    ("symbols", "rows"),
    [
        ([0], [-1]),
        ([0], [entropy.ALL_ROWS]),
        ([-1], [entropy.FLAG_ROW]),
        ([2], [entropy.FLAG_ROW]),
        ([-1], [entropy.MAGNITUDE_ROW]),
        ([0, 1], [0]),
        ([2**31], [24]),
        ([-(2**31)], [24]),
        ([0.0], [24]),
        ([[0]], [[24]]),
    ],
)
def test_arguments_out_of_range(symbols: list, rows: list) -> None:
    with pytest.raises(ValueError, match=r"symbols|rows|flags"):
        entropy.encode(np.array(symbols), np.array(rows))
    with pytest.raises(ValueError, match=r"symbols|rows|flags"):
        entropy.code_length(np.array(symbols), np.array(rows))
