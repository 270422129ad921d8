"""Context sets and their pruning: the points that promise the largest immediate improvement (GradNCP 2.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from inrcodec.models import Field, Parameters

ScoreName = Literal["grad-norm", "error", "random", "full"]
SCORES: tuple[str, ...] = get_args(ScoreName)


@dataclass(frozen=True, eq=False)
class Context:
    """The (coordinate, value) pairs C_full of a batch of signals.

    coordinates: [B, N, d], or [1, N, d] where the signals share them.
    values: [B, N, C].
    """

    coordinates: Tensor
    values: Tensor

    def select(self, points: Tensor) -> "Context":
        """The subset at `points`, [B, n] indices into the N points, different for every signal."""
        batch = self.values.shape[0]
        coordinates = self.coordinates.expand(batch, -1, -1)
        return Context(_take(coordinates, points), _take(self.values, points))


def _take(values: Tensor, points: Tensor) -> Tensor:
    return values.gather(1, points.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def gradient_norm_score(field: Field, parameters: Parameters, context: Context) -> Tensor:
    """GradNCP's R_k (eq. 2): norm of the gradient with respect to the readout's weights and bias, per point.

    That gradient is the outer product of the error (times the slope of the output non-linearity, appendix B)
    and [phi(x), 1]; the Frobenius norm of an outer product is the product of the norms, so the
    [B, N, C, F + 1] tensor is never built. Constant factors of the loss do not change the ranking and are left out.
    Returns [B, N].
    """
    features = field.features(parameters, context.coordinates)
    preactivation = field.preactivation(parameters, features)
    error = (context.values - field.activation(preactivation)) * field.activation_slope(preactivation)
    return error.norm(dim=-1) * (features.square().sum(-1) + 1).sqrt()


def error_score(field: Field, parameters: Parameters, context: Context) -> Tensor:
    """ECoP's R_k: norm of the error per point (EL2N); equals GradNCP's where all features have the same norm.

    Returns [B, N].
    """
    return (context.values - field(parameters, context.coordinates)).norm(dim=-1)


_SCORE_FUNCTIONS: dict[str, Callable[[Field, Parameters, Context], Tensor]] = {
    "grad-norm": gradient_norm_score,
    "error": error_score,
}


def prune(
    field: Field,
    parameters: Parameters,
    context: Context,
    *,
    score: ScoreName,
    gamma: float,
    generator: torch.Generator | None = None,
) -> Context:
    """C_high = TopK(C_full; R_k, gamma): the share gamma of the points with the highest score, per signal.

    The forward pass of the score builds no graph: the unused points cost no memory in the meta-gradient.
    "random" draws the points uniformly (from `generator`); "full" keeps them all.
    """
    batch, points = context.values.shape[:2]
    if score == "full" or gamma >= 1:
        return context
    keep = max(1, round(gamma * points))
    if score == "random":
        ranking = torch.rand((batch, points), generator=generator).to(context.values.device)
    else:
        with torch.no_grad():
            ranking = _SCORE_FUNCTIONS[score](field, parameters, context)
    return context.select(ranking.topk(keep, dim=1, sorted=False).indices)
