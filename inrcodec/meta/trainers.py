"""The one place that chooses the trainer of a field."""

from typing import cast

import torch

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization, check_adaptation
from inrcodec.meta.clip_trainer import ClipTrainer
from inrcodec.meta.latent_trainer import LatentTrainer
from inrcodec.meta.presets import Preset
from inrcodec.meta.sequence_trainer import SequenceTrainer
from inrcodec.meta.series_trainer import SeriesTrainer
from inrcodec.meta.trainer import Trainer
from inrcodec.meta.weight_trainer import WeightTrainer
from inrcodec.models import LatentClip, LatentField, LatentSeries, PointField

_LATENT_TRAINERS: dict[str, type[LatentTrainer]] = {LatentClip.name: ClipTrainer, LatentSeries.name: SeriesTrainer}
"""Trainers of latent fields that are not those of one transform."""


def trainer_of(preset: Preset, start: Initialization | None, device: torch.device) -> Trainer:
    """Return what a meta-training trains with, before its first step.

    Raises: UsageError if nothing of `start` fits the field, or settings of the adaptation mean nothing for it.
    """
    try:
        check_adaptation(preset.field, preset.training.adaptation)
    except ValueError as error:
        raise UsageError(str(error)) from error
    trainer: Trainer
    others = preset.modality
    if preset.field.family == "weights":
        trainer = WeightTrainer(cast(PointField, preset.field), preset.training, device)
    else:
        kind = _LATENT_TRAINERS.get(preset.field.name, LatentTrainer)
        if issubclass(kind, SequenceTrainer):
            others = kind.START
        field = cast(LatentField, preset.field)
        trainer = kind(field, preset.training, preset.hidden, device)
    if start is not None:
        if start.modality not in (preset.modality, others):
            raise UsageError(f"the initialization to start from is for {start.modality}, not for {preset.modality}")
        trainer.start_from(start)
    return trainer
