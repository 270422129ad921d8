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
from inrcodec.meta.checkpoint import checkpoint_of, load_checkpoint, save_checkpoint
from inrcodec.meta.data import PatchSampler, TrainingData
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
) -> Initialization:
    """Meta-learn an initialization and write it to `output`, its model card beside it.

    A checkpoint beside the output is written every minute and at the end; `resume` goes on from there, with the
    same result as if the run had not been cut.
    source: what the data is, for the card.
    start: an initialization to go on from: its tensors of the same names and shapes, beside random ones.
    Raises: UsageError if nothing of `start` fits the field, the settings differ from those of the checkpoint, or
    training diverges.
    """
    device = device or torch.device("cpu")
    patches, outputs = preset.training_patches, preset.field.out_features
    sampler = PatchSampler(data.training, patches, outputs, preset.training.seed, smaller=preset.smaller)
    held_out = PatchSampler(data.held_out, patches, outputs, seed=1, smaller=preset.smaller)
    trainer = trainer_of(preset, start, device)
    settings = _settings(preset, start)
    checkpoint = checkpoint_of(output)
    seconds = load_checkpoint(trainer, settings, checkpoint) if resume else 0.0
    save_checkpoint(trainer, settings, checkpoint, seconds)  # so that a run cut in its first minute can be resumed too
    seconds = _train(trainer, settings, sampler, checkpoint, seconds, device, on_progress)
    provenance = {
        "data": source,
        "files": data.files,
        "start": None if start is None else start.identifier.hex(),
        "training": _plain(asdict(preset.training)),
        "seconds": round(seconds),
        "device": str(device),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
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
    config = trainer.config
    began = saved = time.monotonic()
    running: float | None = None
    with without_denormals():
        while trainer.step < config.outer_steps:
            loss = trainer.train_step(sampler.batch(trainer.step, config.batch).context_set(device))
            error = float(loss.reconstruction)
            running = error if running is None else 0.99 * running + 0.01 * error
            if on_progress is not None:
                psnr = -10 * math.log10(max(running, 1e-30))
                on_progress(TrainingProgress(trainer.step, config.outer_steps, psnr, float(loss.bootstrap)))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                saved = time.monotonic()
                save_checkpoint(trainer, settings, checkpoint, seconds + saved - began)
    seconds += time.monotonic() - began
    save_checkpoint(trainer, settings, checkpoint, seconds)
    return seconds


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
