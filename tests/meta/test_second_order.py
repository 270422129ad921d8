"""Meta-training of latent fields through their adaptation (ECoP): its gradients, and runs of it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_latents import (
    CPU,
    FIELD,
    GRID,
    STEP_INDEX,
    evaluate_briefly,
    initialization_of,
    latent_trainer,
    textured_data,
    textured_patches,
    tiny_preset,
    whole_and_resumed,
)
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.encoder import encode
from inrcodec.errors import InitializationError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import adapt_for_training, adapt_latents
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task
from inrcodec.latents.step_sizes import initial_latent_step_sizes
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.latent_trainer import LatentTrainer, bootstrap_distance, objective_to_learn
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import meta_train
from inrcodec.models import Grid, LatentClip, LatentField, LatentPyramid, LatentSeries, LatentSpectrum
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.weights.context_set import ContextSet

STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        evaluate_briefly(patch)
        yield


def ecop(preset: Preset, **training: Any) -> Preset:
    """Return a preset with second order, learned step sizes and a bootstrap target."""
    settings = {
        "adaptation": AdaptationConfig.unpruned(STEPS),
        "step_sizes": "tensor-step",
        "bootstrap_steps": 2,
        "bootstrap_weight": 1.0,
        "second_order": 1.0,
    }
    return replace(preset, training=replace(preset.training, **(settings | training)))


def disturbed(settings: Preset) -> LatentTrainer:
    """Return a trainer with networks that matter, in the middle of a run."""
    trainer = latent_trainer(settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in (*trainer.theta_0.values(), *trainer.weights.values()):
            value += 0.2 * torch.randn(value.shape, generator=generator)
    trainer.started = True
    return trainer


# Gradients


def waves(crop: tuple[int, ...], channels: int, seed: int) -> ContextSet:
    """Return two patches of waves and noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.stack(torch.meshgrid(*(torch.arange(size) for size in crop), indexing="ij")).flatten(1).T.float()
    directions = torch.randn((len(crop), 2 * channels), generator=generator)
    values = 0.5 + 0.3 * torch.sin(0.5 * places @ directions).unflatten(1, (channels, 2)).permute(2, 0, 1)
    return ContextSet(places[None], values + 0.03 * torch.randn(values.shape, generator=generator), crop)


UNSEEN = {"entropy_model/3.2.0.0.input.weight", "entropy_model/1.2.0.0.input.weight"}
"""Tensors for what the first passes see of coarser levels, of which there is none with as many bands."""


@pytest.mark.parametrize("second_order", [0.0, 1.0])
@pytest.mark.parametrize(
    ("modality", "field", "crop", "unused"),
    [
        ("image", LatentPyramid(2, 3, (2, 3), prediction=4, divided=2), (32, 32), UNSEEN),
        (
            "video",
            LatentClip(3, 3, (2, 3), prediction=4, divided=2),
            (3, 64, 64),
            {name.replace("/", f"/{kind}.") for name in UNSEEN for kind in ("intra", "inter")},
        ),
        (
            "climate",
            LatentSeries(3, 1, (2, 3), prediction=4, divided=2),
            (3, 32, 32),
            {name.replace("/", f"/{kind}.") for name in UNSEEN for kind in ("intra", "inter")},
        ),
        # Without predictions no target moves.
        ("audio", LatentSpectrum(1, 1, (2, 3), hop=16), (256,), UNSEEN | {"step_sizes/move"}),
    ],
    ids=["pyramid", "clip", "series", "spectrum"],
)
def test_everything_learned_gets_a_gradient(
    modality: str, field: LatentField, crop: tuple[int, ...], unused: set[str], second_order: float
) -> None:
    """In some steps, as those of a clip are of one kind of pictures each."""
    usual = ecop(preset(modality, field.name), second_order=second_order, quantization=(-50, -40))
    patches = PatchConfig(crop, (0,) * len(crop), normalize=False)
    trainer = disturbed(replace(usual, field=field, patches=patches, crop=crop, hidden=6))
    groups = {"theta_0": trainer.theta_0, "entropy_model": trainer.weights, "step_sizes": trainer.log_step_sizes}
    learned = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
    for step in range(4):
        trainer.step = step
        loss = trainer.loss(waves(crop, field.out_features, step), torch.Generator().manual_seed(step))
        torch.autograd.backward(loss.total)
    found = {name: value.grad for name, value in learned.items() if value.grad is not None}
    assert all(torch.isfinite(slope).all() for slope in found.values())
    without = {name for name in learned if name not in found or not found[name].any()}
    if not second_order:
        unused = unused | {name for name in learned if name.startswith("step_sizes")}
    assert without == unused


@pytest.fixture(scope="module", params=[0, 2], ids=["whole", "parts"])
def model(request: pytest.FixtureRequest) -> LatentModel:
    """Return networks that matter and step sizes that are learned; with and without parts of phases."""
    return disturbed(ecop(replace(tiny_preset(), field=replace(FIELD, divided=request.param)))).model(STEP_INDEX)


@pytest.fixture(scope="module")
def task(model: LatentModel) -> Task:
    return Task.of(model, textured_patches(), GRID)


def test_steps_before_the_window_are_not_learned_from(model: LatentModel, task: Task) -> None:
    state = adapt_for_training(model, task, start=2, steps=1)
    distortion, bits = objective_to_learn(model, state.symbols, task, state.magnitudes)
    (slope,) = torch.autograd.grad((distortion + bits + state.choice).sum(), model.log_step_sizes["move"])
    assert slope[2].any() and not slope[[0, 1, 3]].any()


