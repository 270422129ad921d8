"""The coders of patches of latent fields: values to bytes, bytes to symbols, symbols to values.

A coder is made for one initialization, one grid of the patches and one quantization step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.model import LatentModel, field_of
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import Grid, LatentTransform, Positions

MIN_STEP_INDEX, MAX_STEP_INDEX = -120, 24
"""Quantization steps of 2^-15 to 2^3."""

MAX_AT_ONCE, MAX_LATENTS = 1 << 24, 1 << 26
"""Latents of a patch that a decoder accepts: at once (of a clip those of a stage), and in all. A small file must not
make it allocate without bound; the entropy model takes 100 bytes for each at once."""


@dataclass(frozen=True)
class AdaptationPlan:
    """How far latents are adapted.

    trade_off: lambda; steps: gradient steps, beyond the first; bound: on errors, as of `adapt_latents`.
    """

    trade_off: float
    steps: int
    bound: float | None = None


@dataclass(frozen=True, eq=False)
class LatentCoder(ABC):
    """The coder of one kind of latent field. grid: of every patch. variant: of the field."""

    initialization: Initialization
    grid: Grid
    step_index: int
    variant: int
    device: torch.device

    STEPS: ClassVar[dict[str, int]]
    """Adaptation steps of every effort, beyond the first."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Symbols of a patch."""

    @property
    def at_once(self) -> int:
        """Symbols that the entropy model sees at once."""
        return self.size

    @property
    def is_small(self) -> bool:
        """Whether a decoder takes its patches."""
        return self.size <= MAX_LATENTS and self.at_once <= MAX_AT_ONCE

    @abstractmethod
    def encode(self, values: Tensor, plan: AdaptationPlan) -> tuple[bytes, Tensor]:
        """Return the chunk of patches [B, C, *grid.shape] in [0, 1], on the device, and as what they decode."""

    @abstractmethod
    def symbols(self, chunk: bytes, count: int) -> list[Tensor]:
        """Return the symbols of a chunk's patches, integers in float32, [count, ...] each. Raises: CorruptFile."""

    @abstractmethod
    def values_at(self, symbols: Sequence[Tensor], positions: Iterator[Positions]) -> Iterator[Tensor]:
        """Yield the values of every patch of a chunk, [C, *(len(p) for p in positions)], or [C, n] at points.

        symbols: as of `symbols`. positions: of every patch, in samples; of members of sequences whole ones at points.
        """

    def decode(self, chunk: bytes, count: int, positions: Sequence[Positions]) -> Iterator[Tensor]:
        """Yield what `values_at` does for the symbols of a chunk's patches. Raises: CorruptFile."""
        return self.values_at(self.symbols(chunk, count), iter(positions))


class TransformCoder(LatentCoder):
    """The coder of fields whose latents are those of one transform: all patches of a chunk at once."""

    STEPS: ClassVar = {"instant": 0, "fast": 1, "default": 4, "high": 16}

    @cached_property
    def size(self) -> int:
        return self._field.size(self.grid)

    def encode(self, values: Tensor, plan: AdaptationPlan) -> tuple[bytes, Tensor]:
        found = adapt_latents(
            self._model, values, self.grid, steps=plan.steps, trade_off=plan.trade_off, bound=plan.bound
        )
        chunk = entropy.encode_batches(self._symbol_coder.batches(found.symbols, found.outputs))
        with torch.no_grad():
            return chunk, self._model.values(found.linear, self.grid)

    def symbols(self, chunk: bytes, count: int) -> list[Tensor]:
        decoder = entropy.Decoder(chunk)
        symbols = self._symbol_coder.read(decoder, count)
        decoder.finish()
        return symbols

    def values_at(self, symbols: Sequence[Tensor], positions: Iterator[Positions]) -> Iterator[Tensor]:
        model = self._model
        with torch.no_grad():
            linear = model.linear(symbols, self.grid)
            for patch in linear.split(1):
                yield model.field.values_at(patch, next(positions), self.grid, self.step_index)[0]

    @property
    def _field(self) -> LatentTransform:
        return field_of(self.initialization).transform(self.variant)

    @cached_property
    def _model(self) -> LatentModel:
        return LatentModel.of(self.initialization, self.device, self.step_index, self.variant)

    @cached_property
    def _symbol_coder(self) -> SymbolCoder:
        return SymbolCoder(self._model, self.grid)
