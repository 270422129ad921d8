"""The inner loop of a latent pyramid: integer latents that minimize distortion plus lambda times rate.

theta_0 is zero. A first gradient step from there, with the step size 1 / diag(J^T J), is the analysis transform; its
result is rounded in rate-distortion sense, pass by pass in coding order, each symbol knowing what it costs in the
context decided before it. What a decision costs the symbols *after* it, and what the restoring network makes of it,
the following steps learn from gradients at the integer latents: of the distortion, which moves the targets that are
rounded, and of the rate through the contexts, which prices every magnitude. Then all symbols are decided anew.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Self

import torch
from torch import Tensor

from inrcodec.coding.context_model import ContextModel, Costs
from inrcodec.meta.adaptation import SHARED, AdaptationConfig, Rescaling
from inrcodec.meta.decisions import TEMPERATURE, decide
from inrcodec.meta.latent_step_sizes import StepSizes, latent_step_sizes
from inrcodec.models import Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, LatentField, condition_of
from inrcodec.models.order import Place

CURVATURE = 14.4
"""Second derivative of the distortion in bits with respect to a symbol, which ties the trade-off to the step."""

REACH = 0.5
"""Quantization steps a target may get away from the analysis: the restoring network's slope is steep in places."""


def trade_off_of_step(index: int, channels: int) -> float:
    """lambda of mean squared error + lambda * bits per sample for which a quantization step is made."""
    return float(2 * 4 ** (index / STEPS_PER_OCTAVE) / (CURVATURE * channels))


def step_of_trade_off(trade_off: float, channels: int) -> int:
    """The index of the quantization step for lambda."""
    return round(STEPS_PER_OCTAVE * math.log2(CURVATURE * channels * trade_off / 2) / 2)


