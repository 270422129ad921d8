"""Climate signals and their variables: the numbers that are stored, part by part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.cf_exact import GapNumbers
from inrcodec.signals.cf_packing import Packing, pack, packing_of
from inrcodec.signals.cf_slices import Key, boxes, region
from inrcodec.signals.lazy import SLAB_VALUES, AnySignal, slabs_of
from inrcodec.signals.netcdf import parse_attributes

CHUNK = 1 << 24
"""Bytes of a chunk at most: a slice that has more is cut."""


@dataclass(frozen=True, eq=False)
class Field:
    """A signal and its variable: dimensions in the file's order, shape as it was read."""

    signal: AnySignal
    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    y: str
    x: str
    dtype: np.dtype
    attributes: dict[str, Any]

    @property
    def packing(self) -> Packing:
        """How the values are stored. Raises: SignalError as `packing_of`."""
        return packing_of(f"variable {self.name!r}", self.dtype, self.attributes)

    @property
    def places(self) -> tuple[int, int]:
        """Which of the dimensions are the horizontal ones."""
        return self.dimensions.index(self.y), self.dimensions.index(self.x)

    @property
    def leading(self) -> list[int]:
        """Places of the other dimensions, in the order that slices come in. Raises: ValueError if that is none."""
        leading = [place for place in range(len(self.shape)) if place not in self.places]
        order = self.signal.attributes.get("leading", range(len(leading)))
        if sorted(order) != list(range(len(leading))):
            raise ValueError(f"{order!r:.80} is no order of {len(leading)} dimensions")
        return [leading[place] for place in order]

    @property
    def sizes(self) -> list[int]:
        """Sizes of the leading dimensions. Raises: SignalError if their product is not the number of slices."""
        sizes = [self.shape[place] for place in self.leading]
        if np.prod(sizes, dtype=np.int64) != self.signal.shape[0]:
            raise SignalError(f"signal {self.name!r} has {self.signal.shape[0]} slices, but its file had {sizes}")
        return sizes

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Sizes of all dimensions now, at the signal's resolution."""
        sizes = dict(zip(self.leading, self.sizes, strict=True)) | dict(
            zip(self.places, self.signal.shape[1:], strict=True)
        )
        return tuple(sizes[place] for place in range(len(self.shape)))

    def chunks(self) -> tuple[int, ...] | None:
        """Return the sizes of the chunks to write: a slice each, so that parts are whole chunks; None for any sizes."""
        if self.signal.samples <= SLAB_VALUES:
            return None
        _, height, width = self.signal.shape
        width = min(width, CHUNK // self.dtype.itemsize)
        height = min(height, max(1, CHUNK // self.dtype.itemsize // width))
        horizontal = dict(zip(self.places, (height, width), strict=True))
        return tuple(horizontal.get(place, 1) for place in range(len(self.shape)))


def field_of(signal: AnySignal) -> Field:
    """Return a signal with what its attributes say of its variable.

    Raises: SignalError if it is no climate field, and as `contents_of`.
    """
    if len(signal.axes) != 3 or signal.channels != 1:
        shape = (*signal.shape, signal.channels)
        raise SignalError(f"signal {signal.name!r} of shape {shape} is no climate field [slices, H, W, 1]")
    attributes = signal.attributes
    y, x = attributes.get("horizontal", ("latitude", "longitude") if signal.sphere else ("y", "x"))
    slices, *horizontal = signal.shape
    leading = {"slice": slices} if slices > 1 else {}
    return Field(
        signal=signal,
        name=signal.name or "data",
        dimensions=tuple(attributes.get("dimensions", [*leading, y, x])),
        shape=tuple(attributes.get("shape", [*leading.values(), *horizontal])),
        y=y,
        x=x,
        dtype=np.dtype(attributes.get("dtype", signal.dtype)).newbyteorder("="),
        attributes=parse_attributes(attributes.get("attributes", {})),
    )


def regions_of(field: Field) -> Iterator[tuple[Key, np.ndarray]]:
    """Return an iterator over the regions of a field's variable and the numbers to store there, in the file's order.

    All regions come a second time if it turns out that the missing values are not those of the file, after damage.

    Raises: SignalError, also later, and as `contents_of`.
    """
    signal, packing = field.signal, field.packing
    gaps = GapNumbers(signal.attributes.get("gaps"), packing) if signal.has_missing else None
    places, leading, sizes = field.places, field.leading, field.sizes
    in_file = np.argsort([*leading, *places])
    original = signal.shape[1:] == tuple(field.shape[place] for place in places)

    def regions(taken: Callable[[int], np.ndarray | None]) -> Iterator[tuple[Key, np.ndarray]]:
        for begin, part in slabs_of(signal):
            count = 0 if part.missing is None else int(np.count_nonzero(part.missing))
            missing = part.missing if count else None
            label = f"variable {field.name!r}"
            numbers = pack(label, part.values[..., 0], missing, taken(count) if count else None, packing)
            done = 0
            for box, size in boxes(sizes, begin, begin + len(numbers)):
                shape = [each.stop - each.start for each in box]
                planes = numbers[done : done + size].reshape(*shape, *numbers.shape[1:])
                yield region(box, leading, places, signal.shape[1:]), planes.transpose(in_file)
                done += size

    def every() -> Iterator[tuple[Key, np.ndarray]]:
        if gaps is None:
            yield from regions(lambda _: None)
            return
        if original:
            yield from regions(gaps.take)
        if not original or not gaps.fit:
            yield from regions(lambda _: gaps.frequent)

    return every()


def numbers_of_slices(field: Field, slices: Sequence[int]) -> np.ndarray:
    """Return the numbers to store of some slices of a field, in any order: [len(slices), H, W].

    Where values are missing they are the most frequent of the numbers that stand for that.
    Raises: SignalError, and as `contents_of`.
    """
    signal, packing = field.signal, field.packing
    gaps = GapNumbers(signal.attributes.get("gaps"), packing).frequent if signal.has_missing else None
    numbers = np.empty((len(slices), *signal.shape[1:]), packing.stored)
    for place, number in enumerate(slices):
        part = signal.part(number, number + 1)
        missing = None if part.missing is None or not part.missing.any() else part.missing
        numbers[place] = pack(f"variable {field.name!r}", part.values[..., 0], missing, gaps, packing)[0]
    return numbers
