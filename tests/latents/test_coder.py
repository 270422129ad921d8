"""Coders and readers of latent fields: what the encoder knows is what a decoder finds, bit for bit."""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import repeat
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_latents import random_initialization

from inrcodec.coding.container import Stream
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.latents import codec, coder
from inrcodec.latents.clip_coder import ClipCoder
from inrcodec.latents.codec import LatentCodec, LatentQuantization, PreparedLatents
from inrcodec.latents.coder import MAX_AT_ONCE, MAX_LATENTS, AdaptationPlan, LatentCoder, TransformCoder
from inrcodec.latents.objective import trade_off_of_step_index
from inrcodec.models import Grid, LatentClip, LatentField, LatentPyramid, LatentSpectrum
from inrcodec.models.sequence import MAX_MEMBERS
from inrcodec.options import Effort, EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.signals.lazy import Window
from inrcodec.signals.signal import Axis, AxisKind, Signal

CPU = torch.device("cpu")
OPTIONS = EncodeOptions(steps=1, device="cpu")
EFFORTS = get_args(Effort)


@dataclass(frozen=True)
class Kind:
    """A kind of signals. patch, overlap: of its patches. axes, sizes: kinds and most samples of all axes."""

    field: LatentField
    patch: tuple[int, ...]
    overlap: tuple[int, ...]
    axes: tuple[AxisKind, ...]
    sizes: tuple[int, ...]
    channels: int


KINDS = {
    "image": Kind(LatentPyramid(2, 3, (2, 3), prediction=4, divided=2), (20, 24), (4, 4), ("cell",) * 2, (50, 60), 3),
    "climate": Kind(
        LatentPyramid(2, 1, (3, 3), prediction=4, divided=2),
        (20, 24),
        (4, 4),
        ("slice", "node", "periodic"),
        (2, 30, 50),
        1,
    ),
    "audio": Kind(LatentSpectrum(1, 1, (2, 3), hop=8), (150,), (8,), ("start", "slice"), (400, 2), 1),
    "video": Kind(
        LatentClip(3, 3, (3, 3), prediction=4), (4, 40, 40), (0, 8, 8), ("start", "cell", "cell"), (9, 60, 50), 3
    ),
}


@cache
def initialization_of(modality: str) -> Initialization:
    kind = KINDS[modality]
    return random_initialization(modality, kind.field, PatchConfig(kind.patch, kind.overlap, normalize=False))


def signal_of(modality: str, sizes: tuple[int, ...], seed: int = 0) -> Signal:
    """Return waves that move from sample to sample of the first axis, and some noise, as floats."""
    kind, random = KINDS[modality], np.random.default_rng(seed)
    places = np.meshgrid(*(np.arange(size) / 5 for size in sizes), indexing="ij")
    slopes = random.uniform(-1, 1, (kind.channels, len(sizes)))
    waves = [np.sin(sum(along * each for along, each in zip(places, slope, strict=True))) for slope in slopes]
    values = 0.5 + 0.3 * np.stack(waves, -1) + random.normal(0, 0.02, (*sizes, kind.channels))
    rate = Fraction(25) if modality in ("audio", "video") else None
    axes = [
        Axis(size, each, rate=rate if each == "start" else None) for each, size in zip(kind.axes, sizes, strict=True)
    ]
    return Signal(modality, values.astype(np.float32), tuple(axes), (0.0, 1.0))


def prepared(signal: Signal, steps: int = 1, initialization: Initialization | None = None) -> PreparedLatents:
    initialization = initialization or initialization_of(signal.modality)
    return LatentCodec().prepare(signal, initialization, replace(OPTIONS, steps=steps), CPU)


def quantization_of(modality: str, step_index: int, variant: int = 0) -> LatentQuantization:
    return LatentQuantization(step_index, trade_off_of_step_index(step_index, KINDS[modality].channels), variant)


