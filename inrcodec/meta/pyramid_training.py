"""The outer loop of latent pyramids: the restoring network and the entropy model, learned at adapted latents.

Every outer step adapts integer latents to a batch of signals (the inner loop as the encoder runs it) and descends the
logarithm of J = D / lambda + R at them, each signal at a quantization step of its own, so that one initialization
serves all qualities. For most of a run the latents stay as they are while J is descended; at its end, if asked for,
the descent goes through the adaptation too, and takes the step sizes with it (ECoP).
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from inrcodec.coding.context_model import ContextModel, integer_weights
from inrcodec.errors import Diverged
from inrcodec.meta.context import Context
from inrcodec.meta.initialization import ContextPrior
from inrcodec.meta.latent_gradients import State, Training
from inrcodec.meta.latent_objective import Pyramid, Task, trade_off_of_step
from inrcodec.meta.latent_step_sizes import initial_latent_step_sizes
from inrcodec.meta.pyramid_adaptation import adapt_for_training, adapt_latents, best_symbols
from inrcodec.meta.training import MAX_DIVERGED, OuterLoss, TrainingConfig, load_tensors, save_tensors, scheduled
from inrcodec.models import Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, LatentField, LatentTransform
from inrcodec.models.order import Place

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


class PyramidTrainer:
    """State of a run: shared parameters, weights of the entropy model, step sizes, Adam's moments, outer steps done.

    `started` says that the tensors are those of an initialization, not random.

    All randomness of step n comes from (seed, n), so a run resumed from `state` goes on as if it had not stopped.
    """

    def __init__(
        self,
        model: LatentField,
        config: TrainingConfig,
        shape: tuple[int, ...],
        hidden: int,
        device: torch.device,
        squeeze: int = 0,
    ) -> None:
        """shape: samples of a training patch along each axis. hidden, squeeze: see `ContextModel`."""
        generator = torch.Generator().manual_seed(config.seed)
        self.model = model
        self.config = config
        self.grid = Grid(shape, (False,) * len(shape))
        self.step = 0
        self.diverged = 0
        self.started = False
        self.contexts = ContextModel(model.groups, model.levels, hidden, squeeze, model.kinds, model.order.divided)
        self.theta_0 = _learned(model.initialize(generator), device)
        self.weights = _learned(self.contexts.initialize(generator), device)
        sizes = initial_latent_step_sizes(
            config.learned_step_sizes, steps=config.adaptation.steps, depth=model.order.depth
        )
        self.log_step_sizes = {name: value.to(device) for name, value in sizes.items()}
        parameters = [*self.theta_0.values(), *self.weights.values()]
        groups = [{"params": parameters, "lr": config.outer_step_size}]
        self._begins = [0]
        if self.learns_step_sizes:
            self.log_step_sizes = _learned(self.log_step_sizes, device)
            groups.append({"params": list(self.log_step_sizes.values()), "lr": config.step_size_rate})
            # They are learned at the end of a run alone, so there they have a whole schedule.
            self._begins.append(self._second_order_begin)
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.98))
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def learns_step_sizes(self) -> bool:
        return self.config.learned_step_sizes != "none"

    @property
    def _second_order_begin(self) -> int:
        """The outer step from which on the descent goes through the adaptation."""
        return math.ceil((1 - self.config.second_order) * self.config.outer_steps)

    @property
    def prior(self) -> ContextPrior:
        """The entropy model as it is coded with."""
        return ContextPrior(self.contexts, integer_weights({k: v.detach().cpu() for k, v in self.weights.items()}))

    @property
    def _groups(self) -> dict[str, Parameters]:
        groups = {"theta_0": self.theta_0, "contexts": self.weights}
        return groups | ({"step_sizes": self.log_step_sizes} if self.learns_step_sizes else {})

    def train_step(self, context: Context) -> OuterLoss:
        """One outer step on a batch; its loss is log J, and the reconstruction the mean squared error.

        Raises: Diverged after `MAX_DIVERGED` batches in a row without a finite gradient.
        """
        config = self.config
        for group, rate, begin in zip(self.optimizer.param_groups, self._rates, self._begins, strict=True):
            warm_up = min(1.0, (self.step + 1) / 30)
            group["lr"] = rate * warm_up * scheduled(config, self.step, begin)
        values = context.values.transpose(1, 2).unflatten(2, self.grid.shape)
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + self.step) % 2**63)
        finest, coarsest = config.quantization
        steps = torch.randint(finest, coarsest + 1, (len(values),), generator=generator).to(values)
        pyramid, task = self._task(values, steps, generator)
        distance = torch.zeros_like(steps)
        if self.step < self._second_order_begin:
            error, bits = objective_to_learn(pyramid, self._symbols(pyramid, task), task)
        else:
            state, index = self._adapted(pyramid, task, generator)
            error, bits = objective_to_learn(pyramid, state.symbols, task, state.magnitudes)
            bits = bits + state.choice
            if config.bootstrap_steps and config.bootstrap_weight:
                distance = bootstrap_distance(pyramid, task, state, range(index, index + config.bootstrap_steps))
        rate = bits / task.values[0, 0].numel()
        trade_off = torch.tensor([trade_off_of_step(int(step), values.shape[1]) for step in steps]).to(values)
        loss = torch.log(error / trade_off + rate + FLOOR).mean() + config.bootstrap_weight * distance.mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        # Apart, as the step sizes' gradients say nothing about those of the networks.
        norms = [torch.nn.utils.clip_grad_norm_(group["params"], config.clip) for group in self.optimizer.param_groups]
        if all(torch.isfinite(norm) for norm in norms):
            self.optimizer.step()
            self.diverged = 0
        else:
            self.diverged += 1
            if self.diverged == MAX_DIVERGED:
                raise Diverged(f"meta-training diverged at outer step {self.step}: use a smaller --outer-step-size")
        self.step += 1
        return OuterLoss(loss.detach(), error.mean().detach(), distance.mean().detach())

    def _task(self, values: Tensor, steps: Tensor, generator: torch.Generator) -> tuple[Pyramid, Task]:
        """What is adapted to patches [B, C, *grid.shape] at indices of the quantization step [B], and its networks."""
        field = self.model.variant(int(torch.randint(self.model.variants, (), generator=generator)))
        assert isinstance(field, LatentTransform)
        pyramid = Pyramid(field, self.theta_0, self.contexts, self.weights, self.log_step_sizes, self.config.adaptation)
        return pyramid, Task.of(pyramid, values, self.grid, steps)

    def _symbols(self, pyramid: Pyramid, task: Task) -> list[Tensor]:
        """Where the objective is descended at latents that stay."""
        if self.step < UNTRAINED_STEPS and not self.started:
            return nearest_symbols(pyramid, task)
        plain = self.step < PLAIN_SHARE * self.config.outer_steps
        steps = 0 if plain else FIRST_ORDER_STEPS
        return adapt_latents(pyramid, task.values, task.grid, task.step, steps=steps, rescaling="none")

    def _adapted(self, pyramid: Pyramid, task: Task, generator: torch.Generator) -> tuple[State, int]:
        """Latents after a random window of the K steps, differentiable in all that is learned, and the steps done."""
        steps = min(WINDOW, self.config.adaptation.steps)
        start = int(torch.randint(self.config.adaptation.steps - steps + 1, (), generator=generator))
        training = Training(generator=generator)
        return adapt_for_training(pyramid, task, start=start, steps=steps, training=training), start + steps

    def state(self) -> dict[str, Tensor]:
        """Everything a later `load_state` needs, as named tensors on the CPU."""
        counts = {
            "step": torch.tensor([self.step]),
            "diverged": torch.tensor([self.diverged]),
            "started": torch.tensor([int(self.started)]),
        }
        return counts | save_tensors(self._groups, self.optimizer)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up a `state`. Raises: UsageError if it is another field's."""
        self.step = int(tensors["step"])
        self.diverged = int(tensors["diverged"])
        self.started = bool(tensors.get("started", 0))
        load_tensors(tensors, self._groups, self.optimizer)


