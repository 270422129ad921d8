"""A signal of any size as overlapping patches, each the domain of one field; and back, without seams.

A patch is a box of the sampling grid (or a region of the globe); the field sees it as [-1, 1]^d, whatever its size
in samples, so one initialization serves signals of all sizes. Neighbouring patches overlap; where they do, the
reconstruction is a weighted mean whose weights ramp from one patch to the next and sum to one.
"""

import functools
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inrcodec.axis_patches import AxisCoverage, AxisPatches, axis_layout, cover_axis
from inrcodec.models import Positions
from inrcodec.signals.lazy import AnySignal, Window
from inrcodec.signals.signal import Axis
from inrcodec.sphere import Region, flat_coordinates

BLOCK_VALUES = 1 << 20
"""Points of a patch that are weighted at once, about: they take float64."""


MAX_GROUP = 1 << 24
"""Samples of a group of slices, about: groups of large fields are short, as a group is in memory as a whole."""

MAX_PATCH = 1 << 31
MAX_EXTENT = 1 << 16
"""Limits of a configuration: samples along an axis, and coordinates."""


@dataclass(frozen=True)
class PatchConfig:
    """How an initialization wants signals cut.

    shape: nominal samples of a patch along each axis that is not a "slice"; the patches of a signal get the sizes
        nearest to it that cover the signal evenly. Where there is a number for the slices too, they come in groups, of
        which those of large fields are shorter (`MAX_GROUP`).
    overlap: samples shared by neighbouring patches, per axis.
    extent: coordinates run over [-extent, extent] (GradNCP: 1, and 50 for audio).
    normalize: every patch is shifted by its channel means and scaled to about unit contrast before it is fitted;
        False shows the field the values in [0, 1] as they are, as the papers do.
    sphere: the coordinates are points of the unit sphere (x, y, z), not of the grid.
    """

    shape: tuple[int, ...]
    overlap: tuple[int, ...]
    extent: float = 1.0
    normalize: bool = True
    sphere: bool = False

    def __post_init__(self) -> None:
        # Configurations come back from JSON with lists for tuples.
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "overlap", tuple(self.overlap))
        if type(self.normalize) is not bool or type(self.sphere) is not bool:
            raise ValueError(f"neither true nor false: {self.normalize = }, {self.sphere = }")
        if len(self.shape) != len(self.overlap):
            raise ValueError(f"shape and overlap need one number per axis: {self.shape = }, {self.overlap = }")
        if type(self.extent) not in (int, float) or not 0 < self.extent <= MAX_EXTENT:
            raise ValueError(f"coordinates cannot run to {self.extent!r:.80}")
        if not all(type(number) is int and number <= MAX_PATCH for number in (*self.shape, *self.overlap)):
            raise ValueError(f"patch sizes are integers up to {MAX_PATCH}: {self.shape!r:.80}, {self.overlap!r:.80}")
        if self.sphere and len(self.shape) != 2:
            raise ValueError(f"patches of the sphere have two axes: {self.shape!r:.80}")
        if any(not 0 <= overlap < size for size, overlap in zip(self.shape, self.overlap, strict=True)):
            raise ValueError(f"overlap must be smaller than the patch: {self.shape = }, {self.overlap = }")

    @property
    def dimensions(self) -> int:
        """d, the number of coordinates of a point."""
        return 3 if self.sphere else len(self.shape)


