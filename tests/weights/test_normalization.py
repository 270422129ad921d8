"""Patches at unit contrast and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inrcodec.weights.normalization import MAX_EXPONENT, MIN_EXPONENT, Normalization

PATCHES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 3)),
    elements=st.floats(0, 1, width=32, allow_subnormal=False),
)


@settings(deadline=None, max_examples=150)
@given(PATCHES)
def test_round_trip(values: np.ndarray) -> None:
    normalization = Normalization.measure(values)
    shown = normalization.apply(values)
    assert shown.dtype == np.float32
    assert np.isfinite(shown).all()
    # Half a unit of float32 at the largest value shown.
    error = np.abs(normalization.invert(shown) - values).max(axis=(1, 2))
    assert (error <= normalization.scales * np.abs(shown).max(axis=(1, 2)) * 2.0**-23 + 1e-15).all()


@settings(deadline=None, max_examples=150)
@given(PATCHES)
def test_indices_are_small_integers(values: np.ndarray) -> None:
    normalization = Normalization.measure(values)
    assert normalization.exponents.shape == (len(values),)
    assert normalization.means.shape == (len(values), values.shape[-1])
    assert normalization.exponents.dtype == normalization.means.dtype == np.int64
    assert ((normalization.exponents >= MIN_EXPONENT) & (normalization.exponents <= MAX_EXPONENT)).all()
    np.testing.assert_array_equal(normalization.scales, [2.0 ** int(e) for e in normalization.exponents])


@settings(deadline=None, max_examples=100)
@given(
    contrast=st.floats(1e-6, 0.2),
    middle=st.floats(0.3, 0.7),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_patches_are_shown_at_about_a_quarter_around_the_middle(
    contrast: float, middle: float, channels: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).normal(size=(3, 200, channels))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
    shown = Normalization.measure(middle + contrast * noise).apply(middle + contrast * noise).astype(np.float64)
    # A power of two misses the quarter by half an octave at most, a sixteenth the mean by a thirty-second.
    assert (np.abs(np.log2(shown.std(axis=1) / 0.25)) <= 0.5 + 1e-3).all()
    assert (np.abs(shown.mean(axis=1) - 0.5) <= 1 / 32 + 1e-3).all()


def test_contrast_is_that_of_all_channels_and_means_are_of_each() -> None:
    values = np.zeros((1, 4, 2))
    values[0, :, 0] = [0.25, 0.75, 0.25, 0.75]
    values[0, :, 1] = 0.5 + np.array([0.25, -0.25, 0.25, -0.25]) / 2
    normalization = Normalization.measure(values)
    # Root mean variance 0.198: four of them are nearest to 2^0 in the logarithm.
    assert normalization.exponents.tolist() == [0]
    assert normalization.means.tolist() == [[8, 8]]
    np.testing.assert_allclose(normalization.apply(values), values)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 1 / 3, 0.123456789])
def test_constant_patches(value: float) -> None:
    values = np.full((2, 7, 3), value)
    normalization = Normalization.measure(values)
    shown = normalization.apply(values)
    assert (np.abs(shown - 0.5) <= 1 / 32 + 1e-6).all()
    np.testing.assert_allclose(normalization.invert(shown), values, rtol=0, atol=1e-9)
    # A field that knows nothing but the middle is right to far less than a 16-bit step.
    np.testing.assert_allclose(normalization.invert(np.full_like(shown, 0.5)), values, rtol=0, atol=2.0**-28)


def test_patches_are_normalized_by_themselves() -> None:
    values = np.random.default_rng(0).random((5, 30, 2)) * np.array([1, 0.5, 0.1, 0.01, 0])[:, None, None]
    together = Normalization.measure(values)
    for patch in range(5):
        alone = Normalization.measure(values[patch : patch + 1])
        part = together[patch : patch + 1]
        assert alone.exponents.tolist() == part.exponents.tolist()
        assert alone.means.tolist() == part.means.tolist()
        np.testing.assert_array_equal(part.apply(values[patch : patch + 1]), together.apply(values)[patch : patch + 1])


def test_none_changes_nothing() -> None:
    values = np.random.default_rng(0).random((3, 10, 2))
    none = Normalization.none(3, 2)
    np.testing.assert_array_equal(none.apply(values), values.astype(np.float32))
    np.testing.assert_array_equal(none.invert(values), values)
    np.testing.assert_array_equal(none.scales, 1)


def test_an_error_is_scaled_with_the_patch() -> None:
    values = np.random.default_rng(0).random((4, 50, 1)) * np.array([1, 0.1, 0.01, 1e-4])[:, None, None]
    normalization = Normalization.measure(values)
    shown = normalization.apply(values).astype(np.float64)
    moved = normalization.invert(shown + 0.1) - normalization.invert(shown)
    np.testing.assert_allclose(moved, 0.1 * normalization.scales[:, None, None] + 0 * values, rtol=1e-6)
