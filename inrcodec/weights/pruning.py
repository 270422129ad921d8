"""Scores of context points, and pruning to those that promise the largest immediate improvement (GradNCP 2.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models import Parameters, PointField
from inrcodec.settings import ScoreName
from inrcodec.weights.context_set import ContextSet

GAIN_STEP_SIZE = 1e-2
"""alpha of the updates that prediction gains are measured by; the papers' inner step size."""

_GAIN_NUMBERS = 1 << 24
"""Values that are computed at once for the gain of some points on all others."""


def gradient_norm_score(field: PointField, parameters: Parameters, context_set: ContextSet) -> Tensor:
    """Compute GradNCP's R_k (eq. 2): the norm of the gradient of the readout's weights and bias, per point.

    That gradient is the outer product of the error (times the slope of the output non-linearity, appendix B)
    and [phi(x), 1]; the Frobenius norm of an outer product is the product of the norms, so the
    [B, N, C, F + 1] tensor is never built. Constant factors of the loss do not change the ranking and are left out.
    Returns [B, N].
    """
    features = field.features(parameters, context_set.coordinates)
    preactivation = field.preactivation(parameters, features)
    error = (context_set.values - field.activation(preactivation)) * field.activation_slope(preactivation)
    return error.norm(dim=-1) * (features.square().sum(-1) + 1).sqrt()


def error_score(field: PointField, parameters: Parameters, context_set: ContextSet) -> Tensor:
    """Compute ECoP's R_k: the norm of the error per point (EL2N), GradNCP's where all features have the same norm.

    Returns [B, N].
    """
    return (context_set.values - field(parameters, context_set.coordinates)).norm(dim=-1)


def self_prediction_gain(field: PointField, parameters: Parameters, context_set: ContextSet) -> Tensor:
    """Compute SPG: how much a point's loss falls when the readout takes one gradient step on it alone (GradNCP 2.2).

    To first order in the step size it is proportional to the square of `gradient_norm_score`. Returns [B, N].
    """
    features, preactivation, slope = _readout(field, parameters, context_set)
    return _own_gains(field, features, preactivation, slope, context_set.values)


def target_prediction_gain(field: PointField, parameters: Parameters, context_set: ContextSet) -> Tensor:
    """Compute TPG: how much the mean loss of all other points falls by that step (GradNCP 2.2). Returns [B, N].

    Linear in N for a linear readout. Any other takes N^2 evaluations, which is for analyses.
    """
    readout = (*_readout(field, parameters, context_set), context_set.values)
    own = _own_gains(field, *readout)
    total = _gains_of_all(field, *readout) if field.linear_readout else _evaluated_gains_of_all(field, *readout)
    return (total - own) / max(1, own.shape[1] - 1)


def _own_gains(field: PointField, features: Tensor, preactivation: Tensor, slope: Tensor, values: Tensor) -> Tensor:
    """Return how much a point's loss falls by a step on it, [B, N]."""
    moved = preactivation - GAIN_STEP_SIZE * (features.square().sum(-1, keepdim=True) + 1) * slope
    return _losses(field, preactivation, values) - _losses(field, moved, values)


def _gains_of_all(field: PointField, features: Tensor, preactivation: Tensor, slope: Tensor, values: Tensor) -> Tensor:
    """Return the sum over all points j of how much the loss falls by a step on point i, [B, N], for a linear readout.

    The step moves point j by -alpha k_ij slope_i, where k_ij is the product of their features, the bias' among them:
    a quadratic function, whose sums over j are of features alone.
    """
    features = functional.pad(features, (0, 1), value=1.0)
    errors = field.activation(preactivation) - values
    along = features @ (features.transpose(1, 2) @ errors)
    squares = ((features @ (features.transpose(1, 2) @ features)) * features).sum(-1)
    first, second = (slope * along).mean(-1), slope.square().mean(-1) * squares
    return 2 * GAIN_STEP_SIZE * first - GAIN_STEP_SIZE**2 * second


def _evaluated_gains_of_all(
    field: PointField, features: Tensor, preactivation: Tensor, slope: Tensor, values: Tensor
) -> Tensor:
    """Return what `_gains_of_all` returns, for any readout."""
    batch, points, channels = preactivation.shape
    before = _losses(field, preactivation, values)
    size = max(1, _GAIN_NUMBERS // (batch * points * channels))
    gains = []
    for start in range(0, points, size):
        some = slice(start, start + size)
        shares = features[:, some] @ features.transpose(1, 2) + 1
        moved = preactivation[:, None] - GAIN_STEP_SIZE * shares[..., None] * slope[:, some, None]
        gains.append((before[:, None] - _losses(field, moved, values[:, None])).sum(2))
    return torch.cat(gains, 1)


def _readout(field: PointField, parameters: Parameters, context_set: ContextSet) -> tuple[Tensor, Tensor, Tensor]:
    """Return features [B or 1, N, F], preactivations and the slopes of the points' losses in them, [B, N, C]."""
    features = field.features(parameters, context_set.coordinates)
    preactivation = field.preactivation(parameters, features)
    error = field.activation(preactivation) - context_set.values
    return features, preactivation, 2 * error * field.activation_slope(preactivation) / error.shape[-1]


def _losses(field: PointField, preactivation: Tensor, values: Tensor) -> Tensor:
    """Return the mean squared error over channels, [..., N]."""
    return (field.activation(preactivation) - values).square().mean(-1)


def top_share(scores: Tensor, gamma: float) -> Tensor:
    """Return the indices of the share gamma of the points with the highest scores: [B, n] of [B, N], in no order."""
    return scores.topk(max(1, round(gamma * scores.shape[1])), dim=1, sorted=False).indices


def generators_of(generator: torch.Generator, signals: range) -> list[torch.Generator]:
    """Return a generator for each of these signals of a batch, the same whichever others are asked for."""
    seeds = torch.randint(2**63 - 1, (signals.stop,), generator=generator)
    return [torch.Generator().manual_seed(int(seeds[number])) for number in signals]


def random_scores(batch: int, points: int, generators: Sequence[torch.Generator] | None, like: Tensor) -> Tensor:
    """Draw scores [B, N] that rank the points at random, on the device of `like`."""
    if generators is None:
        return torch.rand((batch, points)).to(like)
    return torch.stack([torch.rand(points, generator=each) for each in generators]).to(like)


_SCORE_FUNCTIONS: dict[str, Callable[[PointField, Parameters, ContextSet], Tensor]] = {
    "grad-norm": gradient_norm_score,
    "error": error_score,
    "spg": self_prediction_gain,
    "tpg": target_prediction_gain,
}


def prune(
    field: PointField,
    parameters: Parameters,
    context_set: ContextSet,
    *,
    score: ScoreName,
    gamma: float,
    generators: Sequence[torch.Generator] | None = None,
) -> ContextSet:
    """Return C_high = TopK(C_full; R_k, gamma): the share gamma of the points with the highest score, per signal.

    The forward pass of the score builds no graph: the unused points cost no memory in the meta-gradient.
    "random" draws the points uniformly (from `generators`, one for each signal); "full" keeps them all.
    """
    if score == "full" or gamma >= 1:
        return context_set
    if score == "random":
        batch, points = context_set.values.shape[:2]
        scores = random_scores(batch, points, generators, context_set.values)
    else:
        with torch.no_grad():
            scores = _SCORE_FUNCTIONS[score](field, parameters, context_set)
    return context_set.select(top_share(scores, gamma))
