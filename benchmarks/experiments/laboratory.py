"""Where variants are trained, kept and measured."""

import hashlib
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import report
import safetensors.torch
import torch
from torch import Tensor

from experiments.curves import Curve, best_of, decibels, joined, slices
from experiments.learned import Learned, history_of, named_tensors
from experiments.memory import peak_memory
from experiments.settings import Setting
from inrcodec import __version__
from inrcodec.adaptation import SHARED
from inrcodec.cli.console import ProgressLine
from inrcodec.device import without_denormals
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.evaluation import RANDOM_STEP_SIZES
from inrcodec.meta.weight_trainer import WeightTrainer, bootstrap_target
from inrcodec.models import Parameters
from inrcodec.settings import Rescaling
from inrcodec.signals import write_whole
from inrcodec.signals.signal import Signal
from inrcodec.weights.adaptation import adapt, adapt_for_training, batch_parameters, descend, gradients, signal_losses
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import prune

SNAPSHOTS = 8
"""Times during a training at which what is learned is kept."""

TIMED = 5
"""Outer steps of a variant whose time is taken."""

FEW = 5
"""Held-out signals below which a table says little."""


class Laboratory:
    """A setting with its data, where variants are trained and measured.

    source: a hash of the data. folder: trained variants are kept there under a hash of all that made them, so
    that experiments share them, and one that was stopped goes on with the next variant. Raises: UsageError if it cannot
    be made.
    """

    def __init__(
        self,
        setting: Setting,
        data: TrainingData,
        source: str,
        folder: Path,
        device: torch.device,
        progress: ProgressLine,
    ) -> None:
        self.setting = setting
        self.data = data
        self.device = device
        self.progress = progress
        self._folder = report.output_folder(folder)
        self._sampler = PatchSampler(data.training, setting.patches, setting.field.out_features, setting.training.seed)
        held_out = self._held_out_sampler(data.held_out, setting.patches.shape)
        self.held_out = held_out.batch(0, setting.held_out).context_set(device)
        self._signals = len(held_out.signals)
        if self._signals < FEW:
            report.say(f"only {self._signals} signals are held out: give more with --data or --validation")
        self._made_of = {
            "inrcodec": __version__,
            "torch": torch.__version__,
            "data": source,
            "field": repr(setting.field),
            "patches": repr(setting.patches),
            "machine": [device.type, report.machine()["gpu" if device.type == "cuda" else "processor"]],
            "threads": torch.get_num_threads(),
        }

    @property
    def described(self) -> str:
        """The patches that are measured on, in words."""
        return f"{len(self.held_out.values)} patches of {self._signals} held-out signals"

    def patches_of(self, signals: Sequence[Signal], shape: tuple[int, ...] | None = None) -> ContextSet:
        """Draw patches to measure on; those that are trained on may have another shape."""
        sampler = self._held_out_sampler(signals, shape or self.setting.patches.shape)
        return sampler.batch(0, self.setting.held_out).context_set(self.device)

    def _held_out_sampler(self, signals: Sequence[Signal], shape: tuple[int, ...]) -> PatchSampler:
        patches = replace(self.setting.patches, shape=shape)
        return PatchSampler(signals, patches, self.setting.field.out_features, seed=1)

    def stills_of(self, signals: Sequence[Signal]) -> ContextSet:
        """Draw patches of pictures for a field of videos, which is asked for them in the middle of its time."""
        _, *shape = self.setting.patches.shape
        patches = replace(self.setting.patches, shape=tuple(shape), overlap=(0, 0))
        sampler = PatchSampler(signals, patches, self.setting.field.out_features, seed=1)
        found = sampler.batch(0, self.setting.held_out).context_set(self.device)
        times = torch.zeros_like(found.coordinates[..., :1])
        return ContextSet(torch.cat((times, found.coordinates), -1), found.values)

    def batch(self, step: int) -> ContextSet:
        """Draw what is learned from in an outer step."""
        return self._sampler.batch(step, self.setting.training.batch).context_set(self.device)

    def learn(self, name: str, training: TrainingConfig) -> Learned:
        """Train a variant, or read it where it was trained before. `name` is for who waits."""
        return self.history(name, training)[-1]

    def history(self, name: str, training: TrainingConfig) -> list[Learned]:
        """Return what a variant had learned at `SNAPSHOTS` times, the last one the end of its training.

        Raises: Diverged.
        """
        made_of = json.dumps({**self._made_of, "training": asdict(training)}, sort_keys=True)
        path = self._folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.safetensors"
        try:
            return history_of(training, safetensors.torch.load_file(path, str(self.device)))
        except FileNotFoundError:
            pass
        except (OSError, safetensors.SafetensorError) as error:
            report.say(f"{path} cannot be read and is made again: {error}")
        tensors = named_tensors(self._train(name, training))
        write_whole(path, lambda part: safetensors.torch.save_file(tensors, part, {"made of": made_of}))
        return history_of(training, safetensors.torch.load_file(path, str(self.device)))

    def _train(self, name: str, training: TrainingConfig) -> list[Learned]:
        trainer = WeightTrainer(self.setting.field, training, self.device)
        marks = {max(1, training.outer_steps * (n + 1) // SNAPSHOTS) for n in range(SNAPSHOTS)}
        history: list[Learned] = []
        running = 0.0
        with without_denormals():
            while trainer.step < training.outer_steps:
                loss = trainer.train_step(self.batch(trainer.step))
                psnr = float(decibels(loss.reconstruction))
                running = psnr if trainer.step == 1 else 0.95 * running + 0.05 * psnr
                self.progress.update(name, trainer.step, training.outer_steps, f"{running:.2f} dB")
                if trainer.step in marks:
                    history.append(Learned.of(trainer))
        return history

    def random(self, step_size: float) -> Learned:
        """Return the field from a random initialization, with plain gradient descent."""
        theta_0 = self.setting.field.initialize(torch.Generator().manual_seed(1))
        training = replace(self.setting.training, outer_steps=0)
        sizes = {SHARED: torch.tensor([step_size], device=self.device).log()}
        return Learned(training, 0, {name: value.to(self.device) for name, value in theta_0.items()}, sizes)

    def random_curve(self, marks: Iterable[int], held_out: ContextSet | None = None) -> Curve:
        """Return the curve of `random`, every number of steps at the best of `RANDOM_STEP_SIZES`."""
        starts = [self.random(size) for size in RANDOM_STEP_SIZES]
        return best_of([self.curve(start, marks, rescaling="none", held_out=held_out) for start in starts])

    def seconds_per_step(self, variants: Mapping[str, TrainingConfig]) -> dict[str, float]:
        """Return the median time of an outer step of every variant.

        They take turns, so that what else runs disturbs all alike.
        """
        trainers = {name: WeightTrainer(self.setting.field, each, self.device) for name, each in variants.items()}
        times: dict[str, list[float]] = {name: [] for name in variants}
        with without_denormals():
            for turn in range(TIMED + 1):  # the first warms up
                batch = self.batch(turn)
                for name, trainer in trainers.items():
                    began = time.monotonic()
                    float(trainer.train_step(batch).total)
                    times[name].append(time.monotonic() - began)
        return {name: statistics.median(found[1:]) for name, found in times.items()}

    def peak_memory(self, training: TrainingConfig) -> float:
        """Return the MiB that an outer step needs beyond what there is before it."""
        trainer = WeightTrainer(self.setting.field, training, self.device)
        batch = self.batch(0)
        trainer.train_step(batch)  # the first one makes Adam's moments
        return peak_memory(lambda: trainer.train_step(batch), self.device)

    def curve(
        self,
        learned: Learned,
        marks: Iterable[int],
        *,
        rescaling: Rescaling = "exact",
        held_out: ContextSet | None = None,
    ) -> Curve:
        """Return the PSNR of held-out patches after numbers of adaptation steps on the full context set."""
        wanted = set(marks)
        parts: list[Curve] = []
        for context_set in slices(self.held_out if held_out is None else held_out):
            reached: Curve = {}

            def on_step(step: int, theta: Parameters, losses: Tensor, reached: Curve = reached) -> None:
                if step in wanted:
                    reached[step] = decibels(losses)

            adapt(
                self.setting.field,
                learned.theta_0,
                learned.log_step_sizes,
                context_set,
                learned.training.adaptation,
                steps=max(wanted),
                rescaling=rescaling,
                on_step=on_step,
            )
            parts.append(reached)
        return joined(parts)

    def shown(self, learned: Learned, steps: int) -> Tensor:
        """Return what the held-out patches look like after adaptation: values [P, N, C]."""
        field, adaptation = self.setting.field, learned.training.adaptation
        parts = []
        for context_set in slices(self.held_out):
            theta = adapt(field, learned.theta_0, learned.log_step_sizes, context_set, adaptation, steps=steps)
            with torch.no_grad():
                parts.append(field(theta, context_set.coordinates))
        return torch.cat(parts)

    def bootstrapped(self, learned: Learned) -> tuple[float, float]:
        """Return the mean PSNR of held-out patches after the K steps of training, and of their bootstrap target."""
        field, sizes, config = self.setting.field, learned.log_step_sizes, learned.training
        reached, aimed = [], []
        for context_set in slices(self.held_out):
            theta = adapt_for_training(
                field, learned.theta_0, sizes, context_set, config.adaptation, second_order=False
            )
            target = bootstrap_target(field, theta, sizes, context_set, config)
            with torch.no_grad():
                reached.append(decibels(signal_losses(field, theta, context_set)))
                aimed.append(decibels(signal_losses(field, target, context_set)))
        return float(torch.cat(reached).mean()), float(torch.cat(aimed).mean())

    def pruned_steps(self, learned: Learned, context_set: ContextSet) -> Iterator[tuple[Parameters, Parameters]]:
        """Yield theta and the gradient of every step of an adaptation on the pruned context set, as in training."""
        field, adaptation = self.setting.field, learned.training.adaptation
        theta = batch_parameters(field, learned.theta_0, len(context_set.values))
        step = 0
        while True:
            seen = prune(field, theta, context_set, score=adaptation.score, gamma=adaptation.gamma)
            slopes, _ = gradients(field, theta, seen)
            yield theta, slopes
            theta = descend(theta, slopes, learned.log_step_sizes, step)
            step += 1

    def pruned_curve(self, learned: Learned, marks: Iterable[int]) -> Curve:
        """Return what `curve` does, with adaptation on the pruned context set."""
        wanted = set(marks)
        parts = []
        for context_set in slices(self.held_out):
            reached = {}
            for step, (theta, _) in zip(range(max(wanted) + 1), self.pruned_steps(learned, context_set), strict=False):
                if step in wanted:
                    with torch.no_grad():
                        reached[step] = decibels(signal_losses(self.setting.field, theta, context_set))
            parts.append(reached)
        return joined(parts)
