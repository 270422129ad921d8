"""A latent field with its networks and its entropy model, as adaptation and coding use it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Self, cast

import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.initialization import Initialization
from inrcodec.latents.costs import Costs
from inrcodec.latents.step_sizes import StepSizes, latent_step_sizes
from inrcodec.models import EntropyModel, Grid, LatentField, LatentTransform, Parameters
from inrcodec.models.latent import condition_of, of_kind
from inrcodec.models.layers import WEIGHT_UNIT
from inrcodec.models.order import Place
from inrcodec.priors import LatentPrior
from inrcodec.settings import AdaptationConfig


def field_of(initialization: Initialization) -> LatentField:
    """Return the field of an initialization of latents."""
    return cast(LatentField, initialization.field)


def prior_of(initialization: Initialization) -> LatentPrior:
    """Return the prior of an initialization of latents."""
    return cast(LatentPrior, initialization.prior)


def rescales(adaptation: AdaptationConfig, log_step_sizes: Parameters) -> bool:
    """Say whether step sizes were learned for moves on the pruned context set, whose length others then take."""
    return SHARED not in log_step_sizes and adaptation.prunes_by_score


@dataclass(frozen=True, eq=False)
class LatentModel:
    """A field with one transform, its shared parameters and its entropy model, float32 on one device.

    field: the configuration; shared: the tensors that all signals share.
    entropy_model, weights: the entropy model's configuration, of one kind, and its weights.
    log_step_sizes: see `Initialization`. adaptation: the K steps they were learned for.
    """

    field: LatentTransform
    shared: Parameters
    entropy_model: EntropyModel
    weights: Parameters
    log_step_sizes: Parameters = dataclass_field(default_factory=lambda: {SHARED: torch.zeros(1)})
    adaptation: AdaptationConfig = dataclass_field(
        default_factory=lambda: AdaptationConfig(steps=1, gamma=1.0, score="full")
    )

    @classmethod
    def of(cls, initialization: Initialization, device: torch.device, variant: int = 0, kind: str = "") -> Self:
        """Return a variant of an initialization's field, or one of its kinds."""
        prior = prior_of(initialization)
        weights = of_kind(prior.weights, kind)
        return cls(
            field=field_of(initialization).transform(variant, kind),
            shared={name: value.to(device) for name, value in of_kind(initialization.theta_0, kind).items()},
            entropy_model=prior.entropy_model.of_one_kind,
            weights={name: (value.float() / WEIGHT_UNIT).to(device) for name, value in weights.items()},
            log_step_sizes={name: value.to(device) for name, value in initialization.log_step_sizes.items()},
            adaptation=initialization.adaptation,
        )

    def step_sizes(self, step: int, like: Tensor) -> StepSizes:
        """Return the step sizes of a step of the adaptation."""
        return latent_step_sizes(self.log_step_sizes, step, self.field.order.depth, like)

    def values(self, symbols: Sequence[Tensor], grid: Grid, step_index: Tensor) -> Tensor:
        """Return field values [B, C, *grid] for symbols (float) and step indices [B]."""
        return self.values_of(self.field.decoded(self.shared, symbols, grid, step_index), grid, step_index)

    def values_of(self, latents: Sequence[Tensor], grid: Grid, step_index: Tensor) -> Tensor:
        """Return field values [B, C, *grid] for decoded latents, in quantization steps."""
        maps = self.field.maps(self.shared, latents, grid, step_index)
        return self.field.values(self.shared, maps, grid, step_index)

    def bits(self, symbols: Sequence[Tensor], grid: Grid, step_index: Tensor, magnitudes: Sequence[Tensor]) -> Tensor:
        """Return the bits of the details of every signal, [B].

        magnitudes: of the symbols, as the entropy model sees them where they stand beside others.
        """
        total = torch.zeros_like(step_index)
        for place, costs in self.costs(grid, step_index, magnitudes):
            coded = symbols[place.level][place.index].detach().abs()
            total = total + costs(coded).flatten(1).sum(1)
        return total

    def costs(self, grid: Grid, step_index: Tensor, magnitudes: Sequence[Tensor]) -> Iterator[tuple[Place, Costs]]:
        """Yield what symbols cost, pass by pass; a pass's magnitudes must be there when the next one is asked for."""
        levels = self.field.levels_of(grid)
        passes = self.entropy_model.passes(self.weights, magnitudes, levels, condition_of(step_index))
        for place, flags, scales in passes:
            yield place, Costs.of(flags, scales)
