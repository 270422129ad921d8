"""Climate signals and their variables: the numbers that are stored, part by part."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.cf_exact import GapNumbers
from inrcodec.signals.cf_packing import Packing, pack, packing_of
from inrcodec.signals.cf_slices import Key, boxes, region
from inrcodec.signals.climate import malformed
from inrcodec.signals.lazy import SLAB_VALUES, AnySignal, LazySignal, Rows, joined, lazy_like, slabs_of
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
    gaps = GapNumbers(signal.attributes.get("gaps"), packing, signal.samples) if signal.has_missing else None
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


_TURN = threading.RLock()


class FieldReader:
    """Reads the numbers to store of a field, slice by slice in any order. Threads take turns.

    Where values are missing they are those of the file, if the signal can count missing values, else the most frequent
    of them.
    Raises: SignalError, also for malformed attributes.
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        self.packing = field.packing
        signal = field.signal
        self._gaps = GapNumbers(signal.attributes.get("gaps"), self.packing, signal.samples)

    def __reduce__(self) -> tuple[type["FieldReader"], tuple[Field]]:
        return FieldReader, (self.field,)

    def read(self, slices: Sequence[int], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the numbers of some slices at some indices of their axes, [slices, rows, columns]."""
        numbers = np.empty((len(slices), len(rows), len(columns)), self.packing.stored)
        for place, number in enumerate(slices):
            numbers[place] = self.plane(number)[0][np.ix_(rows, columns)]
        return numbers

    def plane(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the numbers of a slice and where values are missing, [H, W]; None if none are."""
        with _TURN, malformed(f"the attributes of variable {self.field.name!r}"):
            return self._plane(number)

    def _plane(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        signal = self.field.signal
        part = signal.part(number, number + 1)
        count = 0 if part.missing is None else int(np.count_nonzero(part.missing))
        gaps = self._gaps.frequent
        if count and isinstance(signal, LazySignal) and signal.count_missing is not None:
            before = signal.count_missing(number)
            gaps = self._gaps.between(before, before + count)
        missing = part.missing if count else None
        planes = pack(f"variable {self.field.name!r}", part.values[..., 0], missing, gaps, self.packing)
        return planes[0], None if missing is None else missing[0]


def in_order_of(signal: AnySignal, other: AnySignal) -> AnySignal:
    """Return a signal with its slices in the order in which those of another of the same variable come.

    Raises: SignalError, and as `contents_of`.
    """
    own, wanted = field_of(signal), field_of(other)
    if own.leading == wanted.leading or own.shape != wanted.shape:
        return signal
    places = np.arange(signal.shape[0]).reshape(own.sizes)
    order = places.transpose([own.leading.index(place) for place in wanted.leading]).reshape(-1)

    def read(begin: int, end: int) -> Rows:
        parts = [signal.part(int(place), int(place) + 1) for place in order[begin:end]]
        masks = [part.missing for part in parts if part.missing is not None]
        return joined([part.values for part in parts]), joined(masks) if masks else None

    ordered = lazy_like(signal, read)
    return ordered if signal.slice_ranges is None else replace(ordered, slice_ranges=signal.slice_ranges[order])
