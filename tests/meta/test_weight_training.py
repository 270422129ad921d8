"""The outer loop, whole runs with checkpoints, and the files they end in."""

import functools
import json
import math
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.errors import InitializationError, UsageError
from inrcodec.initialization import DeltaPrior, Initialization
from inrcodec.meta import evaluation, run
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import PatchSampler, TrainingData, load_data
from inrcodec.meta.presets import Preset, preset
from inrcodec.meta.run import TrainingProgress, meta_train
from inrcodec.meta.trainer import MAX_DIVERGED
from inrcodec.meta.weight_trainer import WeightTrainer, bootstrap_target, outer_loss
from inrcodec.models import Field, FourierFeatureNetwork, NeRV, Parameters, Siren
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import Axis, Signal, read
from inrcodec.weights.adaptation import adapt, adapt_for_training, signal_losses
from inrcodec.weights.context_set import ContextSet

SAMPLES = Path(__file__).parents[1] / "assets" / "samples" / "image"
CPU = torch.device("cpu")
SIREN = Siren(2, 3, width=6, depth=3)
FFN = FourierFeatureNetwork(2, 2, width=5, depth=3, frequencies=4, scale=1.0)
NERV = NeRV(3, 2, octaves=2, stem=4, base=(2, 2), channels=(3, 4))
FIELDS: list[Field] = [SIREN, FFN, NERV]
NAMES = [field.name for field in FIELDS]


