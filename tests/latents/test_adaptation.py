"""The adaptation of integer latents as it is learned: second order, step sizes, pruning, bootstrap (ECoP)."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_latents import (
    CPU,
    FIELD,
    GRID,
    STEP_INDICES,
    disturbed_model,
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
from inrcodec.errors import InitializationError, UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents import adaptation
from inrcodec.latents.adaptation import adapt_for_training, adapt_latents, first_state, next_state
from inrcodec.latents.costs import Costs
from inrcodec.latents.decisions import decide
from inrcodec.latents.gradients import Training, gradients_at, kept_samples
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, objective
from inrcodec.latents.step_sizes import initial_latent_step_sizes, latent_step_sizes
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.latent_trainer import bootstrap_distance, objective_to_learn
from inrcodec.meta.presets import Preset
from inrcodec.meta.run import meta_train
from inrcodec.models import Parameters
from inrcodec.models.latent import Grid
from inrcodec.options import EncodeOptions
from inrcodec.settings import AdaptationConfig

PRUNED = AdaptationConfig(steps=3, gamma=0.25, score="error")


def learned(depth: int = 2, rows: int = 3) -> Parameters:
    """Return step sizes that differ from the constants and from each other."""
    sizes = initial_latent_step_sizes("tensor-step", steps=rows, depth=depth)
    generator = torch.Generator().manual_seed(4)
    return {name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in sizes.items()}


@pytest.fixture(scope="module", params=[(0, 0), (4, 0), (4, 2)], ids=["zeros", "predictions", "parts"])
def model(request: pytest.FixtureRequest) -> LatentModel:
    """Return networks that matter; with and without predictions of details, and parts of phases."""
    prediction, divided = request.param
    settings = replace(tiny_preset(), field=replace(FIELD, prediction=prediction, divided=divided))
    return replace(disturbed_model(settings), log_step_sizes=learned(), adaptation=replace(PRUNED, gamma=1.0))


@pytest.fixture(scope="module")
def values() -> Tensor:
    """Return three patches, [3, 3, 24, 40] in [0, 1]."""
    return textured_patches()


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        evaluate_briefly(patch)
        yield


# Decisions


def test_decisions_are_the_cheapest_candidates_and_their_gradient_that_of_the_soft_mean() -> None:
    """Against a loop over symbols, and against finite differences of the mean, in float64."""
    generator = torch.Generator().manual_seed(0)
    wanted = 3 * torch.rand((2, 3, 4), generator=generator, dtype=torch.float64)
    price = torch.rand(wanted.shape, generator=generator, dtype=torch.float64)
    shape = (3, *wanted.shape)
    costs = Costs(*(0.2 + 2 * torch.rand(shape, generator=generator, dtype=torch.float64)))
    curvature = torch.tensor([8.0, 14.4], dtype=torch.float64).reshape(2, 1, 1)

    def oracle(wanted: Tensor, price: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return hard decisions; the mean over candidates, 2^-cost each, of the magnitude and of its bits."""
        best, mean, bits = (torch.zeros_like(wanted) for _ in range(3))
        for place in np.ndindex(*wanted.shape):
            zero, one, more = (float(part[place]) for part in (costs.zero, costs.one, costs.more))
            own = {0: zero}
            for candidate in {int(wanted[place]), int(wanted[place]) + 1} - {0}:
                own[candidate] = one + (candidate - 1) * more
            total = {
                each: float(curvature[place[0], 0, 0]) / 2 * (each - float(wanted[place])) ** 2
                + cost
                + float(price[place]) * np.log2(1 + each)
                for each, cost in own.items()
            }
            best[place] = min(total, key=lambda each: total[each])
            chances = {each: 2 ** -(cost / 0.7) for each, cost in total.items()}
            mean[place] = sum(each * chance for each, chance in chances.items()) / sum(chances.values())
            bits[place] = sum(own[each] * chance for each, chance in chances.items()) / sum(chances.values())
        return best, mean, bits

    wanted.requires_grad_()
    price.requires_grad_()
    decided, choice = decide(wanted, price, costs, curvature, 0.7)
    assert torch.equal(decided.detach(), oracle(wanted.detach(), price.detach())[0])
    assert torch.equal(decided.detach(), decide(wanted, price, costs, curvature, None)[0].detach())
    assert not choice.any()
    for index, quantity in ((1, decided), (2, choice)):
        slopes = torch.autograd.grad(quantity.sum(), [wanted, price], retain_graph=True)
        for other, slope in zip((0, 1), slopes, strict=True):
            around = []
            for change in (1e-6, -1e-6):
                moved = [wanted.detach(), price.detach()]
                moved[other] = moved[other] + change
                around.append(oracle(*moved)[index])
            # The floor changes nowhere within the difference.
            torch.testing.assert_close(slope, (around[0] - around[1]) / 2e-6, rtol=1e-4, atol=1e-7)


