"""The experiments of benchmarks/lab.py: each on a tiny setting, their parts against independent oracles."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import amortized, classification, comparisons, gradients, memory, perception, pruned, views
from experiments.laboratory import Laboratory
from experiments.settings import Setting, setting
from lab import EXPERIMENTS

import inrcodec.assets
from inrcodec.cli.console import ProgressLine
from inrcodec.meta.adaptation import AdaptationConfig, batch_parameters, signal_losses
from inrcodec.meta.context import Context
from inrcodec.meta.run import load_data
from inrcodec.meta.training import TrainingConfig
from inrcodec.models import FourierFeatureNetwork, Siren
from inrcodec.patches import PatchConfig

ROOT = Path(__file__).parents[1]
SAMPLES = Path(next(iter(inrcodec.assets.__path__))) / "samples"

TINY = Setting(
    modality="image",
    field="siren",
    scale="small",
    model=Siren(2, 3, width=8, depth=3),
    patches=PatchConfig((16, 16), (0, 0), normalize=False),
    training=TrainingConfig(
        adaptation=AdaptationConfig(steps=4, gamma=0.25),
        bootstrap_steps=1,
        bootstrap_weight=0.1,
        outer_step_size=1e-3,
        batch=2,
        outer_steps=3,
    ),
    measured=(1, 4),
    held_out=3,
)


@pytest.fixture(scope="module")
def data():
    return load_data(SAMPLES / "image", "image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture
def laboratory(data, folder):
    return Laboratory(TINY, data, "samples", folder, torch.device("cpu"), ProgressLine(quiet=True))


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in ("domains", "unseen_views", "many_shot")])
def test_every_experiment_has_numbers_for_all_its_variants(name, laboratory, tmp_path):
    if name == "memory" and laboratory.peak_memory(TINY.training) is None:
        pytest.skip("this system does not tell its peak memory")
    result = EXPERIMENTS[name](laboratory)
    assert len(result.rows) >= 3
    for row in result.rows.values():
        numbers = [value for value in row.values() if value is not None]
        assert numbers
        assert all(math.isfinite(value) for value in numbers)
    assert all(panel.curves for panel in result.panels)
    json.dumps(result.content())


def test_domains_are_measured_on_other_folders(data, folder, tmp_path):
    others = [SAMPLES / "image"]
    laboratory = Laboratory(TINY, data, "samples", folder, torch.device("cpu"), ProgressLine(quiet=True), others)
    result = comparisons.domains(laboratory)
    assert all(set(row) == {"held out", "image"} for row in result.rows.values())


def test_a_field_of_videos_is_asked_for_pictures_in_the_middle_of_its_time(data, folder):
    video = replace(
        TINY, modality="video", model=Siren(3, 3, width=8, depth=3), patches=PatchConfig((2, 8, 8), (0, 0, 0))
    )
    videos = load_data(SAMPLES / "video", "video")
    laboratory = Laboratory(video, videos, "samples", folder, torch.device("cpu"), ProgressLine(quiet=True))
    context = laboratory.stills_of(data.held_out)
    assert context.values.shape == (3, 64, 3)
    assert context.coordinates.shape[1:] == (64, 3)
    assert (context.coordinates[..., 0] == 0).all()
    assert context.coordinates[..., 1:].abs().max() <= 1


def test_a_trained_variant_is_kept_and_read_again(laboratory, data, folder, monkeypatch):
    first = laboratory.history("usual", TINY.training)
    assert [learned.step for learned in first] == [1, 2, 3]
    assert first[-1].seconds >= first[0].seconds > 0

    def never(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(laboratory, "_train", never)
    again = laboratory.history("usual", TINY.training)
    for old, new in zip(first, again, strict=True):
        assert (old.step, old.seconds) == (new.step, new.seconds)
        assert all(torch.equal(old.theta_0[name], new.theta_0[name]) for name in old.theta_0)
    with pytest.raises(AssertionError, match="trained again"):
        laboratory.history("another", replace(TINY.training, seed=1))


def test_curves_are_those_of_plain_descent(laboratory):
    """Without rescaling and with one step size, a few lines of descent on the mean squared error give the same."""
    learned = laboratory.random(0.01)
    curve = laboratory.curve(learned, [0, 2], rescaling="none")
    model, context = TINY.model, laboratory.held_out
    reached = []
    for signal in range(len(context.values)):
        theta = {name: value[None].clone().requires_grad_() for name, value in learned.theta_0.items()}
        one = Context(context.coordinates[:1], context.values[signal : signal + 1])
        for _ in range(2):
            (loss,) = signal_losses(model, theta, one)
            slopes = torch.autograd.grad(loss, list(theta.values()))
            theta = {
                name: (value - 0.01 * slope).detach().requires_grad_()
                for (name, value), slope in zip(theta.items(), slopes, strict=True)
            }
        reached.append(-10 * math.log10(float(signal_losses(model, theta, one).detach())))
    assert curve[2] == pytest.approx(np.mean(reached), abs=1e-3)
    assert curve[2] > curve[0]


def test_norms_of_point_gradients_are_those_of_one_point_alone(laboratory):
    context = laboratory.held_out
    theta = batch_parameters(TINY.model, TINY.model.initialize(torch.Generator().manual_seed(0)), 3)
    found = gradients.point_gradient_norms(TINY.model, theta, context, 1)
    for point in (0, 17, 255):
        leaves = {name: value[1:2].clone().requires_grad_() for name, value in theta.items()}
        alone = Context(context.coordinates[:1, point : point + 1], context.values[1:2, point : point + 1])
        signal_losses(TINY.model, leaves, alone).sum().backward()
        expected = math.sqrt(sum(float(leaf.grad.square().sum()) for leaf in leaves.values()))
        assert float(found[point]) == pytest.approx(expected, rel=1e-4)


def test_peak_memory_is_that_of_what_lives_at_once():
    device = torch.device("cpu")

    def once():
        torch.ones(16 << 18).sum()

    def kept():
        return [torch.ones(16 << 18) for _ in range(4)]

    one = memory.peak_memory(once, device)
    if one is None:
        pytest.skip("this system does not tell its peak memory")
    assert 14 < one < 30
    assert 60 < memory.peak_memory(kept, device) < 80


@pytest.mark.parametrize(("shape", "piece"), [((8,), (4,)), ((4, 6), (2, 3)), ((2, 4, 4), (1, 2, 2))])
def test_pieces_hold_their_own_samples(shape, piece):
    values = torch.arange(math.prod(shape) * 2.0).reshape(1, -1, 2)
    grid = values.reshape(*shape, 2).numpy()
    counts = [size // part for size, part in zip(shape, piece, strict=True)]
    found = amortized.pieces(values, shape, piece)[0].numpy()
    for token, place in enumerate(np.ndindex(*counts)):
        box = tuple(slice(i * part, (i + 1) * part) for i, part in zip(place, piece, strict=True))
        assert np.array_equal(found[token], grid[box].ravel())


@pytest.mark.parametrize("kind", [amortized.TransINR, amortized.InstancePatternComposers])
def test_predicted_weights_make_a_field_and_learn(kind):
    torch.manual_seed(0)
    model = Siren(2, 3, width=16, depth=3)
    network = kind(model, 16, 1, (8, 8), (4, 4))
    values = torch.rand((2, 64, 3))
    theta = network(values)
    assert {name: tuple(value.shape[1:]) for name, value in theta.items()} == model.shapes()
    axis = torch.linspace(-1, 1, 8)
    context = Context(torch.cartesian_prod(axis, axis)[None], values)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = signal_losses(model, network(values), context).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


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
            density = math.log1p(math.exp(sample[3] - 1))
            opacity = 1 - math.exp(-density * 8 * (views.FAR - views.NEAR) / 5)
            color += left * opacity / (1 + np.exp(-sample[:3]))
            left *= 1 - opacity
        assert found[batch, ray].tolist() == pytest.approx(color + left, abs=1e-4)


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
    """Every class is a pattern with noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand((10, 1, 1, 8, 8), generator=generator)
    return classification.Digits([(0.3 * torch.randn((90, 1, 8, 8), generator=generator) + each) for each in patterns])


