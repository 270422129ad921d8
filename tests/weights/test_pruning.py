"""Scores and pruning against per-sample gradients and plain sorting."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_weights import FIELDS, NAMES, SIREN
from torch import Tensor

from inrcodec.models import Parameters, PointField
from inrcodec.settings import SCORES
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import (
    error_score,
    generators_of,
    gradient_norm_score,
    prune,
    self_prediction_gain,
    target_prediction_gain,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parameters_of(field: PointField, signals: int) -> Parameters:
    thetas = [field.initialize(torch.Generator().manual_seed(seed)) for seed in range(signals)]
    return {
        name: (thetas[0][name] if name in field.constants else torch.stack([theta[name] for theta in thetas])).double()
        for name in field.shapes()
    }


def context_set_of(field: PointField, signals: int, points: int, *, shared: bool = False) -> ContextSet:
    generator = torch.Generator().manual_seed(7)
    coordinates = torch.rand((1 if shared else signals, points, field.in_features), generator=generator)
    values = torch.rand((signals, points, field.out_features), generator=generator)
    return ContextSet(coordinates.double() * 2 - 1, values.double())


def per_sample_gradient_norms(field: PointField, parameters: Parameters, context_set: ContextSet) -> Tensor:
    """Return the norm of d||y - f(x)||^2 / d(W, b) by autograd, one point at a time: [B, N]."""
    signals, points = context_set.values.shape[:2]
    norms = torch.zeros(signals, points, dtype=torch.float64)
    for b in range(signals):
        own = {n: (v if n in field.constants else v[b : b + 1]).clone().requires_grad_() for n, v in parameters.items()}
        x = context_set.coordinates[b if len(context_set.coordinates) > 1 else 0]
        for n in range(points):
            loss = (context_set.values[b, n] - field(own, x[None, n : n + 1])).square().sum()
            slopes = torch.autograd.grad(loss, [own["head.weight"], own["head.bias"]])
            norms[b, n] = torch.cat([slope.flatten() for slope in slopes]).norm()
    return norms


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_score_is_the_norm_of_the_readout_gradient(field: PointField, shared: bool) -> None:
    """GradNCP eq. 2 and appendix B, which leaves out the factor 2."""
    parameters, context_set = parameters_of(field, 2), context_set_of(field, 2, 9, shared=shared)
    expected = per_sample_gradient_norms(field, parameters, context_set) / 2
    torch.testing.assert_close(gradient_norm_score(field, parameters, context_set), expected)


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_error_score_is_the_norm_of_the_error(field: PointField) -> None:
    parameters, context_set = parameters_of(field, 2), context_set_of(field, 2, 9)
    error = context_set.values - field(parameters, context_set.coordinates)
    expected = torch.tensor([[float(sum(e**2 for e in point)) ** 0.5 for point in signal] for signal in error])
    torch.testing.assert_close(error_score(field, parameters, context_set), expected.double(), rtol=1e-6, atol=1e-6)


def gains(field: PointField, parameters: Parameters, context_set: ContextSet) -> tuple[Tensor, Tensor]:
    """Return SPG and TPG: the readout is updated on one point at a time, all points are evaluated again."""
    signals, points = context_set.values.shape[:2]
    own_gains, other_gains = (torch.zeros(signals, points, dtype=torch.float64) for _ in range(2))
    for b in range(signals):
        theta = {n: (v if n in field.constants else v[b : b + 1]).clone() for n, v in parameters.items()}
        x = context_set.coordinates[b if len(context_set.coordinates) > 1 else 0][None]

        def losses(own: Parameters, x=x, b=b) -> Tensor:
            return (context_set.values[b] - field(own, x)[0]).square().mean(-1)

        before = losses(theta)
        for n in range(points):
            head = {name: theta[name].clone().requires_grad_() for name in ("head.weight", "head.bias")}
            slopes = torch.autograd.grad(losses({**theta, **head})[n], list(head.values()))
            updated = {
                name: value.detach() - 1e-2 * slope for (name, value), slope in zip(head.items(), slopes, strict=True)
            }
            gain = before - losses({**theta, **updated})
            own_gains[b, n] = gain[n]
            other_gains[b, n] = (gain.sum() - gain[n]) / (points - 1)
    return own_gains, other_gains


@pytest.mark.parametrize("numbers", [1, 1 << 24])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_prediction_gains_are_those_of_updates(
    field: PointField, shared: bool, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inrcodec.weights.pruning._GAIN_NUMBERS", numbers)
    parameters, context_set = parameters_of(field, 2), context_set_of(field, 2, 7, shared=shared)
    own, others = gains(field, parameters, context_set)
    torch.testing.assert_close(self_prediction_gain(field, parameters, context_set), own)
    torch.testing.assert_close(target_prediction_gain(field, parameters, context_set), others)


def test_the_self_prediction_gain_ranks_as_the_gradient_norm() -> None:
    """For a linear output it is |e|^2 (1 - (1 - 2 alpha s / C)^2) / C, which rises with |e|^2 s for small alpha."""
    parameters, context_set = parameters_of(SIREN, 2), context_set_of(SIREN, 2, 40)
    gain = self_prediction_gain(SIREN, parameters, context_set)
    norm = gradient_norm_score(SIREN, parameters, context_set)
    torch.testing.assert_close(gain, 4 * 1e-2 * norm.square() / 9, rtol=0.05, atol=0)


def chosen(context_set: ContextSet, pruned: ContextSet) -> list[list[int]]:
    """Return which points of the context set were kept, per signal, found again by their values."""
    return [
        sorted(int((context_set.values[b] == value).all(-1).nonzero()) for value in pruned.values[b])
        for b in range(len(context_set.values))
    ]


@pytest.mark.parametrize("score", ["grad-norm", "error"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_pruning_keeps_the_highest_of_every_signal(field: PointField, score: str, shared: bool) -> None:
    parameters, context_set = parameters_of(field, 3), context_set_of(field, 3, 10, shared=shared)
    if score == "grad-norm":
        ranking = per_sample_gradient_norms(field, parameters, context_set)
    else:
        ranking = (context_set.values - field(parameters, context_set.coordinates)).square().sum(-1)
    best = [sorted(sorted(range(10), key=lambda n, r=row: -r[n])[:4]) for row in ranking.tolist()]
    pruned = prune(field, parameters, context_set, score=score, gamma=0.4)
    assert chosen(context_set, pruned) == best
    for b, kept in enumerate(chosen(context_set, pruned)):
        rows = context_set.coordinates[0 if shared else b][kept]
        order = [kept.index(n) for n in _order(context_set, pruned, b)]
        torch.testing.assert_close(pruned.coordinates[b], rows[order])


def _order(context_set: ContextSet, pruned: ContextSet, signal: int) -> list[int]:
    return [int((context_set.values[signal] == value).all(-1).nonzero()) for value in pruned.values[signal]]


@settings(deadline=None, max_examples=40)
@given(
    points=st.integers(1, 40),
    gamma=st.floats(0.01, 0.99),
    score=st.sampled_from(["grad-norm", "error", "random"]),
)
def test_share_that_is_kept(points: int, gamma: float, score: str) -> None:
    parameters, context_set = parameters_of(SIREN, 2), context_set_of(SIREN, 2, points, shared=True)
    pruned = prune(SIREN, parameters, context_set, score=score, gamma=gamma)
    kept = max(1, round(gamma * points))
    assert pruned.values.shape == (2, kept, 3)
    assert pruned.coordinates.shape == (2, kept, 2)
    assert all(len(set(indices)) == kept for indices in chosen(context_set, pruned))


@pytest.mark.parametrize("score", SCORES)
def test_full_context_is_kept_as_it_is(score: str) -> None:
    parameters, context_set = parameters_of(SIREN, 2), context_set_of(SIREN, 2, 8)
    whole = prune(SIREN, parameters, context_set, score=score, gamma=1.0)
    assert torch.equal(whole.values, context_set.values)
    assert torch.equal(whole.coordinates, context_set.coordinates)


def test_full_score_ignores_gamma() -> None:
    parameters, context_set = parameters_of(SIREN, 2), context_set_of(SIREN, 2, 8)
    assert prune(SIREN, parameters, context_set, score="full", gamma=0.25).values.shape[1] == 8


def test_random_pruning_follows_the_generator() -> None:
    parameters, context_set = parameters_of(SIREN, 2), context_set_of(SIREN, 2, 100)

    def pruned(seed: int) -> list[list[int]]:
        generators = generators_of(torch.Generator().manual_seed(seed), range(2))
        return chosen(
            context_set, prune(SIREN, parameters, context_set, score="random", gamma=0.5, generators=generators)
        )

    assert pruned(1) == pruned(1)
    assert pruned(1) != pruned(2)
    assert pruned(1)[0] != pruned(1)[1]


def test_random_pruning_is_uniform() -> None:
    parameters, context_set = parameters_of(SIREN, 1), context_set_of(SIREN, 1, 10)
    generators = generators_of(torch.Generator().manual_seed(0), range(1))
    counts = [0] * 10
    for _ in range(600):
        for n in chosen(
            context_set, prune(SIREN, parameters, context_set, score="random", gamma=0.3, generators=generators)
        )[0]:
            counts[n] += 1
    # 180 expected of each, standard deviation 11.
    assert all(130 < count < 230 for count in counts)


def test_scoring_builds_no_graph() -> None:
    parameters = {name: value.requires_grad_() for name, value in parameters_of(SIREN, 2).items()}
    pruned = prune(SIREN, parameters, context_set_of(SIREN, 2, 8), score="grad-norm", gamma=0.5)
    assert not pruned.values.requires_grad and not pruned.coordinates.requires_grad


def test_selection_takes_each_signal_its_own_points() -> None:
    context_set = context_set_of(SIREN, 2, 5)
    selected = context_set.select(torch.tensor([[4, 0], [1, 1]]))
    assert torch.equal(selected.values, torch.stack([context_set.values[0][[4, 0]], context_set.values[1][[1, 1]]]))
    assert torch.equal(selected.coordinates[0], context_set.coordinates[0][[4, 0]])
