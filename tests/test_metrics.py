"""Metrics against scikit-image and against their formulas."""

import math

import numpy as np
import pytest
from noisy import image, noisy_pair
from skimage.metrics import peak_signal_noise_ratio

from inrcodec import metrics
from inrcodec.signals import Axis, Signal


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
    assert metrics.fidelity(image(zeros), image(zeros + 255)).mean_squared_error == 255**2
    assert metrics.fidelity(image(zeros + 255), image(zeros)).mean_squared_error == 255**2


def test_equal_signals() -> None:
    a = image(noisy_pair()[0])
    assert metrics.psnr(a, a) == metrics.fidelity(a, a).snr == math.inf
    assert metrics.fidelity(a, a).mean_squared_error == metrics.max_error(a, a) == 0


def sound(values: np.ndarray) -> Signal:
    return Signal("audio", values.astype(np.float32)[:, None, None], (Axis(len(values)), Axis(1, "slice")), (-1.0, 1.0))


def test_snr() -> None:
    time = np.arange(4000) / 4000
    tone = 0.5 * np.sin(2 * np.pi * 50 * time)
    noise = 0.005 * np.sin(2 * np.pi * 333 * time)
    assert metrics.fidelity(sound(tone), sound(tone + noise)).snr == pytest.approx(40, abs=1e-3)
    assert metrics.fidelity(sound(tone / 10), sound((tone + noise) / 10)).snr == pytest.approx(40, abs=1e-3)
    # The papers' convention: the peak of values in [-1, 1] is 2.
    power = np.mean(noise**2)
    assert metrics.psnr(sound(tone), sound(tone + noise)) == pytest.approx(10 * math.log10(4 / power), abs=1e-3)


def test_snr_of_silence() -> None:
    silence = sound(np.zeros(100))
    assert metrics.fidelity(silence, sound(np.full(100, 0.1))).snr == -math.inf
    assert metrics.fidelity(silence, silence).snr == math.inf


def test_max_error_has_both_signs_and_does_not_wrap() -> None:
    a = np.full((5, 5, 1), 100, np.uint8)
    for value, expected in ((0, 100), (255, 155)):
        b = a.copy()
        b[2, 3] = value
        assert metrics.max_error(image(a), image(b)) == expected
        assert metrics.max_error(image(b), image(a)) == expected


def with_hole() -> tuple[Signal, Signal, np.ndarray]:
    """Make a field with missing points, where the filler and what is decoded are far off."""
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
    assert metrics.fidelity(original, decoded).mean_squared_error == pytest.approx(error)
    assert metrics.max_error(original, decoded) == pytest.approx(np.abs(a - b).max())
    assert metrics.psnr(original, decoded) == pytest.approx(10 * math.log10(36 / error))


def test_missing_points_do_not_count_in_the_signals_power() -> None:
    original, decoded, present = with_hole()
    a, b = original.values[present].astype(np.float64), decoded.values[present].astype(np.float64)
    expected = 10 * math.log10(np.mean(a**2) / np.mean((a - b) ** 2))
    assert metrics.fidelity(original, decoded).snr == pytest.approx(expected)


def test_all_points_missing() -> None:
    original, decoded, present = with_hole()
    empty = Signal("climate", original.values, original.axes, (-3.0, 3.0), missing=np.ones_like(present))
    assert metrics.fidelity(empty, decoded).mean_squared_error == metrics.max_error(empty, decoded) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far_off(wrong: float) -> None:
    a, b = (image(np.zeros((4, 4, 1), np.float32), (0.0, 1.0)) for _ in range(2))
    b.values[2, 2] = wrong
    found = metrics.fidelity(a, b)
    assert found.max_error == math.inf and found.psnr == found.snr == -math.inf


def test_parts_add_up() -> None:
    """Compared part by part, slices with ranges of their own and missing points, it is all the same."""
    random = np.random.default_rng(3)
    values, decoded = random.normal(size=(2, 7, 5, 6, 1))
    missing = random.random((7, 5, 6)) < 0.2
    missing[2] = True
    ranges = np.stack([np.zeros(7), 1 + random.random(7)], 1)
    axes = (Axis(7, "slice"), Axis(5), Axis(6))
    one, other = (
        Signal("climate", each, axes, (0.0, 2.0), missing=missing, slice_ranges=ranges) for each in (values, decoded)
    )
    whole, parts = metrics.fidelity(one, other), metrics.Fidelity(one)
    for begin, end in ((0, 1), (1, 5), (5, 7)):
        parts.add(one.part(begin, end), other.part(begin, end))
    np.testing.assert_array_equal(whole.slice_errors, parts.slice_errors)
    assert whole.max_error == parts.max_error == np.abs(values - decoded)[~missing].max()
    for name in ("psnr", "snr", "mean_squared_error"):
        assert getattr(whole, name) == pytest.approx(getattr(parts, name))
    spans = np.where(missing, np.nan, (values - decoded)[..., 0] / ranges[:, 1, None, None])
    expected = np.nan_to_num(np.nanmean(np.delete(spans, 2, 0) ** 2, (1, 2)))
    np.testing.assert_allclose(np.delete(whole.slice_errors, 2) ** 2, expected)
    assert whole.slice_errors[2] == 0


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.fidelity, metrics.max_error])
@pytest.mark.parametrize("shape", [(20, 20, 3), (20, 21, 1), (1, 20, 20, 3)])
def test_signals_of_different_grids(metric: object, shape: tuple[int, ...]) -> None:
    a, b = image(np.zeros((20, 20, 1), np.uint8)), image(np.ones(shape, np.uint8))
    with pytest.raises(ValueError, match="differ"):
        metric(a, b)  # type: ignore[operator]
