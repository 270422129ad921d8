"""Files and chunks as a bad disk returns them."""

import numpy as np


def with_flipped_bits(data: bytes, random: np.random.Generator, count: int) -> list[bytes]:
    """Copies of the data, in each of which one random bit is another."""
    damaged = []
    for position in random.integers(0, 8 * len(data), count).tolist():
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    return damaged
