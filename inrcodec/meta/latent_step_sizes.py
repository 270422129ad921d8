"""Step sizes of latents: how far a target moves and what share of a price is charged, per level and step.

An initialization that learned them has two tensors of logarithms, [rows, levels], finest level first; the last row
holds for all later steps. One that did not has the key `SHARED`, and the constants here.
"""

import math

import torch
from torch import Tensor

from inrcodec.errors import UsageError
from inrcodec.meta.adaptation import SHARED, StepSizeKind
from inrcodec.models import Parameters

MOVE = 0.15
"""Share of a target's way to where the gradient sends it."""

PRICE = 0.7
"""Share of the contexts' price that is charged: symbols are decided at once, as if the others stayed."""

NAMES = ("move", "price")


def initial_latent_step_sizes(kind: StepSizeKind, *, steps: int, depth: int) -> Parameters:
    """Logarithms of the step sizes, where their learning starts: the constants.

    kind: "none", not learned; "tensor": one per level; "tensor-step": one per level and step. depth: levels.
    Raises: UsageError for another kind.
    """
    if kind == "none":
        return {SHARED: torch.zeros(1)}
    if kind not in ("tensor", "tensor-step"):
        raise UsageError(f"latents have no step size per {kind}: learn one per tensor (level) or tensor-step")
    rows = steps if kind == "tensor-step" else 1
    return {name: torch.full((rows, depth), math.log(start)) for name, start in zip(NAMES, (MOVE, PRICE), strict=True)}


def latent_step_sizes(log_step_sizes: Parameters, step: int, depth: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(move, price) at `step`, [depth] each, of the type and device of `like` where they are constants."""
    if SHARED in log_step_sizes:
        return like.new_full((depth,), MOVE), like.new_full((depth,), PRICE)
    move, price = (log_step_sizes[name][min(step, len(log_step_sizes[name]) - 1)].exp() for name in NAMES)
    return move, price
