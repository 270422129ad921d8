"""Experiments on the gradients of adaptation: their norms, and how well the readout's stand for all."""

from dataclasses import replace

import torch
from torch import Tensor

from experiments.curves import Curve, joined, means, slices
from experiments.laboratory import Laboratory
from experiments.result import Panel, Result, Row
from experiments.variants import learnit
from inrcodec.errors import UsageError
from inrcodec.models import Parameters, PointField
from inrcodec.weights.adaptation import gradient_norm, gradients
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import gradient_norm_score

SIGNALS = 4
"""Held-out patches whose gradients are taken point by point."""


def norms(laboratory: Laboratory) -> Result:
    """Compare the norms of the full and the pruned context set's gradients, step by step (GradNCP figure 8)."""
    field, training = laboratory.setting.field, laboratory.setting.training
    learned = laboratory.learn("GradNCP", training)
    parts: dict[str, list[Curve]] = {"full context": [], "pruned context": []}
    for context_set in slices(laboratory.held_out):
        for curve in parts.values():
            curve.append({})
        adapted = laboratory.pruned_steps(learned, context_set)
        for step, (theta, slopes) in zip(range(training.adaptation.steps), adapted, strict=False):
            whole, _ = gradients(field, theta, context_set)
            for name, found in (("full context", whole), ("pruned context", slopes)):
                parts[name][-1][step] = gradient_norm(found.values())
    curves = {name: means(joined(curve)) for name, curve in parts.items()}
    full, pruned = curves.values()
    rows: dict[str, Row] = {
        f"step {step}": {"full": full[step], "pruned": pruned[step], "pruned / full": pruned[step] / full[step]}
        for step in full
    }
    panel = Panel(curves, "step", "norm of the gradient, mean of patches")
    title = f"norm of the gradient, mean of {laboratory.described}"
    return Result(title, rows, [panel], trainings={"GradNCP": training})


def correlation(laboratory: Laboratory) -> Result:
    """Correlate the norms of the readout's and the whole gradient over the points (GradNCP figures 4 and 9)."""
    field, training = laboratory.setting.field, laboratory.setting.training
    if field.name == "nerv":
        raise UsageError("gradients are taken point by point, which a NeRV does not have: choose siren or ffn")
    gradncp = laboratory.learn("GradNCP", training)
    full = replace(gradncp, training=learnit(training, training.adaptation.steps))
    starts = {
        "random initialization": laboratory.random(training.inner_step_size),
        "Learnit, equal K": laboratory.learn("Learnit, equal K", learnit(training, training.adaptation.steps)),
        "GradNCP, full context": full,
        "GradNCP, pruned context": gradncp,
    }
    coordinates = laboratory.held_out.coordinates
    context_set = ContextSet(coordinates[: min(SIGNALS, len(coordinates))], laboratory.held_out.values[:SIGNALS])
    steps = training.adaptation.steps
    curves: dict[str, dict[float, float]] = {}
    for name, learned in starts.items():
        if name == "random initialization":
            learned = replace(learned, training=full.training)
        adapted = laboratory.pruned_steps(learned, context_set)
        curves[name] = {
            step: _correlation(field, theta, context_set)
            for step, (theta, _) in zip(range(steps + 1), adapted, strict=False)
        }
    marks = sorted({0, 1, steps // 4, steps // 2, steps})
    rows: dict[str, Row] = {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    title = f"Pearson correlation over points, mean of {len(context_set.values)} held-out patches"
    trainings = {"Learnit, equal K": full.training, "GradNCP": training}
    return Result(title, rows, [Panel(curves, "step", "correlation")], trainings=trainings)


def _correlation(field: PointField, theta: Parameters, context_set: ContextSet) -> float:
    """Return the mean over signals of Pearson's correlation."""
    readout = gradient_norm_score(field, theta, context_set)
    whole = torch.stack([point_gradient_norms(field, theta, context_set, signal) for signal in range(len(readout))])
    pairs = torch.stack((readout, whole), 1)
    return float(torch.stack([torch.corrcoef(pair)[0, 1] for pair in pairs]).mean())


def point_gradient_norms(field: PointField, theta: Parameters, context_set: ContextSet, signal: int) -> Tensor:
    """Return the norm of the gradient of every point's loss over all adapted parameters of a signal: [N]."""
    adapted = {name: value[signal] for name, value in theta.items() if name not in field.constants}
    constants = {name: value for name, value in theta.items() if name in field.constants}
    coordinates = context_set.coordinates[signal if len(context_set.coordinates) > 1 else 0]

    def loss(parameters: Parameters, coordinate: Tensor, value: Tensor) -> Tensor:
        batched = {name: tensor.unsqueeze(0) for name, tensor in parameters.items()}
        return (field(constants | batched, coordinate[None, None])[0, 0] - value).square().mean()

    def squares(coordinate: Tensor, value: Tensor) -> Tensor:
        slopes = torch.func.grad(loss)(adapted, coordinate, value)
        return torch.stack([slope.square().sum() for slope in slopes.values()]).sum()

    return torch.func.vmap(squares, chunk_size=256)(coordinates, context_set.values[signal]).sqrt()


def distribution(laboratory: Laboratory) -> Result:
    """Show how the sum of scores is distributed over the points, in some steps (GradNCP figure 10)."""
    field, training = laboratory.setting.field, laboratory.setting.training
    learned = laboratory.learn("GradNCP", training)
    marks = {0, 1, training.adaptation.steps // 4, training.adaptation.steps - 1}
    parts: list[Curve] = []
    for context_set in slices(laboratory.held_out):
        adapted = laboratory.pruned_steps(learned, context_set)
        reached: Curve = {}
        for step, (theta, _) in zip(range(max(marks) + 1), adapted, strict=False):
            if step in marks:
                with torch.no_grad():
                    score = gradient_norm_score(field, theta, context_set).sort(1, descending=True).values
                reached[step] = (score / score.sum(1, keepdim=True)).cumsum(1)
        parts.append(reached)
    curves: dict[str, dict[float, float]] = {}
    rows: dict[str, Row] = {}
    for step, found in joined(parts).items():
        shares = found.mean(0)
        points = len(shares)
        at = {share: float(shares[max(0, round(share * points) - 1)]) for share in (0.05, 0.1, 0.25, 0.5)}
        rows[f"step {step}"] = {f"in {share:.0%} of the points": value for share, value in at.items()}
        curves[f"step {step}"] = {
            (index + 1) / points: float(shares[index]) for index in range(0, points, max(1, points // 200))
        }
    panel = Panel(curves, "share of the points, by score", "share of the sum of scores")
    title = f"share of the sum of all scores, mean of {laboratory.described}"
    return Result(title, rows, [panel], trainings={"GradNCP": training})
