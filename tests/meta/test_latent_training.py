"""Meta-training of latent pyramids, and the adaptation of their integer latents."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_latents import (
    FIELD,
    GRID,
    STEP_INDICES,
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
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, step_index_of_trade_off, trade_off_of_step_index
from inrcodec.meta import evaluation
from inrcodec.meta import latent_trainer as trainer_module
from inrcodec.meta.data import TrainingData
from inrcodec.meta.latent_trainer import LatentTrainer, objective_to_learn
from inrcodec.meta.presets import Preset
from inrcodec.meta.run import meta_train
from inrcodec.meta.trainer import MAX_DIVERGED
from inrcodec.models import Siren
from inrcodec.options import EncodeOptions, trade_off_of_quality
from inrcodec.settings import AdaptationConfig
from inrcodec.signals.signal import Signal
from inrcodec.weights.context_set import ContextSet


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "LATENT_PATCHES", 1)
        patch.setattr(evaluation, "QUALITIES", (40,))
        yield


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return textured_data()


# Meta-training


def cost(initialization: Initialization, picture: Signal, quality: float) -> float:
    """Return log J of a real file: its squared error over lambda, plus its bits per sample."""
    file, decoded = encode([picture], [initialization], EncodeOptions(quality=quality, steps=1))
    error = 10 ** (-metrics.psnr(picture, decoded[0]) / 10)
    return math.log(error / trade_off_of_quality(quality) + 8 * len(file) / picture.samples)


def test_meta_training_makes_files_not_seen_cheaper(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In few steps, most of them with the full rate."""
    monkeypatch.setattr(LatentTrainer, "WARM_UP", 4)
    monkeypatch.setattr(trainer_module, "UNTRAINED_STEPS", 10)
    monkeypatch.setattr(evaluation, "QUALITIES", (20, 40, 60))
    settings = tiny_preset(outer_steps=20, outer_step_size=0.1)
    output = tmp_path / "tiny.safetensors"
    trained = meta_train(settings, data, output, source="waves")
    untrained = initialization_of(latent_trainer(settings), settings)
    (picture,) = data.held_out
    for quality in (20, 40, 60):
        assert cost(trained, picture, quality) < cost(untrained, picture, quality) - 0.1

    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert stored.provenance["training"]["outer_steps"] == 20
    assert trained.identifier.hex() in (tmp_path / "tiny.md").read_text()
    # What the run reports to have measured: more bits buy a better picture.
    rows = stored.provenance["evaluation"]["rows"]
    measured = [(bits, reached) for quality, steps, bits, reached in rows if steps == 2]
    assert [bits for bits, _ in measured] == sorted(bits for bits, _ in measured)
    assert [reached for _, reached in measured] == sorted(reached for _, reached in measured)
    assert [quality for quality, steps, *_ in rows if steps == 2] == [20, 40, 60]


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
        lambda preset: replace(preset, field=replace(preset.field, width=5)),
        lambda preset: replace(preset, training=replace(preset.training, quantization=(-40, -4))),
        lambda preset: replace(preset, training=replace(preset.training, adaptation=AdaptationConfig(steps=3))),
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
    for other in (replace(settings, hidden=8), replace(settings, field=replace(FIELD, width=5))):
        with pytest.raises(UsageError, match="does not fit"):
            latent_trainer(other).load_state(state)


def test_a_batch_that_diverges_changes_nothing() -> None:
    trainer = latent_trainer(tiny_preset())
    before = {name: value.clone() for name, value in (trainer.theta_0 | trainer.weights).items()}
    broken = ContextSet(torch.zeros(1, 256, 2), torch.full((3, 256, 3), torch.nan))
    for _ in range(MAX_DIVERGED - 1):
        trainer.train_step(broken)
    assert all(torch.equal(value, before[name]) for name, value in (trainer.theta_0 | trainer.weights).items())
    with pytest.raises(UsageError, match="diverged"):
        trainer.train_step(broken)


def test_a_run_goes_on_from_an_initialization(data: TrainingData, finished: Path, tmp_path: Path) -> None:
    """Before the first step, what fits is taken over; a network of another width begins anew."""
    start = Initialization.load(finished)
    settings = tiny_preset(outer_steps=0)
    same = meta_train(settings, data, tmp_path / "b.safetensors", source="waves", start=start)
    assert same.identifier == start.identifier and same.provenance["start"] == start.identifier.hex()

    wider = replace(settings, field=replace(FIELD, prediction=5), hidden=7)
    other = meta_train(wider, data, tmp_path / "c.safetensors", source="waves", start=start)
    assert start.identifier.hex() in (tmp_path / "c.md").read_text()
    kept = {name for name in start.theta_0 if not name.startswith("prediction")}
    assert all(torch.equal(other.theta_0[name], start.theta_0[name]) for name in kept)
    assert all(other.theta_0[name].shape != start.theta_0[name].shape for name in start.theta_0.keys() - kept)

    siren = replace(start, field=Siren(2, 3, width=4, depth=2))
    with pytest.raises(UsageError, match="a siren"):
        meta_train(settings, data, tmp_path / "d.safetensors", source="waves", start=siren)


def test_the_objective_to_learn_is_that_of_the_symbols(model: LatentModel, values: Tensor) -> None:
    symbols = adapt_latents(model, values, GRID, STEP_INDICES, steps=1)
    error, bits = objective_to_learn(model, symbols, Task.of(model, values, GRID, STEP_INDICES))
    with torch.no_grad():
        expected = (model.values(symbols, GRID, STEP_INDICES) - values).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(error.detach(), expected)
        magnitudes = [level.abs() for level in symbols]
        torch.testing.assert_close(bits.detach(), model.bits(symbols, GRID, STEP_INDICES, magnitudes))


