"""The outer loop of latent fields: their networks and the entropy model, learned at adapted latents.

Every outer step adapts integer latents to a batch of signals (the inner loop as the encoder runs it) and descends the
logarithm of J = D / lambda + R at them. Each batch has a random quantization step, so that one initialization serves
all qualities. For most of a run the latents stay as they are while J is descended; at its end, if asked for, the
descent goes through the adaptation too, and takes the step sizes with it (ECoP).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import State, adapt_for_training, best_state, first_state
from inrcodec.latents.costs import Costs
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, trade_off_of_step_index
from inrcodec.latents.step_sizes import initial_latent_step_sizes
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import PatchSampler
from inrcodec.meta.presets import Preset
from inrcodec.meta.trainer import LearnedGroup, OuterLoss, Trainer, learned, take_over
from inrcodec.models import EntropyModel, Grid, LatentField, Parameters
from inrcodec.models.latent import of_kind
from inrcodec.models.order import Place
from inrcodec.priors import LatentPrior
from inrcodec.weights.context_set import ContextSet

PLAIN_SHARE = 0.5
"""Share of a run before the latents take more than the first step: the prices mean little until the rate does."""

FIRST_ORDER_STEPS = 1
"""Steps that latents take then: more change them little, and each takes as long as all the rest."""

UNTRAINED_STEPS = 20
"""Outer steps with latents rounded to the nearest, after which the entropy model is worth asking."""

WINDOW = 3
"""Adaptation steps that are differentiated through at once; more are learned window by window."""

FLOOR = 1e-3
"""Added to J, in bits per sample, so that blank signals do not outweigh all others."""


class LatentTrainer(Trainer):
    """The trainer of latent fields: shared parameters, weights of the entropy model and step sizes.

    started: whether the tensors are those of an initialization, not random.
    """

    BETAS = (0.9, 0.98)
    WARM_UP = 30
    REMEDY = "use a smaller --outer-step-size"

    field: LatentField

    def __init__(self, field: LatentField, config: TrainingConfig, hidden: int, device: torch.device) -> None:
        """Begin a run. hidden: width of the entropy model's network."""
        generator = torch.Generator().manual_seed(config.seed)
        self.started = False
        self.entropy_model = EntropyModel.of(field, hidden)
        self.theta_0 = learned(field.initialize(generator), device)
        self.weights = learned(self.entropy_model.initialize(generator), device)
        sizes = initial_latent_step_sizes(config.step_sizes, steps=config.adaptation.steps, depth=field.order.depth)
        self.log_step_sizes = {name: value.to(device) for name, value in sizes.items()}
        named = {"theta_0": self.theta_0, "entropy_model": self.weights}
        groups = [LearnedGroup([*self.theta_0.values(), *self.weights.values()], config.outer_step_size)]
        # The outer step from which on the descent goes through the adaptation.
        self.second_order_begin = math.ceil((1 - config.second_order) * config.outer_steps)
        if config.step_sizes != "none":
            named["step_sizes"] = self.log_step_sizes = learned(self.log_step_sizes, device)
            # They are learned at the end of a run alone, so there they have a whole schedule.
            groups.append(
                LearnedGroup(list(self.log_step_sizes.values()), config.step_size_rate, self.second_order_begin)
            )
        super().__init__(field, config, named, groups)

    @property
    def prior(self) -> LatentPrior:
        """The entropy model as it is coded with."""
        return LatentPrior(self.entropy_model, {name: value.detach().cpu() for name, value in self.weights.items()})

    def clipped_together(self) -> list[list[Tensor]]:
        """Return the groups, each apart: the step sizes' gradients say nothing about those of the networks."""
        return [group.tensors for group in self._learned]

    def loss(self, context_set: ContextSet, generator: torch.Generator) -> OuterLoss:
        """Return the loss log J of a batch; its reconstruction is the mean squared error."""
        config = self.config
        values = context_set.values.transpose(1, 2).unflatten(2, context_set.shape)
        finest, coarsest = config.quantization
        step_index = int(torch.randint(finest, coarsest + 1, (), generator=generator))
        model, task = self.task(values, step_index, generator)
        distance = torch.zeros((), device=values.device)
        if self.step < self.second_order_begin:
            distortion, bits = objective_to_learn(model, self._symbols(model, task), task)
        else:
            state, index = self._adapted(model, task, generator)
            distortion, bits = objective_to_learn(model, state.symbols, task, state.magnitudes)
            bits = bits + state.choice
            if config.bootstrap_steps and config.bootstrap_weight:
                distance = bootstrap_distance(model, task, state, range(index, index + config.bootstrap_steps)).mean()
        samples = math.prod(task.grid.shape)
        total = torch.log((distortion + bits) / samples + FLOOR).mean() + config.bootstrap_weight * distance
        error = distortion.mean().detach() / samples * trade_off_of_step_index(step_index, values.shape[1])
        return OuterLoss(total, error, distance)

    def task(self, values: Tensor, step_index: int, generator: torch.Generator) -> tuple[LatentModel, Task]:
        """Return what is adapted to patches [B, C, *shape] at a step index, and its networks.

        The variant of the field is one that the first patch could choose.
        """
        candidates = list(self.field.candidates(values[:1], step_index))
        variant = candidates[int(torch.randint(len(candidates), (), generator=generator))]
        variant = self.processes.agreed(variant)
        model = self.model(step_index, variant)
        return model, Task.of(model, values, Grid.open(values.shape[2:]))

    def model(self, step_index: int, variant: int = 0, kind: str = "") -> LatentModel:
        """Return the networks as they are now. Raises: UsageError if their sums need not be exact."""
        try:
            return LatentModel.made(
                self.field.transform(variant, kind),
                of_kind(self.theta_0, kind),
                self.entropy_model.of_kind(kind),
                of_kind(self.weights, kind),
                step_index,
                self.log_step_sizes,
            )
        except ValueError as error:
            raise UsageError(f"after {self.step} outer steps {error}: {self.REMEDY}") from error

    def _symbols(self, model: LatentModel, task: Task) -> list[Tensor]:
        """Return the symbols at which the objective is descended while they stay."""
        if self.step < UNTRAINED_STEPS and not self.started:
            return nearest_symbols(model, task)
        plain = self.step < PLAIN_SHARE * self.config.outer_steps
        steps = 0 if plain else FIRST_ORDER_STEPS
        with torch.no_grad():
            return best_state(model, task, first_state(model, task), range(steps)).symbols

    def _adapted(self, model: LatentModel, task: Task, generator: torch.Generator) -> tuple[State, int]:
        """Return latents after a random window of the K steps, with their graph, and the steps done."""
        steps = min(WINDOW, self.config.adaptation.steps)
        start = int(torch.randint(self.config.adaptation.steps - steps + 1, (), generator=generator))
        return adapt_for_training(model, task, start=start, steps=steps), start + steps

    def counts(self) -> dict[str, int]:
        return super().counts() | {"started": int(self.started)}

    def load_counts(self, counts: dict[str, int]) -> None:
        super().load_counts(counts)
        self.started = bool(counts["started"])

    def start_from(self, start: Initialization) -> None:
        if not self._take_over(start, start.theta_0, start.prior.tensors) or start.field.name != self.field.name:
            raise UsageError(f"no tensor of the initialization to start from, a {start.field.name}, fits the field")

    def _take_over(self, start: Initialization, theta_0: Parameters, weights: Parameters) -> int:
        """Copy the tensors that fit, under the names they have here; return how many."""
        if start.field.family != "latents":
            return 0
        self.started = True
        pairs = [(self.theta_0, theta_0), (self.weights, weights)]
        if self.config.step_sizes != "none":
            pairs.append((self.log_step_sizes, start.log_step_sizes))
        return take_over(pairs)

    def initialization(
        self, preset: Preset, sampler: PatchSampler, provenance: dict[str, Any], device: torch.device
    ) -> Initialization:
        return Initialization(
            modality=preset.modality,
            field=self.field,
            patches=preset.patches,
            adaptation=self.config.adaptation,
            theta_0={name: value.detach().cpu() for name, value in self.theta_0.items()},
            log_step_sizes={name: value.detach().cpu() for name, value in self.log_step_sizes.items()},
            prior=self.prior,
            provenance=provenance,
        )


