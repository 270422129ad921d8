"""The experiment on finding high scores without scoring all points."""

import math
import operator
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from experiments.curves import Curve, decibels, joined, means, slices
from experiments.laboratory import Laboratory
from experiments.learned import Learned
from experiments.result import Panel, Result, Row
from experiments.tables import PSNR, standard_error
from inrcodec.errors import UsageError
from inrcodec.meta.search import PointScores
from inrcodec.meta.search import search as coarse_to_fine
from inrcodec.models import Parameters
from inrcodec.settings import Rescaling
from inrcodec.weights.adaptation import (
    batch_parameters,
    descend,
    gradient_norm,
    gradients,
    per_signal,
    rescaling_factor,
    signal_losses,
)
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import gradient_norm_score

SHARES = (0.01, 0.05)
BREADTHS = (1.0, 2.0, 4.0)
LARGER = 4
"""Times a training patch along every axis that signals are large: the few points of a small share must be many."""

RESCALED = ", rescaled"
"""Of rows whose gradients get the norm that the steps were learned with, which asks for the scores of all points."""

COARSEST = 8
"""Stride of the points that a search begins with."""

Choice = Callable[[PointScores, int, tuple[int, ...], int, int], Tensor]
"""Chooses in a step, of a batch of so many signals of a shape, so many points: [B, keep] indices."""


def search(laboratory: Laboratory) -> Result:
    """Search for high scores from coarse to fine, against scoring every point (GradNCP section 4 leaves it open)."""
    shape = _shape(laboratory)
    signals = laboratory.patches_of(laboratory.data.held_out, shape)
    learned = laboratory.learn("GradNCP", laboratory.setting.training)
    choices: dict[str, Choice] = {"all points scored": exact}
    choices |= {f"coarse to fine, breadth {breadth:g}": partial(found, breadth) for breadth in BREADTHS}
    choices["drawn by score"] = drawn_by_score
    choices["random"] = drawn
    steps = learned.training.adaptation.steps
    rows: dict[str, Row] = {}
    curves: dict[str, Curve] = {}
    rescalings: dict[str, Rescaling] = {"full context": "none", f"full context{RESCALED}": "exact"}
    for label, rescaling in rescalings.items():
        curves[label] = laboratory.curve(learned, range(steps + 1), rescaling=rescaling, held_out=signals)
        rows[label] = {}
    for share in SHARES:
        keep = max(1, round(share * math.prod(shape)))
        for name, choice in choices.items():
            for rescaled in (False, True):
                label = f"gamma = {share:g}, {name}" + (RESCALED if rescaled else "")
                rows[label], curves[label] = _adapted(laboratory, learned, signals, shape, keep, choice, rescaled)
    for label, curve in curves.items():
        like = "full context" + (RESCALED if label.endswith(RESCALED) else "")
        error = None if label == like else standard_error(curve[steps] - curves[like][steps])
        reached: Row = {f"PSNR after {steps} steps, dB": float(curve[steps].mean()), "±": error}
        rows[label] = reached | rows[label]
    title = f"points of {'x'.join(map(str, shape))} patches with the highest scores, in every step of adaptation"
    panel = Panel(
        {label: means(curve) for label, curve in curves.items()}, "adaptation steps", f"{PSNR}, of all points"
    )
    note = "±: standard error over patches of the difference to the full context, rescaled or not"
    return Result(title, rows, [panel], [note], trainings={"GradNCP": learned.training})


def _shape(laboratory: Laboratory) -> tuple[int, ...]:
    """Return some times a training patch, as far as a held-out signal has the size, in whole cells of the search."""
    patch = laboratory.setting.patches.shape
    grids = [tuple(axis.size for axis in each.axes if axis.kind != "slice") for each in laboratory.data.held_out]
    for factor in range(LARGER, 1, -1):
        shape = tuple(factor * size for size in patch)
        if any(all(map(operator.ge, grid, shape)) for grid in grids):
            return tuple(size - size % COARSEST if size >= COARSEST else size for size in shape)
    raise UsageError(f"the search needs signals of twice a patch of {patch} samples: give larger ones with --data")


