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

FIRST_MOVE, MOVE = 0.2, 0.25
"""Share of a target's way to where the gradient sends it, in the first step and later."""

FIRST_PRICE, PRICE = 0.5, 0.8
"""Share of the price that is charged: symbols are decided at once, as if the others stayed, and the first gradients
are those of decisions that knew none."""


class StepSizes(NamedTuple):
    """The step sizes of one step; one number per level, [levels].

    move: share of a target's way to where the gradient sends it. price: share of the price that is charged.
    averaging: weight of a step's gradients against those before.
    """

    move: Tensor
    price: Tensor
    averaging: Tensor


assert StepSizes._fields == STEP_SIZES


def initial_latent_step_sizes(kind: StepSizeKind, *, steps: int, depth: int) -> Parameters:
    """Return logarithms of the step sizes where their learning starts: the constants; see `_constants`.

    kind: "none", not learned; "tensor": one per level; "tensor-step": one per level and step. depth: levels.
    Raises: UsageError for another kind.
    """
    if kind == "none":
        return {SHARED: torch.zeros(1)}
    if kind not in ("tensor", "tensor-step"):
        raise UsageError(f"latents have no step size per {kind}: learn one per tensor (level) or tensor-step")
    rows = torch.tensor([_constants(step) for step in range(steps if kind == "tensor-step" else 1)])
    named = zip(StepSizes._fields, rows.unbind(1), strict=True)
    return {name: column.log()[:, None].repeat(1, depth) for name, column in named}


def latent_step_sizes(log_step_sizes: Parameters, step: int, depth: int, like: Tensor) -> StepSizes:
    """Return the step sizes at `step`; of the type and device of `like` where they are the constants."""
    if SHARED in log_step_sizes:
        return StepSizes(*(like.new_full((depth,), constant) for constant in _constants(step)))
    sizes = StepSizes(*(step_size(log_step_sizes, name, step).expand(depth) for name in StepSizes._fields))
    return sizes._replace(averaging=sizes.averaging.clamp(max=1.0))


def _constants(step: int) -> tuple[float, float, float]:
    """Return the step sizes of a step.

    Gradients are the mean of all so far: with equal averaging for ever, simultaneous decisions end in a cycle.
    """
    return (MOVE, PRICE, 1 / (1 + step)) if step else (FIRST_MOVE, FIRST_PRICE, 1.0)
