"""The latent spectrum: its transform against the definition of the MDCT, and asked at times between the samples."""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.models import FIELDS, LatentSpectrum
from inrcodec.models.latent import Grid, following, quantization_step
from inrcodec.models.order import Place
from inrcodec.models.spectrum import COSINE_UNIT, _integer_cosines
from inrcodec.priors import LatentPrior


def grid_of(samples: int) -> Grid:
    return Grid.open((samples,))


def plane_of(field: LatentSpectrum, latents: list[Tensor], samples: int) -> Tensor:
    """Return the coefficients [B, C, frames, frequencies] of latents."""
    return field.decode({}, latents[0], grid_of(samples), 0, following(latents[1:]))


def decoded(field: LatentSpectrum, latents: list[Tensor], samples: int, step_index: int = 0) -> Tensor:
    return field.values(plane_of(field, latents, samples), grid_of(samples), step_index)


def coefficient(samples: np.ndarray, hop: int, frame: int, frequency: int) -> float:
    """Evaluate the definition, sample by sample; frame n covers samples (n - 1) N to (n + 1) N."""
    total = 0.0
    for t in range(2 * hop):
        place = (frame - 1) * hop + t
        if 0 <= place < len(samples):
            window = math.sin(math.pi / (2 * hop) * (t + 0.5))
            total += samples[place] * window * math.cos(math.pi / hop * (t + 0.5 + hop / 2) * (frequency + 0.5))
    return total * math.sqrt(2 / hop)


def test_coefficients_are_those_of_the_definition() -> None:
    field = LatentSpectrum(1, 1, (1, 1), hop=6)
    values = torch.rand(1, 1, 21, generator=torch.Generator().manual_seed(0))
    plane = plane_of(field, field.analyse(values, grid_of(21)), 21)
    samples = values[0, 0].double().numpy() - 0.5
    defined = [[coefficient(samples, 6, frame, k) for k in range(6)] for frame in range(5)]
    np.testing.assert_allclose(plane[0, 0].numpy(), defined, atol=1e-6)


def test_levels_are_every_other_place_of_the_plane() -> None:
    field = LatentSpectrum(1, 1, (1, 2), hop=4)
    plane = torch.arange(1.0, 13.0).reshape(3, 4)  # three frames of four frequencies
    fine = torch.tensor([[[2.0, 4], [10, 12]], [[5, 7], [0, 0]], [[6, 8], [0, 0]]])
    coarse, means = torch.tensor([[[3.0], [11]]]), torch.tensor([[[1.0], [9]]])
    passes = field.order.split([fine[None], coarse[None]])
    assert torch.equal(plane_of(field, [means[None], *passes], 8)[0, 0], plane)
    assert field.means_shape(grid_of(8)) == (1, 2, 1)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 300),
    st.sampled_from([3, 16, 32]),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.integers(1, 2),
)
def test_latents_reproduce_values_with_the_same_energy(
    samples: int, hop: int, levels: tuple[int, int], channels: int
) -> None:
    field = LatentSpectrum(1, channels, levels, hop=hop)
    values = torch.rand(3, channels, samples, generator=torch.Generator().manual_seed(samples))
    latents = field.analyse(values, grid_of(samples))
    assert [tuple(each.shape[1:]) for each in latents] == [
        field.means_shape(grid_of(samples)),
        *((place.channels, *place.shape) for place in field.places(grid_of(samples))),
    ]
    torch.testing.assert_close(decoded(field, latents, samples), values, atol=2e-6, rtol=0)
    energy = sum(each.square().sum() for each in latents)
    if samples < hop:  # what goes on beyond a short signal has energy too
        assert (values - 0.5).square().sum() <= energy * (1 + 1e-5)
    else:
        torch.testing.assert_close(energy, (values - 0.5).square().sum(), atol=1e-5, rtol=1e-5)


def test_a_signal_shorter_than_a_hop_has_few_latents() -> None:
    """Continued by zeros, one sample would be spread over all frequencies, each below what is coded."""
    field = LatentSpectrum(1, 1, (4, 6))
    latents = field.analyse(torch.full((1, 1, 1), 0.75), grid_of(1))
    largest = max(float(each.abs().max()) for each in latents if each.numel())
    assert largest**2 > sum(float(each.square().sum()) for each in latents) / 4


def test_the_quantization_step_scales_the_latents() -> None:
    field = LatentSpectrum(1, 1, (1, 1), hop=8)
    latents = field.analyse(torch.rand(1, 1, 20, generator=torch.Generator().manual_seed(0)), grid_of(20))
    once, four_times = (decoded(field, latents, 20, index) - 0.5 for index in (0, 16))
    torch.testing.assert_close(four_times, 4 * once, atol=1e-6, rtol=0)


def test_predictions_are_zero() -> None:
    field = LatentSpectrum(1, 2, (2, 3), hop=16)
    places = iter(field.places(grid_of(100)))

    def choose(place: Place, prediction: Tensor) -> Tensor:
        assert place == next(places) and float(prediction) == 0
        return torch.ones(1, place.channels, *place.shape)

    plane = field.decode(field.ready({}, 0), torch.ones(1, *field.means_shape(grid_of(100))), grid_of(100), 0, choose)
    assert torch.equal(plane, torch.ones(1, 2, 8, 16))
    assert next(places, None) is None


# Exact values


