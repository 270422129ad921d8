"""Files written by earlier versions decode to the same symbols for ever; `golden/make.py` made them."""

import json
from pathlib import Path

import numpy as np
import pytest
from symbols import symbols_digest

import inrcodec

GOLDEN = Path(__file__).parent / "golden"
NAMES = [f"v1-{modality}-{field}" for modality in ("image", "video", "audio", "climate") for field in ("siren", "ffn")]
NAMES += ["v1-image-pyramid", "v1-video-nerv", "v1-video-clip", "v1-audio-spectrum", "v1-climate-series"]
NAMES += ["v1-climate-bound", "v1-climate-slices", "v1-climate-share"]


def test_every_golden_file_is_listed_and_there():
    assert {path.stem for path in GOLDEN.glob("*.inr")} == set(NAMES)
    assert set(json.loads((GOLDEN / "symbols.json").read_text())) == {f"{name}.inr" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_symbols_are_the_same(name):
    expected = json.loads((GOLDEN / "symbols.json").read_text())
    assert symbols_digest((GOLDEN / f"{name}.inr").read_bytes()) == expected[f"{name}.inr"]


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_same_up_to_rounding(name):
    (signal,) = inrcodec.decode((GOLDEN / f"{name}.inr").read_bytes(), device="cpu")
    expected = np.load(GOLDEN / f"{name}.npy")
    assert signal.values.dtype == expected.dtype and signal.values.shape == expected.shape
    low, high = signal.value_range
    tolerance = 1 if expected.dtype.kind == "u" else 1e-4 * (high - low)
    assert np.abs(signal.values.astype(float) - expected.astype(float)).max() <= tolerance
