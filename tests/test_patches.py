"""Patches of grids and of the globe: that they cover, join without seams, and lie where they should."""

import functools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.field_values import field_channels, signal_channels, unit_values
from inrcodec.patches import PatchConfig, Patches, RenderedPatch
from inrcodec.signals import Axis, Signal
from inrcodec.sphere import unit_vectors
from inrcodec.weights.context_set import patch_context_sets

KINDS = ["cell", "start", "node", "periodic", "slice"]


def axis_of(kind: str, size: int) -> Axis:
    return Axis(size, kind, rate=Fraction(8000) if kind == "start" else None)


@st.composite
def axes_and_configs(draw: st.DrawFn) -> tuple[tuple[Axis, ...], PatchConfig]:
    some = st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)
    kinds = draw(some.filter(lambda kinds: set(kinds) != {"slice"}))
    largest = {1: 40, 2: 14, 3: 7}[len(kinds)]
    axes = tuple(axis_of(kind, draw(st.integers(1, largest))) for kind in kinds)
    shape = [draw(st.integers(1, largest)) for axis in axes if axis.kind != "slice"]
    overlap = [draw(st.integers(0, size - 1)) for size in shape]
    return axes, PatchConfig(tuple(shape), tuple(overlap), extent=draw(st.sampled_from([1.0, 50.0])))


def target_of(axis: Axis, size: int) -> Axis:
    return axis if axis.kind == "slice" else axis.resampled(size)


def signal_of(axes: tuple[Axis, ...], channels: int = 2, *, sphere: bool = False) -> Signal:
    values = np.random.default_rng(0).random((*(axis.size for axis in axes), channels)).astype(np.float32)
    return Signal("climate", values, axes, (0.0, 1.0), sphere=sphere)


# Covering


@settings(deadline=None, max_examples=100)
@given(axes_and_configs(), st.data())
def test_weights_sum_to_one_everywhere(grid: tuple[tuple[Axis, ...], PatchConfig], data: st.DataObject) -> None:
    axes, config = grid
    targets = tuple(target_of(axis, data.draw(st.integers(1, 60))) for axis in axes)
    total = np.zeros([axis.size for axis in targets] + [1])
    for samples in Patches.cover(axes, config).resampled(targets):
        assert all((weights > 0).all() for weights in samples.weights)
        points = math.prod(len(index) for index in samples.indices)
        assert samples.coordinates.shape == (points, config.dimensions)
        assert np.abs(samples.coordinates).max(initial=0) <= config.extent * (1 + 1e-6)
        samples.accumulate(np.ones((points, 1)), total)
    np.testing.assert_allclose(total, 1, rtol=1e-12)


@settings(deadline=None, max_examples=100)
@given(axes_and_configs(), st.data())
def test_points_are_those_of_a_grid(grid: tuple[tuple[Axis, ...], PatchConfig], data: st.DataObject) -> None:
    """What a patch has to do with single points is what it has to do with the grid that they are all of."""
    axes, config = grid
    targets = tuple(target_of(axis, data.draw(st.integers(1, 9))) for axis in axes)
    patches = Patches.cover(axes, config)
    mesh = np.meshgrid(*(axis.positions(target) for axis, target in zip(axes, targets, strict=True)), indexing="ij")
    points = np.stack([each.ravel() for each in mesh])
    total = np.zeros(points.shape[1])
    for patch, samples in enumerate(patches.resampled(targets)):
        found = patches.at_points(patch, points)
        numbers = np.ravel_multi_index(np.ix_(*samples.indices), [axis.size for axis in targets]).ravel()
        order, own = np.argsort(numbers), np.argsort(found.indices[0])
        np.testing.assert_array_equal(found.indices[0][own], numbers[order])
        shares = functools.reduce(np.multiply.outer, samples.weights).ravel()
        np.testing.assert_allclose(found.weights[0][own], shares[order], rtol=1e-12)
        np.testing.assert_allclose(found.coordinates[own], samples.coordinates[order], atol=1e-6 * config.extent)
        local = np.stack([each.ravel() for each in np.meshgrid(*samples.local, indexing="ij")])
        np.testing.assert_allclose(found.local[:, own], local[:, order], atol=1e-9)
        total[found.indices[0]] += found.weights[0]
    np.testing.assert_allclose(total, 1, rtol=1e-12)


