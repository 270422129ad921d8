"""The field of a latent pyramid against docs/FORMAT.md written out in NumPy, sample by sample."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inrcodec.models import FIELDS, LatentPyramid, Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, condition_of
from inrcodec.models.pyramid import resample
from inrcodec.models.wavelet import synthesise

PLANE = LatentPyramid(2, 3, (3, 2), width=5)
LINE = LatentPyramid(1, 1, (2,), width=4)
BOX = LatentPyramid(3, 2, (1, 2, 2), width=3)
PREDICTING = LatentPyramid(2, 3, (3, 2), width=5, prediction=4)
PREDICTING_LINE = LatentPyramid(1, 1, (2,), width=4, prediction=3)
PREDICTING_BOX = LatentPyramid(3, 2, (1, 2, 2), width=3, prediction=2)
FIELDS_AND_GRIDS = [
    (PLANE, Grid.open((9, 14))),
    (PLANE, Grid((8, 12), (False, True))),
    (PLANE, Grid.open((1, 5))),
    (LINE, Grid.open((21,))),
    (BOX, Grid.open((3, 6, 5))),
    (PREDICTING, Grid.open((9, 14))),
    (PREDICTING, Grid((8, 12), (False, True))),
    (PREDICTING, Grid.open((1, 5))),
    (PREDICTING_LINE, Grid.open((21,))),
    (PREDICTING_BOX, Grid.open((3, 6, 5))),
    (replace(PREDICTING, divided=2), Grid.open((18, 15))),
    (replace(PREDICTING, divided=4), Grid.open((1, 5))),
    (replace(PREDICTING_LINE, divided=1), Grid.open((21,))),
    (replace(PREDICTING_BOX, divided=1), Grid.open((3, 12, 5))),
]


def random_parameters(field: LatentPyramid) -> Parameters:
    """Return parameters with a head and biases, which `initialize` leaves at zero; float64."""
    generator = torch.Generator().manual_seed(4)
    return {
        name: value.double() + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in field.initialize(generator).items()
    }


def random_symbols(field: LatentPyramid, grid: Grid, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(-4, 5, (batch, *shape), generator=generator).double() for shape in field.latent_shapes(grid)]


def random_values(field: LatentPyramid, grid: Grid, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.rand((batch, field.out_features, *grid.shape), generator=generator, dtype=torch.float64)


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def enlarged(grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Enlarge [C, *grid] by linear interpolation between cell centres."""
    for axis, size in enumerate(shape):
        coarse = grid.shape[axis + 1]
        positions = ((np.arange(size) + 0.5) * coarse / size - 0.5).clip(0, coarse - 1)
        low = np.floor(positions).astype(int)
        high = np.minimum(low + 1, coarse - 1)
        share = (positions - low).reshape([-1 if i == axis + 1 else 1 for i in range(grid.ndim)])
        grid = grid.take(low, axis + 1) * (1 - share) + grid.take(high, axis + 1) * share
    return grid


