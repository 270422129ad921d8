"""The pyramid: its tensors, its chunks and its values.

It follows "Pyramid" of docs/FORMAT.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from second_decoder.arrays import cubic_convolution
from second_decoder.entropy import EntropyDecoder
from second_decoder.entropy_model import EntropyModel
from second_decoder.latent_fields import LatentField, quantization_step
from second_decoder.latent_grids import LatentGrids
from second_decoder.prediction import Predictor, Reference, network_tensors, reference_of
from second_decoder.reading import require

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization

KINDS = ("",)


def grids_of(field: Mapping[str, Any], grid: tuple[int, ...] = ()) -> LatentGrids:
    """Return the grids of a pyramid's latents. grid: of a patch; the shapes of tensors do not depend on it."""
    channels = field["out_features"]
    groups = (1, 2) if channels == 3 else (channels,)
    return LatentGrids(tuple(field["levels"]), groups, field["divided"], grid)


def shared_tensors(field: Mapping[str, Any], references: int = 0) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of `theta_0`."""
    return network_tensors(grids_of(field), field["prediction"], references)


def hue_and_bare(field: Mapping[str, Any], parameters: tuple[int, ...]) -> tuple[int, int]:
    """Return what the coding parameters after the step index say."""
    if field["out_features"] != 3:
        require(parameters == (), "there is no variant unless there are three outputs")
        return 0, 0
    require(len(parameters) == 1 and parameters[0] % 256 < 192, "there is a variant 0..191")
    return divmod(parameters[0] % 256, 3)


def colours(hue: int) -> np.ndarray:
    """Return M, float32: its rows are what the channels of latents show of red, green and blue."""
    rows = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    c, s = math.cos(math.pi * hue / 64), math.sin(math.pi * hue / 64)
    turned = np.stack([rows[0], c * rows[1] + s * rows[2], c * rows[2] - s * rows[1]])
    return (np.rint(turned * (1 << 24)) / (1 << 24)).astype(np.float32)


def _mixed(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return what a matrix makes of the channels: products added one after the other."""
    first, second, third = np.moveaxis(values, 1, 0)
    return np.stack([first * a + second * b + third * c for a, b, c in matrix], 1)


class Pyramid:
    """The networks of a pyramid on one grid, with one step index.

    tensors: float64, by name, without a kind. around: see `LatentField`.
    """

    def __init__(
        self, grids: LatentGrids, tensors: Mapping[str, np.ndarray], around: Sequence[bool], step_index: int, hue: int
    ) -> None:
        self.grids = grids
        self.around = around
        self.step = np.float32(quantization_step(step_index))
        self.matrix = colours(hue)
        self.predictor = Predictor(grids, tensors, around, step_index)

    def reference(self, values: np.ndarray) -> Reference:
        """Transform a reference, values in 0..1."""
        middle = values - np.float32(0.5)
        mixed = _mixed(middle, self.matrix) if self.grids.channels == 3 else middle
        return reference_of(mixed, self.grids, self.around)

    def values(self, symbols: Sequence[np.ndarray], references: Sequence[Reference] = ()) -> np.ndarray:
        """Return the values at the samples, float32 [n, C, *grid], of symbols: the means and every pass."""
        linear = self.predictor.field(symbols, references) * self.step
        mixed = _mixed(linear, self.matrix.T) if self.grids.channels == 3 else linear
        return mixed + np.float32(0.5)


def interpolated(values: np.ndarray, positions: Sequence[np.ndarray], around: Sequence[bool]) -> np.ndarray:
    """Return values at the product of positions along the axes of the grid."""
    for axis, (x, closed) in enumerate(zip(positions, around, strict=True)):
        values = cubic_convolution(values, axis + 2, x, closed=closed)
    return values


class PyramidField(LatentField):
    """The pyramids of a stream. symbols: of each chunk those of the means and of every pass."""

    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        hue, bare = hue_and_bare(self.field, parameters)
        grids = replace(grids_of(self.field, self.grid), bare=bare)
        self.latents = self.latents_at_once = grids.latents
        self._model = EntropyModel(grids, initialization.named("entropy_model"), self.step_index)
        self._pyramid = Pyramid(grids, initialization.named("theta_0"), self.around, self.step_index, hue)
        self._patches: list[list[np.ndarray]] = []

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        decoder = EntropyDecoder(chunk)
        symbols = self._model.read(decoder, patches)
        decoder.finish()
        self.symbols += symbols
        self._patches += [[each[patch : patch + 1] for each in symbols] for patch in range(patches)]

    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        return interpolated(self._pyramid.values(self._patches[patch]), positions, self.around)
