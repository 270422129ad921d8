"""The same code on a GPU, where there is one."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from waves import tiny_image

from inrcodec.decoder import decode
from inrcodec.encoder import encode, prepare_signal
from inrcodec.initialization import Initialization
from inrcodec.meta.presets import preset
from inrcodec.meta.weight_trainer import WeightTrainer
from inrcodec.options import EncodeOptions
from inrcodec.registry import default_initialization
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
        "audio": (Axis(1, "slice"), Axis(3000, "start", rate=Fraction(8000))),
        "climate": (Axis(2, "slice"), Axis(24, "node"), Axis(32, "node")),
    }[modality]
    shape = tuple(axis.size for axis in axes)
    phase = np.indices(shape).sum(0) / 5 + np.random.default_rng(0).normal(0, 0.05, shape)
    if modality in ("image", "video"):
        values = np.rint(127 + 100 * np.sin(phase[..., None] + [0, 1, 2])).astype(np.uint8)
        return Signal(modality, values, axes, (0.0, 255.0))
    return Signal(modality, np.sin(phase)[..., None].astype(np.float32), axes, (-1.5, 1.5))


@pytest.mark.parametrize("modality", MODALITIES)
def test_files_of_the_published_fields_decode_on_either_device(modality):
    options = EncodeOptions(steps=2, device="cuda")
    data, _ = encode([waves(modality)], [default_initialization(modality)], options)
    on_gpu, on_cpu = (decode(data, device=device)[0].values.astype(float) for device in ("cuda", "cpu"))
    tolerance = 1 if modality in ("image", "video") else 1e-4
    assert np.abs(on_gpu - on_cpu).max() <= tolerance


def test_a_bound_holds_on_the_other_device():
    signal, bound = waves("climate"), 0.01
    options = EncodeOptions(steps=0, device="cuda", max_error=bound)
    data, _ = encode([signal], [default_initialization("climate")], options)
    for device in ("cuda", "cpu"):
        decoded = decode(data, device=device)[0].values.astype(float)
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
