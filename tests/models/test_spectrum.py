"""The latent spectrum: its transform against the definition of the MDCT, and asked at times between the samples."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.errors import InitializationError
from inrcodec.initialization import Initialization
from inrcodec.models import FIELDS, LatentSpectrum
from inrcodec.models.latent import Grid
from inrcodec.models.layers import largest_sum
from inrcodec.registry import default_initialization

STEP_INDEX = torch.zeros(1)


def grid_of(samples: int) -> Grid:
    return Grid.open((samples,))


def decoded(field: LatentSpectrum, latents: list[Tensor], samples: int) -> Tensor:
    maps = field.maps({}, latents, grid_of(samples), STEP_INDEX)
    return field.values({}, maps, grid_of(samples), STEP_INDEX)


def coefficient(samples: np.ndarray, hop: int, frame: int, frequency: int) -> float:
    """Evaluate the definition, sample by sample; frame n covers samples (n - 1) N to (n + 1) N."""
    total = 0.0
    for t in range(2 * hop):
        place = (frame - 1) * hop + t
        if 0 <= place < len(samples):
            window = math.sin(math.pi / (2 * hop) * (t + 0.5))
            total += samples[place] * window * math.cos(math.pi / hop * (t + 0.5 + hop / 2) * (frequency + 0.5))
    return total * math.sqrt(2 / hop)


def test_coefficients_are_those_of_the_definition():
    field = LatentSpectrum(1, 1, (1, 1), hop=6)
    values = torch.rand(1, 1, 21, generator=torch.Generator().manual_seed(0))
    maps = field.maps({}, field.analyse(values, grid_of(21)), grid_of(21), STEP_INDEX)
    samples = values[0, 0].double().numpy() - 0.5
    defined = [[coefficient(samples, 6, frame, k) for k in range(6)] for frame in range(5)]
    np.testing.assert_allclose(maps[0, 0].numpy(), defined, atol=1e-6)


def test_levels_are_every_other_place_of_the_plane():
    field = LatentSpectrum(1, 1, (1, 2), hop=4)
    plane = torch.arange(1.0, 13.0).reshape(3, 4)  # three frames of four frequencies
    shapes = field.latent_shapes(grid_of(8))
    assert shapes == [(3, 2, 2), (1, 2, 1), (1, 2, 1)]
    fine = torch.tensor([[[2.0, 4], [10, 12]], [[5, 7], [0, 0]], [[6, 8], [0, 0]]])
    coarse, means = torch.tensor([[[3.0], [11]]]), torch.tensor([[[1.0], [9]]])
    found = field.maps({}, [fine[None], coarse[None], means[None]], grid_of(8), STEP_INDEX)
    assert torch.equal(found[0, 0], plane)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.sampled_from([3, 16, 32]), st.tuples(st.integers(1, 3), st.integers(1, 4)))
def test_latents_reproduce_values_with_the_same_energy(samples, hop, levels):
    field = LatentSpectrum(1, 2, levels, hop=hop)
    values = torch.rand(3, 2, samples, generator=torch.Generator().manual_seed(samples))
    latents = field.analyse(values, grid_of(samples))
    assert [tuple(level.shape[1:]) for level in latents] == field.latent_shapes(grid_of(samples))
    torch.testing.assert_close(decoded(field, latents, samples), values, atol=2e-6, rtol=0)
    energy = sum(level.square().sum() for level in latents)
    if samples < hop:  # what goes on beyond a short signal has energy too
        assert (values - 0.5).square().sum() <= energy * (1 + 1e-5)
    else:
        torch.testing.assert_close(energy, (values - 0.5).square().sum(), atol=1e-5, rtol=1e-5)


def test_a_signal_shorter_than_a_hop_has_few_latents():
    """Continued by zeros, one sample would be spread over all frequencies, each below what is coded."""
    field = LatentSpectrum(1, 1, (4, 6))
    *details, means = field.analyse(torch.full((1, 1, 1), 0.75), grid_of(1))
    largest = max(float(level.abs().max()) for level in (*details, means))
    energy = sum(float(level.square().sum()) for level in (*details, means))
    assert largest**2 > energy / 4


def test_quantization_step_scales_the_latents():
    field = LatentSpectrum(1, 1, (1, 1), hop=8)
    latents = field.analyse(torch.rand(1, 1, 20), grid_of(20))
    maps = [field.maps({}, latents, grid_of(20), torch.tensor([index])) for index in (0.0, 16.0)]
    torch.testing.assert_close(maps[1], 4 * maps[0])


@pytest.mark.parametrize("rate", [160 / 441, 1 / 3, 2.0])
def test_tones_can_be_asked_between_the_samples(rate):
    def tones(times: np.ndarray) -> np.ndarray:
        return 0.5 + 0.3 * np.sin(0.3 * times) + 0.1 * np.cos(1.1 * times)

    field, samples = LatentSpectrum(1, 1, (2, 3), hop=256), 4000
    values = torch.from_numpy(tones(np.arange(samples)).astype(np.float32))[None, None]
    maps = field.maps({}, field.analyse(values, grid_of(samples)), grid_of(samples), STEP_INDEX)
    times = np.arange(100, samples - 100, rate)
    asked = field.values_at({}, maps, [times], grid_of(samples), STEP_INDEX)[0, 0].numpy()
    np.testing.assert_allclose(asked, tones(times), atol=1e-3)
    own = field.values_at({}, maps, [np.arange(samples, dtype=float)], grid_of(samples), STEP_INDEX)
    torch.testing.assert_close(own, values, atol=2e-6, rtol=0)


def test_variants_have_longer_frames():
    field = LatentSpectrum(1, 1, hop=64)
    assert [field.transform(variant).hop for variant in range(field.variants)] == [64, 128, 256, 512]


def test_configurations():
    assert FIELDS["spectrum"] is LatentSpectrum
    assert LatentSpectrum(1, 1).levels == (4, 6)
    for wrong in ({"in_features": 2}, {"levels": (3,)}, {"levels": (3, 17)}, {"hop": 0}):
        with pytest.raises(ValueError, match="spectrum"):
            LatentSpectrum(**({"in_features": 1, "out_features": 1} | wrong))


def test_an_initialization_whose_longest_frames_no_field_has_is_refused():
    usual = default_initialization("audio")
    broken = replace(usual, field=replace(usual.field, hop=1024))
    with pytest.raises(InitializationError, match="hop = 8192"):
        Initialization.from_bytes(broken.to_bytes())


def test_an_initialization_whose_sums_may_not_be_exact_is_refused(monkeypatch):
    weight = torch.tensor([[1, -2, 3], [-4, 0, 0]], dtype=torch.int32)
    assert largest_sum(weight) == 6 << 15
    assert largest_sum(torch.full((1, 1 << 14), -(1 << 24), dtype=torch.int32)) == 1 << 53
    usual = default_initialization("audio")
    sums = max(largest_sum(weight) for weight in usual.prior.weights.values())
    monkeypatch.setattr("inrcodec.models.layers.LARGEST_SUM", sums)
    with pytest.raises(InitializationError, match="exact sums"):
        Initialization.from_bytes(usual.to_bytes())
