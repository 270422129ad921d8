"""The same code on a GPU, where there is one."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from fuzz_specimens import random_latents
from tiny_latents import tiny_preset
from waves import tiny_image

from inrcodec.decoder import decode
from inrcodec.encoder import encode, prepare_signal
from inrcodec.initialization import Initialization
from inrcodec.meta.latent_trainer import LatentTrainer
from inrcodec.meta.presets import preset
from inrcodec.meta.trainers import trainer_of
from inrcodec.meta.weight_trainer import WeightTrainer
from inrcodec.models import LatentClip, LatentField, LatentPyramid, LatentSpectrum
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.registry import default_initialization
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import MODALITIES
from inrcodec.signals.signal import Axis, Signal
from inrcodec.weights.context_set import ContextSet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and none is there")


@pytest.fixture(scope="module")
def initialization(tiny_initializations):
    return Initialization.load(tiny_initializations / "tiny-image.safetensors")


def test_adaptation_is_that_of_the_cpu(initialization):
    options = EncodeOptions(steps=4)
    parts = [
        prepare_signal(tiny_image(1), initialization, replace(options, device=device)) for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(parts[1].deltas, parts[0].deltas, atol=1e-4)


def waves(modality: str) -> Signal:
    """Return something small of a modality, smooth with a little noise."""
    axes = {
        "image": (Axis(40), Axis(56)),
        "video": (Axis(3, "start", rate=Fraction(25)), Axis(32), Axis(48)),
        "audio": (Axis(3000, "start", rate=Fraction(8000)), Axis(1, "slice")),
        "climate": (Axis(2, "slice"), Axis(24, "node"), Axis(32, "node")),
    }[modality]
    shape = tuple(axis.size for axis in axes)
    phase = np.indices(shape).sum(0) / 5 + np.random.default_rng(0).normal(0, 0.05, shape)
    if modality in ("image", "video"):
        values = np.rint(127 + 100 * np.sin(phase[..., None] + [0, 1, 2])).astype(np.uint8)
        return Signal(modality, values, axes, (0.0, 255.0))
    return Signal(modality, np.sin(phase)[..., None].astype(np.float32), axes, (-1.5, 1.5))


LATENTS: dict[str, tuple[LatentField, tuple[int, ...]]] = {
    "image": (LatentPyramid(2, 3, (2, 3), prediction=4, divided=2), (32, 40)),
    "video": (LatentClip(3, 3, (2, 3), prediction=4), (3, 32, 48)),
    "audio": (LatentSpectrum(1, 1, (2, 3), hop=16), (2048,)),
    "climate": (LatentPyramid(2, 1, (3, 2), prediction=4), (24, 32)),
}
"""Latent fields of every modality, and the shapes of their patches."""


def latents(modality: str) -> Initialization:
    """Return an initialization of latents of a modality, with networks that matter."""
    field, shape = LATENTS[modality]
    return random_latents(modality, field, PatchConfig(shape, (0,) * len(shape), normalize=False))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_files_of_latents_decode_to_the_same_on_either_device(modality: str, device: str) -> None:
    """To the very same values, whichever device they were encoded on."""
    initialization = latents(modality)
    data, (said,) = encode([waves(modality)], [initialization], EncodeOptions(steps=2, device=device))
    for other in ("cpu", "cuda"):
        (decoded,) = decode(data, initializations=[initialization], device=other)
        np.testing.assert_array_equal(decoded.values, said.values)


@pytest.mark.parametrize("modality", MODALITIES)
def test_files_of_the_published_fields_decode_to_the_same_on_either_device(modality):
    options = EncodeOptions(steps=2, device="cuda")
    data, (said,) = encode([waves(modality)], [default_initialization(modality)], options)
    for device in ("cuda", "cpu"):
        np.testing.assert_array_equal(decode(data, device=device)[0].values, said.values)


def test_a_bound_holds_on_the_other_device():
    signal, bound = waves("climate"), 0.01
    options = EncodeOptions(steps=0, device="cuda", max_error=bound)
    initialization = latents("climate")
    data, _ = encode([signal], [initialization], options)
    for device in ("cuda", "cpu"):
        decoded = decode(data, initializations=[initialization], device=device)[0].values.astype(float)
        assert np.abs(decoded - signal.values).max() <= bound


def test_files_decode_on_either_device(initialization):
    data, said = encode([tiny_image(2)], [initialization], EncodeOptions(steps=4, device="cuda"))
    for device in ("cpu", "cuda"):
        decoded = decode(data, initializations=[initialization], device=device)[0]
        assert np.abs(decoded.values.astype(int) - said[0].values).max() <= 1


@pytest.mark.parametrize("field", ["siren", "ffn", "nerv"])
@pytest.mark.parametrize("score", ["grad-norm", "error", "random"])
def test_meta_training_steps(field, score):
    chosen = preset("video", field)
    adaptation = replace(chosen.training.adaptation, steps=2, score=score)
    config = replace(chosen.training, adaptation=adaptation, outer_steps=2)
    trainer = WeightTrainer(chosen.field, config, torch.device("cuda"))
    random = torch.Generator().manual_seed(0)
    for _ in range(2):
        coordinates = torch.rand((1, 256, 3), generator=random) * 2 - 1
        context_set = ContextSet(coordinates.cuda(), torch.rand((2, 256, 3), generator=random).cuda())
        assert torch.isfinite(trainer.train_step(context_set).total)


@pytest.mark.parametrize("second_order", [0.0, 1.0])
@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_meta_training_steps_of_latents(modality: str, second_order: float) -> None:
    """As on the CPU, but for what rounding does to sums of gradients."""
    field, shape = LATENTS[modality]
    crop = tuple(min(size, 1024) for size in shape)
    usual = tiny_preset(
        adaptation=AdaptationConfig.unpruned(2), step_sizes="tensor-step", second_order=second_order, bootstrap_steps=1
    )
    chosen = replace(usual, modality=modality, field=field, crop=crop, patches=PatchConfig(crop, (0,) * len(crop)))
    losses = []
    for device in map(torch.device, ("cpu", "cuda")):
        trainer = trainer_of(chosen, None, device)
        assert isinstance(trainer, LatentTrainer)
        trainer.started = True
        random = torch.Generator().manual_seed(0)
        for _ in range(2):
            values = torch.rand((2, math.prod(crop), field.out_features), generator=random).to(device)
            context_set = ContextSet(torch.zeros(1, values.shape[1], len(crop), device=device), values)
            losses.append(float(trainer.train_step(context_set).total))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-2)