@settings(deadline=None, max_examples=200)
@given(axes_and_configs(), st.data())
def test_parts_are_those_of_the_whole(grid: tuple[tuple[Axis, ...], PatchConfig], data: st.DataObject) -> None:
    """Rows that come as soon as they are finished, in units, are those of a sum over the whole grid."""
    axes, config = grid
    unit = data.draw(st.integers(1, 3)) if axes[0].kind != "slice" else 1
    sizes = [unit * data.draw(st.integers(1, 20)), *(data.draw(st.integers(1, 60)) for _ in axes[1:])]
    targets = tuple(map(target_of, axes, sizes))
    patches = Patches.cover(axes, config)
    random = np.random.default_rng(0)
    rendered = [
        (samples, random.random((math.prod(map(len, samples.indices)), 2)).astype(np.float32))
        for samples in patches.resampled(targets)
    ]
    whole = np.zeros([axis.size for axis in targets] + [2])
    for samples, values in rendered:
        samples.accumulate(values, whole)
    parts = list(patches.joined(rendered, targets, 2, unit))
    assert all(len(part) and len(part) % unit == 0 for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5)


def test_a_long_signal_is_never_whole_in_memory() -> None:
    axes = Axis(1000), Axis(10)
    patches = Patches.cover(axes, PatchConfig((20, 10), (4, 0)))
    asked = []

    def rendered() -> Iterator[RenderedPatch]:
        for samples in patches.resampled(axes):
            asked.append(samples.patch)
            yield samples, np.ones((len(samples.coordinates), 1))

    parts = []
    for number, part in enumerate(patches.joined(rendered(), axes, 1)):
        assert len(asked) == number + 1
        parts.append(len(part))
    assert sum(parts) == 1000 and max(parts) <= 21


def test_rows_that_wait_for_the_end_are_not_copied_for_every_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = (Axis(2000),)
    patches = Patches.cover(axes, PatchConfig((20,), (4,)))
    copies = []
    concatenate = np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda parts: copies.append(1) or concatenate(parts))
    rendered = ((samples, np.ones((len(samples.coordinates), 1))) for samples in patches.resampled(axes))
    (whole,) = patches.joined(rendered, axes, 1, unit=2000)
    np.testing.assert_allclose(whole, 1, rtol=1e-6)
    assert len(copies) == 1


@settings(deadline=None, max_examples=100)
@given(axes_and_configs())
def test_patches_cover_every_sample_and_join_to_the_signal(
    grid: tuple[tuple[Axis, ...], PatchConfig],
) -> None:
    axes = grid[0]
    signal, patches = signal_of(axes), Patches.cover(*grid)
    indices = Signal("climate", np.arange(signal.samples).reshape(*signal.shape, 1), axes, (0.0, 1.0))
    seen = np.zeros(signal.samples, bool)
    for patch in range(len(patches)):
        inside = patches.values(indices, patch)[:, 0]
        assert len(inside) == patches.points == len(set(inside.tolist()))
        seen[inside] = True
    assert seen.all()

    joined = np.zeros(signal.values.shape)
    for patch, samples in enumerate(patches.resampled(axes)):
        samples.accumulate(patches.values(signal, patch).astype(np.float64), joined)
        np.testing.assert_array_equal(samples.coordinates, patches.coordinates(patch))
    np.testing.assert_allclose(joined, signal.values, rtol=1e-6)


@settings(deadline=None, max_examples=100)
@given(axes_and_configs())
def test_own_samples_lie_inside_the_patch(grid: tuple[tuple[Axis, ...], PatchConfig]) -> None:
    _, config = grid
    patches = Patches.cover(*grid)
    assert patches.shares_coordinates()
    first = patches.coordinates(0)
    assert first.shape == (patches.points, config.dimensions)
    assert first.dtype == np.float32
    assert (np.abs(first) <= config.extent).all()
    np.testing.assert_allclose(first, -first[::-1], atol=1e-5 * config.extent)  # centred
    np.testing.assert_array_equal(patches.coordinates(len(patches) - 1), first)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(KINDS[:-1]), st.integers(1, 400), st.integers(1, 40), st.data())