def coded(part: PreparedLatents, quantization: LatentQuantization) -> Stream:
    """Return the stream of a signal; check that what the encoder yields is what a decoder finds, bit for bit."""
    header, chunks, known = part.header(quantization), [], []
    for each in part.code(quantization, Window(part.signal), part.patches.resampled(part.signal.axes)):
        if isinstance(each, bytes):
            chunks.append(each)
        else:
            known.append(each[1])
    reader = codec_of(part.initialization).open(header, part.initialization, CPU)
    assert reader.patches == part.patches
    found = reader.render(chunks, reader.patches.resampled(header.axes))
    for own, (_, other) in zip(known, found, strict=True):
        np.testing.assert_array_equal(bits(own), bits(other))
    return Stream(header, tuple(chunks))


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.int32)


# What the encoder knows


@pytest.mark.parametrize("variant", [0, 3 * 17, 3 * 40 + 1, 3 * 63 + 2])
def test_pictures_of_any_hue_and_of_bare_levels_are_known(variant: int) -> None:
    part = prepared(signal_of("image", (50, 60)))
    stream = coded(part, quantization_of("image", -30, variant))
    assert LatentQuantization.from_bytes(stream.header.coding, 192).variant == variant


@pytest.mark.parametrize("step_index", [-30, -57, -88])
@pytest.mark.parametrize("longitudes", [24, 50])
def test_globes_are_known(step_index: int, longitudes: int) -> None:
    """Of one patch all around, or several; also where steps are so fine that networks see the signal magnified."""
    part = prepared(signal_of("climate", (2, 30, longitudes)))
    assert part.patches.closed == (False, longitudes == 24)
    coded(part, quantization_of("climate", step_index))


@pytest.mark.parametrize("variant", range(4))
def test_sound_is_known(variant: int) -> None:
    part = prepared(signal_of("audio", (400, 2)))
    coded(part, quantization_of("audio", -40, variant))


@pytest.mark.parametrize("pictures", [1, 2, 7])
def test_clips_are_known(pictures: int) -> None:
    part = prepared(signal_of("video", (pictures, 40, 50)))
    coded(part, quantization_of("video", -24, 3 * 5 + 1))


