"""The inner loop against the papers' algorithms, written out for one signal at a time."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from tiny_weights import FIELDS, NAMES, SIREN
from torch import Tensor

from inrcodec.adaptation import SHARED, step_size
from inrcodec.models import Parameters, PointField
from inrcodec.settings import AdaptationConfig
from inrcodec.weights.adaptation import adapt, adapt_for_training, initial_step_sizes
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import generators_of

KINDS = ["none", "scalar", "tensor", "tensor-step", "element"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# An independent version: explicit parameters of one signal, sorting, full gradients


def error_of(field: PointField, theta: Parameters, x: Tensor, y: Tensor) -> Tensor:
    return y - field(_with_batch(field, theta), x[None])[0]


def _with_batch(field: PointField, theta: Parameters) -> Parameters:
    return {name: value if name in field.constants else value[None] for name, value in theta.items()}


def mse(field: PointField, theta: Parameters, x: Tensor, y: Tensor) -> Tensor:
    return (error_of(field, theta, x, y) ** 2).sum() / y.numel()


def ranked(field: PointField, theta: Parameters, x: Tensor, y: Tensor, score: str) -> list[int]:
    """Return points from the highest score to the lowest; the score is a gradient by autograd."""
    keys = []
    for n in range(len(x)):
        own = {name: value.detach().requires_grad_() for name, value in theta.items()}
        loss = error_of(field, own, x[n : n + 1], y[n : n + 1]).square().sum()
        slopes = torch.autograd.grad(loss, [own["head.weight"], own["head.bias"]])
        keys.append(
            float((loss if score == "error" else torch.cat([slope.flatten() for slope in slopes]).norm()).detach())
        )
    return sorted(range(len(x)), key=lambda n: -keys[n])


def naive_gradient(field: PointField, theta: Parameters, x: Tensor, y: Tensor, *, graph: bool = False) -> Parameters:
    names = [name for name in theta if name not in field.constants]
    slopes = torch.autograd.grad(mse(field, theta, x, y), [theta[name] for name in names], create_graph=graph)
    return dict(zip(names, slopes, strict=True))


def alpha_of(sizes: Parameters, name: str, k: int) -> Tensor:
    rows = sizes[name] if name in sizes else sizes["shared"]
    return torch.exp(rows[k] if k < rows.shape[0] else rows[-1])


def naive_training(
    field: PointField, theta_0: Parameters, sizes: Parameters, x: Tensor, y: Tensor, config: AdaptationConfig
) -> Parameters:
    """Run algorithm 1, lines 5-9."""
    theta = theta_0
    keep = round(config.gamma * len(x))
    for k in range(config.steps):
        high = ranked(field, theta, x, y, config.score)[:keep]
        slopes = naive_gradient(field, theta, x[high], y[high], graph=True)
        theta = {
            name: value - alpha_of(sizes, name, k) * slopes[name] if name in slopes else value
            for name, value in theta.items()
        }
    return theta


def norm(slopes: Parameters) -> float:
    return math.sqrt(sum(float((slope.detach() ** 2).sum()) for slope in slopes.values()))


def naive_test_time(
    field: PointField,
    theta_0: Parameters,
    sizes: Parameters,
    x: Tensor,
    y: Tensor,
    config: AdaptationConfig,
    steps: int,
    rescaling: str,
) -> Parameters:
    """Run algorithm 2 with eq. 4, or ECoP's ratio of losses."""
    theta = theta_0
    keep = round(config.gamma * len(x))
    for k in range(steps):
        theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
        high = ranked(field, theta, x, y, config.score)[:keep]
        slopes = naive_gradient(field, theta, x, y)
        factor = 1.0
        if rescaling == "exact":
            factor = norm(naive_gradient(field, theta, x[high], y[high])) / norm(slopes)
        if rescaling == "loss-ratio":
            factor = float((mse(field, theta, x[high], y[high]) / mse(field, theta, x, y)).detach())
        theta = {
            name: value - alpha_of(sizes, name, k) * factor * slopes[name] if name in slopes else value
            for name, value in theta.items()
        }
    return theta


# Material


