"""Tiny fields whose weights are coded: context sets for them, and a meta-training of a few steps."""

import functools
from typing import Any

import torch

from inrcodec.initialization import Initialization
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.presets import Preset
from inrcodec.meta.weight_trainer import WeightTrainer
from inrcodec.models import FourierFeatureNetwork, NeRV, PointField, Siren
from inrcodec.patches import PatchConfig
from inrcodec.priors import DeltaPrior
from inrcodec.settings import AdaptationConfig, StepSizeKind
from inrcodec.weights.context_set import ContextSet

CPU = torch.device("cpu")
SIREN = Siren(2, 3, width=6, depth=3)
FFN = FourierFeatureNetwork(2, 2, width=5, depth=3, frequencies=4, scale=1.0)
NERV = NeRV(3, 2, octaves=2, stem=4, base=(2, 2), channels=(3, 4))
FIELDS: list[PointField] = [SIREN, FFN, NERV]
NAMES = [field.name for field in FIELDS]


def context_set_of(field: PointField, signals: int = 2, points: int = 12, seed: int = 2) -> ContextSet:
    """Return random context sets of the field's dimensions, values in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.rand((signals, points, field.in_features), generator=generator) * 2 - 1
    return ContextSet(coordinates, torch.rand((signals, points, field.out_features), generator=generator))


def tiny_config(**changes: Any) -> TrainingConfig:
    """Return settings of a meta-training of eight outer steps, with some of them changed."""
    settings: dict[str, Any] = {
        "adaptation": AdaptationConfig(steps=2, gamma=0.5),
        "step_sizes": "tensor-step",
        "bootstrap_steps": 1,
        "bootstrap_weight": 0.1,
        "outer_step_size": 1e-3,
        "schedule": "cosine",
        "batch": 2,
        "outer_steps": 8,
    }
    return TrainingConfig(**settings | changes)


def tiny_preset(**changes: Any) -> Preset:
    """Return the preset of such a meta-training of `SIREN` on pictures."""
    return Preset("image", SIREN, PatchConfig((8, 8), (1, 1)), tiny_config(**changes))


@functools.cache
def untrained_initialization(field: PointField = SIREN, kind: StepSizeKind = "tensor-step") -> Initialization:
    """Return an initialization of random parameters and a random prior. kind: of the step sizes."""
    trainer = WeightTrainer(field, tiny_config(step_sizes=kind), CPU)
    generator = torch.Generator().manual_seed(0)
    scales = {
        name: torch.randint(-40, 0, shape, generator=generator, dtype=torch.int16)
        for name, shape in field.adapted_shapes().items()
    }
    return Initialization(
        modality="image",
        field=field,
        patches=PatchConfig((8,) * field.in_features, (1,) * field.in_features),
        adaptation=AdaptationConfig(steps=2, gamma=0.5),
        theta_0={name: value.detach() for name, value in trainer.theta_0.items()},
        log_step_sizes={name: value.detach() for name, value in trainer.log_step_sizes.items()},
        prior=DeltaPrior(scales, tuple(range(-30, -30 + len(scales)))),
        provenance={"data": "none", "seconds": 3},
    )
