"""The outer loop of weight-coded fields: its loss, other ways to learn theta_0, and the trainer."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_weights import CPU, FIELDS, NAMES, SIREN, context_set_of, tiny_config
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.errors import UsageError
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import PatchSampler
from inrcodec.meta.trainer import MAX_DIVERGED
from inrcodec.meta.weight_trainer import WeightTrainer, bootstrap_target, outer_loss
from inrcodec.models import FourierFeatureNetwork, Parameters, PointField, Siren
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import Signal
from inrcodec.weights.adaptation import adapt, adapt_for_training, signal_losses
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import generators_of


def double(context_set: ContextSet) -> ContextSet:
    return ContextSet(context_set.coordinates.double(), context_set.values.double())


# The outer loss against one signal at a time


def naive_outer_loss(
    field: PointField, theta_0: Parameters, log_alpha: Tensor, context_set: ContextSet, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """Return the two parts of eq. 3 with score "full", means over the signals."""
    losses, distances = [], []
    names = [name for name in theta_0 if name not in field.constants]

    def mse(theta: Parameters, b: int) -> Tensor:
        batched = {name: value if name in field.constants else value[None] for name, value in theta.items()}
        return torch.mean((field(batched, context_set.coordinates[b][None])[0] - context_set.values[b]) ** 2)

    for b in range(len(context_set.values)):
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
def test_outer_loss_and_its_meta_gradient(field: PointField) -> None:
    """The gradient also shows that none flows through the bootstrap target."""
    config = TrainingConfig(
        adaptation=AdaptationConfig(steps=3, score="full"),
        bootstrap_steps=4,
        bootstrap_weight=7.0,
        bootstrap_step_ratio=3.0,
    )
    context_set = double(context_set_of(field))
    generator = torch.Generator().manual_seed(1)
    theta_0 = {name: value.double().requires_grad_() for name, value in field.initialize(generator).items()}
    log_alpha = torch.tensor([0.03], dtype=torch.float64).log().requires_grad_()
    learned = [*theta_0.values(), log_alpha]

    reconstruction, bootstrap = naive_outer_loss(field, theta_0, log_alpha, context_set, config)
    expected = torch.autograd.grad(reconstruction + 7.0 * bootstrap, learned)
    loss = outer_loss(field, theta_0, {SHARED: log_alpha}, context_set, config)
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
    loss = outer_loss(SIREN, theta_0, {SHARED: torch.tensor([-4.0])}, context_set_of(SIREN), config)
    assert torch.equal(loss.total, loss.reconstruction)
    assert not loss.bootstrap.any()


# Other ways to learn theta_0


def random_start(field: PointField, sizes: float = 0.03) -> tuple[Parameters, Parameters]:
    generator = torch.Generator().manual_seed(1)
    theta_0 = {name: value.double().requires_grad_() for name, value in field.initialize(generator).items()}
    return theta_0, {SHARED: torch.tensor([sizes], dtype=torch.float64).log().requires_grad_()}


def adapted_alone(
    field: PointField, theta_0: Parameters, sizes: Parameters, context_set: ContextSet, config: TrainingConfig
) -> Iterator[Parameters]:
    """Yield theta_K of every signal, without graph, by eq. 1 with score "full"."""
    names = [name for name in theta_0 if name not in field.constants]
    for b in range(len(context_set.values)):
        theta = {name: value.detach() for name, value in theta_0.items()}
        for _ in range(config.adaptation.steps):
            theta |= {name: theta[name].detach().requires_grad_() for name in names}
            batched = {name: value if name in field.constants else value[None] for name, value in theta.items()}
            error = (field(batched, context_set.coordinates[b][None])[0] - context_set.values[b]).square().mean()
            slopes = torch.autograd.grad(error, [theta[name] for name in names])
            size = float(sizes[SHARED].detach().exp())
            theta |= {name: theta[name].detach() - size * slope for name, slope in zip(names, slopes, strict=True)}
        yield theta


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_fomaml_descends_the_gradient_at_theta_k(field: PointField) -> None:
    config = TrainingConfig(AdaptationConfig(steps=3, score="full"), bootstrap_steps=0, method="fomaml")
    theta_0, sizes = random_start(field)
    context_set = double(context_set_of(field))
    names = [name for name in theta_0 if name not in field.constants]
    expected = [torch.zeros_like(theta_0[name]) for name in names]
    for b, theta in enumerate(adapted_alone(field, theta_0, sizes, context_set, config)):
        leaves = [theta[name].requires_grad_() for name in names]
        batched = {name: value if name in field.constants else value[None] for name, value in theta.items()}
        error = (field(batched, context_set.coordinates[b][None])[0] - context_set.values[b]).square().mean()
        expected = [total + g / 2 for total, g in zip(expected, torch.autograd.grad(error, leaves), strict=True)]
    loss = outer_loss(field, theta_0, sizes, context_set, config)
    for value, reference in zip(torch.autograd.grad(loss.total, [theta_0[n] for n in names]), expected, strict=True):
        torch.testing.assert_close(value, reference)


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_reptile_goes_to_where_adaptation_ends(field: PointField) -> None:
    config = TrainingConfig(AdaptationConfig(steps=3, score="full"), bootstrap_steps=0, method="reptile")
    theta_0, sizes = random_start(field)
    context_set = double(context_set_of(field))
    names = [name for name in theta_0 if name not in field.constants]
    ends = list(adapted_alone(field, theta_0, sizes, context_set, config))
    loss = outer_loss(field, theta_0, sizes, context_set, config)
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
    context_set = double(context_set_of(SIREN, points=8))
    config = TrainingConfig(AdaptationConfig(steps=1, score="full"), bootstrap_steps=0)
    learned = [*theta_0.values(), *sizes.values()]
    whole = outer_loss(SIREN, theta_0, sizes, context_set, config)
    expected = torch.autograd.grad(whole.total, learned)
    draws = []
    for seed in range(300):
        generators = generators_of(torch.Generator().manual_seed(seed), range(2))
        loss = outer_loss(SIREN, theta_0, sizes, context_set, replace(config, backward_share=0.5), generators)
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
    """The target is where steps on a context set that is pruned in every one of them lead."""
    adaptation = AdaptationConfig(steps=1, gamma=0.25, score="error")
    config = TrainingConfig(adaptation, bootstrap_steps=3, bootstrap_step_ratio=1.0, bootstrap_context=seen)
    theta_0, sizes = random_start(SIREN)
    context_set = double(context_set_of(SIREN))
    theta_k = {name: value.detach().expand(2, *value.shape) for name, value in theta_0.items()}
    same = [generators_of(torch.Generator().manual_seed(3), range(2)) for _ in range(2)]
    target = bootstrap_target(SIREN, theta_k, sizes, context_set, config, same[0])
    further = AdaptationConfig(steps=3, gamma=0.25, score=score)
    expected = adapt_for_training(SIREN, theta_0, sizes, context_set, further, same[1])
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
    signals = [context_set_of(SIREN, seed=seed) for seed in range(3)]
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
    sizes, context_set = {SHARED: torch.tensor([1e-3]).log().requires_grad_()}, context_set_of(SIREN)
    target = bootstrap_target(SIREN, theta_k, sizes, context_set, config)
    assert not any(value.requires_grad for value in target.values())
    assert (signal_losses(SIREN, target, context_set) < signal_losses(SIREN, theta_k, context_set)).all()


def test_bootstrap_steps_are_as_large_as_the_last_of_adaptation() -> None:
    config = tiny_config(adaptation=AdaptationConfig(steps=3))
    theta_0 = SIREN.initialize(torch.Generator().manual_seed(1))
    theta_k = {name: value.expand(2, *value.shape) for name, value in theta_0.items()}

    def target(*log_step_sizes: float) -> Parameters:
        return bootstrap_target(SIREN, theta_k, {SHARED: torch.tensor(log_step_sizes)}, context_set_of(SIREN), config)

    assert all(torch.equal(value, target(-3.0)[name]) for name, value in target(-5.0, -4.0, -3.0).items())


def test_distance_where_nothing_was_learned_has_a_finite_gradient() -> None:
    config = TrainingConfig(adaptation=AdaptationConfig(steps=1, score="full"))
    theta_0 = {name: value.requires_grad_() for name, value in SIREN.initialize(torch.Generator()).items()}
    batched = {name: value.detach()[None] for name, value in theta_0.items()}
    coordinates = context_set_of(SIREN, 1).coordinates
    fitted = ContextSet(coordinates, SIREN(batched, coordinates))
    loss = outer_loss(SIREN, theta_0, {SHARED: torch.tensor([-4.0])}, fitted, config)
    for slope in torch.autograd.grad(loss.total, list(theta_0.values())):
        assert torch.isfinite(slope).all()


# The trainer


def train(trainer: WeightTrainer, until: int) -> None:
    while trainer.step < until:
        trainer.train_step(context_set_of(trainer.field, seed=trainer.step))


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
    trainer, context_set = WeightTrainer(SIREN, config, CPU), context_set_of(SIREN)
    theta_0 = {name: value.detach().clone().requires_grad_() for name, value in trainer.theta_0.items()}
    loss = outer_loss(SIREN, theta_0, trainer.log_step_sizes, context_set, config)
    slopes = torch.autograd.grad(loss.total, list(theta_0.values()))
    length = math.sqrt(sum(float((slope**2).sum()) for slope in slopes))
    assert length > config.clip
    trainer.train_step(context_set)
    for (name, before), slope in zip(theta_0.items(), slopes, strict=True):
        clipped = slope * config.clip / (length + 1e-6)  # the offset is PyTorch's
        step = config.outer_step_size * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(trainer.theta_0[name].detach(), before.detach() - step, rtol=0, atol=1e-6)


def test_cosine_schedule_ends_at_rest() -> None:
    config = tiny_config(outer_steps=4)
    trainer = WeightTrainer(SIREN, config, CPU)
    rates = []
    for step in range(5):
        trainer.train_step(context_set_of(SIREN, seed=step))
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
    factors = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert [rate[0] for rate in rates] == pytest.approx([1e-3 * factor for factor in factors], abs=1e-9)
    assert [rate[1] for rate in rates] == pytest.approx([1e-2 * factor for factor in factors], abs=1e-9)


def broken_context_set() -> ContextSet:
    context_set = context_set_of(SIREN)
    context_set.values[0, 0] = math.nan
    return context_set


def test_a_diverged_batch_changes_nothing_but_the_count() -> None:
    trainer = WeightTrainer(SIREN, tiny_config(), CPU)
    train(trainer, 2)
    before = trainer.state()
    trainer.train_step(broken_context_set())
    after = trainer.state()
    assert (trainer.step, trainer.diverged) == (3, 1)
    assert all(torch.equal(before[name], after[name]) for name in before if name not in ("step", "diverged"))
    train(trainer, 4)
    assert trainer.diverged == 0
    assert not torch.equal(trainer.state()["theta_0/head.weight"], before["theta_0/head.weight"])


def test_diverging_for_good_is_an_error() -> None:
    trainer = WeightTrainer(SIREN, tiny_config(), CPU)
    for _ in range(MAX_DIVERGED - 1):
        trainer.train_step(broken_context_set())
    with pytest.raises(UsageError, match="inner-step-size"):
        trainer.train_step(broken_context_set())


def test_a_far_too_large_inner_step_diverges_into_the_error() -> None:
    relu = FourierFeatureNetwork(2, 3, width=5, depth=3, frequencies=4)
    config = tiny_config(inner_step_size=1e12, adaptation=AdaptationConfig(steps=6), outer_steps=1000)
    with pytest.raises(UsageError, match="diverged"):
        train(WeightTrainer(relu, config, CPU), MAX_DIVERGED)


# Learning from real images


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
        theta = adapt(trainer.field, theta_0, sizes, held_out, config.adaptation, steps=config.adaptation.steps)
        return float(-10 * signal_losses(trainer.field, theta, held_out).log10().mean())

    before = psnr()
    while trainer.step < config.outer_steps:
        trainer.train_step(sampler.batch(trainer.step, config.batch).context_set(CPU))
    assert psnr() > before + 2.5
