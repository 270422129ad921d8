"""The experiment on finding high scores without scoring all points."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from experiments.laboratory import Laboratory, mean_decibels
from experiments.result import Panel, Result, Row
from inrcodec.meta.adaptation import batch_parameters, descend, gradients, signal_losses
from inrcodec.meta.context import gradient_norm_score
from inrcodec.meta.search import PointScores
from inrcodec.meta.search import search as coarse_to_fine

SHARES = (0.01, 0.05)
BREADTHS = (1.0, 2.0, 4.0)
LARGER = 4
"""Times a training patch along every axis: the few points of a small share must be many."""

Choice = Callable[[PointScores, int, tuple[int, ...], int], Tensor]
"""Of a batch of so many signals of a shape, so many points: [B, keep] indices."""


def search(laboratory: Laboratory) -> Result:
    """Coarse to fine for the highest scores, against scoring every point (GradNCP section 4 leaves it open)."""
    shape = tuple(LARGER * size for size in laboratory.setting.patches.shape)
    choices: dict[str, Choice] = {"all points scored": exact}
    choices |= {f"coarse to fine, breadth {breadth:g}": partial(found, breadth) for breadth in BREADTHS}
    choices["random"] = drawn
    rows: dict[str, Row] = {}
    curves: dict[str, dict[float, float]] = {}
    for share in SHARES:
        for name, choice in choices.items():
            label = f"gamma = {share:g}, {name}"
            rows[label], curves[label] = _adapted(laboratory, shape, max(1, round(share * math.prod(shape))), choice)
    title = f"points of {'x'.join(map(str, shape))} patches with the highest scores, in every step of adaptation"
    return Result(title, rows, [Panel(curves, "adaptation steps", "PSNR of all points, mean, dB")])


def exact(scores: PointScores, batch: int, shape: tuple[int, ...], keep: int) -> Tensor:
    points = torch.arange(math.prod(shape)).expand(batch, -1)
    return scores(points).topk(keep, dim=1).indices


def found(breadth: float, scores: PointScores, batch: int, shape: tuple[int, ...], keep: int) -> Tensor:
    return coarse_to_fine(scores, shape, keep, batch=batch, breadth=breadth)


def drawn(scores: PointScores, batch: int, shape: tuple[int, ...], keep: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((batch, math.prod(shape)), generator=generator).topk(keep, dim=1).indices


def _adapted(
    laboratory: Laboratory, shape: tuple[int, ...], keep: int, choice: Choice
) -> tuple[Row, dict[float, float]]:
    """What adaptation on chosen points reaches, how many of the best ones they are, and how many are scored."""
    model = laboratory.setting.model
    learned = laboratory.learn("GradNCP", laboratory.setting.training)
    signals = laboratory.patches_of(laboratory.data.held_out, shape)
    batch, points = signals.values.shape[:2]
    theta = batch_parameters(model, learned.theta_0, batch)
    scored = common = 0
    curve: dict[float, float] = {}
    for step in range(learned.training.adaptation.steps + 1):

        def scores(chosen: Tensor, theta: dict[str, Tensor] = theta) -> Tensor:
            nonlocal scored
            scored += chosen.shape[1]
            with torch.no_grad():
                return gradient_norm_score(model, theta, signals.select(chosen.to(laboratory.device))).cpu()

        with torch.no_grad():
            curve[step] = mean_decibels(signal_losses(model, theta, signals))
        chosen = choice(scores, batch, shape, keep)
        own = scored
        best = exact(scores, batch, shape, keep)
        scored = own
        common += sum(int(torch.isin(*pair).sum()) for pair in zip(chosen, best, strict=True))
        slopes, _ = gradients(model, theta, signals.select(chosen.to(laboratory.device)))
        theta = descend(theta, slopes, learned.log_step_sizes, step)
    steps = len(curve)
    row: Row = {
        "of the best points, %": 100 * common / (batch * keep * steps),
        "scored, %": 100 * scored / (points * steps),
        f"PSNR after {steps - 1} steps, dB": curve[steps - 1],
    }
    return row, curve
