"""Samples of long signals."""

import numpy as np
import pytest
from waves import tiny_image

from inrcodec import sampling
from inrcodec.patches import PatchConfig
from inrcodec.sampling import sample_of
from inrcodec.signals.signal import Axis, Signal


def test_a_short_signal_is_its_own_sample() -> None:
    picture = tiny_image(0)
    assert sample_of(picture, PatchConfig((16, 16), (2, 2))) is picture


def test_slices_evenly_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(9 * 4 * 6, dtype=np.float32).reshape(9, 4, 6, 1)
    latitudes, longitudes = np.linspace(80, -80, 4), np.arange(6) * 60.0
    axes = (Axis(9, "slice"), Axis(4, "node", points=latitudes), Axis(6, "periodic", points=longitudes))
    missing, ranges = values[..., 0] % 3 == 0, np.stack([np.arange(9.0), np.arange(9.0) + 1], 1)
    signal = Signal("climate", values, axes, (0.0, 9.0), "t", True, missing, {"file": 1}, ranges)
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 3 * 24)
    sample = sample_of(signal, PatchConfig((64, 64), (4, 4)))
    np.testing.assert_array_equal(sample.loaded().values, values[[1, 4, 7]])
    np.testing.assert_array_equal(sample.loaded().missing, missing[[1, 4, 7]])
    np.testing.assert_array_equal(sample.slice_ranges, ranges[[1, 4, 7]])
    assert sample.axes[1:] == axes[1:] and sample.sphere and not sample.attributes


def test_patches_one_below_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tiny_image(0, 64, 96)
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 3 * 16 * 24 * 3)
    sample = sample_of(picture, PatchConfig((16, 24), (0, 0))).loaded()
    assert sample.shape == (48, 24)
    rows, columns = range(0, 64, 16), range(0, 96, 24)
    boxes = [picture.values[y : y + 16, x : x + 24] for y in rows for x in columns]
    for number, part in zip((2, 8, 13), np.split(sample.values, 3), strict=True):
        np.testing.assert_array_equal(part, boxes[number])


def test_the_middle_of_a_long_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of fields is longer than what is tried; its last one may be there several times."""
    values = np.arange(10 * 4 * 6, dtype=np.float32).reshape(10, 4, 6, 1)
    axes = (Axis(10, "slice"), Axis(4, "node"), Axis(6, "node"))
    signal = Signal("climate", values, axes, (0.0, 300.0))
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 3 * 24)
    sample = sample_of(signal, PatchConfig((10, 64, 64), (0, 4, 4)))
    np.testing.assert_array_equal(sample.loaded().values, values[3:6])
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 10 * 24)
    assert sample_of(signal, PatchConfig((10, 64, 64), (0, 4, 4))) is signal


def test_a_part_of_the_globe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch of it does not go round, and has the longitudes that it has."""
    values = np.zeros((1, 4, 12, 1), np.float32)
    axes = (Axis(1, "slice"), Axis(4, "node", points=np.arange(4.0)), Axis(12, "periodic", points=np.arange(12) * 30.0))
    signal = Signal("climate", values, axes, (0.0, 1.0), sphere=True)
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 1)
    sample = sample_of(signal, PatchConfig((4, 6), (0, 2)))
    longitudes = sample.axes[2]
    assert longitudes.kind == "node" and longitudes.points is not None
    np.testing.assert_array_equal(longitudes.points, np.arange(longitudes.size) * 30.0)
