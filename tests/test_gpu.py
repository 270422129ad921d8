"""The same code on a GPU, where there is one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from waves import tiny_image

from inrcodec.decoder import decode
from inrcodec.encoder import adapt_signal, encode
from inrcodec.meta.context import Context
from inrcodec.meta.initialization import Initialization
from inrcodec.meta.presets import preset
from inrcodec.meta.training import MetaTrainer
from inrcodec.options import EncodeOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and none is there")


@pytest.fixture(scope="module")
def initialization(tiny_initializations):
    return Initialization.load(tiny_initializations / "tiny-image.safetensors")


def test_adaptation_is_that_of_the_cpu(initialization):
    options = EncodeOptions(steps=4)
    parts = [adapt_signal(tiny_image(1), initialization, replace(options, device=device)) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(parts[1].deltas, parts[0].deltas, atol=1e-4)


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
    trainer = MetaTrainer(chosen.model, config, torch.device("cuda"))
    random = torch.Generator().manual_seed(0)
    for _ in range(2):
        coordinates = torch.rand((1, 256, 3), generator=random) * 2 - 1
        context = Context(coordinates.cuda(), torch.rand((2, 256, 3), generator=random).cuda())
        assert torch.isfinite(trainer.train_step(context).total)
