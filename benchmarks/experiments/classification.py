"""Many-shot classification: pruning of context sets whose points are examples (GradNCP appendix D.10, table 12).

The data are the handwritten digits of scikit-learn, 8x8 pixels: seven classes to meta-learn on, three new ones to
measure on. A task numbers its classes anew; its context set has `SHOTS` examples of each.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experiments.pruned import Bench, Examples, Problem, compared
from experiments.result import Result
from experiments.variants import with_adaptation
from inrcodec.errors import UsageError
from inrcodec.models import Parameters

WAYS, SHOTS, QUERIES = 3, 40, 40
LEARNED = 7
"""Classes that are meta-learned on; the others are measured on."""

TASKS = 40
"""New tasks that are measured on."""

CHANNELS = 16


@dataclass(frozen=True, eq=False)
class Task(Examples):
    """Examples [B, N, 1, 8, 8] and the numbers of their classes [B, N]."""

    images: Tensor
    labels: Tensor


def _digits() -> list[Tensor]:
    """Load images [N, 1, 8, 8] in [0, 1] of every digit. Raises: UsageError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("the digits come with scikit-learn: install inrcodec[benchmark]") from error
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target)
    return [images[labels == digit] for digit in range(10)]


@dataclass(frozen=True, eq=False)
class Digits(Problem[Task]):
    """Tasks of telling classes apart.

    by_class: images [N, 1, 8, 8] of every class; the first `LEARNED` classes are learned from.
    """

    by_class: list[Tensor]

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Draw three convolutions, from 8x8 to 2x2 samples, and a readout."""
        theta = {}
        for name, inputs in (("first", 1), ("second", CHANNELS), ("third", CHANNELS)):
            scale = (2 / (9 * inputs)) ** 0.5
            theta[f"{name}.weight"] = scale * torch.randn((CHANNELS, inputs, 3, 3), generator=generator)
            theta[f"{name}.bias"] = torch.zeros(CHANNELS)
        features = 4 * CHANNELS
        theta["head.weight"] = features**-0.5 * torch.randn((WAYS, features), generator=generator)
        theta["head.bias"] = torch.zeros(WAYS)
        return theta

    def tasks(self, count: int, generator: torch.Generator) -> tuple[Task, Task]:
        return self._tasks(range(LEARNED), count, generator)

    def new_tasks(self, count: int, generator: torch.Generator) -> tuple[Task, Task]:
        """Draw tasks of the classes that are not learned from."""
        return self._tasks(range(LEARNED, len(self.by_class)), count, generator)

    def _tasks(self, classes: range, count: int, generator: torch.Generator) -> tuple[Task, Task]:
        """Draw different examples for context and queries, of classes in random order."""
        parts = []
        for _ in range(count):
            chosen = [classes[i] for i in torch.randperm(len(classes), generator=generator)[:WAYS].tolist()]
            drawn = []
            for number in chosen:
                order = torch.randperm(len(self.by_class[number]), generator=generator)
                drawn.append(self.by_class[number][order[: SHOTS + QUERIES]])
            parts.append(torch.stack(drawn))
        images = torch.stack(parts)
        labels, asked = (torch.arange(WAYS).repeat_interleave(n).expand(count, -1) for n in (SHOTS, QUERIES))
        return Task(images[:, :, :SHOTS].flatten(1, 2), labels), Task(images[:, :, SHOTS:].flatten(1, 2), asked)

    def losses(self, theta: Parameters, examples: Task) -> Tensor:
        """Return the cross entropy."""
        logits = _logits(theta, _features(theta, examples.images))
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), examples.labels, reduction="none").mean(1)

    def scores(self, theta: Parameters, examples: Task, score: str) -> Tensor:
        """Return the norms of errors of the probabilities, or of gradients of the cross entropy in the readout.

        Such a gradient is the outer product of the error of the probabilities and [features, 1].
        """
        with torch.no_grad():
            features = _features(theta, examples.images)
            error = _logits(theta, features).softmax(-1) - torch.nn.functional.one_hot(examples.labels, WAYS)
        size = error.norm(dim=-1)
        return size if score == "error" else size * (features.square().sum(-1) + 1).sqrt()

    def measure(self, theta: Parameters, targets: Task) -> Tensor:
        """Return the accuracy in %."""
        guessed = _logits(theta, _features(theta, targets.images)).argmax(-1)
        return 100 * (guessed == targets.labels).float().mean(1)


def many_shot(bench: Bench) -> Result:
    """Classify three new digits from 40 examples of each (GradNCP table 12)."""
    if bench.scale == "paper":
        raise UsageError("the paper's classes, mini-ImageNet, are not here: many_shot has only --scale small")
    problem = Digits(_digits())
    # A cross entropy has larger gradients than a squared error: with this the distance's are a quarter of them.
    usual = replace(bench.training, inner_step_size=0.1, bootstrap_weight=0.3)
    usual = with_adaptation(usual, steps=8)
    held_out = problem.new_tasks(TASKS, torch.Generator().manual_seed(1))
    title = f"accuracy on {WAYS} new classes of {SHOTS} examples each, mean of {TASKS} tasks, %"
    return compared(problem, usual, held_out, bench, title)


def _features(theta: Parameters, images: Tensor) -> Tensor:
    """Map images [B, N, 1, 8, 8] to [B, N, F]; every task of the batch has networks of its own, so they are groups."""
    batch, count = images.shape[:2]
    hidden = images.transpose(0, 1).flatten(1, 2)
    for name, stride in (("first", 1), ("second", 2), ("third", 2)):
        weight, bias = theta[f"{name}.weight"].flatten(0, 1), theta[f"{name}.bias"].flatten()
        hidden = torch.conv2d(hidden, weight, bias, stride=stride, padding=1, groups=batch).relu()
    return hidden.reshape(count, batch, -1).transpose(0, 1)


def _logits(theta: Parameters, features: Tensor) -> Tensor:
    """Apply the readout: [B, N, F] to [B, N, WAYS]."""
    return features @ theta["head.weight"].transpose(1, 2) + theta["head.bias"][:, None]
