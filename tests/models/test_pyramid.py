"""The field of a latent pyramid: its transform, its colours, what signals choose of it, and values at any position."""

import math
from collections.abc import Sequence
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.models import FIELDS, LatentClip, LatentPyramid
from inrcodec.models.latent import _OCTAVE, STEP_SIZES, Grid, condition_of, following, quantization_step
from inrcodec.models.order import Order
from inrcodec.models.pyramid import COLOR_UNIT, HUES, MOST_BARE, _colors, resample, samples_read

PLANE = LatentPyramid(2, 3, (3, 2), prediction=5)
LINE = LatentPyramid(1, 1, (2,), prediction=4)
BOX = LatentPyramid(3, 2, (1, 2, 2), prediction=3)


def random_values(shape: Sequence[int], seed: int = 6) -> Tensor:
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed))


def linear_values(field: LatentPyramid, latents: list[Tensor], grid: Grid, step_index: int) -> Tensor:
    """Return the values of latents, in quantization steps, where heads are zero."""
    ready = field.ready(field.initialize(torch.Generator().manual_seed(1)), step_index)
    linear = field.decode(ready, latents[0], grid, step_index, following(latents[1:]))
    return field.values(linear, grid, step_index)


# The transform


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_analysis_reproduces_values(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, (60, 24, 9)[dimensions - 1])) for _ in range(dimensions))
    grid = Grid(shape, tuple(data.draw(st.booleans()) for _ in shape))
    levels = tuple(data.draw(st.integers(1, 4)) for _ in shape)
    channels, divided = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3))
    field = LatentPyramid(dimensions, channels, levels, prediction=2, divided=divided)
    if channels == 3:
        field = field.transform((MOST_BARE + 1) * data.draw(st.integers(0, HUES - 1)))
    values = random_values((2, channels, *shape))
    latents = field.analyse(values, grid)
    places = field.places(grid)
    assert [tuple(each.shape[1:]) for each in latents] == [
        field.means_shape(grid),
        *((place.channels, *place.shape) for place in places),
    ]
    assert sum(each[0].numel() for each in latents) == field.size(grid)
    step_index = data.draw(st.integers(-80, 20))
    steps = [each / quantization_step(step_index) for each in latents]
    torch.testing.assert_close(linear_values(field, steps, grid, step_index), values, atol=4e-6, rtol=0)


@pytest.mark.parametrize("hue", [0, 21])
def test_grey_has_no_chroma(hue: int) -> None:
    field, grid = PLANE.transform(hue * (MOST_BARE + 1)), Grid.open((8, 9))
    grey = random_values((1, 1, 8, 9)).expand(-1, 3, -1, -1)
    means, *details = field.analyse(grey, grid)
    assert float(means[:, 1:].abs().max()) < 1e-6
    for place, latents in zip(field.places(grid), details, strict=True):
        assert place.group == 0 or bool((latents.abs() < 1e-6).all())
    assert PLANE.groups == (1, 2) and LINE.groups == (1,) and BOX.groups == (2,)


def test_the_linear_part_of_a_closed_axis_has_no_beginning() -> None:
    grid = Grid((5, 16), (False, True))
    values = random_values((1, 3, *grid.shape))

    def linear(shown: Tensor) -> Tensor:
        return linear_values(PLANE, [torch.round(8 * each) for each in PLANE.analyse(shown, grid)], grid, -24)

    torch.testing.assert_close(linear(values.roll(4, -1)), linear(values).roll(4, -1), atol=1e-6, rtol=0)


# Steps


@pytest.mark.parametrize("eighths", range(8))
def test_steps_are_the_nearest_float32_to_powers_of_two(eighths: int) -> None:
    mpmath.mp.dps = 40
    true = mpmath.mpf(2) ** (mpmath.mpf(eighths) / 8)
    written = np.float32(_OCTAVE[eighths])
    distance = abs(mpmath.mpf(float(written)) - true)
    for neighbour in (np.nextafter(written, np.float32(0)), np.nextafter(written, np.float32(4))):
        assert distance < abs(mpmath.mpf(float(neighbour)) - true)
    for octaves in (-15, -1, 0, 3):
        step = quantization_step(8 * octaves + eighths)
        assert step == float(written) * 2.0**octaves == float(np.float32(step))


