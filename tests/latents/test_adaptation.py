"""The adaptation of integer latents as the encoder runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_latents import random_entropy_model, random_parameters
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.coding import entropy
from inrcodec.latents import adaptation
from inrcodec.latents.adaptation import (
    Pull,
    State,
    adapt_latents,
    best_state,
    best_variant,
    first_state,
    next_state,
    pull_at,
)
from inrcodec.latents.costs import Costs
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, step_index_of_trade_off, trade_off_of_step_index
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import Grid, LatentPyramid, LatentSpectrum
from inrcodec.models.latent import quantization_step
from inrcodec.models.order import Place


@dataclass(frozen=True)
class Case:
    """A field with random networks, and a grid that it takes apart without continuing odd axes."""

    field: LatentPyramid | LatentSpectrum
    grid: Grid
    step_index: int = -30
    variant: int = 0

    def model(self, step_index: int | None = None, variant: int | None = None) -> LatentModel:
        return _model(
            self.field,
            self.variant if variant is None else variant,
            self.step_index if step_index is None else step_index,
        )


@cache
def _model(field: LatentPyramid | LatentSpectrum, variant: int, step_index: int) -> LatentModel:
    entropy_model, weights = random_entropy_model(field)
    shared = random_parameters(field)
    return LatentModel.made(
        field.transform(variant), shared, entropy_model, weights, step_index, {SHARED: torch.zeros(1)}
    )


CASES = {
    "picture": Case(LatentPyramid(2, 3, (2, 2), prediction=4), Grid.open((16, 24))),
    "parts": Case(LatentPyramid(2, 3, (2, 3), prediction=4, divided=2), Grid.open((24, 32)), variant=3 * 7 + 1),
    "bare": Case(LatentPyramid(2, 3, (2, 2), prediction=4), Grid.open((16, 24)), variant=3 * 11 + 2),
    "globe": Case(LatentPyramid(2, 1, (2, 2), prediction=4, divided=2), Grid((16, 24), (False, True))),
    "fine": Case(LatentPyramid(2, 1, (2, 2), prediction=4, divided=2), Grid((16, 24), (False, True)), -77),
    "line": Case(LatentPyramid(1, 2, (3,), prediction=4), Grid.open((80,))),
    "sound": Case(LatentSpectrum(1, 1, (2, 2), hop=8), Grid.open((120,)), -36, variant=1),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def values_of(case: Case, count: int = 3, seed: int = 0) -> Tensor:
    """Return waves, an edge each, and some noise: [count, C, *grid.shape] in [0, 1]."""
    random = np.random.default_rng(seed)
    places = np.meshgrid(*(np.arange(size) / 6 for size in case.grid.shape), indexing="ij")
    channels = case.field.out_features
    values = np.zeros((count, channels, *case.grid.shape))
    for signal in values:
        edge = sum(random.normal() * (along - along.mean()) for along in places) > 0
        for channel in signal:
            slope = random.uniform(-2, 2, len(places) + 1)
            channel += 0.5 + 0.2 * np.sin(sum(map(np.multiply, slope, places)) + slope[-1])
            channel += 0.2 * edge + random.normal(0, 0.02, channel.shape)
    return torch.from_numpy(values.clip(0, 1)).float()


def task_of(case: Case, model: LatentModel, **more: Any) -> Task:
    return Task.of(model, values_of(case), case.grid, **more)


def bits(outputs: list[tuple[Tensor, Tensor]], details: list[Tensor]) -> Tensor:
    """Return the bits of details, [B], in the distributions that the entropy model has for them."""
    each = [Costs.of(*both)(coded.abs()).flatten(1).sum(1) for both, coded in zip(outputs, details, strict=True)]
    return torch.stack(each).sum(0)


def outputs_of(model: LatentModel, grid: Grid, symbols: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return what the entropy model says when it is shown symbols, as a decoder shows them."""
    means, *details = symbols
    left = iter(details)
    with torch.no_grad():
        return [(flags, scales) for _, flags, scales in model.passes(grid, lambda: next(left).abs(), means)]


