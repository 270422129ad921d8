"""The parts that the adaptation of all fields has in common: its step sizes, pruning and rescaling.

The inner loops themselves are in `inrcodec.weights.adaptation` and `inrcodec.latents.adaptation`.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from inrcodec.models import Parameters

SHARED = "shared"
"""Key of a step size that all tensors share."""


def step_size(log_step_sizes: Parameters, name: str, step: int) -> Tensor:
    """Return alpha of the tensor `name` at `step`, broadcastable to the tensor; the last one for all later steps."""
    rows = log_step_sizes.get(name)
    if rows is None:
        rows = log_step_sizes[SHARED]
    return rows[min(step, len(rows) - 1)].exp()


def top_share(scores: Tensor, gamma: float) -> Tensor:
    """Return the indices of the share gamma of the points with the highest scores: [B, n] of [B, N], in no order."""
    return scores.topk(max(1, round(gamma * scores.shape[1])), dim=1, sorted=False).indices


def random_scores(batch: int, points: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Draw scores [B, N] that rank the points at random, on the device of `like`."""
    return torch.rand((batch, points), generator=generator).to(like)


def rescaling_factor(pruned: Tensor, full: Tensor) -> Tensor:
    """Return the factor [B] of GradNCP eq. 4, by which what the full context set says is rescaled.

    pruned, full: [B], the norms of the two gradients ("exact") or the two losses ("loss-ratio", ECoP appendix B.2).
    Where nothing moves, nothing is rescaled.
    """
    return torch.where(full > 0, pruned / full, 1.0)


def gradient_norm(slopes: Iterable[Tensor]) -> Tensor:
    """Return the norm over all tensors, one per signal: [B]."""
    return torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()