def test_networks_are_told_the_step_relative_to_an_eighth() -> None:
    assert [condition_of(index) for index in (-24, -16, 0, 3)] == [0.0, 1.0, 3.0, 3.375]


# Colours


def test_colours_are_orthonormal_and_the_same_everywhere() -> None:
    """Libraries differ in the last bits of a cosine; no coefficient is that near to the middle of two units."""
    mpmath.mp.dps = 40

    def normalized(*row: int) -> list[mpmath.mpf]:
        return [value / mpmath.sqrt(sum(each * each for each in row)) for value in row]

    luma, u, v = normalized(1, 1, 1), normalized(1, 0, -1), normalized(1, -2, 1)
    for hue in range(HUES):
        matrix = _colors(hue)
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix.astype(np.float64) @ matrix.T.astype(np.float64), np.eye(3), atol=3e-7)
        cosine, sine = mpmath.cos(mpmath.pi * hue / HUES), mpmath.sin(mpmath.pi * hue / HUES)
        turned = [
            *luma,
            *(cosine * a + sine * b for a, b in zip(u, v, strict=True)),
            *(cosine * b - sine * a for a, b in zip(u, v, strict=True)),
        ]
        for found, true in zip(matrix.ravel().tolist(), turned, strict=True):
            units = true * COLOR_UNIT
            assert found * COLOR_UNIT == int(mpmath.nint(units))
            assert abs(units - mpmath.floor(units) - 0.5) > 1e-6


def test_hues_turn_chroma_and_leave_luma() -> None:
    grid = Grid.open((12, 9))
    values = random_values((1, 3, 12, 9))
    plain = PLANE.analyse(values, grid)
    for hue in (1, 16, 40):
        angle = math.pi * hue / HUES
        turned = PLANE.transform(hue * (MOST_BARE + 1)).analyse(values, grid)
        for place, one, other in zip([None, *PLANE.places(grid)], plain, turned, strict=True):
            if place is None:
                one, other = one[:, 1:], other[:, 1:]
            elif place.group == 0:
                assert torch.equal(one, other)
                continue
            (u, v), (new_u, new_v) = one.chunk(2, 1), other.chunk(2, 1)
            torch.testing.assert_close(new_u, math.cos(angle) * u + math.sin(angle) * v, atol=1e-5, rtol=0)
            torch.testing.assert_close(new_v, math.cos(angle) * v - math.sin(angle) * u, atol=1e-5, rtol=0)


# What signals choose


def coloured(hue: float, seed: int = 0, shape: tuple[int, int] = (64, 48), amount: float = 0.1) -> Tensor:
    """Return a picture of noise whose chroma is along one axis, and a little beside it."""
    generator = torch.Generator().manual_seed(seed)
    luma, chroma, rest = torch.randn((3, *shape), generator=generator)
    angle = math.pi * hue / HUES
    u = amount * (math.cos(angle) * chroma - 0.2 * math.sin(angle) * rest)
    v = amount * (math.sin(angle) * chroma + 0.2 * math.cos(angle) * rest)
    r, g, b = luma / 9 + u / 2**0.5 + v / 6**0.5, luma / 9 - 2 * v / 6**0.5, luma / 9 - u / 2**0.5 + v / 6**0.5
    return torch.stack([r, g, b])[None] + 0.5


FIELD = LatentPyramid(2, 3, (4, 4), prediction=4)


def chosen(field: LatentPyramid, values: Tensor, step_index: int) -> tuple[int, int]:
    (variant,) = field.candidates(values, step_index)
    assert 0 <= variant < field.variants
    return divmod(variant, MOST_BARE + 1)


@pytest.mark.parametrize("hue", [0, 1, 7, 16, 31, 32, 50, 63])
def test_the_principal_axis_of_chroma_is_found(hue: int) -> None:
    found, bare = chosen(FIELD, coloured(hue), -30)
    assert (found - hue + 2) % HUES <= 4 and bare == 0
    turned, grid = FIELD.transform(found * (MOST_BARE + 1)), Grid.open((64, 48))
    energy = torch.zeros(2)
    for place, details in zip(turned.places(grid), turned.analyse(coloured(hue), grid)[1:], strict=True):
        if place.group == 1:
            energy += torch.stack([each.square().sum() for each in details.chunk(2, 1)])
    assert float(energy[1]) < 0.1 * float(energy[0])


