"""The series: pyramids of a group of climate fields, which see each other where they are.

It follows "Series" of docs/FORMAT.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from second_decoder import clip, pyramid
from second_decoder.arrays import cubic_convolution
from second_decoder.clip import KINDS, ClipField, Stage, grids_of, shared_tensors
from second_decoder.entropy import EntropyDecoder
from second_decoder.entropy_model import hints_of
from second_decoder.latent_fields import quantization_step
from second_decoder.prediction import Reference
from second_decoder.reading import read_varint, require

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization

__all__ = ["KINDS", "SeriesField", "grids_of", "shared_tensors"]

FIRST_OFFSET = 5
OFFSETS = (0, 2, 3, 4, 5)
"""How much the step index is lowered: for field 0, and from the last layer to the first."""

STAGE_SAMPLES = 1 << 21
APART_SAMPLES = 1 << 17


def stages_of(fields: int, samples: int, variant: int) -> list[Stage]:
    """Return the stages of a patch in coding order. samples: of a field."""
    largest = max(1, STAGE_SAMPLES // samples)
    if variant == 0:
        return clip.stages_of(fields, FIRST_OFFSET, OFFSETS, largest)
    return [Stage(tuple(range(fields))[begin : begin + largest], (), 0) for begin in range(0, fields, largest)]


class SeriesField(ClipField):
    """The series of a stream. symbols: of each stage of each chunk those of the means and of every pass."""

    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        require(parameters in ((0,), (1,)), "the variant of a series is 0 or 1")
        fields, *grid = self.grid
        self._samples = math.prod(grid)
        self._prepare_stages(initialization, stages_of(fields, self._samples, parameters[0]), hue=0, bare=0)
        self._decoded: list[np.ndarray] = []  # [1, C, *grid] of every patch

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        decoded: dict[int, np.ndarray] = {}  # [patches, C, *grid] of every field
        for stage, decoder in self._decoders(chunk):
            step_index = self._step_index_of(stage)
            networks = self._pyramid(stage.kind, step_index)
            references, hints = self._seen(stage, decoded, networks), None
            if references:
                first, second = (each.details for each in references)
                alone = len(stage.references[0]) == 1
                hints = hints_of(first, second, quantization_step(step_index), alone=alone)
            symbols = self._model(stage.kind, step_index).read(decoder, patches * len(stage.pictures), hints)
            self.symbols += symbols
            values = networks.values(symbols, references)
            values = values.reshape(patches, len(stage.pictures), *values.shape[1:])
            decoded.update({field: values[:, n] for n, field in enumerate(stage.pictures)})
        together = np.stack([decoded[field] for field in range(self.grid[0])], 2)
        self._decoded += [together[patch : patch + 1] for patch in range(patches)]

    def _decoders(self, chunk: bytes) -> Iterator[tuple[Stage, EntropyDecoder]]:
        """Yield the stages with what decodes each, and make sure that nothing is left."""
        if self._samples < APART_SAMPLES:
            decoder = EntropyDecoder(chunk)
            for stage in self._stages:
                yield stage, decoder
            decoder.finish()
            return
        position = 0
        for stage in self._stages:
            length, begin = read_varint(chunk, position)
            position = begin + length
            require(position <= len(chunk), "a stage is within its chunk")
            decoder = EntropyDecoder(chunk[begin:position])
            yield stage, decoder
            decoder.finish()
        require(position == len(chunk), "a chunk ends with its last stage")

    def _seen(self, stage: Stage, decoded: Mapping[int, np.ndarray], networks: pyramid.Pyramid) -> list[Reference]:
        """Return what the fields of a stage see, patch by patch: two references, or none."""
        seen = []
        for numbers in zip(*stage.references, strict=True):
            fields = np.stack([decoded[number] for number in numbers], 1).clip(0, 1)
            seen.append(networks.reference(fields.reshape(-1, *fields.shape[2:])))
        return [seen[0], seen[-1]] if seen else []  # one reference is seen twice

    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        fields, *places = positions
        shown = self._decoded[patch]
        for axis, (x, closed) in enumerate(zip(places, self.around[1:], strict=True)):
            shown = cubic_convolution(shown, axis + 3, x, closed=closed)
        return cubic_convolution(shown.clip(0, 1), 2, fields, closed=False)
