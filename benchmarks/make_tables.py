"""Compute `laplace_frequencies.npy` and `unsigned_frequencies.npy`, the probability tables of the entropy coder.

Run once, when the format was designed: the tables are part of the format, so a table with one other number
belongs to another format version.

Laplace: row r belongs to a zero-mean Laplace density of scale b = 2^((r - 24) / 4) quantization steps. Its symbols are
the integers -S..S, each with the mass of the density within half a step of it, and an escape with the mass of
all the rest. The frequencies are the positive integers with sum 2^16 that give the shortest expected code;
S is the smallest support within `TOLERANCE` of the best one.

The array is [49, 2 + largest S] uint16: column 0 is the escape, column 1 the symbol 0, column 1 + k each of
the symbols k and -k; zero beyond the row's support.

Unsigned: the first 81 rows are for flags, 0 or 1; the log odds of a 1 in row r are (r - 40) / 4. The next 64 are
for magnitudes k = 0, 1, 2, ..., of probabilities (1 - theta) theta^k with theta = exp(-1 / b), b = 2^((r - 8) / 4) in
the r-th of them, cut like the Laplace rows. The array is [145, 2 + largest S] uint16: column 0 is the escape (0 for
flags, which have none), column 1 + k the symbol k.
"""

import argparse
import io
from collections.abc import Callable
from decimal import Decimal, getcontext
from math import log2
from pathlib import Path

import numpy as np

from inrcodec.signals.whole_files import write_bytes

ROWS, ZERO_ROW, TOTAL = 49, 24, 1 << 16
FLAG_ROWS, FLAG_ZERO_ROW = 81, 40
MAGNITUDE_ROWS, MAGNITUDE_UNIT_ROW = 64, 8
LARGEST_SUPPORT = 511
TOLERANCE = 1e-3  # bits per symbol, and share of the bits

getcontext().prec = 60


def laplace_masses(row: int) -> tuple[list[Decimal], list[Decimal]]:
    """Return the mass of the bin of symbol k, and that beyond the bins -k..k, for k = 0..LARGEST_SUPPORT."""
    scale = Decimal(2) ** (Decimal(row - ZERO_ROW) / 4)
    beyond = [(-(k + Decimal("0.5")) / scale).exp() for k in range(LARGEST_SUPPORT + 1)]
    inside = [1 - beyond[0]] + [(beyond[k - 1] - beyond[k]) / 2 for k in range(1, LARGEST_SUPPORT + 1)]
    return inside, beyond


