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
    """A folder with "tiny-image" and "tiny-audio", made by a few outer steps; their cards beside them."""
    from inrcodec.meta import evaluation, run
    from inrcodec.meta.presets import preset
    from inrcodec.patches import PatchConfig

    folder = tmp_path_factory.mktemp("initializations")
    kinds = {
        "image": (tiny_image, PatchConfig((16, 16), (2, 2))),
        "audio": (tiny_sound, PatchConfig((128,), (8,), extent=8.0)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "PRIOR_PATCHES", 16)
        patch.setattr(evaluation, "WEIGHT_PATCHES", 4)
        for modality, (make, patches) in kinds.items():
            usual = preset(modality)
            tiny = replace(
                usual,
                model=replace(usual.field, width=8, depth=3),
                patches=patches,
                training=replace(
                    usual.training,
                    adaptation=replace(usual.training.adaptation, steps=2),
                    outer_steps=4,
                    batch=2,
                ),
            )
            data = run.TrainingData([make(seed) for seed in range(4)], [make(9)], 4, {})
            run.meta_train(modality, tiny, data, folder / f"tiny-{modality}.safetensors", source="waves made for tests")
    return folder


@pytest.fixture
def tiny_installed(tiny_initializations: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, installed for this test: `--init tiny-image`."""
    from inrcodec.registry import PATH_VARIABLE

    monkeypatch.setenv(PATH_VARIABLE, str(tiny_initializations))
    return tiny_initializations
