"""The lab's problems whose targets are not their context: unseen views of scenes, and new classes of digits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments import classification, pruned, views
from experiments.curves import decibels, means
from lab import PROBLEMS
from tiny_lab import TINY, tiny_data, tiny_laboratory

from inrcodec.cli.console import ProgressLine
from inrcodec.errors import Diverged, UsageError
from inrcodec.models import FourierFeatureNetwork
from inrcodec.weights.adaptation import batch_parameters, signal_losses
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.pruning import gradient_norm_score


def test_a_camera_looks_at_the_object():
    eye = torch.tensor([1.2, -1.6, 0.3])
    origins, directions = views.camera_rays(eye, 5)
    assert torch.allclose(origins, eye.expand(25, 3))
    assert torch.allclose(directions[12], -eye / eye.norm(), atol=1e-6)
    assert torch.allclose(directions.norm(dim=1), torch.ones(25))
    up = directions[2] - directions[22]  # from the lowest row of the picture to the highest
    assert up[2] > 0


def test_the_nearest_ellipsoid_is_seen():
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    objects = (torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.full((2, 3), 0.25), colors)
    origins = torch.tensor([[2.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.5, 2.0, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, -1.0, 0.0]])
    seen = views.look(objects, origins, directions)
    light = torch.tensor([0.48, 0.36, 0.8])
    assert seen[0].tolist() == pytest.approx([0, 0.6 + 0.4 * float(light[0]), 0])
    assert seen[1].tolist() == pytest.approx([0.6 - 0.4 * float(light[0]), 0, 0])
    assert seen[2].tolist() == pytest.approx([0.6 + 0.4 * float(light[1]), 0, 0])
    assert seen[3].tolist() == [1, 1, 1]


RADIANCE = views.RadianceField(FourierFeatureNetwork(3, 4, width=8, depth=3, frequencies=4, scale=0.5), samples=5)


def rays_and_parameters():
    rays = views.views(0, 2, 4)
    theta_0 = RADIANCE.network.initialize(torch.Generator().manual_seed(0))
    return rays, batch_parameters(RADIANCE.network, theta_0, 2)


def test_rendering_is_that_of_a_loop_over_samples():
    rays, theta = rays_and_parameters()
    found = RADIANCE.render(theta, rays)
    places = RADIANCE.places(rays)
    raw = RADIANCE.network.preactivation(theta, RADIANCE.network.features(theta, places)).reshape(2, 16, 5, 4)
    for batch, ray in ((0, 0), (1, 5), (1, 15)):
        left, color = 1.0, np.zeros(3)
        for sample in raw[batch, ray].numpy().astype(float):
            density = math.log1p(math.exp(sample[3] - 4))
            opacity = 1 - math.exp(-density * 8 * (views.FAR - views.NEAR) / 5)
            color += left * opacity / (1 + np.exp(-sample[:3]))
            left *= 1 - opacity
        assert found[batch, ray].tolist() == pytest.approx(color + left, abs=1e-4)


def test_an_untrained_radiance_field_is_mostly_transparent():
    rays, theta = rays_and_parameters()
    nothing = {name: torch.zeros_like(value) for name, value in theta.items()}
    left = math.exp(-8 * math.log1p(math.exp(-4)) * (views.FAR - views.NEAR))
    assert left == pytest.approx(0.75, abs=0.01)
    expected = torch.full_like(rays.colors, left + (1 - left) / 2)  # white behind gray
    torch.testing.assert_close(RADIANCE.render(nothing, rays), expected)


@pytest.mark.parametrize("score", ["error", "grad-norm"])
def test_scores_of_rays_are_those_of_one_ray_alone(score):
    rays, theta = rays_and_parameters()
    found = RADIANCE.scores(theta, rays, score)
    for ray in (0, 7):
        head = {name: theta[name][1:2].clone().requires_grad_() for name in ("head.weight", "head.bias")}
        one = views.Rays(*(part[1:2, ray : ray + 1] for part in (rays.origins, rays.directions, rays.colors)))
        own = {name: value if name in RADIANCE.network.constants else value[1:2] for name, value in theta.items()}
        error = RADIANCE.render({**own, **head}, one) - one.colors
        if score == "error":
            expected = float(error.detach().norm())
        else:
            slopes = torch.autograd.grad(error.square().sum(), list(head.values()))
            expected = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        assert float(found[1, ray]) == pytest.approx(expected, rel=1e-4)


def digits():
    """Make classes of a pattern with noise each."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand((10, 1, 1, 8, 8), generator=generator)
    return classification.Digits([(0.3 * torch.randn((90, 1, 8, 8), generator=generator) + each) for each in patterns])


def test_tasks_have_different_examples_for_context_and_queries():
    problem = digits()
    context_set, queries = problem.tasks(2, torch.Generator().manual_seed(3))
    assert context_set.images.shape == (2, 120, 1, 8, 8)
    assert queries.labels[0].bincount().tolist() == [40, 40, 40]
    seen = {tuple(image.ravel().tolist()) for image in context_set.images[0]}
    assert len(seen) == 120
    assert not seen & {tuple(image.ravel().tolist()) for image in queries.images[0]}
    # One class has one number in both.
    seen, asked = (
        torch.stack([task.images[0][task.labels[0] == label].mean(0) for label in range(3)])
        for task in (context_set, queries)
    )
    distances = (seen[:, None] - asked).flatten(2).norm(dim=2)
    assert distances.argmin(1).tolist() == [0, 1, 2]


