"""The mask of missing values to bytes and back."""

import zlib
from math import prod

import numpy as np

from inrcodec.coding import plain
from inrcodec.errors import CorruptFile


def pack_missing(mask: np.ndarray) -> bytes:
    """Return a mask of missing values, bool of any shape, as bytes.

    Each slice along the first axis is stored as its difference from the one before: the mask of a coast is
    the same at all times.
    """
    changes = mask.copy()
    changes[1:] ^= mask[:-1]
    return zlib.compress(np.packbits(changes).tobytes(), 9)


def unpack_missing(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask that `pack_missing` was given: bool of this `shape`.

    Raises: CorruptFile if `data` is no mask of this shape.
    """
    samples = prod(shape)
    size = (samples + 7) // 8
    try:
        packed = plain.inflate(data, size)
    except ValueError as error:
        raise CorruptFile(f"the mask of missing values is damaged ({error}): obtain the file again") from error
    if len(packed) != size or (samples % 8 and packed[-1] & 0xFF >> samples % 8):
        raise CorruptFile(f"the mask of missing values is not one of shape {shape}: obtain the file again")
    changes = np.unpackbits(np.frombuffer(packed, np.uint8), count=samples).astype(bool).reshape(shape)
    mask: np.ndarray = np.logical_xor.accumulate(changes, axis=0)
    return mask
