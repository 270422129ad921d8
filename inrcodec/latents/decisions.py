"""Decisions between integers: every symbol of a pass becomes the cheapest of its candidates.

In training they are differentiable straight through: the result is the decision, its gradient that of the mean over
the candidates when each is taken with a probability of 2^(-cost / temperature).
"""

import math

import torch
from torch import Tensor

from inrcodec.latents.costs import Costs

TEMPERATURE = 1.0
"""The temperature of the soft decisions behind the gradients of training, in bits."""


def decide(
    wanted: Tensor, price: Tensor | None, costs: Costs, curvature: float, temperature: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return the magnitudes of the symbols, and a zero whose gradient is that of their bits.

    wanted: magnitudes that are not rounded, [B, ...]. price: what the magnitude makes others cost, in bits per unit of
        its pseudo-logarithm; None for nothing.
    costs: own bits. curvature: of the distortion in bits.
    temperature: of soft decisions in bits; None for none.
    Returns (magnitudes, choice): choice is [B], or None without temperature.
    """
    down = torch.floor(wanted.detach())
    rest = wanted - down
    half = 0.5 * curvature
    zero = half * wanted.square() + costs.zero
    low = half * rest.square() + costs.one + (down - 1) * costs.more
    high = half * (1 - rest).square() + costs.one + down * costs.more
    if price is not None:
        low = low + price * torch.log2(1 + down)
        high = high + price * torch.log2(2 + down)
    low = low.masked_fill(down == 0, torch.inf)
    best = torch.where(low < zero, down, 0.0)
    best = torch.where(high < torch.minimum(low, zero), down + 1, best)
    if temperature is None:
        return best, None
    candidates = torch.stack([torch.zeros_like(down), down, down + 1])
    probabilities = torch.softmax(torch.stack([zero, low, high]) * (-math.log(2) / temperature), 0)
    change = probabilities - probabilities.detach()
    bits = costs(candidates).detach()
    choice = (change * bits).sum(0).flatten(1).sum(1)
    return best + (change * candidates).sum(0), choice
