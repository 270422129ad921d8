"""Moving pictures against loops over samples, and the search for motion against motion that was put in."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.latents.motion_search import find_motion
from inrcodec.models.motion import _WEIGHTS, BLOCK, POSITIONS, PRECISION, motion_shape, moved


def random_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def texture(positions_y: np.ndarray, positions_x: np.ndarray, seed: int = 0) -> Tensor:
    """Return a sum of random waves of 10 to 100 samples, known between the samples too: [1, 3, H, W]."""
    generator = np.random.default_rng(seed)
    total = np.zeros((len(positions_y), len(positions_x)))
    for length in np.geomspace(10, 100, 24):
        angle, phase = generator.uniform(0, 2 * math.pi, 2)
        y, x = positions_y[:, None] * math.sin(angle), positions_x * math.cos(angle)
        total += np.sin((y + x) * 2 * math.pi / length + phase)
    return torch.from_numpy(0.5 + total / 24).float().expand(1, 3, -1, -1)


def shifted(shape: tuple[int, int], dy: float, dx: float, seed: int = 0) -> Tensor:
    return texture(np.arange(shape[0]) + dy, np.arange(shape[1]) + dx, seed)


def cubic(distance: Fraction) -> Fraction:
    """Evaluate Keys' kernel with a = -3/4."""
    x = abs(distance)
    if x <= 1:
        return Fraction(5, 4) * x**3 - Fraction(9, 4) * x**2 + 1
    return Fraction(-3, 4) * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else Fraction(0)


def exactly(value: Fraction) -> np.float32:
    """Return a number that float32 holds."""
    number = np.float32(float(value))
    assert Fraction(float(number)) == value
    return number


def flow_at(motion: np.ndarray, y: int, x: int) -> list[int]:
    """Return how far a sample is moved, down and across, in units of 1/32, by integer vectors [2, gh, gw]."""

    def neighbours(sample: int, count: int) -> list[tuple[int, Fraction]]:
        position = min(max(Fraction(2 * sample - 15, 32), Fraction(0)), Fraction(count - 1))
        first = min(int(position), max(count - 2, 0))
        return [(index, max(Fraction(0), 1 - abs(position - index))) for index in (first, first + 1) if index < count]

    flow = [Fraction(0), Fraction(0)]
    for row, down in neighbours(y, motion.shape[1]):
        for column, across in neighbours(x, motion.shape[2]):
            for axis in range(2):
                flow[axis] += down * across * int(motion[axis, row, column]) / 4
    return [math.floor(32 * along + Fraction(1, 2)) for along in flow]


def sample_moved(picture: np.ndarray, motion: np.ndarray, y: int, x: int) -> np.float32:
    """Return one sample of [H, W] moved by [2, gh, gw], by single operations of float32."""
    (whole_y, phase_y), (whole_x, phase_x) = (divmod(along, 32) for along in flow_at(motion, y, x))
    total = None
    for row in range(-1, 3):
        line = None
        for column in range(-1, 3):
            at = (
                min(max(y + whole_y + row, 0), picture.shape[0] - 1),
                min(max(x + whole_x + column, 0), picture.shape[1] - 1),
            )
            part = picture[at] * exactly(cubic(Fraction(phase_x, 32) - column))
            line = part if line is None else line + part
        line = line * exactly(cubic(Fraction(phase_y, 32) - row))
        total = line if total is None else total + line
    assert isinstance(total, np.float32)
    return total


def test_weights_of_interpolation_are_exact() -> None:
    for phase in range(POSITIONS):
        weights = [cubic(Fraction(phase, POSITIONS) - tap) for tap in range(-1, 3)]
        assert [Fraction(value) for value in _WEIGHTS[phase].tolist()] == weights
        assert sum(weights) == 1


def test_motion_shape() -> None:
    assert motion_shape((32, 33)) == (2, 2, 3)
    assert motion_shape((1, 16)) == (2, 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 100), st.sampled_from([60, 16000]))
def test_moved_is_cubic_convolution_along_bilinear_flow(height: int, width: int, seed: int, largest: int) -> None:
    """Not a bit differs: encoders and decoders of all machines have the same references."""
    generator = np.random.default_rng(seed)
    pictures = random_values(2, 3, height, width, seed=seed)
    motion = generator.integers(-largest, largest + 1, (2, *motion_shape((height, width))))
    result = moved(pictures, torch.from_numpy(motion).float())
    assert result.shape == pictures.shape
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    inner = zip(generator.integers(0, height, 8), generator.integers(0, width, 8), strict=True)
    for y, x in [*corners, *inner]:
        for item, channel in ((0, 0), (1, 2)):
            wanted = sample_moved(pictures[item, channel].numpy(), motion[item], int(y), int(x))
            assert float(result[item, channel, y, x]) == wanted