def test_tasks_have_different_examples_for_context_and_queries():
    problem = digits()
    context, queries = problem.tasks(2, torch.Generator().manual_seed(3))
    assert context.images.shape == (2, 120, 1, 8, 8)
    assert queries.labels[0].bincount().tolist() == [40, 40, 40]
    seen = {tuple(image.ravel().tolist()) for image in context.images[0]}
    assert len(seen) == 120
    assert not seen & {tuple(image.ravel().tolist()) for image in queries.images[0]}
    # One class has one number in both.
    seen, asked = (
        torch.stack([task.images[0][task.labels[0] == label].mean(0) for label in range(3)])
        for task in (context, queries)
    )
    distances = (seen[:, None] - asked).flatten(2).norm(dim=2)
    assert distances.argmin(1).tolist() == [0, 1, 2]


def test_scores_of_examples_are_norms_of_the_gradient_of_the_readout():
    problem = digits()
    context, _ = problem.tasks(2, torch.Generator().manual_seed(3))
    theta = batch_parameters(TINY.model, problem.initialize(torch.Generator().manual_seed(0)), 2)
    found = problem.scores(theta, context, "grad-norm")
    for example in (0, 50):
        own = {name: value[1:2].clone().requires_grad_() for name, value in theta.items()}
        one = classification.Task(
            context.images[1:2, example : example + 1], context.labels[1:2, example : example + 1]
        )
        slopes = torch.autograd.grad(problem.losses(own, one).sum(), [own["head.weight"], own["head.bias"]])
        expected = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        assert float(found[1, example]) == pytest.approx(expected, rel=1e-4)


