"""The symbols of a residual, coded with weights and rows that adapt to them.

They are coded over the last two axes of the grid from coarse to fine: a level doubles a lattice along both axes, and of
the points that it adds, a first *phase* has those between four known ones, the second those between two known ones of a
row, the third those of a column. All symbols of a phase are coded at once. Each is predicted by a weighted sum of its
known neighbours, and its distribution is a row of the entropy coder's table, chosen by how much those neighbours
deviate from the prediction. Weights and rows adapt: before every phase come their changes. All that leads to the
symbols is integer arithmetic.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.residual.payload import ROWS, SIDE_ROW, ResidualReader, ResidualWriter

SYMBOL_LIMIT = 1 << 28
"""Symbols are smaller; where one would not be, the value itself is stored."""

_WEIGHT_ROW = entropy.ZERO_ROW + 12
_LOWEST_FIRST_ROW = 14

_WEIGHT_BITS = 6
_LARGEST_WEIGHT = 1 << 10
_FRACTIONS = 4
_CLASSES = _FRACTIONS * 69  # an activity is below 2^34
_MARGIN = 2

# Choices of the encoder that a decoder need not know.
_WEIGHT_COST = 8.0  # bits, about
_FIT_POINTS = 1 << 15
_EXACT_MAGNITUDES = 32


@dataclass(frozen=True)
class _Phase:
    """Points of a lattice that are coded together: every second one along both axes.

    offset: of the first of them. groups: (dy, dx) of known neighbours, mirrored in both axes; those of a group share a
    weight. activity: how much a group's deviations count. row: where the rows of classes begin at first.
    """

    offset: tuple[int, int]
    groups: tuple[tuple[int, int], ...]
    activity: tuple[int, ...]
    row: int

    def points(self, lattice: np.ndarray) -> np.ndarray:
        """Return the phase's points of a lattice [slices, height, width]."""
        return lattice[:, self.offset[0] :: 2, self.offset[1] :: 2]

    def neighbours(self, planes: np.ndarray, shape: tuple[int, ...]) -> list[list[np.ndarray]]:
        """Return what stands beside every point, by group, each of the shape of the points.

        planes: the lattice as `_planes` cuts it.
        """
        return [
            [self._beside(planes, shape, dy, dx) for dy, dx in sorted({(dy, dx), (-dy, dx), (dy, -dx), (-dy, -dx)})]
            for dy, dx in self.groups
        ]

    def _beside(self, planes: np.ndarray, shape: tuple[int, ...], dy: int, dx: int) -> np.ndarray:
        y, x = self.offset[0] + dy, self.offset[1] + dx
        top, left = _MARGIN + (y >> 1), _MARGIN + (x >> 1)
        return planes[y & 1, x & 1, :, top : top + shape[1], left : left + shape[2]]


_CORNER = _Phase((0, 0), (), (), 24)
_REFINEMENT = (
    _Phase((1, 1), ((1, 1), (1, 3), (3, 1)), (3, 0, 0), 7),
    _Phase((0, 1), ((0, 1), (1, 0), (0, 3), (3, 0), (1, 2), (2, 1)), (2, 2, 0, 0, 1, 1), 9),
    _Phase((1, 0), ((0, 1), (1, 0), (1, 1), (0, 3), (3, 0)), (2, 2, 1, 0, 0), 6),
)


def _levels(height: int, width: int) -> Iterator[tuple[int, tuple[_Phase, ...]]]:
    """Yield the strides of the lattices, coarse to fine, and the phases that each adds to the one before."""
    top = (max(height, width) - 1).bit_length()
    yield 1 << top, (_CORNER,)
    for level in reversed(range(top)):
        yield 1 << level, _REFINEMENT


