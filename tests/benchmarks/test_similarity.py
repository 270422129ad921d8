"""Structural similarity against its published formula and against scikit-image's."""

from pathlib import Path

import numpy as np
import pytest
import similarity
from noisy import image, noisy_pair
from skimage.metrics import structural_similarity

from inrcodec.signals import read
from inrcodec.signals.signal import Axis, Signal

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"


def test_equal_signals() -> None:
    a = image(noisy_pair()[0])
    assert similarity.ssim(a, a) == pytest.approx(1)


def window_ssim(a: np.ndarray, b: np.ndarray, span: float) -> float:
    """Compute the SSIM of Wang et al. 2004 for one channel, window by window where it fits."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    scores = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (plane[row : row + 11, column : column + 11].astype(np.float64) for plane in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            scores.append(luminance * (2 * covariance + c2) / (var_x + var_y + c2))
    return float(np.mean(scores))


def test_ssim_is_the_published_formula() -> None:
    a, b = noisy_pair(shape=(20, 24, 3))
    expected = np.mean([window_ssim(a[..., c], b[..., c], 255) for c in range(3)])
    assert similarity.ssim(image(a), image(b)) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_a_real_image() -> None:
    original = read(SAMPLES / "image" / "sign.webp")[0]
    coarse = (original.values // 16 * 16).astype(np.uint8)
    expected = structural_similarity(
        original.values,
        coarse,
        channel_axis=-1,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert similarity.ssim(original, image(coarse)) == pytest.approx(expected)
    assert 0.5 < expected < 0.999


def test_ssim_of_frames_is_their_mean() -> None:
    a, b = noisy_pair(shape=(3, 16, 20, 3))
    single = [similarity.ssim(image(x), image(y)) for x, y in zip(a, b, strict=True)]
    assert similarity.ssim(image(a), image(b)) == pytest.approx(np.mean(single))


def test_ssim_of_floats_is_against_the_value_range() -> None:
    a, b = noisy_pair(shape=(20, 24, 1))
    scaled = similarity.ssim(
        image(a.astype(np.float32) * 3 - 90, (-90.0, 675.0)),
        image(b.astype(np.float32) * 3 - 90, (-90.0, 675.0)),
    )
    # Luminance is not invariant to the shift, so the oracle gets the same numbers.
    assert scaled == pytest.approx(window_ssim(a[..., 0] * 3.0 - 90, b[..., 0] * 3.0 - 90, 765), abs=1e-5)


@pytest.mark.parametrize("shape", [(10, 40, 3), (40, 10, 1), (50, 1)])
def test_ssim_needs_room_for_its_window(shape: tuple[int, ...]) -> None:
    a = image(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="at least 11"):
        similarity.ssim(a, a)


@pytest.mark.parametrize("shape", [(20, 20, 3), (20, 21, 1), (1, 20, 20, 3)])
def test_signals_of_different_grids(shape: tuple[int, ...]) -> None:
    a, b = image(np.zeros((20, 20, 1), np.uint8)), image(np.ones(shape, np.uint8))
    with pytest.raises(ValueError, match="differ"):
        similarity.ssim(a, b)


def test_a_grid_fits_where_its_last_two_axes_have_room_for_the_window() -> None:
    shapes = ((16, 16), (4, 16, 16), (256,), (16, 8))
    assert [similarity.fits(shape) for shape in shapes] == [True, True, False, False]


def test_ssim_of_16_bits_is_told_against_the_range_of_the_data() -> None:
    depth = np.random.default_rng(0).integers(500, 4001, (20, 30, 1)).astype(np.uint16)
    coarse = depth + 100
    axes = (Axis(20), Axis(30))
    original, decoded = (Signal("image", values, axes, (500.0, 4000.0)) for values in (depth, coarse))
    assert similarity.ssim(original, decoded) == pytest.approx(
        structural_similarity(
            depth[..., 0].astype(np.float64),
            coarse[..., 0].astype(np.float64),
            data_range=3500,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
