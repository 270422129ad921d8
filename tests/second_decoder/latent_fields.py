"""What the latent fields have in common: steps, patches, and limits.

It follows "Latent fields" and "Limits" of docs/FORMAT.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from second_decoder.header import Header
from second_decoder.patches import Layout, Patch
from second_decoder.reading import require

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization


def quantization_step(step_index: int) -> float:
    """Return Δ, a number of float32."""
    octave, eighth = divmod(step_index, 8)
    return float(np.float32(2.0 ** (eighth / 8))) * 2.0**octave


class LatentField(ABC):
    """The latent fields of a stream. symbols: of each chunk in turn, as the subclass says.

    channels: C, outputs of the field. grid: samples of a patch along the axes that have entries in `patches.shape`.
    around: along which of them a patch goes all around. latents: of a patch. latents_at_once: those of them that are
    decoded at once.
    """

    latents: int
    latents_at_once: int

    def __init__(self, header: Header, initialization: "Initialization", layout: Layout) -> None:
        coding = header.coding_parameters
        require(len(coding) >= 1 and -120 <= coding[0] <= 24, "the step index is -120..24")
        self.step_index = coding[0]
        self.layout = layout
        self.field = initialization.field
        self.channels = int(self.field["out_features"])
        self.grid = tuple(axis.size for axis in layout.regular)
        self.around = tuple(axis.goes_all_around for axis in layout.regular)
        self.symbols: list[np.ndarray] = []
        self._prepare(initialization, coding[1:])
        require(self.latents_at_once <= 1 << 24, "at most 2^24 latents of a patch are decoded at once")
        together = min(layout.count, header.patches_per_chunk)
        few = together == 1 or together * self.latents <= 1 << 21
        require(few, "a chunk of two or more patches has at most 2^21 latents")

    def value(self, patch: Patch, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Return the values of a patch, float32 [points, C], at the product of positions along each axis."""
        local = [
            x - start
            for axis, start, x in zip(self.layout.axes, patch.starts, positions, strict=True)
            if axis.has_entry
        ]
        values = self._value(patch.number, local)[0]
        return values.reshape(self.channels, -1).T

    @abstractmethod
    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        """Prepare to decode, and set `latents` and `latents_at_once`. parameters: after the step index."""

    @abstractmethod
    def read_chunk(self, chunk: bytes, patches: int) -> None:
        """Decode a chunk of some patches."""

    @abstractmethod
    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Return the values of a patch [1, C, *sizes] at positions in samples of the patch."""
