"""Grids of other resolutions, and how finer ones are reduced to them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from inrcodec.resolution import Regrid, Resolution
from inrcodec.signals.signal import Axis


@settings(deadline=None, max_examples=100)
@given(
    factor=st.integers(2, 5),
    count=st.integers(1, 90),
    sizes=st.lists(st.integers(1, 60), min_size=1),
    seed=st.integers(0, 99),
)
def test_sound_is_filtered_as_a_whole(factor: int, count: int, sizes: list[int], seed: int) -> None:
    """However it comes in blocks."""
    stored = Axis(count * factor, "start", rate=8000 * factor), Axis(2, "slice")
    grid = Regrid(stored, Resolution(sample_rate=8000).apply(stored))
    assert grid.axes[0].size == count and grid.rows_together == factor
    values = np.random.default_rng(seed).normal(size=(count * factor, 2, 1)).astype(np.float32)

    def blocks():
        place = 0
        while place < len(values):
            rows = sizes[place % len(sizes)] * factor
            yield values[place : place + rows]
            place += rows

    found = np.concatenate(list(grid.decimated(blocks())))
    np.testing.assert_array_equal(found, resample_poly(values, 1, factor, axis=0, padtype="edge").astype(np.float32))


def test_cells_become_their_mean() -> None:
    stored = Axis(6), Axis(8)
    grid = Regrid(stored, Resolution(size=(3, 2)).apply(stored))
    values = np.arange(48, dtype=np.float32).reshape(6, 8, 1)
    found = np.concatenate(list(grid.decimated(iter([values[:2], values[2:]]))))
    np.testing.assert_allclose(found, values.reshape(3, 2, 2, 4, 1).mean((1, 3)))