def test_moving_leaves_its_arguments_as_they_are() -> None:
    pictures, motion = random_values(1, 3, 20, 33), torch.full((1, *motion_shape((20, 33))), 5.0)
    moved(pictures, motion)
    assert torch.equal(pictures, random_values(1, 3, 20, 33)) and bool((motion == 5).all())
    assert torch.equal(moved(pictures, motion.double()), moved(pictures, motion))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 1), (16, 16), (100, 321)])
def test_without_motion_pictures_stay_the_same(shape: tuple[int, int]) -> None:
    pictures = random_values(2, 3, *shape)
    assert torch.equal(moved(pictures, torch.zeros(2, *motion_shape(shape))), pictures)


def test_vectors_beyond_the_picture_repeat_its_edge() -> None:
    pictures = random_values(1, 1, 20, 30)
    motion = torch.full((1, *motion_shape((20, 30))), 1e6)
    assert torch.allclose(moved(pictures, motion), pictures[:, :, -1:, -1:].expand_as(pictures))


@pytest.mark.parametrize("vector", [(4, -8), (-60, 44), (1, 2), (-7, 5), (130, -190)])
def test_translation_is_found(vector: tuple[int, int]) -> None:
    shape = (256, 272)
    reference = shifted(shape, 0, 0)
    picture = shifted(shape, *(component / PRECISION for component in vector))
    motion = find_motion(picture, reference, 2.0**-6)
    edge = 1 + max(abs(component) for component in vector) // (PRECISION * BLOCK)
    interior = motion[0, :, edge:-edge, edge:-edge]
    error = (interior - torch.tensor(vector)[:, None, None]).abs()
    assert error.max() <= 1
    assert (error == 0).float().mean() > 0.8
    crop = (..., slice(16 * edge + 8, -16 * edge - 8), slice(16 * edge + 8, -16 * edge - 8))
    assert (moved(reference, motion) - picture)[crop].abs().mean() < 0.002


def test_one_part_moves() -> None:
    reference = shifted((192, 192), 0, 0)
    picture = reference.clone()
    picture[..., 64:128, 64:128] = shifted((192, 192), 3, -5)[..., 64:128, 64:128]
    motion = find_motion(picture, reference, 2.0**-6)[0]
    assert torch.equal(motion[:, 5:7, 5:7], torch.tensor([12.0, -20])[:, None, None].expand(2, 2, 2))
    still = torch.ones(12, 12, dtype=torch.bool)
    still[3:9, 3:9] = False
    assert not motion[:, still].any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 70), (16, 16), (97, 130)])
def test_nothing_moves_where_pictures_are_the_same_or_flat(shape: tuple[int, int]) -> None:
    pictures = torch.cat([random_values(1, 3, *shape), torch.full((1, 3, *shape), 0.3)])
    references = torch.cat([pictures[:1], torch.full((1, 3, *shape), 0.6)])
    motion = find_motion(pictures, references, 2.0**-7)
    assert motion.shape == (2, *motion_shape(shape))
    assert not motion.any()


def test_noise_has_no_motion_where_bits_are_dear() -> None:
    picture, reference = (random_values(1, 3, 128, 128, seed=seed) * 0.2 for seed in (1, 2))
    assert not find_motion(picture, reference, 1.0).any()
    assert find_motion(picture, reference, 2.0**-7).any()


@settings(max_examples=10, deadline=None)
@given(st.integers(16, 80), st.integers(16, 80), st.integers(0, 100))
def test_motion_is_integers_and_helps(height: int, width: int, seed: int) -> None:
    reference = shifted((height, width), 0, 0, seed)
    picture = shifted((height, width), 1.5, -2.25, seed)
    motion = find_motion(picture, reference, 2.0**-7)
    assert motion.shape == (1, *motion_shape((height, width)))
    assert torch.equal(motion, motion.round())
    assert (moved(reference, motion) - picture).abs().mean() <= (reference - picture).abs().mean()


def test_a_batch_is_each_alone() -> None:
    shape = (90, 120)
    vectors = [(0, 0), (2.5, -3), (-9, 20.25)]
    references = torch.cat([shifted(shape, 0, 0, seed) for seed in range(3)])
    pictures = torch.cat([shifted(shape, *vector, seed) for seed, vector in enumerate(vectors)])
    scale = 2.0**-5
    together = find_motion(pictures, references, scale)
    alone = [find_motion(pictures[i : i + 1], references[i : i + 1], scale) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
