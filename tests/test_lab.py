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
from experiments import (
    amortized,
    classification,
    comparisons,
    gradients,
    memory,
    perception,
    pruned,
    searching,
    views,
)
from experiments.laboratory import Laboratory, best_of, decibels, means
from experiments.settings import Setting, setting
from lab import EXPERIMENTS, PROBLEMS, fingerprint
from PIL import Image

import inrcodec.assets
import inrcodec.signals
from inrcodec.cli.console import ProgressLine
from inrcodec.errors import Diverged, UsageError
from inrcodec.meta.adaptation import AdaptationConfig, batch_parameters, signal_losses
from inrcodec.meta.context import Context, gradient_norm_score
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


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "domains"])
def test_every_experiment_has_numbers_for_all_its_variants(name, laboratory):
    result = EXPERIMENTS[name](laboratory)
    assert len(result.rows) >= 2
    assert all(any(isinstance(value, float) for value in row.values()) for row in result.rows.values())
    assert all(curve for panel in result.panels for curve in panel.curves.values())
    json.dumps(result.content())


def test_experiments_agree_where_they_must(laboratory):
    found = EXPERIMENTS["search"](laboratory).rows
    for share in ("0.01", "0.05"):
        row = found[f"gamma = {share}, all points scored"]
        assert (row["of the best points, %"], row["scored, %"]) == (100, 100)
        assert found[f"gamma = {share}, random"]["of the best points, %"] < 30
        narrow, wide = (found[f"gamma = {share}, coarse to fine, breadth {breadth}"] for breadth in (1, 4))
        assert narrow["scored, %"] < wide["scored, %"] < 100
        assert narrow["of the best points, %"] < wide["of the best points, %"]
    assert all(row["pruned / full"] > 1 for row in EXPERIMENTS["norms"](laboratory).rows.values())
    rescaled = EXPERIMENTS["rescaling"](laboratory).rows
    assert rescaled["full context, exact"] != rescaled["full context, not rescaled"]
    whole = EXPERIMENTS["gamma"](laboratory).rows["gamma = 1"]
    training = TINY.training
    full = replace(training, adaptation=AdaptationConfig(4, 1.0, "full"))
    assert whole["4 steps"] == means(laboratory.curve(laboratory.learn("full", full), [4]))[4]


def test_domains_are_measured_on_other_folders(laboratory):
    others = [SAMPLES / "image", SAMPLES / "climate"]
    with pytest.raises(UsageError, match="climate has no files of image"):
        comparisons.domains(laboratory, others)
    rows = comparisons.domains(laboratory, others[:1]).rows
    assert rows["GradNCP"]["held out"] == means(laboratory.curve(laboratory.learn("", TINY.training), [4]))[4]
    assert all(row["held out"] != row[str(others[0])] for row in rows.values())


def test_videos_are_compared_with_pictures_also_where_these_are_as_large_as_each_other(data, folder, tmp_path):
    video = replace(
        TINY, modality="video", model=Siren(3, 3, width=8, depth=3), patches=PatchConfig((2, 8, 8), (0, 0, 0))
    )
    videos = load_data(SAMPLES / "video", "video")
    laboratory = Laboratory(video, videos, "samples", folder, torch.device("cpu"), ProgressLine(quiet=True))
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"{number}.png")
    result = comparisons.domains(laboratory, [tmp_path, SAMPLES / "video"])
    expected = laboratory.stills_of(
        [each for path in sorted(tmp_path.iterdir()) for each in inrcodec.signals.read(path, "image")]
    )
    found = means(laboratory.curve(laboratory.learn("", TINY.training), [4], held_out=expected))[4]
    assert result.rows["GradNCP"][str(tmp_path)] == found
    assert [panel.x for panel in result.panels][1:] == [
        f"adaptation steps, {tmp_path}",
        f"adaptation steps, {SAMPLES / 'video'}",
    ]


def test_methods_are_what_they_are_named(laboratory):
    trainings = EXPERIMENTS["methods"](laboratory).trainings
    gradncp = trainings["GradNCP"]
    assert gradncp == TINY.training
    assert trainings["ECoP"] == replace(gradncp, adaptation=AdaptationConfig(4, 0.25, "error"))
    kinds = {name: (each.method, each.adaptation.steps, each.adaptation.score) for name, each in trainings.items()}
    assert kinds == {
        "FOMAML": ("fomaml", 4, "full"),
        "FOMAML, 8 K": ("fomaml", 32, "full"),
        "Reptile": ("reptile", 4, "full"),
        "Reptile, 8 K": ("reptile", 32, "full"),
        "LITE": ("second-order", 4, "full"),
        "Learnit, equal memory": ("second-order", 1, "full"),
        "Learnit, equal K": ("second-order", 4, "full"),
        "random pruning": ("second-order", 4, "random"),
        "ECoP": ("second-order", 4, "error"),
        "GradNCP": ("second-order", 4, "grad-norm"),
    }
    assert [name for name, each in trainings.items() if each.bootstrap_steps] == ["ECoP", "GradNCP"]
    assert [name for name, each in trainings.items() if each.backward_share < 1] == ["LITE"]
    assert trainings["LITE"].backward_share == 0.25