def test_the_means_of_chroma_do_not_count() -> None:
    """Of how many levels ever; a tinted picture has the axis of its details."""
    for levels in ((1, 1), (2, 2), (4, 4)):
        field = replace(FIELD, levels=levels)
        for step_index in (-30, -10):
            plain = chosen(field, coloured(20), step_index)
            tinted = coloured(20) + torch.tensor([0.3, 0.0, -0.3]).reshape(3, 1, 1)
            assert chosen(field, tinted, step_index) == plain


@pytest.mark.parametrize("step_index", [-60, -20, 4])
def test_grey_pictures_are_bare(step_index: int) -> None:
    grey = random_values((2, 1, 40, 30)).expand(-1, 3, -1, -1)
    assert chosen(FIELD, grey, step_index)[1] == MOST_BARE
    assert chosen(replace(FIELD, levels=(1, 1)), grey, step_index)[1] == 1
    assert chosen(FIELD, torch.full((1, 3, 5, 5), 0.3), step_index) == (0, MOST_BARE)


def test_levels_are_bare_where_steps_are_coarse() -> None:
    """From the finest on: coarse chroma is coded longest."""
    smooth = torch.nn.functional.interpolate(coloured(9, shape=(16, 16)), scale_factor=8, mode="bicubic")
    bare = [chosen(FIELD, smooth, step_index)[1] for step_index in (-100, -60, -50, -40, -30, -20, 0)]
    assert bare == sorted(bare) and bare[0] == 0 and bare[-1] == MOST_BARE


def test_bare_levels_have_no_chroma() -> None:
    grid = Grid.open((32, 24))
    for bare in range(MOST_BARE + 1):
        field = FIELD.transform(5 * (MOST_BARE + 1) + bare)
        assert field.order == Order((1, 2), (4, 4), bare=bare)
        levels = {place.level for place in field.places(grid) if place.group == 1}
        assert levels == set(range(bare, 4))
        assert field.shapes() == FIELD.shapes()


def test_fields_of_other_channels_have_one_variant() -> None:
    assert LINE.variants == BOX.variants == 1
    assert list(LINE.candidates(random_values((1, 1, 30)), -20)) == [0]
    assert LINE.transform() is LINE and PLANE.transform(0) == PLANE
    assert PLANE.variants == HUES * (MOST_BARE + 1)


def test_pictures_of_a_clip_choose_as_pictures_do() -> None:
    clip = LatentClip(3, 3, (4, 4), prediction=4)
    assert clip.variants == FIELD.variants and clip.order == FIELD.order and clip.groups == (1, 2)
    pictures = torch.stack([coloured(3), coloured(40), coloured(11)], 2)
    assert list(clip.candidates(pictures, -30)) == list(FIELD.candidates(coloured(40), -30))
    assert clip.transform(7).order.bare == 7 % (MOST_BARE + 1)
    shapes = {kind: clip.transform(kind=kind).shapes() for kind in ("intra", "inter")}
    assert clip.shapes() == {f"{kind}.{name}": shape for kind, own in shapes.items() for name, shape in own.items()}
    parameters = clip.initialize(torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in parameters.items()} == clip.shapes()


# Configurations


