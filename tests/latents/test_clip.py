"""Latent clips: pictures that see each other, coded and back."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_latents import CPU, evaluate_briefly, initialization_of, latent_trainer

import inrcodec
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.clip_coder import ClipCoder
from inrcodec.latents.coder import AdaptationPlan
from inrcodec.latents.objective import trade_off_of_step_index
from inrcodec.meta.clip_trainer import ClipTrainer
from inrcodec.meta.data import TrainingData
from inrcodec.meta.latent_trainer import nearest_symbols
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import meta_train
from inrcodec.models import Grid, LatentClip, LatentPyramid
from inrcodec.models.clip import STAGE_PICTURES, stages_of
from inrcodec.models.pyramid import resample
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.signals.signal import Axis, Signal

FIELD = LatentClip(3, 3, (3, 3), prediction=4)
STEP_INDEX = -30


@pytest.fixture(autouse=True)
def _evaluated_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_briefly(monkeypatch)


def tiny() -> Preset:
    usual = preset("video", "clip")
    return replace(
        usual,
        field=FIELD,
        patches=PatchConfig((6, 40, 40), (0, 8, 8), normalize=False),
        training=replace(usual.training, batch=2, outer_steps=6, outer_step_size=2e-3),
        crop=(5, 24, 40),
        hidden=4,
    )


def clip_trainer(settings: Preset) -> ClipTrainer:
    trainer = latent_trainer(settings)
    assert isinstance(trainer, ClipTrainer)
    return trainer


@cache
def untrained() -> Initialization:
    """Return an initialization whose networks predict nothing but the mean of a picture's references, moved along."""
    return initialization_of(clip_trainer(tiny()), tiny())


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a few waves without edges, [height, width, 3] in [0, 1]."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((height, width))
    waves = [
        np.sin(random.uniform(0.1, 0.6) * rows + random.uniform(-0.6, 0.6) * columns + random.uniform(0, 6))
        for _ in range(12)
    ]
    return 0.5 + np.stack([sum(waves[c::3]) for c in range(3)], -1) / 12


def clip_of(pictures: list[np.ndarray]) -> torch.Tensor:
    """Return pictures as a batch of one clip, [1, 3, T, H, W] float32."""
    return torch.from_numpy(np.stack(pictures).astype(np.float32)).permute(3, 0, 1, 2)[None].contiguous()


def coder_of(clip: torch.Tensor, initialization: Initialization | None = None) -> ClipCoder:
    return ClipCoder(initialization or untrained(), Grid.open(clip.shape[2:]), STEP_INDEX, 0, CPU)


def coded(clip: torch.Tensor, initialization: Initialization | None = None, steps: int = 0) -> bytes:
    """Return the chunk of a clip, after checking that it decodes to the values that the encoder knows."""
    plan = AdaptationPlan(trade_off_of_step_index(STEP_INDEX, 3), steps)
    chunk, known = coder_of(clip, initialization).encode(clip, plan)
    assert torch.equal(shown(clip, chunk, initialization=initialization), known)
    return chunk


def shown(
    clip: torch.Tensor,
    chunk: bytes,
    positions: list[np.ndarray] | None = None,
    initialization: Initialization | None = None,
) -> torch.Tensor:
    """Return what a chunk decodes to at some positions, at all samples unless given: [B, 3, T, H, W]."""
    coder = coder_of(clip, initialization)
    positions = positions or [np.arange(size) for size in clip.shape[2:]]
    return torch.stack(list(coder.values_at(coder.symbols(chunk, len(clip)), repeat(positions))))


def objective(clip: torch.Tensor, steps: int, initialization: Initialization | None = None) -> float:
    """Return D / lambda + R of a coded clip, in bits per sample."""
    chunk = coded(clip, initialization, steps)
    error = float((shown(clip, chunk, initialization=initialization) - clip).square().mean())
    return error / trade_off_of_step_index(STEP_INDEX, 3) + 8 * len(chunk) / clip[0, 0].numel()