def latents_of(model: LatentModel, grid: Grid, state: State) -> list[Tensor]:
    """Return the latents of every pass in quantization steps, as analysis finds them in what is decoded."""
    if isinstance(model.field, LatentSpectrum):  # which predicts nothing, and has more latents than samples
        return state.details
    with torch.no_grad():
        found = model.field.analyse(model.values(state.linear, grid), grid)
    return [latents / quantization_step(model.step_index) for latents in found[1:]]


def assert_consistent(model: LatentModel, grid: Grid, task: Task, state: State) -> None:
    """Check what a state says of its symbols."""
    assert all(torch.equal(symbol, symbol.round()) for symbol in state.symbols)
    for own, coded in zip(state.magnitudes, state.details, strict=True):
        assert torch.equal(own, coded.abs())
    outputs = outputs_of(model, grid, state.symbols)
    for (flags, scales), (seen_flags, seen_scales) in zip(state.outputs, outputs, strict=True):
        assert torch.equal(flags, seen_flags) and torch.equal(scales, seen_scales)
    torch.testing.assert_close(state.rate, bits(outputs, state.details))
    with torch.no_grad():
        assert torch.equal(state.linear, model.linear(state.symbols, grid))
    latents = latents_of(model, grid, state)
    squares = [(found - wanted).square().flatten(1).sum(1) for found, wanted in zip(latents, task.targets, strict=True)]
    torch.testing.assert_close(state.distortion, task.curvature / 2 * sum(squares), rtol=1e-3, atol=1e-2)
    assert torch.equal(state.objective, state.distortion + state.rate)


# States


def test_states_say_what_their_symbols_are_worth(case: Case) -> None:
    model = case.model()
    task = task_of(case, model)
    state = first_state(model, task)
    for index in range(2):
        assert_consistent(model, case.grid, task, state)
        state = next_state(model, task, state, index)
    assert_consistent(model, case.grid, task, state)
    assert any(coded.any() for coded in state.details)


