"""Shared fixtures: tiny initializations, since the published ones are too slow to make in a test."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from waves import tiny_image, tiny_sound

# The tests' problems are so tiny that threads cost more than they bring; torch, not yet imported, heeds this.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_initializations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with "tiny-image" and "tiny-audio", learned in a few outer steps; their cards are beside them."""
    from inrcodec.meta import evaluation, weight_trainer
    from inrcodec.meta.data import TrainingData
    from inrcodec.meta.presets import preset
    from inrcodec.meta.run import meta_train
    from inrcodec.patches import PatchConfig

    folder = tmp_path_factory.mktemp("initializations")
    kinds = {
        "image": (tiny_image, PatchConfig((16, 16), (2, 2))),
        "audio": (tiny_sound, PatchConfig((128,), (8,), extent=8.0)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_trainer, "PRIOR_PATCHES", 16)
        patch.setattr(evaluation, "WEIGHT_PATCHES", 4)
        for modality, (make, patches) in kinds.items():
            usual = preset(modality)
            tiny = replace(
                usual,
                field=replace(usual.field, width=8, depth=3),
                patches=patches,
                training=replace(
                    usual.training,
                    adaptation=replace(usual.training.adaptation, steps=2),
                    outer_steps=4,
                    batch=2,
                ),
            )
            data = TrainingData([make(seed) for seed in range(4)], [make(9)], 4, {})
            meta_train(tiny, data, folder / f"tiny-{modality}.safetensors", source="waves made for tests")
    return folder


@pytest.fixture
def tiny_installed(tiny_initializations: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install this folder for one test, so that `--init tiny-image` finds it."""
    from inrcodec.registry import PATH_VARIABLE

    monkeypatch.setenv(PATH_VARIABLE, str(tiny_initializations))
    return tiny_initializations
