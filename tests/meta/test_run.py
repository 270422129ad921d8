"""Whole runs of meta-training: checkpoints, and the files they end in."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_weights import CPU, tiny_preset

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.meta import evaluation, run, weight_trainer
from inrcodec.meta.data import PatchSampler, TrainingData
from inrcodec.meta.presets import Preset
from inrcodec.meta.run import TrainingProgress, meta_train
from inrcodec.models import FourierFeatureNetwork, Siren
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import Signal
from inrcodec.weights.adaptation import adapt
from inrcodec.weights.model import WeightModel


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_trainer, "PRIOR_PATCHES", 6)
    monkeypatch.setattr(evaluation, "WEIGHT_PATCHES", 4)
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", -1.0)


@pytest.fixture
def data(images: list[Signal]) -> TrainingData:
    return TrainingData(images[:3], images[3:4], 3, {})


class Cut:
    """End a run from outside once it has done so many steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, progress: TrainingProgress) -> None:
        if progress.step == self.after:
            raise KeyboardInterrupt


def test_a_cut_run_resumes_to_the_same_initialization(quick: None, data: TrainingData, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    whole = meta_train(tiny_preset(), data, tmp_path / "a.safetensors", source="samples", on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert all(math.isfinite(progress.psnr) and progress.bootstrap > 0 for progress in seen)

    cut = tmp_path / "b.safetensors"
    for resume, after in ((False, 3), (True, 6)):
        with pytest.raises(KeyboardInterrupt):
            meta_train(tiny_preset(), data, cut, source="samples", resume=resume, on_progress=Cut(after))
        assert not cut.exists()
    seen.clear()
    resumed = meta_train(tiny_preset(), data, cut, source="samples", resume=True, on_progress=seen.append)
    assert seen[0].step > 3
    assert all(torch.equal(whole.theta_0[name], resumed.theta_0[name]) for name in whole.theta_0)
    assert all(torch.equal(whole.log_step_sizes[name], value) for name, value in resumed.log_step_sizes.items())
    assert resumed.identifier == whole.identifier
    assert Initialization.load(cut).identifier == whole.identifier


def test_a_run_writes_what_it_returns_and_says_what_it_did(quick: None, data: TrainingData, tmp_path: Path) -> None:
    output = tmp_path / "tiny.safetensors"
    trained = meta_train(tiny_preset(), data, output, source="three samples")
    stored = Initialization.load(output)
    assert stored.identifier == trained.identifier
    assert stored.provenance == json.loads(json.dumps(trained.provenance))
    assert stored.provenance["data"] == "three samples"
    assert stored.provenance["files"] == 3
    assert stored.provenance["training"]["outer_steps"] == 8
    measured = stored.provenance["evaluation"]
    assert measured["columns"] == ["steps", "this initialization", "random initialization"]
    assert [steps for steps, *_ in measured["rows"]] == [2, 8]
    card = (tmp_path / "tiny.md").read_text()
    for fact in (trained.identifier.hex(), "three samples", "siren", "gamma = 0.5"):
        assert fact in card
    assert [tensor.shape for tensor in WeightModel.of(trained).prior.scales.values()] == [
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
    monkeypatch.setattr(weight_trainer, "PRIOR_PATCHES", 24)
    trained = meta_train(tiny_preset(), data, tmp_path / "a.safetensors", source="samples")
    model = WeightModel.of(trained)
    context_sets = PatchSampler(data.training, trained.patches, 3, seed=9).batch(0, 48).context_set(CPU)
    theta = adapt(model.field, model.theta_0, model.log_step_sizes, context_sets, model.adaptation, steps=64)
    for name in model.adapted:
        typical = (theta[name] - model.theta_0[name]).abs().mean(0).log2() * 4
        assert float((typical - model.prior.scales[name]).mean().abs()) < 4  # an octave


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
        (lambda p: replace(p, field=Siren(2, 3, width=7, depth=3)), "field.width was 6, is 7"),
        (
            lambda p: replace(p, field=FourierFeatureNetwork(2, 3, width=6, depth=3, frequencies=4)),
            "field.name was siren, is ffn",
        ),
    ],
)
def test_resuming_with_other_settings_is_refused(
    quick: None, data: TrainingData, tmp_path: Path, change: Callable[[Preset], Preset], message: str
) -> None:
    output = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        meta_train(tiny_preset(), data, output, source="samples", on_progress=Cut(3))
    with pytest.raises(UsageError, match=message):
        meta_train(change(tiny_preset()), data, output, source="samples", resume=True)


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
        meta_train(tiny_preset(), data, output, source="samples", resume=True)


def test_a_run_leaves_the_floating_point_mode_as_it_was(quick: None, data: TrainingData, tmp_path: Path) -> None:
    torch.set_flush_denormal(False)
    meta_train(tiny_preset(outer_steps=1), data, tmp_path / "a.safetensors", source="samples")
    assert float(torch.tensor([1e-40]) * 1) > 0
