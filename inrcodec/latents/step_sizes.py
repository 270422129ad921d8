"""Step sizes of latents, per level and step: how far targets move, and how prices are charged and averaged.

An initialization that learned them has a tensor of logarithms for each of `StepSizes`: [rows, levels], finest level
first, or [rows, 1] for all levels; the last row holds for all later steps. One that did not has the key `SHARED`, and
the constants here.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from inrcodec.adaptation import SHARED, step_size
from inrcodec.errors import UsageError
from inrcodec.models import Parameters
from inrcodec.models.latent import STEP_SIZES
from inrcodec.settings import StepSizeKind

MOVE = 0.15
"""Share of a target's way to where the gradient sends it."""

PRICE = 0.7
"""Share of the price that is charged: symbols are decided at once, as if the others stayed."""

AVERAGING = 0.5
"""Weight of a step's prices against those before; without it simultaneous decisions oscillate."""

HALVING = 2
"""Steps after which the moves and averaging of a decaying schedule are at half."""


class StepSizes(NamedTuple):
    """The step sizes of one step; one number per level, [levels]. See `MOVE`, `PRICE` and `AVERAGING`."""

    move: Tensor
    price: Tensor
    averaging: Tensor


assert StepSizes._fields == STEP_SIZES


def initial_latent_step_sizes(kind: StepSizeKind, *, steps: int, depth: int) -> Parameters:
    """Return logarithms of the step sizes where their learning starts: the constants, decaying where steps differ.

    With equal moves and averaging for ever, simultaneous decisions end in a cycle.
    kind: "none", not learned; "tensor": one per level; "tensor-step": one per level and step. depth: levels.
    Raises: UsageError for another kind.
    """
    if kind == "none":
        return {SHARED: torch.zeros(1)}
    if kind not in ("tensor", "tensor-step"):
        raise UsageError(f"latents have no step size per {kind}: learn one per tensor (level) or tensor-step")
    decay = 1 / (1 + torch.arange(steps if kind == "tensor-step" else 1) / HALVING)
    rows = StepSizes(MOVE * decay, PRICE * torch.ones_like(decay), AVERAGING * decay)
    return {name: row.log()[:, None].repeat(1, depth) for name, row in rows._asdict().items()}


def latent_step_sizes(log_step_sizes: Parameters, step: int, depth: int, like: Tensor) -> StepSizes:
    """Return the step sizes at `step`; of the type and device of `like` where they are the constants."""
    if SHARED in log_step_sizes:
        return StepSizes(*(like.new_full((depth,), constant) for constant in (MOVE, PRICE, AVERAGING)))
    sizes = StepSizes(*(step_size(log_step_sizes, name, step).expand(depth) for name in StepSizes._fields))
    return sizes._replace(averaging=sizes.averaging.clamp(max=1.0))