@pytest.fixture(autouse=True)
def floating_point() -> Iterator[None]:
    """One thread; and denormals as they were, which a meta-training run flushes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def context_of(field: Field, signals: int = 2, points: int = 12, seed: int = 2) -> ContextSet:
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.rand((signals, points, field.in_features), generator=generator) * 2 - 1
    return ContextSet(coordinates, torch.rand((signals, points, field.out_features), generator=generator))


def double(context: ContextSet) -> ContextSet:
    return ContextSet(context.coordinates.double(), context.values.double())


# The outer loss against one signal at a time


def naive_outer_loss(
    field: Field, theta_0: Parameters, log_alpha: Tensor, context: ContextSet, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """Eq. 3 with score "full": the two parts, means over the signals."""
    losses, distances = [], []
    names = [name for name in theta_0 if name not in field.constants]

    def mse(theta: Parameters, b: int) -> Tensor:
        batched = {name: value if name in field.constants else value[None] for name, value in theta.items()}
        return torch.mean((field(batched, context.coordinates[b][None])[0] - context.values[b]) ** 2)

    for b in range(len(context.values)):
        theta = dict(theta_0)
        for _ in range(config.adaptation.steps):
            slopes = torch.autograd.grad(mse(theta, b), [theta[name] for name in names], create_graph=True)
            theta |= {name: theta[name] - log_alpha.exp() * slope for name, slope in zip(names, slopes, strict=True)}
        target = {name: value.detach() for name, value in theta.items()}
        for _ in range(config.bootstrap_steps):
            target = {name: value.detach().requires_grad_() for name, value in target.items()}
            slopes = torch.autograd.grad(mse(target, b), [target[name] for name in names])
            size = config.bootstrap_step_ratio * float(log_alpha.detach().exp())
            target |= {name: target[name] - size * slope for name, slope in zip(names, slopes, strict=True)}
        losses.append(mse(theta, b))
        difference = torch.cat([(theta[name] - target[name].detach()).flatten() for name in names])
        distances.append(difference.norm())
    return torch.stack(losses).mean(), torch.stack(distances).mean()


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_outer_loss_and_its_meta_gradient(field: Field) -> None:
    """The gradient also shows that none flows through the bootstrap target."""
    config = TrainingConfig(
        adaptation=AdaptationConfig(steps=3, score="full"),
        bootstrap_steps=4,
        bootstrap_weight=7.0,
        bootstrap_step_ratio=3.0,
    )
    context = double(context_of(field))
    generator = torch.Generator().manual_seed(1)
    theta_0 = {name: value.double().requires_grad_() for name, value in field.initialize(generator).items()}
    log_alpha = torch.tensor([0.03], dtype=torch.float64).log().requires_grad_()
    learned = [*theta_0.values(), log_alpha]

    reconstruction, bootstrap = naive_outer_loss(field, theta_0, log_alpha, context, config)
    expected = torch.autograd.grad(reconstruction + 7.0 * bootstrap, learned)
    loss = outer_loss(field, theta_0, {SHARED: log_alpha}, context, config)
    gradient = torch.autograd.grad(loss.total, learned)

    torch.testing.assert_close(loss.reconstruction, reconstruction)
    torch.testing.assert_close(loss.bootstrap, bootstrap)
    torch.testing.assert_close(loss.total, reconstruction + 7.0 * bootstrap)
    assert float(bootstrap.detach()) > 1e-3
    for value, reference in zip(gradient, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("without", [{"bootstrap_steps": 0}, {"bootstrap_weight": 0.0}])
def test_without_bootstrap_the_loss_is_the_reconstruction(without: dict[str, Any]) -> None:
    config = TrainingConfig(adaptation=AdaptationConfig(steps=2), **without)
    theta_0 = {name: value.requires_grad_() for name, value in SIREN.initialize(torch.Generator()).items()}
    loss = outer_loss(SIREN, theta_0, {SHARED: torch.tensor([-4.0])}, context_of(SIREN), config)
    assert torch.equal(loss.total, loss.reconstruction)
    assert not loss.bootstrap.any()


# Other ways to learn theta_0


def random_start(field: Field, sizes: float = 0.03) -> tuple[Parameters, Parameters]:
    generator = torch.Generator().manual_seed(1)
    theta_0 = {name: value.double().requires_grad_() for name, value in field.initialize(generator).items()}
    return theta_0, {SHARED: torch.tensor([sizes], dtype=torch.float64).log().requires_grad_()}


def adapted_alone(field: Field, theta_0: Parameters, sizes: Parameters, context: ContextSet, config: TrainingConfig):
    """theta_K of every signal, without graph, by eq. 1 with score "full"."""
    names = [name for name in theta_0 if name not in field.constants]
    for b in range(len(context.values)):
        theta = {name: value.detach() for name, value in theta_0.items()}
        for _ in range(config.adaptation.steps):
            theta |= {name: theta[name].detach().requires_grad_() for name in names}
            batched = {name: value if name in field.constants else value[None] for name, value in theta.items()}
            error = (field(batched, context.coordinates[b][None])[0] - context.values[b]).square().mean()
            slopes = torch.autograd.grad(error, [theta[name] for name in names])
            size = float(sizes[SHARED].detach().exp())
            theta |= {name: theta[name].detach() - size * slope for name, slope in zip(names, slopes, strict=True)}
        yield theta


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_fomaml_descends_the_gradient_at_theta_k(field: Field) -> None:
    config = TrainingConfig(AdaptationConfig(steps=3, score="full"), bootstrap_steps=0, method="fomaml")
    theta_0, sizes = random_start(field)
    context = double(context_of(field))
    names = [name for name in theta_0 if name not in field.constants]
    expected = [torch.zeros_like(theta_0[name]) for name in names]
    for b, theta in enumerate(adapted_alone(field, theta_0, sizes, context, config)):
        leaves = [theta[name].requires_grad_() for name in names]
        batched = {name: value if name in field.constants else value[None] for name, value in theta.items()}
        error = (field(batched, context.coordinates[b][None])[0] - context.values[b]).square().mean()
        expected = [total + g / 2 for total, g in zip(expected, torch.autograd.grad(error, leaves), strict=True)]
    loss = outer_loss(field, theta_0, sizes, context, config)
    for value, reference in zip(torch.autograd.grad(loss.total, [theta_0[n] for n in names]), expected, strict=True):
        torch.testing.assert_close(value, reference)


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_reptile_goes_to_where_adaptation_ends(field: Field) -> None:
    config = TrainingConfig(AdaptationConfig(steps=3, score="full"), bootstrap_steps=0, method="reptile")
    theta_0, sizes = random_start(field)
    context = double(context_of(field))
    names = [name for name in theta_0 if name not in field.constants]
    ends = list(adapted_alone(field, theta_0, sizes, context, config))
    loss = outer_loss(field, theta_0, sizes, context, config)
    found = torch.autograd.grad(loss.total, [theta_0[name] for name in names])
    for name, slope in zip(names, found, strict=True):
        torch.testing.assert_close(slope, theta_0[name].detach() - torch.stack([end[name] for end in ends]).mean(0))
    assert not loss.reconstruction.requires_grad and not loss.bootstrap.any()


@pytest.mark.parametrize("more", [{"bootstrap_steps": 5}, {"bootstrap_steps": 0, "step_sizes": "tensor"}])
def test_reptile_has_no_bootstrap_and_no_step_sizes(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Reptile"):
        TrainingConfig(method="reptile", **more)


def test_lite_has_the_values_of_all_points_and_gradients_of_some() -> None:
    """The mean over many draws is the gradient through all points; with one step that is no approximation."""
    theta_0, sizes = random_start(SIREN)
    context = double(context_of(SIREN, points=8))
    config = TrainingConfig(AdaptationConfig(steps=1, score="full"), bootstrap_steps=0)
    learned = [*theta_0.values(), *sizes.values()]
    whole = outer_loss(SIREN, theta_0, sizes, context, config)
    expected = torch.autograd.grad(whole.total, learned)
    draws = []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        loss = outer_loss(SIREN, theta_0, sizes, context, replace(config, backward_share=0.5), generator)
        torch.testing.assert_close(loss.total, whole.total)
        draws.append(torch.autograd.grad(loss.total, learned))
    differ = 0
    for number, reference in enumerate(expected):
        found = torch.stack([draw[number] for draw in draws])
        spread = found.std(0) / math.sqrt(len(draws))
        differ += int((spread > 1e-9).any())
        assert bool(((found.mean(0) - reference).abs() <= 5 * spread + 1e-9).all())
    assert differ > len(expected) / 2


@pytest.mark.parametrize(("seen", "score"), [("pruned", "error"), ("random", "random")])
def test_bootstrap_on_fewer_points(seen: str, score: str) -> None:
    """As steps on the context pruned in every one of them."""
    adaptation = AdaptationConfig(steps=1, gamma=0.25, score="error")
    config = TrainingConfig(adaptation, bootstrap_steps=3, bootstrap_step_ratio=1.0, bootstrap_context=seen)
    theta_0, sizes = random_start(SIREN)
    context = double(context_of(SIREN))
    theta_k = {name: value.detach().expand(2, *value.shape) for name, value in theta_0.items()}
    target = bootstrap_target(SIREN, theta_k, sizes, context, config, torch.Generator().manual_seed(3))
    further = AdaptationConfig(steps=3, gamma=0.25, score=score)
    expected = adapt_for_training(SIREN, theta_0, sizes, context, further, torch.Generator().manual_seed(3))
    for name, value in target.items():
        torch.testing.assert_close(value, expected[name].detach())


@pytest.mark.parametrize("changes", [{"method": "fomaml"}, {"method": "reptile"}, {"backward_share": 0.25}])
def test_every_method_learns(changes: dict[str, Any]) -> None:
    """Adapted from what is learned, signals like those it was learned from are shown better than before."""
    bootstrap = 0 if changes.get("method") == "reptile" else 1
    config = tiny_config(
        step_sizes="none",
        inner_step_size=1e-2,
        outer_step_size=3e-3,
        outer_steps=60,
        bootstrap_steps=bootstrap,
        **changes,
    )
    trainer = WeightTrainer(SIREN, config, CPU)
    signals = [context_of(SIREN, seed=seed) for seed in range(3)]
    means = torch.linspace(0.2, 0.8, 3)
    signals = [ContextSet(each.coordinates, 0.1 * each.values + means) for each in signals]

    def error() -> float:
        theta_0 = {name: value.detach() for name, value in trainer.theta_0.items()}
        ends = [adapt(SIREN, theta_0, trainer.log_step_sizes, each, config.adaptation, steps=2) for each in signals]
        return sum(float(signal_losses(SIREN, e, c).mean()) for e, c in zip(ends, signals, strict=True))

    before = error()
    for step in range(60):
        trainer.train_step(signals[step % 3])
    assert error() < 0.5 * before


def test_bootstrap_target_has_learned_more_and_no_graph() -> None:
    config = TrainingConfig(bootstrap_steps=5, bootstrap_step_ratio=2.0)
    theta_0 = SIREN.initialize(torch.Generator().manual_seed(1))
    theta_k = {name: value.expand(2, *value.shape).clone().requires_grad_() for name, value in theta_0.items()}
    sizes, context = {SHARED: torch.tensor([1e-3]).log().requires_grad_()}, context_of(SIREN)
    target = bootstrap_target(SIREN, theta_k, sizes, context, config)
    assert not any(value.requires_grad for value in target.values())
    assert (signal_losses(SIREN, target, context) < signal_losses(SIREN, theta_k, context)).all()


def test_bootstrap_steps_are_as_large_as_the_last_of_adaptation() -> None:
    config = tiny_config(adaptation=AdaptationConfig(steps=3))
    theta_0 = SIREN.initialize(torch.Generator().manual_seed(1))
    theta_k = {name: value.expand(2, *value.shape) for name, value in theta_0.items()}

    def target(*log_step_sizes: float) -> Parameters:
        return bootstrap_target(SIREN, theta_k, {SHARED: torch.tensor(log_step_sizes)}, context_of(SIREN), config)

    assert all(torch.equal(value, target(-3.0)[name]) for name, value in target(-5.0, -4.0, -3.0).items())


def test_distance_where_nothing_was_learned_has_a_finite_gradient() -> None:
    config = TrainingConfig(adaptation=AdaptationConfig(steps=1, score="full"))
    theta_0 = {name: value.requires_grad_() for name, value in SIREN.initialize(torch.Generator()).items()}
    batched = {name: value.detach()[None] for name, value in theta_0.items()}
    coordinates = context_of(SIREN, 1).coordinates
    fitted = ContextSet(coordinates, SIREN(batched, coordinates))
    loss = outer_loss(SIREN, theta_0, {SHARED: torch.tensor([-4.0])}, fitted, config)
    for slope in torch.autograd.grad(loss.total, list(theta_0.values())):
        assert torch.isfinite(slope).all()


# The trainer


def tiny_config(**changes: Any) -> TrainingConfig:
    settings: dict[str, Any] = {
        "adaptation": AdaptationConfig(steps=2, gamma=0.5),
        "step_sizes": "tensor-step",
        "bootstrap_steps": 1,
        "bootstrap_weight": 0.1,
        "outer_step_size": 1e-3,
        "schedule": "cosine",
        "batch": 2,
        "outer_steps": 8,
    }
    return TrainingConfig(**settings | changes)


def train(trainer: WeightTrainer, until: int) -> None:
    while trainer.step < until:
        trainer.train_step(context_of(trainer.model, seed=trainer.step))


@pytest.mark.parametrize("score", ["grad-norm", "random"])
@pytest.mark.parametrize("learned", ["none", "scalar", "tensor-step", "element"])
def test_a_resumed_trainer_is_bit_identical(learned: str, score: str) -> None:
    config = tiny_config(step_sizes=learned, adaptation=AdaptationConfig(steps=2, gamma=0.5, score=score))
    uncut = WeightTrainer(SIREN, config, CPU)
    train(uncut, 8)

    cut = WeightTrainer(SIREN, config, CPU)
    train(cut, 3)
    saved = safetensors.torch.save(cut.state())
    train(cut, 5)  # what came after the checkpoint is lost
    resumed = WeightTrainer(SIREN, replace(config), CPU)
    resumed.load_state(safetensors.torch.load(saved))
    assert resumed.step == 3
    train(resumed, 8)

    expected, actual = uncut.state(), resumed.state()
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    fresh = WeightTrainer(SIREN, config, CPU)
    assert not torch.equal(fresh.theta_0["head.weight"], uncut.theta_0["head.weight"])


def test_a_state_does_not_change_with_the_trainer() -> None:
    trainer = WeightTrainer(SIREN, tiny_config(), CPU)
    train(trainer, 2)
    state = trainer.state()
    copy = {name: value.clone() for name, value in state.items()}
    train(trainer, 4)
    assert all(torch.equal(state[name], copy[name]) for name in state)


def test_the_state_of_another_field_is_refused() -> None:
    trainer = WeightTrainer(SIREN, tiny_config(), CPU)
    for other in (Siren(2, 3, width=7, depth=3), Siren(2, 3, width=6, depth=4)):
        with pytest.raises(UsageError, match="does not fit"):
            WeightTrainer(other, tiny_config(), CPU).load_state(trainer.state())


@pytest.mark.parametrize("learned", ["none", "tensor"])
def test_step_sizes_are_learned_when_asked_for(learned: str) -> None:
    trainer = WeightTrainer(SIREN, tiny_config(step_sizes=learned), CPU)
    before = {name: value.detach().clone() for name, value in trainer.log_step_sizes.items()}
    train(trainer, 3)
    changed = any(not torch.equal(before[name], trainer.log_step_sizes[name]) for name in before)
    assert changed == (learned != "none")


def test_the_first_step_is_adams_on_the_clipped_meta_gradient() -> None:
    config = tiny_config(step_sizes="none", schedule="constant", clip=1e-3, adaptation=AdaptationConfig(steps=2))
    trainer, context = WeightTrainer(SIREN, config, CPU), context_of(SIREN)
    theta_0 = {name: value.detach().clone().requires_grad_() for name, value in trainer.theta_0.items()}
    loss = outer_loss(SIREN, theta_0, trainer.log_step_sizes, context, config)
    slopes = torch.autograd.grad(loss.total, list(theta_0.values()))
    length = math.sqrt(sum(float((slope**2).sum()) for slope in slopes))
    assert length > config.clip
    trainer.train_step(context)
    for (name, before), slope in zip(theta_0.items(), slopes, strict=True):
        clipped = slope * config.clip / (length + 1e-6)  # the offset is PyTorch's
        step = config.outer_step_size * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(trainer.theta_0[name].detach(), before.detach() - step, rtol=0, atol=1e-6)


def test_cosine_schedule_ends_at_rest() -> None:
    config = tiny_config(outer_steps=4)
    trainer = WeightTrainer(SIREN, config, CPU)
    rates = []
    for step in range(5):
        trainer.train_step(context_of(SIREN, seed=step))
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
    factors = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert [rate[0] for rate in rates] == pytest.approx([1e-3 * factor for factor in factors], abs=1e-9)
    assert [rate[1] for rate in rates] == pytest.approx([1e-2 * factor for factor in factors], abs=1e-9)


def broken_context() -> ContextSet:
    context = context_of(SIREN)
    context.values[0, 0] = math.nan
    return context


def test_a_diverged_batch_changes_nothing_but_the_count() -> None:
    trainer = WeightTrainer(SIREN, tiny_config(), CPU)
    train(trainer, 2)
    before = trainer.state()
    trainer.train_step(broken_context())
    after = trainer.state()
    assert (trainer.step, trainer.diverged) == (3, 1)
    assert all(torch.equal(before[name], after[name]) for name in before if name not in ("step", "diverged"))
    train(trainer, 4)
    assert trainer.diverged == 0
    assert not torch.equal(trainer.state()["theta_0/head.weight"], before["theta_0/head.weight"])


def test_diverging_for_good_is_an_error() -> None:
    trainer = WeightTrainer(SIREN, tiny_config(), CPU)
    for _ in range(MAX_DIVERGED - 1):
        trainer.train_step(broken_context())
    with pytest.raises(UsageError, match="inner-step-size"):
        trainer.train_step(broken_context())


def test_a_far_too_large_inner_step_diverges_into_the_error() -> None:
    relu = FourierFeatureNetwork(2, 3, width=5, depth=3, frequencies=4)
    config = tiny_config(inner_step_size=1e12, adaptation=AdaptationConfig(steps=6), outer_steps=1000)
    with pytest.raises(UsageError, match="diverged"):
        train(WeightTrainer(relu, config, CPU), MAX_DIVERGED)


# Learning from real images


@pytest.fixture(scope="module")
def images() -> list[Signal]:
    return [read(path)[0] for path in sorted(SAMPLES.glob("*.webp"))]


def test_meta_training_improves_images_not_seen(images: list[Signal]) -> None:
    config = TrainingConfig(
        adaptation=AdaptationConfig(steps=3, gamma=0.5),
        step_sizes="tensor-step",
        bootstrap_steps=2,
        bootstrap_weight=0.05,
        bootstrap_step_ratio=1.0,
        outer_step_size=3e-3,
        batch=4,
        outer_steps=80,
    )
    patches = PatchConfig((16, 16), (2, 2))
    sampler = PatchSampler(images[:6], patches, 3, seed=0)
    held_out = PatchSampler(images[6:], patches, 3, seed=1).batch(0, 32).context_set(CPU)
    trainer = WeightTrainer(Siren(2, 3, width=16, depth=3), config, CPU)

    def psnr() -> float:
        theta_0 = {name: value.detach() for name, value in trainer.theta_0.items()}
        sizes = {name: value.detach() for name, value in trainer.log_step_sizes.items()}
        theta = adapt(trainer.model, theta_0, sizes, held_out, config.adaptation, steps=config.adaptation.steps)
        return float(-10 * signal_losses(trainer.model, theta, held_out).log10().mean())

    before = psnr()
    while trainer.step < config.outer_steps:
        trainer.train_step(sampler.batch(trainer.step, config.batch).context_set(CPU))
    assert psnr() > before + 2.5


# Sampling patches


def test_sampled_patches_are_cut_from_the_signals(images: list[Signal]) -> None:
    config = PatchConfig((6, 9), (0, 0), normalize=False)
    batch = PatchSampler(images[:2], config, 3, seed=0).batch(3, 5)
    windows = [
        np.lib.stride_tricks.sliding_window_view(signal.values, (6, 9), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        for signal in images[:2]
    ]
    for values in np.rint(batch.values * 255).astype(np.uint8).reshape(5, 6, 9, 3):
        mirrored = [np.flip(values, axes) for axes in ((), (0,), (1,), (0, 1))]
        # Comparing a corner first keeps this quick.
        assert any(
            (window[window[:, :, 0, 0, :].__eq__(patch[0, 0]).all(-1)] == patch).all((1, 2, 3)).any()
            for window in windows
            for patch in mirrored
        )


def test_sampling_depends_on_the_seed_and_the_step_alone(images: list[Signal]) -> None:
    config = PatchConfig((8, 8), (0, 0))

    def values(seed: int, step: int) -> np.ndarray:
        return PatchSampler(images[:2], config, 3, seed).batch(step, 3).values

    assert np.array_equal(values(0, 5), values(0, 5))
    assert not np.array_equal(values(0, 5), values(0, 6))
    assert not np.array_equal(values(0, 5), values(1, 5))


def test_signals_smaller_than_a_patch_are_an_error(images: list[Signal]) -> None:
    with pytest.raises(UsageError, match="none of 2 signals"):
        PatchSampler(images[:2], PatchConfig((500, 8), (0, 0)), 3, seed=0)


def test_maps_and_globes_train_together() -> None:
    """Flat grids (projections) are climate signals too, and shown as small patches of the globe."""
    values = np.random.default_rng(0).random((20, 30, 1)).astype(np.float32)
    flat = Signal("climate", values, (Axis(20, "node"), Axis(30, "node")), (0.0, 1.0))
    north, east = np.linspace(60, 41, 20), np.linspace(0, 29, 30)
    axes = (Axis(20, "node", points=north), Axis(30, "node", points=east))
    regional = Signal("climate", values, axes, (0.0, 1.0), sphere=True)
    config = PatchConfig((8, 8), (1, 1), sphere=True)
    seen = PatchSampler([flat], config, 1, seed=0).batch(0, 1).coordinates
    assert np.abs(seen[..., 0]).max() == 0
    assert np.abs(seen[..., 1:]).max() == pytest.approx(7 / 8 / math.sqrt(2))
    assert PatchSampler([flat, regional], config, 1, seed=0).batch(0, 8).coordinates.shape == (8, 64, 3)


# Whole runs


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PRIOR_PATCHES", 6)
    monkeypatch.setattr(evaluation, "WEIGHT_PATCHES", 4)
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)


@pytest.fixture
def data(images: list[Signal]) -> TrainingData:
    return TrainingData(images[:3], images[3:4], 3, {})


def tiny_preset(**changes: Any) -> Preset:
    return Preset(Siren(2, 3, width=6, depth=3), PatchConfig((8, 8), (1, 1)), tiny_config(**changes))


class Cut:
    """Ends a run from outside once it has done so many steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, progress: TrainingProgress) -> None:
        if progress.step == self.after:
            raise KeyboardInterrupt


