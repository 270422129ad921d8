"""Meta-training of latent pyramids, and the adaptation of their integer latents."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from waves import tiny_image

from inrcodec import metrics
from inrcodec.encoder import encode
from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, step_index_of_trade_off, trade_off_of_step_index
from inrcodec.meta import evaluation, run
from inrcodec.meta.data import TrainingData
from inrcodec.meta.latent_trainer import LatentTrainer, objective_to_learn
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import TrainingProgress, meta_train, pyramid_initialization
from inrcodec.meta.trainer import MAX_DIVERGED
from inrcodec.models import LatentPyramid, Parameters, Siren
from inrcodec.models.latent import Grid
from inrcodec.options import EncodeOptions, trade_off_of_quality
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals.signal import Signal
from inrcodec.weights.context_set import ContextSet

CPU = torch.device("cpu")
FIELD = LatentPyramid(2, 3, (1, 2), width=4, prediction=4)


def textured_image(seed: int) -> Signal:
    """Waves, an edge and some noise: neither all zeros nor all noise."""
    picture = tiny_image(seed, 48, 64)
    random = np.random.default_rng(seed)
    values = picture.values + random.normal(0, 4, picture.values.shape)
    row, column = random.integers(10, 30, 2)
    values[row : row + 15, column:] -= 80
    return replace(picture, values=values.round().clip(0, 255).astype(np.uint8))


def tiny_preset(**training: Any) -> Preset:
    usual = preset("image", "pyramid")
    settings = {"outer_steps": 50, "batch": 3, "outer_step_size": 3e-2, **training}
    return replace(
        usual,
        model=FIELD,
        patches=PatchConfig((64, 64), (4, 4), normalize=False),
        training=replace(usual.training, **settings),
        crop=(16, 16),
        hidden=6,
    )


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "LATENT_PATCHES", 1)
        yield


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return TrainingData([textured_image(seed) for seed in range(4)], [textured_image(9)], 4, {})


def trainer_of(settings: Preset) -> LatentTrainer:
    assert isinstance(settings.model, LatentPyramid) and settings.crop and settings.hidden
    return LatentTrainer(settings.model, settings.training, settings.crop, settings.hidden, CPU)


# Meta-training


def cost(initialization: Initialization, picture: Signal, quality: float) -> float:
    """log J of a real file: its squared error over lambda, plus its bits per sample."""
    file, decoded = encode([picture], [initialization], EncodeOptions(quality=quality, steps=1))
    error = 10 ** (-metrics.psnr(picture, decoded[0]) / 10)
    return math.log(error / trade_off_of_quality(quality) + 8 * len(file) / picture.samples)


def test_meta_training_makes_files_not_seen_cheaper(data: TrainingData, tmp_path: Path) -> None:
    settings = tiny_preset()
    output = tmp_path / "tiny.safetensors"
    trained = meta_train("image", settings, data, output, source="waves")
    untrained = pyramid_initialization("image", settings, trainer_of(settings), {})
    (picture,) = data.held_out
    for quality in (20, 40, 60):
        assert cost(trained, picture, quality) < cost(untrained, picture, quality) - 0.1

    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert stored.provenance["training"]["outer_steps"] == 50
    assert trained.identifier.hex() in (tmp_path / "tiny.md").read_text()
    # What the run reports to have measured: more bits buy a better picture.
    measured = [stored.provenance["evaluation"][quality]["1"] for quality in ("20", "40", "60")]
    assert [row["bits"] for row in measured] == sorted(row["bits"] for row in measured)
    assert [row["psnr"] for row in measured] == sorted(row["psnr"] for row in measured)


class Cut:
    """Ends a run after some outer steps, as a power failure would."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, _: TrainingProgress) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def whole_and_resumed(
    settings: Preset, data: TrainingData, folder: Path, monkeypatch: pytest.MonkeyPatch, cuts: tuple[int, ...]
) -> tuple[Initialization, Initialization, list[TrainingProgress]]:
    """What a run makes, and what it makes when it is cut after so many steps each time; the progress since the last."""
    whole = meta_train("image", settings, data, folder / "a.safetensors", source="waves")
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    cut = folder / "b.safetensors"
    for number, after in enumerate(cuts):
        with pytest.raises(KeyboardInterrupt):
            meta_train("image", settings, data, cut, source="waves", resume=number > 0, on_progress=Cut(after))
    seen: list[TrainingProgress] = []
    resumed = meta_train("image", settings, data, cut, source="waves", resume=True, on_progress=seen.append)
    return whole, resumed, seen


