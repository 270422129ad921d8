"""The inner loop: from the shared initialization theta_0 to the parameters theta_K of each signal."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inrcodec.meta.context import SCORES, Context, ScoreName, prune
from inrcodec.models import Field, Parameters

Rescaling = Literal["exact", "loss-ratio", "none"]
StepSizeKind = Literal["none", "scalar", "tensor", "tensor-step", "element"]

SHARED = "shared"
"""Key of a step size that all tensors share."""


@dataclass(frozen=True)
class AdaptationConfig:
    """How theta_0 is adapted; belongs to the initialization, which was trained for exactly this.

    steps: K of meta-training; adaptation may go on for longer, with the last step's sizes.
    gamma: share of the context kept by pruning.
    score: what ranks the context points.
    """

    steps: int = 16
    gamma: float = 0.25
    score: ScoreName = "grad-norm"

    def __post_init__(self) -> None:
        """Raises: ValueError for settings out of range; they come from files of strangers too."""
        if type(self.steps) is not int or not 1 <= self.steps <= 1 << 16:
            raise ValueError(f"the number of adaptation steps is {self.steps!r}")
        if not (isinstance(self.gamma, int | float) and 0 < self.gamma <= 1):
            raise ValueError(f"the share of the context is {self.gamma!r}, not in (0, 1]")
        if self.score not in SCORES:
            raise ValueError(f"no score is called {self.score!r}")


def initial_step_sizes(parameters: Parameters, *, kind: StepSizeKind, alpha: float, steps: int) -> Parameters:
    """Logarithms of the inner step sizes alpha; learned in meta-training unless `kind` is "none" (Meta-SGD).

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


def step_size(log_step_sizes: Parameters, name: str, step: int) -> Tensor:
    """alpha of the tensor `name` at `step`, broadcastable to the tensor; the last one for all later steps."""
    rows = log_step_sizes.get(name)
    if rows is None:
        rows = log_step_sizes[SHARED]
    return rows[min(step, len(rows) - 1)].exp()


def batch_parameters(field: Field, parameters: Parameters, batch: int) -> Parameters:
    """theta_0 repeated for `batch` signals ([B, ...], a view); the field's constants stay as they are."""
    return {
        name: value if name in field.constants else value.expand(batch, *value.shape)
        for name, value in parameters.items()
    }


def signal_losses(field: Field, parameters: Parameters, context: Context) -> Tensor:
    """L_MSE of every signal, [B]: mean over points and channels."""
    return (field(parameters, context.coordinates) - context.values).square().mean(dim=(1, 2))


def gradients(
    field: Field, parameters: Parameters, context: Context, *, create_graph: bool = False
) -> tuple[Parameters, Tensor]:
    """Gradient of each signal's loss with respect to its adapted tensors, and the losses [B].

    The losses are summed over the batch, so one signal's gradient does not depend on the others.
    """
    adapted = {name: value for name, value in parameters.items() if name not in field.constants}
    with torch.enable_grad():
        if not create_graph:
            adapted = {name: value.detach().requires_grad_() for name, value in adapted.items()}
        losses = signal_losses(field, {**parameters, **adapted}, context)
        slopes = torch.autograd.grad(losses.sum(), list(adapted.values()), create_graph=create_graph)
    return dict(zip(adapted, slopes, strict=True)), losses


def descend(parameters: Parameters, slopes: Parameters, log_step_sizes: Parameters, step: int) -> Parameters:
    """theta_{k+1} = theta_k - alpha_k * gradient; the constants pass through."""
    return {
        name: value - step_size(log_step_sizes, name, step) * slopes[name] if name in slopes else value
        for name, value in parameters.items()
    }


