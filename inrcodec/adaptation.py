"""The step sizes of the adaptation of all fields.

The inner loops are in `inrcodec.weights.adaptation` and `inrcodec.latents.adaptation`.
"""

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
