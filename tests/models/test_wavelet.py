"""The wavelet transform against convolution with the CDF 9/7 filters as the literature prints them."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.models.wavelet import Level, analyse, levels_of, synthesise

# From the centre outwards; low-pass of unit gain at 0, high-pass of gain 2 at the highest frequency.
LOW = [0.602949018236360, 0.266864118442875, -0.078223266528990, -0.016864118442875, 0.026748757410810]
HIGH = [1.115087052456994, -0.591271763114250, -0.057543526228500, 0.091271763114250]


def symmetric(half: list[float], scale: float) -> np.ndarray:
    return scale * np.array([*half[:0:-1], *half])


ANALYSIS_LOW, ANALYSIS_HIGH = symmetric(LOW, math.sqrt(2)), symmetric(HIGH, 1 / math.sqrt(2))
# The synthesis filters are the others' with alternating signs.
SYNTHESIS_LOW = ANALYSIS_HIGH * (-1.0) ** np.arange(-3, 4)
SYNTHESIS_HIGH = ANALYSIS_LOW * (-1.0) ** np.arange(-4, 5)


def split(values: np.ndarray, axis: int, periodic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high band along an axis, by convolution and dropping every other sample."""
    values = np.moveaxis(values, axis, -1)
    size = values.shape[-1]
    ends = [(0, 0)] * (values.ndim - 1)
    mode = "wrap" if periodic and size % 2 == 0 else "reflect"
    if size % 2:
        values = np.pad(values, [*ends, (0, 1)], "edge")
    extended = np.pad(values, [*ends, (4, 4)], mode)
    windows = np.lib.stride_tricks.sliding_window_view(extended, 9, axis=-1)
    low = windows[..., ::2, :] @ ANALYSIS_LOW
    high = windows[..., 1::2, 1:-1] @ ANALYSIS_HIGH
    return np.moveaxis(low, -1, axis), np.moveaxis(high, -1, axis)


def convolved(values: np.ndarray, levels: tuple[Level, ...], periodic: tuple[bool, ...]) -> list[np.ndarray]:
    """Return what `analyse` should."""
    latents = []
    for level in levels:
        parts = {(): values}
        for axis in level.axes:
            halves = {band: split(part, 2 + axis, periodic[axis]) for band, part in parts.items()}
            parts = {(*band, high): half[high] for band, half in halves.items() for high in (0, 1)}
        bands = sorted(parts)  # binary order, the first axis the highest digit
        latents.append(np.stack([parts[band] for band in bands[1:]], axis=2))
        values = parts[bands[0]]
    return [*latents, values]