def start(field: PointField, kind: str = "tensor-step", steps: int = 3) -> tuple[Parameters, Parameters]:
    """Return theta_0 and step sizes, float64 leaves; the step sizes all differ."""
    generator = torch.Generator().manual_seed(1)
    theta_0 = {name: value.double().requires_grad_() for name, value in field.initialize(generator).items()}
    adapted = {name: value.detach() for name, value in theta_0.items() if name not in field.constants}
    sizes = initial_step_sizes(adapted, kind=kind, alpha=0.05, steps=steps)
    return theta_0, {
        name: (value.double() + torch.rand(value.shape, generator=generator)).requires_grad_()
        for name, value in sizes.items()
    }


def context_set_of(field: PointField, signals: int = 2, points: int = 12, *, shared: bool = False) -> ContextSet:
    generator = torch.Generator().manual_seed(2)
    coordinates = torch.rand((1 if shared else signals, points, field.in_features), generator=generator)
    values = torch.rand((signals, points, field.out_features), generator=generator)
    return ContextSet(coordinates.double() * 2 - 1, values.double())


def signals_of(context_set: ContextSet) -> Iterator[tuple[Tensor, Tensor]]:
    for b, values in enumerate(context_set.values):
        yield context_set.coordinates[b if len(context_set.coordinates) > 1 else 0], values


def assert_same(field: PointField, batched: Parameters, signals: list[Parameters], **tolerance: float) -> None:
    assert set(batched) == set(field.shapes())
    for name, value in batched.items():
        expected = signals[0][name] if name in field.constants else torch.stack([theta[name] for theta in signals])
        torch.testing.assert_close(value, expected, **tolerance)


