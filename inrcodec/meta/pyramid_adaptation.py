"""The inner loop of a latent pyramid: integer latents that minimize distortion plus lambda times rate.

theta_0 is zero. A first gradient step from there, with the step size 1 / diag(J^T J), is the analysis transform; its
result is rounded in rate-distortion sense, pass by pass in coding order, each symbol knowing what it costs in the
context decided before it. What a decision costs the symbols *after* it, and what the restoring network makes of it,
the following steps learn from gradients at the integer latents: of the distortion, which moves the targets that are
rounded, and of the rate through the contexts, which prices every magnitude. Then all symbols are decided anew.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrcodec.coding.context_model import ContextModel, Costs
from inrcodec.models import Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, LatentField, condition_of
from inrcodec.models.order import Place

CURVATURE = 14.4
"""Second derivative of the distortion in bits with respect to a symbol, which ties the trade-off to the step."""

PRICE = 0.7
"""Share of the contexts' price that is charged: symbols are decided at once, as if the others stayed."""

AVERAGING = 0.5
"""Weight of a step's prices against those before; without it simultaneous decisions oscillate."""

MOVE = 0.15
"""Share of a target's way to where the gradient sends it."""

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
    """

    field: LatentField
    shared: Parameters
    contexts: ContextModel
    weights: Parameters

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


def adapt_latents(
    pyramid: Pyramid, values: Tensor, grid: Grid, step: Tensor, *, steps: int, trade_off: Tensor | None = None
) -> list[Tensor]:
    """Integer latents of a batch of signals.

    values: [B, C, *grid.shape] in [0, 1]. step: [B] float, whole indices of the quantization step.
    steps: gradient steps after the first, each followed by new decisions.
    trade_off: [B] lambda; the one the step is made for unless given.
    Returns the symbols of every level, finest first, and of the coarsest means, as `LatentField.latent_shapes`.
    """
    spread = (-1, *[1] * (1 + len(pyramid.field.levels)))
    scale = torch.exp2(step / STEPS_PER_OCTAVE).reshape(spread)
    curvature = torch.full_like(step, CURVATURE)
    if trade_off is not None:
        curvature = 2 * torch.exp2(2 * step / STEPS_PER_OCTAVE) / (pyramid.field.out_features * trade_off)
    curvature = curvature.reshape(spread)
    with torch.no_grad():
        targets = [latents / scale for latents in pyramid.field.analyse(values, grid)]
    analysis = targets[:-1]
    means = torch.round(targets.pop())
    prices = [torch.zeros_like(target) for target in targets]
    symbols = _decide(pyramid, targets, prices, means, grid, step, curvature)
    if steps == 0:
        return symbols
    best, lowest = symbols, torch.full_like(step, torch.inf)
    for _ in range(steps):
        decoded, slopes, fresh, objective = _gradients(pyramid, symbols, values, grid, step, curvature)
        best, lowest = _better(best, lowest, symbols, objective)
        for level, (slope, price) in enumerate(zip(slopes, fresh, strict=True)):
            move = MOVE * (decoded[level] - slope / curvature - targets[level])
            targets[level] = analysis[level] + (targets[level] + move - analysis[level]).clamp(-REACH, REACH)
            prices[level] = AVERAGING * price + (1 - AVERAGING) * prices[level]
        symbols = _decide(pyramid, targets, prices, means, grid, step, curvature)
    with torch.no_grad():
        decoded = pyramid.field.decoded(pyramid.shared, symbols, grid, step)
        objective = _objective(pyramid, symbols, decoded, values, grid, step, curvature, _magnitudes(symbols))
    return _better(best, lowest, symbols, objective)[0]


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


def _objective(
    pyramid: Pyramid,
    symbols: Sequence[Tensor],
    latents: Sequence[Tensor],
    values: Tensor,
    grid: Grid,
    step: Tensor,
    curvature: Tensor,
    contexts: Sequence[Tensor],
) -> Tensor:
    """Distortion of `latents` in bits plus the rate of the details, per signal: [B]."""
    error = (pyramid.values_of(latents, grid, step) - values).square().flatten(1).sum(1)
    distortion = error * curvature.flatten() / (2 * torch.exp2(2 * step / STEPS_PER_OCTAVE))
    return distortion + pyramid.bits(symbols, grid, step, contexts)


def _gradients(
    pyramid: Pyramid, symbols: Sequence[Tensor], values: Tensor, grid: Grid, step: Tensor, curvature: Tensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """Decoded latents; gradients of the distortion in bits with respect to the details, and of the rate with respect
    to the pseudo-logarithm of their magnitudes as others' context; and the objective itself, [B]."""
    details = [level.detach().requires_grad_() for level in symbols[:-1]]
    magnitudes = [level.requires_grad_() for level in _magnitudes(symbols)]
    with torch.enable_grad():
        latents = pyramid.field.decoded(pyramid.shared, [*details, symbols[-1]], grid, step)
        objective = _objective(pyramid, symbols, latents, values, grid, step, curvature, magnitudes)
        gradients = torch.autograd.grad(objective.sum(), [*details, *magnitudes])
    slopes, prices = gradients[: len(details)], gradients[len(details) :]
    # The logarithm rises by 2^-e per unit.
    priced = [price * _unit(level) for price, level in zip(prices, magnitudes, strict=True)]
    return [level.detach() for level in latents], list(slopes), priced, objective.detach()


@torch.no_grad()
def _decide(
    pyramid: Pyramid,
    targets: Sequence[Tensor],
    prices: Sequence[Tensor],
    means: Tensor,
    grid: Grid,
    step: Tensor,
    curvature: Tensor,
) -> list[Tensor]:
    """Every symbol as the cheapest of its candidates: distortion, own bits in context, price as context of others.

    Returns the symbols of every level and the means.
    """
    symbols = [torch.zeros_like(target) for target in targets]
    magnitudes = [torch.zeros_like(target) for target in targets]
    passes = pyramid.costs(grid, step, magnitudes)

    def choose(place: Place, expected: Tensor) -> Tensor:
        _, costs = next(passes)
        target = targets[place.level][place.index] - expected
        price = PRICE * prices[place.level][place.index]
        wanted = target.abs()
        down = torch.floor(wanted)
        best, lowest = torch.zeros_like(wanted), 0.5 * curvature * wanted.square() + costs.zero
        for candidate in (down, down + 1):
            total = 0.5 * curvature * (candidate - wanted).square() + costs.one + (candidate - 1) * costs.more
            total += price * torch.log2(1 + candidate)
            better = (total < lowest) & (candidate > 0)
            best, lowest = torch.where(better, candidate, best), torch.where(better, total, lowest)
        magnitudes[place.level][place.index] = best
        symbols[place.level][place.index] = torch.copysign(best, target) + 0.0
        return symbols[place.level][place.index]

    pyramid.field.latents(pyramid.shared, means, grid, step, choose)
    return [*symbols, means]


def _unit(magnitudes: Tensor) -> Tensor:
    """How much a magnitude grows while its pseudo-logarithm grows by one."""
    _, exponent = torch.frexp(magnitudes.detach() + 1)
    return torch.exp2(exponent.to(magnitudes.dtype) - 1)