def nearest_symbols(pyramid: Pyramid, task: Task) -> list[Tensor]:
    """The symbols whose latents are nearest to those of the signal, whatever they cost."""
    scale = task.spread(torch.exp2(task.step / STEPS_PER_OCTAVE))
    *targets, means = [level / scale for level in pyramid.field.analyse(task.values, task.grid)]
    means = torch.round(means - pyramid.field.expected_means(task.step))
    details = [torch.zeros_like(target) for target in targets]

    def choose(place: Place, expected: Tensor) -> Tensor:
        symbols = torch.round(targets[place.level][place.index] - expected)
        details[place.level][place.index] = symbols
        return symbols

    with torch.no_grad():
        pyramid.field.latents(pyramid.shared, means, task.grid, task.step, choose)
    return [*details, means]


def objective_to_learn(
    pyramid: Pyramid, symbols: Sequence[Tensor], task: Task, magnitudes: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean squared error and bits of the details, both [B], with gradients for all that is shared.

    Symbols do not move with what is expected of them, so a gradient at fixed symbols would miss what predictions are
    for. Of the bits, the gradient is therefore that of the distance between a latent and its expectation at the local
    cost of a unit; of the error, expectations get a gradient only where the symbol is zero, as the others are
    rounded to the same distance wherever the expectation is.

    magnitudes: of symbols that are differentiable themselves, as `State`, and do move with what is expected of them:
        gradients go on through what they do to the error and as contexts. What they cost themselves is in the state's
        `choice`.
    """
    grid, step = task.grid, task.step
    scale = task.spread(torch.exp2(step / STEPS_PER_OCTAVE))
    with torch.no_grad():
        targets = [level / scale for level in pyramid.field.analyse(task.values, grid)]
    costs = pyramid.costs(grid, step, [level.abs() for level in symbols] if magnitudes is None else magnitudes)
    bits = torch.zeros_like(step)

    def choose(place: Place, expected: Tensor) -> Tensor:
        nonlocal bits
        _, cost = next(costs)
        coded = symbols[place.level][place.index]
        if magnitudes is not None:
            bits = bits + cost(coded.detach().abs()).flatten(1).sum(1)
            return coded
        distance = (targets[place.level][place.index] - expected).abs()
        unit = torch.where(distance < 1, torch.maximum(cost.one - cost.zero, cost.more), cost.more).detach()
        pull = unit * (distance - distance.detach())
        bits = bits + (cost(coded.detach().abs()) + pull).flatten(1).sum(1)
        return coded - torch.where(coded == 0, 0.0, expected - expected.detach())

    latents = pyramid.field.latents(pyramid.shared, symbols[-1], grid, step, choose)
    error = (pyramid.values_of(latents, grid, step) - task.values).square().flatten(1).mean(1)
    return error, bits


def bootstrap_distance(pyramid: Pyramid, task: Task, state: State, steps: Iterable[int]) -> Tensor:
    """mu, [B]: root mean square of the way to where further steps lead, in quantization steps (GradNCP 2.3).

    Between decoded latents: as the transform is nearly orthonormal, that is the distance of the linear fields. The
    target is the best of the further steps on the full context, without graph; where none is better, mu is zero.
    """
    best = best_symbols(pyramid, task, state.detached(), steps, rescaling="none")
    with torch.no_grad():
        target = pyramid.field.decoded(pyramid.shared, best, task.grid, task.step)
    here = pyramid.field.decoded(pyramid.shared, state.symbols, task.grid, task.step)
    squares = [(own - other).square().flatten(1).sum(1) for own, other in zip(here, target, strict=True)]
    # The tiny offset keeps the square root's gradient finite where the target is where we are.
    return (torch.stack(squares).sum(0) / task.values[0].numel() + 1e-12).sqrt()


def _learned(parameters: Parameters, device: torch.device) -> Parameters:
    return {name: value.to(device).requires_grad_() for name, value in parameters.items()}