def test_a_variant_that_diverges_has_a_row_that_says_so(laboratory, monkeypatch):
    learn = laboratory.learn

    def diverging(name, training):
        if training.method == "fomaml":
            raise Diverged("meta-training diverged at outer step 3")
        if training.method == "reptile":
            raise torch.OutOfMemoryError
        return learn(name, training)

    monkeypatch.setattr(laboratory, "learn", diverging)
    rows = EXPERIMENTS["methods"](laboratory).rows
    assert rows["FOMAML"]["4 steps"] == "diverged"
    assert rows["Reptile"]["4 steps"] == "out of memory"
    assert isinstance(rows["GradNCP"]["4 steps"], float)
    assert isinstance(rows["LITE"]["±"], float)


def test_a_table_without_its_reference_or_without_any_curve_is_still_one(laboratory, monkeypatch):
    learn = laboratory.learn

    def diverging(name, training):
        if training.adaptation.gamma == 0.25:
            raise Diverged("meta-training diverged at outer step 3")
        return learn(name, training)

    monkeypatch.setattr(laboratory, "learn", diverging)
    rows = EXPERIMENTS["gamma"](laboratory).rows
    assert rows["gamma = 0.25"]["4 steps"] == "diverged"
    assert isinstance(rows["gamma = 0.5"]["4 steps"], float)
    assert not any("±" in row for row in rows.values())
    result = EXPERIMENTS["scores"](laboratory)
    assert {row["4 steps"] for row in result.rows.values()} == {"diverged"}
    assert not result.panels


def test_a_variant_that_was_kept_in_part_is_made_again(data, folder):
    def laboratory():
        return Laboratory(TINY, data, "in part", folder, torch.device("cpu"), ProgressLine(quiet=True))

    before = set(folder.iterdir())
    first = {name: value.clone() for name, value in laboratory().learn("usual", TINY.training).theta_0.items()}
    (path,) = set(folder.iterdir()) - before
    path.write_bytes(path.read_bytes()[:100])
    again = laboratory().learn("usual", TINY.training).theta_0
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_best_of_trials_is_chosen_for_every_number_of_steps():
    one = {1: torch.tensor([1.0, 3.0]), 2: torch.tensor([5.0, 5.0])}
    other = {1: torch.tensor([2.0, 1.0]), 2: torch.tensor([9.0, 2.0])}
    best = best_of([one, other])
    assert best[1] is one[1]
    assert best[2] is other[2]


def test_a_bootstrap_target_is_plain_descent_from_where_training_ends(laboratory):
    """With a share of 1 and steps as large as those before, L more steps of the same descent."""
    training = replace(
        TINY.training,
        adaptation=AdaptationConfig(3, 1.0, "full"),
        bootstrap_step_ratio=1.0,
        bootstrap_steps=2,
    )
    learned = replace(laboratory.random(0.01), training=training)
    reached, aimed = laboratory.bootstrapped(learned)
    expected = means(laboratory.curve(learned, [3, 5], rescaling="none"))
    assert (reached, aimed) == pytest.approx((expected[3], expected[5]), abs=1e-3)


def test_points_are_drawn_in_proportion_to_their_scores():
    scores = torch.tensor([0.0, 1.0, 2.0, 5.0]).expand(2, -1)
    counts = torch.zeros(4)
    for step in range(400):
        chosen = searching.drawn_by_score(lambda points: scores.gather(1, points), 2, (4,), 1, step)
        counts += chosen.flatten().bincount(minlength=4)
    assert (counts / counts.sum()).tolist() == pytest.approx([0, 1 / 8, 2 / 8, 5 / 8], abs=0.06)


def test_a_search_takes_the_largest_patches_that_there_are(laboratory, monkeypatch, tmp_path):
    def held_out(size):
        Image.new("RGB", (size, size)).save(tmp_path / "one.png")
        signals = list(inrcodec.signals.read(tmp_path / "one.png", "image"))
        monkeypatch.setattr(laboratory, "data", replace(laboratory.data, held_out=signals))

    for size, expected in ((200, (64, 64)), (63, (48, 48)), (40, (32, 32))):
        held_out(size)
        assert searching._shape(laboratory) == expected
    held_out(20)
    with pytest.raises(UsageError, match="twice a patch"):
        searching._shape(laboratory)


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


