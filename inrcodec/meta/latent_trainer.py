"""The outer loop of latent fields: their networks and the entropy model, learned at adapted latents.

Every outer step adapts integer latents to a batch of signals (the inner loop as the encoder runs it) and descends the
logarithm of J = D / lambda + R at them, each signal at a quantization step of its own, so that one initialization
serves all qualities. For most of a run the latents stay as they are while J is descended; at its end, if asked for,
the descent goes through the adaptation too, and takes the step sizes with it (ECoP).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import adapt_for_training, adapt_latents, best_symbols
from inrcodec.latents.gradients import State, Training
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, trade_off_of_step_index
from inrcodec.latents.step_sizes import initial_latent_step_sizes
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import PatchSampler
from inrcodec.meta.presets import Preset
from inrcodec.meta.trainer import LearnedGroup, OuterLoss, Trainer, learned, take_over
from inrcodec.models import EntropyModel, Grid, LatentField, Parameters
from inrcodec.models.layers import WEIGHT_UNIT, integer_weights
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

    def __init__(
        self, field: LatentField, config: TrainingConfig, shape: tuple[int, ...], hidden: int, device: torch.device
    ) -> None:
        """Begin a run.

        shape: samples of a training patch along each axis. hidden: width of the entropy model's network.
        """
        generator = torch.Generator().manual_seed(config.seed)
        self.grid = Grid.open(shape)
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
        weights = {name: value.detach().cpu() for name, value in self.weights.items()}
        return LatentPrior(self.entropy_model, integer_weights(weights))

    def clipped_together(self) -> list[list[Tensor]]:
        """Return the groups, each apart: the step sizes' gradients say nothing about those of the networks."""
        return [group.tensors for group in self._learned]

    def loss(self, context_set: ContextSet, generator: torch.Generator) -> OuterLoss:
        """Return the loss log J of a batch; its reconstruction is the mean squared error."""
        config = self.config
        values = context_set.values.transpose(1, 2).unflatten(2, self.grid.shape)
        finest, coarsest = config.quantization
        step_indices = torch.randint(finest, coarsest + 1, (len(values),), generator=generator).to(values)
        model, task = self.task(values, step_indices, generator)
        distance = torch.zeros_like(step_indices)
        if self.step < self.second_order_begin:
            error, bits = objective_to_learn(model, self._symbols(model, task), task)
        else:
            state, index = self._adapted(model, task, generator)
            error, bits = objective_to_learn(model, state.symbols, task, state.magnitudes)
            bits = bits + state.choice
            if config.bootstrap_steps and config.bootstrap_weight:
                distance = bootstrap_distance(model, task, state, range(index, index + config.bootstrap_steps))
        rate = bits / task.values[0, 0].numel()
        channels = values.shape[1]
        trade_off = torch.tensor([trade_off_of_step_index(int(index), channels) for index in step_indices]).to(values)
        total = torch.log(error / trade_off + rate + FLOOR).mean() + config.bootstrap_weight * distance.mean()
        return OuterLoss(total, error.mean(), distance.mean())

    def task(self, values: Tensor, step_indices: Tensor, generator: torch.Generator) -> tuple[LatentModel, Task]:
        """Return what is adapted to patches [B, C, *grid.shape] at step indices [B], and its networks."""
        field = self.field.transform(int(torch.randint(self.field.variants, (), generator=generator)))
        model = LatentModel(
            field, self.theta_0, self.entropy_model, self.weights, self.log_step_sizes, self.config.adaptation
        )
        return model, Task.of(model, values, self.grid, step_indices)

    def _symbols(self, model: LatentModel, task: Task) -> list[Tensor]:
        """Return the symbols at which the objective is descended while they stay."""
        if self.step < UNTRAINED_STEPS and not self.started:
            return nearest_symbols(model, task)
        plain = self.step < PLAIN_SHARE * self.config.outer_steps
        steps = 0 if plain else FIRST_ORDER_STEPS
        return adapt_latents(model, task.values, task.grid, task.step_index, steps=steps, rescaling="none")

    def _adapted(self, model: LatentModel, task: Task, generator: torch.Generator) -> tuple[State, int]:
        """Return latents after a random window of the K steps, with their graph, and the steps done."""
        steps = min(WINDOW, self.config.adaptation.steps)
        start = int(torch.randint(self.config.adaptation.steps - steps + 1, (), generator=generator))
        training = Training(generator=generator)
        return adapt_for_training(model, task, start=start, steps=steps, training=training), start + steps

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
        trained = {name: value.float() / WEIGHT_UNIT for name, value in weights.items()}
        pairs = [(self.theta_0, theta_0), (self.weights, trained)]
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
    *targets, means = [level / task.scale for level in model.field.analyse(task.values, task.grid)]
    means = torch.round(means - model.field.predicted_means(task.step_index))
    details = [torch.zeros_like(target) for target in targets]

    def choose(place: Place, prediction: Tensor) -> Tensor:
        symbols = torch.round(targets[place.level][place.index] - prediction)
        details[place.level][place.index] = symbols
        return symbols

    with torch.no_grad():
        model.field.latents(model.shared, means, task.grid, task.step_index, choose)
    return [*details, means]