def _along_axes(axes: tuple[Axis, ...], config: PatchConfig) -> list[tuple[Axis, int, int]]:
    """Return every axis with its nominal patch size and overlap."""
    if not fits(axes, config):
        regular = sum(axis.kind != "slice" for axis in axes)
        raise ValueError(f"the grid has {regular} axes, the patches {len(config.shape)}")
    numbers = iter(zip(config.shape, config.overlap, strict=True))
    points = math.prod(axis.size for axis in axes)
    along = []
    for axis in axes:
        size, overlap = (1, 0) if _is_single(axis, axes, config) else next(numbers)
        if axis.kind == "slice":
            size = min(size, max(1, MAX_GROUP * axis.size // points))
        along.append((axis, size, overlap))
    return along


def fits(axes: Sequence[Axis], config: PatchConfig) -> bool:
    """Say whether a grid can be cut into patches: they have a number for each axis, but need none for slices."""
    regular = sum(axis.kind != "slice" for axis in axes)
    return len(config.shape) in (regular, len(axes))


def _is_single(axis: Axis, axes: Sequence[Axis], config: PatchConfig) -> bool:
    """Say whether an axis is of slices that patches have one each of."""
    return axis.kind == "slice" and len(config.shape) < len(axes)


def patch_layout(axes: tuple[Axis, ...], config: PatchConfig) -> tuple[int, tuple[int, ...]]:
    """Return how many patches cover a grid, and their samples along the axes that they have a number for.

    This costs nothing, however large the grid.
    """
    layouts = [axis_layout(*along) for along in _along_axes(axes, config)]
    shape = tuple(size for axis, (_, size) in zip(axes, layouts, strict=True) if not _is_single(axis, axes, config))
    return math.prod(count for count, _ in layouts), shape


@dataclass(frozen=True)
class Patches:
    """The patches of one signal, numbered along the last axis first.

    axes: the patches along each axis of the signal, slices included.
    """

    axes: tuple[AxisPatches, ...]
    config: PatchConfig

    @classmethod
    def cover(cls, axes: tuple[Axis, ...], config: PatchConfig) -> "Patches":
        """Return the patches that cover a grid; encoder and decoder derive them from the same header.

        Raises: ValueError if the grid's axes that are not slices are not as many as `config.shape`.
        """
        return cls(tuple(cover_axis(*along) for along in _along_axes(axes, config)), config)

    @classmethod
    def random(cls, axes: tuple[Axis, ...], config: PatchConfig, random: np.random.Generator) -> "Patches":
        """Return one patch of nominal size anywhere on a grid at least as large."""
        chosen = []
        for axis, size, _ in _along_axes(axes, config):
            choices = axis.size if axis.kind == "periodic" else axis.size - size + 1
            chosen.append(AxisPatches(axis, size, (int(random.integers(choices)),)))
        return cls(tuple(chosen), config)

    def __len__(self) -> int:
        return math.prod(len(axis.starts) for axis in self.axes)

    @property
    def points(self) -> int:
        """How many samples one patch has."""
        return math.prod(axis.size for axis in self.axes)

    def index(self, patch: int) -> tuple[int, ...]:
        """Return the place of a patch along each axis."""
        return tuple(int(i) for i in np.unravel_index(patch, [len(axis.starts) for axis in self.axes]))

    def first_samples(self, patch: int) -> np.ndarray:
        """Return the samples of a patch along the first axis; of a slice axis its slices."""
        return self.axes[0].samples(self.index(patch)[0])

    def samples(self, patch: int) -> list[np.ndarray]:
        """Return the indices of a patch's samples along each axis."""
        return [axis.samples(i) for axis, i in self.along(patch)]

    def values(self, signal: AnySignal | Window, patch: int) -> np.ndarray:
        """Return the signal's native values in a patch, [points, C]."""
        own, *others = self.samples(patch)
        first, last = int(own.min()), int(own.max())
        part = signal.part(first, last + 1)
        return part.values[np.ix_(own - first, *others)].reshape(-1, signal.channels)

    def coordinates(self, patch: int) -> np.ndarray:
        """Return the coordinates of a patch's own samples, [points, d] float32."""
        return self.coordinates_at(patch, [axis.starts[i] + np.arange(axis.size) for axis, i in self.along(patch)])

    def shares_coordinates(self) -> bool:
        """Say whether `coordinates` is the same for every patch (it is, but on the globe)."""
        return not self.on_globe

    @property
    def shape(self) -> tuple[int, ...]:
        """How many samples one patch has along each axis that `config` has a number for."""
        return tuple(axis.size for axis in self._counted)

    @property
    def closed(self) -> tuple[bool, ...]:
        """Whether a patch goes all around, for each of these axes."""
        return tuple(axis.axis.kind == "periodic" and axis.size == axis.axis.size for axis in self._counted)

    @property
    def _counted(self) -> list[AxisPatches]:
        """The axes that `config` has a number for."""
        return [each for each, single in zip(self.axes, self.singles, strict=True) if not single]

    @property
    def singles(self) -> tuple[bool, ...]:
        """Say of every axis whether it is of slices that patches have one each of."""
        axes = [each.axis for each in self.axes]
        return tuple(_is_single(axis, axes, self.config) for axis in axes)

    @property
    def on_globe(self) -> bool:
        """Whether the field is for the sphere and the grid has latitudes and longitudes."""
        return self.config.sphere and all(axis.axis.points is not None for axis in self.axes[-2:])

    def resampled(self, targets: tuple[Axis, ...]) -> Iterator["PatchSamples"]:
        """Yield for every patch in turn the samples it covers of the same signal's grid at another resolution."""
        coverage = self.coverage(targets)
        return (coverage.samples(patch) for patch in range(len(self)))

    def at_points(self, patch: int, points: np.ndarray) -> "PatchPoints":
        """Return what a patch has to do with points [axes, n], in samples, within half a sample of the grid."""
        numbers, share = np.arange(points.shape[1]), np.ones(points.shape[1])
        positions = points.astype(np.float64)
        for number, (axis, i) in enumerate(self.along(patch)):
            inside, along, own = axis.shares(i, positions[number])
            numbers, share, positions = numbers[inside], share[inside] * own, positions[:, inside]
            positions[number] = along
        return PatchPoints(self, patch, (numbers,), tuple(positions), (share,))

    def coverage(self, targets: tuple[Axis, ...]) -> "Coverage":
        """Return what each patch covers of the same signal's grid at another resolution."""
        return Coverage(self, tuple(axis.resampled(target) for axis, target in zip(self.axes, targets, strict=True)))

    def joined(
        self, rendered: Iterable["RenderedPatch"], grid: tuple[Axis, ...], channels: int, unit: int = 1
    ) -> Iterator[np.ndarray]:
        """Yield the patches' weighted sum over `grid`, [rows, *grid, C] float32.

        One part of the first axis comes after the other, each as soon as no patch to come covers it, so that a long
        video is never whole in memory.

        rendered: every patch in turn, as from `resampled(grid)`. unit: parts are multiples of it; the axis is one.
        """
        size = grid[0].size
        along = self.axes[0].resampled(grid[0])
        begins = [int(along[i][0].min(initial=size)) for i in range(1, len(self.axes[0].starts))]
        finished = np.minimum.accumulate([size, *reversed(begins)])[::-1] // unit * unit
        per_part = len(self) // len(finished)
        begin, rows = 0, np.zeros((0, *(axis.size for axis in grid[1:]), channels), np.float32)
        for number, (samples, values) in enumerate(rendered):
            part, left = divmod(number + 1, per_part)
            end = max(samples.indices[0].max(initial=-1) + 1, 0 if left else finished[part - 1])
            if end > begin + len(rows):  # at once as many rows as the next part has, or each patch would copy all
                end = max(end, finished[np.searchsorted(finished, begin, "right")])
                rows = np.concatenate((rows, np.zeros((end - begin - len(rows), *rows.shape[1:]), np.float32)))
            samples.accumulate(values, rows, begin)
            if not left and finished[part - 1] > begin:
                count = finished[part - 1] - begin
                yield rows[:count]
                begin, rows = begin + count, rows[count:].copy()

    def along(self, patch: int) -> Iterator[tuple[AxisPatches, int]]:
        """Return every axis's patches, and which of them this one is."""
        return zip(self.axes, self.index(patch), strict=True)

    def coordinates_at(self, patch: int, positions: Positions) -> np.ndarray:
        """Return the coordinates at the product of per-axis `positions` (in samples), or at points: [n, d] float32."""
        single = isinstance(positions, np.ndarray)
        if self.on_globe:
            (latitude, i), (longitude, j) = list(self.along(patch))[-2:]
            region = Region.of(
                latitude.axis.points_at(latitude.starts[i] + np.arange(latitude.size)),
                longitude.axis.points_at(longitude.starts[j] + np.arange(longitude.size)),
                around=longitude.axis.kind == "periodic" and longitude.size == longitude.axis.size,
            )
            places = latitude.axis.points_at(positions[-2]), longitude.axis.points_at(positions[-1])
            coordinates = region.coordinates_of(*places) if single else region.coordinates(*places)
            return (self.config.extent * coordinates).astype(np.float32)
        local = [
            axis.local(i, along)
            for (axis, i), along, left_out in zip(self.along(patch), positions, self.singles, strict=True)
            if not left_out
        ]
        mesh = np.stack(local if single else np.meshgrid(*local, indexing="ij"), axis=-1).reshape(-1, len(local))
        if self.config.sphere:
            mesh = flat_coordinates(mesh)
        return (self.config.extent * mesh).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Coverage:
    """What patches cover of a grid. along: the same for every axis."""

    patches: Patches
    along: tuple[AxisCoverage, ...]

    def samples(self, patch: int, begin: int = 0, end: int | None = None) -> "PatchSamples":
        """Return the samples that a patch covers. begin, end: only those with such indices of the first axis."""
        parts = [axis[i] for axis, i in zip(self.along, self.patches.index(patch), strict=True)]
        if end is not None:
            indices, positions, weights = parts[0]
            within = (indices >= begin) & (indices < end)
            parts[0] = indices[within], positions[within], weights[within]
        return self._chosen(patch, parts)

    def corner(self, patch: int) -> "PatchSamples":
        """Return one of the samples that a patch covers: to ask least where none is wanted."""
        parts = [axis[i] for axis, i in zip(self.along, self.patches.index(patch), strict=True)]
        return self._chosen(patch, [(part[0][:1], part[1][:1], part[2][:1]) for part in parts])

    def _chosen(self, patch: int, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> "PatchSamples":
        indices, positions, weights = (tuple(part[kind] for part in parts) for kind in range(3))
        return PatchSamples(self.patches, patch, indices, positions, weights)

    def between(self, begin: int, end: int) -> range:
        """Return the numbers of the patches around some indices of the first axis, of the signal's own grid."""
        axis = self.patches.axes[0]
        last = bisect_left(axis.starts, end) - 1
        first = min(bisect_left(axis.starts, begin - axis.size + 1), last)
        each = len(self.patches) // len(axis.starts)
        return range(first * each, (last + 1) * each)


@dataclass(frozen=True, eq=False)
class PatchSamples:
    """The contribution of one patch to a resampled grid.

    patches, patch: which patch of which.
    indices: per axis, the grid indices it covers; weights: per axis, its share there.
    positions: per axis, where they lie in samples of the signal; on a closed axis they may run past the end.
    """

    patches: Patches
    patch: int
    indices: tuple[np.ndarray, ...]
    positions: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]

    @cached_property
    def coordinates(self) -> np.ndarray:
        """[points, d] float32, in C order of the indices."""
        return self.patches.coordinates_at(self.patch, list(self.positions))

    @property
    def local(self) -> Positions:
        """The positions in samples of the patch, along the axes that its configuration has a number for."""
        along = self.patches.along(self.patch)
        return [
            positions - axis.starts[i]
            for (axis, i), positions, single in zip(along, self.positions, self.patches.singles, strict=True)
            if not single
        ]

    def accumulate(self, values: np.ndarray, onto: np.ndarray, begin: int = 0) -> None:
        """Add the patch's weighted `values` [points, C] to a part of the grid.

        onto: [*shape, C], the part of the grid from index `begin` of its first axis on.
        """
        first, *others = self.indices
        own, *weights = self.weights
        shape = [len(index) for index in self.indices]
        each = values.reshape(*shape, onto.shape[-1])
        share = functools.reduce(np.multiply.outer, weights, np.ones(()))[..., None]
        rows = max(1, BLOCK_VALUES // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], rows):
            part = slice(start, start + rows)
            along = own[part].reshape(-1, *(1 for _ in shape))
            with np.errstate(over="ignore", invalid="ignore"):  # of what networks of strangers give
                onto[np.ix_(first[part] - begin, *others)] += each[part] * along * share


@dataclass(frozen=True, eq=False)
class PatchPoints(PatchSamples):
    """The contribution of one patch to single points.

    indices: (the numbers of the points that it covers,). weights: (its share at each,). positions: of these points
    along each axis.
    """

    @cached_property
    def coordinates(self) -> np.ndarray:
        """[n, d] float32."""
        return self.patches.coordinates_at(self.patch, np.stack(self.positions))

    @property
    def local(self) -> np.ndarray:
        """[axes, n], the positions in samples of the patch, along the axes that its configuration has a number for."""
        return np.array(super().local)


RenderedPatch = tuple[PatchSamples, np.ndarray]
"""A patch and its field's values there, [points, C]."""


def unknown_patch(samples: PatchSamples, channels: int) -> RenderedPatch:
    """Return a patch of which nothing is known, in the middle of the value range."""
    points = math.prod(len(index) for index in samples.indices)
    return samples, np.full((points, channels), 0.5, np.float32)
