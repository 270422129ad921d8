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
    """Return the symbols of a plane [1, C, frames, frequencies] from details, finest first, and means."""
    plane = symbols[-1]
    for level in reversed(range(grids.depth)):
        axes, halves = grids.split_axes(level), grids.halves(level)
        details = symbols[level].reshape(1, grids.channels, grids.bands(level), *halves)
        doubled = [2 * n if axis in axes else n for axis, n in enumerate(halves)]
        joined = np.zeros((1, grids.channels, *doubled), np.int64)
        places = [(slice(0, None, 2), slice(1, None, 2)) if axis in axes else (slice(None),) for axis in range(2)]
        bands = [plane, *np.moveaxis(details, 2, 0)]
        for band, (frames, frequencies) in zip(bands, itertools.product(*places), strict=True):
            joined[:, :, frames, frequencies] = band
        plane = cropped(joined, grids.whole(level))
    return plane


class SpectrumField(LatentField):
    """The spectra of a stream. symbols: of each chunk the details of every level, finest first, and the means."""

    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        require(len(parameters) == 1 and 0 <= parameters[0] <= 3, "a spectrum has a variant 0..3")
        self._size = self.field["hop"] << parameters[0]
        self._hops = ceil_div(self.grid[0], self._size)
        self._grids = grids_of(self.field, (self._hops + 1, self._size))
        self.latents = self.latents_at_once = self._grids.latents
        self._model = EntropyModel(self._grids, initialization.named("entropy_model"))
        self._patches: list[np.ndarray] = []

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        decoder = EntropyDecoder(chunk)
        symbols = self._model.read(decoder, patches, self.step_index)
        decoder.finish()
        self.symbols += symbols
        self._patches += [
            plane_of([each[patch : patch + 1] for each in symbols], self._grids) for patch in range(patches)
        ]

    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        (t,) = positions
        size, k = self._size, np.arange(self._size)
        x = self._patches[patch][0] * quantization_step(self.step_index)
        b = np.floor((t + 0.5) / size).astype(int).clip(0, self._hops - 1)
        y = np.full((1, self.channels, len(t)), 0.5)
        for n in (b, b + 1):
            tau = t - (n - 1) * size
            window = np.sin(math.pi / (2 * size) * (tau + 0.5)) * math.sqrt(2 / size)
            cosines = np.cos(math.pi / size * np.outer(tau + 0.5 + size / 2, k + 0.5))
            y += window * np.einsum("ctk,tk->ct", x[:, n], cosines)
        return y
