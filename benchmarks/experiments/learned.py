"""What a variant has learned, and how it is kept in a file."""

from dataclasses import dataclass

import torch
from torch import Tensor

from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.weight_trainer import WeightTrainer
from inrcodec.models import Parameters


@dataclass(frozen=True, eq=False)
class Learned:
    """What a variant has learned by an outer step.

    training: the settings it was trained with.
    """

    training: TrainingConfig
    step: int
    theta_0: Parameters
    log_step_sizes: Parameters

    @classmethod
    def of(cls, trainer: WeightTrainer) -> "Learned":
        """Copy what a trainer has learned so far."""
        return cls(trainer.config, trainer.step, _copied(trainer.theta_0), _copied(trainer.log_step_sizes))


def _copied(parameters: Parameters) -> Parameters:
    return {name: value.detach().cpu().clone() for name, value in parameters.items()}


def named_tensors(history: list[Learned]) -> dict[str, Tensor]:
    """Return a history as named tensors for a file."""
    tensors = {}
    for number, learned in enumerate(history):
        tensors[f"{number}/step"] = torch.tensor(learned.step)
        tensors |= {f"{number}/theta_0/{name}": value for name, value in learned.theta_0.items()}
        tensors |= {f"{number}/step_sizes/{name}": value for name, value in learned.log_step_sizes.items()}
    return tensors


def history_of(training: TrainingConfig, tensors: dict[str, Tensor]) -> list[Learned]:
    """Undo `named_tensors`."""

    def part(number: int, kind: str) -> Parameters:
        prefix = f"{number}/{kind}/"
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    history: list[Learned] = []
    while (step := tensors.get(f"{len(history)}/step")) is not None:
        number = len(history)
        history.append(Learned(training, int(step), part(number, "theta_0"), part(number, "step_sizes")))
    return history
