"""From what fields show to the values of a signal, slab by slab: the order of the steps is said here only."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from inrcodec.coding.container import Stream
from inrcodec.coding.header import StreamHeader
from inrcodec.coding.missing import MissingReader
from inrcodec.errors import CorruptFile, SignalError
from inrcodec.field_values import native_values
from inrcodec.patches import Patches, RenderedPatch
from inrcodec.residual.section import apply_slab, unpack_section
from inrcodec.resolution import Regrid
from inrcodec.signals import exact_reader
from inrcodec.signals.lazy import slab_count, slab_rows
from inrcodec.signals.signal import Axis


class Slabs:
    """The slabs of a signal on a grid.

    What fields show becomes native values, corrected by what is known exactly; a residual corrects these, and then what
    is known exactly corrects them again. Slabs are fastest in ascending order.

    axes: of the grid. residual: of the stream, if the grid is its own and there is one.
    Raises: CorruptFile if residual or attributes are malformed, here or later.
    """

    def __init__(self, header: StreamHeader, axes: tuple[Axis, ...], residual: bytes | None = None) -> None:
        self._header = header
        self._shape = tuple(axis.size for axis in axes)
        self._rows = slab_rows(axes, header.channels)
        self._count = slab_count(axes, header.channels)
        self._residuals = None if residual is None else unpack_section(residual, self._count)
        stored, dtype = tuple(axis.size for axis in header.axes), np.dtype(header.dtype)
        try:
            self._correct = exact_reader(header.modality, header.name, header.attributes, stored, self._shape, dtype)
        except SignalError as error:
            raise self._refused(error) from error

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> int:
        """Indices of the first axis that a slab has, but the last one."""
        return self._rows

    def span(self, number: int) -> tuple[int, int]:
        """Return the first index of a slab, and the one after its last."""
        return number * self._rows, min((number + 1) * self._rows, self._shape[0])

    def empty(self, number: int) -> np.ndarray:
        """Return an array for the values of a slab, [rows, *grid, C]."""
        begin, end = self.span(number)
        return np.empty((end - begin, *self._shape[1:], self._header.channels), self._header.dtype)

    def joined(self, rendered: Iterator[RenderedPatch], patches: Patches, grid: Regrid) -> Iterator[np.ndarray]:
        """Join fields: yield the values of each slab, without the residual.

        rendered: every patch in turn, asked at `grid.finer`.
        """
        number = filled = 0
        slab = self.empty(0)
        blocks = patches.joined(rendered, grid.finer, self._header.channels, grid.rows_together)
        for shown in grid.decimated(blocks):
            while len(shown):
                count = min(len(slab) - filled, len(shown))
                begin = number * self._rows + filled
                slab[filled : filled + count] = self._native(shown[:count], begin)
                shown, filled = shown[count:], filled + count
                if filled == len(slab):
                    yield self.exact(slab, number)
                    number, filled = number + 1, 0
                    slab = self.empty(min(number, self._count - 1))

    def values(self, shown: np.ndarray, number: int) -> np.ndarray:
        """Return the values of a slab, residual included, from what the fields show there, [rows, *grid, C]."""
        begin, _ = self.span(number)
        return self.corrected(self.exact(self._native(shown, begin), number), number)

    def corrected(self, values: np.ndarray, number: int) -> np.ndarray:
        """Return the values of a slab that the residual makes of those without it; the same ones if there is none."""
        bound = self._header.bound
        if self._residuals is None or bound is None:
            return values
        begin, _ = self.span(number)
        scaled = apply_slab(bound.scaled(values, begin), self._residuals[number], bound.on_scale)
        return self.exact(bound.unscaled(scaled, begin, values.dtype), number)

    def exact(self, values: np.ndarray, number: int) -> np.ndarray:
        """Return the values of a slab, corrected by what the attributes say exactly: limits and zeros of fields."""
        try:
            return self._correct(values, number * self._rows)
        except SignalError as error:
            raise self._refused(error) from error

    def _native(self, shown: np.ndarray, begin: int) -> np.ndarray:
        return shown_values(self._header, shown, slice(begin, begin + len(shown)), np.dtype(self._header.dtype))

    def _refused(self, error: SignalError) -> CorruptFile:
        name = self._header.name
        return CorruptFile(f"the signal {name!r} has malformed attributes ({error}): obtain the file again")


def shown_values(header: StreamHeader, shown: np.ndarray, slices: slice | np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return what fields show, [n, ..., C] in 0 to 1, as values of a type in the signal's unit.

    slices: the index of each along the first axis.
    """
    bound = header.bound
    if bound is not None and bound.shown_on_scale:
        ranges = np.array(bound.shown_range(*header.value_range))
        return bound.unscaled(native_values(shown, ranges, np.dtype(np.float64)), 0, dtype)
    ranges = np.array(header.value_range) if header.slice_ranges is None else header.slice_ranges[slices]
    return native_values(shown, ranges, dtype)


class DamagedRows:
    """Where patches of damaged chunks are, read from the first row to the last."""

    def __init__(self, stream: Stream, axes: tuple[Axis, ...], patches: Patches) -> None:
        self._others = [axis.size for axis in axes[1:]]
        self._coverage = patches.coverage(axes)
        per_chunk = stream.header.patches_per_chunk
        self._left = deque(
            patch
            for chunk in sorted(stream.damaged)
            for patch in range(chunk * per_chunk, min((chunk + 1) * per_chunk, len(patches)))
        )
        self._near: list[tuple[np.ndarray, ...]] = []

    def between(self, begin: int, end: int) -> np.ndarray:
        """Return the rows from `begin` to before `end` as bool [rows, *grid]; `begin` is where the last ones ended."""
        while self._left and (not self._near or self._near[-1][0].min(initial=end) < end):
            self._near.append(self._coverage.samples(self._left.popleft()).indices)
        self._near = [box for box in self._near if box[0].max(initial=-1) >= begin or box is self._near[-1]]
        mask = np.zeros((end - begin, *self._others), bool)
        for first, *others in self._near:
            mask[np.ix_(first[(first >= begin) & (first < end)] - begin, *others)] = True
        return mask


class MissingRows:
    """The mask at the wanted resolution, that of the nearest original sample, read from the first row to the last."""

    def __init__(self, packed: bytes, axes: tuple[Axis, ...], targets: tuple[Axis, ...]) -> None:
        self._reader = MissingReader(packed, tuple(axis.size for axis in axes))
        self._nearest, *self._others = map(_nearest_samples, axes, targets)
        self._kept = self._reader.take(0)
        self._first = 0

    def between(self, begin: int, end: int) -> np.ndarray:
        """Return the rows from `begin` to before `end`; `begin` is where the last ones ended."""
        nearest = self._nearest[begin:end]
        low, high = int(nearest.min()), int(nearest.max()) + 1
        last = self._first + len(self._kept)
        if high > last:
            self._kept = np.concatenate((self._kept, self._reader.take(high - last)))
        self._kept, self._first = self._kept[low - self._first :], low
        return self._kept[np.ix_(nearest - low, *self._others)]


def _nearest_samples(axis: Axis, target: Axis) -> np.ndarray:
    """Return the nearest sample of `axis` for every one of `target`; a periodic axis begins again after its end."""
    nearest = np.rint(axis.positions(target)).astype(np.int64)
    return nearest % axis.size if axis.kind == "periodic" else nearest.clip(0, axis.size - 1)
