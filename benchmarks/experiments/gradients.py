"""Experiments on the gradients of adaptation: their norms, and how well the readout's stand for all."""

import torch
from torch import Tensor

from experiments.comparisons import learnit
from experiments.laboratory import Laboratory, Learned
from experiments.result import Panel, Result, Row
from inrcodec.meta.adaptation import batch_parameters, descend, gradient_norm, gradients
from inrcodec.meta.context import Context, gradient_norm_score, prune
from inrcodec.models import Field, Parameters

SIGNALS = 4
"""Held-out patches whose gradients are taken point by point."""


def norms(laboratory: Laboratory) -> Result:
    """Norms of the full and the pruned context's gradients in every step of adaptation (GradNCP figure 8)."""
    training = laboratory.setting.training
    model, adaptation = laboratory.setting.model, training.adaptation
    learned = laboratory.learn("GradNCP", training)
    theta = batch_parameters(model, learned.theta_0, len(laboratory.held_out.values))
    full: dict[float, float] = {}
    pruned: dict[float, float] = {}
    for step in range(adaptation.steps):
        seen = prune(model, theta, laboratory.held_out, score=adaptation.score, gamma=adaptation.gamma)
        slopes, _ = gradients(model, theta, seen)
        whole, _ = gradients(model, theta, laboratory.held_out)
        pruned[step] = float(gradient_norm(slopes.values()).mean())
        full[step] = float(gradient_norm(whole.values()).mean())
        theta = descend(theta, slopes, learned.log_step_sizes, step)
    ratios = {step: pruned[step] / full[step] for step in full}
    rows: dict[str, Row] = {
        f"step {step}": {"full": full[step], "pruned": pruned[step], "pruned / full": ratios[step]} for step in full
    }
    panel = Panel({"full context": full, "pruned context": pruned}, "step", "norm of the gradient, mean of patches")
    return Result("norm of the gradient, mean of held-out patches", rows, [panel])


def correlation(laboratory: Laboratory) -> Result:
    """Of the norms, point by point, of the readout's and of the whole gradient (GradNCP figures 4 and 9)."""
    training = laboratory.setting.training
    starts = {
        "random initialization": laboratory.random(training.inner_step_size),
        "Learnit, equal K": laboratory.learn("Learnit, equal K", learnit(training, training.adaptation.steps)),
        "GradNCP": laboratory.learn("GradNCP", training),
    }
    context = Context(laboratory.held_out.coordinates[:SIGNALS], laboratory.held_out.values[:SIGNALS])
    steps = training.adaptation.steps
    curves: dict[str, dict[float, float]] = {}
    for name, learned in starts.items():
        theta = batch_parameters(laboratory.setting.model, learned.theta_0, len(context.values))
        curves[name] = {}
        for step in range(steps + 1):
            curves[name][step] = _correlation(laboratory.setting.model, theta, context)
            slopes, _ = gradients(laboratory.setting.model, theta, context)
            theta = descend(theta, slopes, learned.log_step_sizes, step)
    marks = sorted({0, 1, steps // 4, steps // 2, steps})
    rows: dict[str, Row] = {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    return Result("Pearson correlation, mean of held-out patches", rows, [Panel(curves, "step", "correlation")])


def _correlation(model: Field, theta: Parameters, context: Context) -> float:
    readout = gradient_norm_score(model, theta, context)
    whole = torch.stack([point_gradient_norms(model, theta, context, signal) for signal in range(len(readout))])
    pairs = torch.stack((readout, whole), 1)
    return float(torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).mean())


def point_gradient_norms(model: Field, theta: Parameters, context: Context, signal: int) -> Tensor:
    """Norm of the gradient of every point's loss over all adapted parameters of a signal: [N]."""
    adapted = {name: value[signal] for name, value in theta.items() if name not in model.constants}
    constants = {name: value for name, value in theta.items() if name in model.constants}
    coordinates = context.coordinates[signal if len(context.coordinates) > 1 else 0]

    def loss(parameters: Parameters, coordinate: Tensor, value: Tensor) -> Tensor:
        batched = {name: tensor.unsqueeze(0) for name, tensor in parameters.items()}
        return (model(constants | batched, coordinate[None, None])[0, 0] - value).square().mean()

    slopes = torch.func.vmap(torch.func.grad(loss), (None, 0, 0), chunk_size=256)(
        adapted, coordinates, context.values[signal]
    )
    return gradient_norm(slopes.values())


def distribution(laboratory: Laboratory) -> Result:
    """How the score is distributed over the points, largest first, in some steps (GradNCP figure 10)."""
    training = laboratory.setting.training
    model, adaptation = laboratory.setting.model, training.adaptation
    learned: Learned = laboratory.learn("GradNCP", training)
    theta = batch_parameters(model, learned.theta_0, len(laboratory.held_out.values))
    marks = sorted({0, 1, adaptation.steps // 4, adaptation.steps - 1})
    curves: dict[str, dict[float, float]] = {}
    rows: dict[str, Row] = {}
    for step in range(max(marks) + 1):
        if step in marks:
            score = gradient_norm_score(model, theta, laboratory.held_out).sort(1, descending=True).values
            shares = (score / score.sum(1, keepdim=True)).cumsum(1).mean(0)
            points = len(shares)
            at = {share: float(shares[max(0, round(share * points) - 1)]) for share in (0.05, 0.1, 0.25, 0.5)}
            rows[f"step {step}"] = {f"in {share:.0%} of the points": value for share, value in at.items()}
            curves[f"step {step}"] = {
                (index + 1) / points: float(shares[index]) for index in range(0, points, max(1, points // 200))
            }
        seen = prune(model, theta, laboratory.held_out, score=adaptation.score, gamma=adaptation.gamma)
        slopes, _ = gradients(model, theta, seen)
        theta = descend(theta, slopes, learned.log_step_sizes, step)
    panel = Panel(curves, "share of the points, by score", "share of the sum of scores")
    return Result("share of the sum of all scores", rows, [panel])
