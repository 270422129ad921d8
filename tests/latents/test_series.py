"""Latent series: fields that see each other where they are, coded and back, and one of them alone."""

from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_latents import random_initialization
from tiny_latents import CPU, initialization_of, latent_trainer

from inrcodec import metrics
from inrcodec.decoder import decode_stream
from inrcodec.encoder import code_signal, encode
from inrcodec.errors import CorruptFile
from inrcodec.initialization import Initialization
from inrcodec.latents import sequence_coder
from inrcodec.latents.codec import LatentCodec
from inrcodec.latents.coder import AdaptationPlan, TransformCoder
from inrcodec.latents.objective import trade_off_of_step_index
from inrcodec.latents.sequence_coder import SeriesCoder
from inrcodec.meta.latent_trainer import nearest_symbols
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.series_trainer import SeriesTrainer
from inrcodec.models import Grid, LatentPyramid, LatentSeries
from inrcodec.models.pyramid import resample
from inrcodec.models.sequence import INTRA
from inrcodec.models.series import STAGE_SAMPLES
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.resolution import Resolution
from inrcodec.signals.signal import Axis, Signal

FIELD = LatentSeries(3, 1, (3, 3), prediction=4, divided=2)
PATCHES = PatchConfig((6, 24, 40), (0, 4, 4), normalize=False)
STEP_INDEX = -40


def tiny() -> Preset:
    usual = preset("climate", "series")
    training = replace(usual.training, batch=2, outer_steps=6, outer_step_size=2e-3)
    return replace(usual, field=FIELD, patches=PATCHES, training=training, crop=(5, 24, 40), hidden=4)


def series_trainer() -> SeriesTrainer:
    trainer = latent_trainer(tiny())
    assert isinstance(trainer, SeriesTrainer)
    return trainer


@pytest.fixture(scope="module")
def known() -> Initialization:
    """Return networks that are random, but matter."""
    return random_initialization("climate", FIELD, PATCHES)


