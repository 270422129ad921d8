"""The inner loop of weight-coded fields: from theta_0 to the parameters theta_K of each signal."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from inrcodec.adaptation import SHARED, step_size
from inrcodec.models import Parameters, PointField
from inrcodec.settings import AdaptationConfig, Rescaling, StepSizeKind
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import prune


def initial_step_sizes(parameters: Parameters, *, kind: StepSizeKind, alpha: float, steps: int) -> Parameters:
    """Return logarithms of the inner step sizes alpha; learned in meta-training unless `kind` is "none" (Meta-SGD).

    kind: "none" and "scalar": one for all tensors; "tensor": one per tensor; "tensor-step": one per tensor
        and step; "element": one per parameter.
    parameters: the adapted tensors of theta_0, without batch dimension.
    Returns one [steps or 1, ...] tensor per tensor, or one under the key `SHARED`; logarithms, because step
    sizes are positive and differ by orders of magnitude.
    """
    log_alpha = torch.tensor(alpha).log()
    if kind in ("none", "scalar"):
        return {SHARED: log_alpha.reshape(1).clone()}
    rows = steps if kind == "tensor-step" else 1
    if kind == "element":
        return {name: log_alpha.expand(1, *value.shape).clone() for name, value in parameters.items()}
    return {name: log_alpha.expand(rows, *[1] * value.dim()).clone() for name, value in parameters.items()}


def batch_parameters(field: PointField, parameters: Parameters, batch: int) -> Parameters:
    """Repeat theta_0 for `batch` signals ([B, ...], a view); the field's constants stay as they are."""
    return {
        name: value if name in field.constants else value.expand(batch, *value.shape)
        for name, value in parameters.items()
    }


def signal_losses(field: PointField, parameters: Parameters, context_set: ContextSet) -> Tensor:
    """Return L_MSE of every signal, [B]: the mean over points and channels."""
    return (field(parameters, context_set.coordinates) - context_set.values).square().mean(dim=(1, 2))


def gradients(
    field: PointField, parameters: Parameters, context_set: ContextSet, *, create_graph: bool = False
) -> tuple[Parameters, Tensor]:
    """Return the gradient of each signal's loss with respect to its adapted tensors, and the losses [B].

    The losses are summed over the batch, so one signal's gradient does not depend on the others.
    """
    adapted = {name: value for name, value in parameters.items() if name not in field.constants}
    with torch.enable_grad():
        if not create_graph:
            adapted = {name: value.detach().requires_grad_() for name, value in adapted.items()}
        losses = signal_losses(field, {**parameters, **adapted}, context_set)
        slopes = torch.autograd.grad(losses.sum(), list(adapted.values()), create_graph=create_graph)
    return dict(zip(adapted, slopes, strict=True)), losses


def descend(parameters: Parameters, slopes: Parameters, log_step_sizes: Parameters, step: int) -> Parameters:
    """Return theta_{k+1} = theta_k - alpha_k * gradient; the constants pass through."""
    return {
        name: value - step_size(log_step_sizes, name, step) * slopes[name] if name in slopes else value
        for name, value in parameters.items()
    }


def adapt_for_training(
    field: PointField,
    theta_0: Parameters,
    log_step_sizes: Parameters,
    context_set: ContextSet,
    config: AdaptationConfig,
    generators: Sequence[torch.Generator] | None = None,
    *,
    second_order: bool = True,
    backward_share: float = 1.0,
) -> Parameters:
    """Take K pruned steps with the graph kept, to be differentiated through (GradNCP algorithm 1, lines 5-9).

    theta_0: without batch dimension. generators: of every random choice, one for each signal.
    second_order: without, slopes are constants (FOMAML, Finn et al. 2017): theta_K depends on theta_0 as on itself, and
        on the step sizes.
    backward_share: share of the points, drawn anew in every step, that stand for all of them in the graph of a slope,
        whose value is that of all (LITE, Bronskill et al. 2021).
    Returns theta_K, [B, ...].
    """
    theta = batch_parameters(field, theta_0, context_set.values.shape[0])
    for step in range(config.steps):
        pruned = prune(field, theta, context_set, score=config.score, gamma=config.gamma, generators=generators)
        whole = second_order and backward_share == 1
        slopes, _ = gradients(field, theta, pruned, create_graph=whole)
        if second_order and not whole:
            few = prune(field, theta, pruned, score="random", gamma=backward_share, generators=generators)
            estimates, _ = gradients(field, theta, few, create_graph=True)
            # The loss is a mean over points, so that of a few of them has the right scale.
            slopes = {name: slope + estimates[name] - estimates[name].detach() for name, slope in slopes.items()}
        theta = descend(theta, slopes, log_step_sizes, step)
    return theta


