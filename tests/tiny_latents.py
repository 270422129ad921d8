"""A tiny pyramid of latents for pictures: what it learns from, its trainer, and runs that are cut."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from waves import tiny_image

from inrcodec.initialization import Initialization
from inrcodec.latents.model import LatentModel
from inrcodec.meta import evaluation, run
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.latent_trainer import LatentTrainer
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import TrainingProgress, meta_train
from inrcodec.meta.trainers import trainer_of
from inrcodec.models import Grid, LatentPyramid, Parameters
from inrcodec.patches import PatchConfig
from inrcodec.signals.signal import Signal

CPU = torch.device("cpu")
FIELD = LatentPyramid(2, 3, (1, 2), prediction=4)
GRID = Grid.open((24, 40))
STEP_INDEX = -30


def textured_image(seed: int) -> Signal:
    """Return waves, an edge and some noise: neither all zeros nor all noise."""
    picture = tiny_image(seed, 48, 64)
    random = np.random.default_rng(seed)
    values = picture.values + random.normal(0, 4, picture.values.shape)
    row, column = random.integers(10, 30, 2)
    values[row : row + 15, column:] -= 80
    return replace(picture, values=values.round().clip(0, 255).astype(np.uint8))


def textured_patches() -> Tensor:
    """Return three patches of `GRID`, [3, 3, 24, 40] in [0, 1]."""
    patches = np.stack([textured_image(seed).values[:24, 20:60] for seed in range(3)])
    return torch.from_numpy(patches / 255).permute(0, 3, 1, 2).float().contiguous()


def textured_data() -> TrainingData:
    """Return pictures to learn from, and one that is held out."""
    return TrainingData([textured_image(seed) for seed in range(4)], [textured_image(9)], 4, {})


def tiny_preset(**training: Any) -> Preset:
    """Return the preset of `FIELD`, with these settings of the training changed."""
    usual = preset("image", "pyramid")
    settings = {"outer_steps": 50, "batch": 3, "outer_step_size": 3e-2, **training}
    return replace(
        usual,
        field=FIELD,
        patches=PatchConfig((64, 64), (4, 4), normalize=False),
        training=replace(usual.training, **settings),
        crop=(16, 16),
        hidden=6,
    )


def latent_trainer(settings: Preset) -> LatentTrainer:
    """Return the trainer of a latent field before its first step."""
    trainer = trainer_of(settings, None, CPU)
    assert isinstance(trainer, LatentTrainer)
    return trainer


def initialization_of(trainer: LatentTrainer, settings: Preset) -> Initialization:
    """Return the initialization of a trainer as it is now."""
    no_sampler = cast(PatchSampler, None)  # only the priors of weights are measured on samples
    return trainer.initialization(settings, no_sampler, {}, CPU)


def disturbed_model(settings: Preset, step_index: int = STEP_INDEX) -> LatentModel:
    """Return a model with networks that matter and magnitudes that depend on what is decoded before."""
    trainer = latent_trainer(settings)
    generator = torch.Generator().manual_seed(2)

    def disturb(parameters: Parameters) -> None:
        for value in parameters.values():
            value += 0.1 * torch.randn(value.shape, generator=generator)

    with torch.no_grad():
        disturb(trainer.theta_0)
        disturb(trainer.weights)
        return trainer.model(step_index)


def evaluate_briefly(patch: pytest.MonkeyPatch) -> None:
    """Make runs measure what they made on one patch, at one quality."""
    patch.setattr(evaluation, "LATENT_PATCHES", 1)
    patch.setattr(evaluation, "QUALITIES", (40,))
    patch.setattr(evaluation, "LATENT_STEPS", (0,))


class Cut:
    """End a run after some outer steps, as a power failure would."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, _: TrainingProgress) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def whole_and_resumed(
    settings: Preset, data: TrainingData, folder: Path, monkeypatch: pytest.MonkeyPatch, cuts: tuple[int, ...]
) -> tuple[Initialization, Initialization, list[TrainingProgress]]:
    """Return what a run makes, and what it makes when it is cut after so many steps each time.

    The third result is the progress since the last cut.
    """
    whole = meta_train(settings, data, folder / "a.safetensors", source="waves")
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    cut = folder / "b.safetensors"
    for number, after in enumerate(cuts):
        with pytest.raises(KeyboardInterrupt):
            meta_train(settings, data, cut, source="waves", resume=number > 0, on_progress=Cut(after))
    seen: list[TrainingProgress] = []
    resumed = meta_train(settings, data, cut, source="waves", resume=True, on_progress=seen.append)
    return whole, resumed, seen
