"""The presets of meta-training."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from inrcodec.errors import UsageError
from inrcodec.meta.config import ADAPTATION_OPTIONS, TRAINING_OPTIONS, changed
from inrcodec.meta.presets import preset
from inrcodec.models import FIELDS
from inrcodec.patches import PatchConfig
from inrcodec.registry import default_initialization
from inrcodec.signals import read


@pytest.mark.parametrize("scale", ["codec", "paper"])
@pytest.mark.parametrize(
    ("modality", "field"),
    [(modality, field) for modality in ("image", "video", "audio", "climate") for field in ("siren", "ffn")]
    + [("image", "pyramid"), ("video", "nerv"), ("video", "clip"), ("audio", "spectrum"), ("climate", "pyramid")],
)
def test_presets_are_consistent(modality: str, field: str, scale: str) -> None:
    chosen = preset(modality, field, scale)
    assert chosen.field.name == field
    assert chosen.field.in_features == chosen.patches.dimensions
    assert chosen.modality == modality
    settings = {name: getattr(chosen.training, name) for name in TRAINING_OPTIONS}
    settings |= {name: getattr(chosen.training.adaptation, name.removeprefix("inner_")) for name in ADAPTATION_OPTIONS}
    assert changed(chosen.training, settings) == chosen.training
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