def test_a_cut_run_resumes_to_the_same_initialization(quick: None, data: TrainingData, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    whole = meta_train(
        "image", tiny_preset(), data, tmp_path / "a.safetensors", source="samples", on_progress=seen.append
    )
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert all(math.isfinite(progress.psnr) and progress.bootstrap > 0 for progress in seen)

    cut = tmp_path / "b.safetensors"
    for resume, after in ((False, 3), (True, 6)):
        with pytest.raises(KeyboardInterrupt):
            meta_train("image", tiny_preset(), data, cut, source="samples", resume=resume, on_progress=Cut(after))
        assert not cut.exists()
    seen.clear()
    resumed = meta_train("image", tiny_preset(), data, cut, source="samples", resume=True, on_progress=seen.append)
    assert seen[0].step > 3
    assert all(torch.equal(whole.theta_0[name], resumed.theta_0[name]) for name in whole.theta_0)
    assert all(torch.equal(whole.log_step_sizes[name], value) for name, value in resumed.log_step_sizes.items())
    assert resumed.identifier == whole.identifier
    assert Initialization.load(cut).identifier == whole.identifier


def test_a_run_writes_what_it_returns_and_says_what_it_did(quick: None, data: TrainingData, tmp_path: Path) -> None:
    output = tmp_path / "tiny.safetensors"
    trained = meta_train("image", tiny_preset(), data, output, source="three samples")
    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert stored.provenance == json.loads(json.dumps(trained.provenance))
    assert stored.provenance["data"] == "three samples"
    assert stored.provenance["files"] == 3
    assert stored.provenance["training"]["outer_steps"] == 8
    measured = stored.provenance["evaluation"]
    assert set(measured["initialization"]) == set(measured["random"]) == {"2", "8"}
    card = (tmp_path / "tiny.md").read_text()
    for fact in (trained.identifier.hex(), "three samples", "siren", "gamma = 0.5"):
        assert fact in card
    assert [tensor.shape for tensor in trained.prior.scales.values()] == [
        value.shape for value in trained.theta_0.values()
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tiny.md",
        "tiny.safetensors",
        "tiny.safetensors.checkpoint",
    ]


def test_the_coding_prior_is_the_size_of_typical_deltas(
    quick: None, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PRIOR_PATCHES", 24)
    trained = meta_train("image", tiny_preset(), data, tmp_path / "a.safetensors", source="samples")
    contexts = PatchSampler(data.training, trained.patches, 3, seed=9).batch(0, 48).context_set(CPU)
    theta = adapt(trained.model, trained.theta_0, trained.log_step_sizes, contexts, trained.adaptation, steps=64)
    for name in trained.adapted:
        typical = (theta[name] - trained.theta_0[name]).abs().mean(0).log2() * 4
        assert float((typical - trained.prior.scales[name]).mean().abs()) < 4  # an octave


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: replace(p, training=replace(p.training, seed=1)), "training.seed was 0, is 1"),
        (lambda p: replace(p, training=replace(p.training, outer_steps=9)), "outer_steps was 8, is 9"),
        (
            lambda p: replace(p, training=replace(p.training, adaptation=AdaptationConfig(steps=3, gamma=0.5))),
            "training.adaptation",
        ),
        (lambda p: replace(p, patches=PatchConfig((9, 8), (1, 1))), "patches.shape"),
        (lambda p: replace(p, model=Siren(2, 3, width=7, depth=3)), "field.width was 6, is 7"),
        (
            lambda p: replace(p, model=FourierFeatureNetwork(2, 3, width=6, depth=3, frequencies=4)),
            "field.name was siren, is ffn",
        ),
    ],
)
def test_resuming_with_other_settings_is_refused(
    quick: None, data: TrainingData, tmp_path: Path, change: Callable[[Preset], Preset], message: str
) -> None:
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        meta_train("image", tiny_preset(), data, output, source="samples", on_progress=Cut(3))
    with pytest.raises(UsageError, match=message):
        meta_train("image", change(tiny_preset()), data, output, source="samples", resume=True)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no checkpoint at all",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        safetensors.torch.save({"step": torch.tensor([1])}, metadata={"inrcodec": json.dumps({"format": 1})}),
        safetensors.torch.save({"step": torch.tensor([1])}, metadata={"inrcodec": "[]"}),
        safetensors.torch.save({"step": torch.tensor([1])}, metadata={"inrcodec": '{"settings": {}, "seconds": 0}'}),
    ],
)
def test_resuming_from_what_is_no_checkpoint_is_refused(
    quick: None, data: TrainingData, tmp_path: Path, content: bytes | None
) -> None:
    output = tmp_path / "a.safetensors"
    if content is not None:
        output.with_name("a.safetensors.checkpoint").write_bytes(content)
    with pytest.raises(UsageError, match="cannot resume"):
        meta_train("image", tiny_preset(), data, output, source="samples", resume=True)