def test_what_moves_in_a_clip_has_vectors() -> None:
    """The encoder's search finds motion in such signals, so that what is known has been moved along."""
    part = prepared(signal_of("video", (5, 40, 40)))
    stream = coded(part, quantization_of("video", -24))
    reader = codec_of(part.initialization).open(stream.header, part.initialization, CPU)
    motion = [level for symbols in reader.symbols(stream.chunks) for level in symbols if level.ndim == 6]
    assert len(motion) == 3 and any(vectors.any() for vectors in motion)


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_any_signal_is_known(data: st.DataObject) -> None:
    """Of any size, at any step, however its chunks are cut."""
    modality = data.draw(st.sampled_from(sorted(KINDS)))
    sizes = tuple(data.draw(st.integers(1, most)) for most in KINDS[modality].sizes)
    step_index = data.draw(st.integers(-100 if modality == "climate" else -50, 24))
    variant = data.draw(st.integers(0, KINDS[modality].field.variants - 1))
    part = prepared(signal_of(modality, sizes, data.draw(st.integers(0, 99))), data.draw(st.integers(0, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "CHUNK_POINTS", data.draw(st.sampled_from([1, 1000, 1 << 18])))
        coded(part, quantization_of(modality, step_index, variant))


def without_details(initialization: Initialization) -> Initialization:
    """Return an initialization whose symbols are surely zero, so that blank signals have chunks without a byte."""
    prior = initialization.prior
    assert isinstance(prior, LatentPrior)
    weights = {name: value.clone() for name, value in prior.weights.items()}
    for name, bias in weights.items():
        if name.endswith("flags.bias"):
            bias[:-2] -= 12
            bias[-2:] = 0
    return replace(initialization, prior=replace(prior, weights=weights))


# Coders


def coder_of(modality: str, shape: tuple[int, ...], variant: int = 0) -> LatentCoder:
    make = ClipCoder if modality == "video" else TransformCoder
    return make(initialization_of(modality), Grid.open(shape), -30, variant, CPU)


@pytest.mark.parametrize(
    ("modality", "shape"),
    [("image", (50, 61)), ("image", (1, 9)), ("climate", (21, 30)), ("audio", (333,)), ("video", (5, 24, 17))],
)
def test_symbols_are_as_many_as_the_coder_says(modality: str, shape: tuple[int, ...]) -> None:
    values = torch.rand((2, KINDS[modality].channels, *shape), generator=torch.Generator().manual_seed(0))
    for variant in range(0, min(3, KINDS[modality].field.variants), 2):
        own = coder_of(modality, shape, variant)
        chunk, known = own.encode(values, AdaptationPlan(1e-3, 0))
        symbols = own.symbols(chunk, 2)
        assert known.shape == values.shape and all(len(each) == 2 for each in symbols)
        latents = [each for each in symbols if modality != "video" or each.dim() != 6]  # without motion
        count = sum(each[0].numel() for each in latents)
        bare = modality in ("image", "video") and variant % 3
        assert count < own.size if bare and max(shape) > 1 else count == own.size
        positions = repeat([np.arange(size) for size in shape])
        for own_values, decoded in zip(known, own.values_at(symbols, positions), strict=True):
            assert torch.equal(own_values, decoded)


def test_small_is_what_a_decoder_has_memory_for() -> None:
    """At most as many latents as `MAX_AT_ONCE` at once; of clips those of the largest stage count."""
    pictures = {size: coder_of("image", (size, size)) for size in (2048, 2300, 2400, 1 << 14)}
    assert [own.is_small for own in pictures.values()] == [3 * size**2 <= MAX_AT_ONCE for size in pictures]
    assert not coder_of("image", (1 << 30, 1 << 30)).is_small
    for count, side, together, small in (
        (32, 384, 4, True),
        (85, 512, 4, True),
        (86, 512, 4, False),  # too many in all
        (9, 1200, 4, False),  # too many at once
        (5, 1600, 2, True),
        (5, 1704, 2, False),
        (3, 2304, 1, True),
        (MAX_MEMBERS, 32, 4, True),
        (MAX_MEMBERS + 1, 32, 4, False),
    ):
        own = coder_of("video", (count, side, side))
        assert (own.size, own.at_once) == (3 * count * side**2, 3 * together * side**2)
        assert own.is_small == small, (count, side)
        assert small == (own.size <= MAX_LATENTS and own.at_once <= MAX_AT_ONCE and count <= MAX_MEMBERS)


def test_limits_are_those_of_the_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    own = coder_of("image", (40, 40))
    for name in ("MAX_AT_ONCE", "MAX_LATENTS"):
        for limit, small in ((own.size, True), (own.size - 1, False)):
            with monkeypatch.context() as patch:
                patch.setattr(coder, name, limit)
                assert own.is_small == small


@pytest.mark.parametrize("modality", KINDS)
def test_more_effort_is_more_steps(modality: str) -> None:
    steps = [LatentCodec().steps(EncodeOptions(effort=effort), initialization_of(modality)) for effort in EFFORTS]
    assert steps == sorted(steps) and steps[0] == 0 < steps[-1]
    assert LatentCodec().steps(EncodeOptions(effort="instant", steps=7), initialization_of(modality)) == 7


def test_the_variant_is_chosen_once() -> None:
    """A search over lambda keeps it; a picture of few colours is bare where they are not worth their bits."""
    signal = signal_of("image", (50, 60))
    grey = replace(signal, values=np.repeat(signal.values[..., :1], 3, -1))
    part = prepared(grey)
    first = part.choose(1e-3, None)
    assert first.variant % 3 == 2
    assert part.choose(1e-5, first).variant == first.variant
    assert prepared(signal).choose(1e-5, None).variant % 3 == 0
