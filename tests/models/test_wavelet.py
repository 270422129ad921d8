"""The wavelet transform against convolution with the CDF 9/7 filters as the literature prints them.

And against lifting in NumPy, bit by bit: decoders on all machines must give the same numbers.
"""

import itertools
import math

import lifting
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.models.wavelet import Level, analyse, join, levels_of, whole

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


def interleaved(bands: list[np.ndarray], axes: tuple[int, ...]) -> np.ndarray:
    """Put bands [B, C, *half], low ones first, at even and odd places along each axis."""
    for axis in reversed(axes):
        shape = [size * (2 if number == axis + 2 else 1) for number, size in enumerate(bands[0].shape)]
        pairs = zip(bands[::2], bands[1::2], strict=True)
        bands = [np.stack(pair, axis + 3).reshape(shape) for pair in pairs]
    return bands[0]


def synthesised(means: np.ndarray, details: np.ndarray, level: Level, periodic: tuple[bool, ...]) -> np.ndarray:
    """Return what `join` should: samples are sums of filters, by their distance from low and high coefficients."""
    bands = [means, *details.reshape(*means.shape[:2], level.bands, *level.half).swapaxes(0, 2).swapaxes(1, 2)]
    values = interleaved(bands, level.axes)
    for axis in level.axes:
        values = np.moveaxis(values, axis + 2, -1)
        closed = periodic[axis] and level.grid[axis] % 2 == 0
        # A wide enough continuation of whole-sample symmetry, or around.
        extended = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(4, 4)], "wrap" if closed else "reflect")
        low, high = extended.copy(), extended.copy()
        low[..., 1::2] = 0
        high[..., ::2] = 0
        windows = [np.lib.stride_tricks.sliding_window_view(part, 9, axis=-1) for part in (low, high)]
        values = windows[0][..., 1:-1] @ SYNTHESIS_LOW + windows[1] @ SYNTHESIS_HIGH
        values = np.moveaxis(values, -1, axis + 2)
    return values[(..., *(slice(0, size) for size in level.grid))]


def restored(latents: list[Tensor], levels: tuple[Level, ...], periodic: tuple[bool, ...]) -> list[Tensor]:
    """Return the grids of all levels, finest first, and the coarsest means, of what `analyse` returned."""
    *details, low = latents
    grids = [low]
    for level, bands in zip(reversed(levels), reversed(details), strict=True):
        low = whole(join(low, bands.flatten(1, 2), level, periodic), level)
        grids.append(low)
    return grids[::-1]


def test_a_single_latent_is_the_synthesis_filter() -> None:
    (level,) = levels_of((32,), (1,))
    for band, taps, centre in ((0, SYNTHESIS_LOW, 16), (1, SYNTHESIS_HIGH, 17)):
        halves = torch.zeros(2, 1, 1, 16, dtype=torch.float64)
        halves[band, 0, 0, 8] = 1
        values = whole(join(halves[0], halves[1], level, (False,)), level)
        wanted = np.zeros(32)
        reach = len(taps) // 2
        wanted[centre - reach : centre + reach + 1] = taps
        np.testing.assert_allclose(values.flatten().numpy(), wanted, atol=1e-9)


@st.composite
def one_level(draw: st.DrawFn) -> tuple[Level, tuple[bool, ...]]:
    """Draw a level of one to three axes, of which some may not be split, and which axes are closed."""
    dimensions = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(dimensions))
    splits = tuple(draw(st.integers(1, 2)) for _ in range(dimensions))
    periodic = tuple(draw(st.booleans()) for _ in range(dimensions))
    return draw(st.sampled_from(levels_of(shape, splits))), periodic


