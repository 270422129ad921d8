"""`inrcodec meta-train`."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import FAST, TINY, Run, is_one_error, photo
from safetensors.numpy import load_file

from inrcodec.cli.meta_train import configure
from inrcodec.errors import UsageError


@pytest.fixture
def quick_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec.meta import evaluation, weight_trainer

    monkeypatch.setattr(weight_trainer, "PRIOR_PATCHES", 8)
    monkeypatch.setattr(evaluation, "WEIGHT_PATCHES", 2)


def test_meta_train(run: Run, folder: Path, quick_evaluation: None) -> None:
    for seed in range(3):
        photo(folder / "data" / f"{seed}.png", seed)
    (folder / "data" / "9.png").write_text("no picture")
    command = ["meta-train", *TINY, "--data", "data", "--outer-steps", "3"]
    code, out, err = run(*command, "--json")
    report = json.loads(out)
    assert code == 0
    assert "9.png" in err and "identifier" in err
    assert report["output"] == "image-siren.safetensors"
    assert list(report["unreadable"]) == [str(Path("data", "9.png"))]
    for name in (report["output"], report["card"], report["checkpoint"]):
        assert (folder / name).is_file()
    assert report["identifier"] in (folder / "image-siren.md").read_text()

    code, _, err = run(*command)
    assert code == 2 and is_one_error(err, "image-siren.safetensors", "--resume")
    code, _, err = run(*command, "--resume", "--gamma", "0.5")
    assert code == 2 and err.splitlines()[-1].startswith("inrcodec: error: ") and "gamma" in err
    assert run("encode", "data/1.png", "-o", "x.inr", "--init", "./image-siren.safetensors", *FAST)[0] == 0

    code, out, _ = run(*command, "-o", "on.safetensors", "--start", "./image-siren.safetensors", "--json")
    assert code == 0 and json.loads(out)["identifier"] != report["identifier"]
    code, _, err = run(*command, "-o", "off.safetensors", "--start", "nowhere")
    assert code == 1 and is_one_error(err, "nowhere")


def test_latents_go_on_through_their_adaptation(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With step sizes that are learned, for eight steps and six levels."""
    from inrcodec.meta import evaluation

    monkeypatch.setattr(evaluation, "LATENT_PATCHES", 1)
    monkeypatch.setattr(evaluation, "QUALITIES", (40,))
    for seed in range(2):
        photo(folder / "data" / f"{seed}.png", seed)
    command = ["meta-train", "--modality", "image", "--field", "pyramid", "--data", "data", "--patch", "32x32"]
    command += ["--batch", "1", "--outer-steps", "1", "--device", "cpu", "--quiet"]
    assert run(*command, "-o", "start.safetensors")[0] == 0
    code, _, err = run(*command, "-o", "on.safetensors", "--start", "./start.safetensors", "--second-order", "1")
    assert code == 0, err
    start, on = load_file(folder / "start.safetensors"), load_file(folder / "on.safetensors")
    assert start["step_sizes/shared"].shape == (1,)
    assert {name: value.shape for name, value in on.items() if name.startswith("step_sizes/")} == {
        f"step_sizes/{name}": (8, 6) for name in ("move", "price", "averaging")
    }
    assert "K = 8, L = 0" in (folder / "on.md").read_text()
    code, _, err = run(*command, "-o", "off.safetensors", "--second-order", "1", "--gamma", "0.5")
    assert code == 2 and is_one_error(err, "the field 'pyramid' has no --gamma: leave it out")


