"""The inner loop of a latent pyramid: integer latents that minimize distortion plus lambda times rate.

theta_0 is zero. A first gradient step from there, with the step size 1 / diag(J^T J), is the analysis transform; its
result is rounded in rate-distortion sense, pass by pass in coding order, each symbol knowing what it costs in the
context decided before it. What a decision costs the symbols *after* it, and what the restoring network makes of it,
the following steps learn from gradients at the integer latents: of the distortion, which moves the targets that are
rounded, and of the rate through the contexts, which prices every magnitude. Then all symbols are decided anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrcodec.coding.context_model import ContextModel, cost
from inrcodec.models import Parameters
from inrcodec.models.pyramid import STEPS_PER_OCTAVE, Grid, LatentPyramid, condition_of

CURVATURE = 11.1
"""Second derivative of the distortion in bits with respect to a symbol, which ties the trade-off to the step."""

PRICE = 0.7
"""Share of the contexts' price that is charged: symbols are decided at once, as if the others stayed."""

AVERAGING = 0.5
"""Weight of earlier steps' prices and targets; without it simultaneous decisions oscillate."""


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

    field: LatentPyramid
    shared: Parameters
    contexts: ContextModel
    weights: Parameters

    def values(self, symbols: Sequence[Tensor], grid: Grid, step: Tensor) -> Tensor:
        """Field values [B, C, *grid] for symbols (float) and indices of the quantization step [B]."""
        return self.field.values(self.shared, self.field.maps(self.shared, symbols, grid, step), step)

    def bits(self, symbols: Sequence[Tensor], grid: Grid, step: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """Bits of the details of every signal, [B], with contexts of the magnitudes `contexts`."""
        condition = condition_of(step)
        total = torch.zeros_like(step)
        levels = self.field.levels_of(grid)
        for place, flags, scales in self.contexts.passes(self.weights, contexts, levels, condition):
            magnitudes = symbols[place.level][place.index].detach().abs()
            total = total + cost(magnitudes, flags, scales).flatten(1).sum(1)
        return total


def adapt_latents(
    pyramid: Pyramid, values: Tensor, grid: Grid, step: Tensor, *, steps: int, trade_off: Tensor | None = None
) -> list[Tensor]:
    """Integer latents of a batch of signals.

    values: [B, C, *grid.shape] in [0, 1]. step: [B] float, whole indices of the quantization step.
    steps: gradient steps after the first, each followed by new decisions.
    trade_off: [B] lambda; the one the step is made for unless given.
    Returns the symbols of every level, finest first, and of the coarsest means, as `LatentPyramid.latent_shapes`.
    """
    spread = (-1, *[1] * (values.dim() - 1))
    scale = torch.exp2(step / STEPS_PER_OCTAVE).reshape(spread)
    curvature = torch.full_like(step, CURVATURE)
    if trade_off is not None:
        curvature = 2 * torch.exp2(2 * step / STEPS_PER_OCTAVE) / (pyramid.field.out_features * trade_off)
    curvature = curvature.reshape(spread)
    with torch.no_grad():
        targets = [latents / scale for latents in pyramid.field.analyse(values, grid)]
    means = torch.round(targets[-1])
    prices = [torch.zeros_like(target) for target in targets[:-1]]
    symbols = [*_decide(pyramid, targets, prices, grid, step, curvature), means]
    for _ in range(steps):
        slopes, fresh = _gradients(pyramid, symbols, values, grid, step, curvature)
        for level, (slope, price) in enumerate(zip(slopes, fresh, strict=True)):
            target = symbols[level] - slope / curvature
            targets[level] = AVERAGING * targets[level] + (1 - AVERAGING) * target
            prices[level] = AVERAGING * prices[level] + (1 - AVERAGING) * price
        symbols = [*_decide(pyramid, targets, prices, grid, step, curvature), means]
    return symbols


def _gradients(
    pyramid: Pyramid, symbols: Sequence[Tensor], values: Tensor, grid: Grid, step: Tensor, curvature: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Of the distortion in bits with respect to the details, and of the rate with respect to the pseudo-logarithm of
    their magnitudes as others' context."""
    details = [level.detach().requires_grad_() for level in symbols[:-1]]
    with torch.enable_grad():
        error = (pyramid.values([*details, symbols[-1]], grid, step) - values).square().flatten(1).sum(1)
        scale = torch.exp2(2 * step / STEPS_PER_OCTAVE)
        distortion = error * curvature.flatten() / (2 * scale)
        slopes = torch.autograd.grad(distortion.sum(), details)
        magnitudes = [level.detach().abs().requires_grad_() for level in symbols[:-1]]
        rate = pyramid.bits(symbols, grid, step, magnitudes)
        prices = torch.autograd.grad(rate.sum(), magnitudes)
    # d/dm of a logarithm that rises by 2^-e per unit
    return list(slopes), [price * _unit(level) for price, level in zip(prices, magnitudes, strict=True)]


@torch.no_grad()
def _decide(
    pyramid: Pyramid,
    targets: Sequence[Tensor],
    prices: Sequence[Tensor],
    grid: Grid,
    step: Tensor,
    curvature: Tensor,
) -> list[Tensor]:
    """Every symbol as the cheapest of its candidates: distortion, own bits in context, price as context of others."""
    symbols = [torch.zeros_like(target) for target in targets[:-1]]
    magnitudes = [torch.zeros_like(target) for target in targets[:-1]]
    condition = condition_of(step)
    levels = pyramid.field.levels_of(grid)
    for place, flags, scales in pyramid.contexts.passes(pyramid.weights, magnitudes, levels, condition):
        target = targets[place.level][place.index]
        price = PRICE * prices[place.level][place.index]
        wanted = target.abs()
        nearest = torch.floor(wanted)
        best = lowest = torch.zeros(())
        # Rounding down, up and one further down; and zero.
        for number, candidate in enumerate(
            (nearest, nearest + 1, (nearest - 1).clamp_min(0), torch.zeros_like(wanted))
        ):
            total = 0.5 * curvature * (candidate - wanted).square() + cost(candidate, flags, scales)
            total += price * torch.log2(1 + candidate)
            if number == 0:
                best, lowest = candidate, total
                continue
            better = total < lowest
            best, lowest = torch.where(better, candidate, best), torch.where(better, total, lowest)
        magnitudes[place.level][place.index] = best
        symbols[place.level][place.index] = torch.copysign(best, target) + 0.0
    return symbols


def _unit(magnitudes: Tensor) -> Tensor:
    """How much a magnitude grows while its pseudo-logarithm grows by one."""
    _, exponent = torch.frexp(magnitudes.detach() + 1)
    return torch.exp2(exponent.to(magnitudes.dtype) - 1)
