"""The inner loop of a latent pyramid: integer latents that minimize distortion plus lambda times rate.

theta_0 is zero. A first gradient step from there, with the step size 1 / diag(J^T J), is the analysis transform; its
result is rounded in rate-distortion sense, pass by pass in coding order, each symbol knowing what it costs in the
context decided before it. What a decision costs the symbols *after* it, and what the restoring network makes of it,
the following steps learn from gradients at the integer latents: of the distortion, which moves the targets that are
rounded, and of the rate through the contexts, which prices every magnitude. Then all symbols are decided anew.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from inrcodec.meta.adaptation import Rescaling
from inrcodec.meta.decisions import decide
from inrcodec.meta.latent_gradients import Gradients, State, Training, gradients_at
from inrcodec.meta.latent_objective import Pyramid, Task, objective
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid
from inrcodec.models.order import Place

REACH = 0.5
"""Quantization steps a target may get away from the analysis: the restoring network's slope is steep in places."""


def adapt_latents(
    pyramid: Pyramid,
    values: Tensor,
    grid: Grid,
    step: Tensor,
    *,
    steps: int,
    trade_off: Tensor | None = None,
    rescaling: Rescaling = "exact",
) -> list[Tensor]:
    """Integer latents of a batch of signals.

    values: [B, C, *grid.shape] in [0, 1]. step: [B] float, whole indices of the quantization step.
    steps: gradient steps after the first, each followed by new decisions.
    trade_off: [B] lambda; the one the step is made for unless given.
    rescaling: of moves for which the step sizes were learned on a pruned context; see `inrcodec.meta.adaptation.adapt`.
    Returns the symbols of every level, finest first, and of the coarsest means, as `LatentTransform.latent_shapes`.
    """
    task = Task.of(pyramid, values, grid, step, trade_off)
    state = first_state(pyramid, task)
    return state.symbols if steps == 0 else best_symbols(pyramid, task, state, range(steps), rescaling)


def best_symbols(
    pyramid: Pyramid, task: Task, state: State, steps: Iterable[int], rescaling: Rescaling = "exact"
) -> list[Tensor]:
    """The symbols of the lowest objective, per signal, of a state and those after each of some `steps`."""
    best, lowest = state.symbols, torch.full_like(task.step, torch.inf)
    for index in steps:
        symbols = state.symbols
        state, reached = next_state(pyramid, task, state, index, rescaling=rescaling)
        best, lowest = _better(task, best, lowest, symbols, reached)
    return _better(task, best, lowest, state.symbols, objective(pyramid, task, state.symbols))[0]


def adapt_for_training(
    pyramid: Pyramid, task: Task, *, start: int = 0, steps: int | None = None, training: Training | None = None
) -> State:
    """K pruned steps with the graph kept, to be differentiated through (GradNCP algorithm 1, lines 5-9).

    start, steps: others than the first K: those before `start` are on the full context and without graph.
    """
    training = training or Training()
    state = first_state(pyramid, task, training if start == 0 else None)
    for index in range(start):
        state, _ = next_state(pyramid, task, state, index)
    for index in range(start, start + (pyramid.adaptation.steps if steps is None else steps)):
        state, _ = next_state(pyramid, task, state, index, training)
    return state


def first_state(pyramid: Pyramid, task: Task, training: Training | None = None) -> State:
    """The first gradient step from zero, and its decisions."""
    scale = task.spread(torch.exp2(task.step / STEPS_PER_OCTAVE))
    with torch.no_grad():
        *targets, means = [latents / scale for latents in pyramid.field.analyse(task.values, task.grid)]
    prices = [torch.zeros_like(target) for target in targets]
    means = torch.round(means - pyramid.field.expected_means(task.step))
    return _decided(pyramid, task, targets, targets, prices, means, 0, training)


def next_state(
    pyramid: Pyramid,
    task: Task,
    state: State,
    index: int,
    training: Training | None = None,
    rescaling: Rescaling = "exact",
) -> tuple[State, Tensor]:
    """Step number `index`: gradients at the integer details, new targets and prices, new decisions.

    training: for steps that are differentiable in the state before and in all that is shared, on the pruned context;
        the decisions are the same. Without, the step has no graph and sees the full context, with moves rescaled.
    Returns the new state, and the objective of the one before in bits, [B], without graph.
    """
    gradients = gradients_at(pyramid, task, state, training, rescaling)
    with torch.set_grad_enabled(training is not None):
        targets, prices = _moved(pyramid, task, state, gradients, index)
    decided = _decided(pyramid, task, targets, state.analysis, prices, state.means, index, training)
    return decided, (gradients.distortion + gradients.rate).detach()


def _moved(
    pyramid: Pyramid, task: Task, state: State, gradients: Gradients, index: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Targets and prices after step number `index`."""
    sizes = pyramid.step_sizes(index, task.step)
    targets = [
        analysis + (target + size * move - analysis).clamp(-REACH, REACH)
        for target, analysis, size, move in zip(state.targets, state.analysis, sizes.move, gradients.moves, strict=True)
    ]
    prices = [
        weight * price + (1 - weight) * old
        for price, old, weight in zip(gradients.prices, state.prices, sizes.averaging, strict=True)
    ]
    return targets, prices


def best_variant(pyramid: Pyramid, values: Tensor, grid: Grid, step: Tensor, trade_off: Tensor) -> int:
    """The variant of the field whose first decisions have the lowest mean objective; arguments as `adapt_latents`."""
    if pyramid.field.variants == 1:
        return 0
    objectives = []
    for index in range(pyramid.field.variants):
        varied = replace(pyramid, field=pyramid.field.variant(index))
        task = Task.of(varied, values, grid, step, trade_off)
        objectives.append(float(objective(varied, task, first_state(varied, task).symbols).mean()))
    return objectives.index(min(objectives))


def _better(
    task: Task, best: list[Tensor], lowest: Tensor, symbols: list[Tensor], reached: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Per signal, the symbols of the lower objective."""
    better = reached < lowest
    chosen = [torch.where(task.spread(better), new, old) for new, old in zip(symbols, best, strict=True)]
    return chosen, torch.where(better, reached, lowest)


def _decided(
    pyramid: Pyramid,
    task: Task,
    targets: list[Tensor],
    analysis: list[Tensor],
    prices: list[Tensor],
    means: Tensor,
    index: int,
    training: Training | None,
) -> State:
    """Every symbol as the cheapest of its candidates: distortion, own bits in context, price as context of others."""
    details = [torch.zeros_like(target) for target in targets]
    magnitudes = [torch.zeros_like(target) for target in targets]
    passes = pyramid.costs(task.grid, task.step, magnitudes)
    shares = pyramid.step_sizes(index, task.step).price
    curvature = task.spread(task.curvature)
    choice = torch.zeros_like(task.step)

    def choose(place: Place, expected: Tensor) -> Tensor:
        nonlocal choice
        _, costs = next(passes)
        target = targets[place.level][place.index] - expected
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
        pyramid.field.latents(pyramid.shared, means, task.grid, task.step, choose)
    return State(targets, analysis, prices, details, magnitudes, choice, means)