def test_predictions_learn_to_save_bits(model: LatentModel, values: Tensor) -> None:
    """Alone, with all other networks as they were, and symbols decided anew."""
    predicting = {name: value.clone() for name, value in model.shared.items() if name.startswith("prediction")}
    learner = replace(model, shared=model.shared | predicting)
    for value in predicting.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(predicting.values(), 3e-2)
    trade_off = trade_offs_made_for()
    history = []
    for _ in range(12):
        with torch.no_grad():
            symbols = adapt_latents(learner, values, GRID, STEP_INDICES, steps=0)
        error, bits = objective_to_learn(learner, symbols, Task.of(learner, values, GRID, STEP_INDICES))
        loss = torch.log(error / trade_off + bits / math.prod(GRID.shape)).mean()
        history.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert history[-1] < history[0] - 0.05


# Adaptation


@pytest.fixture(scope="module")
def model() -> LatentModel:
    """Return a model with a restoring network that matters and magnitudes that depend on those before."""
    return disturbed_model(tiny_preset())


@pytest.fixture(scope="module")
def values() -> Tensor:
    return textured_patches()


def trade_offs_made_for() -> Tensor:
    """Return the trade-offs that the quantization steps are made for, [3]."""
    return torch.tensor([trade_off_of_step_index(int(step_index), 3) for step_index in STEP_INDICES])


def objective(model: LatentModel, symbols: list[Tensor], values: Tensor, trade_off: Tensor) -> Tensor:
    """Return J per signal: mean squared error over lambda, plus bits per sample."""
    with torch.no_grad():
        error = (model.values(symbols, GRID, STEP_INDICES) - values).square().mean(dim=(1, 2, 3))
        bits = model.bits(symbols, GRID, STEP_INDICES, [level.abs() for level in symbols])
    return error / trade_off + bits / math.prod(GRID.shape)


@pytest.mark.parametrize("factor", [None, 3.0])
def test_more_steps_never_worsen_the_objective(model: LatentModel, values: Tensor, factor: float | None) -> None:
    """For the trade-off that the quantization step is made for, and for others."""
    made_for = trade_offs_made_for()
    trade_off = None if factor is None else factor * made_for
    reached = []
    for steps in (0, 1, 2, 5):
        symbols = adapt_latents(model, values, GRID, STEP_INDICES, steps=steps, trade_off=trade_off)
        reached.append(objective(model, symbols, values, made_for if trade_off is None else trade_off))
    history = torch.stack(reached)
    assert (history.diff(dim=0) <= 1e-5 * history[:-1]).all()
    assert (history[-1] < history[0]).all()


def test_the_first_decisions_beat_rounding(model: LatentModel, values: Tensor) -> None:
    """In sum over the signals: rounded to the nearest, symbols cost more than they are worth."""
    trade_off = trade_offs_made_for()
    decided = adapt_latents(model, values, GRID, STEP_INDICES, steps=0)
    scale = torch.exp2(STEP_INDICES / 8).reshape(-1, 1, 1, 1)
    rounded = [torch.round(level / scale) for level in FIELD.analyse(values, GRID)]
    gained = objective(model, rounded, values, trade_off) - objective(model, decided, values, trade_off)
    assert gained.sum() > 0.1


@pytest.mark.parametrize("index", [-120, -40, 24])
@pytest.mark.parametrize("steps", [0, 2])
def test_symbols_are_integers_in_range(model: LatentModel, index: int, steps: int) -> None:
    """Of full contrast too, at the finest and the coarsest quantization."""
    rows, columns = np.indices(GRID.shape)
    patches = [(rows + columns) % 2, rows // 8 % 2, 0 * rows, 1 + 0 * rows]
    values = torch.from_numpy(np.stack(patches)).float()[:, None].expand(-1, 3, -1, -1).contiguous()
    step_index = torch.full((4,), float(index))
    symbols = adapt_latents(model, values, GRID, step_index, steps=steps)
    assert [tuple(level.shape) for level in symbols] == [(4, *shape) for shape in FIELD.latent_shapes(GRID)]
    for level in symbols:
        assert torch.equal(level, level.round())
        assert level.abs().max() <= 2 * 2 ** max(FIELD.levels) * 2 ** (-index / 8) + 1
        assert level.abs().max() < 2**24  # where float32 still holds all integers


def test_trade_offs_and_step_indices_are_inverse() -> None:
    for channels in (1, 3):
        trade_offs = [trade_off_of_step_index(index, channels) for index in range(-120, 25)]
        assert [step_index_of_trade_off(trade_off, channels) for trade_off in trade_offs] == list(range(-120, 25))
        ratios = np.divide(trade_offs[1:], trade_offs[:-1])
        np.testing.assert_allclose(ratios, 4 ** (1 / 8))  # squared error goes with the square of the step
        nearly_half = 4 ** (0.49 / 8)
        for index, trade_off in zip(range(-120, 25), trade_offs, strict=True):
            assert step_index_of_trade_off(trade_off * nearly_half, channels) == index
            assert step_index_of_trade_off(trade_off / nearly_half, channels) == index
    # A step serves the mean squared error of three channels at a third of one's lambda.
    assert trade_off_of_step_index(-40, 1) == pytest.approx(3 * trade_off_of_step_index(-40, 3))
