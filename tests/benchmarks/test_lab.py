"""The experiments of benchmarks/lab.py: each on a tiny setting, their parts against independent oracles."""

import json
import math
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import amortized, comparisons, gradients, memory, perception, searching, tables
from experiments.curves import best_of, decibels, means
from experiments.laboratory import Laboratory
from experiments.settings import setting
from lab import EXPERIMENTS, fingerprint
from PIL import Image
from tiny_lab import SAMPLES, TINY, tiny_data, tiny_laboratory

import inrcodec.signals
from inrcodec.errors import Diverged, UsageError
from inrcodec.meta.data import load_data
from inrcodec.models import Siren
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.weights.adaptation import batch_parameters, signal_losses
from inrcodec.weights.context_set import ContextSet

ROOT = Path(__file__).parents[2]

TINY_VIDEO = replace(
    TINY, modality="video", field=Siren(3, 3, width=8, depth=3), patches=PatchConfig((2, 8, 8), (0, 0, 0))
)


@pytest.fixture(scope="module")
def data():
    return tiny_data()


@pytest.fixture(scope="module")
def videos():
    return load_data(SAMPLES / "video", "video")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture
def laboratory(data, folder):
    return tiny_laboratory(data, folder)


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
        rescaled = found[f"gamma = {share}, random, rescaled"]
        assert rescaled["scored, %"] == 100
        assert rescaled["of the best points, %"] < 30
        assert rescaled["PSNR after 4 steps, dB"] != found[f"gamma = {share}, random"]["PSNR after 4 steps, dB"]
        assert all(isinstance(row["±"], float) for row in (narrow, wide, rescaled))
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


def test_videos_are_compared_with_pictures_also_where_these_are_as_large_as_each_other(videos, folder, tmp_path):
    laboratory = tiny_laboratory(videos, folder, TINY_VIDEO)
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
        "gradient-norm pruning": ("second-order", 4, "grad-norm"),
        "ECoP": ("second-order", 4, "error"),
        "GradNCP": ("second-order", 4, "grad-norm"),
    }
    assert [name for name, each in trainings.items() if each.bootstrap_steps] == ["ECoP", "GradNCP"]
    assert [name for name, each in trainings.items() if each.backward_share < 1] == ["LITE"]
    assert trainings["LITE"].backward_share == 0.25


def test_a_variant_that_diverges_has_a_row_that_says_so(laboratory, monkeypatch):
    history = laboratory.history

    def diverging(name, training):
        if training.method == "fomaml":
            raise Diverged("meta-training diverged at outer step 3")
        if training.method == "reptile":
            raise torch.OutOfMemoryError
        return history(name, training)

    monkeypatch.setattr(laboratory, "history", diverging)
    rows = EXPERIMENTS["methods"](laboratory).rows
    assert rows["FOMAML"] == {"training": "diverged"}
    assert rows["Reptile"] == {"training": "out of memory"}
    assert isinstance(rows["GradNCP"]["4 steps"], float)
    assert isinstance(rows["LITE"]["±"], float)


def test_a_table_without_its_reference_or_without_any_curve_is_still_one(laboratory, monkeypatch):
    history = laboratory.history

    def diverging(name, training):
        if training.adaptation.gamma == 0.25:
            raise Diverged("meta-training diverged at outer step 3")
        return history(name, training)

    monkeypatch.setattr(laboratory, "history", diverging)
    rows = EXPERIMENTS["gamma"](laboratory).rows
    assert rows["gamma = 0.25"] == {"training": "diverged"}
    assert isinstance(rows["gamma = 0.5"]["4 steps"], float)
    assert not any("±" in row for row in rows.values())
    result = EXPERIMENTS["scores"](laboratory)
    assert {row["training"] for row in result.rows.values()} == {"diverged"}
    assert not result.panels
    rows = EXPERIMENTS["clock"](laboratory).rows
    assert rows["GradNCP"] == {"training": "diverged"}
    assert isinstance(rows["Learnit, equal K"]["dB at the end"], float)
    rows = comparisons.domains(laboratory, [SAMPLES / "image"]).rows
    assert rows["GradNCP"] == {"training": "diverged"}
    assert isinstance(rows["Learnit, equal K"]["held out"], float)


def test_a_variant_that_was_kept_in_part_is_made_again(data, folder):
    def laboratory():
        return tiny_laboratory(data, folder, source="in part")

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
    """With a share of 1 and steps as large as those before, it is where L more steps of the same descent lead."""
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


