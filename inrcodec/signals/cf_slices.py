"""Stored numbers that stay in their file, and reading of them slice by slice."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from inrcodec.signals.cf_grid import Grid

LARGEST_BLOCK = 1 << 28
"""Bytes that are read at a time at most, unless one slice has more."""

BLOCK = 1 << 24
"""Bytes that are read at a time where chunks are smaller."""

Key = tuple[slice, ...]


class StoredNumbers(BackendArray):
    """Numbers that stay in their file until they are asked for.

    read: returns those of a region, a slice from one index to another along each dimension, of `dtype`.
        Raises: SignalError if it cannot.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[Key], np.ndarray]) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        read: np.ndarray = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._region
        )
        return read

    def _region(self, key: tuple[int | slice, ...]) -> np.ndarray:
        """Return the numbers at an index, or every few from one index to another, along each dimension."""
        spans = [range(size)[each] for size, each in zip(self.shape, key, strict=True)]
        numbers = self._read(
            tuple(slice(span.start, span.stop) if isinstance(span, range) else slice(span, span + 1) for span in spans)
        )
        return numbers[tuple(slice(None, None, span.step) if isinstance(span, range) else 0 for span in spans)]

    def variable(
        self, dimensions: list[str], attributes: dict[str, object], chunks: tuple[int, ...] | None
    ) -> xarray.Variable:
        """Return these numbers as a variable. chunks: sizes of what the file compresses in one; None if nothing."""
        encoding = {"chunks": chunks} if chunks else {}
        return xarray.Variable(dimensions, indexing.LazilyIndexedArray(self), attributes, encoding)


@dataclass
class Kept:
    """The block of slices that was read last, of any variable of a file: there is one in memory at a time."""

    owner: "Slices | None" = None
    first: int = 0
    block: np.ndarray | None = None


class Slices:
    """Reads the horizontal slices of a variable, one after the other in the order of its other dimensions.

    Whole chunks are read at a time where memory allows, so that each is decompressed once.

    shape: (S, H, W), S the product of the sizes of the other dimensions. dtype: of the stored numbers.
    leading: places of the other dimensions, in the order that slices come in. sizes: along these.
    """

    def __init__(self, variable: xarray.Variable, grid: Grid, kept: Kept) -> None:
        self._variable, self._kept = variable, kept
        self._places = variable.dims.index(grid.y), variable.dims.index(grid.x)
        self.leading = [place for place in range(variable.ndim) if place not in self._places]
        self._order()

    def put_in_order(self, order: Sequence[int]) -> None:
        """Let slices come in another order of the leading dimensions, given by their places among them."""
        self.leading = [self.leading[place] for place in order]
        self._kept.block = None
        self._order()

    def _order(self) -> None:
        variable, leading = self._variable, self.leading
        self.sizes = [variable.shape[place] for place in leading]
        chunks = variable.encoding.get("chunks") or (1,) * variable.ndim
        height, width = (variable.shape[place] for place in self._places)
        self.shape = (math.prod(self.sizes), height, width)
        self.dtype = variable.dtype
        slice_bytes = height * width * self.dtype.itemsize
        own = [min(chunks[place], variable.shape[place]) for place in leading]
        self._group, self._rows = block_rows(self.sizes, own, slice_bytes)

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return the slices from `begin` to before `end`, [end - begin, H, W], nobody else's."""
        result = np.empty((end - begin, *self.shape[1:]), self.dtype)
        place = begin
        while place < end:
            first, block = self._block(place)
            count = min(end, first + len(block)) - place
            result[place - begin : place - begin + count] = block[place - first : place - first + count]
            place += count
        return result

    def _block(self, row: int) -> tuple[int, np.ndarray]:
        """Return the block that a slice is in, and the index of the block's first slice."""
        kept = self._kept
        if kept.block is None or kept.owner is not self or not kept.first <= row < kept.first + len(kept.block):
            kept.block = None  # before another one is read
            group, within = divmod(row, self._group)
            first = group * self._group + within // self._rows * self._rows
            last = min(first + self._rows, (group + 1) * self._group)
            ((box, _),) = boxes(self.sizes, first, last)
            stored = self._variable[region(box, self.leading, self._places, self.shape[1:])].values
            planes = stored.transpose(*self.leading, *self._places)
            kept.owner, kept.first = self, first
            kept.block = np.ascontiguousarray(planes).reshape(-1, *self.shape[1:])
        return kept.first, kept.block


def block_rows(sizes: list[int], chunks: list[int], slice_bytes: int) -> tuple[int, int]:
    """Return how many slices to read at a time, and how many there are before the reading starts anew.

    sizes, chunks: along the leading dimensions. A block is of a few, or all, along one of them, of all along those
    behind it and of one along those before it.
    Returns (slices of a group, slices of a block); the last block of a group may be smaller.
    """
    most, wanted = max(1, LARGEST_BLOCK // slice_bytes), max(1, BLOCK // slice_bytes)
    rows = 1
    for place in reversed(range(len(sizes))):
        whole = rows * sizes[place]
        if whole <= most and (whole <= wanted or max(chunks[:place], default=1) > 1):
            rows = whole
            continue
        chunk = rows * chunks[place]
        if chunk > most:
            steps = most // rows
            return whole, rows * -(-chunks[place] // -(-chunks[place] // steps))
        return whole, max(chunk, wanted // chunk * chunk)
    return rows, rows


def boxes(sizes: list[int], begin: int, end: int) -> Iterator[tuple[Key, int]]:
    """Yield the regions of an array of these sizes that hold its numbers from `begin` to before `end`, in order.

    Each comes with how many numbers are in it.
    """
    while begin < end:
        index = np.unravel_index(begin, sizes) if sizes else ()
        box = [slice(int(place), int(place) + 1) for place in index]
        count = 1
        for place in reversed(range(len(sizes))):
            steps = min(sizes[place] - box[place].start, (end - begin) // count)
            box[place] = slice(box[place].start, box[place].start + steps)
            count *= steps
            if steps < sizes[place]:
                break
        yield tuple(box), count
        begin += count


def region(box: Key, leading: Sequence[int], places: tuple[int, int], plane: tuple[int, ...]) -> Key:
    """Return the region of a variable that a box of its slices is.

    leading: places of the dimensions that the box is of. places: of the horizontal ones. plane: their sizes.
    """
    every = dict(zip(leading, box, strict=True)) | dict(zip(places, (slice(0, size) for size in plane), strict=True))
    return tuple(every[place] for place in range(len(every)))
