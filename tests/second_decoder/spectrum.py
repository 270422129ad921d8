"""The spectrum: its plane and its values.

It follows "Spectrum" of docs/FORMAT.md.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from second_decoder.arrays import ceil_div, cropped
from second_decoder.entropy import EntropyDecoder
from second_decoder.entropy_model import EntropyModel
from second_decoder.latent_fields import LatentField, quantization_step
from second_decoder.latent_grids import LatentGrids
from second_decoder.reading import require

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization

KINDS = ("",)


def grids_of(field: Mapping[str, Any], grid: tuple[int, ...] = ()) -> LatentGrids:
    """Return the grids of a plane's latents."""
    return LatentGrids(tuple(field["levels"]), (field["out_features"],), 0, grid)


def shared_tensors(field: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return that there are no tensors in `theta_0`."""
    return {}


def plane_of(symbols: Sequence[np.ndarray], grids: LatentGrids) -> np.ndarray:
    """Return the symbols of a plane [1, C, frames, frequencies] from those of the means and of every pass."""
    plane, *passes = symbols
    left = iter(passes)
    for level in reversed(range(grids.depth)):
        axes, halves = grids.split_axes(level), grids.halves(level)
        whole = np.zeros((1, *grids.details_shape(level)), np.int64)
        for each in grids.passes(level):
            whole[each.place] = next(left)
        details = whole.reshape(1, grids.channels, grids.bands(level), *halves)
        doubled = [2 * n if axis in axes else n for axis, n in enumerate(halves)]
        joined = np.zeros((1, grids.channels, *doubled), np.int64)
        places = [(slice(0, None, 2), slice(1, None, 2)) if axis in axes else (slice(None),) for axis in range(2)]
        bands = [plane, *np.moveaxis(details, 2, 0)]
        for band, (frames, frequencies) in zip(bands, itertools.product(*places), strict=True):
            joined[:, :, frames, frequencies] = band
        plane = cropped(joined, grids.whole(level))
    return plane


def windowed_cosines(size: int, tau: np.ndarray) -> np.ndarray:
    """Return F(τ, k), integers in float64 [n, N], at times τ within a frame. size: N."""
    window = np.sin(math.pi * (2 * tau + 1) / (4 * size)) * math.sqrt(2 / size)
    turns = np.outer(2 * tau + size + 1, 2 * np.arange(size) + 1) % (8 * size)
    return np.rint((1 << 26) * window[:, None] * np.cos(math.pi / (4 * size) * turns))


class SpectrumField(LatentField):
    """The spectra of a stream. symbols: of each chunk those of the means and of every pass."""

    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        require(len(parameters) == 1 and 0 <= parameters[0] <= 3, "a spectrum has a variant 0..3")
        self._size = self.field["hop"] << parameters[0]
        self._hops = ceil_div(self.grid[0], self._size)
        self._grids = grids_of(self.field, (self._hops + 1, self._size))
        self.latents = self.latents_at_once = self._grids.latents
        self._model = EntropyModel(self._grids, initialization.named("entropy_model"), self.step_index)
        self._patches: list[np.ndarray] = []

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        decoder = EntropyDecoder(chunk)
        symbols = self._model.read(decoder, patches)
        decoder.finish()
        self.symbols += symbols
        self._patches += [
            plane_of([each[patch : patch + 1] for each in symbols], self._grids) for patch in range(patches)
        ]

    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        (t,) = positions
        size, step = self._size, quantization_step(self.step_index)
        x = self._patches[patch][0].astype(np.float64)
        b = np.floor((t + 0.5) / size).astype(int).clip(0, self._hops - 1)
        sums = np.zeros((self.channels, len(t)))
        for n in (b, b + 1):
            sums += np.einsum("ctk,tk->ct", x[:, n], windowed_cosines(size, t - (n - 1) * size))
        return (sums * (step / (1 << 26))).astype(np.float32)[None] + np.float32(0.5)
