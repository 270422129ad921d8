"""Metrics against scikit-image and against their formulas."""

import math
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from inrcodec import metrics
from inrcodec.signals import Axis, Signal, read

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


def image(values: np.ndarray, value_range: tuple[float, float] | None = None) -> Signal:
    limits = value_range or (0.0, float(np.iinfo(values.dtype).max))
    return Signal("image", values, tuple(Axis(size) for size in values.shape[:-1]), limits)


def noisy_pair(dtype: type = np.uint8, shape: tuple[int, ...] = (30, 40, 3)) -> tuple[np.ndarray, np.ndarray]:
    random, limit = np.random.default_rng(0), int(np.iinfo(dtype).max)
    smooth = np.cumsum(random.normal(size=shape), axis=1)
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * limit
    noise = random.normal(scale=limit / 40, size=shape)
    return smooth.astype(dtype), (smooth + noise).round().clip(0, limit).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_psnr_of_integers(dtype: type) -> None:
    a, b = noisy_pair(dtype)
    expected = peak_signal_noise_ratio(a, b, data_range=int(np.iinfo(dtype).max))
    assert metrics.psnr(image(a), image(b)) == pytest.approx(expected)
    assert metrics.psnr(image(b), image(a)) == pytest.approx(expected)


def test_psnr_of_floats_is_against_the_value_range() -> None:
    a, b = (array.astype(np.float32) / 4 - 30 for array in noisy_pair())
    expected = peak_signal_noise_ratio(a, b, data_range=50)
    assert metrics.psnr(image(a, (-40.0, 10.0)), image(b, (-1.0, 1.0))) == pytest.approx(expected)


def test_psnr_of_known_values() -> None:
    zeros = np.zeros((4, 4, 1), np.uint8)
    assert metrics.psnr(image(zeros), image(zeros + 255)) == pytest.approx(0)
    assert metrics.psnr(image(zeros), image(zeros + 1)) == pytest.approx(48.1308, abs=1e-4)
    assert metrics.mean_squared_error(image(zeros), image(zeros + 255)) == 255**2
    assert metrics.mean_squared_error(image(zeros + 255), image(zeros)) == 255**2


def test_equal_signals() -> None:
    a = image(noisy_pair()[0])
    assert metrics.psnr(a, a) == metrics.snr(a, a) == math.inf
    assert metrics.mean_squared_error(a, a) == metrics.max_error(a, a) == 0
    assert metrics.ssim(a, a) == pytest.approx(1)


def window_ssim(a: np.ndarray, b: np.ndarray, span: float) -> float:
    """Wang et al. 2004 for one channel, window by window where it fits."""
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
    assert metrics.ssim(image(a), image(b)) == pytest.approx(expected, abs=1e-6)


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
    assert metrics.ssim(original, image(coarse)) == pytest.approx(expected)
    assert 0.5 < expected < 0.999


def test_ssim_of_frames_is_their_mean() -> None:
    a, b = noisy_pair(shape=(3, 16, 20, 3))
    single = [metrics.ssim(image(x), image(y)) for x, y in zip(a, b, strict=True)]
    assert metrics.ssim(image(a), image(b)) == pytest.approx(np.mean(single))


def test_ssim_of_floats_is_against_the_value_range() -> None:
    a, b = noisy_pair(shape=(20, 24, 1))
    scaled = metrics.ssim(
        image(a.astype(np.float32) * 3 - 90, (-90.0, 675.0)),
        image(b.astype(np.float32) * 3 - 90, (-90.0, 675.0)),
    )
    # Luminance is not invariant to the shift, so the oracle gets the same numbers.
    assert scaled == pytest.approx(window_ssim(a[..., 0] * 3.0 - 90, b[..., 0] * 3.0 - 90, 765), abs=1e-5)


@pytest.mark.parametrize("shape", [(10, 40, 3), (40, 10, 1), (50, 1)])
def test_ssim_needs_room_for_its_window(shape: tuple[int, ...]) -> None:
    a = image(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="at least 11"):
        metrics.ssim(a, a)


