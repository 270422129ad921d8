"""Latent fields with random networks: made in a moment, nothing is learned, but everything matters."""

import math

import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.initialization import Initialization
from inrcodec.models import EntropyModel, LatentField, Parameters
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.settings import AdaptationConfig


def random_parameters(field: LatentField, gain: float = 1.0, seed: int = 3) -> Parameters:
    """Return shared parameters that predict something. gain: of every layer, about."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + (0.2 if "head" in name or "share" in name else 1.0) * gain * _noise(value, generator)
        for name, value in field.initialize(generator).items()
    }


def random_entropy_model(
    field: LatentField, gain: float = 1.0, seed: int = 3, hidden: int = 6
) -> tuple[EntropyModel, Parameters]:
    """Return an entropy model, and weights with which symbols are small and mostly zero, and depend on each other."""
    entropy_model = EntropyModel.of(field, hidden)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: value + gain * _noise(value, generator) for name, value in entropy_model.initialize(generator).items()
    }
    for name, bias in weights.items():  # per level, then times the condition and its square
        if name.endswith("flags.bias"):
            bias[:-1] -= 1.0
        elif name.endswith("scales.bias"):
            bias[-2] -= 0.8
    return entropy_model, weights


def random_initialization(
    modality: str, field: LatentField, patches: PatchConfig, gain: float = 1.0, seed: int = 3
) -> Initialization:
    """Return an initialization of random networks. gain: of every layer, about."""
    return Initialization(
        modality=modality,
        field=field,
        patches=patches,
        adaptation=AdaptationConfig(steps=1, gamma=1.0, score="full"),
        theta_0=random_parameters(field, gain, seed),
        log_step_sizes={SHARED: torch.zeros(1)},
        prior=LatentPrior(*random_entropy_model(field, gain, seed)),
    )


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise of the size of a layer's weights; a bias is a small table or vector."""
    inputs = math.prod(like.shape[1:]) if like.dim() > 2 else 25
    return torch.randn(like.shape, generator=generator) / math.sqrt(inputs)