def random_values(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


CASES = [
    ((40,), (3,), (False,)),
    ((37,), (4,), (False,)),
    ((48,), (3,), (True,)),
    ((1,), (3,), (False,)),
    ((2,), (2,), (True,)),
    ((9, 14), (2, 2), (False, False)),
    ((13, 24), (3, 3), (False, True)),
    ((1, 11), (2, 2), (False, False)),
    ((3, 8, 6), (1, 2, 3), (False, False, True)),
]


@pytest.mark.parametrize(("shape", "splits", "periodic"), CASES)
def test_analysis_is_convolution(shape: tuple[int, ...], splits: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
    values = random_values(2, 3, *shape)
    levels = levels_of(shape, splits)
    found = analyse(values, levels, periodic)
    wanted = convolved(values.numpy(), levels, periodic)
    assert len(found) == len(wanted) == max(splits) + 1
    for latents, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(latents.numpy(), other, atol=1e-9)


def test_a_single_latent_is_the_synthesis_filter() -> None:
    levels = levels_of((32,), (1,))
    for band, taps, centre in ((0, SYNTHESIS_LOW, 16), (1, SYNTHESIS_HIGH, 17)):
        halves = torch.zeros(2, 16, dtype=torch.float64)
        halves[band, 8] = 1
        (values,) = synthesise([halves[1].reshape(1, 1, 1, 16), halves[0].reshape(1, 1, 16)], levels, (False,))
        wanted = np.zeros(32)
        reach = len(taps) // 2
        wanted[centre - reach : centre + reach + 1] = taps
        np.testing.assert_allclose(values.flatten().numpy(), wanted, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_perfect_reconstruction(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, 17)) for _ in range(dimensions))
    splits = tuple(data.draw(st.integers(1, 4)) for _ in range(dimensions))
    periodic = tuple(data.draw(st.booleans()) for _ in range(dimensions))
    values = random_values(2, 2, *shape)
    levels = levels_of(shape, splits)
    latents = analyse(values, levels, periodic)
    grids = synthesise(latents, levels, periodic)
    assert [tuple(grid.shape[2:]) for grid in grids] == [level.grid for level in levels]
    torch.testing.assert_close(grids[0], values, atol=1e-11, rtol=1e-11)
    # What one level starts from is what the next finer one splits.
    if len(levels) > 1:
        coarser = analyse(grids[1], levels[1:], periodic)
        torch.testing.assert_close(coarser[-1], latents[-1], atol=1e-11, rtol=1e-11)


def test_levels_halve_the_axes_that_still_have_some() -> None:
    assert levels_of((13, 5, 1), (1, 3, 2)) == (
        Level((13, 5, 1), (7, 3, 1), (0, 1, 2)),
        Level((7, 3, 1), (7, 2, 1), (1, 2)),
        Level((7, 2, 1), (7, 1, 1), (1,)),
    )
    assert [level.bands for level in levels_of((13, 5, 1), (1, 3, 2))] == [7, 3, 1]


@pytest.mark.parametrize(("shape", "splits", "periodic"), CASES)
def test_a_constant_has_no_details(shape: tuple[int, ...], splits: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
    *details, means = analyse(torch.full((1, 1, *shape), 0.7, dtype=torch.float64), levels_of(shape, splits), periodic)
    assert all(float(detail.abs().max()) < 1e-11 for detail in details)
    torch.testing.assert_close(means, torch.full_like(means, 0.7 * 2 ** (sum(splits) / 2)))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_polynomials_have_no_details_away_from_the_ends(degree: int) -> None:
    x = torch.linspace(-1, 1, 64, dtype=torch.float64) ** degree
    details, _ = analyse(x.reshape(1, 1, -1), levels_of((64,), (1,)), (False,))
    assert float(details[0, 0, 0, 2:-2].abs().max()) < 1e-11
    assert float(details.abs().max()) > 1e-4  # where the continuation breaks the polynomial


def synthesis_matrix(shape: tuple[int, ...], splits: tuple[int, ...], periodic: tuple[bool, ...]) -> np.ndarray:
    """Return J, [samples, latents]."""
    levels = levels_of(shape, splits)
    size = math.prod(shape)
    shapes = [latents.shape[1:] for latents in analyse(torch.zeros(1, 1, *shape), levels, periodic)]
    count = sum(math.prod(each) for each in shapes)
    unit = torch.eye(count, dtype=torch.float64)
    parts = unit.split([math.prod(each) for each in shapes], dim=1)
    latents = [part.reshape(count, *each) for part, each in zip(parts, shapes, strict=True)]
    return synthesise(latents, levels, periodic)[0].reshape(count, size).T.numpy()


@pytest.mark.parametrize(
    ("shape", "splits", "periodic", "bounds"),
    [
        ((64,), (1,), (True,), (0.86, 1.16)),
        ((64,), (1,), (False,), (0.78, 1.31)),
        ((64,), (5,), (True,), (0.84, 1.26)),
        ((16, 16), (3, 3), (True, True), (0.75, 1.55)),
    ],
)
def test_the_transform_is_nearly_orthonormal(
    shape: tuple[int, ...], splits: tuple[int, ...], periodic: tuple[bool, ...], bounds: tuple[float, float]
) -> None:
    matrix = synthesis_matrix(shape, splits, periodic)
    assert matrix.shape[0] == matrix.shape[1]
    stretch = np.linalg.svd(matrix, compute_uv=False)
    assert bounds[0] < stretch.min() <= stretch.max() < bounds[1]
    # diag(J^T J), which the step size of the first gradient step takes for 1.
    assert abs(np.square(matrix).sum(0).mean() - 1) < 0.05


def test_closed_axes_have_no_beginning() -> None:
    """Shifting by the coarsest stride shifts every band by whole samples, and along the closed axis only."""
    levels = levels_of((7, 32), (3, 3))
    values = random_values(1, 2, 7, 32)
    before = analyse(values, levels, (False, True))
    after = analyse(values.roll(8, -1), levels, (False, True))
    for number, (first, second) in enumerate(zip(before, after, strict=True)):
        shift = 8 >> min(number + 1, 3)
        torch.testing.assert_close(second, first.roll(shift, -1), atol=1e-11, rtol=1e-11)
    open_ends = analyse(values.roll(8, -1), levels, (False, False))
    assert float((open_ends[0] - before[0].roll(4, -1)).abs().max()) > 1e-3


def test_a_closed_axis_of_odd_length_is_open() -> None:
    values = random_values(1, 1, 9)
    levels = levels_of((9,), (2,))
    for one, other in zip(analyse(values, levels, (True,)), analyse(values, levels, (False,)), strict=True):
        assert torch.equal(one, other)


def test_the_batch_and_the_channels_do_not_mix() -> None:
    levels = levels_of((6, 10), (2, 2))
    values = random_values(2, 3, 6, 10)
    whole = analyse(values, levels, (False, True))
    for b, c in itertools.product(range(2), range(3)):
        alone = analyse(values[b : b + 1, c : c + 1], levels, (False, True))
        for one, other in zip(alone, whole, strict=True):
            torch.testing.assert_close(one[0, 0], other[b, c])
