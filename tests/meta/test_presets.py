"""The presets of meta-training."""

import json
from dataclasses import asdict

import pytest

from inrcodec.errors import UsageError
from inrcodec.meta.config import ADAPTATION_OPTIONS, TRAINING_OPTIONS, changed
from inrcodec.meta.presets import preset
from inrcodec.patches import PatchConfig


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