def apportion(masses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the integers f >= 1 with sum(weights * f) = TOTAL that minimize -sum(weights * masses * log2(f)).

    masses: [n] of one symbol each; weights: [n] number of symbols that share the frequency, 1 or 2; entry 0
    has weight 1. The objective is separable and convex, so giving units to the largest gain is optimal; only
    the last unit may not fit a pair, then it goes to entry 0.
    """
    frequencies = np.maximum(1, np.floor(masses * TOTAL * 0.98)).astype(np.int64)
    left = TOTAL - int(weights @ frequencies)
    if left < 0:
        # The minimum of 1 takes more than 2 % of the total from the others: begin from the bottom.
        frequencies[:] = 1
        left = TOTAL - int(weights @ frequencies)
    while left:
        gains = np.where(weights <= left, masses * np.log1p(1 / frequencies), -1)
        best = int(np.argmax(gains))
        frequencies[best] += 1
        left -= int(weights[best])
    return frequencies


def escape_bits(quarters: int, sign: int) -> float:
    """Return the expected bits of the sign and exp-Golomb code of an escaped symbol; the scale is 2^(quarters / 4)."""
    order = max(0, quarters // 4)
    scale = 2.0 ** (quarters / 4)
    excess = np.arange(int(60 * scale) + 1)
    mass = np.exp(-excess / scale) * -np.expm1(-1 / scale)
    digits = np.frexp((excess + (1 << order)).astype(np.float64))[1] - 1
    return float(np.sum(mass * (1 + sign + 2 * digits - order)))


def make_row(row: int) -> tuple[np.ndarray, float, float]:
    """Return frequencies (escape, 0, 1, ..., S), their expected bits per symbol, and the entropy of the symbols."""
    inside, beyond = laplace_masses(row)
    nonzero = [float(mass) for mass in inside if mass > Decimal("1e-300")]
    entropy = -sum(mass * log2(mass) * (2 if k else 1) for k, mass in enumerate(nonzero))

    def build(support: int) -> tuple[np.ndarray, float]:
        masses = np.array([float(beyond[support])] + [float(m) for m in inside[: support + 1]])
        weights = np.array([1, 1] + [2] * support)
        frequencies = apportion(masses[[1, 0, *range(2, support + 2)]], weights)
        frequencies[[0, 1]] = frequencies[[1, 0]]
        bits = -float(np.sum(weights * masses * np.log2(frequencies / TOTAL)))
        return frequencies, bits + masses[0] * escape_bits(row - ZERO_ROW, 1)

    support = smallest_support(lambda support: build(support)[1])
    return *build(support), entropy


def smallest_support(bits: Callable[[int], float]) -> int:
    """Return the smallest support whose expected bits are within the tolerance of the best."""
    candidates = [s for s in range(LARGEST_SUPPORT + 1) if s < 24 or s % 8 == 7]
    lengths = {s: bits(s) for s in candidates}
    best = min(lengths.values())
    return next(s for s in candidates if lengths[s] <= best + TOLERANCE * min(1, best))


def make_flag_row(row: int) -> np.ndarray:
    """Return frequencies (no escape, 0, 1)."""
    odds = (Decimal(row - FLAG_ZERO_ROW) / 4).exp()
    ones = min(TOTAL - 1, max(1, round(TOTAL * odds / (1 + odds))))
    return np.array([0, TOTAL - ones, ones])


def make_magnitude_row(row: int) -> np.ndarray:
    """Return frequencies (escape, 0, 1, ..., S)."""
    quarters = row - MAGNITUDE_UNIT_ROW
    decay = (-1 / Decimal(2) ** (Decimal(quarters) / 4)).exp()

    def build(support: int) -> tuple[np.ndarray, float]:
        masses = np.array([float((1 - decay) * decay**k) for k in range(support + 1)] + [float(decay ** (support + 1))])
        frequencies = apportion(masses, np.ones(support + 2, np.int64))
        bits = -float(np.sum(masses * np.log2(frequencies / TOTAL))) + masses[-1] * escape_bits(quarters, 0)
        return np.roll(frequencies, 1), bits

    return build(smallest_support(lambda support: build(support)[1]))[0]


def stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of different lengths as one array, with zeros beyond their ends."""
    table = np.zeros((len(rows), max(map(len, rows))), np.uint16)
    for row, frequencies in enumerate(rows):
        table[row, : len(frequencies)] = frequencies
    return table


def main() -> None:
    """Print what the rows of the signed table cost, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the tables are written, as inrcodec/coding")
    folder = parser.parse_args().folder
    rows = []
    print("row: support, frequency of the escape, expected bits per symbol, entropy")
    for row in range(ROWS):
        frequencies, bits, entropy = make_row(row)
        rows.append(frequencies)
        print(f"row {row:2}: {len(frequencies) - 2:3}, {frequencies[0]:3}, {bits:.5f}, {entropy:.5f}")
    _write(folder / "laplace_frequencies.npy", stacked(rows))
    unsigned = [make_flag_row(row) for row in range(FLAG_ROWS)]
    unsigned += [make_magnitude_row(row) for row in range(MAGNITUDE_ROWS)]
    _write(folder / "unsigned_frequencies.npy", stacked(unsigned))


def _write(path: Path, table: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, table)
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    main()
