"""The presets of meta-training."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from inrcodec.errors import UsageError
from inrcodec.initialization import check_adaptation
from inrcodec.meta.config import ADAPTATION_OPTIONS, TRAINING_OPTIONS, changed
from inrcodec.meta.presets import configured, preset
from inrcodec.models import FIELDS
from inrcodec.patches import PatchConfig
from inrcodec.registry import default_initialization
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import read


@pytest.mark.parametrize("scale", ["codec", "paper"])
@pytest.mark.parametrize(
    ("modality", "field"),
    [(modality, field) for modality in ("image", "video", "audio", "climate") for field in ("siren", "ffn")]
    + [("image", "pyramid"), ("video", "nerv"), ("video", "clip"), ("audio", "spectrum"), ("climate", "series")],
)
def test_presets_are_consistent(modality: str, field: str, scale: str) -> None:
    chosen = preset(modality, field, scale)
    assert chosen.field.name == field
    assert chosen.field.in_features == chosen.patches.dimensions
    assert chosen.modality == modality
    settings = {name: getattr(chosen.training, name) for name in TRAINING_OPTIONS}
    settings |= {name: getattr(chosen.training.adaptation, name.removeprefix("inner_")) for name in ADAPTATION_OPTIONS}
    assert changed(chosen.training, settings) == chosen.training
    check_adaptation(chosen.field, chosen.training.adaptation)
    for patches in (chosen.patches, chosen.training_patches):
        assert len(patches.shape) == len(chosen.patches.shape)
        assert PatchConfig(**json.loads(json.dumps(asdict(patches)))) == patches


def test_presets_that_do_not_exist() -> None:
    for modality, field in (("image", "nerv"), ("smell", "siren"), ("image", "mlp")):
        with pytest.raises(UsageError):
            preset(modality, field)


def test_a_name_that_does_not_exist_is_refused_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    words = r"^no modality is called 'smell': choose from image, video, audio, climate$"
    for ask in (
        lambda: preset("smell"),
        lambda: default_initialization("smell"),
        lambda: read(tmp_path / "a", "smell"),
    ):
        with pytest.raises(UsageError, match=words):
            ask()
    for scale in ("codec", "paper"):
        with pytest.raises(UsageError, match=f"^no field is called 'mlp': choose from {', '.join(FIELDS)}$"):
            preset("image", "mlp", scale)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch", 2.5, "--batch is 2.5, give a whole number from 1"),
        ("batch", True, "--batch is True, give a whole number from 1"),
        ("batch", "4", "--batch is '4', give a whole number from 1"),
        ("batch", 0, "--batch is 0, give a whole number from 1"),
        ("seed", 2**53, "--seed is 9007199254740992, give a whole number from 0 to 9007199254740991"),
        ("inner_steps", 1.0, "--inner-steps is 1.0, give a whole number from 1 to 65536"),
        ("clip", False, "--clip is False, give a number above 0"),
        ("clip", "1", "--clip is '1', give a number above 0"),
        ("clip", float("nan"), "--clip is nan, give a number above 0"),
        ("clip", float("inf"), "--clip is inf, give a number above 0"),
        ("second_order", 1.5, "--second-order is 1.5, give a number from 0 to 1"),
    ],
)
def test_settings_out_of_their_type_or_range(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        changed(preset("image").training, {name: value})


def test_whole_numbers_are_numbers_however_large() -> None:
    assert changed(preset("image").training, {"clip": 1, "outer_steps": 10**400}).outer_steps == 10**400


@pytest.mark.parametrize(("modality", "field"), [("image", "pyramid"), ("video", "clip"), ("audio", "spectrum")])
def test_latents_refuse_what_means_nothing_for_them(modality: str, field: str) -> None:
    for second_order in ({}, {"second_order": 1.0}):
        for name, value in (("gamma", 0.5), ("score", "error"), ("inner_step_size", 1e-2), ("method", "fomaml")):
            words = f"^the field '{field}' has no --{name.replace('_', '-')}: leave it out$"
            with pytest.raises(UsageError, match=words):
                configured(modality, field, "codec", second_order | {name: value})
    for name, value in (("inner_steps", 3), ("step_sizes", "tensor"), ("bootstrap_steps", 2), ("step_size_rate", 0.1)):
        words = f"^latents learn nothing from --{name.replace('_', '-')} without --second-order: give a share$"
        for first_order in ({}, {"second_order": 0.0}):
            with pytest.raises(UsageError, match=words):
                configured(modality, field, "codec", first_order | {name: value})


def test_through_their_adaptation_latents_learn_step_sizes_unless_told_otherwise() -> None:
    usual = preset("image", "pyramid").training
    assert (usual.adaptation, usual.step_sizes) == (AdaptationConfig.unpruned(1), "none")
    assert configured("image", "pyramid", "codec", {}).training == usual
    through = configured("image", "pyramid", "codec", {"second_order": 1.0}).training
    assert (through.adaptation, through.step_sizes) == (AdaptationConfig.unpruned(8), "tensor-step")
    told = {"second_order": 0.1, "inner_steps": 2, "step_sizes": "none"}
    told_otherwise = configured("image", "pyramid", "codec", told).training
    assert (told_otherwise.adaptation, told_otherwise.step_sizes) == (AdaptationConfig.unpruned(2), "none")