def phases_of(field: LatentPyramid, level: int) -> list[tuple[int, ...]]:
    """Return the offsets of a level's phases in order; -1 along axes that are not interleaved."""
    finest = min(level + 1, max(field.levels) - 1)
    axes = [axis for axis, splits in enumerate(field.levels) if finest < splits]
    corners = list(itertools.product((0, 1), repeat=len(axes)))
    ordered = []
    for corner in corners[: len(corners) // 2]:
        ordered += [corner, tuple(1 - offset for offset in corner)]
    places = [dict(zip(axes, corner, strict=True)) for corner in ordered]
    return [tuple(place.get(axis, -1) for axis in range(len(field.levels))) for place in places]


Point = tuple[int, ...]


def filtered(
    inputs: dict[Point, np.ndarray], kernel: np.ndarray, grid: Point, beyond: float = 1
) -> dict[Point, np.ndarray]:
    """Convolve over a grid, continued by its nearest points times `beyond`."""
    result = {}
    for point in inputs:
        total = np.zeros(len(kernel))
        for tap in itertools.product(range(3), repeat=len(grid)):
            nearest = tuple(min(max(p + t - 1, 0), n - 1) for p, t, n in zip(point, tap, grid, strict=True))
            inside = nearest == tuple(p + t - 1 for p, t in zip(point, tap, strict=True))
            total += (1 if inside else beyond) * kernel[(slice(None), slice(None), *tap)] @ inputs[nearest]
        result[point] = total
    return result


def specified_details(
    theta: dict[str, np.ndarray],
    low: np.ndarray,
    coded: np.ndarray,
    kind: str,
    phases: Sequence[Point],
    groups: Sequence[Sequence[int]],
    gain: float,
    bias_of: tuple[int, float],
    references: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    divided: int = 0,
) -> np.ndarray:
    """Return details [C, bands, *half] of one level from its means [C, *half] and symbols, point by point.

    bias_of: the level and kappa. references: means and details of each. divided: phases that come in parts.
    """
    half, bands = low.shape[1:], coded.shape[1]
    grid = tuple(-(-n // 2) if o >= 0 else n for n, o in zip(half, phases[0], strict=True))
    level, kappa = bias_of
    decoded = np.zeros(coded.shape)

    def place(phase: Point, point: Point) -> Point:
        return tuple(p if o < 0 else 2 * p + o for o, p in zip(phase, point, strict=True))

    def shown(phase: Point, point: Point, channels: Sequence[int]) -> list[float]:
        where = place(phase, point)
        inside = all(p < n for p, n in zip(where, half, strict=True))
        values = [decoded[(channel, slice(None), *where)] if inside else np.zeros(bands) for channel in channels]
        return [float(gain * value) for band_values in values for value in band_values]

    for order, phase in enumerate(phases):
        for group, channels in enumerate(groups):
            name = f"prediction.{kind}.{order}.{group}"
            weight = theta[f"{name}.input.weight"].copy()
            for own in range(len(channels)):
                taps = weight[:, own : len(phases) * len(channels) : len(channels)]
                taps -= taps.mean(axis=tuple(range(1, taps.ndim)), keepdims=True)
            inputs, shown_by_references = {}, {}
            for point in itertools.product(*(range(n) for n in grid)):
                seen = []
                for each in phases:
                    where = tuple(min(p, n - 1) for p, n in zip(place(each, point), half, strict=True))
                    seen += [float(gain * low[(channel, *where)]) for channel in channels]
                for each in phases[:order]:
                    seen += shown(each, point, channels)
                for others in groups[:group]:
                    seen += shown(phase, point, others)
                inputs[point] = np.array(seen)
                seen = []
                for means, details in references:
                    for each in phases:
                        where = tuple(min(p, n - 1) for p, n in zip(place(each, point), half, strict=True))
                        seen += [float(gain * (low - means)[(channel, *where)]) for channel in channels]
                    for each in phases:
                        where = place(each, point)
                        inside = all(p < n for p, n in zip(where, half, strict=True))
                        for channel in channels:
                            there = details[(channel, slice(None), *where)] if inside else np.zeros(bands)
                            seen += [float(gain * value) for value in there]
                shown_by_references[point] = np.array(seen)
            table = theta[f"{name}.input.bias"]
            bias = table[level] + kappa * table[-2] + kappa**2 * table[-1]
            first = filtered(inputs, weight, grid)
            if references:
                more = filtered(shown_by_references, theta[f"{name}.reference.weight"], grid)
                first = {point: value + more[point] for point, value in first.items()}
            for number, own in enumerate(phases if order < divided else [(-1,) * len(grid)]):
                # The points of a part stand among those of the phase as these among those of the level.
                part = {point for point in first if all(o < 0 or p % 2 == o for o, p in zip(own, point, strict=True))}
                sums = {point: value + bias for point, value in first.items()}
                if number:
                    # Zero where nothing is decoded yet.
                    seen_so_far = {point: np.array(shown(phase, point, channels)) for point in first}
                    more = filtered(seen_so_far, theta[f"{name}.part{number}.weight"], grid, beyond=0)
                    table = theta[f"{name}.part{number}.bias"]
                    own_bias = table[level] + kappa * table[-2] + kappa**2 * table[-1]
                    sums = {point: value + more[point] + own_bias for point, value in sums.items()}
                hidden = {point: gelu(value) for point, value in sums.items()}
                second = filtered(hidden, theta[f"{name}.hidden.weight"], grid)
                for point in part:
                    where = place(phase, point)
                    if not all(p < n for p, n in zip(where, half, strict=True)):
                        continue
                    last = gelu(second[point] + theta[f"{name}.hidden.bias"])
                    outputs = theta[f"{name}.head.weight"] @ last / gain
                    for number_seen, (_, details) in enumerate(references):
                        rows = slice(number_seen * len(outputs), (number_seen + 1) * len(outputs))
                        share = (
                            theta[f"{name}.share.weight"][rows] @ last + theta[f"{name}.share.bias"][level, rows] + 0.5
                        )
                        outputs = outputs + share * np.concatenate(
                            [details[(c, slice(None), *where)] for c in channels]
                        )
                    for channel, prediction in zip(channels, outputs.reshape(len(channels), bands), strict=True):
                        spot = (channel, slice(None), *where)
                        decoded[spot] = coded[spot] + prediction
    return decoded


def reference_of(field: LatentPyramid, values: Tensor, grid: Grid, step_index: int) -> list[tuple[Tensor, Tensor]]:
    """Return means and details of every level, finest first, of one reference, in units of the step."""
    levels, delta = field.levels_of(grid), 2 ** (step_index / 8)
    *details, low = [level / delta for level in field.analyse(values, grid)]
    result = []
    for number in reversed(range(len(levels))):
        split = details[number].unflatten(1, (field.out_features, -1))
        result.append((low[0], split[0]))
        low = synthesise([split, low], [levels[number]], grid.periodic)[0]
    return result[::-1]


def specified_latents(
    field: LatentPyramid,
    theta: dict[str, np.ndarray],
    symbols: Sequence[Tensor],
    grid: Grid,
    step_index: int,
    signals: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Return latents of one signal in units of the step."""
    if not field.prediction:
        return list(symbols)
    levels, delta = field.levels_of(grid), 2 ** (step_index / 8)
    groups = [[0], [1, 2]] if field.out_features == 3 else [list(range(field.out_features))]
    references = [reference_of(field, values, grid, step_index) for values in signals]
    coarsest = symbols[-1] + sum(levels_of_one[-1][0] for levels_of_one in references) / max(1, len(references))
    low, details = coarsest, []
    for number in reversed(range(max(field.levels))):
        level, phases = levels[number], phases_of(field, number)
        decoded = specified_details(
            theta,
            low[0].numpy(),
            symbols[number][0].unflatten(0, (field.out_features, level.bands)).numpy(),
            f"{level.bands}.{len(phases)}",
            phases,
            groups,
            delta * 8 / math.sqrt(2) ** sum(len(each.axes) for each in levels[: number + 1]),
            (number, step_index / 8 + 3),
            [
                (means.numpy(), details_of_one.numpy())
                for means, details_of_one in (each[number] for each in references)
            ],
            field.divided,
        )
        found = torch.from_numpy(decoded)[None]
        details.append(found.flatten(1, 2))
        low = synthesise([found, low], [level], grid.periodic)[0]
    return [*details[::-1], coarsest]


def specified_values(
    field: LatentPyramid,
    parameters: Parameters,
    symbols: Sequence[Tensor],
    grid: Grid,
    step_index: int,
    signals: Sequence[Tensor] = (),
) -> np.ndarray:
    """Return values of one signal on its own grid, [C, *grid]."""
    theta = {name: value.numpy() for name, value in parameters.items()}
    channels, dimensions, delta = field.out_features, len(grid.shape), 2 ** (step_index / 8)
    latents = [delta * level for level in specified_latents(field, theta, symbols, grid, step_index, signals)]
    details = [level.unflatten(1, (channels, -1)) for level in latents[:-1]]
    levels = field.levels_of(grid)
    grids = [g[0].numpy() for g in (*synthesise([*details, latents[-1]], levels, grid.periodic), latents[-1])]
    linear = grids[0]
    if channels == 3:
        matrix = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
        linear = np.tensordot(matrix.T, linear, 1)
    linear = linear + 0.5
    shown = [
        enlarged(g, grid.shape) / math.sqrt(2) ** sum(len(level.axes) for level in levels[:number])
        for number, g in enumerate(grids)
    ]
    seen = min(3, max(field.levels))
    inputs = np.concatenate([8 * (shown[i] - shown[i + 1]) for i in range(seen)] + [8 * shown[seen]])
    kappa = step_index / 8 + 3
    weight, table = theta["restoring.input.weight"], theta["restoring.input.bias"]
    bias = table[0] + kappa * table[1] + kappa**2 * table[2]
    values = np.empty_like(linear)
    for place in itertools.product(*(range(size) for size in grid.shape)):
        features = bias.copy()
        for tap in itertools.product(range(3), repeat=dimensions):
            source = tuple(p + t - 1 for p, t in zip(place, tap, strict=True))
            if all(0 <= s < size for s, size in zip(source, grid.shape, strict=True)):
                features += weight[(slice(None), slice(None), *tap)] @ inputs[(slice(None), *source)]
        hidden = gelu(theta["restoring.hidden.weight"] @ gelu(features) + theta["restoring.hidden.bias"])
        restored = theta["restoring.head.weight"] @ hidden + theta["restoring.head.bias"]
        values[(slice(None), *place)] = linear[(slice(None), *place)] + delta * restored
    return values


@pytest.mark.parametrize("divided", [0, 3])
@pytest.mark.parametrize("grid", [Grid.open((9, 14)), Grid((8, 12), (False, True))])
def test_values_of_a_field_with_references_are_the_specified_ones(grid: Grid, divided: int) -> None:
    field, step_index = replace(PREDICTING, references=2, divided=divided), -30
    parameters, symbols = random_parameters(field), random_symbols(field, grid)
    signals = random_values(field, grid).split(1)
    step_indices = torch.tensor([float(step_index)], dtype=torch.float64)
    seeing = field.with_references(signals, grid)
    latents = seeing.decoded(parameters, symbols, grid, step_indices)
    values = seeing.values(parameters, seeing.maps(parameters, latents, grid, step_indices), grid, step_indices)
    specified = specified_values(field, parameters, symbols, grid, step_index, signals)
    np.testing.assert_allclose(values[0].numpy(), specified, atol=1e-9)


def test_one_reference_is_seen_twice() -> None:
    field, grid = replace(PREDICTING, references=2), Grid.open((9, 14))
    parameters, symbols = random_parameters(field), random_symbols(field, grid)
    signal = random_values(field, grid, 1)
    step_indices = torch.tensor([-30.0], dtype=torch.float64)
    once, twice = (
        field.with_references(seen, grid).decoded(parameters, symbols, grid, step_indices)
        for seen in ([signal], [signal] * 2)
    )
    for level, other in zip(once, twice, strict=True):
        torch.testing.assert_close(level, other)


@pytest.mark.parametrize(("field", "grid"), FIELDS_AND_GRIDS)
@pytest.mark.parametrize("step_index", [-40, -3])
def test_values_are_the_specified_ones(field: LatentPyramid, grid: Grid, step_index: int) -> None:
    parameters, symbols = random_parameters(field), random_symbols(field, grid)
    step_indices = torch.tensor([float(step_index)], dtype=torch.float64)
    latents = field.decoded(parameters, symbols, grid, step_indices)
    values = field.values(parameters, field.maps(parameters, latents, grid, step_indices), grid, step_indices)
    specified = specified_values(field, parameters, symbols, grid, step_index)
    np.testing.assert_allclose(values[0].numpy(), specified, atol=1e-9)


@pytest.mark.parametrize(("field", "grid"), FIELDS_AND_GRIDS)
def test_analysis_reproduces_values(field: LatentPyramid, grid: Grid) -> None:
    """The head is zero at first, so the field is linear; the two signals have different steps."""
    parameters = {name: value.double() for name, value in field.initialize(torch.Generator().manual_seed(1)).items()}
    values = random_values(field, grid)
    latents = field.analyse(values, grid)
    assert [tuple(level.shape[1:]) for level in latents] == field.latent_shapes(grid)
    step_indices = torch.tensor([-16.0, 5.0], dtype=torch.float64)
    scale = torch.exp2(step_indices / STEPS_PER_OCTAVE).reshape(-1, *[1] * (values.dim() - 1))
    maps = field.maps(parameters, [level / scale for level in latents], grid, step_indices)
    assert maps.shape == (2, field.out_features + field.width, *grid.shape)
    torch.testing.assert_close(field.values(parameters, maps, grid, step_indices), values, atol=1e-11, rtol=1e-11)


def test_grey_has_no_chroma() -> None:
    grid = Grid.open((8, 8))
    grey = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(2)).expand(-1, 3, -1, -1)
    for latents in PLANE.analyse(grey, grid):
        assert float(latents.unflatten(1, (3, -1))[:, 1:].abs().max()) < 1e-6
    assert PLANE.groups == (1, 2) and LINE.groups == (1,) and BOX.groups == (2,)


def test_signals_of_a_batch_do_not_mix() -> None:
    grid = Grid.open((7, 10))
    parameters, symbols = random_parameters(PLANE), random_symbols(PLANE, grid, batch=3)
    step_indices = torch.tensor([-30.0, -8.0, 2.0], dtype=torch.float64)
    whole = PLANE.values(parameters, PLANE.maps(parameters, symbols, grid, step_indices), grid, step_indices)
    for signal in range(3):
        own = slice(signal, signal + 1)
        maps = PLANE.maps(parameters, [level[own] for level in symbols], grid, step_indices[own])
        torch.testing.assert_close(PLANE.values(parameters, maps, grid, step_indices[own])[0], whole[signal])


def test_the_linear_part_of_a_closed_axis_has_no_beginning() -> None:
    grid = Grid((5, 16), (False, True))
    parameters = random_parameters(PLANE)
    step_indices = torch.tensor([-8.0], dtype=torch.float64)
    values = random_values(PLANE, grid, batch=1)

    def linear(shown: Tensor) -> Tensor:
        symbols = [torch.round(8 * level) for level in PLANE.analyse(shown, grid)]
        return PLANE.maps(parameters, symbols, grid, step_indices)[:, :3]

    torch.testing.assert_close(linear(values.roll(4, -1)), linear(values).roll(4, -1), atol=1e-9, rtol=0)


def test_the_network_is_told_the_step_relative_to_an_eighth() -> None:
    assert condition_of(torch.tensor([-24.0, -16.0, 0.0])).tolist() == [0.0, 1.0, 3.0]


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
        {"width": 0},
        {"width": 1 << 20},
        {"width": "16"},
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
    assert field.step_size_shapes() == dict.fromkeys(("move", "price", "averaging"), (4,))
    again = field.initialize(torch.Generator().manual_seed(0))
    assert all(torch.equal(value, again[name]) for name, value in parameters.items())


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


def test_the_samples_themselves_stay_as_they_are() -> None:
    maps = torch.randn((1, 2, 5, 6), generator=torch.Generator().manual_seed(1))
    assert torch.equal(resample(maps, [np.arange(5.0), np.arange(6.0)], (False, True)), maps)
    picked = resample(maps, [np.array([3.0, 1.0]), np.array([0.0, 5.0, 6.0, -1.0])], (False, True))
    assert torch.equal(picked, maps[:, :, [3, 1]][:, :, :, [0, 5, 0, 5]])
    beyond = resample(maps, [np.array([-3.0, 7.0]), np.arange(6.0)], (False, True))
    assert torch.equal(beyond, maps[:, :, [0, 4]])


def test_quadratics_are_interpolated_exactly() -> None:
    x = torch.arange(12.0)
    positions = np.linspace(2, 9, 29)
    found = resample((0.3 * x**2 - x).reshape(1, 1, -1), [positions], (False,)).flatten().numpy()
    np.testing.assert_allclose(found, 0.3 * positions**2 - positions, atol=1e-5)


@pytest.mark.parametrize("axes", [4, 26])
def test_more_axes_than_three_are_refused_before_anything_is_counted(axes):
    with pytest.raises(ValueError, match=f"not {axes}"):
        LatentPyramid(axes, 1, (1,) * axes, prediction=4)
