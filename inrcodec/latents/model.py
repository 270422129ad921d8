"""The model behind latents: a field with one transform, its shared parameters, its entropy model and its step sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Self, cast

import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.errors import InitializationError
from inrcodec.initialization import Initialization
from inrcodec.latents.step_sizes import StepSizes, latent_step_sizes
from inrcodec.models import EntropyModel, Grid, LatentField, LatentTransform, Parameters
from inrcodec.models.latent import Choose, following, of_kind
from inrcodec.models.order import Place
from inrcodec.priors import LatentPrior


def field_of(initialization: Initialization) -> LatentField:
    """Return the field of an initialization of latents."""
    return cast(LatentField, initialization.field)


def prior_of(initialization: Initialization) -> LatentPrior:
    """Return the prior of an initialization of latents."""
    return cast(LatentPrior, initialization.prior)


@dataclass(frozen=True, eq=False)
class LatentModel:
    """A field with one transform, its shared parameters and its entropy model, at one quantization step.

    field: the configuration; shared: the tensors that all signals share, as of `LatentTransform.ready`.
    entropy_model, weights: the entropy model's configuration, of one kind, and its weights, as of its `ready`.
    log_step_sizes: see `Initialization`.
    """

    field: LatentTransform
    shared: Parameters
    entropy_model: EntropyModel
    weights: Parameters
    step_index: int
    log_step_sizes: Parameters = dataclass_field(default_factory=lambda: {SHARED: torch.zeros(1)})

    @classmethod
    def of(
        cls, initialization: Initialization, device: torch.device, step_index: int, variant: int = 0, kind: str = ""
    ) -> Self:
        """Return a variant of an initialization's field, or one of its kinds.

        Raises: InitializationError if its sums of products need not be exact.
        """
        prior = prior_of(initialization)

        def on_device(parameters: Parameters) -> Parameters:
            return {name: value.to(device) for name, value in parameters.items()}

        try:
            return cls.made(
                field_of(initialization).transform(variant, kind),
                on_device(of_kind(initialization.theta_0, kind)),
                prior.entropy_model.of_kind(kind),
                on_device(of_kind(prior.weights, kind)),
                step_index,
                on_device(initialization.log_step_sizes),
            )
        except ValueError as error:
            raise InitializationError(f"initialization {initialization.identifier.hex()}: {error}") from error

    @classmethod
    def made(
        cls,
        field: LatentTransform,
        theta_0: Parameters,
        entropy_model: EntropyModel,
        weights: Parameters,
        step_index: int,
        log_step_sizes: Parameters,
    ) -> Self:
        """Return the model of parameters as they are learned. Raises: ValueError if sums need not be exact."""
        return cls(
            field=field,
            shared=field.ready(theta_0, step_index),
            entropy_model=entropy_model,
            weights=entropy_model.ready(weights, step_index),
            step_index=step_index,
            log_step_sizes=log_step_sizes,
        )

    def step_sizes(self, step: int, like: Tensor) -> StepSizes:
        """Return the step sizes of a step of the adaptation."""
        return latent_step_sizes(self.log_step_sizes, step, self.field.order.depth, like)

    def decode(self, means: Tensor, grid: Grid, choose: Choose) -> Tensor:
        """Decode latents pass by pass; see `LatentTransform.decode`."""
        return self.field.decode(self.shared, means, grid, self.step_index, choose)

    def linear(self, symbols: Sequence[Tensor], grid: Grid) -> Tensor:
        """Return the linear part of the field of symbols: the means, then those of every pass."""
        means, *details = symbols
        return self.decode(means, grid, following(details))

    def values(self, linear: Tensor, grid: Grid) -> Tensor:
        """Return field values [B, C, *grid.shape] for what `decode` returned."""
        return self.field.values(linear, grid, self.step_index)

    def passes(
        self, grid: Grid, magnitudes: Callable[[], Tensor], like: Tensor
    ) -> Iterator[tuple[Place, Tensor, Tensor]]:
        """Yield the passes with the distributions of their symbols; see `EntropyModel.passes`."""
        levels = self.field.levels_of(grid)
        hints = self.field.hints(self.step_index) if self.entropy_model.hinted else None
        return self.entropy_model.passes(self.weights, levels, self.field.order, magnitudes, like, hints)
