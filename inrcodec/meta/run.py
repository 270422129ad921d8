"""A meta-training run from files to a published initialization: data, checkpoints, coding prior, card."""

import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from inrcodec import __version__
from inrcodec.coding.context_model import WEIGHT_UNIT
from inrcodec.coding.rate_distortion import STEP_LIMIT, choose_quantizer
from inrcodec.device import without_denormals
from inrcodec.errors import InrcodecError, UsageError
from inrcodec.meta.card import model_card
from inrcodec.meta.clip_training import ClipTrainer
from inrcodec.meta.data import PatchSampler
from inrcodec.meta.evaluation import evaluate
from inrcodec.meta.initialization import CodingPrior, ContextPrior, Initialization
from inrcodec.meta.presets import Preset
from inrcodec.meta.pyramid_training import PyramidTrainer
from inrcodec.meta.training import MetaTrainer, TrainingConfig
from inrcodec.models import LatentClip, LatentField, Parameters
from inrcodec.options import EncodeOptions, trade_off_of_quality
from inrcodec.signals import find_files, read, write_whole
from inrcodec.signals.signal import Signal
from inrcodec.weight_fields import adapt_patches

CHECKPOINT_SECONDS = 60.0
PRIOR_PATCHES = 512


@dataclass(frozen=True)
class TrainingProgress:
    """One outer step: how many are done, and the running PSNR at theta_K of normalized patches, in dB."""

    step: int
    steps: int
    psnr: float
    bootstrap: float


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Signals to learn from, signals to evaluate on, and the files that could not be read, with the reason."""

    training: list[Signal]
    held_out: list[Signal]
    files: int
    unreadable: dict[str, str]


def load_data(folder: Path, modality: str, validation: Path | None = None) -> TrainingData:
    """All signals of a modality below a folder; without a validation folder, every tenth file is held out.

    Raises: UsageError if there are too few files.
    """
    files = find_files(folder, modality)
    held_out = find_files(validation, modality) if validation else files[::10]
    apart = {path.resolve() for path in held_out}
    training = [path for path in files if path.resolve() not in apart]
    if not held_out and validation:
        raise UsageError(f"{validation} has no files of {modality} to evaluate on")
    if not training and len(files) > 1:
        raise UsageError(f"all files of {modality} in {folder} are in {validation} too: none is left to learn from")
    if not training or not held_out:
        raise UsageError(f"{folder} has {len(files)} files of {modality}: give two or more, one to hold out")
    unreadable: dict[str, str] = {}

    def load(paths: Sequence[Path]) -> list[Signal]:
        signals = []
        for path in paths:
            try:
                signals += [signal for signal in read(path, modality) if signal.modality == modality]
            except InrcodecError as error:
                unreadable[str(path)] = str(error)
        return signals

    data = TrainingData(load(training), load(held_out), len(training), unreadable)
    if not data.training or not data.held_out:
        raise UsageError(f"none of the files in {folder} can be read: {next(iter(unreadable.values()), '')}")
    return data


def meta_train(
    modality: str,
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
    config = preset.training
    sampler = PatchSampler(data.training, preset.training_patches, preset.model.out_features, config.seed)
    held_out = PatchSampler(data.held_out, preset.training_patches, preset.model.out_features, seed=1)
    trainer = trainer_of(modality, preset, start, device)
    settings = _settings(preset, start)
    checkpoint = checkpoint_of(output)
    seconds = _resume(trainer, settings, checkpoint) if resume else 0.0
    _save(trainer, settings, checkpoint, seconds)  # so that a run cut in its first minute can be resumed too
    seconds = _train(trainer, preset.training, settings, sampler, checkpoint, seconds, device, on_progress)
    provenance = {
        "data": source,
        "files": data.files,
        "start": None if start is None else start.identifier.hex(),
        "training": asdict(config),
        "seconds": round(seconds),
        "device": str(device),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "inrcodec": __version__,
    }
    if isinstance(trainer, PyramidTrainer):
        initialization = pyramid_initialization(modality, preset, trainer, provenance)
    else:
        initialization = finish(modality, preset, trainer, sampler, provenance, device)
    evaluation = evaluate(initialization, held_out, device)
    initialization = replace(initialization, provenance=provenance | {"evaluation": evaluation})
    write_whole(output, lambda path: path.write_bytes(initialization.to_bytes()))
    card = output.with_name(output.stem + ".md")
    write_whole(card, lambda path: path.write_text(model_card(output.stem, initialization)))
    return initialization


def checkpoint_of(output: Path) -> Path:
    """Where a run that writes `output` keeps what it needs to go on."""
    return output.with_name(f"{output.name}.checkpoint")


Trainer = MetaTrainer | PyramidTrainer


def trainer_of(modality: str, preset: Preset, start: Initialization | None, device: torch.device) -> Trainer:
    """What `meta_train` trains with, before its first step. Raises: UsageError if nothing of `start` fits the field."""
    trainer: Trainer
    if isinstance(preset.model, LatentField):
        shape = preset.training_patches.shape
        kind = ClipTrainer if isinstance(preset.model, LatentClip) else PyramidTrainer
        trainer = kind(preset.model, preset.training, shape, preset.hidden or 32, device, preset.squeeze)
    else:
        trainer = MetaTrainer(preset.model, preset.training, device)
    if start is not None:
        _start_from(trainer, start, modality)
    return trainer


def _start_from(trainer: Trainer, start: Initialization, modality: str) -> None:
    """Take over the tensors of an initialization that fit. Raises: UsageError if none does.

    A clip can start from a pyramid for images, whose tensors are those of all its pictures.
    """
    from_pictures = (start.modality, start.model.name) == ("image", "pyramid")
    kinds = trainer.model.kinds if isinstance(trainer.model, LatentClip) and from_pictures else ()
    if start.modality != modality and not kinds:
        raise UsageError(f"the initialization to start from is for {start.modality}, not for {modality}")

    def named(found: Parameters) -> Parameters:
        return {f"{kind}.{name}": value for kind in kinds for name, value in found.items()} if kinds else found

    pairs = [(trainer.theta_0, named(start.theta_0))]
    if isinstance(trainer, PyramidTrainer) and isinstance(start.prior, ContextPrior):
        trained = {name: value.float() / WEIGHT_UNIT for name, value in start.prior.weights.items()}
        pairs.append((trainer.weights, named(trained)))
        trainer.started = True
    if trainer.config.learned_step_sizes != "none":
        pairs.append((trainer.log_step_sizes, start.log_step_sizes))
    fitting = [
        (value, found[name])
        for own, found in pairs
        for name, value in own.items()
        if name in found and found[name].shape == value.shape
    ]
    if not (kinds or trainer.model.name == start.model.name) or not fitting:
        raise UsageError(f"no tensor of the initialization to start from, a {start.model.name}, fits the field")
    for value, found in fitting:
        value.data.copy_(found)


def _train(
    trainer: Trainer,
    config: TrainingConfig,
    settings: dict[str, Any],
    sampler: PatchSampler,
    checkpoint: Path,
    seconds: float,
    device: torch.device,
    on_progress: Callable[[TrainingProgress], None] | None,
) -> float:
    """All outer steps that are left, with checkpoints; returns the seconds trained in all."""
    began = saved = time.monotonic()
    running: float | None = None
    with without_denormals():
        while trainer.step < config.outer_steps:
            loss = trainer.train_step(sampler.batch(trainer.step, config.batch).context(device))
            error = float(loss.reconstruction)
            running = error if running is None else 0.99 * running + 0.01 * error
            if on_progress is not None:
                psnr = -10 * math.log10(max(running, 1e-30))
                on_progress(TrainingProgress(trainer.step, config.outer_steps, psnr, float(loss.bootstrap)))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                saved = time.monotonic()
                _save(trainer, settings, checkpoint, seconds + saved - began)
    seconds += time.monotonic() - began
    _save(trainer, settings, checkpoint, seconds)
    return seconds


def finish(
    modality: str,
    preset: Preset,
    trainer: MetaTrainer,
    sampler: PatchSampler,
    provenance: dict[str, Any],
    device: torch.device,
) -> Initialization:
    """The initialization of a trainer's state, with the coding prior fitted to deltas of training patches."""
    theta_0 = {name: value.detach().cpu() for name, value in trainer.theta_0.items()}
    adapted = [name for name in theta_0 if name not in preset.model.constants]
    initialization = Initialization(
        modality=modality,
        model=preset.model,
        patches=preset.patches,
        adaptation=preset.training.adaptation,
        theta_0=theta_0,
        log_step_sizes={name: value.detach().cpu() for name, value in trainer.log_step_sizes.items()},
        prior=CodingPrior(
            {name: torch.zeros(theta_0[name].shape, dtype=torch.int16) for name in adapted},
            (0,) * len(adapted),
        ),
        provenance=provenance,
    )
    # A step number no training step has: patches that were not seen, from the same files.
    contexts = sampler.batch(1 << 40, PRIOR_PATCHES)
    options = EncodeOptions(device=str(device))
    deltas = adapt_patches(contexts, initialization, options, device)
    scales = np.rint(4 * np.log2(np.abs(deltas).mean(axis=0).clip(1e-12))).astype(np.int16)
    parts = torch.from_numpy(scales).split([theta_0[name].numel() for name in adapted])
    named = {name: part.reshape(theta_0[name].shape).clone() for name, part in zip(adapted, parts, strict=True)}
    start = tuple(max(-STEP_LIMIT, min(STEP_LIMIT, round(float(scale.float().mean())))) for scale in named.values())
    initialization = replace(initialization, prior=CodingPrior(named, start))
    quantizer = choose_quantizer(
        deltas,
        contexts,
        initialization,
        trade_off=trade_off_of_quality(EncodeOptions().quality),
        device=device,
        sample=64,
        moves=(8, 4, 2, 1),
    )
    return replace(initialization, prior=CodingPrior(named, quantizer.steps))