@pytest.mark.parametrize(
    "sizes",
    [
        {"levels": (3,)},
        {"levels": (3, 3, 3)},
        {"levels": (3, 17)},
        {"levels": (3, 0)},
        {"levels": (3, -1)},
        {"levels": (3, 2.0)},
        {"levels": 3},
        {"prediction": 0},
        {"prediction": 1 << 20},
        {"prediction": "16"},
        {"divided": -1},
    ],
)
def test_impossible_configurations(sizes: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        LatentPyramid(2, 3, **sizes)  # type: ignore[arg-type]


def test_configuration() -> None:
    assert FIELDS["pyramid"] is LatentPyramid
    assert LatentPyramid(2, 3).levels == (6, 6)
    field = LatentPyramid(2, 3, [4, 3])  # type: ignore[arg-type]  # as it comes back from JSON
    assert field == LatentPyramid(2, 3, (4, 3))
    parameters = field.initialize(torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in parameters.items()} == field.shapes()
    assert field.step_size_shapes() == dict.fromkeys(STEP_SIZES, (4,))
    again = field.initialize(torch.Generator().manual_seed(0))
    assert all(torch.equal(value, again[name]) for name, value in parameters.items())


def test_pictures_with_references_are_no_fields_by_themselves() -> None:
    PLANE.check_alone()
    with pytest.raises(ValueError, match="picture of a clip"):
        replace(PLANE, references=2).check_alone()


# Asking at any position


def keys(x: float) -> float:
    """Evaluate Keys' cubic kernel with a = -1/2, from his paper: (a + 2)|x|^3 - (a + 3)|x|^2 + 1, then a|x|^3 - ..."""
    a, x = -0.5, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def naive_resample(samples: np.ndarray, positions: Sequence[float], closed: bool) -> np.ndarray:
    """Interpolate along the last axis."""
    size = samples.shape[-1]
    result = []
    for position in positions:
        taps = range(math.floor(position) - 3, math.floor(position) + 5)
        index = [tap % size if closed else min(max(tap, 0), size - 1) for tap in taps]
        result.append(sum(keys(position - tap) * samples[..., i] for tap, i in zip(taps, index, strict=True)))
    return np.stack(result, axis=-1)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_resampling_is_cubic_convolution(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, 5)) for _ in range(dimensions))
    closed = tuple(data.draw(st.booleans()) for _ in range(dimensions))
    positions = [
        np.array(data.draw(st.lists(st.integers(-4, 4 * size + 2).map(lambda n: n / 4), min_size=1, max_size=6)))
        for size in shape
    ]
    maps = np.random.default_rng(0).standard_normal((2, 3, *shape)).astype(np.float32)
    found = resample(torch.from_numpy(maps), positions, closed).numpy()
    wanted = maps.astype(np.float64)
    for axis, (along, around) in enumerate(zip(positions, closed, strict=True)):
        wanted = np.moveaxis(naive_resample(np.moveaxis(wanted, axis + 2, -1), along, around), -1, axis + 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    points = np.stack([each.ravel() for each in np.meshgrid(*positions, indexing="ij")])
    single = resample(torch.from_numpy(maps), points, closed).numpy()
    np.testing.assert_allclose(single, found.reshape(2, 3, -1), atol=1e-5)
    assert resample(torch.from_numpy(maps), points[:, :0], closed).shape == (2, 3, 0)


def test_the_samples_themselves_stay_as_they_are() -> None:
    maps = torch.randn((1, 2, 5, 6), generator=torch.Generator().manual_seed(1))
    assert torch.equal(resample(maps, [np.arange(5.0), np.arange(6.0)], (False, True)), maps)
    picked = resample(maps, [np.array([3.0, 1.0]), np.array([0.0, 5.0, 6.0, -1.0])], (False, True))
    assert torch.equal(picked, maps[:, :, [3, 1]][:, :, :, [0, 5, 0, 5]])
    beyond = resample(maps, [np.array([-3.0, 7.0]), np.arange(6.0)], (False, True))
    assert torch.equal(beyond, maps[:, :, [0, 4]])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.lists(st.integers(-12, 48).map(lambda n: n / 4), min_size=1, max_size=5))
def test_samples_that_are_read_are_those_that_matter(size: int, positions: list[float]) -> None:
    asked = np.array(positions)
    read = samples_read(asked, size)
    samples = random_values((1, 1, size)).double()
    before = resample(samples, [asked], (False,))
    for sample in range(size):
        changed = samples.clone()
        changed[..., sample] += 1
        if sample not in read:
            assert torch.equal(resample(changed, [asked], (False,)), before)


def test_quadratics_are_interpolated_exactly() -> None:
    x = torch.arange(12.0)
    positions = np.linspace(2, 9, 29)
    found = resample((0.3 * x**2 - x).reshape(1, 1, -1), [positions], (False,)).flatten().numpy()
    np.testing.assert_allclose(found, 0.3 * positions**2 - positions, atol=1e-5)


@pytest.mark.parametrize("axes", [4, 26])
def test_more_axes_than_three_are_refused_before_anything_is_counted(axes):
    with pytest.raises(ValueError, match=f"not {axes}"):
        LatentPyramid(axes, 1, (1,) * axes, prediction=4)
