"""The method for problems other than fields that see all of a signal: the context set is not what is measured on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from experiments.curves import Curve, best_of, means
from experiments.result import Panel, Result, Row
from experiments.settings import Scale
from experiments.tables import attempt, standard_error
from experiments.variants import learnit, with_adaptation, without_bootstrap
from inrcodec.cli.console import ProgressLine
from inrcodec.device import without_denormals
from inrcodec.errors import Diverged
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.evaluation import RANDOM_STEP_SIZES
from inrcodec.meta.trainer import MAX_DIVERGED, scheduled
from inrcodec.meta.weight_trainer import parameter_distance
from inrcodec.models import Parameters
from inrcodec.weights.adaptation import gradient_norm, per_signal, rescaling_factor
from inrcodec.weights.pruning import generators_of, random_scores, top_share


@dataclass(frozen=True, eq=False)
class Examples:
    """Context points of a batch of tasks; every attribute is a tensor [B, N, ...]."""

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, each.name) for each in fields(self)]

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self._tensors()[0])

    @property
    def points(self) -> int:
        """The number of points of a task."""
        return self._tensors()[0].shape[1]

    def select(self, points: Tensor) -> Self:
        """Return the subset at [B, n] indices."""
        return type(self)(*(_taken(each, points) for each in self._tensors()))

    def to(self, device: torch.device) -> Self:
        """Return the same on a device."""
        return type(self)(*(each.to(device) for each in self._tensors()))


def _taken(values: Tensor, points: Tensor) -> Tensor:
    where = points.reshape(*points.shape, *[1] * (values.dim() - 2))
    return values.gather(1, where.expand(-1, -1, *values.shape[2:]))


E = TypeVar("E", bound=Examples)


class Problem(ABC, Generic[E]):
    """What is learned: tasks of a context set and of targets that are not in it."""

    @property
    def constants(self) -> frozenset[str]:
        """Parameters that are the same for all tasks."""
        return frozenset()

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> Parameters:
        """Draw a random theta_0."""

    @abstractmethod
    def tasks(self, count: int, generator: torch.Generator) -> tuple[E, E]:
        """Draw context sets and targets to learn from."""

    @abstractmethod
    def losses(self, theta: Parameters, examples: E) -> Tensor:
        """Return means over points, [B]."""

    @abstractmethod
    def scores(self, theta: Parameters, examples: E, score: str) -> Tensor:
        """Return the "error" or "grad-norm" scores of points, [B, N]."""

    @abstractmethod
    def measure(self, theta: Parameters, targets: E) -> Tensor:
        """Return what a table shows the mean of, the more the better: [B]."""


@dataclass(frozen=True)
class Bench:
    """Where problems are learned.

    training: GradNCP's settings at a scale.
    """

    training: TrainingConfig
    scale: Scale
    device: torch.device
    progress: ProgressLine


def compared(problem: Problem[E], usual: TrainingConfig, held_out: tuple[E, E], bench: Bench, title: str) -> Result:
    """Compare GradNCP, parts of it, MAML and a random start after some steps on held-out context sets.

    title: what `Problem.measure` gives, and its unit.
    """
    steps, gamma = usual.adaptation.steps, usual.adaptation.gamma
    variants = {
        "MAML (Learnit), equal memory": learnit(usual, max(1, round(steps * gamma))),
        "MAML (Learnit), equal K": learnit(usual, steps),
        "random pruning": with_adaptation(without_bootstrap(usual), score="random"),
        "error pruning": with_adaptation(without_bootstrap(usual), score="error"),
        "gradient-norm pruning": without_bootstrap(usual),
        "GradNCP": usual,
    }
    marks = (0, steps // 4, steps, 4 * steps)
    context_set, targets = (each.to(bench.device) for each in held_out)
    theta_0 = problem.initialize(torch.Generator().manual_seed(usual.seed))
    theta_0 = {name: value.to(bench.device) for name, value in theta_0.items()}
    trials = []
    for size in RANDOM_STEP_SIZES:
        plain = replace(learnit(usual, steps), inner_step_size=size)
        trials.append(adapted_curve(problem, theta_0, plain, context_set, targets, marks))
    curves = {"random initialization": best_of(trials)}
    rows: dict[str, Row] = {}
    for name, training in variants.items():
        theta_0 = attempt(partial(meta_learn, name, problem, training, bench))
        if isinstance(theta_0, str):
            rows[name] = {f"{mark} steps": theta_0 for mark in marks}
        else:
            curves[name] = adapted_curve(problem, theta_0, training, context_set, targets, marks)
    for name, curve in curves.items():
        rows[name] = {f"{mark} steps": found for mark, found in means(curve).items()}
        if name != "GradNCP" and "GradNCP" in curves:
            rows[name]["±"] = standard_error(curve[steps] - curves["GradNCP"][steps])
    notes = [
        f"K = {steps}, inner step size {usual.inner_step_size:g}, outer {usual.outer_step_size:g}",
        f"±: standard error over tasks of the difference to GradNCP after {steps} steps",
    ]
    panel = Panel({name: means(curve) for name, curve in curves.items()}, "adaptation steps", title)
    return Result(title, {name: rows[name] for name in (*curves, *variants)}, [panel], notes, variants)


def meta_learn(name: str, problem: Problem[E], training: TrainingConfig, bench: Bench) -> Parameters:
    """Learn theta_0 (GradNCP algorithm 1) from the loss of the targets and the distance to a bootstrap target.

    Raises: Diverged after `MAX_DIVERGED` batches in a row without a finite gradient.
    """
    start = problem.initialize(torch.Generator().manual_seed(training.seed))
    theta_0 = {key: value.to(bench.device).requires_grad_(key not in problem.constants) for key, value in start.items()}
    learned = [value for value in theta_0.values() if value.requires_grad]
    optimizer = torch.optim.Adam(learned, training.outer_step_size)
    diverged = 0
    with without_denormals():
        for step in range(training.outer_steps):
            generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
            context_set, targets = (each.to(bench.device) for each in problem.tasks(training.batch, generator))
            generators = generators_of(generator, range(training.batch))
            total = _outer_loss(problem, theta_0, context_set, targets, training, generators)
            for group in optimizer.param_groups:
                group["lr"] = training.outer_step_size * scheduled(training, step)
            optimizer.zero_grad()
            total.backward()
            if torch.nn.utils.clip_grad_norm_(learned, training.clip).isfinite():
                optimizer.step()
                diverged = 0
            else:
                diverged += 1
                if diverged == MAX_DIVERGED:
                    raise Diverged(f"{name}: meta-training diverged at outer step {step}")
            bench.progress.update(name, step + 1, training.outer_steps, f"loss {float(total.detach()):.4f}")
    return _detached(theta_0)


def _outer_loss(
    problem: Problem[E],
    theta_0: Parameters,
    context_set: E,
    targets: E,
    training: TrainingConfig,
    generators: list[torch.Generator],
) -> Tensor:
    theta = _repeated(problem, theta_0, training.batch)
    for _ in range(training.adaptation.steps):
        seen = _pruned(problem, theta, context_set, training, generators)
        theta = _descended(theta, _slopes(problem, theta, seen, create_graph=True), training.inner_step_size)
    loss = problem.losses(theta, targets).mean()
    if training.bootstrap_steps == 0:
        return loss
    target = _detached(theta)
    for _ in range(training.bootstrap_steps):
        size = training.bootstrap_step_ratio * training.inner_step_size
        target = _detached(_descended(target, _slopes(problem, target, context_set), size))
    return loss + training.bootstrap_weight * parameter_distance(theta, target, problem.constants).mean()


def adapted_curve(
    problem: Problem[E],
    theta_0: Parameters,
    training: TrainingConfig,
    context_set: E,
    targets: E,
    marks: tuple[int, ...],
) -> Curve:
    """Measure tasks after adaptation to the full context set, with the norm of the pruned gradients (algorithm 2)."""
    theta = _repeated(problem, theta_0, len(context_set))
    reached: Curve = {}
    for step in range(max(marks) + 1):
        if step in marks:
            with torch.no_grad():
                reached[step] = problem.measure(theta, targets)
        slopes = _slopes(problem, theta, context_set)
        if training.adaptation.prunes_by_score:
            pruned = _slopes(problem, theta, _pruned(problem, theta, context_set, training, None))
            factor = rescaling_factor(gradient_norm(pruned.values()), gradient_norm(slopes.values()))
            slopes = {key: slope * per_signal(factor, slope) for key, slope in slopes.items()}
        theta = _detached(_descended(theta, slopes, training.inner_step_size))
    return reached


def _repeated(problem: Problem[E], theta_0: Parameters, batch: int) -> Parameters:
    return {
        key: value if key in problem.constants else value.expand(batch, *value.shape) for key, value in theta_0.items()
    }


def _pruned(
    problem: Problem[E],
    theta: Parameters,
    context_set: E,
    training: TrainingConfig,
    generators: list[torch.Generator] | None,
) -> E:
    adaptation = training.adaptation
    if adaptation.score == "full":
        return context_set
    if adaptation.score == "random":
        ranking = random_scores(len(context_set), context_set.points, generators, theta["head.weight"])
    else:
        ranking = problem.scores(_detached(theta), context_set, adaptation.score)
    return context_set.select(top_share(ranking, adaptation.gamma))


def _slopes(problem: Problem[E], theta: Parameters, examples: E, *, create_graph: bool = False) -> Parameters:
    adapted = {key: value for key, value in theta.items() if key not in problem.constants}
    if not create_graph:
        adapted = {key: value.detach().requires_grad_() for key, value in adapted.items()}
    loss = problem.losses({**theta, **adapted}, examples).sum()
    slopes = torch.autograd.grad(loss, list(adapted.values()), create_graph=create_graph)
    return dict(zip(adapted, slopes, strict=True))


def _descended(theta: Parameters, slopes: Parameters, step_size: float) -> Parameters:
    return {key: value - step_size * slopes[key] if key in slopes else value for key, value in theta.items()}


def _detached(theta: Parameters) -> Parameters:
    return {key: value.detach() for key, value in theta.items()}
