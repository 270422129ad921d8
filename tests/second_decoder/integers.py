"""The integers that networks of latent fields compute with, in float64 arrays, which hold them and their sums exactly.

It follows "How do networks compute?" of docs/FORMAT.md.
"""

import numpy as np

from second_decoder.reading import require

LARGEST_ACTIVATION = 2047


def weights(tensor: np.ndarray) -> np.ndarray:
    """Return weights as integers."""
    return np.rint(128 * tensor)


def biases(tensor: np.ndarray) -> np.ndarray:
    """Return biases as integers."""
    return np.rint((1 << 14) * tensor)


def level_biases(table: np.ndarray, e: int) -> np.ndarray:
    """Return the biases of all levels, [D, n], of a table [D + 2, n]. e: what the network is told of the step."""
    rows = biases(table)
    return np.floor((64 * rows[:-2] + 8 * e * rows[-2] + e * e * rows[-1]) / 64)


def centred_weights(tensor: np.ndarray, channels: int) -> np.ndarray:
    """Return weights [out, N k, *taps] as integers that add up to 0 over the N phases and the taps of each channel.

    channels: k.
    """
    apart = tensor.reshape(len(tensor), -1, channels, *tensor.shape[2:])
    lines = np.moveaxis(apart, 2, 1).reshape(len(tensor), channels, -1)
    v = np.rint((1 << 24) * lines).clip(-(1 << 44), 1 << 44).astype(np.int64)
    n = lines.shape[2]
    distances = n * v - v.sum(2, keepdims=True)
    integers, left = np.divmod(distances, n << 17)
    for line, rest in zip(integers.reshape(-1, n), left.reshape(-1, n), strict=True):
        line[np.argsort(-rest, kind="stable")[: -line.sum()]] += 1
    together = integers.astype(np.float64).reshape(len(tensor), channels, apart.shape[1], *tensor.shape[2:])
    return np.moveaxis(together, 1, 2).reshape(tensor.shape)


def activation(sums: np.ndarray, unit: int = 128) -> np.ndarray:
    """Return A(z)."""
    return np.floor(sums / unit).clip(0, LARGEST_ACTIVATION)


def require_exact(largest: int, seen: list[np.ndarray], bias: list[np.ndarray] | None = None, unit: int = 1) -> None:
    """Require that sums of a layer stay below 2^24.

    largest: magnitude of the inputs. seen: weights of each of them. bias: as they are added, one for each output, or
    of every level. unit: that a bias counts.
    """
    sums = sum(np.abs(each).reshape(len(each), -1).sum(1) * largest for each in seen)
    for each in bias or ():
        sums = sums + unit * np.abs(each)
    require(bool((sums < 1 << 24).all()), "sums of a network are below 2^24")
