"""The coders of patches of latent fields: values to bytes, bytes to symbols, symbols to values.

A coder is made for one initialization, one grid of the patches and one quantization step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.model import LatentModel, field_of, prior_of
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import Grid
from inrcodec.settings import Rescaling

MIN_STEP_INDEX, MAX_STEP_INDEX = -120, 24
"""Quantization steps of 2^-15 to 2^3."""

MAX_AT_ONCE, MAX_LATENTS = 1 << 24, 1 << 26
"""Latents of a patch that a decoder accepts: at once (of a clip those of a stage), and in all. A small file must not
make it allocate without bound; the entropy model takes 100 bytes for each at once."""


@dataclass(frozen=True)
class AdaptationPlan:
    """How far latents are adapted. trade_off: lambda; steps: gradient steps, beyond the first."""

    trade_off: float
    steps: int
    rescaling: Rescaling = "exact"


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
    def encode(self, values: Tensor, plan: AdaptationPlan) -> bytes:
        """Return the chunk of patches [B, C, *grid.shape] in [0, 1], on the device."""

    @abstractmethod
    def symbols(self, chunk: bytes, count: int) -> list[np.ndarray]:
        """Return the symbols of a chunk's patches, int64 [count, ...] each. Raises: CorruptFile."""

    @abstractmethod
    def values_at(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        """Return the values [1, C, *(len(p) for p in positions)] of a patch at positions along each axis, in samples.

        symbols: as of `symbols`, float, [1, ...] each.
        """


class TransformCoder(LatentCoder):
    """The coder of fields whose latents are those of one transform: all patches of a chunk at once."""

    STEPS: ClassVar = {"fast": 2, "default": 10, "high": 50}

    @cached_property
    def size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self._model.field.latent_shapes(self.grid))

    def encode(self, values: Tensor, plan: AdaptationPlan) -> bytes:
        symbols = adapted(self._model, values, self.grid, self.step_index, plan)
        return entropy.encode_batches(
            self._symbol_coder.batches([integers(level) for level in symbols], self.step_index)
        )

    def symbols(self, chunk: bytes, count: int) -> list[np.ndarray]:
        decoder = entropy.Decoder(chunk)
        symbols = self._symbol_coder.read(decoder, count, self.step_index)
        decoder.finish()
        return symbols

    def values_at(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        field, shared = self._model.field, self._model.shared
        step_index = torch.full((1,), float(self.step_index), device=self.device)
        latents = field.decoded(shared, symbols, self.grid, step_index)
        maps = field.maps(shared, latents, self.grid, step_index)
        return field.values_at(shared, maps, positions, self.grid, step_index)

    @cached_property
    def _model(self) -> LatentModel:
        return LatentModel.of(self.initialization, self.device, self.variant)

    @cached_property
    def _symbol_coder(self) -> SymbolCoder:
        prior = prior_of(self.initialization)
        field = field_of(self.initialization).transform(self.variant)
        return SymbolCoder(field, self.grid, prior.entropy_model, prior.weights)


def adapted(model: LatentModel, values: Tensor, grid: Grid, step_index: int, plan: AdaptationPlan) -> list[Tensor]:
    """Return the symbols of values [B, C, *grid.shape] at one quantization step."""
    count = torch.ones(len(values), device=values.device)
    return adapt_latents(
        model,
        values,
        grid,
        step_index * count,
        steps=plan.steps,
        trade_off=plan.trade_off * count,
        rescaling=plan.rescaling,
    )


def integers(symbols: Tensor) -> np.ndarray:
    """Return symbols as int64 on the CPU."""
    return symbols.cpu().numpy().astype(np.int64)
