"""A meta-training run from signals to a published initialization: outer loop, checkpoints, evaluation, card."""

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from inrcodec import __version__
from inrcodec.device import without_denormals
from inrcodec.initialization import Initialization
from inrcodec.meta.card import model_card
from inrcodec.meta.checkpoint import checkpoint_of, load_checkpoint, read_checkpoint, save_checkpoint
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.distributed import ALONE, Processes
from inrcodec.meta.evaluation import evaluate
from inrcodec.meta.presets import Preset
from inrcodec.meta.trainer import Trainer
from inrcodec.meta.trainers import trainer_of
from inrcodec.signals import write_whole

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run.

    step: outer steps done of `steps`. psnr: of the running mean of the error after adaptation, in dB; of weight fields
        that of normalized patches.
    """

    step: int
    steps: int
    psnr: float
    bootstrap: float


def meta_train(
    preset: Preset,
    data: TrainingData,
    output: Path,
    *,
    source: str,
    start: Initialization | None = None,
    resume: bool = False,
    device: torch.device | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    processes: Processes = ALONE,
) -> Initialization | None:
    """Meta-learn an initialization and write it to `output`, its model card beside it.

    A checkpoint beside the output is written every minute and at the end; `resume` goes on from there, with the
    same result as if the run had not been cut.
    source: what the data is, for the card.
    start: an initialization to go on from: its tensors of the same names and shapes, beside random ones.
    processes: those that train together, with the same arguments but for `device`. The first one reads and writes the
        files. However many there are, the result is the same, but for the rounding of sums.
    Returns the initialization; in other processes than the first, None.
    Raises: UsageError if nothing of `start` fits the field, the settings differ from those of the checkpoint or between
    processes, or training diverges; ProcessLost if another process has ended.
    """
    device = device or torch.device("cpu")
    patches, outputs = preset.training_patches, preset.field.out_features
    sampler = PatchSampler(data.training, patches, outputs, preset.training.seed, smaller=preset.smaller)
    held_out = PatchSampler(data.held_out, patches, outputs, seed=1, smaller=preset.smaller)
    settings = _settings(preset, start)
    processes.check_batch(preset.training.batch)
    processes.check_same("settings", json.dumps(settings, sort_keys=True))
    processes.check_same("signals", str([signal.shape for signal in data.training]))
    trainer = trainer_of(preset, start, device)
    trainer.processes = processes
    checkpoint = checkpoint_of(output)
    seconds = 0.0
    if resume:
        content = processes.content(lambda: read_checkpoint(checkpoint))
        seconds = load_checkpoint(trainer, settings, content, checkpoint)
    if processes.first:  # so that a run cut in its first minute can be resumed too
        save_checkpoint(trainer, settings, checkpoint, seconds)
    seconds = _train(trainer, settings, sampler, checkpoint, seconds, device, on_progress)
    processes.leave()
    if not processes.first:
        return None
    provenance = {
        "data": source,
        "files": data.files,
        "start": None if start is None else start.identifier.hex(),
        "training": _plain(asdict(preset.training)),
        "seconds": round(seconds),
        "device": str(device),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads{_each_of(processes.count)}",
        "torch": torch.__version__,
        "inrcodec": __version__,
    }
    initialization = trainer.initialization(preset, sampler, provenance, device)
    evaluation = evaluate(initialization, held_out, device).to_json()
    initialization = replace(initialization, provenance=provenance | {"evaluation": evaluation})
    write_whole(output, lambda path: path.write_bytes(initialization.to_bytes()))
    card = output.with_name(output.stem + ".md")
    write_whole(card, lambda path: path.write_text(model_card(output.stem, initialization)))
    return initialization


def _train(
    trainer: Trainer,
    settings: dict[str, Any],
    sampler: PatchSampler,
    checkpoint: Path,
    seconds: float,
    device: torch.device,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> float:
    """Take all outer steps that are left, with checkpoints; return the seconds trained in all."""
    config, processes = trainer.config, trainer.processes
    began = saved = time.monotonic()
    running: float | None = None
    with without_denormals():
        while trainer.step < config.outer_steps:
            patches = sampler.batch(trainer.step, config.batch, processes.share)
            loss = trainer.train_step(patches.context_set(device))
            error = float(loss.reconstruction)
            running = error if running is None else 0.99 * running + 0.01 * error
            if on_progress is not None:
                psnr = -10 * math.log10(max(running, 1e-30))
                on_progress(TrainingProgress(trainer.step, config.outer_steps, psnr, float(loss.bootstrap)))
            if processes.first and time.monotonic() - saved > CHECKPOINT_SECONDS:
                saved = time.monotonic()
                save_checkpoint(trainer, settings, checkpoint, seconds + saved - began)
    seconds += time.monotonic() - began
    if processes.first:
        save_checkpoint(trainer, settings, checkpoint, seconds)
    return seconds


def _each_of(processes: int) -> str:
    return f" in each of {processes} processes" if processes > 1 else ""


def _settings(preset: Preset, start: Initialization | None) -> dict[str, Any]:
    """Return what a run depends on beside its data, as JSON has it."""
    return _plain(
        {
            "field": {"name": preset.field.name, **asdict(preset.field)},
            "patches": asdict(preset.patches),
            "training": asdict(preset.training),
            "preset": {"crop": preset.crop, "hidden": preset.hidden, "smaller": preset.smaller},
            "start": {"identifier": None if start is None else start.identifier.hex()},
        }
    )


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(settings)))