def test_a_run_leaves_the_floating_point_mode_as_it_was(quick: None, data: TrainingData, tmp_path: Path) -> None:
    torch.set_flush_denormal(False)
    meta_train("image", tiny_preset(outer_steps=1), data, tmp_path / "a.safetensors", source="samples")
    assert float(torch.tensor([1e-40]) * 1) > 0


def test_every_tenth_file_is_held_out(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / f"{number:02}.webp").write_bytes((SAMPLES / "sign.webp").read_bytes())
    (tmp_path / "broken.webp").write_bytes(b"RIFF")
    loaded = load_data(tmp_path, "image")
    assert (len(loaded.training), len(loaded.held_out)) == (9, 2)
    assert [Path(path).name for path in loaded.unreadable] == ["broken.webp"]


def test_too_little_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give two or more"):
        load_data(tmp_path, "image")
    with pytest.raises(UsageError, match="no files of audio to evaluate on"):
        load_data(SAMPLES, "audio", tmp_path)
    for name in ("a.webp", "b.webp"):
        (tmp_path / name).write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="none is left to learn from"):
        load_data(tmp_path, "image", tmp_path)
    with pytest.raises(UsageError, match="none of the files"):
        load_data(tmp_path, "image")


@pytest.mark.parametrize("scale", ["codec", "paper"])
@pytest.mark.parametrize(
    ("modality", "field"),
    [(modality, field) for modality in ("image", "video", "audio", "climate") for field in ("siren", "ffn")]
    + [("video", "nerv")],
)
def test_presets_are_consistent(modality: str, field: str, scale: str) -> None:
    chosen = preset(modality, field, scale)
    assert chosen.field.name == field
    assert chosen.field.in_features == chosen.patches.dimensions
    assert TrainingConfig(**json.loads(json.dumps(asdict(chosen.training)))) == chosen.training
    assert PatchConfig(**json.loads(json.dumps(asdict(chosen.patches)))) == chosen.patches


