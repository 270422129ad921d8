"""What the parts of ECoP bring to latents: the program, on a tiny pyramid."""

import json
import sys
from pathlib import Path

import ablation
import pytest
import torch
from command_line import photo
from tiny_latents import CPU, evaluate_briefly, initialization_of, latent_trainer, textured_data, tiny_preset

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.model import LatentModel
from inrcodec.registry import named_initialization


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Return an initialization that was not trained."""
    path = tmp_path / "start.safetensors"
    path.write_bytes(initialization_of(latent_trainer(tiny_preset()), tiny_preset()).to_bytes())
    return path


def test_every_variant_is_trained_and_measured(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_briefly(monkeypatch)
    for seed in range(3):
        photo(tmp_path / "photos" / f"{seed}.png", seed)
    options = ["--crop", "16", "--batch", "2", "--patches", "3", "--outer-steps", "2", "--inner-steps", "2"]
    places = ["--data", tmp_path / "photos", "--start", start, "--output", tmp_path]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, places), *options, "--marks", "0", "2"])
    ablation.main()
    variants = json.loads((tmp_path / "ablation.json").read_text())["variants"]
    assert list(variants) == ["start", "first order", "learned step sizes", "second order", "bootstrap"]
    assert variants["start"]["log_objective_percent"]["0"] == 0
    assert all(each["log_objective_percent"].keys() == {"0", "2"} for each in variants.values())
    assert variants["second order"]["peak_mib"] > variants["first order"]["peak_mib"]
    assert len(variants["second order"]["step_sizes"]["move"]) == 2
    assert list(variants["first order"]["step_sizes"]) == ["shared"]
    assert len(capsys.readouterr().out.splitlines()) == 6
    (kept,) = (named_initialization(str(tmp_path / f"ablation_{name}.safetensors")) for name in ["learned_step_sizes"])
    before = Initialization.load(start)
    for name, value in kept.theta_0.items():
        torch.testing.assert_close(value, before.theta_0[name], atol=1e-6, rtol=0)


def test_objectives_are_those_of_the_encoder(start: Path) -> None:
    """At step indices from the finest to the coarsest."""
    initialization, settings = Initialization.load(start), tiny_preset()
    held_out = ablation.held_out_patches(initialization, settings, textured_data(), 5, CPU)
    assert [part.step_index for part in held_out] == [-56, -43, -30, -17, -4]
    reached = ablation.objectives(initialization, held_out, [0, 3])
    for number, part in enumerate(held_out):
        model = LatentModel.of(initialization, CPU, part.step_index, part.variant)
        for steps in (0, 3):
            found = adapt_latents(model, part.values, part.grid, steps=steps)
            assert torch.equal(reached[steps][number : number + 1], found.objective)


def test_a_field_of_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="the field of image-siren is a siren"):
        ablation.latents("image-siren")