def adapt(
    field: PointField,
    theta_0: Parameters,
    log_step_sizes: Parameters,
    context_set: ContextSet,
    config: AdaptationConfig,
    *,
    steps: int,
    rescaling: Rescaling = "exact",
    on_step: Callable[[int, Parameters, Tensor], None] | None = None,
) -> Parameters:
    """Adapt at test time, on the full context set with rescaled gradients (GradNCP algorithm 2, eq. 4).

    theta_0: without batch dimension. steps: K_test, usually more than the K of meta-training.
    rescaling: the full gradient takes the norm of the pruned one, which the step sizes were learned for:
        "exact" by a second gradient, on the pruned context set; "loss-ratio" by the cheaper ratio of the pruned to the
        full loss (ECoP appendix B.2); "none" leaves the full gradient as it is.
    on_step: called before every step, and once after the last, with the number of steps done, the parameters
        and the losses [B] on the full context set.
    Returns theta after `steps` steps, [B, ...], without graph.
    """
    theta = batch_parameters(field, theta_0, context_set.values.shape[0])
    for step in range(steps):
        slopes, losses = gradients(field, theta, context_set)
        if on_step is not None:
            on_step(step, theta, losses)
        factor = _rescaling_factor(field, theta, context_set, config, slopes, losses, rescaling)
        if factor is not None:
            slopes = {name: slope * per_signal(factor, slope) for name, slope in slopes.items()}
        theta = {name: value.detach() for name, value in descend(theta, slopes, log_step_sizes, step).items()}
    if on_step is not None:
        with torch.no_grad():
            on_step(steps, theta, signal_losses(field, theta, context_set))
    return theta


def _rescaling_factor(
    field: PointField,
    theta: Parameters,
    context_set: ContextSet,
    config: AdaptationConfig,
    slopes: Parameters,
    losses: Tensor,
    rescaling: Rescaling,
) -> Tensor | None:
    """Return the factor [B] of eq. 4, or None where the step uses the gradient as it is."""
    if rescaling == "none" or not config.prunes_by_score:
        return None
    pruned = prune(field, theta, context_set, score=config.score, gamma=config.gamma)
    if rescaling == "exact":
        pruned_slopes, _ = gradients(field, theta, pruned)
        return rescaling_factor(gradient_norm(pruned_slopes.values()), gradient_norm(slopes.values()))
    with torch.no_grad():
        return rescaling_factor(signal_losses(field, theta, pruned), losses)


def rescaling_factor(pruned: Tensor, full: Tensor) -> Tensor:
    """Return the factor [B] of GradNCP eq. 4, by which what the full context set says is rescaled.

    pruned, full: [B], the norms of the two gradients ("exact") or the two losses ("loss-ratio", ECoP appendix B.2).
    Where nothing moves, nothing is rescaled.
    """
    return torch.where(full > 0, pruned / full, 1.0)


def gradient_norm(slopes: Iterable[Tensor]) -> Tensor:
    """Return the norm over all tensors, one per signal: [B]."""
    return torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()


def per_signal(factor: Tensor, like: Tensor) -> Tensor:
    """Return one factor per signal, [B], as it broadcasts over [B, ...] like `like`."""
    return factor.reshape(-1, *[1] * (like.dim() - 1))