def random_bands(level: Level, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return means and details of two signals of two channels."""
    means, details = random_values(2, 2, *level.half), random_values(2, 2 * level.bands, *level.half)
    return means.to(dtype), details.to(dtype)


@settings(deadline=None, max_examples=80)
@given(one_level())
def test_joining_is_a_sum_of_filters(drawn: tuple[Level, tuple[bool, ...]]) -> None:
    level, periodic = drawn
    means, details = random_bands(level)
    found = whole(join(means, details, level, periodic), level)
    wanted = synthesised(means.numpy(), details.numpy(), level, periodic)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-8)


@settings(deadline=None, max_examples=80)
@given(one_level(), st.booleans())
def test_joining_rounds_where_single_operations_do(drawn: tuple[Level, tuple[bool, ...]], bare: bool) -> None:
    """Not a bit differs, in the points beyond odd axes too, which predictions see."""
    level, periodic = drawn
    means, details = random_bands(level, torch.float32)
    if bare:
        details.zero_()
    phases = join(means, None if bare else details, level, periodic)
    found = whole(phases, level)
    assert found.dtype == torch.float32
    split_details = details.unflatten(1, (2, level.bands)).numpy()
    corners = list(itertools.product((0, 1), repeat=len(level.axes)))
    for signal in range(2):
        bands = [means[signal].numpy(), *split_details[signal].swapaxes(0, 1)]
        values, even = lifting.join(bands, level.axes, periodic, level.grid)
        assert np.array_equal(found[signal].numpy(), values)
        for corner in corners:
            places = [slice(None)] * len(level.grid)
            for axis, offset in zip(level.axes, corner, strict=True):
                places[axis] = slice(offset, None, 2)
            assert np.array_equal(phases[corner][signal].numpy(), even[(slice(None), *places)])


@settings(deadline=None, max_examples=60)
@given(one_level())
def test_analysis_rounds_where_single_operations_do(drawn: tuple[Level, tuple[bool, ...]]) -> None:
    """A decoder analyses references."""
    level, periodic = drawn
    values = random_values(2, 3, *level.grid).float()
    details, means = analyse(values, [level], periodic)
    for signal in range(2):
        low, *high = lifting.split(values[signal].numpy(), level.axes, periodic)
        assert np.array_equal(means[signal].numpy(), low)
        assert np.array_equal(details[signal].numpy(), np.stack(high, 1))


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
    grids = restored(latents, levels, periodic)
    assert [tuple(grid.shape[2:]) for grid in grids[:-1]] == [level.grid for level in levels]
    torch.testing.assert_close(grids[0], values, atol=1e-11, rtol=1e-11)
    # What one level starts from is what the next finer one splits.
    if len(levels) > 1:
        coarser = analyse(grids[1], levels[1:], periodic)
        torch.testing.assert_close(coarser[-1], latents[-1], atol=1e-11, rtol=1e-11)


@settings(deadline=None, max_examples=60)
@given(one_level())
def test_the_gradient_of_joining_is_its_transpose(drawn: tuple[Level, tuple[bool, ...]]) -> None:
    level, periodic = drawn
    means, details = (part.requires_grad_() for part in random_bands(level))
    phases = join(means, details, level, periodic)
    direction = random_values(*phases.shape)
    gradients = torch.autograd.grad(phases, (means, details), direction)
    forward = join(*random_bands(level), level, periodic)
    transposed = sum((part * gradient).sum() for part, gradient in zip(random_bands(level), gradients, strict=True))
    torch.testing.assert_close((forward * direction).sum(), transposed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "periodic"), [((5, 6), (False, True)), ((1, 4), (False, False)), ((2,), (True,))])
def test_gradients_of_joining_are_finite_differences(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
    """Their own ones, too, in which meta-training differentiates again."""
    (level,) = levels_of(shape, (1,) * len(shape))
    bands = [part[:1].detach().requires_grad_() for part in random_bands(level)]

    def joined(means: Tensor, details: Tensor) -> Tensor:
        return join(means, details, level, periodic)

    assert torch.autograd.gradcheck(joined, bands)
    assert torch.autograd.gradgradcheck(joined, bands)
    # Linear as it is, only something squared has second derivatives.
    assert torch.autograd.gradgradcheck(lambda *parts: joined(*parts).square(), bands)
    alone = torch.autograd.grad(join(bands[0], None, level, periodic).sum(), bands[0])[0]
    assert torch.equal(alone, torch.autograd.grad(joined(*bands).sum(), bands[0])[0])


def test_joining_leaves_its_arguments_as_they_are() -> None:
    (level,) = levels_of((6, 5), (1, 1))
    bands = random_bands(level)
    join(*bands, level, (False, True))
    for band, before in zip(bands, random_bands(level), strict=True):
        assert torch.equal(band, before)


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
    return restored(latents, levels, periodic)[0].reshape(count, size).T.numpy()


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
