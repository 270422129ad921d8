"""The mask of missing values to bytes and back, part by part.

Each slice along the first axis is stored as its difference from the one before: the mask of a coast is the same at all
times.
"""

from math import prod

import numpy as np

from inrcodec.errors import CorruptFile
from inrcodec.masks import MaskPacker, MaskReader


class MissingWriter:
    """Makes bytes of a mask of missing values whose parts come one after the other."""

    def __init__(self) -> None:
        self._packer = MaskPacker()
        self._before: np.ndarray | None = None

    def add(self, mask: np.ndarray) -> None:
        """Take the next part, bool [rows, *grid]."""
        changes = mask.copy()
        changes[1:] ^= mask[:-1]
        if self._before is not None:
            changes[0] ^= self._before
        self._before = mask[-1].copy()
        self._packer.add(changes)

    def finish(self) -> bytes:
        """Return the bytes of all parts."""
        return self._packer.packed()


class MissingReader:
    """Reads the mask that a `MissingWriter` was given, bool of this shape, from the first row on.

    row: which comes next.
    """

    def __init__(self, data: bytes, shape: tuple[int, ...]) -> None:
        self._others = shape[1:]
        self._reader = MaskReader(data, prod(shape))
        self.row = 0
        self._before = np.zeros(self._others, bool)

    def take(self, rows: int) -> np.ndarray:
        """Return the next rows of the mask. Raises: CorruptFile if the data is no mask of this shape."""
        if not rows:
            return np.zeros((0, *self._others), bool)
        begin, end = (row * prod(self._others) for row in (self.row, self.row + rows))
        self.row += rows
        try:
            changes = self._reader.bits(begin, end).reshape(rows, *self._others)
        except ValueError as error:
            raise CorruptFile(f"the mask of missing values is damaged ({error}): obtain the file again") from error
        changes[0] ^= self._before
        mask: np.ndarray = np.logical_xor.accumulate(changes, axis=0)
        self._before = mask[-1].copy()
        return mask
