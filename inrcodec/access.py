"""Signals of which only those slabs are decoded that are asked for, in any order."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from inrcodec.coding.container import Container, Stream
from inrcodec.coding.missing import MissingReader
from inrcodec.decoder import SAMPLES, check_container, exact_rows, signal_of
from inrcodec.device import pick_device
from inrcodec.field_codec import codec_of
from inrcodec.field_values import native_values
from inrcodec.initialization import Initialization
from inrcodec.residual.section import apply_slab, unpack_section
from inrcodec.resolution import Resolution
from inrcodec.signals.lazy import LazySignal, Rows, joined, slab_count, slab_rows

KEPT_SLABS = 2
"""Slabs that are kept, so that slices one after the other are not decoded again and again."""


def open_anywhere(
    container: Container,
    *,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    device: str | torch.device = "auto",
) -> list[LazySignal]:
    """Return the signals of a whole file at their own resolution, of which slabs are decoded when they are read.

    Arguments and errors are those of `inrcodec.decoder.open_container`; CorruptFile may be raised later.
    """
    used = check_container(container, Resolution(), initializations, max_samples)
    signals = []
    for stream, initialization in zip(container.streams, used, strict=True):
        read = SlabReader(stream, initialization, device)
        signals.append(signal_of(stream.header, stream.header.axes, read, has_missing=stream.header.has_missing))
    return signals


class SlabReader:
    """Reads rows of a stream that is not damaged, at its own resolution. A slab is decoded as a whole.

    patches: how many were decoded so far.
    """

    def __init__(self, stream: Stream, initialization: Initialization, device: str | torch.device) -> None:
        self._stream, self._header = stream, stream.header
        self._reader = codec_of(initialization).open(stream.header, initialization, pick_device(device))
        axes = stream.header.axes
        self._shape = tuple(axis.size for axis in axes)
        self._rows = slab_rows(axes, stream.header.channels)
        self._residuals = unpack_section(stream.residual or b"", slab_count(axes, stream.header.channels))
        self._coverage = self._reader.patches.coverage(axes)
        self._exact = exact_rows(stream.header, axes)
        self._missing: MissingReader | None = None
        self._missing_read = 0
        self._slab = lru_cache(KEPT_SLABS)(self._decoded)
        self.patches = 0

    def __call__(self, begin: int, end: int) -> Rows:
        numbers = range(begin // self._rows, -(-end // self._rows))
        slabs = [self._slab(number) for number in numbers]
        own = slice(begin - numbers.start * self._rows, end - numbers.start * self._rows)
        masks = [mask for _, mask in slabs if mask is not None]
        return joined([values for values, _ in slabs])[own], joined(masks)[own] if masks else None

    def _decoded(self, number: int) -> Rows:
        begin = number * self._rows
        end = min(begin + self._rows, self._shape[0])
        header = self._header
        ranges = np.array(header.value_range) if header.slice_ranges is None else header.slice_ranges[begin:end]
        values = self._exact(native_values(self._shown(begin, end), ranges, np.dtype(header.dtype)), begin)
        if header.max_error is not None:
            values = self._exact(apply_slab(values, self._residuals[number], header.max_error), begin)
        return values, self._mask(begin, end)

    def _shown(self, begin: int, end: int) -> np.ndarray:
        """Return what the fields show in some rows, [rows, *grid, C] float32."""
        per_chunk = self._header.patches_per_chunk
        wanted = self._coverage.between(begin, end)
        chunks = range(wanted.start // per_chunk, -(-wanted.stop // per_chunk))
        count = len(self._reader.patches)
        asked = range(chunks.start * per_chunk, min(chunks.stop * per_chunk, count))
        self.patches += len(asked)
        samples = (
            self._coverage.samples(patch, begin, end) if patch in wanted else self._coverage.corner(patch)
            for patch in asked
        )
        shown = np.zeros((end - begin, *self._shape[1:], self._header.channels), np.float32)
        for place, values in self._reader.render(self._stream.chunks, samples, numbers=chunks):
            if place.patch in wanted:
                place.accumulate(values, shown, begin)
        return shown

    def _mask(self, begin: int, end: int) -> np.ndarray | None:
        if self._stream.missing is None:
            return None
        if self._missing is None or begin < self._missing_read:
            self._missing, self._missing_read = MissingReader(self._stream.missing, self._shape), 0
        while self._missing_read < begin:
            rows = min(self._rows, begin - self._missing_read)
            self._missing.take(rows)
            self._missing_read += rows
        self._missing_read = end
        return self._missing.take(end - begin)