def test_patches_are_near_their_nominal_size(kind: str, size: int, nominal: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, nominal // 2))
    patches = Patches.cover((axis_of(kind, size),), PatchConfig((nominal,), (overlap,)))
    if size <= nominal:
        assert len(patches) == 1
        assert patches.points == size
    else:
        assert nominal / 2 <= patches.points <= 2 * nominal
        advance = size / len(patches)
        assert (nominal - overlap) / 2 <= advance <= 2 * nominal


def test_wanted_overlap_is_kept() -> None:
    for kind in ("cell", "periodic"):
        patches = Patches.cover((axis_of(kind, 100),), PatchConfig((16,), (4,)))
        starts = patches.axes[0].starts
        gaps = np.diff([*starts, starts[0] + 100] if kind == "periodic" else starts)
        assert patches.points - gaps.max() >= 4


def test_coordinates_are_the_middles_of_cells_in_row_major_order() -> None:
    patches = Patches.cover((Axis(2), Axis(4)), PatchConfig((2, 4), (0, 0), extent=8.0))
    rows, columns = [-4, 4], [-6, -2, 2, 6]
    np.testing.assert_allclose(patches.coordinates(0), [(row, column) for row in rows for column in columns])


def test_slices_are_patches_of_their_own() -> None:
    axes = (Axis(3, "slice"), Axis(4), Axis(6))
    patches = Patches.cover(axes, PatchConfig((4, 6), (0, 0)))
    signal = signal_of(axes)
    assert len(patches) == 3
    assert patches.coordinates(0).shape == (24, 2)
    for patch in range(3):
        np.testing.assert_array_equal(patches.values(signal, patch), signal.values[patch].reshape(24, 2))


def test_patches_are_numbered_along_the_last_axis_first() -> None:
    axes = (Axis(8), Axis(8))
    patches, signal = Patches.cover(axes, PatchConfig((4, 4), (0, 0))), signal_of(axes)
    for patch, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        box = signal.values[row : row + 4, column : column + 4].reshape(16, 2)
        np.testing.assert_array_equal(patches.values(signal, patch), box)


def test_a_periodic_patch_goes_on_at_the_beginning() -> None:
    axis = axis_of("periodic", 12)
    patches, signal = Patches.cover((axis,), PatchConfig((6,), (2,))), signal_of((axis,))
    starts = patches.axes[0].starts
    for patch, start in enumerate(starts):
        expected = signal.values[[(start + i) % 12 for i in range(patches.points)]]
        np.testing.assert_array_equal(patches.values(signal, patch), expected)
    assert max(starts) + patches.points > 12


@settings(deadline=None, max_examples=60)
@given(axes_and_configs(), st.integers(0, 5), st.data())
def test_a_field_that_knows_its_place_is_rebuilt_at_any_resolution(
    grid: tuple[tuple[Axis, ...], PatchConfig], seed: int, data: st.DataObject
) -> None:
    """Each patch is asked a function that is linear in the grid's position; blending must not bend it."""
    axes, config = grid
    axes = tuple(axis_of("cell", axis.size) if axis.kind == "periodic" else axis for axis in axes)
    slopes = np.random.default_rng(seed).normal(size=len(axes))
    patches = Patches.cover(axes, config)
    targets = tuple(target_of(axis, data.draw(st.integers(1, 60))) for axis in axes)
    rebuilt = np.zeros([axis.size for axis in targets] + [1])
    for patch, samples in enumerate(patches.resampled(targets)):
        index = np.unravel_index(patch, [len(axis.starts) for axis in patches.axes])
        places, column = [], 0
        for axis, i in zip(patches.axes, index, strict=True):
            if axis.axis.kind == "slice":
                places.append(np.full(len(samples.coordinates), float(axis.starts[i])))
                continue
            local = samples.coordinates[:, column].astype(np.float64) / config.extent
            places.append(axis.starts[i] - 0.5 + (local + 1) * axis.size / 2)
            column += 1
        samples.accumulate((np.stack(places, -1) @ slopes)[:, None], rebuilt)
    mesh = np.meshgrid(*(axis.positions(target) for axis, target in zip(axes, targets, strict=True)), indexing="ij")
    np.testing.assert_allclose(rebuilt[..., 0], np.stack(mesh, -1) @ slopes, atol=1e-4)


def test_a_patch_between_the_samples_of_a_low_resolution_adds_nothing() -> None:
    axes = (Axis(40), Axis(40))
    patches, onto = Patches.cover(axes, PatchConfig((8, 8), (0, 0))), np.zeros((2, 2, 3))
    counts = []
    for samples in patches.resampled(tuple(axis.resampled(2) for axis in axes)):
        counts.append(len(samples.coordinates))
        samples.accumulate(np.ones((counts[-1], 3)), onto)
    assert sorted(counts) == [0] * 21 + [1] * 4
    np.testing.assert_array_equal(onto, 1)


def test_weights_ramp_across_the_overlap() -> None:
    axis = axis_of("cell", 28)
    patches = Patches.cover((axis,), PatchConfig((16,), (4,)))
    assert (patches.axes[0].starts, patches.points) == ((0, 12), 16)
    left, right = patches.resampled((axis,))
    assert left.weights[0][:12].tolist() == [1.0] * 12
    np.testing.assert_allclose(left.weights[0][12:], [7 / 8, 5 / 8, 3 / 8, 1 / 8])
    np.testing.assert_allclose(right.weights[0][:4], [1 / 8, 3 / 8, 5 / 8, 7 / 8])


@pytest.mark.parametrize("kind", ["cell", "periodic"])
def test_random_patches(kind: str) -> None:
    axes = (Axis(2, "slice"), axis_of(kind, 9), Axis(7))
    signal, random = signal_of(axes), np.random.default_rng(0)
    starts = set()
    for _ in range(300):
        patches = Patches.random(axes, PatchConfig((4, 7), (1, 0)), random)
        assert (len(patches), patches.points) == (1, 28)
        slice_, row, column = (axis.starts[0] for axis in patches.axes)
        rows = (row + np.arange(4)) % 9
        expected = signal.values[slice_, rows][:, column : column + 7].reshape(28, 2)
        np.testing.assert_array_equal(patches.values(signal, 0), expected)
        starts.add((slice_, row, column))
    assert starts == {(s, row, 0) for s in range(2) for row in range(9 if kind == "periodic" else 6)}


def test_patches_need_a_size_for_every_axis() -> None:
    with pytest.raises(ValueError, match="2 axes, the patches 1"):
        Patches.cover((Axis(4), Axis(4)), PatchConfig((4,), (0,)))


@pytest.mark.parametrize(("shape", "overlap"), [((4, 4), (0,)), ((4,), (4,)), ((4,), (-1,)), ((0,), (0,))])
def test_impossible_configurations(shape: tuple[int, ...], overlap: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="overlap"):
        PatchConfig(shape, overlap)


def test_configurations_come_back_from_json() -> None:
    assert PatchConfig([4, 6], [1, 0]) == PatchConfig((4, 6), (1, 0))  # type: ignore[arg-type]
    assert PatchConfig((4, 6), (1, 0)).dimensions == 2
    assert PatchConfig((4, 6), (1, 0), sphere=True).dimensions == 3


# The globe


def globe(rows: int = 13, columns: int = 24, *, north_first: bool = True) -> tuple[Axis, Axis]:
    latitudes = np.linspace(90, -90, rows) if north_first else np.linspace(-90, 90, rows)
    longitudes = np.arange(columns) * 360 / columns
    return Axis(rows, "node", points=latitudes), Axis(columns, "periodic", points=longitudes)


def on_sphere(latitude: float, longitude: float) -> np.ndarray:
    phi, lam = math.radians(latitude), math.radians(longitude)
    return np.array([math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)])