def test_a_cut_run_resumes_to_the_same_initialization(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before and after the latents begin to be adapted."""
    whole, resumed, seen = whole_and_resumed(tiny_preset(outer_steps=24), data, tmp_path, monkeypatch, (7, 16))
    assert 20 < seen[0].step < 24
    first, second = (safetensors.torch.load(each.to_bytes()) for each in (whole, resumed))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert resumed.identifier == whole.identifier


@pytest.fixture(scope="module")
def finished(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run, its checkpoint beside it."""
    output = tmp_path_factory.mktemp("run") / "a.safetensors"
    meta_train("image", tiny_preset(outer_steps=1), data, output, source="waves")
    return output


@pytest.mark.parametrize(
    "change",
    [
        lambda preset: replace(preset, hidden=8),
        lambda preset: replace(preset, crop=(16, 24)),
        lambda preset: replace(preset, model=replace(preset.field, levels=(2, 2))),
        lambda preset: replace(preset, model=replace(preset.field, width=5)),
        lambda preset: replace(preset, training=replace(preset.training, quantization=(-40, -4))),
        lambda preset: replace(preset, training=replace(preset.training, adaptation=AdaptationConfig(steps=3))),
    ],
)
def test_resuming_with_other_settings_is_refused(
    data: TrainingData, finished: Path, change: Callable[[Preset], Preset]
) -> None:
    before = finished.read_bytes()
    with pytest.raises(UsageError, match="other settings"):
        meta_train("image", change(tiny_preset(outer_steps=1)), data, finished, source="waves", resume=True)
    assert finished.read_bytes() == before


def test_a_state_of_another_shape_is_refused() -> None:
    settings = tiny_preset()
    state = trainer_of(settings).state()
    for other in (replace(settings, hidden=8), replace(settings, model=replace(FIELD, width=5))):
        with pytest.raises(UsageError, match="does not fit"):
            trainer_of(other).load_state(state)


def test_a_batch_that_diverges_changes_nothing() -> None:
    trainer = trainer_of(tiny_preset())
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
    same = meta_train("image", settings, data, tmp_path / "b.safetensors", source="waves", start=start)
    assert same.identifier == start.identifier and same.provenance["start"] == start.identifier.hex()

    wider = replace(settings, model=replace(FIELD, prediction=5), hidden=7)
    other = meta_train("image", wider, data, tmp_path / "c.safetensors", source="waves", start=start)
    assert start.identifier.hex() in (tmp_path / "c.md").read_text()
    kept = {name for name in start.theta_0 if not name.startswith("prediction")}
    assert all(torch.equal(other.theta_0[name], start.theta_0[name]) for name in kept)
    assert all(other.theta_0[name].shape != start.theta_0[name].shape for name in start.theta_0.keys() - kept)

    siren = replace(start, model=Siren(2, 3, width=4, depth=2))
    with pytest.raises(UsageError, match="a siren"):
        meta_train("image", settings, data, tmp_path / "d.safetensors", source="waves", start=siren)


def test_the_objective_to_learn_is_that_of_the_symbols(pyramid: LatentModel, values: Tensor) -> None:
    symbols = adapt_latents(pyramid, values, GRID, STEPS, steps=1)
    error, bits = objective_to_learn(pyramid, symbols, Task.of(pyramid, values, GRID, STEPS))
    with torch.no_grad():
        expected = (pyramid.values(symbols, GRID, STEPS) - values).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(error.detach(), expected)
        magnitudes = [level.abs() for level in symbols]
        torch.testing.assert_close(bits.detach(), pyramid.bits(symbols, GRID, STEPS, magnitudes))


def test_expectations_learn_to_save_bits(pyramid: LatentModel, values: Tensor) -> None:
    """Alone, with all other networks as they were, and symbols decided anew."""
    expecting = {name: value.clone() for name, value in pyramid.shared.items() if name.startswith("prediction")}
    learner = replace(pyramid, shared=pyramid.shared | expecting)
    for value in expecting.values():
        value.requires_grad_()
    optimizer = torch.optim.Adam(expecting.values(), 1e-2)
    trade_off = torch.tensor([trade_off_of_step_index(int(step), 3) for step in STEPS])
    history = []
    for _ in range(30):
        with torch.no_grad():
            symbols = adapt_latents(learner, values, GRID, STEPS, steps=0)
        error, bits = objective_to_learn(learner, symbols, Task.of(learner, values, GRID, STEPS))
        loss = torch.log(error / trade_off + bits / math.prod(GRID.shape)).mean()
        history.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert history[-1] < history[0] - 0.05


# Adaptation


STEPS = torch.tensor([-44.0, -30.0, -16.0])
GRID = Grid((24, 40), (False, False))


@pytest.fixture(scope="module")
def pyramid() -> LatentModel:
    """With a restoring network that matters and magnitudes that depend on their context."""
    trainer = trainer_of(tiny_preset())
    generator = torch.Generator().manual_seed(2)

    def disturbed(parameters: Parameters, size: float) -> Parameters:
        return {n: v.detach() + size * torch.randn(v.shape, generator=generator) for n, v in parameters.items()}

    return LatentModel(FIELD, disturbed(trainer.theta_0, 0.1), trainer.contexts, disturbed(trainer.weights, 0.1))


@pytest.fixture(scope="module")
def values() -> Tensor:
    """Three patches, [3, 3, 24, 40] in [0, 1]."""
    patches = np.stack([textured_image(seed).values[:24, 20:60] for seed in range(3)])
    return torch.from_numpy(patches / 255).permute(0, 3, 1, 2).float().contiguous()


def objective(pyramid: LatentModel, symbols: list[Tensor], values: Tensor, steps: Tensor, trade_off: Tensor) -> Tensor:
    """J per signal: mean squared error over lambda, plus bits per sample."""
    with torch.no_grad():
        error = (pyramid.values(symbols, GRID, steps) - values).square().mean(dim=(1, 2, 3))
        bits = pyramid.bits(symbols, GRID, steps, [level.abs() for level in symbols])
    return error / trade_off + bits / math.prod(GRID.shape)


@pytest.mark.parametrize("factor", [None, 3.0])
def test_more_steps_never_worsen_the_objective(pyramid: LatentModel, values: Tensor, factor: float | None) -> None:
    """For the trade-off that the quantization step is made for, and for others."""
    made_for = torch.tensor([trade_off_of_step_index(int(step), 3) for step in STEPS])
    trade_off = None if factor is None else factor * made_for
    reached = []
    for steps in (0, 1, 2, 5):
        symbols = adapt_latents(pyramid, values, GRID, STEPS, steps=steps, trade_off=trade_off)
        reached.append(objective(pyramid, symbols, values, STEPS, made_for if trade_off is None else trade_off))
    history = torch.stack(reached)
    assert (history.diff(dim=0) <= 1e-5 * history[:-1]).all()
    assert (history[-1] < history[0]).all()


def test_the_first_decisions_beat_rounding(pyramid: LatentModel, values: Tensor) -> None:
    """In sum over the signals: rounded to the nearest, symbols cost more than they are worth."""
    trade_off = torch.tensor([trade_off_of_step_index(int(step), 3) for step in STEPS])
    decided = adapt_latents(pyramid, values, GRID, STEPS, steps=0)
    scale = torch.exp2(STEPS / 8).reshape(-1, 1, 1, 1)
    rounded = [torch.round(level / scale) for level in FIELD.analyse(values, GRID)]
    gained = objective(pyramid, rounded, values, STEPS, trade_off) - objective(
        pyramid, decided, values, STEPS, trade_off
    )
    assert gained.sum() > 0.1


@pytest.mark.parametrize("index", [-120, -40, 24])
@pytest.mark.parametrize("steps", [0, 2])
def test_symbols_are_integers_in_range(pyramid: LatentModel, index: int, steps: int) -> None:
    """Of full contrast too, at the finest and the coarsest quantization."""
    rows, columns = np.indices(GRID.shape)
    patches = [(rows + columns) % 2, rows // 8 % 2, 0 * rows, 1 + 0 * rows]
    values = torch.from_numpy(np.stack(patches)).float()[:, None].expand(-1, 3, -1, -1).contiguous()
    step = torch.full((4,), float(index))
    symbols = adapt_latents(pyramid, values, GRID, step, steps=steps)
    assert [tuple(level.shape) for level in symbols] == [(4, *shape) for shape in FIELD.latent_shapes(GRID)]
    for level in symbols:
        assert torch.equal(level, level.round())
        assert level.abs().max() <= 2 * 2 ** max(FIELD.levels) * 2 ** (-index / 8) + 1
        assert level.abs().max() < 2**24  # where float32 still holds all integers


def test_trade_offs_and_steps_are_inverse() -> None:
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
