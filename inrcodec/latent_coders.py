"""What the patches of latent fields are coded by: values to bytes, bytes to symbols, symbols to values.

A coder is made for one initialization, one grid of the patches and one quantization step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.coding.context_model import WEIGHT_UNIT
from inrcodec.coding.latents import pack_latents, unpack_latents
from inrcodec.meta.adaptation import Rescaling
from inrcodec.meta.initialization import ContextPrior, Initialization
from inrcodec.meta.latent_objective import Pyramid
from inrcodec.meta.pyramid_adaptation import adapt_latents
from inrcodec.models import LatentClip, LatentField
from inrcodec.models.latent import Grid, LatentTransform, of_kind

MIN_STEP, MAX_STEP = -120, 24
"""Indices of quantization steps: 2^-15 to 2^3."""


@dataclass(frozen=True)
class Adaptation:
    """How latents are adapted. trade_off: lambda; steps: beyond the first."""

    trade_off: float
    steps: int
    rescaling: Rescaling = "exact"


@dataclass(frozen=True, eq=False)
class LatentCoder(ABC):
    """grid: of every patch. step: index of the quantization step. variant: of the field."""

    initialization: Initialization
    grid: Grid
    step: int
    variant: int
    device: torch.device

    @property
    @abstractmethod
    def size(self) -> int:
        """Symbols of a patch."""

    @property
    def at_once(self) -> int:
        """Those that the entropy model sees at once."""
        return self.size

    @abstractmethod
    def encode(self, values: Tensor, adaptation: Adaptation) -> bytes:
        """The chunk of patches [B, C, *grid.shape] in [0, 1], on the device."""

    @abstractmethod
    def symbols(self, chunk: bytes, count: int) -> list[np.ndarray]:
        """Those of a chunk's patches, int64 [count, ...] each. Raises: CorruptFile."""

    @abstractmethod
    def values_at(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        """Values [1, C, *(len(p) for p in positions)] of a patch at positions along each axis, in samples.

        symbols: as of `symbols`, float, [1, ...] each.
        """


def pyramid_on(
    initialization: Initialization, device: torch.device, variant: int = 0, kind: str | None = None
) -> Pyramid:
    """A variant of an initialization's field, or one of its kinds of pictures, with its networks in floating point."""
    field, prior = latent_parts(initialization)
    shared, contexts, weights = initialization.theta_0, prior.contexts, prior.weights
    if isinstance(field, LatentClip):
        assert kind is not None
        transform: LatentField = field.picture(kind)
        shared, contexts, weights = of_kind(shared, kind), contexts.of_one_kind, of_kind(weights, kind)
    else:
        transform = field.variant(variant)
    assert isinstance(transform, LatentTransform)
    return Pyramid(
        field=transform,
        shared={name: value.to(device) for name, value in shared.items()},
        contexts=contexts,
        weights={name: (value.float() / WEIGHT_UNIT).to(device) for name, value in weights.items()},
        log_step_sizes={name: value.to(device) for name, value in initialization.log_step_sizes.items()},
        adaptation=initialization.adaptation,
    )


def latent_parts(initialization: Initialization) -> tuple[LatentField, ContextPrior]:
    """The field and the entropy model of an initialization of a latent field."""
    assert isinstance(initialization.model, LatentField) and isinstance(initialization.prior, ContextPrior)
    return initialization.model, initialization.prior


class TransformCoder(LatentCoder):
    """Of fields whose latents are those of one transform: all patches of a chunk at once."""

    @property
    def size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self._field.latent_shapes(self.grid))

    def encode(self, values: Tensor, adaptation: Adaptation) -> bytes:
        pyramid = pyramid_on(self.initialization, self.device, self.variant)
        symbols = adapted(pyramid, values, self.grid, self.step, adaptation)
        prior = latent_parts(self.initialization)[1]
        coded = [integers(level) for level in symbols]
        parts = pack_latents(coded, self.step, pyramid.field, self.grid, prior.contexts, prior.weights)
        return entropy.encode_parts(parts)

    def symbols(self, chunk: bytes, count: int) -> list[np.ndarray]:
        decoder = entropy.Decoder(chunk)
        prior = latent_parts(self.initialization)[1]
        symbols = unpack_latents(decoder, count, self.step, self._field, self.grid, prior.contexts, prior.weights)
        decoder.finish()
        return symbols

    def values_at(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        field = self._field
        shared = {name: value.to(self.device) for name, value in self.initialization.theta_0.items()}
        step = torch.full((1,), float(self.step), device=self.device)
        maps = field.maps(shared, field.decoded(shared, symbols, self.grid, step), self.grid, step)
        return field.values_at(shared, maps, positions, self.grid, step)

    @property
    def _field(self) -> LatentTransform:
        field = latent_parts(self.initialization)[0].variant(self.variant)
        assert isinstance(field, LatentTransform)
        return field


def adapted(pyramid: Pyramid, values: Tensor, grid: Grid, step: int, adaptation: Adaptation) -> list[Tensor]:
    """The symbols of values [B, C, *grid.shape] at one quantization step."""
    count = torch.ones(len(values), device=values.device)
    return adapt_latents(
        pyramid,
        values,
        grid,
        step * count,
        steps=adaptation.steps,
        trade_off=adaptation.trade_off * count,
        rescaling=adaptation.rescaling,
    )


def integers(symbols: Tensor) -> np.ndarray:
    return symbols.cpu().numpy().astype(np.int64)