def great_circle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the haversine distance in radians of points [..., 2] in degrees."""
    (lat_a, lon_a), (lat_b, lon_b) = np.moveaxis(np.radians(a), -1, 0), np.moveaxis(np.radians(b), -1, 0)
    half = np.sin((lat_a - lat_b) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_a - lon_b) / 2) ** 2
    return 2 * np.arcsin(np.sqrt(half))


def test_unit_vectors_of_known_points() -> None:
    places = np.array([90.0, 0.0, -90.0])[:, None], np.array([0.0, 90.0, 180.0, 270.0])
    vectors = unit_vectors(*places, (0.0, 0.0)).reshape(-1, 3)
    vectors = vectors.reshape(3, 4, 3)
    np.testing.assert_allclose(vectors[0], [[0, 0, 1]] * 4, atol=1e-15)
    np.testing.assert_allclose(vectors[2], [[0, 0, -1]] * 4, atol=1e-15)
    np.testing.assert_allclose(vectors[1], [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], atol=1e-15)


@pytest.mark.parametrize("middle", [(0.0, 0.0), (52.5, 13.4), (-90.0, 77.0), (30.0, 350.0)])
def test_unit_vectors_are_turned_so_that_the_middle_is_in_front(middle: tuple[float, float]) -> None:
    np.testing.assert_allclose(unit_vectors(*np.array(middle)[:, None], middle), [[1, 0, 0]], atol=1e-15)
    east = unit_vectors(np.array([middle[0]]), np.array([middle[1] + 1e-3]), middle)[0]
    north = unit_vectors(np.array([middle[0] + 1e-3]), np.array([middle[1]]), middle)[0]
    assert east[1] > 0 or middle[0] == -90
    np.testing.assert_allclose(north[2], math.radians(1e-3), rtol=1e-6)
    random = np.random.default_rng(0)
    places = np.stack([random.uniform(-90, 90, 30), random.uniform(-180, 360, 30)], -1)
    turned = np.stack([unit_vectors(*place[:, None], middle)[0] for place in places])
    plain = np.stack([on_sphere(*place) for place in places])
    np.testing.assert_allclose(turned @ turned.T, plain @ plain.T, atol=1e-12)


@pytest.mark.parametrize("north_first", [True, False])
@pytest.mark.parametrize("extent", [1.0, 3.0])
def test_the_whole_globe_is_the_unit_sphere(extent: float, north_first: bool) -> None:
    latitude, longitude = axes = globe(north_first=north_first)
    patches = Patches.cover(axes, PatchConfig((13, 24), (0, 0), extent=extent, sphere=True))
    assert len(patches) == 1
    coordinates = patches.coordinates(0).reshape(13, 24, 3) / extent
    assert latitude.points is not None and longitude.points is not None
    plain = np.array([[on_sphere(lat, lon) for lon in longitude.points] for lat in latitude.points])
    np.testing.assert_allclose(coordinates[..., 2], plain[..., 2], atol=1e-6)
    # Turned about the vertical by the same angle everywhere.
    angle = math.atan2(coordinates[6, 0, 1], coordinates[6, 0, 0])
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(coordinates, plain @ turn.T, atol=1e-6)


def fine_globe() -> tuple[Axis, Axis]:
    return globe(721, 1440)


@pytest.mark.parametrize(
    ("top", "left"),
    [(90.0, 0.0), (90.0, 200.0), (-82.25, 30.0), (4.0, 100.0), (50.0, 356.0), (-30.0, 359.0)],
    ids=[
        "north pole",
        "north pole, far side",
        "south pole",
        "equator",
        "across Greenwich",
        "across Greenwich, south",
    ],
)
def test_small_patches_are_undistorted_wherever_they_lie(top: float, left: float) -> None:
    axes = fine_globe()
    random = _StartsAt(round((90 - top) * 4), round(left * 4))
    patches = Patches.random(axes, PatchConfig((32, 32), (2, 2), sphere=True), random)  # type: ignore[arg-type]
    coordinates = patches.coordinates(0).reshape(32, 32, 3).astype(np.float64)
    places = np.stack(np.meshgrid(top - 0.25 * np.arange(32), left + 0.25 * np.arange(32), indexing="ij"), axis=-1)
    assert np.abs(coordinates).max() <= 1
    assert np.linalg.norm(coordinates, axis=-1).max() == pytest.approx(1, abs=0.01)

    distances, seen = [], []
    for step in ((1, 0), (0, 1), (1, 1)):
        distances.append(great_circle(*_shifted(places, step)).ravel())
        here, there = _shifted(coordinates, step)
        seen.append(np.linalg.norm(here - there, axis=-1).ravel())
    scale = seen[0][0] / distances[0][0]
    np.testing.assert_allclose(np.concatenate(seen), scale * np.concatenate(distances), rtol=0.02, atol=2e-6)


class _StartsAt:
    """Stand in for a random generator, to cut a patch at a given place."""

    def __init__(self, *starts: int) -> None:
        self.starts = iter(starts)

    def integers(self, high: int) -> int:
        start = next(self.starts)
        assert start < high
        return start


def _shifted(values: np.ndarray, step: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = values.shape[0] - step[0], values.shape[1] - step[1]
    return values[:rows, :columns], values[step[0] :, step[1] :]


@st.composite
def globes(draw: st.DrawFn) -> tuple[tuple[Axis, Axis], PatchConfig]:
    rows, columns = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    first, last = draw(st.floats(-90, 90)), draw(st.floats(-90, 90))
    if abs(first - last) < 1:
        last = first + 5 if first < 0 else first - 5
    west = draw(st.floats(-180, 180))
    if draw(st.booleans()):
        longitude = Axis(columns, "periodic", points=west + np.arange(columns) * 360 / columns)
    else:
        longitude = Axis(columns, "node", points=west + np.linspace(0, draw(st.floats(1, 350)), columns))
    shape = draw(st.integers(2, 16)), draw(st.integers(2, 16))
    overlap = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
    return (Axis(rows, "node", points=np.linspace(first, last, rows)), longitude), PatchConfig(
        shape, overlap, sphere=True
    )


@settings(deadline=None, max_examples=100)
@given(globes())
def test_own_samples_of_the_globe_lie_inside_the_patch(grid: tuple[tuple[Axis, Axis], PatchConfig]) -> None:
    axes, _ = grid
    patches = Patches.cover(*grid)
    signal = signal_of(axes, sphere=True)
    for patch, samples in enumerate(patches.resampled(axes)):
        coordinates = patches.coordinates(patch)
        assert coordinates.shape == (patches.points, 3)
        assert (np.abs(coordinates) <= 1 + 1e-4).all()
        np.testing.assert_array_equal(samples.coordinates, coordinates)
    joined = np.zeros(signal.values.shape)
    for patch, samples in enumerate(patches.resampled(axes)):
        samples.accumulate(patches.values(signal, patch).astype(np.float64), joined)
    np.testing.assert_allclose(joined, signal.values, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(globes(), st.integers(1, 40), st.integers(1, 40))
def test_patches_of_the_globe_are_turned_and_scaled_pieces_of_it(
    grid: tuple[tuple[Axis, Axis], PatchConfig], rows: int, columns: int
) -> None:
    """At any resolution, distances within a patch are those on the sphere times one factor."""
    axes, _ = grid
    targets = axes[0].resampled(rows), axes[1].resampled(columns)
    assert targets[0].points is not None and targets[1].points is not None
    for samples in Patches.cover(*grid).resampled(targets):
        latitudes, longitudes = (axis.points[index] for axis, index in zip(targets, samples.indices, strict=True))
        plain = np.array([on_sphere(lat, lon) for lat in latitudes for lon in longitudes]).reshape(-1, 3)
        seen = samples.coordinates.astype(np.float64)
        if len(plain) < 2:
            continue
        true = np.linalg.norm(plain - plain[0], axis=1)
        ours = np.linalg.norm(seen - seen[0], axis=1)
        farthest = int(true.argmax())
        if true[farthest] > 1e-3:
            np.testing.assert_allclose(ours, true * ours[farthest] / true[farthest], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("north", [True, False])
def test_a_cap_about_the_pole_fills_its_coordinates(north: bool) -> None:
    latitudes = np.linspace(90, 75, 7) if north else np.linspace(-75, -90, 7)
    axes = Axis(7, "node", points=latitudes), globe(7, 24)[1]
    coordinates = Patches.cover(axes, PatchConfig((7, 24), (0, 0), sphere=True)).coordinates(0)
    assert np.linalg.norm(coordinates, axis=-1).max() == pytest.approx(1, abs=0.05)


def test_patches_of_the_globe_do_not_share_coordinates() -> None:
    patches = Patches.cover(globe(25, 48), PatchConfig((8, 8), (2, 2), sphere=True))
    assert not patches.shares_coordinates()


def test_a_patch_across_the_seam_is_as_any_other_of_its_latitude() -> None:
    patches = Patches.cover(globe(25, 48), PatchConfig((25, 12), (0, 4), sphere=True))
    first = patches.coordinates(0)
    assert len(patches) > 2
    for patch in range(1, len(patches)):
        np.testing.assert_allclose(patches.coordinates(patch), first, atol=1e-6)


# Axes


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(KINDS), st.integers(1, 50))
def test_the_same_resolution_has_whole_positions(kind: str, size: int) -> None:
    axis = axis_of(kind, size)
    assert axis.positions(axis).tolist() == list(range(size))
    assert axis.resampled(size) is axis


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(KINDS[:-1]), st.integers(1, 50), st.integers(1, 120))
def test_positions_stay_on_the_axis(kind: str, size: int, other: int) -> None:
    axis = axis_of(kind, size)
    target = axis.resampled(other)
    positions = axis.positions(target)
    assert (target.size, target.kind, len(positions)) == (other, kind, other)
    assert (np.diff(positions) >= 0).all()
    half = 0.5 if kind == "cell" else 0
    end = size if kind == "periodic" else size - 1 + half
    assert -half <= positions.min() and positions.max() <= end


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cell", [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]),
        ("start", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]),
        ("node", [i * 3 / 7 for i in range(8)]),
        ("periodic", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]),
    ],
)
def test_positions_of_twice_the_samples(kind: str, expected: list[float]) -> None:
    axis = axis_of(kind, 4)
    np.testing.assert_allclose(axis.positions(axis.resampled(8)), expected)


def test_slices_have_no_other_resolution() -> None:
    with pytest.raises(ValueError, match="slice"):
        Axis(3, "slice").positions(Axis(4, "slice"))


def test_rates() -> None:
    axis = Axis(8000, "start", rate=Fraction(8000))
    assert (axis.resampled(16000).rate, axis.resampled(4000).rate) == (16000, 4000)
    finer = axis.at_rate(Fraction(44100))
    assert (finer.size, finer.rate) == (44100, 44100)
    np.testing.assert_allclose(axis.positions(finer)[:3], [0, 8000 / 44100, 16000 / 44100])
    coarse = Axis(10, "start", rate=Fraction(30000, 1001)).at_rate(Fraction(1))
    assert coarse.size == 1
    with pytest.raises(ValueError, match="no rate"):
        Axis(3).at_rate(Fraction(2))


def test_degrees_of_resampled_axes() -> None:
    latitude, longitude = globe(7, 12)
    np.testing.assert_allclose(latitude.resampled(13).points, np.linspace(90, -90, 13))
    np.testing.assert_allclose(longitude.resampled(48).points, np.arange(48) * 7.5)
    np.testing.assert_allclose(latitude.resampled(1).points, [90])


def test_degrees_between_and_beyond_the_samples() -> None:
    axis = Axis(3, "node", points=np.array([10.0, 20.0, 40.0]))
    np.testing.assert_allclose(axis.points_at(np.array([0.5, 1, 1.5, -1, 3])), [15, 20, 30, 0, 60])
    np.testing.assert_allclose(Axis(1, "node", points=np.array([7.0])).points_at(np.array([0, 3.5])), [7, 7])
    with pytest.raises(ValueError, match="no points"):
        Axis(3).points_at(np.array([1.0]))


# What fields are shown


def test_values_are_shown_in_the_unit_interval() -> None:
    values = np.array([[0], [51], [255]], np.uint8)
    signal = Signal("image", values[None], (Axis(1), Axis(3)), (0.0, 255.0))
    np.testing.assert_allclose(unit_values(signal, values), [[0], [0.2], [1]])


@pytest.mark.parametrize("normalize", [True, False])
def test_context_sets_are_the_patches_values_and_coordinates(normalize: bool) -> None:
    axes = (Axis(9), Axis(12))
    signal = signal_of(axes, 3)
    patches = Patches.cover(axes, PatchConfig((5, 6), (1, 2), normalize=normalize))
    context_sets = patch_context_sets(signal, patches, 3)
    assert len(context_sets) == len(patches)
    assert context_sets.values.dtype == context_sets.coordinates.dtype == np.float32
    rebuilt = context_sets.normalization.invert(context_sets.values)
    for patch in range(len(patches)):
        np.testing.assert_allclose(rebuilt[patch], patches.values(signal, patch), atol=1e-6)
        np.testing.assert_array_equal(context_sets.coordinates[0], patches.coordinates(patch))
        if not normalize:
            np.testing.assert_allclose(context_sets.values[patch], patches.values(signal, patch), atol=1e-6)


def test_context_sets_of_the_globe_have_coordinates_of_their_own() -> None:
    axes = globe(25, 48)
    patches = Patches.cover(axes, PatchConfig((8, 8), (2, 2), sphere=True))
    context_sets = patch_context_sets(signal_of(axes, 1, sphere=True), patches, 1)
    assert context_sets.coordinates.shape == (len(patches), patches.points, 3)
    part = context_sets[slice(2, 5)]
    np.testing.assert_array_equal(part.coordinates[1], patches.coordinates(3))
    np.testing.assert_array_equal(part.values, context_sets.values[2:5])
    np.testing.assert_array_equal(part.normalization.means, context_sets.normalization.means[2:5])


def test_one_channel_is_shown_to_every_output() -> None:
    grey = np.random.default_rng(0).random((4, 5, 1))
    shown = field_channels(grey, 3)
    assert shown.shape == (4, 5, 3)
    np.testing.assert_allclose(signal_channels(shown, 1), grey)
    colour = np.random.default_rng(0).random((4, 5, 3))
    assert signal_channels(field_channels(colour, 3), 3) is colour


def test_batches_of_context_sets_are_bounded() -> None:
    axes = (Axis(40), Axis(40))
    context_sets = patch_context_sets(signal_of(axes), Patches.cover(axes, PatchConfig((8, 8), (0, 0))), 2)
    covered: list[int] = []
    for part in context_sets.batches(200):
        numbers = list(range(len(context_sets)))[part]
        assert 0 < len(numbers) * 64 <= 200
        covered += numbers
    assert covered == list(range(25))
    assert len(context_sets.batches(10)) == 25


@pytest.fixture(autouse=True)
def errors_of_numpy() -> Iterator[None]:
    with np.errstate(all="raise", under="ignore"):
        yield


def test_a_patch_covers_all_samples_within_its_edges() -> None:
    random = np.random.default_rng(0)
    for number in range(160):
        kind = KINDS[number % 4]
        size, wanted, nominal = (int(random.integers(1, limit)) for limit in (60, 150, 40))
        axis, config = axis_of(kind, size), PatchConfig((nominal,), (int(random.integers(nominal)),))
        target = axis.resampled(wanted)
        patches = Patches.cover((axis,), config)
        positions = axis.positions(target)
        for start, samples in zip(patches.axes[0].starts, patches.resampled((target,)), strict=True):
            turns = (-size, 0, size) if kind == "periodic" else (0,)
            local = positions[:, None] + turns - (start - 0.5)
            inside = np.flatnonzero(((local >= 0) & (local < patches.points)).any(1))
            edge = np.flatnonzero((local == patches.points).any(1))  # belongs to both patches
            found = set(samples.indices[0].tolist())
            assert set(inside.tolist()) <= found <= set(inside.tolist()) | set(edge.tolist())


def test_a_slice_that_was_drawn_covers_itself() -> None:
    axes = (axis_of("slice", 50), axis_of("cell", 8))
    patches = Patches.random(axes, PatchConfig((8,), (0,)), np.random.default_rng(3))
    (samples,) = patches.resampled(axes)
    assert samples.indices[0].tolist() == list(patches.axes[0].starts) != [0]


@pytest.mark.parametrize(
    ("slices", "sizes"), [(1, [1]), (5, [5]), (6, [6]), (7, [7]), (12, [6, 6]), (14, [7, 7]), (13, [7, 6])]
)
def test_slices_come_in_groups_where_patches_have_a_number_for_them(slices: int, sizes: list[int]) -> None:
    """All groups have the size of the first; the last one is filled up with its last slice, which nobody asks for."""
    axes = (Axis(slices, "slice"), Axis(4, "node"), Axis(5, "periodic"))
    signal = signal_of(axes, 1)
    patches = Patches.cover(axes, PatchConfig((6, 4, 5), (0, 0, 0)))
    assert patches.shape == (sizes[0], 4, 5) and patches.closed == (False, False, True) and len(patches) == len(sizes)
    asked = [samples.indices[0] for samples in patches.resampled(axes)]
    assert [len(each) for each in asked] == sizes
    np.testing.assert_array_equal(np.concatenate(asked), np.arange(slices))
    last = patches.values(signal, len(sizes) - 1).reshape(sizes[0], 20)
    np.testing.assert_array_equal(last, signal.values[patches.first_samples(len(sizes) - 1)].reshape(-1, 20))
    for filled in last[sizes[-1] :]:
        np.testing.assert_array_equal(filled, signal.values[-1].ravel())


def test_what_a_patch_covers_does_not_take_the_whole_axis() -> None:
    """A day of sound takes as little as a second."""
    axis = Axis(10**10, "start", rate=Fraction(48000))
    patches = Patches.cover((axis,), PatchConfig((1 << 16,), (256,)))
    last = len(patches) - 1
    before, middle, after = (patches.coverage((axis,)).samples(last // 2 + step) for step in (-1, 0, 1))
    total = np.zeros(axis.size // last * 4)
    first = int(before.indices[0][0])
    for each in (before, middle, after):
        total[each.indices[0] - first] += each.weights[0]
    np.testing.assert_allclose(total[middle.indices[0] - first], 1)
    assert patches.coverage((axis,)).samples(last).indices[0][-1] == axis.size - 1
    half = axis.at_rate(Fraction(24000))
    assert patches.coverage((half,)).samples(last).indices[0][-1] == half.size - 1
    assert last in patches.coverage((axis,)).between(axis.size - 5, axis.size)


@pytest.mark.parametrize(
    ("sizes", "size", "count"),
    [((100, 721, 1440), 17, 6), ((32, 33, 49), 32, 1), ((9, 4000, 5000), 1, 9), ((23, 721, 1440), 23, 1)],
)
def test_groups_of_large_fields_are_short(sizes: tuple[int, ...], size: int, count: int) -> None:
    axes = (Axis(sizes[0], "slice"), Axis(sizes[1], "node"), Axis(sizes[2], "periodic"))
    patches = Patches.cover(axes, PatchConfig((32, 8192, 8192), (0, 16, 16)))
    assert patches.shape[0] == size and len(patches) == count
