"""The outer loop that all fields have in common: one step of Adam on what was meta-learned, and its state."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inrcodec.errors import Diverged, UsageError
from inrcodec.initialization import Initialization
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import PatchSampler
from inrcodec.meta.distributed import ALONE
from inrcodec.meta.presets import Preset
from inrcodec.models import Field, Parameters
from inrcodec.weights.context_set import ContextSet

MAX_DIVERGED = 20
"""Outer steps in a row without a finite meta-gradient that end a run."""


@dataclass(frozen=True, eq=False)
class OuterLoss:
    """Means over the batch: the meta-objective and its two parts.

    reconstruction: mean squared error. bootstrap: the distance mu to the bootstrap target.
    """

    total: Tensor
    reconstruction: Tensor
    bootstrap: Tensor


@dataclass(frozen=True, eq=False)
class LearnedGroup:
    """Tensors that are learned at one rate, from the outer step `begin` on."""

    tensors: list[Tensor]
    rate: float
    begin: int = 0


class Trainer(ABC):
    """State of a run: what is meta-learned, Adam's moments and the number of outer steps done.

    All randomness of step n comes from (seed, n), so a run resumed from `state` goes on as if it had not stopped.

    processes: those that train together; each has a share of every batch.
    """

    BETAS: ClassVar[tuple[float, float]] = (0.9, 0.999)
    """Adam's."""
    WARM_UP: ClassVar[int] = 0
    """Outer steps in which the rates rise."""
    REMEDY: ClassVar[str]
    """What a user can do where the run diverges."""

    def __init__(
        self, field: Field, config: TrainingConfig, named: dict[str, Parameters], groups: Sequence[LearnedGroup]
    ) -> None:
        """Begin a run.

        named: all tensors of the state, by group and name. groups: those of them that are learned.
        """
        self.field = field
        self.config = config
        self.step = 0
        self.diverged = 0
        self.processes = ALONE
        self._named = named
        self._learned = list(groups)
        self.optimizer = torch.optim.Adam(
            [{"params": group.tensors, "lr": group.rate} for group in self._learned], betas=self.BETAS
        )

    @abstractmethod
    def loss(self, context_set: ContextSet, generator: torch.Generator) -> OuterLoss:
        """Return the loss of a batch, differentiable in all that is learned."""

    @abstractmethod
    def start_from(self, start: Initialization) -> None:
        """Take over the tensors of an initialization that fit. Raises: UsageError if none does."""

    @abstractmethod
    def initialization(
        self, preset: Preset, sampler: PatchSampler, provenance: dict[str, Any], device: torch.device
    ) -> Initialization:
        """Return the initialization that the run has led to."""

    def clipped_together(self) -> list[list[Tensor]]:
        """Return the tensors whose common gradient norm is bounded."""
        return [[tensor for group in self._learned for tensor in group.tensors]]

    def train_step(self, context_set: ContextSet) -> OuterLoss:
        """Take one outer step on a batch, or on this process's share of it; return the loss of the whole batch.

        A batch on which the adaptation diverges (the meta-gradient is not finite) changes nothing.
        Raises: Diverged after `MAX_DIVERGED` such batches in a row.
        """
        warm_up = min(1.0, (self.step + 1) / self.WARM_UP) if self.WARM_UP else 1.0
        for group, learned in zip(self.optimizer.param_groups, self._learned, strict=True):
            group["lr"] = learned.rate * warm_up * scheduled(self.config, self.step, learned.begin)
        generator = torch.Generator().manual_seed((self.config.seed * 1_000_003 + self.step) % 2**63)
        loss = self.loss(context_set, generator)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        loss = OuterLoss(*(part.detach().clone() for part in (loss.total, loss.reconstruction, loss.bootstrap)))
        gradients = [tensor.grad for group in self._learned for tensor in group.tensors if tensor.grad is not None]
        means = [*gradients, loss.total, loss.reconstruction, loss.bootstrap]
        self.processes.average(means, len(context_set.values))
        norms = [torch.nn.utils.clip_grad_norm_(tensors, self.config.clip) for tensors in self.clipped_together()]
        if all(torch.isfinite(norm) for norm in norms):
            self.optimizer.step()
            self.diverged = 0
        else:
            self.diverged += 1
            if self.diverged == MAX_DIVERGED:
                raise Diverged(f"meta-training diverged at outer step {self.step}: {self.REMEDY}")
        self.step += 1
        return loss

    def state(self) -> dict[str, Tensor]:
        """Return everything a later `load_state` needs, as named tensors on the CPU."""
        counts = {name: torch.tensor([value]) for name, value in self.counts().items()}
        return counts | save_tensors(self._named, self.optimizer)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up a `state`. Raises: UsageError if it is another field's."""
        self.load_counts({name: int(tensors[name]) for name in self.counts()})
        load_tensors(tensors, self._named, self.optimizer)

    def counts(self) -> dict[str, int]:
        """Return the numbers of the state."""
        return {"step": self.step, "diverged": self.diverged}

    def load_counts(self, counts: dict[str, int]) -> None:
        """Take up the numbers of a state."""
        self.step, self.diverged = counts["step"], counts["diverged"]


def learned(parameters: Parameters, device: torch.device) -> Parameters:
    """Return tensors on a device, ready to be learned."""
    return {name: value.to(device).requires_grad_() for name, value in parameters.items()}


def take_over(pairs: Sequence[tuple[Parameters, Parameters]]) -> int:
    """Copy found tensors into own ones of the same name and shape; return how many fit."""
    fitting = [
        (value, found[name])
        for own, found in pairs
        for name, value in own.items()
        if name in found and found[name].shape == value.shape
    ]
    for value, found in fitting:
        value.data.copy_(found)
    return len(fitting)


def scheduled(config: TrainingConfig, step: int, begin: int = 0) -> float:
    """Return what the rates are multiplied by at a step, for what is learned from step `begin` to the end."""
    if config.schedule == "constant":
        return 1.0
    done = (step - begin) / max(config.outer_steps - begin, 1)
    return 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def save_tensors(groups: dict[str, Parameters], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return named groups of parameters and their optimizer's moments, as named tensors on the CPU."""
    tensors = {}
    for kind, parameters in groups.items():
        for name, value in parameters.items():
            tensors[f"{kind}/{name}"] = value.detach().cpu().clone()
            for moment, tensor in optimizer.state.get(value, {}).items():
                tensors[f"{kind}/{name}/adam/{moment}"] = tensor.detach().cpu().clone()
    return tensors


def load_tensors(tensors: dict[str, Tensor], groups: dict[str, Parameters], optimizer: torch.optim.Optimizer) -> None:
    """Undo `save_tensors`, in place. Raises: UsageError if the tensors do not fit."""
    for kind, parameters in groups.items():
        for name, value in parameters.items():
            saved = tensors.get(f"{kind}/{name}")
            if saved is None or saved.shape != value.shape:
                found = "not there" if saved is None else f"of shape {tuple(saved.shape)}"
                raise UsageError(
                    f"the checkpoint does not fit this field: {kind} {name} is {found}, the field's is of shape "
                    f"{tuple(value.shape)}; resume with the settings of the run that wrote it"
                )
            value.data.copy_(saved)
            moments = {
                key.rsplit("/", 1)[1]: tensor.clone()
                for key, tensor in tensors.items()
                if key.startswith(f"{kind}/{name}/adam/")
            }
            if moments:
                optimizer.state[value] = {
                    moment: tensor if moment == "step" else tensor.to(value.device)
                    for moment, tensor in moments.items()
                }