def weather(count: int, height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """Return fields that drift, with some noise, [count, height, width] in [0, 1]."""
    random = np.random.default_rng(seed)
    times, rows, columns = np.indices((count, height, width))
    waves = [
        np.sin(random.uniform(0.1, 0.4) * rows + random.uniform(-0.4, 0.4) * columns + 0.2 * each * times)
        for each in range(4)
    ]
    return 0.5 + sum(waves) / 10 + random.normal(0, 0.005, (count, height, width))


def batch_of(*series: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(series).astype(np.float32))[:, None]


def coder_of(initialization: Initialization, grid: Grid) -> SeriesCoder:
    return SeriesCoder(initialization, grid, STEP_INDEX, 0, CPU)


def plan(steps: int = 0) -> AdaptationPlan:
    return AdaptationPlan(trade_off_of_step_index(STEP_INDEX, 1), steps)


@pytest.mark.parametrize("apart", [1, 1 << 17], ids=["streams apart", "one stream"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_chunk_decodes_to_what_the_encoder_knows(
    known: Initialization, monkeypatch: pytest.MonkeyPatch, count: int, apart: int
) -> None:
    monkeypatch.setattr(sequence_coder, "APART_SAMPLES", apart)
    values = batch_of(weather(count), weather(count, seed=1))
    coder = coder_of(known, Grid(values.shape[2:], (False, False, True)))
    chunk, shown = coder.encode(values, plan(1))
    positions = [np.arange(size, dtype=float) for size in values.shape[2:]]
    symbols = coder.symbols(chunk, 2)
    assert sum(each[0].numel() for each in symbols) == coder.size
    for decoded in (coder.decode(chunk, 2, [positions] * 2), coder.values_at(symbols, repeat(positions))):
        assert torch.equal(torch.stack(list(decoded)), shown)
    # Points of other members in each patch, none of the first one in the second.
    points = [np.array([[0, count - 1, count - 1], [3, 0, 11.5], [2.25, 0, 7]]), np.array([[count - 1], [4], [5.5]])]
    for decoded in (coder.decode(chunk, 2, points), coder.values_at(symbols, iter(points))):
        for asked, found, own in zip(points, decoded, shown, strict=True):
            for (member, row, column), value in zip(asked.T, found[0], strict=True):
                member = own[:, int(member)][None]
                wanted = resample(member, [np.array([row]), np.array([column])], (False, True))
                assert float(value) == pytest.approx(float(wanted.clamp(0, 1)), abs=1e-5)


def test_a_field_alone_is_a_pyramid(known: Initialization) -> None:
    """It has the same bytes, and so costs no more than one."""
    values = batch_of(weather(1))
    pyramid = LatentPyramid(2, 1, (3, 3), prediction=4, divided=2)
    prior = known.prior
    assert isinstance(prior, LatentPrior)

    def of_intra(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        own = {name: value for name, value in tensors.items() if name.startswith(f"{INTRA}.")}
        return {name.removeprefix(f"{INTRA}."): value for name, value in own.items()}

    alone = replace(
        known,
        field=pyramid,
        patches=PatchConfig((24, 40), (4, 4), normalize=False),
        theta_0=of_intra(known.theta_0),
        prior=LatentPrior(prior.entropy_model.of_kind(INTRA), of_intra(prior.weights)),
    )
    chunk, shown = coder_of(known, Grid.open((1, 24, 40))).encode(values, plan())
    same, values_alone = TransformCoder(alone, Grid.open((24, 40)), STEP_INDEX, 0, CPU).encode(values[:, :, 0], plan())
    assert chunk == same and torch.equal(shown[:, :, 0], values_alone)


def test_one_field_is_decoded_with_its_references_only(known: Initialization, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is damaged elsewhere does not matter; only stages that are references are read."""
    monkeypatch.setattr(sequence_coder, "APART_SAMPLES", 1)
    monkeypatch.setattr("inrcodec.models.series.STAGE_SAMPLES", 1)
    values = batch_of(weather(17))
    coder = coder_of(known, Grid.open(values.shape[2:]))
    chunk, shown = coder.encode(values, plan())
    read: list[int] = []
    alone = SeriesCoder._model_alone

    def watched(self: SeriesCoder, stage: sequence_coder.Stage) -> sequence_coder.LatentModel:
        read.extend(stage.members)
        return alone(self, stage)

    monkeypatch.setattr(SeriesCoder, "_model_alone", watched)
    places = [np.arange(size, dtype=float) for size in values.shape[3:]]
    (found,) = coder.decode(chunk, 1, [[np.array([3.0]), *places]])
    assert torch.equal(found[:, 0], shown[0, :, 3])
    assert set(read) == {0, 16, 8, 4, 2, 3}


@pytest.mark.parametrize("change", [lambda chunk: chunk + b"\1", lambda chunk: chunk[:-1], lambda chunk: b"\xff" * 9])
def test_stages_of_wrong_lengths_are_refused(known: Initialization, monkeypatch: pytest.MonkeyPatch, change) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sequence_coder, "APART_SAMPLES", 1)
    values = batch_of(weather(3))
    coder = coder_of(known, Grid.open(values.shape[2:]))
    chunk, _ = coder.encode(values, plan())
    with pytest.raises(CorruptFile):
        coder.symbols(change(chunk), 1)


@given(st.integers(1, 70), st.integers(1, 2000), st.integers(1, 3000))
def test_stages_are_bounded_in_memory(count: int, height: int, width: int) -> None:
    done: set[int] = set()
    for stage in FIELD.stages(Grid.open((count, height, width))):
        assert len(stage.members) == 1 or len(stage.members) * height * width <= STAGE_SAMPLES
        assert all(each in done for references in stage.references for each in references)
        done.update(stage.members)
    assert done == set(range(count))


def signal_of(count: int) -> Signal:
    axes = (Axis(count, "slice"), Axis(24, "node"), Axis(40, "periodic"))
    return Signal("climate", weather(count)[..., None].astype(np.float32), axes, (0.0, 1.0))


@pytest.mark.parametrize("count", [1, 13, 14])
def test_a_signal_of_several_groups(known: Initialization, count: int) -> None:
    """The last group is filled up; of that, a decoder shows nothing."""
    signal = signal_of(count)
    part = LatentCodec().prepare(signal, known, EncodeOptions(steps=0), CPU)
    assert part.patches.closed == (False, False, True)
    coded = code_signal(part, part.choose(trade_off_of_step_index(STEP_INDEX, 1), None), keep=True)
    fresh = decode_stream(coded.stream, known, resolution=Resolution(), device="cpu").loaded()
    assert coded.decoded is not None and coded.decoded.values.shape == signal.values.shape
    np.testing.assert_array_equal(coded.decoded.values, fresh.values)


def test_slices_of_other_ranges_keep_them(known: Initialization) -> None:
    signal = signal_of(13)
    ranges = np.stack([np.linspace(0, 50, 13), np.linspace(1, 250, 13)], 1)
    values = (
        signal.values * (ranges[:, 1] - ranges[:, 0])[:, None, None, None] + ranges[:, 0, None, None, None]
    ).astype(np.float32)
    scaled = replace(signal, values=values, value_range=(0.0, 250.0), slice_ranges=ranges)
    _, (plain,) = encode([signal], [known], EncodeOptions(quality=60))
    _, (other,) = encode([scaled], [known], EncodeOptions(quality=60))
    restored = (other.values[..., 0] - ranges[:, 0, None, None]) / (ranges[:, 1] - ranges[:, 0])[:, None, None]
    np.testing.assert_allclose(restored, plain.values[..., 0], atol=1e-2)


def test_a_bound_holds_for_a_series(known: Initialization) -> None:
    signal = signal_of(13)
    _, (decoded,) = encode([signal], [known], EncodeOptions(max_error=0.004))
    assert metrics.max_error(signal, decoded) <= 0.004


# Training


def test_what_sees_references_starts_near_them() -> None:
    trainer = series_trainer()
    trainer.step = 1
    values = batch_of(np.repeat(weather(1), 5, 0))
    model, task = trainer.task(values, STEP_INDEX, torch.Generator().manual_seed(0))
    alone = sum(int(torch.round(target).count_nonzero()) for target in task.targets)
    assert sum(int(each.count_nonzero()) for each in nearest_symbols(model, task)[1:]) < 0.3 * alone


def test_a_run_starts_from_a_pyramid() -> None:
    """All networks are its networks; those with references predict their mean at first."""
    pyramid = random_initialization(
        "climate",
        LatentPyramid(2, 1, (3, 3), prediction=4, divided=2),
        PatchConfig((24, 40), (4, 4), normalize=False),
        4,
    )
    trainer = series_trainer()
    trainer.start_from(pyramid)
    made = initialization_of(trainer, tiny())
    for name, value in pyramid.theta_0.items():
        assert torch.equal(made.theta_0[f"intra.{name}"], value)
        assert torch.equal(made.theta_0[f"inter.{name}"], torch.zeros_like(value) if "head" in name else value)