def test_the_distortion_is_nearly_that_of_the_values(case: Case) -> None:
    """Means are rounded to the nearest; the transform is as good as orthonormal, but for the ends of sound."""
    model = case.model(variant=case.variant // 3 * 3)  # without bare levels, whose loss counts nowhere
    values = values_of(case)
    task = Task.of(model, values, case.grid)
    state = first_state(model, task)
    with torch.no_grad():
        error = (model.values(state.linear, case.grid) - values).square().flatten(1).sum(1)
    predicted = model.field.predicted_means(model.step_index)
    of_means = (task.means - predicted - state.means).square().flatten(1).sum(1)
    assert (task.means - predicted - state.means).abs().max() <= 0.5
    units = task.curvature / 2 / quantization_step(case.step_index) ** 2
    share = 0.3 if isinstance(model.field, LatentSpectrum) else 0.15
    torch.testing.assert_close(units * error, state.distortion + task.curvature / 2 * of_means, rtol=share, atol=1e-2)


def test_the_rate_is_that_of_the_file(case: Case) -> None:
    """Up to the rounding of rows; means, which come first, are not in it."""
    model = case.model(-30)  # at finer steps the random networks are so far off that symbols are escaped
    state = adapt_latents(model, values_of(case), case.grid, steps=2)
    batches = SymbolCoder(model, case.grid).batches(state.symbols, state.outputs)
    lengths = [float(entropy.code_length(*batch).sum()) for batch in batches]
    of_means = 2 * len(model.field.groups)
    assert sum(lengths[of_means:]) == pytest.approx(float(state.rate.sum()), rel=0.01)
    assert 8 * len(entropy.encode_batches(batches)) == pytest.approx(sum(lengths), abs=33)


def test_where_zeros_are_dear_silence_is_coded_as_ones() -> None:
    """A target of exactly zero has no sign, but its symbol needs one."""
    case = CASES["sound"]
    model = case.model()
    sure = {name: value + 1500.0 * name.endswith("flags.bias") for name, value in model.weights.items()}
    model = replace(model, weights=sure)
    task = Task.of(model, torch.full((1, 1, 120), 0.5), case.grid)
    assert not any(target.any() for target in task.targets)
    state = first_state(model, task)
    assert any(coded.any() for coded in state.details)
    assert_consistent(model, case.grid, task, state)


# The best of them


@settings(deadline=None, max_examples=5)
@given(
    name=st.sampled_from(sorted(CASES)),
    step_index=st.integers(-90, 10),
    octaves=st.floats(-2, 2),
    seed=st.integers(0, 1000),
)
def test_more_steps_are_never_worse(name: str, step_index: int, octaves: float, seed: int) -> None:
    """For any signal of a batch, and whatever the trade-off."""
    case = CASES[name]
    model, values = case.model(step_index), values_of(case, seed=seed)
    trade_off = trade_off_of_step_index(step_index, values.shape[1]) * 2**octaves
    task = Task.of(model, values, case.grid, trade_off)
    before = first_state(model, task).objective
    for steps in (0, 1, 3):
        state = adapt_latents(model, values, case.grid, steps=steps, trade_off=trade_off)
        assert (state.objective <= before).all()
        before = state.objective
    assert_consistent(model, case.grid, task, state)


def test_every_signal_has_its_own_best_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the last, nor that which is best for all together."""
    case = CASES["parts"]
    model = case.model()
    task = Task.of(model, values_of(case, 5), case.grid)
    states = [first_state(model, task)]
    for index in range(5):
        states.append(next_state(model, task, states[-1], index))
    best_numbers = (3, 0, 5, 1, 2)
    # Others are made worse, so that it is known which is best.
    worse = 1e4 * (torch.arange(6)[:, None] != torch.tensor(best_numbers))
    states = [replace(state, distortion=state.distortion + more) for state, more in zip(states, worse, strict=True)]
    later = iter(states[1:])
    monkeypatch.setattr(adaptation, "next_state", lambda *_: next(later))
    best = best_state(model, task, states[0], range(5))

    def tensors(state: State) -> list[Tensor]:
        outputs = [each for both in state.outputs for each in both]
        return [*state.symbols, *state.magnitudes, *outputs, state.linear, state.distortion, state.rate]

    for signal, number in enumerate(best_numbers):
        for found, wanted in zip(tensors(best), tensors(states[number]), strict=True):
            assert torch.equal(found[signal], wanted[signal])


@pytest.mark.parametrize("name", ["picture", "parts", "globe", "sound"])
def test_steps_gain_something(name: str) -> None:
    case = CASES[name]
    model = case.model()
    first, later = (adapt_latents(model, values_of(case), case.grid, steps=steps) for steps in (0, 4))
    assert later.objective.sum() < first.objective.sum()


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", ["picture", "globe", "sound"])
def test_fewer_errors_are_beyond_a_bound_that_is_known(name: str, steps: int) -> None:
    case = CASES[name]
    model = case.model(-30)
    values = values_of(case)

    def errors(bound: float | None) -> Tensor:
        state = adapt_latents(model, values, case.grid, steps=steps, bound=bound)
        return (values - model.values(state.linear, case.grid)).abs()

    before = errors(None)
    bound = float(torch.quantile(before, 0.95))
    after = errors(bound)
    assert (after - bound).clamp(min=0).sum() < (before - bound).clamp(min=0).sum()
    assert torch.equal(errors(float(before.max()) * 2), errors(1.0))  # nothing is beyond either


def test_signals_of_a_batch_know_nothing_of_each_other(case: Case) -> None:
    model = case.model()
    values = values_of(case)
    together = first_state(model, Task.of(model, values, case.grid))
    for number in range(3):
        alone = first_state(model, Task.of(model, values[number : number + 1], case.grid))
        for own, level in zip(alone.symbols, together.symbols, strict=True):
            assert torch.equal(own[0], level[number])


# The pull


@contextmanager
def nothing_is_rounded() -> Iterator[None]:
    """Let networks compute as their gradients have it, which pass all rounding: floor does nothing."""

    def floor(values: Tensor, *, out: Tensor | None = None) -> Tensor:
        return values.clone() if out is None else out.copy_(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "floor", floor)
        patch.setattr(torch.Tensor, "floor", floor)
        patch.setattr(torch.Tensor, "floor_", lambda values: values)
        yield


def in_double(case: Case) -> tuple[LatentModel, Task, State]:
    """Return a model, a task of two signals and a state between two steps, all in float64."""
    model = case.model()
    task = Task.of(model, values_of(case, 2), case.grid)
    state = next_state(model, task, first_state(model, task), 0)

    def doubled(tensors: Any) -> list[Tensor]:
        return [tensor.double() for tensor in tensors]

    model = replace(
        model,
        shared={name: value.double() for name, value in model.shared.items()},
        weights={name: value.double() for name, value in model.weights.items()},
    )
    task = replace(task, means=task.means.double(), targets=doubled(task.targets))
    details, magnitudes = doubled(state.details), doubled(state.magnitudes)
    return model, task, replace(state, means=state.means.double(), details=details, magnitudes=magnitudes)


def later_distortion(model: LatentModel, task: Task, state: State, shifts: list[Tensor]) -> float:
    """Return the distortion in bits where later predictions, and they alone, see latents that are shifted."""
    total = 0.0
    number = -1

    def choose(place: Place, prediction: Tensor) -> Tensor:
        nonlocal total, number
        number += 1
        error = task.targets[number] - prediction - state.details[number]
        total += task.curvature / 2 * float(error.square().sum())
        return state.details[number] + shifts[number]

    with torch.no_grad():
        model.decode(state.means, task.grid, choose)
    return total


def seen_rate(model: LatentModel, task: Task, state: State, logarithms: list[Tensor]) -> float:
    """Return the bits of the symbols where others see magnitudes of these pseudo-logarithms.

    These are linear between powers of two: of 2^k (1 + x) - 1 it is k + x.
    """
    whole = [torch.floor(each) for each in logarithms]
    seen = [torch.exp2(low) * (1 + each - low) - 1 for low, each in zip(whole, logarithms, strict=True)]
    left = iter(seen)
    with nothing_is_rounded(), torch.no_grad():
        outputs = [both for _, *both in model.passes(task.grid, lambda: next(left), task.means)]
    return float(bits(outputs, state.details).sum())


@pytest.mark.parametrize("name", ["picture", "parts", "bare", "fine", "line"])
def test_moves_are_finite_differences_of_what_later_latents_lose(name: str) -> None:
    """A step of the length of one over the distortion's curvature."""
    model, task, state = in_double(CASES[name])
    random = np.random.default_rng(0)
    with nothing_is_rounded():
        moves = pull_at(model, task, state).moves
        found, wanted = [], []
        for _ in range(25):
            number = int(random.integers(len(moves)))
            place = tuple(int(random.integers(size)) for size in moves[number].shape)
            around = []
            for change in (1e-5, -1e-5):
                shifts = [torch.zeros_like(move) for move in moves]
                shifts[number][place] = change
                around.append(later_distortion(model, task, state, shifts))
            found.append(float(moves[number][place]))
            wanted.append(-(around[0] - around[1]) / 2e-5 / task.curvature)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(found).max() > 1e-3


@pytest.mark.parametrize("name", ["picture", "parts", "bare", "globe", "line", "sound"])
def test_prices_are_finite_differences_of_what_others_cost(name: str) -> None:
    """In bits per unit of the magnitude's pseudo-logarithm, upwards."""
    model, task, state = in_double(CASES[name])
    random = np.random.default_rng(1)
    with nothing_is_rounded():
        prices = pull_at(model, task, state).prices
    logarithms = []
    for magnitude in state.magnitudes:
        low = torch.floor(torch.log2(magnitude + 1))
        logarithms.append(low + (magnitude + 1) / torch.exp2(low) - 1)
    base = seen_rate(model, task, state, logarithms)
    found, wanted = [], []
    for _ in range(25):
        number = int(random.integers(len(prices)))
        place = tuple(int(random.integers(size)) for size in prices[number].shape)
        changed = [each.clone() for each in logarithms]
        changed[number][place] += 1e-6
        found.append(float(prices[number][place]))
        wanted.append((seen_rate(model, task, state, changed) - base) / 1e-6)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    assert np.abs(found).max() > 1e-3
    assert not prices[-1].any()  # there is nothing left that could see these


def test_a_pull_with_graph_is_the_same(case: Case) -> None:
    model = case.model()
    task = task_of(case, model)
    state = first_state(model, task)
    plain, learned = (pull_at(model, task, state, graph) for graph in (False, True))
    for own, other in zip([*plain.moves, *plain.prices], [*learned.moves, *learned.prices], strict=True):
        torch.testing.assert_close(own, other.detach())
        assert own.shape == other.shape and not own.requires_grad


def test_the_pull_is_the_mean_of_all_so_far() -> None:
    case = CASES["parts"]
    model = case.model()
    task = task_of(case, model)
    state = first_state(model, task)
    assert state.pull is None
    seen: list[Pull] = []
    for index in range(4):
        seen.append(pull_at(model, task, state))
        state = next_state(model, task, state, index)
        assert state.pull is not None
        for kind in ("moves", "prices"):
            for number, found in enumerate(getattr(state.pull, kind)):
                mean = torch.stack([getattr(each, kind)[number] for each in seen]).mean(0)
                torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)


