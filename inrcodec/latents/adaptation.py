"""The inner loop of latent fields: integer latents that minimize distortion plus lambda times rate.

theta_0 is zero. A first gradient step from there, with the step size 1 / diag(J^T J), is the analysis transform. Its
result is rounded in rate-distortion sense, pass by pass in coding order, each symbol knowing what it costs beside those
decided before it. What a decision does to the symbols *after* it, the following steps learn from gradients at the
integer latents: of the distortion, through the predictions, which moves the targets that are rounded, and of the rate,
through the entropy model, which prices every magnitude. Then all symbols are decided anew.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrcodec.latents.costs import Costs
from inrcodec.latents.decisions import TEMPERATURE, decide
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task
from inrcodec.models.latent import Grid
from inrcodec.models.order import Place

REACH = 0.5
"""How far a target may get away from the analysis, in quantization steps."""


@dataclass(frozen=True, eq=False)
class Pull:
    """What later symbols make of earlier ones: lists of one tensor [B, channels, *shape] per pass, in coding order.

    moves: where the distortion's gradient sends the targets, in quantization steps.
    prices: what a magnitude makes other symbols cost, in bits per unit of its pseudo-logarithm.
    """

    moves: list[Tensor]
    prices: list[Tensor]


@dataclass(frozen=True, eq=False)
class State:
    """Latents between two steps. Lists have one tensor [B, channels, *shape] per pass, in coding order.

    means: [B, C, *coarsest] integers. details: integers. magnitudes: their absolute values; in training a tensor of its
        own in which gradients pass zeros.
    pull: under which they were decided, the mean of all steps so far; None for none.
    outputs: of the entropy model for every pass, (flags, scales).
    linear: of the field, as `LatentTransform.decode` returns it.
    distortion, rate: in bits, [B], without graph. choice: [B], zero; its gradient is that of the details' own bits
        with respect to all that they were decided from.
    """

    means: Tensor
    details: list[Tensor]
    magnitudes: list[Tensor]
    pull: Pull | None
    outputs: list[tuple[Tensor, Tensor]]
    linear: Tensor
    distortion: Tensor
    rate: Tensor
    choice: Tensor

    @property
    def symbols(self) -> list[Tensor]:
        """The symbols of the means and of every pass."""
        return [self.means, *self.details]

    @property
    def objective(self) -> Tensor:
        """D / lambda + R in bits, [B]."""
        return self.distortion + self.rate

    def detached(self) -> "State":
        """Return the same without graph."""

        def all_of(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.detach() for tensor in tensors]

        return replace(
            self,
            details=all_of(self.details),
            magnitudes=all_of(self.magnitudes),
            pull=None if self.pull is None else Pull(all_of(self.pull.moves), all_of(self.pull.prices)),
            outputs=[(flags.detach(), scales.detach()) for flags, scales in self.outputs],
            linear=self.linear.detach(),
            choice=self.choice.detach(),
        )


AMPLE = 0.7
"""The share of a bound up to which errors are well."""


def adapt_latents(
    model: LatentModel,
    values: Tensor,
    grid: Grid,
    *,
    steps: int,
    trade_off: float | None = None,
    bound: float | None = None,
) -> State:
    """Adapt integer latents to a batch of signals; return the best state met, per signal.

    values: [B, C, *grid.shape] in [0, 1].
    steps: gradient steps after the first, each followed by new decisions.
    trade_off: lambda; the one the quantization step is made for unless given.
    bound: on errors of values, beyond which a residual corrects them at some cost: what the first decisions leave
        beyond most of it counts twice in all others.
    """
    task = Task.of(model, values, grid, trade_off)
    state = first_state(model, task)
    if bound is None:
        return best_state(model, task, state, range(steps))
    with torch.no_grad():
        errors = values - model.values(state.linear, grid)
        beyond = errors - errors.clamp(-AMPLE * bound, AMPLE * bound)
    task = Task.of(model, values + beyond, grid, trade_off)
    if not steps:
        return first_state(model, task)
    return best_state(model, task, next_state(model, task, state, 0), range(1, steps))


def best_state(model: LatentModel, task: Task, state: State, steps: Iterable[int]) -> State:
    """Return the best, per signal, of a state and those after each of some `steps`."""
    best = state
    for index in steps:
        state = next_state(model, task, state, index)
        best = _better(best, state)
    return best


def adapt_for_training(
    model: LatentModel, task: Task, *, start: int = 0, steps: int, temperature: float = TEMPERATURE
) -> State:
    """Take K steps with the graph kept, to be differentiated through (GradNCP algorithm 1, lines 5-9).

    start: steps before those, without graph. temperature: in bits, of the soft decisions whose gradients stand for
    those of the hard ones.
    """
    state = first_state(model, task, None if start else temperature)
    for index in range(start):
        state = next_state(model, task, state, index)
    for index in range(start, start + steps):
        state = next_state(model, task, state, index, temperature)
    return state


def first_state(model: LatentModel, task: Task, temperature: float | None = None) -> State:
    """Take the first gradient step from zero, and decide."""
    means = torch.round(task.means - model.field.predicted_means(model.step_index))
    return _decided(model, task, means, None, 0, temperature)


def next_state(model: LatentModel, task: Task, state: State, index: int, temperature: float | None = None) -> State:
    """Take step number `index`: gradients at the integer details, and new decisions.

    temperature: for a step that is differentiable in the state before and in all that is shared; the decisions are the
    same.
    """
    found = pull_at(model, task, state, graph=temperature is not None)
    with torch.set_grad_enabled(temperature is not None):
        averaging = model.step_sizes(index, task.means).averaging
        weights = [averaging[place.level] for place in model.field.places(task.grid)]

        def averaged(new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
            triples = zip(weights, new, old, strict=True)
            return [weight * each + (1 - weight) * before for weight, each, before in triples]

        if state.pull is not None:
            found = Pull(averaged(found.moves, state.pull.moves), averaged(found.prices, state.pull.prices))
    return _decided(model, task, state.means, found, index, temperature)


def pull_at(model: LatentModel, task: Task, state: State, graph: bool = False) -> Pull:
    """Return the pull at the details as they are, and where `graph`, keep its graph."""
    shifts: list[Tensor] = []
    number = -1
    distortion = rate = task.means.new_zeros(())

    def choose(place: Place, prediction: Tensor) -> Tensor:
        nonlocal number, distortion, rate
        _, flags, scales = next(passes)
        number += 1
        coded = state.details[number]
        error = task.targets[number] - prediction - coded
        distortion = distortion + error.square().sum() * (0.5 * task.curvature)
        rate = rate + Costs.of(flags, scales)(coded.detach().abs()).sum()
        # A tensor of its own, so that what a latent does to later predictions can be told from its own distortion.
        shifts.append(torch.zeros_like(coded).requires_grad_())
        return coded + shifts[-1]

    with torch.enable_grad():
        # Tensors of their own, so that what the rate owes to magnitudes that others see can be told apart.
        magnitudes = [
            level.clone().requires_grad_() if graph else level.detach().requires_grad_() for level in state.magnitudes
        ]
        passes = model.passes(task.grid, lambda: magnitudes[number], task.means)
        model.decode(state.means, task.grid, choose)
        # Nobody sees the last ones.
        slopes = torch.autograd.grad(
            distortion + rate, [*shifts, *magnitudes], create_graph=graph, materialize_grads=True
        )
    moves = [slope * (-1 / task.curvature) for slope in slopes[: len(shifts)]]
    # The logarithm rises by 2^-e per unit.
    prices = [slope * _unit(level) for slope, level in zip(slopes[len(shifts) :], magnitudes, strict=True)]
    return Pull(moves, prices)


def best_variant(
    model_of: Callable[[int], LatentModel], candidates: Sequence[int], values: Tensor, grid: Grid, trade_off: float
) -> int:
    """Return the variant of a field whose first decisions have the lowest mean objective.

    model_of: makes the model of a variant. candidates: of `LatentField.candidates`. Others as for `adapt_latents`.
    """
    if len(candidates) == 1:
        return candidates[0]

    def mean_objective(variant: int) -> float:
        model = model_of(variant)
        return float(first_state(model, Task.of(model, values, grid, trade_off)).objective.mean())

    return min(candidates, key=mean_objective)


def _decided(
    model: LatentModel,
    task: Task,
    means: Tensor,
    pull: Pull | None,
    index: int,
    temperature: float | None,
) -> State:
    """Decide every symbol: the cheapest of its candidates in distortion, own bits and what it makes others cost."""
    details: list[Tensor] = []
    magnitudes: list[Tensor] = []
    outputs: list[tuple[Tensor, Tensor]] = []
    passes = model.passes(task.grid, lambda: magnitudes[-1], task.means)
    sizes = model.step_sizes(index, task.means)
    rate, choice, error = task.nothing, task.nothing, task.nothing

    def choose(place: Place, prediction: Tensor) -> Tensor:
        nonlocal choice, rate, error
        _, flags, scales = next(passes)
        costs = Costs.of(flags, scales)
        number = len(details)
        target = task.targets[number] - prediction
        wanted, price = target, None
        if pull is not None:
            wanted = target + (sizes.move[place.level] * pull.moves[number]).clamp(-REACH, REACH)
            price = sizes.price[place.level] * pull.prices[number]
        decided, bits = decide(wanted.abs(), price, costs, task.curvature, temperature)
        # Of 0, too, the sign must be one: where a zero is dear, it becomes a 1.
        symbols = torch.where(wanted.detach() < 0, -decided, decided)
        with torch.no_grad():
            rate = rate + costs(decided).flatten(1).sum(1)
            error = error + (target - symbols).square().flatten(1).sum(1)
        if bits is not None:
            choice = choice + bits
        magnitudes.append(decided)
        details.append(symbols)
        outputs.append((flags, scales))
        return details[-1]

    with torch.set_grad_enabled(temperature is not None):
        linear = model.decode(means, task.grid, choose)
    distortion = error * (0.5 * task.curvature)
    return State(means, details, magnitudes, pull, outputs, linear, distortion, rate, choice)


def _better(best: State, state: State) -> State:
    """Return, per signal, the state of the lower objective, without its pull."""
    lower = state.objective < best.objective
    if bool(lower.all()):
        return state
    if not bool(lower.any()):
        return best

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(lower.reshape(-1, *[1] * (new.dim() - 1)), new, old)

    def all_chosen(new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
        return [chosen(*pair) for pair in zip(new, old, strict=True)]

    return State(
        means=state.means,
        details=all_chosen(state.details, best.details),
        magnitudes=all_chosen(state.magnitudes, best.magnitudes),
        pull=None,
        outputs=[
            (chosen(new[0], old[0]), chosen(new[1], old[1]))
            for new, old in zip(state.outputs, best.outputs, strict=True)
        ],
        linear=chosen(state.linear, best.linear),
        distortion=chosen(state.distortion, best.distortion),
        rate=chosen(state.rate, best.rate),
        choice=state.choice,
    )


def _unit(magnitudes: Tensor) -> Tensor:
    """Return how much a magnitude grows while its pseudo-logarithm grows by one."""
    _, exponent = torch.frexp(magnitudes.detach() + 1)
    return torch.exp2(exponent.to(magnitudes.dtype) - 1)
