"""Integers of which most are 0, coded as a flag, a sign and a magnitude each.

First come the flags of all symbols, 1 where a symbol is not 0; then, of those that are not, the signs, 1 where
negative, at even odds; then their magnitudes less one.
"""

import numpy as np

from inrcodec.coding import entropy

SIGN_ROW = entropy.FLAG_ROW + entropy.EVEN_FLAG


def flagged_batches(symbols: np.ndarray, flag_rows: np.ndarray, magnitude_rows: np.ndarray) -> list[entropy.Batch]:
    """Return what is coded for symbols, int64 [n].

    flag_rows, magnitude_rows: int64 [n], rows of the tables of flags and of magnitudes.
    """
    nonzero = symbols != 0
    kept = symbols[nonzero]
    return [
        (nonzero.astype(np.int64), flag_rows),
        ((kept < 0).astype(np.int64), np.full(len(kept), SIGN_ROW)),
        (np.abs(kept) - 1, magnitude_rows[nonzero]),
    ]


def read_flagged(decoder: entropy.Decoder, flag_rows: np.ndarray, magnitude_rows: np.ndarray) -> np.ndarray:
    """Decode the symbols, int64 [n], that `flagged_batches` was given with the same rows. Raises: CorruptFile."""
    nonzero = decoder.decode(flag_rows) == 1
    signs = decoder.decode(np.full(int(nonzero.sum()), SIGN_ROW))
    symbols = np.zeros(len(nonzero), np.int64)
    symbols[nonzero] = (1 - 2 * signs) * (1 + decoder.decode(magnitude_rows[nonzero]))
    return symbols
