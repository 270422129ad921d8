"""The pyramid: its tensors, its chunks and its values.

It follows "Pyramid" of docs/FORMAT.md.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from second_decoder.arrays import bias, convolution, cubic_convolution, gelu, linear_interpolation, pointwise
from second_decoder.entropy import EntropyDecoder
from second_decoder.entropy_model import EntropyModel
from second_decoder.latent_fields import LatentField, kappa, quantization_step
from second_decoder.latent_grids import LatentGrids
from second_decoder.prediction import Predictor, Reference, network_tensors, reference_of
from second_decoder.reading import require
from second_decoder.wavelet import join

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization

KINDS = ("",)
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
"""M: its rows are what the channels of latents show of red, green and blue."""


def grids_of(field: Mapping[str, Any], grid: tuple[int, ...] = ()) -> LatentGrids:
    """Return the grids of a pyramid's latents. grid: of a patch; the shapes of tensors do not depend on it."""
    channels = field["out_features"]
    groups = (1, 2) if channels == 3 else (channels,)
    return LatentGrids(tuple(field["levels"]), groups, field["divided"], grid)


def shared_tensors(field: Mapping[str, Any], references: int = 0) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of `theta_0`."""
    grids, width, channels = grids_of(field), field["width"], field["out_features"]
    shapes = {
        "restoring.input.weight": (width, channels * (min(3, grids.depth) + 1), *(3,) * len(grids.levels)),
        "restoring.input.bias": (3, width),
        "restoring.hidden.weight": (width, width),
        "restoring.hidden.bias": (width,),
        "restoring.head.weight": (channels, width),
        "restoring.head.bias": (channels,),
    }
    return shapes | (network_tensors(grids, field["prediction"], references) if field["prediction"] else {})


@dataclass(frozen=True)
class Maps:
    """What a pyramid is interpolated from: its linear values and its features, [n, channels, *grid] each."""

    linear: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Pyramid:
    """The networks of a pyramid on one grid.

    tensors: float64, by name, without a kind. around: see `LatentField`. predicts: whether details are predicted.
    """

    grids: LatentGrids
    tensors: Mapping[str, np.ndarray]
    around: Sequence[bool]
    predicts: bool

    def reference(self, values: np.ndarray) -> Reference:
        """Transform a reference, values in 0..1."""
        mixed = np.einsum("dc,nc...->nd...", COLOURS, values - 0.5) if self.grids.channels == 3 else values - 0.5
        return reference_of(mixed, self.grids, self.around)

    def maps(self, symbols: Sequence[np.ndarray], step_index: int, references: Sequence[Reference] = ()) -> Maps:
        """Turn symbols [n, channels, *grid] into what is interpolated."""
        grids = self.grids
        if self.predicts:
            latents = Predictor(grids, self.tensors, self.around).latents(symbols, step_index, references)
        else:
            latents = [each * quantization_step(step_index) for each in symbols]
        g = [latents[-1]]
        for level in reversed(range(grids.depth)):
            g.insert(0, join(g[0], latents[level], grids.split_axes(level), grids.whole(level), self.around))
        linear = np.einsum("dc,nd...->nc...", COLOURS, g[0]) if grids.channels == 3 else g[0]
        table, k = self.tensors["restoring.input.bias"], kappa(step_index)
        features = convolution(self._restoring_inputs(g), self.tensors["restoring.input.weight"])
        return Maps(linear + 0.5, features + bias(table[0] + k * table[1] + k**2 * table[2], features))

    def _restoring_inputs(self, g: Sequence[np.ndarray]) -> np.ndarray:
        seen = [g[0]]
        splits = 0
        for level in range(1, min(3, self.grids.depth) + 1):
            splits += len(self.grids.split_axes(level - 1))
            enlarged = g[level]
            for axis, size in enumerate(self.grids.grid):
                enlarged = linear_interpolation(enlarged, axis + 2, size)
            seen.append(enlarged / math.sqrt(2) ** splits)
        differences = [8 * (fine - coarse) for fine, coarse in itertools.pairwise(seen)]
        return np.concatenate([*differences, 8 * seen[-1]], 1)

    def values(self, maps: Maps, step_index: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Return the values at the product of positions along each axis, [n, C, *sizes]."""
        linear, features = maps.linear, maps.features
        for axis, (x, closed) in enumerate(zip(positions, self.around, strict=True)):
            linear = cubic_convolution(linear, axis + 2, x, closed=closed)
            features = cubic_convolution(features, axis + 2, x, closed=closed)
        hidden = pointwise(gelu(features), self.tensors["restoring.hidden.weight"])
        hidden = gelu(hidden + bias(self.tensors["restoring.hidden.bias"], hidden))
        restored = pointwise(hidden, self.tensors["restoring.head.weight"])
        restored = restored + bias(self.tensors["restoring.head.bias"], restored)
        return linear + quantization_step(step_index) * restored


class PyramidField(LatentField):
    """The pyramids of a stream. symbols: of each chunk the details of every level, finest first, and the means."""

    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        require(parameters == (), "a pyramid has one coding parameter")
        grids = grids_of(self.field, self.grid)
        self.latents = self.latents_at_once = grids.latents
        self._model = EntropyModel(grids, initialization.named("entropy_model"))
        self._pyramid = Pyramid(grids, initialization.named("theta_0"), self.around, self.field["prediction"] > 0)
        self._patches: list[list[np.ndarray]] = []

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        decoder = EntropyDecoder(chunk)
        symbols = self._model.read(decoder, patches, self.step_index)
        decoder.finish()
        self.symbols += symbols
        self._patches += [[each[patch : patch + 1] for each in symbols] for patch in range(patches)]

    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        maps = self._pyramid.maps(self._patches[patch], self.step_index)
        return self._pyramid.values(maps, self.step_index, positions)
