"""What the rivals of the benchmarks are not given."""

import numpy as np
import pytest
from noisy import noisy_pair
from rivals import missing_encoder, rivals_of

from inrcodec.signals import Axis, Signal


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 62)])
def test_x265_is_not_given_videos_smaller_than_its_coding_tree_units(height: int, width: int) -> None:
    def video(height: int, width: int) -> Signal:
        values, _ = noisy_pair(np.uint8, (2, height, width, 3))
        return Signal("video", values, tuple(Axis(size) for size in values.shape[:-1]), (0.0, 255.0))

    x265 = next(rival for rival in rivals_of("video") if rival.name == "x265")
    assert "needs 64 samples" in (x265.obstacle(video(height, width)) or "")
    whole = video(64, 64)
    assert x265.obstacle(whole) == missing_encoder(whole, codec="libx265")