def test_a_trained_variant_is_kept_and_read_again(data, folder, monkeypatch):
    def laboratory(changed=TINY, source="kept"):
        return Laboratory(changed, data, source, folder, torch.device("cpu"), ProgressLine(quiet=True))

    training = replace(TINY.training, learned_step_sizes="tensor")
    first = laboratory().history("usual", training)
    assert [learned.step for learned in first] == [1, 2, 3]

    def never(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(Laboratory, "_train", never)
    again = laboratory().history("usual", training)
    for old, new in zip(first, again, strict=True):
        assert old.step == new.step
        for before, after in ((old.theta_0, new.theta_0), (old.log_step_sizes, new.log_step_sizes)):
            assert before.keys() == after.keys()
            assert all(torch.equal(before[name], after[name]) for name in before)
    others = [
        (laboratory(), replace(training, seed=1)),
        (laboratory(source="other data"), training),
        (laboratory(replace(TINY, model=Siren(2, 3, width=9, depth=3))), training),
        (laboratory(replace(TINY, patches=PatchConfig((16, 8), (0, 0), normalize=False))), training),
    ]
    for other, settings in others:
        with pytest.raises(AssertionError, match="trained again"):
            other.history("another", settings)


def test_the_fingerprint_of_data_changes_with_its_files(tmp_path):
    picture = (SAMPLES / "image" / "cat.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(picture)
    first = fingerprint([tmp_path], "image")
    assert first == fingerprint([tmp_path], "image")
    (tmp_path / "b.webp").write_bytes(picture)
    second = fingerprint([tmp_path], "image")
    (tmp_path / "b.webp").rename(tmp_path / "c.webp")
    assert len({first, second, fingerprint([tmp_path], "image")}) == 3


def test_curves_are_those_of_plain_descent(laboratory):
    """Without rescaling and with one step size, a few lines of descent on the mean squared error give the same."""
    learned = laboratory.random(0.01)
    curve = means(laboratory.curve(learned, [0, 2], rescaling="none"))
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


def test_peak_memory_is_that_of_tensors_that_live_at_once():
    device = torch.device("cpu")
    mib = 1 << 18  # numbers of 4 bytes
    before = torch.ones(8 * mib)

    def one_after_another():
        for _ in range(5):
            torch.ones(16 * mib).sum()

    def at_once():
        kept = [torch.ones(16 * mib) for _ in range(4)]
        return [each.view(4, -1)[1:] for each in kept]  # views take nothing

    def many_small():
        return [torch.ones(256) for _ in range(4096)]

    def backward():
        weight = before.detach().requires_grad_()
        weight.exp().sin().sum().backward()  # both results are kept until the gradient, which is as large, is there

    for work, expected in ((one_after_another, 16), (at_once, 64), (many_small, 4), (backward, 24)):
        assert memory.peak_memory(work, device) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("shape", "piece"), [((8,), (4,)), ((4, 6), (2, 3)), ((2, 4, 4), (1, 2, 2)), ((5, 6), (2, 4))])
def test_pieces_hold_their_own_samples(shape, piece):
    values = torch.arange(math.prod(shape) * 2.0).reshape(1, -1, 2)
    grid = values.reshape(*shape, 2).numpy()
    counts = [math.ceil(size / part) for size, part in zip(shape, piece, strict=True)]
    grid = np.pad(grid, [*((0, -size % part) for size, part in zip(shape, piece, strict=True)), (0, 0)])
    found = amortized.pieces(values, shape, piece)[0].numpy()
    for token, place in enumerate(np.ndindex(*counts)):
        box = tuple(slice(i * part, (i + 1) * part) for i, part in zip(place, piece, strict=True))
        assert np.array_equal(found[token], grid[box].ravel())


def test_measuring_in_slices_changes_nothing(laboratory, monkeypatch):
    learned = laboratory.learn("usual", TINY.training)
    whole = laboratory.curve(learned, [1, 4]), laboratory.pruned_curve(learned, [1, 4])
    monkeypatch.setattr("experiments.laboratory.POINTS_AT_ONCE", 1)
    parts = laboratory.curve(learned, [1, 4]), laboratory.pruned_curve(learned, [1, 4])
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.allclose(one[mark], other[mark], atol=1e-3) for mark in (1, 4))
        assert len(one[4]) == TINY.held_out


def test_what_diverged_counts_as_an_error_of_one():
    assert decibels(torch.tensor([0.01, math.nan, math.inf, 1e9])).tolist() == pytest.approx([20, 0, 0, 0])


