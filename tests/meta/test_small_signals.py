"""Signals smaller than a patch, which are learned from whole."""

import numpy as np
import pytest

from inrcodec.errors import UsageError
from inrcodec.meta.data import PatchSampler
from inrcodec.patches import PatchConfig
from inrcodec.signals.signal import Axis, Signal

CONFIG = PatchConfig((5, 12, 16), (0, 0, 0), normalize=False)


def signal_of(count: int, height: int, width: int) -> Signal:
    axes = (Axis(count, "slice"), Axis(height, "node"), Axis(width, "node"))
    values = np.random.default_rng(0).random((count, height, width, 1)).astype(np.float32)
    return Signal("climate", values, axes, (0.0, 1.0))


def test_a_batch_has_patches_of_one_shape_and_about_as_many_samples() -> None:
    sampler = PatchSampler([signal_of(9, 20, 20), signal_of(9, 6, 8), signal_of(1, 20, 20)], CONFIG, 1, 0, smaller=True)
    counts = {batch.shape: len(batch) for batch in (sampler.batch(step, 3) for step in range(40))}
    assert counts == {(5, 12, 16): 3, (5, 6, 8): 12, (1, 12, 16): 3}
    assert sampler.batch(7, 3).values.shape[1:] == (np.prod(sampler.batch(7, 3).shape), 1)


def test_they_are_left_out_unless_asked_for() -> None:
    sampler = PatchSampler([signal_of(9, 20, 20), signal_of(9, 6, 8)], CONFIG, 1, 0)
    assert {sampler.batch(step, 2).shape for step in range(20)} == {(5, 12, 16)}
    with pytest.raises(UsageError, match="none of 1 signals is as large"):
        PatchSampler([signal_of(9, 6, 8)], CONFIG, 1, 0)