def _planes(lattice: np.ndarray) -> np.ndarray:
    """Cut a lattice [slices, height, width] into its even and odd rows and columns: int32 [2, 2, slices, ...].

    There are zeros around each of the four.
    """
    count, height, width = lattice.shape
    planes = np.zeros((2, 2, count, (height + 1) // 2 + 2 * _MARGIN, (width + 1) // 2 + 2 * _MARGIN), np.int32)
    for phase in (_CORNER, *_REFINEMENT):
        _place(phase.points(lattice), phase, planes)
    return planes


def _place(points: np.ndarray, phase: _Phase, planes: np.ndarray) -> None:
    _, height, width = points.shape
    planes[phase.offset][:, _MARGIN : _MARGIN + height, _MARGIN : _MARGIN + width] = points


class _Model:
    """What has been sent so far about a phase: the weights of its groups, the row of every class."""

    def __init__(self, phase: _Phase) -> None:
        self.phase = phase
        self.weights = np.zeros(len(phase.groups), np.int64)
        self.rows = np.maximum(_LOWEST_FIRST_ROW, phase.row + np.arange(_CLASSES) // _FRACTIONS * 2).clip(max=ROWS - 1)

    def predict(self, planes: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return prediction and class of every point, [n] integers, from the points that are known."""
        planes = self._narrowed(planes)
        neighbours = self.phase.neighbours(planes, shape)
        total = np.zeros(shape, planes.dtype)
        for weight, group in zip(self.weights.tolist(), neighbours, strict=True):
            if weight:
                total += weight * reduce(np.add, group)
        predictions = (total + (1 << (_WEIGHT_BITS - 1))) >> _WEIGHT_BITS
        # How far the prediction had to be rounded, in eighths: the further, the less likely it is right.
        rounded = np.abs(total - (predictions << _WEIGHT_BITS)) >> (_WEIGHT_BITS - 3)
        if planes.dtype == np.int64:  # narrower types cannot reach the limit
            predictions = predictions.clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        activity = np.zeros(shape, planes.dtype)
        for weight, group in zip(self.phase.activity, neighbours, strict=True):
            if weight:
                activity += weight * reduce(np.add, [np.abs(values - predictions) for values in group])
        mantissas, exponents = np.frexp(activity)  # exact: int16 becomes float32, wider types float64
        half_octaves = np.maximum(0, 2 * exponents - 1 + (mantissas >= 0.75))
        classes = half_octaves * _FRACTIONS + np.minimum(rounded, _FRACTIONS - 1)
        return predictions.ravel(), classes.ravel()

    def _narrowed(self, planes: np.ndarray) -> np.ndarray:
        """Return the planes in the narrowest type, hence the fastest, in which nothing of `predict` overflows."""
        peak = int(np.abs(planes).max())
        total = 4 * peak * int(np.abs(self.weights).sum()) + (1 << _WEIGHT_BITS)
        activity = 4 * sum(self.phase.activity) * (peak + (total >> _WEIGHT_BITS) + 1)
        kinds = (np.int16, np.int32, np.int64)
        return planes.astype(next(kind for kind in kinds if max(total, activity) <= np.iinfo(kind).max))


def write_slices(writer: ResidualWriter, slices: np.ndarray) -> None:
    """Code symbols [slices, height, width], int64."""
    models = {phase: _Model(phase) for phase in (_CORNER, *_REFINEMENT)}
    for stride, phases in _levels(*slices.shape[1:]):
        lattice = slices[:, ::stride, ::stride]
        planes = _planes(lattice)
        for phase in phases:
            points = phase.points(lattice)
            if points.size:
                _write_phase(writer, models[phase], planes, points)


def read_slices(reader: ResidualReader, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the symbols of this shape that `write_slices` was given, int32."""
    models = {phase: _Model(phase) for phase in (_CORNER, *_REFINEMENT)}
    slices = np.zeros(shape, np.int32)
    for stride, phases in _levels(*shape[1:]):
        lattice = slices[:, ::stride, ::stride]
        planes = _planes(lattice)
        for phase in phases:
            points = phase.points(lattice)
            if points.size:
                points[...] = _read_phase(reader, models[phase], planes, points.shape)
                _place(points, phase, planes)
    return slices


def _write_phase(writer: ResidualWriter, model: _Model, planes: np.ndarray, points: np.ndarray) -> None:
    weights = _fitted_weights(model, planes, points)
    changed = int((weights != model.weights).any())
    writer.put(np.array([changed]), np.array([SIDE_ROW]))
    if changed:
        writer.put(weights - model.weights, np.full(len(weights), _WEIGHT_ROW))
        model.weights = weights
    predictions, classes = model.predict(planes, points.shape)
    symbols = points.ravel() - predictions
    used, changes = _row_changes(symbols, classes, model.rows)
    writer.put(changes, np.full(len(used), SIDE_ROW))
    model.rows[used] += changes
    writer.put(symbols, model.rows[classes])


def _read_phase(reader: ResidualReader, model: _Model, planes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    changed = reader.take_one(SIDE_ROW)
    if changed not in (0, 1):
        raise CorruptFile(f"a residual has a flag of {changed}: obtain the file again")
    if changed:
        model.weights = model.weights + reader.take(np.full(len(model.weights), _WEIGHT_ROW))
        if np.abs(model.weights).max(initial=0) > _LARGEST_WEIGHT:
            raise CorruptFile(f"a residual has weights {model.weights.tolist()}: obtain the file again")
    predictions, classes = model.predict(planes, shape)
    used = np.flatnonzero(np.bincount(classes))
    model.rows[used] += reader.take(np.full(len(used), SIDE_ROW))
    if model.rows.min() < 0 or model.rows.max() >= ROWS:
        raise CorruptFile(f"a residual has rows beyond 0..{ROWS - 1}: obtain the file again")
    points = predictions + reader.take(model.rows[classes])
    if np.abs(points).max() >= SYMBOL_LIMIT:
        raise CorruptFile(f"a residual has a symbol of magnitude {np.abs(points).max()}: obtain the file again")
    return points.reshape(shape)


def _fitted_weights(model: _Model, planes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the weights of least squares, or those sent before if the gain is not worth sending others."""
    before = model.weights
    if not len(before) or not points.any():
        return before
    # To be fast, of some rows only; every so many, an odd number: errors often come in blocks of an even size.
    some = (slice(None), slice(None, None, points.size // _FIT_POINTS | 1))
    target = points[some].ravel().astype(np.float64)
    sums = [
        reduce(np.add, [values[some] for values in group]).ravel()
        for group in model.phase.neighbours(planes, points.shape)
    ]
    columns = np.stack(sums, 1).astype(np.float64)
    # Not solve: where a group is outside the grid, the equations are singular.
    fitted = np.linalg.lstsq(columns.T @ columns, columns.T @ target, rcond=None)[0]
    weights = np.rint(fitted * (1 << _WEIGHT_BITS)).clip(-_LARGEST_WEIGHT, _LARGEST_WEIGHT).astype(np.int64)

    def spread(candidate: np.ndarray) -> float:
        # Below 1/12, the variance that rounding has, better predictions change little.
        return float(np.mean((target - columns @ candidate / (1 << _WEIGHT_BITS)) ** 2)) + 1 / 12

    gain = points.size / 2 * math.log2(spread(before) / spread(weights))
    return weights if gain > _WEIGHT_COST * len(before) else before


def _row_changes(symbols: np.ndarray, classes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes that occur, ascending, and how the row of each is best changed."""
    magnitudes, costs = _magnitude_costs()
    sizes = np.abs(symbols).astype(np.int64)
    large = np.flatnonzero(sizes >= _EXACT_MAGNITUDES)
    sizes[large] = np.searchsorted(magnitudes, sizes[large], side="right") - 1
    counts = np.bincount(sizes + classes * len(magnitudes), minlength=_CLASSES * len(magnitudes))
    counts = counts.reshape(_CLASSES, -1)
    used = np.flatnonzero(counts.any(axis=1))
    changes = np.arange(ROWS) - rows[used, None]
    side = entropy.code_length(changes.ravel(), np.full(changes.size, SIDE_ROW)).reshape(changes.shape)
    return used, (counts[used] @ costs + side).argmin(axis=1) - rows[used]


@cache
def _magnitude_costs() -> tuple[np.ndarray, np.ndarray]:
    """Return magnitudes, each for all from it to the next, and what they cost in each row: [m], and [m, ROWS] bits."""
    octaves = _EXACT_MAGNITUDES << np.arange(25)
    magnitudes = np.concatenate([np.arange(_EXACT_MAGNITUDES), np.stack([octaves, octaves * 3 // 2], 1).ravel()])
    costs = np.empty((len(magnitudes), ROWS))
    for row in range(ROWS):
        shift = max(0, row - entropy.ROWS + 4) // 4
        costs[:, row] = entropy.code_length(magnitudes >> shift, np.full(len(magnitudes), row - 4 * shift)) + shift
    return magnitudes, costs
