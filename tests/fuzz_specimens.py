"""Small valid `.inr` files, one for each kind of content that a reader meets: what the fuzzer begins with."""

import functools
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tiny_weights import NERV, SIREN, untrained_initialization
from waves import tiny_image

import inrcodec
import inrcodec.latents.codec
import inrcodec.weights.codec
from inrcodec.initialization import Initialization
from inrcodec.models import EntropyModel, LatentClip, LatentField, LatentPyramid, LatentSpectrum
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.settings import AdaptationConfig
from inrcodec.signals.signal import Axis, Signal

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def specimens() -> dict[str, bytes]:
    """Return the golden files, and files with tiny initializations in them, by their names."""
    golden = {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.inr"))}
    with pytest.MonkeyPatch.context() as patch:
        # So that small signals have several chunks, too.
        patch.setattr(inrcodec.latents.codec, "CHUNK_POINTS", 300)
        patch.setattr(inrcodec.weights.codec, "CHUNK_POINTS", 300)
        return golden | {
            "picture with alpha": picture_with_alpha(),
            "picture of weights": embedded([tiny_image(4, 20, 17)], [untrained_initialization()]),
            "video of weights": embedded([picture_stack()], [of_modality(untrained_initialization(NERV), "video")]),
            "clip with sound": clip_with_sound(),
            "climate on a sphere": climate_on_a_sphere(),
            "climate with a bound": climate_with_a_bound(),
            "picture with a bound": embedded([tiny_image(4, 20, 17)], [untrained_initialization()], max_error=2),
        }


def chosen(known: dict[str, bytes], random: Random) -> str:
    """Return the name of a random specimen, of the tiny ones more often than of golden files."""
    return random.choice([name for name in sorted(known) for _ in range(1 if name.startswith("v1") else 3)])


def embedded(signals: list[Signal], initializations: list[Initialization], max_error: float | None = None) -> bytes:
    """Return the file of signals, with their initializations in it."""
    options = EncodeOptions(steps=1, max_error=max_error, device="cpu")
    data, _ = inrcodec.encode(signals, initializations, options, embed=True)
    return data


def of_modality(initialization: Initialization, modality: str) -> Initialization:
    """Return a copy for another modality."""
    return replace(initialization, modality=modality)


def random_latents(modality: str, field: LatentField, patches: PatchConfig) -> Initialization:
    """Return an initialization of a latent field, with networks that matter."""
    generator = torch.Generator().manual_seed(5)
    model = EntropyModel.of(field, 3)
    weights = {n: v + 0.1 * torch.randn(v.shape, generator=generator) for n, v in model.initialize(generator).items()}
    theta_0 = {n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in field.initialize(generator).items()}
    return Initialization(
        modality=modality,
        field=field,
        patches=patches,
        adaptation=AdaptationConfig.unpruned(steps=2),
        theta_0=theta_0,
        log_step_sizes={"shared": torch.zeros(1)},
        prior=LatentPrior(model, weights),
    )


def picture_with_alpha() -> bytes:
    """Return a picture and its transparency, two streams of one initialization."""
    field = LatentPyramid(2, 3, (1, 2), prediction=2, divided=2)
    initialization = random_latents("image", field, PatchConfig((12, 10), (2, 2), normalize=False))
    picture = tiny_image(3, 20, 17)
    alpha = replace(picture, values=picture.values[..., :1], name="alpha")
    return embedded([picture, alpha], [initialization] * 2)


def picture_stack() -> Signal:
    """Return a video of five small pictures."""
    values = np.stack([tiny_image(seed, 12, 14).values[..., :2] for seed in range(5)])
    axes = (Axis(5, "start", rate=Fraction(25)), Axis(12), Axis(14))
    return Signal("video", values, axes, (0.0, 255.0))


def clip_with_sound() -> bytes:
    """Return a video with sound of two channels, two streams of two initializations."""
    clip = LatentClip(3, 3, (1, 2), prediction=2)
    video = random_latents("video", clip, PatchConfig((5, 16, 16), (0, 2, 2), normalize=False))
    spectrum = LatentSpectrum(1, 1, (1, 2), hop=8)
    sound = random_latents("audio", spectrum, PatchConfig((256,), (16,), normalize=False))
    frames = np.stack([tiny_image(seed, 16, 20).values for seed in range(4)])
    pictures = Signal("video", frames, (Axis(4, "start", rate=Fraction(25)), Axis(16), Axis(20)), (0.0, 255.0))
    waves = np.rint(9000 * np.sin(np.outer(np.arange(300), [1, 2]) / 7)).astype(np.int16)[..., None]
    axes = (Axis(300, "start", rate=Fraction(8000)), Axis(2, "slice"))
    return embedded([pictures, Signal("audio", waves, axes, (-32768.0, 32767.0), name="sound")], [video, sound])


def climate(dtype: type = np.float32) -> Signal:
    """Return two levels on a globe, whose values lie in 0..10."""
    waves = np.sin(np.arange(2 * 9 * 12) / 5).reshape(2, 9, 12, 1)
    latitudes = Axis(9, "node", points=np.linspace(80, -80, 9))
    longitudes = Axis(12, "periodic", points=np.arange(12) * 30.0)
    values = (5 + 5 * waves).astype(dtype)
    return Signal(
        "climate", values, (Axis(2, "slice"), latitudes, longitudes), (0.0, 10.0), name="q", sphere=True, missing=None
    )


def climate_on_a_sphere() -> bytes:
    """Return a climate field with ranges of its levels, limits and zeros, a weight field on the sphere."""
    weights = untrained_initialization(replace(SIREN, in_features=3, out_features=1))
    initialization = replace(weights, modality="climate", patches=PatchConfig((6, 7), (1, 1), sphere=True))
    plain = climate()
    zeros = plain.values[..., 0] < 1
    packed = zlib.compress(np.packbits(zeros).tobytes())
    attributes = {"limits": [0.5, 10], "zeros": [0, *zeros.shape, packed], "units": "K"}
    ranges = np.array([[0.0, 10.0], [0.0, 9.0]])
    return embedded([replace(plain, attributes=attributes, slice_ranges=ranges)], [initialization])


def climate_with_a_bound() -> bytes:
    """Return a climate field with missing values and a residual."""
    field = LatentPyramid(2, 1, (1, 2), prediction=2)
    initialization = random_latents("climate", field, PatchConfig((9, 7), (0, 1), normalize=False))
    missing = np.zeros((2, 9, 12), bool)
    missing[:, 2:5, 3:9] = True
    missing[1, 7, 7] = True
    return embedded([replace(climate(), missing=missing)], [initialization], max_error=0.05)