def test_resumed_run_is_the_uncut_run(
    run: Run, folder: Path, quick_evaluation: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inrcodec.meta import run as library
    from inrcodec.meta.weight_trainer import WeightTrainer

    for seed in range(3):
        photo(folder / "data" / f"{seed}.png", seed)
    command = ["meta-train", *TINY, "--data", "data", "--outer-steps", "5", "--quiet"]
    assert run(*command, "-o", "uncut.safetensors")[0] == 0

    def press_ctrl_c(self: WeightTrainer, *arguments: Any) -> Any:
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    step = WeightTrainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(library, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(WeightTrainer, "train_step", press_ctrl_c)
        code, _, err = run(*command, "-o", "cut.safetensors")
    assert code == 130
    assert "cut.safetensors.checkpoint stays" in err and "--resume" in err
    assert sorted(path.name for path in folder.glob("*cut*") if path.name.startswith("cut")) == [
        "cut.safetensors.checkpoint"
    ]
    code, _, err = run(*command, "-o", "cut.safetensors")
    assert code == 2 and is_one_error(err, "checkpoint", "--resume")

    assert run(*command, "-o", "cut.safetensors", "--resume")[0] == 0
    uncut, cut = load_file(folder / "uncut.safetensors"), load_file(folder / "cut.safetensors")
    assert uncut.keys() == cut.keys()
    for name, tensor in uncut.items():
        assert tensor.tobytes() == cut[name].tobytes(), name


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("gamma", 0.0),
        ("gamma", 1.5),
        ("gamma", float("nan")),
        ("inner_steps", 0),
        ("bootstrap_steps", -1),
        ("bootstrap_weight", -1.0),
        ("bootstrap_step_ratio", 0.0),
        ("inner_step_size", float("inf")),
        ("outer_step_size", 0.0),
        ("step_size_rate", -1.0),
        ("batch", 0),
        ("outer_steps", 0),
        ("clip", 0.0),
        ("seed", -1),
        ("width", 0),
        ("depth", 1),
        ("score", "best"),
        ("step_sizes", "all"),
        ("schedule", "linear"),
        ("method", "sgd"),
        ("bootstrap_context", "none"),
        ("backward_share", 0.0),
        ("backward_share", 1.5),
    ],
)
def test_training_settings_out_of_range(name: str, bad: object) -> None:
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        configure("image", "siren", "codec", {name: bad})


@pytest.mark.parametrize("bad", ["32", "2x2", "axb", "32x-32"])
def test_patches_out_of_range(bad: str) -> None:
    with pytest.raises(UsageError, match="--patch"):
        configure("image", "siren", "codec", {}, bad)


def test_training_settings() -> None:
    from inrcodec.meta.presets import preset

    assert configure("video", "nerv", "paper", {}) == preset("video", "nerv", "paper")
    changed = configure(
        "image",
        "siren",
        "codec",
        {"inner_steps": 3, "gamma": 1.0, "score": "error", "step_sizes": "scalar", "clip": 2.0, "width": 9}
        | {"seed": 5, "schedule": "constant"},
        "16x24",
    )
    assert changed.training.adaptation == type(changed.training.adaptation)(3, 1.0, "error")
    assert (changed.training.step_sizes, changed.training.clip) == ("scalar", 2.0)
    assert (changed.training.seed, changed.training.schedule) == (5, "constant")
    assert changed.patches.shape == (16, 24)
    assert changed.field == type(changed.field)(2, 3, width=9, depth=4)
    reptile = configure("image", "siren", "codec", {"method": "reptile"}).training
    assert (reptile.method, reptile.bootstrap_steps, reptile.step_sizes) == ("reptile", 0, "none")
    with pytest.raises(UsageError, match="--step-sizes"):
        configure("image", "siren", "codec", {"method": "reptile", "step_sizes": "scalar"})
    with pytest.raises(UsageError, match="--backward-share"):
        configure("image", "siren", "codec", {"method": "fomaml", "backward_share": 0.5})
    with pytest.raises(UsageError, match="--method"):
        configure("image", "pyramid", "codec", {"method": "fomaml"})
    with pytest.raises(UsageError, match="--score"):
        configure("image", "pyramid", "codec", {"second_order": 1, "score": "error"})
    with pytest.raises(UsageError, match="--width"):
        configure("video", "nerv", "codec", {"width": 8})
    with pytest.raises(UsageError, match="--preset"):
        configure("image", "siren", "poster", {})