def test_all_steps_of_the_window_are_learned_from(model: LatentModel, task: Task) -> None:
    """The first through the gradients that the later ones take at its symbols."""
    state = adapt_for_training(model, task, steps=3)
    moment = torch.stack([level.square().sum() for level in state.details]).sum()
    slopes = torch.autograd.grad(moment, list(model.log_step_sizes.values()))
    for name, slope in zip(model.log_step_sizes, slopes, strict=True):
        # The first step has no gradients before it to be averaged with.
        rows = slope[1:3] if name == "averaging" else slope[:3]
        assert rows.abs().sum(1).min() > 0 and not slope[3].any(), name


def test_the_bootstrap_distance_is_that_to_better_latents(model: LatentModel, task: Task) -> None:
    state = adapt_for_training(model, task, steps=1)
    distance = bootstrap_distance(model, task, state, range(1, 9))
    assert distance.shape == (3,) and distance.max() > 1e-3
    slope = torch.autograd.grad(distance.sum(), model.log_step_sizes["move"])[0]
    assert torch.isfinite(slope).all() and slope.any()
    at_target = bootstrap_distance(model, task, state, range(0))
    torch.testing.assert_close(at_target, torch.full((3,), 1e-6))


# Runs


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return textured_data()


@pytest.fixture(scope="module")
def run(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Initialization, Path]:
    """Return what a run of which the last six steps are of second order makes, and where it is stored."""
    output = tmp_path_factory.mktemp("run") / "a.safetensors"
    settings = ecop(tiny_preset(outer_steps=30, step_size_rate=0.1), second_order=0.2)
    return meta_train(settings, data, output, source="waves"), output


def start_of(initialization: Initialization) -> dict[str, Tensor]:
    depth = max(initialization.field.levels)
    return initial_latent_step_sizes("tensor-step", steps=STEPS, depth=depth)


def test_step_sizes_are_stored_and_checked(run: tuple[Initialization, Path], data: TrainingData) -> None:
    trained, output = run
    assert all(not torch.equal(trained.log_step_sizes[name], value) for name, value in start_of(trained).items())
    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert all(torch.equal(value, trained.log_step_sizes[name]) for name, value in stored.log_step_sizes.items())
    model = LatentModel.of(stored, CPU, STEP_INDEX)
    assert torch.equal(model.step_sizes(9, torch.zeros(1)).move, stored.log_step_sizes["move"][STEPS - 1].exp())
    assert stored.adaptation == AdaptationConfig.unpruned(STEPS)
    said = "through the adaptation in the last 20%: K = 4, L = 2, lambda = 1.0, step sizes learned: tensor-step, seed 0"
    assert said in output.with_suffix(".md").read_text()
    (picture,) = data.held_out
    encode([picture], [stored], EncodeOptions(quality=40, steps=6))
    tensors = safetensors.torch.load(stored.to_bytes())
    assert {name for name in tensors if name.startswith("step_sizes/")} == {
        "step_sizes/move",
        "step_sizes/price",
        "step_sizes/averaging",
    }
    for name, wrong in (
        ("move", torch.zeros(4, 3)),
        ("price", torch.zeros(3, 2, 1)),
        ("averaging", torch.zeros(0)),
        ("price", torch.full((4, 2), 100.0)),
    ):
        broken = replace(stored, log_step_sizes=stored.log_step_sizes | {name: wrong})
        with pytest.raises(InitializationError):
            Initialization.from_bytes(broken.to_bytes())


def test_step_sizes_have_a_schedule_of_their_own(run: tuple[Initialization, Path]) -> None:
    """They are learned at the end of a run alone, where the schedule of the run is all but over."""
    trained, _ = run
    moved = max(float((trained.log_step_sizes[name] - value).abs().max()) for name, value in start_of(trained).items())
    # Six of Adam's steps of 0.1 sum to 0.3 along a cosine of their own, along the run's to 0.02.
    assert 0.1 < moved < 0.4


def test_a_cut_run_resumes_through_the_second_order(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before and in the second order, whose windows are random: they must be the same ones again."""
    settings = ecop(tiny_preset(outer_steps=7), second_order=0.5)
    whole, resumed, progress = whole_and_resumed(settings, data, tmp_path, monkeypatch, (3, 4))
    assert [each.step for each in progress] == [6, 7]
    assert resumed.identifier == whole.identifier


def test_second_order_makes_adaptation_worth_more(data: TrainingData, tmp_path: Path) -> None:
    """A dozen steps with networks that stay: only the step sizes are learned."""
    settings = ecop(
        tiny_preset(outer_steps=12, outer_step_size=1e-9, step_size_rate=0.7),  # which any run takes 30 steps to reach
        adaptation=AdaptationConfig.unpruned(2),
        bootstrap_steps=0,
    )
    start = replace(initialization_of(disturbed(settings), settings), log_step_sizes={SHARED: torch.zeros(1)})
    trained = meta_train(settings, data, tmp_path / "a.safetensors", source="waves", start=start)
    sampler = PatchSampler(data.held_out, settings.training_patches, 3, seed=1)
    values = sampler.batch(0, 12).context_set(CPU).values.transpose(1, 2).unflatten(2, (16, 16))
    grid = Grid.open((16, 16))

    def gained(initialization: Initialization) -> float:
        """Return log J after two steps over that before."""
        logarithms = []
        for step_index in (-50, -40, -30, -20):
            model = LatentModel.of(initialization, CPU, step_index)
            before, after = (adapt_latents(model, values, grid, steps=steps).objective for steps in (0, 2))
            logarithms.append(float((after / before).log().mean()))
        return math.fsum(logarithms) / len(logarithms)

    assert gained(trained) < gained(start) < 0
