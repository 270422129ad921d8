"""Gradients of the objective at integer latents: where targets should move, and what contexts charge.

In training they are those of the pruned context and keep the graph; in encoding the full context is seen and moves are
rescaled to the length they would have on the pruned one (ECoP, GradNCP).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrcodec.meta.adaptation import SHARED, AdaptationConfig, Rescaling, gradient_norm
from inrcodec.meta.decisions import TEMPERATURE
from inrcodec.meta.latent_objective import Pyramid, Task
from inrcodec.models import Parameters


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


def gradients_at(
    pyramid: Pyramid, task: Task, state: State, training: Training | None, rescaling: Rescaling
) -> Gradients:
    """On the pruned context in training; else on the full one, with moves rescaled."""
    graph = training is not None
    field, shared = pyramid.field, pyramid.shared
    with torch.enable_grad():
        details = [_leaf(level) if not (graph and level.requires_grad) else level for level in state.details]
        # Tensors of their own, so that what the rate owes to the magnitudes as contexts can be told apart.
        magnitudes = [_leaf(level) if not graph else level.clone().requires_grad_() for level in state.magnitudes]
        latents = field.decoded(shared, [*details, state.means], task.grid, task.step)
        maps = field.maps(shared, latents, task.grid, task.step)
        kept = kept_samples(pyramid, task, maps, training.generator) if training else None
        error = _distortion(pyramid, task, maps, kept)
        rescaled = not graph and rescaling != "none" and rescales(pyramid.adaptation, pyramid.log_step_sizes)
        slopes = torch.autograd.grad(error.sum(), details, create_graph=graph, retain_graph=graph or rescaled)
        if rescaled:
            pruned = _distortion(pyramid, task, maps, kept_samples(pyramid, task, maps))
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


def _distortion(pyramid: Pyramid, task: Task, maps: Tensor, points: Tensor | None) -> Tensor:
    """In bits, [B], where the network restores at `points` [B, n] alone: elsewhere the field is linear."""
    if points is None:
        return task.distortion(pyramid.field.values(pyramid.shared, maps, task.grid, task.step))
    return task.distortion(pyramid.field.partly_restored(pyramid.shared, maps, task.grid, task.step, points))


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def kept_samples(pyramid: Pyramid, task: Task, maps: Tensor, generator: torch.Generator | None = None) -> Tensor | None:
    """The share gamma of the samples with the highest score, per signal: [B, n] indices; None for all of them."""
    config = pyramid.adaptation
    if config.score == "full" or config.gamma >= 1:
        return None
    samples = task.values[0, 0].numel()
    with torch.no_grad():
        if config.score == "random":
            score = torch.rand((len(task.values), samples), generator=generator).to(task.values)
        else:
            values = pyramid.field.values(pyramid.shared, maps, task.grid, task.step)
            score = (values - task.values).square().sum(1)
            if config.score == "grad-norm":
                score = score * (1 + pyramid.field.feature_energy(pyramid.shared, maps))
        return score.flatten(1).topk(max(1, round(config.gamma * samples)), 1, sorted=False).indices


def rescales(adaptation: AdaptationConfig, log_step_sizes: Parameters) -> bool:
    """Whether step sizes were learned for moves on the pruned context, to which those on the full one are rescaled."""
    return SHARED not in log_step_sizes and adaptation.score not in ("full", "random") and adaptation.gamma < 1


def _rescaling_factor(
    moves: Sequence[Tensor], pruned_moves: Sequence[Tensor], error: Tensor, pruned: Tensor, rescaling: Rescaling
) -> Tensor:
    """The factor [B] of eq. 4.

    What the step sizes multiply is the way of the targets to where the gradient sends them, so its norm is rescaled.
    """
    if rescaling == "loss-ratio":
        numerator, denominator = pruned.detach(), error.detach()
    else:
        numerator, denominator = gradient_norm(pruned_moves), gradient_norm(moves)
    return torch.where(denominator > 0, numerator / denominator, 1.0)  # where nothing moves, nothing is rescaled


def _unit(magnitudes: Tensor) -> Tensor:
    """How much a magnitude grows while its pseudo-logarithm grows by one."""
    _, exponent = torch.frexp(magnitudes.detach() + 1)
    return torch.exp2(exponent.to(magnitudes.dtype) - 1)