@given(st.integers(1, 80))
def test_stages_code_every_picture_after_its_references(count: int) -> None:
    done: dict[int, int] = {}
    for stage in stages_of(count):
        assert 1 <= len(stage.members) <= STAGE_PICTURES
        assert len(stage.references) == (len(stage.members) if done else 0)
        for picture, references in zip(stage.members, stage.references or [()] * len(stage.members), strict=True):
            assert picture not in done and len(set(references)) == len(references) <= 2
            assert all(each in done and done[each] <= stage.offset for each in references)
        done |= dict.fromkeys(stage.members, stage.offset)
    assert sorted(done) == list(range(count))


def test_what_sees_references_starts_near_them() -> None:
    """Before anything is learned, too, symbols are what differs from the references."""
    trainer = clip_trainer(tiny())
    values = clip_of([texture(24, 40)] * 5)
    trainer.step = 1
    model, task = trainer.task(values, -40, torch.Generator().manual_seed(0))
    symbols = nearest_symbols(model, task)
    alone = sum(_nonzero(torch.round(target)) for target in task.targets)
    assert sum(map(_nonzero, symbols[1:])) < 0.3 * alone


def _nonzero(symbols: torch.Tensor) -> int:
    return int(symbols.count_nonzero())


def test_stages_of_nine_pictures() -> None:
    stages = stages_of(9)
    assert [stage.members for stage in stages] == [(0,), (8,), (4,), (2, 6), (1, 3, 5, 7)]
    assert stages[3].references == ((0, 4), (4, 8))
    assert stages[-1].offset == 0


def test_pictures_come_back_near() -> None:
    pictures = [texture(40, 56)[:, shift : shift + 40] for shift in range(0, 10, 2)]
    clip = clip_of(pictures)
    error = (shown(clip, coded(clip)) - clip).square().mean()
    assert -10 * math.log10(float(error)) > 35


def test_more_steps_are_better_for_a_picture() -> None:
    """What others make of it is not foreseen."""
    clip = clip_of([texture(32, 40)])
    assert objective(clip, 4) < objective(clip, 0)


def nonzero(pictures: list[np.ndarray]) -> int:
    """Count the symbols that say something; an entropy model that learned nothing charges for the others too."""
    clip = clip_of(pictures)
    return sum(map(_nonzero, coder_of(clip).symbols(coded(clip), 1)))


def test_what_stands_still_needs_no_symbols() -> None:
    still = texture(40, 40)
    assert nonzero([still] * 6) < 1.25 * nonzero([still] * 2)


def test_what_moves_is_found() -> None:
    """A picture that moves along costs much less than as many different ones."""
    moving = [texture(40, 70)[:, 3 * shift : 3 * shift + 40] for shift in range(6)]
    different = [texture(40, 40, seed) for seed in range(6)]
    assert nonzero(moving) < 0.5 * nonzero(different)


def test_several_clips_in_a_chunk_are_those_alone() -> None:
    clips = [clip_of([texture(24, 40, seed)[:, shift : shift + 24] for shift in range(3)]) for seed in range(2)]
    both = torch.cat(clips)
    chunk = coded(both)
    coder = coder_of(both)
    together = coder.symbols(chunk, 2)
    decoded = shown(both, chunk)
    for number, clip in enumerate(clips):
        alone = coded(clip)
        for own, level in zip(coder.symbols(alone, 1), together, strict=True):
            assert torch.equal(own[0], level[number])
        assert torch.equal(decoded[number], shown(clip, alone)[0])


def test_positions_between_samples() -> None:
    """Times are interpolated between pictures; whole positions give the pictures."""
    clip = clip_of([texture(32, 40)[:, shift : shift + 32] for shift in range(4)])
    chunk = coded(clip)
    whole = shown(clip, chunk)
    some = shown(clip, chunk, [np.array([2.0, 1.0]), np.array([3.0]), np.arange(10, 20.0)])
    assert torch.equal(some, whole[:, :, [2, 1], 3:4, 10:20])
    between = shown(clip, chunk, [np.array([1.5]), *[np.arange(32.0)] * 2])
    low, high = whole[:, :, 1], whole[:, :, 2]
    assert float((between[:, :, 0] - (low + high) / 2).abs().max()) < 0.2