def test_scores_of_examples_are_norms_of_the_gradient_of_the_readout():
    problem = digits()
    context_set, _ = problem.tasks(2, torch.Generator().manual_seed(3))
    theta = batch_parameters(TINY.field, problem.initialize(torch.Generator().manual_seed(0)), 2)
    found = problem.scores(theta, context_set, "grad-norm")
    for example in (0, 50):
        own = {name: value[1:2].clone().requires_grad_() for name, value in theta.items()}
        one = classification.Task(
            context_set.images[1:2, example : example + 1], context_set.labels[1:2, example : example + 1]
        )
        slopes = torch.autograd.grad(problem.losses(own, one).sum(), [own["head.weight"], own["head.bias"]])
        expected = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        assert float(found[1, example]) == pytest.approx(expected, rel=1e-4)


BENCH = pruned.Bench(TINY.training, "small", torch.device("cpu"), ProgressLine(quiet=True))


@pytest.fixture
def few(monkeypatch):
    """Make tasks of digits small, and tables of few tasks."""
    monkeypatch.setattr(classification, "SHOTS", 10)
    monkeypatch.setattr(classification, "QUERIES", 10)
    monkeypatch.setattr(classification, "TASKS", 2)
    monkeypatch.setattr(views, "HELD_OUT", 2)


def test_pruned_meta_learning_learns_to_tell_new_classes_apart(few):
    problem = digits()
    training = replace(
        TINY.training, inner_step_size=0.1, outer_step_size=1e-2, outer_steps=20, schedule="cosine", batch=4
    )
    theta_0 = pruned.meta_learn("digits", problem, training, BENCH)
    context_set, queries = problem.new_tasks(10, torch.Generator().manual_seed(1))
    curve = means(pruned.adapted_curve(problem, theta_0, training, context_set, queries, (0, 4)))
    start = problem.initialize(torch.Generator().manual_seed(training.seed))
    untrained = means(pruned.adapted_curve(problem, start, training, context_set, queries, (0, 4)))
    assert curve[4] > curve[0] + 10
    assert curve[4] > untrained[4] + 5


class Points(ContextSet):
    """A context set as examples of a problem."""

    points = property(lambda self: self.values.shape[1])

    def __len__(self):
        return len(self.values)

    def to(self, device):
        return self

    def select(self, points):
        chosen = ContextSet(self.coordinates, self.values).select(points)
        return Points(chosen.coordinates, chosen.values)


class FieldProblem(pruned.Problem):
    """Fields as a problem whose targets are the context set."""

    def __init__(self, laboratory):
        self.laboratory = laboratory
        self.drawn = 0

    def initialize(self, generator):
        return TINY.field.initialize(generator)

    def tasks(self, count, generator):
        context_set = self.laboratory.batch(self.drawn)
        self.drawn += 1
        return (Points(context_set.coordinates, context_set.values),) * 2

    def losses(self, theta, examples):
        return signal_losses(TINY.field, theta, examples)

    def scores(self, theta, examples, score):
        return gradient_norm_score(TINY.field, theta, examples).detach()

    def measure(self, theta, targets):
        return decibels(self.losses(theta, targets))


@pytest.mark.parametrize("bootstrap_steps", [0, 2])
def test_the_method_for_other_problems_is_that_for_fields(tmp_path, bootstrap_steps):
    laboratory = tiny_laboratory(tiny_data(), tmp_path)
    training = replace(TINY.training, bootstrap_steps=bootstrap_steps, bootstrap_weight=3.0)
    problem = FieldProblem(laboratory)
    theta_0 = pruned.meta_learn("fields", problem, training, BENCH)
    learned = laboratory.learn("fields", training)
    for name, value in learned.theta_0.items():
        torch.testing.assert_close(theta_0[name], value, rtol=1e-4, atol=1e-6)
    held_out = Points(laboratory.held_out.coordinates, laboratory.held_out.values)
    curve = means(pruned.adapted_curve(problem, theta_0, training, held_out, held_out, (1, 4)))
    expected = means(laboratory.curve(learned, [1, 4]))
    assert curve == pytest.approx(expected, abs=1e-3)


def test_divergence_stops_a_meta_training(few):
    training = replace(TINY.training, inner_step_size=1e30, bootstrap_steps=0, outer_steps=30)
    with pytest.raises(Diverged, match="far: meta-training diverged"):
        pruned.meta_learn("far", digits(), training, BENCH)


def test_unseen_views_and_digits_are_compared(monkeypatch, few):
    tiny = views.Views(RADIANCE, resolution=4, scenes=3, rays=12, targets=8)
    monkeypatch.setattr(views, "SMALL", tiny)
    monkeypatch.setattr(classification, "_digits", lambda: digits().by_class)
    bench = replace(BENCH, training=replace(TINY.training, outer_steps=1))
    for experiment in PROBLEMS.values():
        result = experiment(bench)
        assert len(result.rows) == 7
        assert all(len(row) == 5 for name, row in result.rows.items() if name != "GradNCP")
        assert result.trainings["MAML (Learnit), equal memory"].adaptation.steps == 2
    with pytest.raises(UsageError, match="mini-ImageNet"):
        classification.many_shot(replace(bench, scale="paper"))


def test_every_view_of_a_scene_is_seen_at_times():
    problem = views.Views(RADIANCE, resolution=4, scenes=1, rays=16, targets=64)
    eyes = set()
    for number in range(30):
        seen, unseen = problem.tasks(1, torch.Generator().manual_seed(number))
        eyes.add(tuple(seen.origins[0, 0].tolist()))
        others = {tuple(eye) for eye in unseen.origins[0].tolist()}
        assert tuple(seen.origins[0, 0].tolist()) not in others
        assert len(others) == 4
    assert len(eyes) == 5
