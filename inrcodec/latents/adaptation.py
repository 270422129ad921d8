"""The inner loop of latent fields: integer latents that minimize distortion plus lambda times rate.

theta_0 is zero. A first gradient step from there, with the step size 1 / diag(J^T J), is the analysis transform; its
result is rounded in rate-distortion sense, pass by pass in coding order, each symbol knowing what it costs beside those
decided before it. What a decision costs the symbols *after* it, and what the restoring network makes of it,
the following steps learn from gradients at the integer latents: of the distortion, which moves the targets that are
rounded, and of the rate through the entropy model, which prices every magnitude. Then all symbols are decided anew.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from inrcodec.latents.decisions import decide
from inrcodec.latents.gradients import Gradients, State, Training, gradients_at
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, objective
from inrcodec.models.latent import Grid
from inrcodec.models.order import Place
from inrcodec.settings import Rescaling

REACH = 0.5
"""How far a target may get away from the analysis, in quantization steps: the restoring network can be steep."""


def adapt_latents(
    model: LatentModel,
    values: Tensor,
    grid: Grid,
    step_index: Tensor,
    *,
    steps: int,
    trade_off: Tensor | None = None,
    rescaling: Rescaling = "exact",
) -> list[Tensor]:
    """Adapt integer latents to a batch of signals.

    values: [B, C, *grid.shape] in [0, 1]. step_index: [B] float, whole.
    steps: gradient steps after the first, each followed by new decisions.
    trade_off: [B] lambda; the one the step is made for unless given.
    rescaling: of moves for which the step sizes were learned on a pruned context set; see
        `inrcodec.weights.adaptation.adapt`.
    Returns the symbols of every level, finest first, and of the coarsest means, as `LatentTransform.latent_shapes`.
    """
    task = Task.of(model, values, grid, step_index, trade_off)
    state = first_state(model, task)
    return state.symbols if steps == 0 else best_symbols(model, task, state, range(steps), rescaling)


def best_symbols(
    model: LatentModel, task: Task, state: State, steps: Iterable[int], rescaling: Rescaling = "exact"
) -> list[Tensor]:
    """Return the symbols of the lowest objective, per signal, of a state and those after each of some `steps`."""
    best, lowest = state.symbols, torch.full_like(task.step_index, torch.inf)
    for index in steps:
        symbols = state.symbols
        state, reached = next_state(model, task, state, index, rescaling=rescaling)
        best, lowest = _better(task, best, lowest, symbols, reached)
    return _better(task, best, lowest, state.symbols, objective(model, task, state.symbols))[0]


def adapt_for_training(
    model: LatentModel, task: Task, *, start: int = 0, steps: int | None = None, training: Training | None = None
) -> State:
    """Take K pruned steps with the graph kept, to be differentiated through (GradNCP algorithm 1, lines 5-9).

    start, steps: others than the first K: those before `start` are on the full context set and without graph.
    """
    training = training or Training()
    state = first_state(model, task, training if start == 0 else None)
    for index in range(start):
        state, _ = next_state(model, task, state, index)
    for index in range(start, start + (model.adaptation.steps if steps is None else steps)):
        state, _ = next_state(model, task, state, index, training)
    return state


def first_state(model: LatentModel, task: Task, training: Training | None = None) -> State:
    """Take the first gradient step from zero, and decide."""
    with torch.no_grad():
        *targets, means = [latents / task.scale for latents in model.field.analyse(task.values, task.grid)]
    prices = [torch.zeros_like(target) for target in targets]
    means = torch.round(means - model.field.predicted_means(task.step_index))
    return _decided(model, task, targets, targets, prices, means, 0, training)


def next_state(
    model: LatentModel,
    task: Task,
    state: State,
    index: int,
    training: Training | None = None,
    rescaling: Rescaling = "exact",
) -> tuple[State, Tensor]:
    """Take step number `index`: gradients at the integer details, new targets and prices, new decisions.

    training: for steps that are differentiable in the state before and in all that is shared, on the pruned context
        set; the decisions are the same. Without, the step has no graph and sees the full context set, with moves
        rescaled.
    Returns the new state, and the objective of the one before in bits, [B], without graph.
    """
    gradients = gradients_at(model, task, state, training, rescaling)
    with torch.set_grad_enabled(training is not None):
        targets, prices = _moved(model, task, state, gradients, index)
    decided = _decided(model, task, targets, state.analysis, prices, state.means, index, training)
    return decided, (gradients.distortion + gradients.rate).detach()


def _moved(
    model: LatentModel, task: Task, state: State, gradients: Gradients, index: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return targets and prices after step number `index`."""
    sizes = model.step_sizes(index, task.step_index)
    targets = [
        analysis + (target + size * move - analysis).clamp(-REACH, REACH)
        for target, analysis, size, move in zip(state.targets, state.analysis, sizes.move, gradients.moves, strict=True)
    ]
    prices = [
        weight * price + (1 - weight) * old
        for price, old, weight in zip(gradients.prices, state.prices, sizes.averaging, strict=True)
    ]
    return targets, prices


def best_variant(model: LatentModel, values: Tensor, grid: Grid, step_index: Tensor, trade_off: Tensor) -> int:
    """Return the variant of the field whose first decisions have the lowest mean objective.

    model: of variant 0. Other arguments as for `adapt_latents`.
    """
    field = model.field
    if field.variants == 1:
        return 0
    objectives = []
    for index in range(field.variants):
        varied = replace(model, field=field.transform(index))
        task = Task.of(varied, values, grid, step_index, trade_off)
        objectives.append(float(objective(varied, task, first_state(varied, task).symbols).mean()))
    return objectives.index(min(objectives))


def _better(
    task: Task, best: list[Tensor], lowest: Tensor, symbols: list[Tensor], reached: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Return, per signal, the symbols of the lower objective."""
    better = reached < lowest
    chosen = [torch.where(task.spread(better), new, old) for new, old in zip(symbols, best, strict=True)]
    return chosen, torch.where(better, reached, lowest)


def _decided(
    model: LatentModel,
    task: Task,
    targets: list[Tensor],
    analysis: list[Tensor],
    prices: list[Tensor],
    means: Tensor,
    index: int,
    training: Training | None,
) -> State:
    """Decide every symbol: the cheapest of its candidates in distortion, own bits and what it makes others cost."""
    details = [torch.zeros_like(target) for target in targets]
    magnitudes = [torch.zeros_like(target) for target in targets]
    passes = model.costs(task.grid, task.step_index, magnitudes)
    shares = model.step_sizes(index, task.step_index).price
    curvature = task.spread(task.curvature)
    choice = torch.zeros_like(task.step_index)

    def choose(place: Place, prediction: Tensor) -> Tensor:
        nonlocal choice
        _, costs = next(passes)
        target = targets[place.level][place.index] - prediction
        price = shares[place.level] * prices[place.level][place.index]
        decided, bits = decide(
            target.abs(), price, costs, curvature, None if training is None else training.temperature
        )
        choice = choice + bits
        magnitudes[place.level][place.index] = decided
        symbols = decided * torch.copysign(torch.ones_like(target), target.detach()) + 0.0  # no -0
        details[place.level][place.index] = symbols
        return symbols

    with torch.set_grad_enabled(training is not None):
        model.field.latents(model.shared, means, task.grid, task.step_index, choose)
    return State(targets, analysis, prices, details, magnitudes, choice, means)