def test_some_times_are_as_when_all_are_asked() -> None:
    """Only what these times need is decoded, and at the places that are asked."""
    clip = clip_of([texture(24, 50)[:, 2 * shift : 2 * shift + 24] for shift in range(9)])
    chunk = coded(clip)
    places = [np.arange(0, 24, 0.5), np.arange(10.0)]
    everything = shown(clip, chunk, [np.arange(9.0), *places])
    for times in ([5.0], [8.0, 0.0], [6.5, 1.25], []):
        wanted = resample(everything, [np.array(times), *(np.arange(len(along)) for along in places)], (False,) * 3)
        assert torch.equal(shown(clip, chunk, [np.array(times), *places]), wanted)


def test_damaged_chunks_are_refused_or_decode() -> None:
    clip = clip_of([texture(24, 40)[:, shift : shift + 24] for shift in range(3)])
    chunk = coded(clip)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(20):
        damaged = bytearray(chunk[: random.integers(1, len(chunk) + 1)])
        damaged[random.integers(len(damaged))] ^= int(random.integers(1, 256))
        try:
            shown(clip, bytes(damaged))
        except CorruptFile:
            refused += 1
    assert refused > 10


def video(pictures: list[np.ndarray]) -> Signal:
    values = np.rint(np.stack(pictures) * 255).clip(0, 255).astype(np.uint8)
    axes = (Axis(len(pictures), "start", Fraction(25)), *(Axis(size) for size in values.shape[1:3]))
    return Signal("video", values, axes, (0.0, 255.0))


def test_a_video_of_several_patches_round_trips() -> None:
    signal = video([texture(60, 90)[:, shift : shift + 60] for shift in range(7)])
    options = EncodeOptions(effort="fast", device="cpu")
    data, (decoded,) = inrcodec.encode([signal], [untrained()], options, embed=True)
    (again,) = inrcodec.decode(data, device="cpu")
    np.testing.assert_array_equal(again.values, decoded.values)
    assert again.values.shape == signal.values.shape
    assert np.abs(again.values.astype(int) - signal.values).mean() < 6
    (smaller,) = inrcodec.decode(data, resolution=inrcodec.Resolution(size=(30, 30)), device="cpu")
    assert smaller.values.shape == (7, 30, 30, 3)
    halves = signal.values.reshape(7, 30, 2, 30, 2, 3).mean((2, 4))
    assert np.abs(smaller.values - halves).mean() < 6


def test_an_initialization_is_read_back() -> None:
    written = untrained()
    read = Initialization.from_bytes(written.to_bytes())
    assert read.field == written.field and read.identifier == written.identifier
    assert {name.split(".")[0] for name in read.theta_0} == {"intra", "inter"}


def test_a_clip_starts_from_the_pictures_of_a_pyramid(tmp_path: Path) -> None:
    usual = tiny()
    pictures = replace(
        preset("image", "pyramid"), field=FIELD.transform(), training=usual.training, crop=(24, 40), hidden=4
    )
    trainer = latent_trainer(pictures)
    with torch.no_grad():
        for value in trainer.theta_0.values():
            value += 0.01
    images = initialization_of(trainer, pictures)
    short = replace(usual, training=replace(usual.training, outer_steps=1, outer_step_size=1e-9))
    signals = [video([texture(60, 90, seed)[:, shift : shift + 60] for shift in range(5)]) for seed in range(2)]
    data = TrainingData(signals[:1], signals[1:], 1, {})
    target = tmp_path / "clip.safetensors"
    result = meta_train(short, data, target, source="waves", start=images)
    for kind in ("intra", "inter"):
        for name, value in images.theta_0.items():
            torch.testing.assert_close(result.theta_0[f"{kind}.{name}"], value, atol=1e-5, rtol=0)
    other = replace(short, field=LatentPyramid(3, 3, (2, 2, 2)))
    with pytest.raises(UsageError, match="is for image"):
        meta_train(other, data, target, source="waves", start=images)
