"""Meta-training of latent fields: what a run learns, what it goes on from, and what it refuses."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_latents import (
    FIELD,
    GRID,
    STEP_INDEX,
    disturbed_model,
    initialization_of,
    latent_trainer,
    textured_data,
    textured_patches,
    tiny_preset,
    whole_and_resumed,
)
from torch import Tensor

from inrcodec import metrics
from inrcodec.encoder import encode
from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import first_state
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task
from inrcodec.meta import evaluation
from inrcodec.meta import latent_trainer as trainer_module
from inrcodec.meta.data import TrainingData
from inrcodec.meta.latent_trainer import LatentTrainer, nearest_symbols, objective_to_learn
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import meta_train
from inrcodec.meta.trainer import MAX_DIVERGED
from inrcodec.models import LatentClip, LatentField, LatentPyramid, LatentSpectrum, Siren
from inrcodec.options import EncodeOptions, trade_off_of_quality
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import read
from inrcodec.signals.signal import Signal
from inrcodec.weights.context_set import ContextSet

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "LATENT_PATCHES", 1)
        patch.setattr(evaluation, "QUALITIES", (40,))
        yield


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return textured_data()


# What a run learns


def cost(initialization: Initialization, signal: Signal, quality: float) -> float:
    """Return log J of a real file: its squared error over lambda, plus its bits per sample."""
    file, decoded = encode([signal], [initialization], EncodeOptions(quality=quality, steps=1, device="cpu"))
    error = 10 ** (-metrics.psnr(signal, decoded[0]) / 10)
    return math.log(error / trade_off_of_quality(quality) + 8 * len(file) / signal.samples)


def beginning(signal: Signal, shape: Sequence[int]) -> Signal:
    """Return the first samples of a signal along every axis."""
    axes = tuple(replace(axis, size=size) for axis, size in zip(signal.axes, shape, strict=True))
    return replace(signal, values=signal.values[tuple(slice(size) for size in shape)], axes=axes)


def samples(modality: str) -> list[Signal]:
    """Return real signals: the shipped ones, pictures and videos only in part."""
    signals = [read(path, modality)[0] for path in sorted((SAMPLES / modality).iterdir())]
    part = {"image": (144, 127), "video": (6, 80, 80), "audio": (32000, 1)}[modality]
    return [beginning(signal, part) for signal in signals]


@pytest.mark.parametrize(
    ("modality", "field", "crop", "training"),
    [
        ("image", LatentPyramid(2, 3, (3, 3), prediction=4, divided=2), (48, 48), (12, 0.1, 3)),
        ("video", LatentClip(3, 3, (3, 3), prediction=4), (5, 64, 64), (12, 0.05, 2)),
        ("audio", LatentSpectrum(1, 1, (3, 5), hop=64), (4096,), (40, 0.05, 2)),
    ],
    ids=["pyramid", "clip", "spectrum"],
)
def test_meta_training_makes_a_real_signal_not_seen_cheaper(
    modality: str,
    field: LatentField,
    crop: tuple[int, ...],
    training: tuple[int, float, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In few steps, some of them at symbols that are rounded to the nearest, most with the full rate."""
    monkeypatch.setattr(LatentTrainer, "WARM_UP", 4)
    monkeypatch.setattr(trainer_module, "UNTRAINED_STEPS", 6)
    usual = preset(modality, field.name)
    outer_steps, outer_step_size, batch = training
    changes = {"outer_steps": outer_steps, "outer_step_size": outer_step_size, "batch": batch}
    settings = replace(
        usual,
        field=field,
        patches=replace(usual.patches, shape=crop, overlap=(0,) * len(crop)),
        crop=crop,
        hidden=8,
        training=replace(usual.training, **changes),
    )
    held_out, *signals = samples(modality)
    data = TrainingData(signals, [held_out], len(signals), {})
    trained = meta_train(settings, data, tmp_path / "tiny.safetensors", source="samples")
    untrained = initialization_of(latent_trainer(settings), settings)
    for quality in (20, 40):
        assert cost(trained, held_out, quality) < cost(untrained, held_out, quality) - 0.05


