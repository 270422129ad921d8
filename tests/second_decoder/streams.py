"""From the bytes of a file to the native values of its signals.

It follows "Mask", "Where are the samples of another resolution?", "How are patches joined?" and "How do a field's
values become native values?" of docs/FORMAT.md.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from second_decoder import weight_fields
from second_decoder.arrays import ceil_div
from second_decoder.clip import ClipField
from second_decoder.header import Header, rounded
from second_decoder.initialization import Initialization, read_initialization
from second_decoder.patches import evaluated_size, layout_of, positions_of
from second_decoder.pyramid import PyramidField
from second_decoder.reading import inflate, require
from second_decoder.residual import corrected
from second_decoder.sections import StreamSections, read_file
from second_decoder.series import SeriesField
from second_decoder.spectrum import SpectrumField

FIELDS = {
    **dict.fromkeys(weight_fields.NAMES, weight_fields.WeightField),
    "pyramid": PyramidField,
    "clip": ClipField,
    "series": SeriesField,
    "spectrum": SpectrumField,
}


def read_streams(data: bytes, initializations: Iterable[Initialization] = ()) -> list["Stream"]:
    """Return the streams of a file, their symbols decoded. initializations: known besides the embedded ones."""
    embedded, streams = read_file(data)
    known = {each.identifier: each for each in [*initializations, *map(read_initialization, embedded)]}
    for stream in streams:
        require(stream.header.identifier in known, "the initialization of a stream is known")
    return [Stream(stream, known[stream.header.identifier]) for stream in streams]


class Stream:
    """One signal of a file. symbols: all integers of its chunks, in the order that its field says."""

    def __init__(self, sections: StreamSections, initialization: Initialization) -> None:
        header, outputs = sections.header, initialization.field["out_features"]
        require(header.modality == initialization.document["modality"], "a stream has its initialization's modality")
        require(header.channels in (1, outputs), "there are as many channels as outputs, or one")
        layout = layout_of(header.axes, initialization.patches)
        together = header.patches_per_chunk
        require(header.chunks == ceil_div(layout.count, together), "there are as many chunks as the patches take")
        self.header = header
        self._sections = sections
        self._layout = layout
        self._field = FIELDS[initialization.field["name"]](header, initialization, layout)
        for number, chunk in enumerate(sections.chunks):
            self._field.read_chunk(chunk, min(together, layout.count - number * together))
        self._mask = None if sections.mask is None else _read_mask(sections.mask, header)

    @property
    def symbols(self) -> list[np.ndarray]:
        """All integers of the chunks."""
        return self._field.symbols

    def values(self, sizes: Sequence[int] | None = None) -> np.ndarray:
        """Return the native values [*grid, C]. sizes: samples along every axis, None for the original grid."""
        header = self.header
        sizes = header.sizes if sizes is None else tuple(sizes)
        fine = [evaluated_size(axis, size) for axis, size in zip(header.axes, sizes, strict=True)]
        x = _reduced(self._joined(fine), sizes)
        x = np.where(np.isnan(x), 0.5, x)
        bound = header.bound
        if bound is not None and bound.knee is not None:
            low, high = bound.scaled(header.value_ranges[0]).tolist()
            shown = low + x.astype(np.float64) * (max(high, low + bound.on_scale) - low)
            native = bound.unscaled(shown, header.dtype)
        else:
            low, high = (ends.reshape(-1, *[1] * (x.ndim - 1)) for ends in header.value_ranges.T)
            native = rounded(low + x.astype(np.float64) * (high - low), header.dtype)
        native = self._exact(native)
        if self._sections.residual is None or bound is None or sizes != header.sizes:
            return native
        scaled = corrected(bound.scaled(native), self._sections.residual, bound.on_scale)
        return self._exact(bound.unscaled(scaled, header.dtype))

    def _exact(self, native: np.ndarray) -> np.ndarray:
        """Apply `limits` and `zeros` of climate fields."""
        attributes, kind = self.header.attributes, native.dtype.type
        if self.header.modality != "climate":
            return native
        limits = []
        if "limits" in attributes:
            low, high = attributes["limits"]
            require(_is_number(low) and _is_number(high) and low <= high, "limits are two numbers, low <= high")
            limits = [kind(low), kind(high)]
        places = None
        if "zeros" in attributes:
            zero, *shape, packed = attributes["zeros"]
            require(_is_number(zero) and type(packed) is bytes, "zeros are a number, sizes and bytes")
            require(shape == list(self.header.sizes), "zeros have the sizes of the grid")
            if tuple(shape) == native.shape[:-1]:
                count = int(np.prod(shape))
                packed_bits = inflate(packed, ceil_div(count, 8))
                require(len(packed_bits) == ceil_div(count, 8), "zeros have a bit for each sample")
                bits = np.unpackbits(np.frombuffer(packed_bits, np.uint8))
                require(not bits[count:].any(), "the bits after the last sample's are zero")
                places = bits[:count].astype(bool).reshape(*shape, 1)
            else:
                limits.append(kind(zero))
        if limits:
            native = native.clip(min(limits), max(limits))
        return native if places is None else np.where(places, kind(zero), native)

    def missing(self, sizes: Sequence[int] | None = None) -> np.ndarray | None:
        """Return where values are missing, bool [*grid], or None if there is no mask. sizes: as for `values`."""
        if self._mask is None:
            return None
        nearest = []
        for axis, size in zip(self.header.axes, self.header.sizes if sizes is None else sizes, strict=True):
            rounded = np.rint(positions_of(axis, size)).astype(int)
            nearest.append(rounded % axis.size if axis.kind == "periodic" else rounded.clip(0, axis.size - 1))
        return self._mask[np.ix_(*nearest)]

    def _joined(self, sizes: Sequence[int]) -> np.ndarray:
        """Return x, the weighted mean of the patches, [*sizes, channels]."""
        axes = self._layout.axes
        covered = [axis.covered(positions_of(axis.axis, size)) for axis, size in zip(axes, sizes, strict=True)]
        x = np.zeros((*sizes, self.header.channels), np.float32)
        for patch in self._layout.patches():
            parts = [parts[number] for parts, number in zip(covered, patch.along, strict=True)]
            y = self._field.value(patch, [part.positions for part in parts])
            if self.header.channels == 1:
                y = functools.reduce(np.add, y.T)[:, None] / np.float32(y.shape[1])
            first, *others = [part.weights for part in parts]
            rest = functools.reduce(np.multiply.outer, others, np.ones(()))[..., None]
            y = y.reshape(len(first), *rest.shape[:-1], -1).astype(np.float64)
            # The product and the sum are float64, and the sum is rounded to float32.
            x[np.ix_(*(part.indices for part in parts))] += y * first.reshape(-1, *[1] * rest.ndim) * rest
        return x


def _reduced(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the means of as many samples as make one along every axis."""
    for axis, size in enumerate(sizes):
        shape = values.shape
        values = values.reshape(*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :]).mean(axis + 1)
    return values


def _read_mask(payload: bytes, header: Header) -> np.ndarray:
    samples = int(np.prod(header.sizes))
    content = inflate(payload, ceil_div(samples, 8))
    require(len(content) == ceil_div(samples, 8), "a mask has one bit for each sample")
    bits = np.unpackbits(np.frombuffer(content, np.uint8)).astype(bool)
    require(not bits[samples:].any(), "the bits that fill the last byte are 0")
    return np.logical_xor.accumulate(bits[:samples].reshape(header.sizes), 0)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and value == value  # NaN is none