def exact(scores: PointScores, batch: int, shape: tuple[int, ...], keep: int, step: int) -> Tensor:
    """Score all points."""
    points = torch.arange(math.prod(shape)).expand(batch, -1)
    return scores(points).topk(keep, dim=1).indices


def found(breadth: float, scores: PointScores, batch: int, shape: tuple[int, ...], keep: int, step: int) -> Tensor:
    """Search from coarse to fine."""
    stride = next(stride for stride in (COARSEST, 4, 2, 1) if not any(size % stride for size in shape))
    return coarse_to_fine(scores, shape, keep, batch=batch, stride=stride, breadth=breadth)


def drawn(scores: PointScores, batch: int, shape: tuple[int, ...], keep: int, step: int) -> Tensor:
    """Draw points, all with the same chance."""
    generator = torch.Generator().manual_seed(step)
    return torch.rand((batch, math.prod(shape)), generator=generator).topk(keep, dim=1).indices


def drawn_by_score(scores: PointScores, batch: int, shape: tuple[int, ...], keep: int, step: int) -> Tensor:
    """Draw without replacement, with chances in proportion to the scores (Efraimidis & Spirakis 2006)."""
    points = torch.arange(math.prod(shape)).expand(batch, -1)
    generator = torch.Generator().manual_seed(step)
    waiting = torch.empty((batch, math.prod(shape))).exponential_(generator=generator)
    return (scores(points) / waiting).topk(keep, dim=1).indices


def _adapted(
    laboratory: Laboratory,
    learned: Learned,
    signals: ContextSet,
    shape: tuple[int, ...],
    keep: int,
    choice: Choice,
    rescaled: bool,
) -> tuple[Row, Curve]:
    """Adapt on chosen points; return how many of the best ones they are, how many were scored, and what was reached.

    rescaled: the gradient gets the norm that steps were learned with, that of the best points of meta-training's gamma.
    """
    field, steps = laboratory.setting.field, learned.training.adaptation.steps
    scored, agreed = [], []
    parts: list[Curve] = []
    for context_set in slices(signals):
        batch, points = context_set.values.shape[:2]
        theta = batch_parameters(field, learned.theta_0, batch)
        reached: Curve = {}
        for step in range(steps + 1):
            with torch.no_grad():
                reached[step] = decibels(signal_losses(field, theta, context_set))
            if step == steps:
                break
            asked: list[int] = []
            scores = partial(_scores, laboratory, context_set, theta, asked)
            chosen = choice(scores, batch, shape, keep, step)
            scored.append(1.0 if rescaled else sum(asked) / points)
            usual = round(learned.training.adaptation.gamma * points)
            best = exact(scores, batch, shape, max(keep, usual), step)
            agreed += [int(torch.isin(*pair).sum()) / keep for pair in zip(chosen, best[:, :keep], strict=True)]
            slopes, _ = gradients(field, theta, context_set.select(chosen.to(laboratory.device)))
            if rescaled:
                steered, _ = gradients(field, theta, context_set.select(best[:, :usual].to(laboratory.device)))
                factor = rescaling_factor(gradient_norm(steered.values()), gradient_norm(slopes.values()))
                slopes = {name: slope * per_signal(factor, slope) for name, slope in slopes.items()}
            theta = descend(theta, slopes, learned.log_step_sizes, step)
        parts.append(reached)
    row: Row = {
        "of the best points, %": 100 * sum(agreed) / len(agreed),
        "scored, %": 100 * sum(scored) / len(scored),
    }
    return row, joined(parts)


def _scores(
    laboratory: Laboratory, context_set: ContextSet, theta: Parameters, asked: list[int], points: Tensor
) -> Tensor:
    """Score points [B, n] of every signal, and add their number to `asked`."""
    asked.append(points.shape[1])
    with torch.no_grad():
        chosen = context_set.select(points.to(laboratory.device))
        return gradient_norm_score(laboratory.setting.field, theta, chosen).cpu()