def nearest_symbols(model: LatentModel, task: Task) -> list[Tensor]:
    """Return the symbols whose latents are nearest to those of the signal, whatever they cost."""
    means = torch.round(task.means - model.field.predicted_means(model.step_index))
    details: list[Tensor] = []

    def choose(place: Place, prediction: Tensor) -> Tensor:
        details.append(torch.round(task.targets[len(details)] - prediction))
        return details[-1]

    with torch.no_grad():
        model.decode(means, task.grid, choose)
    return [means, *details]


def objective_to_learn(
    model: LatentModel, symbols: Sequence[Tensor], task: Task, magnitudes: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the distortion and the rate of the details in bits, both [B], with gradients for all that is shared.

    Symbols do not move with their predictions, so a gradient at fixed symbols would miss what predictions are for. Of
    the bits, the gradient is therefore that of the distance between a latent and its prediction at the local cost of a
    unit; of the distortion, predictions get a gradient only where the symbol is zero, as the others are rounded to the
    same distance wherever the prediction is.

    magnitudes: of symbols that are differentiable themselves, as `State`, and do move with their predictions: gradients
        go on through what they do to the distortion and to the cost of others. What they cost themselves is in the
        state's `choice`.
    """
    means, *details = symbols
    seen = [coded.abs() for coded in details] if magnitudes is None else magnitudes
    number = -1
    passes = model.passes(task.grid, lambda: seen[number], task.means)
    bits, error = task.nothing, task.nothing

    def choose(place: Place, prediction: Tensor) -> Tensor:
        nonlocal bits, error, number
        _, flags, scales = next(passes)
        number += 1
        cost, coded, target = Costs.of(flags, scales), details[number], task.targets[number]
        own = cost(coded.detach().abs())
        if magnitudes is None:
            distance = (target - prediction).abs()
            unit = torch.where(distance < 1, torch.maximum(cost.one - cost.zero, cost.more), cost.more).detach()
            own = own + unit * (distance - distance.detach())
            coded = coded - torch.where(coded == 0, 0.0, prediction - prediction.detach())
        bits = bits + own.flatten(1).sum(1)
        error = error + (target - prediction - coded).square().flatten(1).sum(1)
        return coded

    model.decode(means, task.grid, choose)
    return error * (0.5 * task.curvature), bits


def bootstrap_distance(model: LatentModel, task: Task, state: State, steps: Iterable[int]) -> Tensor:
    """Return mu, [B]: root mean square of the way to where further steps lead, in quantization steps (GradNCP 2.3).

    Between fields. The target is the best of the further steps, without graph; where none is better, mu is zero.
    """
    best = best_state(model, task, state.detached(), steps)
    squares = (state.linear - best.linear).square().flatten(1).mean(1)
    # The tiny offset keeps the square root's gradient finite where the target is where we are.
    return (squares + 1e-12).sqrt()