def test_a_field_of_videos_is_asked_for_pictures_in_the_middle_of_its_time(data, videos, folder):
    laboratory = tiny_laboratory(videos, folder, TINY_VIDEO)
    context_set = laboratory.stills_of(data.held_out)
    assert context_set.values.shape == (3, 64, 3)
    assert context_set.coordinates.shape[1:] == (64, 3)
    assert (context_set.coordinates[..., 0] == 0).all()
    assert context_set.coordinates[..., 1:].abs().max() <= 1


def test_a_trained_variant_is_kept_and_read_again(data, folder, monkeypatch):
    def laboratory(changed=TINY, source="kept"):
        return tiny_laboratory(data, folder, changed, source)

    training = replace(TINY.training, step_sizes="tensor")
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
        (laboratory(replace(TINY, field=Siren(2, 3, width=9, depth=3))), training),
        (laboratory(replace(TINY, patches=PatchConfig((16, 8), (0, 0), normalize=False))), training),
    ]
    for other, settings in others:
        with pytest.raises(AssertionError, match="trained again"):
            other.history("another", settings)


def test_the_fingerprint_of_data_is_that_of_its_names_and_contents(tmp_path):
    data, moved = tmp_path / "data", tmp_path / "moved"
    data.mkdir()
    picture, other = ((SAMPLES / "image" / name).read_bytes() for name in ("cat.webp", "daisy.webp"))
    found = []
    for name, content in (("a.webp", picture), ("b.webp", picture), ("b.webp", other), ("b.webp", picture[:-1])):
        (data / name).write_bytes(content)
        found.append(fingerprint([data], "image"))
    (data / "b.webp").rename(data / "c.webp")
    found.append(fingerprint([data], "image"))
    assert len(set(found)) == len(found)
    shutil.copytree(data, moved)
    assert fingerprint([moved], "image") == found[-1]


def test_curves_are_those_of_plain_descent(laboratory):
    """Without rescaling and with one step size, a few lines of descent on the mean squared error give the same."""
    learned = laboratory.random(0.01)
    curve = means(laboratory.curve(learned, [0, 2], rescaling="none"))
    field, context_set = TINY.field, laboratory.held_out
    reached = []
    for signal in range(len(context_set.values)):
        theta = {name: value[None].clone().requires_grad_() for name, value in learned.theta_0.items()}
        one = ContextSet(context_set.coordinates[:1], context_set.values[signal : signal + 1])
        for _ in range(2):
            (loss,) = signal_losses(field, theta, one)
            slopes = torch.autograd.grad(loss, list(theta.values()))
            theta = {
                name: (value - 0.01 * slope).detach().requires_grad_()
                for (name, value), slope in zip(theta.items(), slopes, strict=True)
            }
        reached.append(-10 * math.log10(float(signal_losses(field, theta, one).detach())))
    assert curve[2] == pytest.approx(np.mean(reached), abs=1e-3)
    assert curve[2] > curve[0]


def test_norms_of_point_gradients_are_those_of_one_point_alone(laboratory):
    context_set = laboratory.held_out
    theta = batch_parameters(TINY.field, TINY.field.initialize(torch.Generator().manual_seed(0)), 3)
    found = gradients.point_gradient_norms(TINY.field, theta, context_set, 1)
    for point in (0, 17, 255):
        leaves = {name: value[1:2].clone().requires_grad_() for name, value in theta.items()}
        alone = ContextSet(context_set.coordinates[:1, point : point + 1], context_set.values[1:2, point : point + 1])
        signal_losses(TINY.field, leaves, alone).sum().backward()
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
    monkeypatch.setattr("experiments.curves.POINTS_AT_ONCE", 1)
    parts = laboratory.curve(learned, [1, 4]), laboratory.pruned_curve(learned, [1, 4])
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.allclose(one[mark], other[mark], atol=1e-3) for mark in (1, 4))
        assert len(one[4]) == TINY.held_out


@pytest.mark.parametrize("name", ["norms", "distribution"])
def test_gradients_are_those_of_all_held_out_patches(name, laboratory, monkeypatch):
    whole = EXPERIMENTS[name](laboratory).rows
    monkeypatch.setattr("experiments.curves.POINTS_AT_ONCE", 1)
    parts = EXPERIMENTS[name](laboratory).rows
    assert len(parts) == len(whole)
    for row, found in whole.items():
        assert parts[row] == pytest.approx(found, rel=1e-3)