def test_pruned_meta_learning_learns_to_tell_new_classes_apart(laboratory):
    problem = digits()
    training = replace(
        TINY.training, inner_step_size=0.1, outer_step_size=1e-2, outer_steps=40, schedule="cosine", batch=4
    )
    theta_0 = pruned.meta_learn("digits", problem, training, laboratory)
    context, queries = problem.new_tasks(10, torch.Generator().manual_seed(1))
    curve = pruned.adapted_curve(problem, theta_0, training, context, queries, (0, 4))
    start = problem.initialize(torch.Generator().manual_seed(training.seed))
    untrained = pruned.adapted_curve(problem, start, training, context, queries, (0, 4))
    assert curve[4] > curve[0] + 10
    assert curve[4] > untrained[4] + 5


def test_similarity_is_one_for_the_same_and_less_for_another():
    pictures = perception.planes(torch.rand((2, 256, 3)), (16, 16))
    assert pictures.shape == (2, 16, 16, 3)
    assert perception.similarity(pictures, pictures) == pytest.approx(1.0)
    assert perception.similarity(1 - pictures, pictures) < 0.5
    assert perception.planes(torch.rand((2, 256, 3)), (256,)) is None


def test_settings_have_the_papers_fields_and_small_ones():
    papers, small = setting("video", "siren", "paper"), setting("video", "siren", "small")
    assert (papers.model.width, papers.model.depth) == (256, 7)
    assert papers.training.outer_steps == 150_000
    assert papers.training.bootstrap_weight == 100
    assert small.model.width < 64
    assert small.shortened(7).training.outer_steps == 7


def test_the_command_writes_a_table_and_json(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "lab.py", "norms", "--outer-steps", "1", "--device", "cpu"]
    done = subprocess.run([*command, "--output", tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pruned / full" in done.stdout
    content = json.loads((tmp_path / "lab_norms_image-siren-small.json").read_text())
    assert len(content["rows"]) == 16
    failed = subprocess.run([*command[:2], "domains", "--output", tmp_path], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: give folders")