# The differentiable loop


@pytest.mark.parametrize("start", [0, 2])
def test_training_goes_through_the_symbols_of_the_encoder(model: LatentModel, values: Tensor, start: int) -> None:
    task = Task.of(model, values, GRID, STEP_INDICES)
    state = first_state(model, task)
    for index in range(start + 3):
        state, _ = next_state(model, task, state, index)
    trained = adapt_for_training(model, task, start=start)
    for own, other in zip(trained.symbols, state.symbols, strict=True):
        assert torch.equal(own.detach(), other)
    assert any(not torch.equal(a, b) for a, b in zip(first_state(model, task).details, state.details, strict=True))


def test_steps_before_the_window_are_not_learned_from(model: LatentModel, values: Tensor) -> None:
    sizes = {name: value.clone().requires_grad_() for name, value in model.log_step_sizes.items()}
    learner = replace(model, log_step_sizes=sizes)
    task = Task.of(learner, values, GRID, STEP_INDICES)
    state = adapt_for_training(learner, task, start=2, steps=1)
    error, bits = objective_to_learn(learner, state.symbols, task, state.magnitudes)
    (slope,) = torch.autograd.grad((error + bits + state.choice).sum(), sizes["move"])
    assert slope[2].any() and not slope[:2].any()


def test_predictions_are_learned_through_the_decisions(model: LatentModel, values: Tensor) -> None:
    """A latent far from a decision's border follows its symbol, whatever its prediction: no slope of the error."""
    if not model.field.prediction:
        pytest.skip("this field predicts nothing")
    heads = {
        name: value.clone().requires_grad_()
        for name, value in model.shared.items()
        if name.startswith("prediction") and name.endswith("head.weight")
    }
    learner = replace(model, shared=model.shared | heads)
    task = Task.of(learner, values, GRID, STEP_INDICES)
    norms = []
    for training in (Training(), None):
        state = first_state(learner, task, training)
        latents = learner.field.decoded(learner.shared, state.symbols, GRID, STEP_INDICES)
        # Where symbols are not zero, on the finest level, decided last.
        loss = latents[0][state.details[0] != 0].sum()
        slopes = torch.autograd.grad(loss, list(heads.values()), allow_unused=True)
        norms.append(sum(float(slope.norm()) for slope in slopes if slope is not None))
    assert norms[0] < 0.5 * norms[1]


def test_first_steps_differentiate_as_finite_differences(model: LatentModel, values: Tensor) -> None:
    """The targets of step 1 are smooth in its moves; float64. The decisions of step 0 are not touched by them."""
    double = replace(
        model,
        shared={name: value.double() for name, value in model.shared.items()},
        weights={name: value.double() for name, value in model.weights.items()},
        log_step_sizes={name: value.double().requires_grad_() for name, value in model.log_step_sizes.items()},
    )
    task = Task.of(double, values.double(), GRID, STEP_INDICES.double())
    before = first_state(double, task)

    def targets(sizes: Parameters) -> Tensor:
        state, _ = next_state(replace(double, log_step_sizes=sizes), task, before, 0, Training())
        return torch.stack(
            [(level - old).square().sum() for level, old in zip(state.targets, before.targets, strict=True)]
        )

    slope = torch.autograd.grad(targets(double.log_step_sizes).sum(), double.log_step_sizes["move"])[0]
    assert not slope[1:].any()  # rows of later steps
    for level in range(2):
        around = []
        for change in (1e-5, -1e-5):
            moved = {name: value.detach().clone() for name, value in double.log_step_sizes.items()}
            moved["move"][0, level] += change
            around.append(targets(moved).sum())
        torch.testing.assert_close(slope[0, level], (around[0] - around[1]).detach() / 2e-5, rtol=1e-3, atol=1e-9)