def readout(field: PointField, thetas: list[Parameters], signals: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return some scalar of adapted parameters, as the outer loop makes one."""
    return sum(
        (
            mse(field, theta, x, y) + theta["head.weight"].sin().sum()
            for theta, (x, y) in zip(thetas, signals, strict=True)
        ),
        start=torch.zeros((), dtype=torch.float64),
    )


# Meta-training's inner loop


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("score", ["grad-norm", "error"])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_training_adaptation_and_its_meta_gradient(field: PointField, score: str, shared: bool) -> None:
    theta_0, sizes = start(field)
    context_set, config = context_set_of(field, shared=shared), AdaptationConfig(steps=3, gamma=0.5, score=score)
    signals = list(signals_of(context_set))
    learned = [*theta_0.values(), *sizes.values()]

    expected = [naive_training(field, theta_0, sizes, x, y, config) for x, y in signals]
    expected_gradient = torch.autograd.grad(readout(field, expected, signals), learned)

    theta_k = adapt_for_training(field, theta_0, sizes, context_set, config)
    assert_same(field, theta_k, expected)
    separate = [
        {name: value if name in field.constants else value[b] for name, value in theta_k.items()} for b in range(2)
    ]
    gradient = torch.autograd.grad(readout(field, separate, signals), learned)
    for value, reference in zip(gradient, expected_gradient, strict=True):
        torch.testing.assert_close(value, reference)
        assert reference.abs().max() > 0


def test_the_meta_gradient_is_of_second_order() -> None:
    """A first-order gradient would pass through the steps unchanged; this one does not."""
    theta_0, sizes = start(SIREN)
    context_set, config = context_set_of(SIREN, 1), AdaptationConfig(steps=2, gamma=1.0, score="full")
    theta_k = adapt_for_training(SIREN, theta_0, sizes, context_set, config)
    (gradient,) = torch.autograd.grad(theta_k["layer0.weight"].sum(), theta_0["layer0.weight"])
    assert not torch.allclose(gradient, torch.ones_like(gradient), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_step_size(kind: str) -> None:
    theta_0, sizes = start(SIREN, kind)
    context_set, config = context_set_of(SIREN), AdaptationConfig(steps=3, gamma=0.5)
    expected = [naive_training(SIREN, theta_0, sizes, x, y, config) for x, y in signals_of(context_set)]
    assert_same(SIREN, adapt_for_training(SIREN, theta_0, sizes, context_set, config), expected)


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_a_signal_does_not_depend_on_its_batch(field: PointField) -> None:
    theta_0, sizes = start(field)
    context_set, config = context_set_of(field, 3), AdaptationConfig(steps=3, gamma=0.5)
    together = adapt_for_training(field, theta_0, sizes, context_set, config)
    together_later = adapt(field, theta_0, sizes, context_set, config, steps=4)
    for b in range(3):
        own = ContextSet(context_set.coordinates[b : b + 1], context_set.values[b : b + 1])
        alone = adapt_for_training(field, theta_0, sizes, own, config)
        alone_later = adapt(field, theta_0, sizes, own, config, steps=4)
        for name in alone.keys() - field.constants:
            torch.testing.assert_close(together[name][b], alone[name][0])
            torch.testing.assert_close(together_later[name][b], alone_later[name][0])


def test_random_pruning_in_training_follows_the_generator() -> None:
    theta_0, sizes = start(SIREN)
    context_set, config = context_set_of(SIREN), AdaptationConfig(steps=3, gamma=0.5, score="random")

    def adapted(seed: int) -> Tensor:
        generators = generators_of(torch.Generator().manual_seed(seed), range(2))
        return adapt_for_training(SIREN, theta_0, sizes, context_set, config, generators)["head.weight"]

    assert torch.equal(adapted(0), adapted(0))
    assert not torch.equal(adapted(0), adapted(1))


# Test time


@pytest.mark.parametrize("rescaling", ["exact", "loss-ratio", "none"])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_test_time_adaptation(field: PointField, rescaling: str) -> None:
    theta_0, sizes = start(field)
    context_set, config = context_set_of(field), AdaptationConfig(steps=3, gamma=0.25)
    expected = [naive_test_time(field, theta_0, sizes, x, y, config, 6, rescaling) for x, y in signals_of(context_set)]
    assert_same(field, adapt(field, theta_0, sizes, context_set, config, steps=6, rescaling=rescaling), expected)


def test_exact_rescaling_takes_steps_as_long_as_the_pruned_gradient() -> None:
    theta_0, _ = start(SIREN)
    context_set, config = context_set_of(SIREN), AdaptationConfig(steps=3, gamma=0.25)
    alpha = 0.02
    path: list[Parameters] = []
    adapt(
        SIREN,
        theta_0,
        {SHARED: torch.tensor([alpha], dtype=torch.float64).log()},
        context_set,
        config,
        steps=5,
        on_step=lambda step, theta, losses: path.append({name: value.clone() for name, value in theta.items()}),
    )
    for before, after in pairwise(path):
        for b, (x, y) in enumerate(signals_of(context_set)):
            theta = {name: value[b].detach().requires_grad_() for name, value in before.items()}
            high = ranked(SIREN, theta, x, y, "grad-norm")[:3]
            pruned = norm(naive_gradient(SIREN, theta, x[high], y[high]))
            full = norm(naive_gradient(SIREN, theta, x, y))
            step = norm({name: after[name][b] - before[name][b] for name in theta})
            assert step == pytest.approx(alpha * pruned)
            assert pruned > 1.2 * full  # or the test could not tell


@pytest.mark.parametrize("config", [AdaptationConfig(gamma=1.0), AdaptationConfig(score="full", gamma=0.25)])
def test_nothing_to_rescale_without_pruning(config: AdaptationConfig) -> None:
    theta_0, sizes = start(SIREN)
    context_set = context_set_of(SIREN)
    plain = adapt(SIREN, theta_0, sizes, context_set, config, steps=4, rescaling="none")
    for rescaling in ("exact", "loss-ratio"):
        same = adapt(SIREN, theta_0, sizes, context_set, config, steps=4, rescaling=rescaling)
        assert all(torch.equal(same[name], plain[name]) for name in plain)


@pytest.mark.parametrize("rescaling", ["exact", "loss-ratio"])
def test_a_perfect_fit_stays(rescaling: str) -> None:
    """Zero gradients, whose ratio means nothing."""
    theta_0, sizes = start(SIREN)
    x = context_set_of(SIREN, 1).coordinates
    y = SIREN(_with_batch(SIREN, theta_0), x).detach()
    theta = adapt(SIREN, theta_0, sizes, ContextSet(x, y), AdaptationConfig(gamma=0.5), steps=2, rescaling=rescaling)
    for name, value in theta.items():
        torch.testing.assert_close(value[0], theta_0[name].detach())


def test_steps_beyond_the_trained_ones_use_the_last_step_size() -> None:
    theta_0, sizes = start(SIREN, "tensor-step", steps=2)
    longer = {name: torch.cat([rows, rows[-1:], rows[-1:], rows[-1:]]) for name, rows in sizes.items()}
    context_set, config = context_set_of(SIREN), AdaptationConfig(steps=2, gamma=0.5)
    beyond = adapt(SIREN, theta_0, sizes, context_set, config, steps=5)
    spelled_out = adapt(SIREN, theta_0, longer, context_set, config, steps=5)
    assert all(torch.equal(beyond[name], spelled_out[name]) for name in beyond)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_on_step_sees_every_step_and_the_end(steps: int) -> None:
    theta_0, sizes = start(SIREN)
    context_set, config = context_set_of(SIREN), AdaptationConfig(gamma=0.5)
    calls: list[tuple[int, Parameters, Tensor]] = []
    theta = adapt(SIREN, theta_0, sizes, context_set, config, steps=steps, on_step=lambda *call: calls.append(call))
    assert [step for step, _, _ in calls] == list(range(steps + 1))
    assert all(torch.equal(calls[-1][1][name], theta[name]) for name in theta)
    for step, parameters, losses in calls:
        shorter = adapt(SIREN, theta_0, sizes, context_set, config, steps=step)
        for b, (x, y) in enumerate(signals_of(context_set)):
            own = {name: value[b] for name, value in parameters.items()}
            torch.testing.assert_close(losses[b], mse(SIREN, own, x, y))
            torch.testing.assert_close(own["head.weight"], shorter["head.weight"][b])


def test_no_steps_leave_the_initialization() -> None:
    theta_0, sizes = start(SIREN)
    theta = adapt(SIREN, theta_0, sizes, context_set_of(SIREN, 3), AdaptationConfig(), steps=0)
    assert all(torch.equal(value[b], theta_0[name]) for name, value in theta.items() for b in range(3))


def test_adaptation_leaves_no_graph_and_its_inputs_alone() -> None:
    theta_0, sizes = start(SIREN)
    before = {name: value.detach().clone() for name, value in theta_0.items()}
    theta = adapt(SIREN, theta_0, sizes, context_set_of(SIREN), AdaptationConfig(gamma=0.5), steps=2)
    assert not any(value.requires_grad for value in theta.values())
    assert all(torch.equal(theta_0[name], before[name]) for name in before)
    assert all(value.grad is None for value in theta_0.values())


def test_adaptation_fits() -> None:
    theta_0 = SIREN.initialize(torch.Generator().manual_seed(0))
    coordinates = torch.cartesian_prod(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8))[None]
    context_set = ContextSet(coordinates, 0.5 + 0.4 * torch.sin(coordinates.sum(-1, keepdim=True) * 2).repeat(2, 1, 3))
    losses: list[float] = []
    adapt(
        SIREN,
        theta_0,
        {SHARED: torch.tensor([1e-2]).log()},
        context_set,
        AdaptationConfig(),
        steps=100,
        on_step=lambda step, theta, loss: losses.append(float(loss.detach().mean())),
    )
    assert losses[-1] < losses[0] / 20


# Step sizes


@pytest.mark.parametrize("kind", KINDS)
def test_initial_step_sizes(kind: str) -> None:
    theta = {"a.weight": torch.zeros(4, 3), "a.bias": torch.zeros(4)}
    sizes = initial_step_sizes(theta, kind=kind, alpha=0.03, steps=5)
    shapes = {name: tuple(value.shape) for name, value in sizes.items()}
    assert (
        shapes
        == {
            "none": {SHARED: (1,)},
            "scalar": {SHARED: (1,)},
            "tensor": {"a.weight": (1, 1, 1), "a.bias": (1, 1)},
            "tensor-step": {"a.weight": (5, 1, 1), "a.bias": (5, 1)},
            "element": {"a.weight": (1, 4, 3), "a.bias": (1, 4)},
        }[kind]
    )
    for name, value in theta.items():
        for step in (0, 4, 9):
            alpha = step_size(sizes, name, step)
            assert torch.allclose(alpha, torch.tensor(0.03))
            assert torch.broadcast_shapes((7, *value.shape), alpha.shape) == (7, *value.shape)


@pytest.mark.parametrize("kind", ["tensor", "tensor-step", "element"])
def test_initial_step_sizes_own_their_memory(kind: str) -> None:
    sizes = initial_step_sizes({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, kind=kind, alpha=1.0, steps=2)
    sizes["a"][0, 0, 0] = 5
    assert float(sizes["a"].sum()) == 5
    assert float(sizes["b"].sum()) == 0