def true_cosines(hop: int) -> np.ndarray:
    """Return cos(pi m / (4 hop)) for all m below 8 hop, [2, 8 hop]: float64, and what that misses."""
    mpmath.mp.dps = 40
    quadrant = [mpmath.cos(mpmath.pi * m / (4 * hop)) for m in range(2 * hop + 1)]
    near = np.array([float(value) for value in quadrant])
    rest = np.array([float(value - mpmath.mpf(float(value))) for value in quadrant])
    halves = []
    for part in (near, rest):
        half = np.concatenate([part, -part[-2::-1]])
        halves.append(np.concatenate([half, half[-2:0:-1]]))
    return np.stack(halves)


def product(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiply pairs of float64, [2, ...]: the product and what it misses (Dekker 1971)."""

    def halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        high = values * 134217729.0
        high = high - (high - values)
        return high, values - high

    total = one[0] * other[0]
    (a, b), (c, d) = halves(one[0]), halves(other[0])
    missing = ((a * c - total) + a * d + b * c) + b * d
    return total, missing + one[0] * other[1] + one[1] * other[0]


@pytest.mark.parametrize("hop", [256, 512, 1024, 2048])
def test_integer_cosines_are_the_same_everywhere(hop: int) -> None:
    """They are the true ones, rounded, and none is so near to a tie that a library's last bits decide.

    With angles below a turn, libraries are off by some 1e-8 of a unit.
    """
    cosines, found = true_cosines(hop), _integer_cosines(hop).numpy()
    mpmath.mp.dps = 40
    scale = mpmath.sqrt(mpmath.mpf(2) / hop) * COSINE_UNIT
    unit = np.array([float(scale), float(scale - mpmath.mpf(float(scale)))])
    times, frequencies = np.arange(2 * hop), np.arange(hop)
    assert found.shape == (2 * hop, hop)
    windows = np.stack(product(cosines[:, (2 * times + 1 - 2 * hop) % (8 * hop)], unit[:, None]))
    margin = 1.0
    for start in range(0, 2 * hop, 128):
        some = times[start : start + 128]
        angles = np.outer(2 * some + hop + 1, 2 * frequencies + 1) % (8 * hop)
        total, missing = product(cosines[:, angles], windows[:, some, None])
        whole = np.floor(total)
        fraction = (total - whole) + missing
        assert np.array_equal(found[some], whole + (fraction > 0.5))
        margin = min(margin, float(np.abs(fraction - 0.5).min()))
    assert margin > 1e-7


def test_values_at_the_samples_are_exact_sums() -> None:
    """In Python's integers, whatever the order; then three operations round."""
    field, samples, step_index = LatentSpectrum(1, 1, (1, 1), hop=256), 700, -37
    random = np.random.default_rng(0)
    plane = np.rint(random.standard_normal((4, 256)) ** 5 * 100).astype(np.int64)
    found = field.values(torch.from_numpy(plane).float()[None, None], grid_of(samples), step_index)
    cosines = _integer_cosines(256).numpy().astype(np.int64)
    expected = []
    for sample in range(samples):
        block, time = divmod(sample, 256)
        total = sum(int(c) * int(x) for c, x in zip(cosines[256 + time], plane[block], strict=True))
        total += sum(int(c) * int(x) for c, x in zip(cosines[time], plane[block + 1], strict=True))
        assert abs(total) < 2**53
        expected.append(np.float32(total * (quantization_step(step_index) / COSINE_UNIT)) + np.float32(0.5))
    assert np.array_equal(found[0, 0].numpy(), np.array(expected))


# Between the samples


@pytest.mark.parametrize("rate", [160 / 441, 1 / 3, 2.0])
def test_tones_can_be_asked_between_the_samples(rate: float) -> None:
    def tones(times: np.ndarray) -> np.ndarray:
        return 0.5 + 0.3 * np.sin(0.3 * times) + 0.1 * np.cos(1.1 * times)

    field, samples = LatentSpectrum(1, 1, (2, 3), hop=256), 4000
    values = torch.from_numpy(tones(np.arange(samples)).astype(np.float32))[None, None]
    plane = plane_of(field, field.analyse(values, grid_of(samples)), samples)
    times = np.arange(100, samples - 100, rate)
    asked = field.values_at(plane, [times], grid_of(samples), 0)[0, 0].numpy()
    np.testing.assert_allclose(asked, tones(times), atol=1e-3)
    own = field.values_at(plane, [np.arange(samples, dtype=float)], grid_of(samples), 0)
    assert torch.equal(own, field.values(plane, grid_of(samples), 0))
    torch.testing.assert_close(own, values, atol=2e-6, rtol=0)


# Configurations


def test_variants_have_longer_frames() -> None:
    field = LatentSpectrum(1, 1, hop=64)
    assert [field.transform(variant).hop for variant in range(field.variants)] == [64, 128, 256, 512]
    assert list(field.candidates(torch.zeros(1, 1, 9), 0)) == [0, 1, 2, 3]


def test_configurations() -> None:
    assert FIELDS["spectrum"] is LatentSpectrum
    assert LatentSpectrum(1, 1).levels == (4, 6)
    for wrong in ({"in_features": 2}, {"levels": (3,)}, {"levels": (3, 17)}, {"hop": 0}):
        with pytest.raises(ValueError, match="spectrum"):
            LatentSpectrum(**({"in_features": 1, "out_features": 1} | wrong))


def test_an_initialization_whose_longest_frames_no_field_has_is_refused() -> None:
    field = replace(LatentSpectrum(1, 1), hop=1024)
    with pytest.raises(ValueError, match="hop = 8192"):
        LatentPrior.parsed({"entropy_model": {"hidden": 4}}, {}, field)
