"""Signals of which only those slabs are decoded that are asked for, in any order, and fields at any points."""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from inrcodec.coding.container import Container, Stream
from inrcodec.coding.missing import MissingReader
from inrcodec.decoder import SAMPLES, check_stream, signal_of
from inrcodec.device import pick_device
from inrcodec.errors import UsageError
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.registry import find_initialization
from inrcodec.signals.lazy import LazySignal, Rows, joined
from inrcodec.slabs import Slabs, shown_values

KEPT_SLABS = 2
"""Slabs that are kept, so that slices one after the other are not decoded again and again."""


def open_anywhere(
    container: Container,
    *,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    device: str = "auto",
) -> list[LazySignal]:
    """Return the signals of a whole file at their own resolution, of which slabs are decoded when they are read.

    max_samples: that are decoded at a time: a slab, and the chunks around it. Other arguments and errors are those of
        `inrcodec.decoder.open_container`; CorruptFile and UsageError may be raised later.
    Several threads may read them, one at a time, and other processes, to which they can be pickled.
    """
    known = [*initializations, *(Initialization.from_bytes(content) for content in container.initializations)]
    signals = []
    for stream in container.streams:
        header = stream.header
        read = SlabReader(stream, find_initialization(header.initialization, known), device, max_samples)
        signals.append(
            signal_of(
                header,
                header.axes,
                read,
                has_missing=header.has_missing,
                count_missing=read.count_missing,
                ask=read.ask,
            )
        )
    return signals


class SlabReader:
    """Reads rows of a stream that is not damaged, at its own resolution. A slab is decoded as a whole.

    patches: how many were decoded so far.
    """

    def __init__(self, stream: Stream, initialization: Initialization, device: str, max_samples: int = SAMPLES) -> None:
        check_stream(stream, initialization)
        self._made_of = stream, initialization, device, max_samples
        self._stream, self._header = stream, stream.header
        self._reader = codec_of(initialization).open(stream.header, initialization, pick_device(device))
        axes = stream.header.axes
        self._shape = tuple(axis.size for axis in axes)
        self._slabs = Slabs(stream.header, axes, stream.residual)
        self._rows = self._slabs.rows
        self._coverage = self._reader.patches.coverage(axes)
        self._max_samples = max_samples
        self._masks: MissingReader | None = None
        self._counts = [0]
        self._kept: OrderedDict[int, Rows] = OrderedDict()
        self._lock = threading.RLock()
        self.patches = 0

    def __reduce__(self) -> tuple[type["SlabReader"], tuple[Stream, Initialization, str, int]]:
        return SlabReader, self._made_of

    def __call__(self, begin: int, end: int) -> Rows:
        numbers = range(begin // self._rows, max(begin // self._rows + 1, -(-end // self._rows)))
        with self._lock:
            slabs = [self._slab(number) for number in numbers]
        own = slice(begin - numbers.start * self._rows, end - numbers.start * self._rows)
        masks = [mask for _, mask in slabs if mask is not None]
        return joined([values for values, _ in slabs])[own].copy(), joined(masks)[own].copy() if masks else None

    def count_missing(self, index: int) -> int:
        """Return how many values are missing before an index of the first axis."""
        if self._stream.missing is None:
            return 0
        with self._lock:
            number, rest = divmod(index, self._rows)
            while len(self._counts) <= number:
                mask = self._mask(len(self._counts) - 1)
                self._counts.append(self._counts[-1] + (0 if mask is None else int(np.count_nonzero(mask))))
            _, mask = self._slab(number) if rest else (None, None)
            return self._counts[number] + (0 if mask is None else int(np.count_nonzero(mask[:rest])))

    def ask(self, points: np.ndarray) -> np.ndarray:
        """Return what the fields show at points, [n, C] float64, in the unit of the values.

        That is without the residual and what is known exactly, which are of the grid's samples.

        points: [axes, n], in samples, whole numbers of slices along the first axis; at most half a sample beyond the
            grid.
        """
        header, patches, per_chunk = self._header, self._reader.patches, self._header.patches_per_chunk
        starts = patches.axes[0].starts
        beside = len(patches) // len(starts)
        rows = np.unique(np.searchsorted(starts, points[0], "right") - 1)
        around = (patches.at_points(row * beside + each, points) for row in rows.tolist() for each in range(beside))
        asked = {each.patch: each for each in around if len(each.indices[0])}
        chunks = sorted({patch // per_chunk for patch in asked})
        self._check_samples(per_chunk * patches.points)
        everywhere = (
            patch for chunk in chunks for patch in range(chunk * per_chunk, min((chunk + 1) * per_chunk, len(patches)))
        )
        nothing = points[:, :0]
        places = (asked[patch] if patch in asked else patches.at_points(patch, nothing) for patch in everywhere)
        shown = np.zeros((points.shape[1], header.channels), np.float32)
        with self._lock:
            for place, values in self._reader.render(self._stream.chunks, places, numbers=chunks):
                (numbers,), (shares,) = place.indices, place.weights
                shown[numbers] += values * shares[:, np.newaxis]
        return shown_values(header, shown, points[0].astype(np.int64), np.dtype(np.float64))

    def _check_samples(self, samples: int) -> None:
        if samples > self._max_samples:
            raise UsageError(
                f"a part of the signal {self._header.name!r} takes {samples} samples to decode, more than "
                f"{self._max_samples}: if you trust the file, ask for them with --max-samples (max_samples)"
            )

    def _slab(self, number: int) -> Rows:
        if number not in self._kept:
            self._kept[number] = self._decoded(number)
            if len(self._kept) > KEPT_SLABS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _decoded(self, number: int) -> Rows:
        shown = self._shown(*self._slabs.span(number))
        return self._slabs.values(shown, number), self._mask(number)

    def _shown(self, begin: int, end: int) -> np.ndarray:
        """Return what the fields show in some rows, [rows, *grid, C] float32."""
        per_chunk = self._header.patches_per_chunk
        patches = self._reader.patches
        wanted = self._coverage.between(begin, end)
        chunks = range(wanted.start // per_chunk, -(-wanted.stop // per_chunk))
        asked = range(chunks.start * per_chunk, min(chunks.stop * per_chunk, len(patches)))
        self._check_samples(max((end - begin) * math.prod(self._shape[1:]), len(asked) * patches.points))
        self.patches += len(asked)
        places = (
            self._coverage.samples(patch, begin, end) if patch in wanted else self._coverage.corner(patch)
            for patch in asked
        )
        shown = np.zeros((end - begin, *self._shape[1:], self._header.channels), np.float32)
        for place, values in self._reader.render(self._stream.chunks, places, numbers=chunks):
            if place.patch in wanted:
                place.accumulate(values, shown, begin)
        return shown

    def _mask(self, number: int) -> np.ndarray | None:
        if self._stream.missing is None:
            return None
        begin, end = self._slabs.span(number)
        if self._masks is None or begin < self._masks.row:
            self._masks = MissingReader(self._stream.missing, self._shape)
        while self._masks.row < begin:
            self._masks.take(min(self._rows, begin - self._masks.row))
        return self._masks.take(end - begin)
