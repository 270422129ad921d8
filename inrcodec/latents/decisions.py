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
    wanted: Tensor, price: Tensor, costs: Costs, curvature: Tensor, temperature: float | None
) -> tuple[Tensor, Tensor]:
    """Return the magnitudes of the symbols, and a zero whose gradient is that of their bits.

    wanted: magnitudes that are not rounded. price: what the magnitude makes others cost, in bits per unit of its
        pseudo-logarithm.
    costs: own bits. curvature: of the distortion in bits. All broadcast to `wanted`, [B, ...].
    temperature: of soft decisions in bits; None for none.
    Returns (magnitudes, choice): choice is [B].
    """
    down = torch.floor(wanted.detach())
    best = torch.zeros_like(down)
    lowest = 0.5 * curvature * wanted.square() + costs.zero
    candidates, totals = [best], [lowest]
    for candidate in (down, down + 1):
        total = 0.5 * curvature * (candidate - wanted).square() + costs.one + (candidate - 1) * costs.more
        total = (total + price * torch.log2(1 + candidate)).masked_fill(candidate == 0, torch.inf)
        better = total < lowest
        best, lowest = torch.where(better, candidate, best), torch.where(better, total, lowest)
        candidates.append(candidate)
        totals.append(total)
    if temperature is None:
        return best, wanted.new_zeros(len(wanted))
    probabilities = torch.softmax(torch.stack(totals) * (-math.log(2) / temperature), 0)
    change = probabilities - probabilities.detach()
    bits = torch.stack([costs(candidate) for candidate in candidates]).detach()
    choice = (change * bits).sum(0).flatten(1).sum(1)
    return best + (change * torch.stack(candidates)).sum(0), choice