def test_everything_learned_gets_a_gradient_through_the_steps(model: LatentModel, values: Tensor) -> None:
    """From the symbols alone: networks through their slopes and costs, step sizes of every row."""
    groups = [
        {name: value.clone().requires_grad_() for name, value in group.items()}
        for group in (model.shared, model.weights, model.log_step_sizes)
    ]
    learner = replace(model, shared=groups[0], weights=groups[1], log_step_sizes=groups[2])
    state = adapt_for_training(learner, Task.of(learner, values, GRID, STEP_INDICES))
    moment = sum((level.square().sum() for level in state.symbols[:-1]), torch.zeros(()))
    for group in groups:
        slopes = torch.autograd.grad(moment, list(group.values()), retain_graph=True, allow_unused=True)
        found = {name: slope for name, slope in zip(group, slopes, strict=True) if slope is not None}
        assert all(torch.isfinite(slope).all() for slope in found.values())
        # A constant added by the head moves no target; the first pass of a level without parents has no inputs.
        without = {name for name in group if name not in found or not found[name].any()}
        assert without <= {"restoring.head.bias", "1.2.0.0.input", "3.2.0.0.input"}
    rows = torch.autograd.grad(moment, groups[2]["move"])[0]
    assert rows.abs().sum(1).min() > 0


# Pruning


@pytest.mark.parametrize("score", ["error", "grad-norm", "random"])
def test_the_network_is_asked_at_kept_samples_only(model: LatentModel, values: Tensor, score: Any) -> None:
    pruned = replace(model, adaptation=replace(PRUNED, score=score))
    task = Task.of(pruned, values, GRID, STEP_INDICES)
    state = first_state(pruned, task)
    latents = pruned.field.decoded(pruned.shared, state.symbols, GRID, STEP_INDICES)
    maps = pruned.field.maps(pruned.shared, latents, GRID, STEP_INDICES)
    points = kept_samples(pruned, task, maps, torch.Generator().manual_seed(0))
    assert points is not None and points.shape == (3, 240)
    assert all(len(set(each.tolist())) == 240 for each in points)
    whole = pruned.field.values(pruned.shared, maps, GRID, STEP_INDICES)
    linear = maps[:, :3]
    assert not torch.allclose(whole, linear, atol=1e-4)
    kept = torch.zeros(3, 24 * 40, dtype=torch.bool).scatter(1, points, True).reshape(3, 1, 24, 40)
    shown = pruned.field.partly_restored(pruned.shared, maps, GRID, STEP_INDICES, points)
    torch.testing.assert_close(shown, torch.where(kept, whole, linear))
    error = (shown - values).square().sum(dim=(1, 2, 3)) * task.curvature / (2 * 4 ** (STEP_INDICES / 8))
    seen = gradients_at(pruned, task, state, Training(generator=torch.Generator().manual_seed(0)), "none")
    torch.testing.assert_close(seen.distortion.detach(), error)
    if score == "error":
        errors = (whole - values).square().sum(1).flatten(1)
        lowest = errors.gather(1, points).min(1).values
        assert (errors.masked_fill(kept.flatten(1), 0).max(1).values <= lowest).all()