def test_the_standard_error_is_that_of_a_mean():
    differences = torch.randn((4000, 50), generator=torch.Generator().manual_seed(0))
    found = [tables.standard_error(row) for row in differences]
    assert sum(found) / len(found) == pytest.approx(float(differences.mean(1).std()), rel=0.05)
    assert tables.standard_error(differences[0, :1]) is None


def test_what_diverged_counts_as_an_error_of_one():
    assert decibels(torch.tensor([0.01, math.nan, math.inf, 1e9])).tolist() == pytest.approx([20, 0, 0, 0])


def test_interpolation_between_points_of_a_curve():
    curve = {1.0: 10.0, 3.0: 20.0, 7.0: 0.0}
    assert [tables.interpolated(curve, at) for at in (0, 1, 2, 4, 9)] == [10, 10, 15, 15, 0]


@pytest.mark.parametrize("kind", [amortized.TransINR, amortized.InstancePatternComposers])
def test_predicted_weights_make_a_field_and_learn(kind):
    torch.manual_seed(0)
    field = Siren(2, 3, width=16, depth=3)
    network = kind(
        field, amortized.Size(16, 1, heads=4, hidden=32, tokens=4, groups=8, rank=16, step_size=1e-3), (8, 8), seed=0
    )
    values = torch.rand((2, 64, 3))
    theta = network(values)
    assert {name: tuple(value.shape[1:]) for name, value in theta.items()} == field.shapes()
    axis = torch.linspace(-1, 1, 8)
    context_set = ContextSet(torch.cartesian_prod(axis, axis)[None], values)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = signal_losses(field, network(values), context_set).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    theta, swapped = network(values), network(values.flip(0))
    predicted = [name for name, value in theta.items() if not torch.equal(value[0], value[1])]
    assert predicted
    assert all(torch.allclose(theta[name], swapped[name].flip(0), atol=1e-5) for name in theta)


def test_similarity_of_pictures_is_one_for_the_same_and_less_for_another():
    pictures = perception.planes(torch.rand((2, 256, 3)), (16, 16))
    assert pictures.shape == (2, 16, 16, 3)
    assert perception.mean_ssim(pictures, pictures) == pytest.approx(1.0)
    assert perception.mean_ssim(1 - pictures, pictures) < 0.5


def test_settings_have_the_papers_fields_and_small_ones():
    papers, small = setting("video", "siren", "paper"), setting("video", "siren", "small")
    assert (papers.field.width, papers.field.depth) == (256, 7)
    assert papers.training.outer_steps == 150_000
    assert papers.training.bootstrap_weight == 100
    assert small.field.width < 64
    climate = [setting("climate", "siren", scale) for scale in ("paper", "small")]
    assert [each.field.w0 for each in climate] == [50, 50]
    assert [each.training.inner_step_size for each in climate] == [1e-2, 3e-3]
    assert small.changed(outer_steps=7).training.outer_steps == 7
    assert [each.name for each in (papers, small)] == ["video-siren-paper", "video-siren-small"]
    with pytest.raises(UsageError, match="'pyramid' has latents"):
        setting("image", "pyramid", "small")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the program in this process, which has loaded its libraries; return exit code, standard output and error."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["lab.py", *map(str, options)])
        code = 0
        try:
            runpy.run_path(str(ROOT / "benchmarks" / "lab.py"), run_name="__main__")
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    return run


def test_the_command_writes_a_table_and_json(command, tmp_path):
    code, table, said = command("norms", "--outer-steps", 1, "--device", "cpu", "--output", tmp_path)
    assert code == 0, said
    assert "pruned / full" in table
    content = json.loads((tmp_path / "lab_norms_image-siren-small_outer_steps=1.json").read_text())
    assert len(content["rows"]) == 16
    assert content["device"] == "cpu"
    assert content["trainings"]["GradNCP"]["outer_steps"] == 1


def test_what_an_experiment_needs_is_said_in_one_line(command, tmp_path):
    code, _, said = command("domains", "--output", tmp_path)
    assert code == 1
    assert said.splitlines()[-1].startswith("error: give folders")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["norms", "--outer-steps", "0"], "give 1 or more"),
        (["norms", "--seed", "-1"], "give 0 or more"),
        (["norms", "--inner-step-size", "nan"], "give a positive number"),
        (["many_shot", "--field", "ffn"], "--field means nothing"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message, command):
    code, _, said = command(*options)
    assert code == 2
    assert message in said
