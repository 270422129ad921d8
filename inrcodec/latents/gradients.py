"""Gradients of the objective at integer latents: where targets should move, and the price of being seen by others.

In training they are those of the pruned context set and keep the graph; in encoding the full context set is seen and
moves are rescaled to the length they would have on the pruned one (ECoP, GradNCP).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrcodec.adaptation import gradient_norm, random_scores, rescaling_factor, top_share
from inrcodec.latents.decisions import TEMPERATURE
from inrcodec.latents.model import LatentModel, rescales
from inrcodec.latents.objective import Task
from inrcodec.settings import Rescaling


@dataclass(frozen=True, eq=False)
class State:
    """Latents between two steps. Lists have one tensor [B, C * bands, *half] per level, finest first.

    targets: what the details are rounded from. analysis: the targets of the first decisions.
    prices: what a magnitude makes other symbols cost, in bits per unit of its pseudo-logarithm.
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
        """The symbols of every level, finest first, and of the means."""
        return [*self.details, self.means]

    def detached(self) -> "State":
        """Return the same without graph."""
        targets, analysis, prices, details, magnitudes = (
            [level.detach() for level in levels]
            for levels in (self.targets, self.analysis, self.prices, self.details, self.magnitudes)
        )
        return State(targets, analysis, prices, details, magnitudes, self.choice.detach(), self.means)


@dataclass(frozen=True, eq=False)
class Training:
    """Settings that make steps differentiable, and see the pruned context set.

    temperature: in bits, of the soft decisions whose gradients stand for those of the hard ones.
    generator: of the score "random".
    """

    temperature: float = TEMPERATURE
    generator: torch.Generator | None = None


@dataclass(frozen=True, eq=False)
class Gradients:
    """The outcome of the gradients at the integer details.

    moves: the way of the targets to where the distortion's gradient sends them. prices: as of `State`, for the details
    as they are. distortion, rate: in bits, [B].
    """

    moves: list[Tensor]
    prices: list[Tensor]
    distortion: Tensor
    rate: Tensor


def gradients_at(
    model: LatentModel, task: Task, state: State, training: Training | None, rescaling: Rescaling
) -> Gradients:
    """Compute gradients on the pruned context set in training; else on the full one, with moves rescaled."""
    graph = training is not None
    field, shared = model.field, model.shared
    with torch.enable_grad():
        details = [_leaf(level) if not (graph and level.requires_grad) else level for level in state.details]
        # Tensors of their own, so that what the rate owes to magnitudes that others see can be told apart.
        magnitudes = [_leaf(level) if not graph else level.clone().requires_grad_() for level in state.magnitudes]
        latents = field.decoded(shared, [*details, state.means], task.grid, task.step_index)
        maps = field.maps(shared, latents, task.grid, task.step_index)
        kept = kept_samples(model, task, maps, training.generator) if training else None
        error = _distortion(model, task, maps, kept)
        rescaled = not graph and rescaling != "none" and rescales(model.adaptation, model.log_step_sizes)
        slopes = torch.autograd.grad(error.sum(), details, create_graph=graph, retain_graph=graph or rescaled)
        if rescaled:
            pruned = _distortion(model, task, maps, kept_samples(model, task, maps))
            pruned_slopes = torch.autograd.grad(pruned.sum(), details)
        bits = model.bits(state.symbols, task.grid, task.step_index, magnitudes)
        slopes_of_rate = torch.autograd.grad(bits.sum(), magnitudes, create_graph=graph)
    if not graph:
        latents = [level.detach() for level in latents]

    def moves(slopes: Sequence[Tensor]) -> list[Tensor]:
        pairs = zip(latents[:-1], slopes, state.targets, strict=True)
        return [decoded - slope / task.spread(task.curvature) - target for decoded, slope, target in pairs]

    ways = moves(slopes)
    if rescaled:
        # What the step sizes multiply is the way of the targets to where the gradient sends them: eq. 4 is of its norm.
        factor = (
            rescaling_factor(pruned.detach(), error.detach())
            if rescaling == "loss-ratio"
            else rescaling_factor(gradient_norm(moves(pruned_slopes)), gradient_norm(ways))
        )
        ways = [way * task.spread(factor) for way in ways]
    # The logarithm rises by 2^-e per unit.
    prices = [slope * _unit(level) for slope, level in zip(slopes_of_rate, magnitudes, strict=True)]
    return Gradients(ways, prices, error, bits)


def _distortion(model: LatentModel, task: Task, maps: Tensor, points: Tensor | None) -> Tensor:
    """Return the distortion in bits, [B].

    The network restores at `points` [B, n] alone, if given; elsewhere the field is linear.
    """
    if points is None:
        return task.distortion(model.field.values(model.shared, maps, task.grid, task.step_index))
    return task.distortion(model.field.partly_restored(model.shared, maps, task.grid, task.step_index, points))


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def kept_samples(
    model: LatentModel, task: Task, maps: Tensor, generator: torch.Generator | None = None
) -> Tensor | None:
    """Return the share gamma of the samples with the highest score, per signal: [B, n] indices; None for all."""
    config = model.adaptation
    if config.score == "full" or config.gamma >= 1:
        return None
    if config.score == "random":
        scores = random_scores(len(task.values), task.values[0, 0].numel(), generator, task.values)
    else:
        with torch.no_grad():
            values = model.field.values(model.shared, maps, task.grid, task.step_index)
            scores = (values - task.values).square().sum(1)
            if config.score == "grad-norm":
                scores = scores * (1 + model.field.feature_energy(model.shared, maps))
    return top_share(scores.flatten(1), config.gamma)


def _unit(magnitudes: Tensor) -> Tensor:
    """Return how much a magnitude grows while its pseudo-logarithm grows by one."""
    _, exponent = torch.frexp(magnitudes.detach() + 1)
    return torch.exp2(exponent.to(magnitudes.dtype) - 1)