def pyramid_initialization(
    modality: str, preset: Preset, trainer: PyramidTrainer, provenance: dict[str, Any]
) -> Initialization:
    """The initialization of a trainer's state."""
    return Initialization(
        modality=modality,
        model=preset.model,
        patches=preset.patches,
        adaptation=preset.training.adaptation,
        theta_0={name: value.detach().cpu() for name, value in trainer.theta_0.items()},
        log_step_sizes={name: value.detach().cpu() for name, value in trainer.log_step_sizes.items()},
        prior=trainer.prior,
        provenance=provenance,
    )


def _settings(preset: Preset, start: Initialization | None) -> dict[str, Any]:
    """What a run depends on beside its data, as JSON has it."""
    settings: dict[str, Any] = {
        "field": {"name": preset.model.name, **asdict(preset.model)},
        "patches": asdict(preset.patches),
        "training": asdict(preset.training),
        "start": {"identifier": None if start is None else start.identifier.hex()},
    }
    if preset.crop is not None:
        settings["pyramid"] = {"crop": preset.crop, "hidden": preset.hidden, "squeeze": preset.squeeze}
    return dict(json.loads(json.dumps(settings)))


def _save(trainer: Trainer, settings: dict[str, Any], checkpoint: Path, seconds: float) -> None:
    metadata = {"inrcodec": json.dumps({"settings": settings, "seconds": seconds}, sort_keys=True)}
    content = safetensors.torch.save(trainer.state(), metadata=metadata)
    write_whole(checkpoint, lambda path: path.write_bytes(content))


def _resume(trainer: Trainer, settings: dict[str, Any], checkpoint: Path) -> float:
    """Load a checkpoint into the trainer; returns the seconds trained before."""
    try:
        content = checkpoint.read_bytes()
        length = int.from_bytes(content[:8], "little")
        document = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["inrcodec"])
        saved, seconds = document["settings"], float(document["seconds"])
        changed = [
            f"{group}.{key} was {saved[group].get(key)}, is {value}"
            for group, values in settings.items()
            for key, value in values.items()
            if saved[group].get(key) != value
        ]
        tensors = safetensors.torch.load(content)
    except OSError as error:
        raise UsageError(f"cannot resume from {checkpoint}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise UsageError(f"cannot resume: {checkpoint} is not a checkpoint ({error!r})") from error
    if changed:
        raise UsageError(f"cannot resume with other settings: {'; '.join(changed)}")
    trainer.load_state(tensors)
    return seconds