def test_the_norm_of_moves_is_rescaled(model: LatentModel, values: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full-context moves, as long as the pruned ones: eq. 4, worked out from the targets of three runs."""
    monkeypatch.setattr(adaptation, "REACH", math.inf)
    pruned = replace(model, adaptation=PRUNED)
    task = Task.of(pruned, values, GRID, STEP_INDICES)
    before = first_state(pruned, task)
    sizes = pruned.step_sizes(0, STEP_INDICES).move

    def moves(training: Training | None, rescaling: Any) -> Tensor:
        """Return the moves of all latents, [3, latents]."""
        state, _ = next_state(pruned, task, before, 0, training, rescaling)
        parts = [
            ((new - old) / size).detach().flatten(1)
            for new, old, size in zip(state.targets, before.targets, sizes, strict=True)
        ]
        return torch.cat(parts, 1)

    full, short, rescaled = moves(None, "none"), moves(Training(), "none"), moves(None, "exact")
    factor = short.norm(dim=1) / full.norm(dim=1)
    assert (factor - 1).abs().min() > 1e-3
    direction = torch.nn.functional.cosine_similarity(full, rescaled)
    torch.testing.assert_close(direction, torch.ones(3))
    torch.testing.assert_close(rescaled.norm(dim=1), short.norm(dim=1))
    symbols = [adapt_latents(pruned, values, GRID, STEP_INDICES, steps=2, rescaling=each) for each in ("exact", "none")]
    assert any(not torch.equal(a, b) for a, b in zip(*symbols, strict=True))


# Bootstrap


def test_the_bootstrap_distance_is_that_to_better_latents(model: LatentModel, values: Tensor) -> None:
    learner = replace(
        model, log_step_sizes={name: value.clone().requires_grad_() for name, value in model.log_step_sizes.items()}
    )
    task = Task.of(learner, values, GRID, STEP_INDICES)
    state = adapt_for_training(learner, task)
    distance = bootstrap_distance(learner, task, state, range(3, 9))
    assert distance.shape == (3,) and distance.max() > 1e-3
    slope = torch.autograd.grad(distance.sum(), learner.log_step_sizes["move"])[0]
    assert torch.isfinite(slope).all() and slope.any()
    at_target = bootstrap_distance(learner, task, state, range(0))
    torch.testing.assert_close(at_target, torch.full((3,), 1e-6))


# Step sizes


def test_initializations_without_step_sizes_have_the_constants() -> None:
    for step in (0, 7):
        sizes = latent_step_sizes({SHARED: torch.zeros(1)}, step, 4, torch.zeros(1))
        assert [size.tolist() for size in sizes] == [[pytest.approx(each)] * 4 for each in (0.15, 0.7, 0.5)]
    start = initial_latent_step_sizes("tensor-step", steps=3, depth=4)
    assert {name: tuple(value.shape) for name, value in start.items()} == dict.fromkeys(
        ("move", "price", "averaging"), (3, 4)
    )
    last = latent_step_sizes(start, 2, 4, torch.zeros(1))
    assert all(torch.equal(a, b) for a, b in zip(last, latent_step_sizes(start, 9, 4, torch.zeros(1)), strict=True))
    with pytest.raises(UsageError, match="per scalar"):
        initial_latent_step_sizes("scalar", steps=3, depth=4)


def ecop(**training: Any) -> Preset:
    """Return the preset of a short run with second order at its end, pruned, with a bootstrap target."""
    settings = {
        "adaptation": AdaptationConfig(steps=4, gamma=0.5, score="error"),
        "step_sizes": "tensor-step",
        "bootstrap_steps": 2,
        "bootstrap_weight": 1.0,
        "second_order": 0.2,
        "outer_steps": 26,
    }
    return tiny_preset(**(settings | training))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return textured_data()


@pytest.fixture(scope="module")
def run(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Initialization, Path]:
    """Return what a run of which the last six steps are of second order makes, and where it is stored."""
    output = tmp_path_factory.mktemp("run") / "a.safetensors"
    settings = ecop(outer_steps=30, step_size_rate=0.1, schedule="cosine")
    return meta_train(settings, data, output, source="waves"), output


def test_step_sizes_are_stored_and_checked(run: tuple[Initialization, Path], data: TrainingData) -> None:
    trained, output = run
    start = initial_latent_step_sizes("tensor-step", steps=4, depth=2)
    assert all(not torch.equal(trained.log_step_sizes[name], start[name]) for name in start)
    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert all(torch.equal(value, trained.log_step_sizes[name]) for name, value in stored.log_step_sizes.items())
    on_device = LatentModel.of(stored, CPU)
    assert torch.equal(on_device.step_sizes(9, torch.zeros(1)).move, stored.log_step_sizes["move"][3].exp())
    assert on_device.adaptation == AdaptationConfig(steps=4, gamma=0.5, score="error")
    (picture,) = data.held_out
    encode([picture], [stored], EncodeOptions(quality=40, steps=6))
    tensors = safetensors.torch.load(stored.to_bytes())
    for name, wrong in (
        ("move", torch.zeros(4, 3)),
        ("price", torch.zeros(3, 2, 1)),
        ("averaging", torch.zeros(0)),
        ("price", torch.full((4, 2), 100.0)),
    ):
        broken = replace(stored, log_step_sizes=stored.log_step_sizes | {name: wrong})
        with pytest.raises(InitializationError):
            Initialization.from_bytes(broken.to_bytes())
    assert {name for name in tensors if name.startswith("step_sizes/")} == {
        "step_sizes/move",
        "step_sizes/price",
        "step_sizes/averaging",
    }


def test_step_sizes_have_a_schedule_of_their_own(run: tuple[Initialization, Path]) -> None:
    """They are learned at the end of a run alone, where the schedule of the run is all but over."""
    trained, _ = run
    start = initial_latent_step_sizes("tensor-step", steps=4, depth=2)
    moved = max(float((trained.log_step_sizes[name] - start[name]).abs().max()) for name in start)
    # Six of Adam's steps of 0.1 sum to 0.3 along a cosine of their own, along the run's to 0.02.
    assert 0.1 < moved < 0.4


def test_a_cut_run_resumes_through_the_second_order(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before and in the second order, with random samples kept, which must be the same ones again."""
    settings = ecop(adaptation=AdaptationConfig(steps=4, gamma=0.5, score="random"), second_order=0.5, outer_steps=7)
    whole, resumed, progress = whole_and_resumed(settings, data, tmp_path, monkeypatch, (3, 4))
    assert [each.step for each in progress] == [6, 7]
    assert resumed.identifier == whole.identifier


def test_second_order_makes_adaptation_worth_more(data: TrainingData, tmp_path: Path) -> None:
    """From the same first order, a dozen steps with networks that stay: only the step sizes are learned."""
    field = replace(FIELD, prediction=0)
    settings = replace(tiny_preset(outer_steps=24), field=field)
    first = meta_train(settings, data, tmp_path / "first.safetensors", source="waves")
    settings = replace(
        ecop(
            adaptation=AdaptationConfig(steps=2, gamma=1.0, score="full"),
            bootstrap_steps=0,
            second_order=1.0,
            outer_steps=12,
            outer_step_size=1e-9,
            step_size_rate=0.7,  # which the first thirty steps of any run rise to
        ),
        field=field,
    )
    second = meta_train(settings, data, tmp_path / "second.safetensors", source="waves", start=first)
    sampler = PatchSampler(data.held_out, settings.training_patches, 3, seed=1)
    values = sampler.batch(0, 12).context_set(CPU).values.transpose(1, 2).unflatten(2, (16, 16))
    step_indices = torch.linspace(-50, -20, 12).round()
    grid = Grid.open((16, 16))

    def gained(initialization: Initialization) -> float:
        """Return log J after two steps over that before."""
        model = LatentModel.of(initialization, CPU)
        task = Task.of(model, values, grid, step_indices)
        objectives = []
        for steps in (0, 2):
            symbols = adapt_latents(model, values, grid, step_indices, steps=steps)
            objectives.append(objective(model, task, symbols))
        return float((objectives[1] / objectives[0]).log().mean())

    untrained = initialization_of(latent_trainer(settings), settings).log_step_sizes
    assert gained(second) < gained(replace(first, log_step_sizes=untrained))
    assert gained(second) < gained(first)