def test_interpolation_between_points_of_a_curve():
    curve = {1.0: 10.0, 3.0: 20.0, 7.0: 0.0}
    assert [comparisons.interpolated(curve, at) for at in (0, 1, 2, 4, 9)] == [10, 10, 15, 15, 0]


@pytest.mark.parametrize("kind", [amortized.TransINR, amortized.InstancePatternComposers])
def test_predicted_weights_make_a_field_and_learn(kind):
    torch.manual_seed(0)
    model = Siren(2, 3, width=16, depth=3)
    network = kind(model, amortized.Size(16, 1, tokens=4, groups=8, rank=16, step_size=1e-3), (8, 8), seed=0)
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
    theta, swapped = network(values), network(values.flip(0))
    predicted = [name for name, value in theta.items() if not torch.equal(value[0], value[1])]
    assert predicted
    assert all(torch.allclose(theta[name], swapped[name].flip(0), atol=1e-5) for name in theta)


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


BENCH = pruned.Bench(TINY.training, "small", torch.device("cpu"), ProgressLine(quiet=True))


def test_pruned_meta_learning_learns_to_tell_new_classes_apart():
    problem = digits()
    training = replace(
        TINY.training, inner_step_size=0.1, outer_step_size=1e-2, outer_steps=40, schedule="cosine", batch=4
    )
    theta_0 = pruned.meta_learn("digits", problem, training, BENCH)
    context, queries = problem.new_tasks(10, torch.Generator().manual_seed(1))
    curve = means(pruned.adapted_curve(problem, theta_0, training, context, queries, (0, 4)))
    start = problem.initialize(torch.Generator().manual_seed(training.seed))
    untrained = means(pruned.adapted_curve(problem, start, training, context, queries, (0, 4)))
    assert curve[4] > curve[0] + 10
    assert curve[4] > untrained[4] + 5


class Points(Context):
    """A context as examples of a problem."""

    points = property(lambda self: self.values.shape[1])

    def __len__(self):
        return len(self.values)

    def to(self, device):
        return self

    def select(self, points):
        chosen = Context(self.coordinates, self.values).select(points)
        return Points(chosen.coordinates, chosen.values)


class FieldProblem(pruned.Problem):
    """Fields as a problem whose targets are the context."""

    def __init__(self, laboratory):
        self.laboratory = laboratory
        self.drawn = 0

    def initialize(self, generator):
        return TINY.model.initialize(generator)

    def tasks(self, count, generator):
        context = self.laboratory.batch(self.drawn)
        self.drawn += 1
        return (Points(context.coordinates, context.values),) * 2

    def losses(self, theta, examples):
        return signal_losses(TINY.model, theta, examples)

    def scores(self, theta, examples, score):
        return gradient_norm_score(TINY.model, theta, examples).detach()

    def measure(self, theta, targets):
        return decibels(self.losses(theta, targets))


@pytest.mark.parametrize("bootstrap_steps", [0, 2])
def test_the_method_for_other_problems_is_that_for_fields(laboratory, bootstrap_steps):
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


def test_divergence_stops_a_meta_training():
    training = replace(TINY.training, inner_step_size=1e30, bootstrap_steps=0)
    with pytest.raises(Diverged, match="far: meta-training diverged"):
        pruned.meta_learn("far", digits(), training, BENCH)


def test_unseen_views_and_digits_are_compared(monkeypatch):
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


def test_similarity_is_one_for_the_same_and_less_for_another():
    pictures = perception.planes(torch.rand((2, 256, 3)), (16, 16))
    assert pictures.shape == (2, 16, 16, 3)
    assert perception.similarity(pictures, pictures) == pytest.approx(1.0)
    assert perception.similarity(1 - pictures, pictures) < 0.5
    shapes = ((16, 16), (4, 16, 16), (256,), (16, 8))
    assert [perception.are_pictures(shape) for shape in shapes] == [True, True, False, False]


def test_settings_have_the_papers_fields_and_small_ones():
    papers, small = setting("video", "siren", "paper"), setting("video", "siren", "small")
    assert (papers.model.width, papers.model.depth) == (256, 7)
    assert papers.training.outer_steps == 150_000
    assert papers.training.bootstrap_weight == 100
    assert small.model.width < 64
    assert small.changed(outer_steps=7).training.outer_steps == 7


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
    for options, message in (
        (["norms", "--outer-steps", "0"], "give 1 or more"),
        (["norms", "--seed", "-1"], "give 0 or more"),
        (["norms", "--inner-step-size", "nan"], "give a positive number"),
        (["many_shot", "--field", "ffn"], "--field means nothing"),
    ):
        refused = subprocess.run([*command[:2], *options], capture_output=True, text=True)
        assert refused.returncode == 2
        assert message in refused.stderr