def test_targets_do_not_run_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far gradients send them: a magnitude is one of the two beside a target half a step away."""
    case = CASES["picture"]
    model = case.model()
    task = task_of(case, model)
    state = first_state(model, task)
    far = Pull([torch.full_like(each, 1e6) for each in state.details], [0 * each for each in state.details])
    monkeypatch.setattr(adaptation, "pull_at", lambda *_, **__: far)
    moved = next_state(model, task, state, 0)
    latents = latents_of(model, case.grid, moved)
    away = [
        (found - target)[symbol != 0]
        for found, target, symbol in zip(latents, task.targets, moved.details, strict=True)
    ]
    assert float(torch.cat(away).min()) > -0.51 and 1 < float(torch.cat(away).max()) < 1.51


# What is adapted for


def test_trade_offs_and_step_indices_belong_together() -> None:
    for channels in (1, 3):
        for step_index in range(-120, 25):
            trade_off = trade_off_of_step_index(step_index, channels)
            assert step_index_of_trade_off(trade_off, channels) == step_index
            assert step_index_of_trade_off(trade_off * 1.08, channels) == step_index


def test_a_task_is_for_its_trade_off_or_that_of_the_step_index(case: Case) -> None:
    model = case.model()
    own, channels = task_of(case, model), case.field.out_features
    trade_off = trade_off_of_step_index(case.step_index, channels)
    same, finer = (task_of(case, model, trade_off=each) for each in (trade_off, trade_off / 4))
    assert same.curvature == pytest.approx(own.curvature) and finer.curvature == pytest.approx(4 * own.curvature)
    # Bits of half the curvature for one step's error in one latent: its square, in trade-offs, over the channels.
    one_step = quantization_step(case.step_index) ** 2
    assert own.curvature / 2 == pytest.approx(one_step / trade_off / channels, rel=1e-4)
    step = quantization_step(case.step_index)
    for found, latents in zip([own.means, *own.targets], model.field.analyse(values_of(case), case.grid), strict=True):
        torch.testing.assert_close(found * step, latents)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_variant_has_the_lowest_mean_objective(seed: int) -> None:
    case = CASES["sound"]
    values = values_of(case, 2, seed)

    def model_of(variant: int) -> LatentModel:
        return case.model(variant=variant)

    trade_off = trade_off_of_step_index(case.step_index, 1)
    objectives = [
        float(adapt_latents(model_of(variant), values, case.grid, steps=0).objective.mean()) for variant in range(4)
    ]
    assert best_variant(model_of, range(4), values, case.grid, trade_off) == int(np.argmin(objectives))
    assert best_variant(model_of, [2], values, case.grid, trade_off) == 2