def sound(values: np.ndarray) -> Signal:
    return Signal("audio", values.astype(np.float32)[None, :, None], (Axis(1, "slice"), Axis(len(values))), (-1.0, 1.0))


def test_snr() -> None:
    time = np.arange(4000) / 4000
    tone = 0.5 * np.sin(2 * np.pi * 50 * time)
    noise = 0.005 * np.sin(2 * np.pi * 333 * time)
    assert metrics.snr(sound(tone), sound(tone + noise)) == pytest.approx(40, abs=1e-3)
    assert metrics.snr(sound(tone / 10), sound((tone + noise) / 10)) == pytest.approx(40, abs=1e-3)
    # The papers' convention: the peak of values in [-1, 1] is 2.
    power = np.mean(noise**2)
    assert metrics.psnr(sound(tone), sound(tone + noise)) == pytest.approx(10 * math.log10(4 / power), abs=1e-3)


def test_snr_of_silence() -> None:
    silence = sound(np.zeros(100))
    assert metrics.snr(silence, sound(np.full(100, 0.1))) == -math.inf
    assert metrics.snr(silence, silence) == math.inf


def test_max_error_has_both_signs_and_does_not_wrap() -> None:
    a = np.full((5, 5, 1), 100, np.uint8)
    for value, expected in ((0, 100), (255, 155)):
        b = a.copy()
        b[2, 3] = value
        assert metrics.max_error(image(a), image(b)) == expected
        assert metrics.max_error(image(b), image(a)) == expected


def with_hole() -> tuple[Signal, Signal, np.ndarray]:
    """A field with missing points, where the filler and what is decoded are far off."""
    random = np.random.default_rng(0)
    values = random.normal(size=(12, 15, 1)).astype(np.float32)
    decoded = values + random.normal(scale=0.1, size=values.shape).astype(np.float32)
    missing = random.random((12, 15)) < 0.3
    values[missing], decoded[missing] = 1000, -1000
    axes = (Axis(12), Axis(15))
    return (
        Signal("climate", values, axes, (-3.0, 3.0), missing=missing),
        Signal("climate", decoded, axes, (-3.0, 3.0), missing=missing),
        ~missing,
    )


def test_missing_points_do_not_count() -> None:
    original, decoded, present = with_hole()
    a, b = original.values[present].astype(np.float64), decoded.values[present].astype(np.float64)
    error = np.mean((a - b) ** 2)
    assert metrics.mean_squared_error(original, decoded) == pytest.approx(error)
    assert metrics.max_error(original, decoded) == pytest.approx(np.abs(a - b).max())
    assert metrics.psnr(original, decoded) == pytest.approx(10 * math.log10(36 / error))


def test_missing_points_do_not_count_in_the_signals_power() -> None:
    original, decoded, present = with_hole()
    a, b = original.values[present].astype(np.float64), decoded.values[present].astype(np.float64)
    expected = 10 * math.log10(np.mean(a**2) / np.mean((a - b) ** 2))
    assert metrics.snr(original, decoded) == pytest.approx(expected)


def test_all_points_missing() -> None:
    original, decoded, present = with_hole()
    empty = Signal("climate", original.values, original.axes, (-3.0, 3.0), missing=np.ones_like(present))
    assert metrics.mean_squared_error(empty, decoded) == metrics.max_error(empty, decoded) == 0


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.snr, metrics.ssim, metrics.max_error])
@pytest.mark.parametrize("shape", [(20, 20, 3), (20, 21, 1), (1, 20, 20, 3)])
def test_signals_of_different_grids(metric: object, shape: tuple[int, ...]) -> None:
    a, b = image(np.zeros((20, 20, 1), np.uint8)), image(np.ones(shape, np.uint8))
    with pytest.raises(ValueError, match="differ"):
        metric(a, b)  # type: ignore[operator]