@dataclass(frozen=True, eq=False)
class Pyramid:
    """A field with its shared parameters and its entropy model, float32 on one device.

    field: the configuration; shared: its constants; contexts: the entropy model's configuration and weights.
    log_step_sizes: see `inrcodec.meta.latent_step_sizes`. adaptation: the K steps they were learned for.
    """

    field: LatentField
    shared: Parameters
    contexts: ContextModel
    weights: Parameters
    log_step_sizes: Parameters = dataclass_field(default_factory=lambda: {SHARED: torch.zeros(1)})
    adaptation: AdaptationConfig = dataclass_field(
        default_factory=lambda: AdaptationConfig(steps=1, gamma=1.0, score="full")
    )

    def step_sizes(self, step: int, like: Tensor) -> StepSizes:
        """Of a step of the adaptation."""
        return latent_step_sizes(self.log_step_sizes, step, self.field.order.depth, like)

    def values(self, symbols: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """Field values [B, C, *grid] for symbols (float) and indices of the quantization step [B]."""
        return self.values_of(self.field.decoded(self.shared, symbols, grid, step), grid, step)

    def values_of(self, latents: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """Field values [B, C, *grid] for decoded latents, in units of the quantization step."""
        return self.field.values(self.shared, self.field.maps(self.shared, latents, grid, step), grid, step)

    def bits(self, symbols: Sequence[Tensor], grid: Grid, step: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """Bits of the details of every signal, [B], with contexts of the magnitudes `contexts`."""
        total = torch.zeros_like(step)
        for place, costs in self.costs(grid, step, contexts):
            magnitudes = symbols[place.level][place.index].detach().abs()
            total = total + costs(magnitudes).flatten(1).sum(1)
        return total

    def costs(self, grid: Grid, step: Tensor, contexts: Sequence[Tensor]) -> Iterator[tuple[Place, Costs]]:
        """What symbols cost, pass by pass; the magnitudes of a pass must be there when the next one is asked for."""
        levels = self.field.levels_of(grid)
        for place, flags, scales in self.contexts.passes(self.weights, contexts, levels, condition_of(step)):
            yield place, Costs.of(flags, scales)


@dataclass(frozen=True, eq=False)
class Task:
    """What latents are adapted to.

    values: [B, C, *grid.shape] in [0, 1]. step: [B] float, whole indices of the quantization step.
    curvature: [B], second derivative of the distortion in bits with respect to a symbol.
    axes: of the latents' plane.
    """

    values: Tensor
    grid: Grid
    step: Tensor
    curvature: Tensor
    axes: int

    @classmethod
    def of(cls, pyramid: Pyramid, values: Tensor, grid: Grid, step: Tensor, trade_off: Tensor | None = None) -> Self:
        """For lambda = `trade_off`, [B]; the one the step is made for unless given."""
        curvature = torch.full_like(step, CURVATURE)
        if trade_off is not None:
            curvature = 2 * torch.exp2(2 * step / STEPS_PER_OCTAVE) / (pyramid.field.out_features * trade_off)
        return cls(values, grid, step, curvature, len(pyramid.field.levels))

    def spread(self, numbers: Tensor) -> Tensor:
        """One number per signal, [B], as it broadcasts over latents."""
        return numbers.reshape(-1, *[1] * (1 + self.axes))


@dataclass(frozen=True, eq=False)
class State:
    """Latents between two steps. Lists have one tensor [B, C * bands, *half] per level, finest first.

    targets: what the details are rounded from. analysis: the targets of the first decisions.
    prices: of the rate through the contexts, in bits per unit of a magnitude's pseudo-logarithm.
    details: integers. magnitudes: their absolute values, a tensor of its own in which gradients pass zeros.
    choice: [B], zero; its gradient is that of the details' own bits with respect to all that they were decided from.
    means: [B, C, *coarsest] integers.
    """

    targets: list[Tensor]
    analysis: list[Tensor]
    prices: list[Tensor]
    details: list[Tensor]
    magnitudes: list[Tensor]
    choice: Tensor
    means: Tensor

    @property
    def symbols(self) -> list[Tensor]:
        return [*self.details, self.means]

    def detached(self) -> "State":
        """The same without graph."""
        targets, analysis, prices, details, magnitudes = (
            [level.detach() for level in levels]
            for levels in (self.targets, self.analysis, self.prices, self.details, self.magnitudes)
        )
        return State(targets, analysis, prices, details, magnitudes, self.choice.detach(), self.means)


@dataclass(frozen=True, eq=False)
class Training:
    """What makes steps differentiable, and see the pruned context.

    temperature: in bits, of the soft decisions whose gradients stand for those of the hard ones.
    generator: of the score "random".
    """

    temperature: float = TEMPERATURE
    generator: torch.Generator | None = None


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
    Returns the symbols of every level, finest first, and of the coarsest means, as `LatentField.latent_shapes`.
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
        state, objective = next_state(pyramid, task, state, index, rescaling=rescaling)
        best, lowest = _better(best, lowest, symbols, objective)
    with torch.no_grad():
        decoded = pyramid.field.decoded(pyramid.shared, state.symbols, task.grid, task.step)
        objective = distortion(pyramid, decoded, task) + pyramid.bits(
            state.symbols, task.grid, task.step, state.magnitudes
        )
    return _better(best, lowest, state.symbols, objective)[0]


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
    return _decided(pyramid, task, targets, targets, prices, torch.round(means), 0, training)


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
    gradients = _gradients(pyramid, task, state, training, rescaling)
    with torch.set_grad_enabled(training is not None):
        targets, prices = _moved(pyramid, task, state, gradients, index)
    decided = _decided(pyramid, task, targets, state.analysis, prices, state.means, index, training)
    return decided, (gradients.distortion + gradients.rate).detach()


def _moved(
    pyramid: Pyramid, task: Task, state: State, gradients: "Gradients", index: int
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
        symbols = adapt_latents(varied, values, grid, step, steps=0, trade_off=trade_off)
        with torch.no_grad():
            error = (varied.values(symbols, grid, step) - values).square().flatten(1).mean(1)
            rate = varied.bits(symbols, grid, step, _magnitudes(symbols)) / values[0, 0].numel()
        objectives.append(float((error / trade_off + rate).mean()))
    return objectives.index(min(objectives))


def _better(
    best: list[Tensor], lowest: Tensor, symbols: list[Tensor], objective: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Per signal, the symbols of the lower objective."""
    better = objective < lowest
    spread = better.reshape(-1, *[1] * (symbols[0].dim() - 1))
    chosen = [torch.where(spread, new, old) for new, old in zip(symbols, best, strict=True)]
    return chosen, torch.where(better, objective, lowest)


def _magnitudes(symbols: Sequence[Tensor]) -> list[Tensor]:
    return [level.detach().abs() for level in symbols[:-1]]


def distortion(pyramid: Pyramid, latents: Sequence[Tensor], task: Task, points: Tensor | None = None) -> Tensor:
    """Of decoded latents, in bits per signal: [B].

    points: [B, n], the only samples at which the network restores; at the others the field is linear.
    """
    maps = pyramid.field.maps(pyramid.shared, latents, task.grid, task.step)
    if points is None:
        values = pyramid.field.values(pyramid.shared, maps, task.grid, task.step)
    else:
        values = pyramid.field.partly_restored(pyramid.shared, maps, task.grid, task.step, points)
    error = (values - task.values).square().flatten(1).sum(1)
    return error * task.curvature / (2 * torch.exp2(2 * task.step / STEPS_PER_OCTAVE))


@dataclass(frozen=True, eq=False)
class Gradients:
    """What the gradients at the integer details say.

    moves: the way of the targets to where the distortion's gradient sends them. prices: what the contexts charge for
    the details. distortion, rate: in bits, [B].
    """

    moves: list[Tensor]
    prices: list[Tensor]
    distortion: Tensor
    rate: Tensor


def _gradients(
    pyramid: Pyramid, task: Task, state: State, training: Training | None, rescaling: Rescaling
) -> Gradients:
    """On the pruned context in training; else on the full one, with moves rescaled."""
    graph = training is not None
    with torch.enable_grad():
        details = [_leaf(level) if not (graph and level.requires_grad) else level for level in state.details]
        # Tensors of their own, so that what the rate owes to the magnitudes as contexts can be told apart.
        magnitudes = [_leaf(level) if not graph else level.clone().requires_grad_() for level in state.magnitudes]
        latents = pyramid.field.decoded(pyramid.shared, [*details, state.means], task.grid, task.step)
        points = kept_samples(pyramid, task, latents, training.generator) if training else None
        error = distortion(pyramid, latents, task, points)
        rescaled = not graph and rescaling != "none" and _rescales(pyramid)
        slopes = torch.autograd.grad(error.sum(), details, create_graph=graph, retain_graph=graph or rescaled)
        if rescaled:
            pruned = distortion(pyramid, latents, task, kept_samples(pyramid, task, latents))
            pruned_slopes = torch.autograd.grad(pruned.sum(), details)
        bits = pyramid.bits(state.symbols, task.grid, task.step, magnitudes)
        slopes_of_rate = torch.autograd.grad(bits.sum(), magnitudes, create_graph=graph)
    if not graph:
        latents = [level.detach() for level in latents]

    def moves(slopes: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(latents[:-1], slopes, state.targets, strict=True)
        return [decoded - slope / task.spread(task.curvature) - target for decoded, slope, target in pairs]

    ways = moves(slopes)
    if rescaled:
        factor = _rescaling_factor(ways, moves(pruned_slopes), error, pruned, rescaling)
        ways = [way * task.spread(factor) for way in ways]
    # The logarithm rises by 2^-e per unit.
    prices = [slope * _unit(level) for slope, level in zip(slopes_of_rate, magnitudes, strict=True)]
    return Gradients(ways, prices, error, bits)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def kept_samples(
    pyramid: Pyramid, task: Task, latents: Sequence[Tensor], generator: torch.Generator | None = None
) -> Tensor | None:
    """The share gamma of the samples with the highest score, per signal: [B, n] indices; None for all of them."""
    config = pyramid.adaptation
    if config.score == "full" or config.gamma >= 1:
        return None
    samples = task.values[0, 0].numel()
    with torch.no_grad():
        if config.score == "random":
            score = torch.rand((len(task.values), samples), generator=generator).to(task.values)
        else:
            maps = pyramid.field.maps(pyramid.shared, latents, task.grid, task.step)
            values = pyramid.field.values(pyramid.shared, maps, task.grid, task.step)
            score = (values - task.values).square().sum(1)
            if config.score == "grad-norm":
                score = score * (1 + pyramid.field.feature_energy(pyramid.shared, maps))
        return score.flatten(1).topk(max(1, round(config.gamma * samples)), 1, sorted=False).indices


def _rescales(pyramid: Pyramid) -> bool:
    """Whether step sizes were learned for moves on the pruned context, to which those on the full one are rescaled."""
    config = pyramid.adaptation
    return SHARED not in pyramid.log_step_sizes and config.score not in ("full", "random") and config.gamma < 1


def _rescaling_factor(
    moves: Sequence[Tensor], pruned_moves: Sequence[Tensor], error: Tensor, pruned: Tensor, rescaling: Rescaling
) -> Tensor:
    """The factor [B] of eq. 4.

    What the step sizes multiply is the way of the targets to where the gradient sends them, so its norm is rescaled.
    """
    if rescaling == "loss-ratio":
        numerator, denominator = pruned.detach(), error.detach()
    else:
        numerator, denominator = _norm(pruned_moves), _norm(moves)
    return torch.where(denominator > 0, numerator / denominator, 1.0)  # where nothing moves, nothing is rescaled


def _norm(moves: Sequence[Tensor]) -> Tensor:
    """Over all levels, one per signal: [B]."""
    return torch.stack([move.flatten(1).square().sum(1) for move in moves]).sum(0).sqrt()


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


def _unit(magnitudes: Tensor) -> Tensor:
    """How much a magnitude grows while its pseudo-logarithm grows by one."""
    _, exponent = torch.frexp(magnitudes.detach() + 1)
    return torch.exp2(exponent.to(magnitudes.dtype) - 1)