def test_presets_that_do_not_exist() -> None:
    for modality, field in (("image", "nerv"), ("smell", "siren"), ("image", "mlp")):
        with pytest.raises(UsageError):
            preset(modality, field)


# Initialization files


@functools.cache
def initialization(field: Field = SIREN, kind: str = "tensor-step") -> Initialization:
    trainer = WeightTrainer(field, tiny_config(step_sizes=kind), CPU)
    generator = torch.Generator().manual_seed(0)
    theta_0 = {name: value.detach() for name, value in trainer.theta_0.items()}
    scales = {
        name: torch.randint(-40, 0, value.shape, generator=generator, dtype=torch.int16)
        for name, value in theta_0.items()
        if name not in field.constants
    }
    return Initialization(
        modality="image",
        model=field,
        patches=PatchConfig((8,) * field.in_features, (1,) * field.in_features),
        adaptation=AdaptationConfig(steps=2, gamma=0.5),
        theta_0=theta_0,
        log_step_sizes={name: value.detach() for name, value in trainer.log_step_sizes.items()},
        prior=DeltaPrior(scales, tuple(range(-30, -30 + len(scales)))),
        provenance={"data": "none", "seconds": 3},
    )


@pytest.mark.parametrize("kind", ["none", "scalar", "tensor", "tensor-step", "element"])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_initialization_round_trip(field: Field, kind: str) -> None:
    original = initialization(field, kind)
    copy = Initialization.from_bytes(original.to_bytes())
    for name in ("modality", "model", "patches", "adaptation", "provenance"):
        assert getattr(copy, name) == getattr(original, name)
    assert copy.prior.steps == original.prior.steps
    for ours, theirs in (
        (original.theta_0, copy.theta_0),
        (original.log_step_sizes, copy.log_step_sizes),
        (original.prior.scales, copy.prior.scales),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert list(copy.theta_0) == list(original.theta_0)
    assert copy.identifier == original.identifier
    assert copy.to_bytes() == original.to_bytes()
    assert copy.delta_size == sum(original.theta_0[name].numel() for name in original.adapted)


def changed(parameters: Parameters, name: str, amount: float = 1) -> Parameters:
    value = parameters[name].clone()
    value.view(-1)[-1] += amount
    return {**parameters, name: value}


def test_identifier_names_the_content_and_nothing_else() -> None:
    base = initialization()
    assert len(base.identifier) == 8
    assert replace(base, provenance={"seconds": 99}).identifier == base.identifier
    others = [
        replace(base, modality="video"),
        replace(base, model=replace(SIREN, w0=31.0)),
        replace(base, patches=PatchConfig((8, 8), (1, 1), extent=2.0)),
        replace(base, patches=PatchConfig((8, 8), (1, 1), normalize=False)),
        replace(base, patches=PatchConfig((8, 8), (2, 1))),
        replace(base, adaptation=AdaptationConfig(steps=2, gamma=0.6)),
        replace(base, adaptation=AdaptationConfig(steps=2, gamma=0.5, score="error")),
        replace(base, prior=replace(base.prior, steps=(*base.prior.steps[:-1], 0))),
    ]
    for name in base.theta_0:
        others.append(replace(base, theta_0=changed(base.theta_0, name)))
        others.append(replace(base, log_step_sizes=changed(base.log_step_sizes, name)))
        others.append(replace(base, prior=replace(base.prior, scales=changed(base.prior.scales, name))))
    identifiers = [other.identifier for other in others]
    assert len({base.identifier, *identifiers}) == len(others) + 1


def test_identifier_is_stable() -> None:
    """What it is made of is part of the format: published identifiers never change."""
    theta = {name: torch.zeros(shape) for name, shape in SIREN.shapes().items()}
    plain = Initialization(
        modality="image",
        model=SIREN,
        patches=PatchConfig((8, 8), (1, 1)),
        adaptation=AdaptationConfig(),
        theta_0=theta,
        log_step_sizes={SHARED: torch.zeros(1)},
        prior=DeltaPrior({name: value.to(torch.int16) for name, value in theta.items()}, (0,) * len(theta)),
    )
    assert plain.identifier.hex() == "ebfcd698db7ffdc0"


# Hostile initialization files


def parts(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    length = int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["inrcodec"])
    return safetensors.torch.load(data), document


def assemble(tensors: dict[str, Tensor], document: Any) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    return safetensors.torch.save(tensors, metadata={"inrcodec": text})


def refuse(data: bytes) -> None:
    with pytest.raises(InitializationError) as caught:
        Initialization.from_bytes(data)
    assert "\n" not in str(caught.value)


def test_truncated_initializations_are_refused() -> None:
    data = initialization().to_bytes()
    for length in {*range(0, len(data), 97), *range(12), len(data) - 1}:
        refuse(data[:length])
    refuse(data + b"x")


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    refuse(data)


@settings(deadline=None, max_examples=100)
@given(header=st.binary(max_size=60), body=st.binary(max_size=20))
def test_random_headers_are_refused(header: bytes, body: bytes) -> None:
    refuse(struct.pack("<Q", len(header)) + header + body)


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_the_identifier(position: int, value: int) -> None:
    original = initialization()
    data = bytearray(original.to_bytes())
    data[position % len(data)] ^= value
    try:
        other = Initialization.from_bytes(bytes(data))
    except InitializationError:
        return
    assert (
        other.identifier != original.identifier
        or other.provenance != original.provenance
        or other.to_bytes() == original.to_bytes()
    )


@pytest.mark.parametrize("name", ["theta_0/head.weight", "step_sizes/head.weight", "scales/head.weight"])
def test_wrong_tensors_are_refused(name: str) -> None:
    tensors, document = parts(initialization().to_bytes())
    refuse(assemble({key: value for key, value in tensors.items() if key != name}, document))
    value = tensors[name]
    wrong = [
        value.double(),
        value.to(torch.int32),
        value.to(torch.bool),
        value.to(torch.bfloat16),
        value[:, :-1].contiguous(),
        value.flatten(),
        value[None].contiguous(),
        torch.zeros(0, dtype=value.dtype),
        torch.zeros((), dtype=value.dtype),
        torch.zeros((0, *value.shape[1:]), dtype=value.dtype),
    ]
    if value.is_floating_point():
        wrong += [torch.full_like(value, bad) for bad in (math.nan, math.inf)]
    for tensor in wrong:
        refuse(assemble({**tensors, name: tensor}, document))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no format": lambda d: d.pop("format"),
    "another format": lambda d: d.update(format=2),
    "format of another type": lambda d: d.update(format="1"),
    "no field": lambda d: d.pop("field"),
    "no field name": lambda d: d["field"].pop("name"),
    "unknown field": lambda d: d["field"].update(name="mlp"),
    "field name of another type": lambda d: d["field"].update(name=["siren"]),
    "unknown option": lambda d: d["field"].update(colour="red"),
    "field is a list": lambda d: d.update(field=[]),
    "width of another field": lambda d: d["field"].update(width=7),
    "no width": lambda d: d["field"].update(width=0),
    "negative width": lambda d: d["field"].update(width=-6),
    "huge width": lambda d: d["field"].update(width=10**18),
    "astronomic width": lambda d: d["field"].update(width=10**4000),
    "fractional width": lambda d: d["field"].update(width=6.5),
    "width as text": lambda d: d["field"].update(width="6"),
    "other depth": lambda d: d["field"].update(depth=4),
    "negative depth": lambda d: d["field"].update(depth=-1),
    "depth as text": lambda d: d["field"].update(depth="3"),
    "no inputs": lambda d: d["field"].update(in_features=0),
    "no modality": lambda d: d.pop("modality"),
    "no patches": lambda d: d.pop("patches"),
    "patches without shape": lambda d: d["patches"].pop("shape"),
    "overlap as large as the patch": lambda d: d["patches"].update(overlap=[8, 8]),
    "patch shape as text": lambda d: d["patches"].update(shape="88"),
    "patch shape as number": lambda d: d["patches"].update(shape=8),
    "unknown patch option": lambda d: d["patches"].update(colour="red"),
    "no adaptation": lambda d: d.pop("adaptation"),
    "unknown adaptation option": lambda d: d["adaptation"].update(colour="red"),
    "no steps": lambda d: d.pop("steps"),
    "too few steps": lambda d: d["steps"].pop(),
    "steps as text": lambda d: d.update(steps="......"),
    "steps as number": lambda d: d.update(steps=6),
    "fractional steps": lambda d: d.update(steps=[0.5] * 6),
    "no provenance": lambda d: d.pop("provenance"),
    # Each of the following would be found out by the codec only, as a raw error or a wrong result.
    "w0 as text": lambda d: d["field"].update(w0="30"),
    "w0 is not a number": lambda d: d["field"].update(w0=math.nan),
    "w0 beyond floats": lambda d: d["field"].update(w0=10**400),
    "infinite w0": lambda d: d["field"].update(w0=math.inf),
    "width as float": lambda d: d["field"].update(width=6.0),
    "inputs that the patches do not have": lambda d: d["patches"].update(shape=[8], overlap=[1]),
    "fractional patch": lambda d: d["patches"].update(shape=[8.5, 8]),
    "empty patch": lambda d: d["patches"].update(shape=[], overlap=[]),
    "extent as text": lambda d: d["patches"].update(extent="1"),
    "extent is not a number": lambda d: d["patches"].update(extent=math.nan),
    "normalize as text": lambda d: d["patches"].update(normalize="no"),
    "unknown score": lambda d: d["adaptation"].update(score="best"),
    "gamma as text": lambda d: d["adaptation"].update(gamma="0.5"),
    "gamma is not a number": lambda d: d["adaptation"].update(gamma=math.nan),
    "negative gamma": lambda d: d["adaptation"].update(gamma=-0.5),
    "adaptation steps as text": lambda d: d["adaptation"].update(steps="2"),
    "huge quantization steps": lambda d: d.update(steps=[10**30] * 6),
    "provenance is a list": lambda d: d.update(provenance=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hostile_configurations_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    tensors, document = parts(initialization().to_bytes())
    change(document)
    refuse(assemble(tensors, document))


def test_a_bottomless_field_is_refused_before_it_is_laid_out() -> None:
    tensors, document = parts(initialization().to_bytes())
    document["field"]["depth"] = 20_000
    data = assemble(tensors, document)
    tracemalloc.start()
    refuse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "7", '"text"', "NaN", "1" * 5000, "[" * 100_000, '{"format":' * 50_000],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_documents_are_refused(text: str) -> None:
    tensors, _ = parts(initialization().to_bytes())
    refuse(assemble(tensors, text))


NERV_CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "two inputs": lambda d: d["field"].update(in_features=2),
    "no channels": lambda d: d["field"].update(channels=[]),
    "channels as number": lambda d: d["field"].update(channels=4),
    "base of one axis": lambda d: d["field"].update(base=[4]),
    "base as text": lambda d: d["field"].update(base="22"),
    "no upscaling": lambda d: d["field"].update(upscale=0),
    "huge octaves": lambda d: d["field"].update(octaves=10**12),
}


@pytest.mark.parametrize("change", NERV_CHANGES.values(), ids=NERV_CHANGES)
def test_hostile_nerv_configurations_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    tensors, document = parts(initialization(NERV).to_bytes())
    change(document)
    refuse(assemble(tensors, document))


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InitializationError, match="nowhere"):
        Initialization.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(InitializationError, match="cannot read"):
        Initialization.load(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(InitializationError, match=r"bad\.safetensors"):
        Initialization.load(tmp_path / "bad.safetensors")