def test_a_run_writes_what_it_returns_and_says_what_it_did(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "QUALITIES", (20, 40, 60))
    output = tmp_path / "tiny.safetensors"
    trained = meta_train(tiny_preset(outer_steps=3), data, output, source="waves")
    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert stored.provenance["training"]["outer_steps"] == 3
    card = (tmp_path / "tiny.md").read_text()
    for fact in (trained.identifier.hex(), "waves", "3 outer steps of 3 signals, step indices -56 to -4, seed 0."):
        assert fact in card
    # What the run reports to have measured: more bits buy a better picture.
    rows = stored.provenance["evaluation"]["rows"]
    measured = [(bits, reached) for quality, steps, bits, reached in rows if steps == 2]
    assert [bits for bits, _ in measured] == sorted(bits for bits, _ in measured)
    assert [reached for _, reached in measured] == sorted(reached for _, reached in measured)
    assert [quality for quality, steps, *_ in rows if steps == 2] == [20, 40, 60]


# Going on


def test_a_cut_run_resumes_to_the_same_initialization(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before and after the latents begin to be adapted."""
    monkeypatch.setattr(trainer_module, "UNTRAINED_STEPS", 2)
    whole, resumed, seen = whole_and_resumed(tiny_preset(outer_steps=6), data, tmp_path, monkeypatch, (1, 4))
    assert 3 < seen[0].step < 6
    first, second = (safetensors.torch.load(each.to_bytes()) for each in (whole, resumed))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert resumed.identifier == whole.identifier


@pytest.fixture(scope="module")
def finished(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a run, which has its checkpoint beside it."""
    output = tmp_path_factory.mktemp("run") / "a.safetensors"
    meta_train(tiny_preset(outer_steps=1), data, output, source="waves")
    return output


@pytest.mark.parametrize(
    "change",
    [
        lambda preset: replace(preset, hidden=8),
        lambda preset: replace(preset, crop=(16, 24)),
        lambda preset: replace(preset, field=replace(preset.field, levels=(2, 2))),
        lambda preset: replace(preset, field=replace(preset.field, prediction=5)),
        lambda preset: replace(preset, training=replace(preset.training, quantization=(-40, -4))),
        lambda preset: replace(preset, training=replace(preset.training, adaptation=AdaptationConfig.unpruned(3))),
    ],
)
def test_resuming_with_other_settings_is_refused(
    data: TrainingData, finished: Path, change: Callable[[Preset], Preset]
) -> None:
    before = finished.read_bytes()
    with pytest.raises(UsageError, match="other settings"):
        meta_train(change(tiny_preset(outer_steps=1)), data, finished, source="waves", resume=True)
    assert finished.read_bytes() == before


def test_a_state_of_another_shape_is_refused() -> None:
    settings = tiny_preset()
    state = latent_trainer(settings).state()
    for other in (replace(settings, hidden=8), replace(settings, field=replace(FIELD, prediction=5))):
        with pytest.raises(UsageError, match="does not fit"):
            latent_trainer(other).load_state(state)


def a_batch() -> ContextSet:
    """Return three patches of the tiny preset."""
    return ContextSet(
        torch.zeros(1, 256, 2), torch.rand((3, 256, 3), generator=torch.Generator().manual_seed(0)), (16, 16)
    )


def test_a_batch_that_diverges_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = latent_trainer(tiny_preset())
    before = {name: value.clone() for name, value in (trainer.theta_0 | trainer.weights).items()}
    monkeypatch.setattr(trainer_module, "FLOOR", math.nan)
    for _ in range(MAX_DIVERGED - 1):
        trainer.train_step(a_batch())
    assert all(torch.equal(value, before[name]) for name, value in (trainer.theta_0 | trainer.weights).items())
    with pytest.raises(UsageError, match="diverged"):
        trainer.train_step(a_batch())


@pytest.mark.parametrize("group", ["theta_0", "weights"])
def test_weights_with_which_sums_are_not_exact_end_a_run(group: str) -> None:
    trainer = latent_trainer(tiny_preset())
    name = next(name for name in getattr(trainer, group) if name.endswith("hidden.weight"))
    with torch.no_grad():
        getattr(trainer, group)[name] += 64
    words = r"after 0 outer steps the weights of .*hidden are .* times too large .*: use a smaller --outer-step-size"
    with pytest.raises(UsageError, match=words):
        trainer.train_step(a_batch())


def test_a_run_goes_on_from_an_initialization(data: TrainingData, finished: Path, tmp_path: Path) -> None:
    """Before the first step, what fits is taken over; a network of another width begins anew."""
    start = Initialization.load(finished)
    settings = tiny_preset(outer_steps=0)
    same = meta_train(settings, data, tmp_path / "b.safetensors", source="waves", start=start)
    assert same.identifier == start.identifier and same.provenance["start"] == start.identifier.hex()

    wider = replace(settings, field=replace(FIELD, prediction=5))
    other = meta_train(wider, data, tmp_path / "c.safetensors", source="waves", start=start)
    assert start.identifier.hex() in (tmp_path / "c.md").read_text()
    assert all(torch.equal(value, start.prior.tensors[name]) for name, value in other.prior.tensors.items())
    assert all(value.shape != start.theta_0[name].shape for name, value in other.theta_0.items())
    siren = replace(start, field=Siren(2, 3, width=4, depth=2))
    with pytest.raises(UsageError, match="a siren"):
        meta_train(settings, data, tmp_path / "e.safetensors", source="waves", start=siren)


def test_pruning_is_refused(data: TrainingData, tmp_path: Path) -> None:
    settings = tiny_preset(adaptation=AdaptationConfig(steps=2, gamma=0.5))
    with pytest.raises(UsageError, match=r"^latents have no context set to prune: gamma = 0\.5 with the score 'grad-"):
        meta_train(settings, data, tmp_path / "a.safetensors", source="waves")
    assert not list(tmp_path.iterdir())


# The objective


@pytest.fixture(scope="module")
def model() -> LatentModel:
    """Return a model with networks that matter and magnitudes that depend on those before."""
    return disturbed_model(tiny_preset())


@pytest.fixture(scope="module")
def task(model: LatentModel) -> Task:
    return Task.of(model, textured_patches(), GRID)


def test_the_first_decisions_beat_rounding(model: LatentModel, task: Task) -> None:
    """Rounded to the nearest, symbols cost more than they are worth."""
    nearest = nearest_symbols(model, task)
    assert all(torch.equal(each, each.round()) for each in nearest)
    distortion, bits = objective_to_learn(model, nearest, task)
    assert (first_state(model, task).objective < 0.99 * (distortion + bits)).all()


def objective_of(trainer: LatentTrainer, patches: Tensor) -> Tensor:
    """Return log J with symbols decided anew, mean over patches, with gradients of all that is learned."""
    model = trainer.model(STEP_INDEX)
    task = Task.of(model, patches, GRID)
    with torch.no_grad():
        symbols = first_state(model, task).symbols
    distortion, bits = objective_to_learn(model, symbols, task)
    return torch.log((distortion + bits) / math.prod(GRID.shape)).mean()


def test_predictions_learn_to_save_bits() -> None:
    """Alone, with all other networks as they were."""
    trainer = latent_trainer(tiny_preset())
    patches = textured_patches()
    optimizer = torch.optim.Adam(trainer.theta_0.values(), 3e-2)
    history = []
    for _ in range(12):
        loss = objective_of(trainer, patches)
        history.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert history[-1] < history[0] - 0.02
