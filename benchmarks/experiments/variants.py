"""Settings of trainings that are compared: what GradNCP's become without a part of it, or with another."""

from dataclasses import replace
from typing import Any

from inrcodec.meta.config import TrainingConfig
from inrcodec.settings import AdaptationConfig


def without_bootstrap(training: TrainingConfig) -> TrainingConfig:
    """Leave the bootstrap target out."""
    return replace(training, bootstrap_steps=0)


def with_adaptation(training: TrainingConfig, **changes: Any) -> TrainingConfig:
    """Change settings of the inner loop."""
    return replace(training, adaptation=replace(training.adaptation, **changes))


def learnit(training: TrainingConfig, steps: int) -> TrainingConfig:
    """Return second-order MAML on the full context set (Tancik et al. 2021)."""
    return replace(without_bootstrap(training), adaptation=AdaptationConfig.unpruned(steps))


def against_learnit(training: TrainingConfig) -> dict[str, TrainingConfig]:
    """Return GradNCP's settings, last, and those of Learnit with the same memory or the same K."""
    steps, gamma = training.adaptation.steps, training.adaptation.gamma
    return {
        "Learnit, equal memory": learnit(training, max(1, round(steps * gamma))),
        "Learnit, equal K": learnit(training, steps),
        "GradNCP": training,
    }