def adapt_for_training(
    field: Field,
    theta_0: Parameters,
    log_step_sizes: Parameters,
    context: Context,
    config: AdaptationConfig,
    generator: torch.Generator | None = None,
    *,
    second_order: bool = True,
    backward_share: float = 1.0,
) -> Parameters:
    """K pruned steps with the graph kept, to be differentiated through (GradNCP algorithm 1, lines 5-9).

    theta_0: without batch dimension. generator: of every random choice.
    second_order: without, slopes are constants (FOMAML, Finn et al. 2017): theta_K depends on theta_0 as on itself, and
        on the step sizes.
    backward_share: share of the points, drawn anew in every step, that stand for all of them in the graph of a slope,
        whose value is that of all (LITE, Bronskill et al. 2021).
    Returns theta_K, [B, ...].
    """
    theta = batch_parameters(field, theta_0, context.values.shape[0])
    for step in range(config.steps):
        pruned = prune(field, theta, context, score=config.score, gamma=config.gamma, generator=generator)
        whole = second_order and backward_share == 1
        slopes, _ = gradients(field, theta, pruned, create_graph=whole)
        if second_order and not whole:
            few = prune(field, theta, pruned, score="random", gamma=backward_share, generator=generator)
            estimates, _ = gradients(field, theta, few, create_graph=True)
            # The loss is a mean over points, so that of a few of them has the right scale.
            slopes = {name: slope + estimates[name] - estimates[name].detach() for name, slope in slopes.items()}
        theta = descend(theta, slopes, log_step_sizes, step)
    return theta


def adapt(
    field: Field,
    theta_0: Parameters,
    log_step_sizes: Parameters,
    context: Context,
    config: AdaptationConfig,
    *,
    steps: int,
    rescaling: Rescaling = "exact",
    on_step: Callable[[int, Parameters, Tensor], None] | None = None,
) -> Parameters:
    """Test-time adaptation on the full context with rescaled gradients (GradNCP algorithm 2, eq. 4).

    theta_0: without batch dimension. steps: K_test, usually more than the K of meta-training.
    rescaling: the full gradient takes the norm of the pruned one, which the step sizes were learned for:
        "exact" by a second gradient, on the pruned context; "loss-ratio" by the cheaper ratio of the pruned to the
        full loss (ECoP appendix B.2); "none" leaves the full gradient as it is.
    on_step: called before every step, and once after the last, with the number of steps done, the parameters
        and the full-context losses [B].
    Returns theta after `steps` steps, [B, ...], without graph.
    """
    theta = batch_parameters(field, theta_0, context.values.shape[0])
    for step in range(steps):
        slopes, losses = gradients(field, theta, context)
        if on_step is not None:
            on_step(step, theta, losses)
        factor = _rescaling_factor(field, theta, context, config, slopes, losses, rescaling)
        if factor is not None:
            slopes = {name: slope * per_signal(factor, slope) for name, slope in slopes.items()}
        theta = {name: value.detach() for name, value in descend(theta, slopes, log_step_sizes, step).items()}
    if on_step is not None:
        with torch.no_grad():
            on_step(steps, theta, signal_losses(field, theta, context))
    return theta


def _rescaling_factor(
    field: Field,
    theta: Parameters,
    context: Context,
    config: AdaptationConfig,
    slopes: Parameters,
    losses: Tensor,
    rescaling: Rescaling,
) -> Tensor | None:
    """The factor [B] of eq. 4, or None where the step uses the gradient as it is."""
    if rescaling == "none" or config.score in ("full", "random") or config.gamma >= 1:
        return None
    pruned = prune(field, theta, context, score=config.score, gamma=config.gamma)
    tiny = torch.finfo(losses.dtype).tiny
    if rescaling == "exact":
        pruned_slopes, _ = gradients(field, theta, pruned)
        return gradient_norm(pruned_slopes.values()) / gradient_norm(slopes.values()).clamp_min(tiny)
    with torch.no_grad():
        return signal_losses(field, theta, pruned) / losses.clamp_min(tiny)


def gradient_norm(slopes: Iterable[Tensor]) -> Tensor:
    """Norm over all tensors, one per signal: [B]."""
    return torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()


def per_signal(factor: Tensor, like: Tensor) -> Tensor:
    """A factor for every signal, [B], broadcastable to [B, ...]."""
    return factor.reshape(-1, *[1] * (like.dim() - 1))