def objective_to_learn(
    model: LatentModel, symbols: Sequence[Tensor], task: Task, magnitudes: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return mean squared error and bits of the details, both [B], with gradients for all that is shared.

    Symbols do not move with their predictions, so a gradient at fixed symbols would miss what predictions are for. Of
    the bits, the gradient is therefore that of the distance between a latent and its prediction at the local cost of a
    unit; of the error, predictions get a gradient only where the symbol is zero, as the others are rounded to the same
    distance wherever the prediction is.

    magnitudes: of symbols that are differentiable themselves, as `State`, and do move with their predictions: gradients
        go on through what they do to the error and to the cost of others. What they cost themselves is in the state's
        `choice`.
    """
    grid, step_index = task.grid, task.step_index
    with torch.no_grad():
        targets = [level / task.scale for level in model.field.analyse(task.values, grid)]
    costs = model.costs(grid, step_index, [level.abs() for level in symbols] if magnitudes is None else magnitudes)
    bits = torch.zeros_like(step_index)

    def choose(place: Place, prediction: Tensor) -> Tensor:
        nonlocal bits
        _, cost = next(costs)
        coded = symbols[place.level][place.index]
        if magnitudes is not None:
            bits = bits + cost(coded.detach().abs()).flatten(1).sum(1)
            return coded
        distance = (targets[place.level][place.index] - prediction).abs()
        unit = torch.where(distance < 1, torch.maximum(cost.one - cost.zero, cost.more), cost.more).detach()
        pull = unit * (distance - distance.detach())
        bits = bits + (cost(coded.detach().abs()) + pull).flatten(1).sum(1)
        return coded - torch.where(coded == 0, 0.0, prediction - prediction.detach())

    latents = model.field.latents(model.shared, symbols[-1], grid, step_index, choose)
    error = (model.values_of(latents, grid, step_index) - task.values).square().flatten(1).mean(1)
    return error, bits


def bootstrap_distance(model: LatentModel, task: Task, state: State, steps: Iterable[int]) -> Tensor:
    """Return mu, [B]: root mean square of the way to where further steps lead, in quantization steps (GradNCP 2.3).

    Between decoded latents: as the transform is nearly orthonormal, that is the distance of the linear fields. The
    target is the best of the further steps on the full context set, without graph; where none is better, mu is zero.
    """
    best = best_symbols(model, task, state.detached(), steps, rescaling="none")
    with torch.no_grad():
        target = model.field.decoded(model.shared, best, task.grid, task.step_index)
    here = model.field.decoded(model.shared, state.symbols, task.grid, task.step_index)
    squares = [(own - other).square().flatten(1).sum(1) for own, other in zip(here, target, strict=True)]
    # The tiny offset keeps the square root's gradient finite where the target is where we are.
    return (torch.stack(squares).sum(0) / task.values[0].numel() + 1e-12).sqrt()
