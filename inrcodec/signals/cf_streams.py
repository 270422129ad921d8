"""Numbers that are too many for memory, in zlib streams: packed and unpacked a piece at a time, in order."""

import math
import zlib
from collections.abc import Iterator

import numpy as np

from inrcodec.masks import Inflater
from inrcodec.signals.netcdf import MAX_UNFOLDED, Plain, parse_array, plain_array, unfold

STREAMED_FROM = 1 << 24
"""Longer arrays, in bytes, are deflated while they are collected."""

_PIECE_NUMBERS = 1 << 20


class ArrayPacker:
    """Collects numbers to what `plain_array` makes of all; many of them are deflated on the way, in one order only."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype.newbyteorder("<")
        self._arrays: list[np.ndarray] = []
        self._size = 0
        self._deflater = zlib.compressobj(9)
        self._deflated: list[bytes] = []

    def add(self, numbers: np.ndarray) -> None:
        self._arrays.append(numbers.astype(self._dtype))
        self._size += numbers.size
        if self._size * self._dtype.itemsize > STREAMED_FROM:
            self._deflated += [self._deflater.compress(array.tobytes()) for array in self._arrays]
            self._arrays.clear()

    def plain(self) -> Plain:
        """Return the array as plain values; nothing can be added any more."""
        if not self._deflated:
            return plain_array(np.concatenate([np.empty(0, self._dtype), *self._arrays]))
        data = b"".join([*self._deflated, self._deflater.flush()])
        return {"dtype": self._dtype.str, "shape": [self._size], "data": data, "deflated": True}


class ArrayReader:
    """Takes the numbers of a plain array of one axis in order.

    Raises: LookupError, TypeError, ValueError for a malformed one, also while numbers are taken.
    """

    def __init__(self, plain: Plain) -> None:
        self.size = math.prod(plain["shape"])
        self.dtype = np.dtype(plain["dtype"]).newbyteorder("=")
        self._plain = plain
        self._taken = 0
        self._inflater: Inflater | None = None
        self._whole: np.ndarray | None = None
        if self.dtype.kind not in "iuf" or type(self.size) is not int or self.size < 0:
            raise ValueError(f"no array of numbers: {plain!r:.80}")
        if "start" in plain:
            if self.size > MAX_UNFOLDED:
                raise ValueError(f"too long: {self.size}")
            return
        if "data" in plain and "deflated" in plain:
            self._inflater = Inflater(_bytes(plain["data"]))
        else:
            self._whole = parse_array(plain).reshape(-1)

    def take(self, count: int) -> np.ndarray:
        """Return the next `count` numbers, fewer at the end."""
        begin, end = self._taken, min(self._taken + count, self.size)
        self._taken = end
        if self._whole is not None:
            return self._whole[begin:end]
        if self._inflater is None:
            return unfold(self._plain["start"], self._plain["step"], begin, end, self.dtype)
        data = self._inflater.take((end - begin) * self.dtype.itemsize)
        if end == self.size:
            self._inflater.check_end()
        return np.frombuffer(data, self.dtype.newbyteorder("<")).astype(self.dtype)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all numbers that were not taken yet, many at a time."""
        while self._taken < self.size:
            yield self.take(_PIECE_NUMBERS)


def _bytes(data: bytes) -> bytes:
    if type(data) is not bytes:
        raise TypeError(f"{data!r:.80} where bytes belong")
    return data
