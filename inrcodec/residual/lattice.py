"""The symbols of a residual, coded with weights and rows that adapt to them.

The slices of a series come in *layers*: first every sixteenth, then those in the middle between two that are coded,
which are their references, and so on; they see the next slices beyond these, too. Whether the slices of a layer see
any references, the encoder says.

The slices of a layer are coded over the last two axes of the grid from coarse to fine: a level doubles a lattice along
both axes, and of the points that it adds, a first *phase* has those between four known ones, the second those between
two known ones of a row, the third those of a column. All symbols of a phase are coded at once. Each is predicted by a
weighted sum of its known neighbours and of the references there and beside, and its distribution is a row of the
entropy coder's table, chosen by how much the neighbours deviate from the prediction, and the references from each
other. Weights and rows adapt: before every phase come their changes. All that leads to the symbols is integer
arithmetic.
"""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.residual.payload import ROWS, SIDE_ROW, ResidualReader, ResidualWriter

SYMBOL_LIMIT = 1 << 28
"""Symbols are smaller; where one would not be, the value itself is stored."""

_WEIGHT_ROW = entropy.ZERO_ROW + 14
_LOWEST_FIRST_ROW = 14

_COARSEST_LAYER = 4  # of distance 2^4
_WEIGHT_BITS = 7
_LARGEST_WEIGHT = 1 << 11
_FRACTIONS = 4
_CLASSES = _FRACTIONS * 69  # an activity is below 2^34
_MARGIN = 2

# Choices of the encoder that a decoder need not know.
_WEIGHT_COST = 6.0  # bits, about
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

    def beside(self, planes: np.ndarray, shape: tuple[int, ...], group: tuple[int, int]) -> list[np.ndarray]:
        """Return what stands at the places of a group beside every point, each of the shape of the points.

        planes: the lattice as `_planes` cuts it.
        """
        dy, dx = group
        return [self._at(planes, shape, *place) for place in sorted({(dy, dx), (-dy, dx), (dy, -dx), (-dy, -dx)})]

    def _at(self, planes: np.ndarray, shape: tuple[int, ...], dy: int, dx: int) -> np.ndarray:
        y, x = self.offset[0] + dy, self.offset[1] + dx
        top, left = _MARGIN + (y >> 1), _MARGIN + (x >> 1)
        return planes[y & 1, x & 1, :, top : top + shape[1], left : left + shape[2]]


_CORNER = _Phase((0, 0), (), (), 24)
_REFINEMENT = (
    _Phase((1, 1), ((1, 1), (1, 3), (3, 1)), (3, 0, 0), 7),
    _Phase((0, 1), ((0, 1), (1, 0), (0, 3), (3, 0), (1, 2), (2, 1)), (2, 2, 0, 0, 1, 1), 9),
    _Phase((1, 0), ((0, 1), (1, 0), (1, 1), (0, 3), (3, 0)), (2, 2, 1, 0, 0), 6),
)
_POINT = (0, 0)
_REFERENCE_GROUPS = ((0, 1), (1, 0), (1, 1))
"""Places beside a point at which its references are seen, whether the slice itself is known there or not."""


@dataclass(frozen=True)
class _Layer:
    """Slices of a series that are coded together.

    slices: their numbers. references: of each one those before and after it, and those before and after these; empty
        for the first layer.
    """

    slices: np.ndarray
    references: tuple[np.ndarray, ...]


def _layers(count: int) -> Iterator[_Layer]:
    """Yield the layers of a series of slices; where a reference is missing, the one before or nearer stands for it."""
    distance = 1 << _COARSEST_LAYER
    yield _Layer(np.arange(0, count, distance), ())
    while distance > 1:
        distance //= 2
        slices = np.arange(distance, count, 2 * distance)
        if not len(slices):
            continue
        before, earlier = slices - distance, slices - 3 * distance
        after, later = slices + distance, slices + 3 * distance
        after = np.where(after < count, after, before)
        earlier = np.where(earlier >= 0, earlier, before)
        later = np.where(later < count, later, after)
        yield _Layer(slices, (before, after, earlier, later))


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


@dataclass(frozen=True)
class _Seen:
    """What is known around the points of a phase, in half symbols.

    centre: sum of the two nearest references at the points. apart: how far these are from each other there.
    neighbours: by group, twice the neighbours less both references there. features: what weights are for, of the shape
        of the points; they are differences where that is possible, as small numbers suffer less from rounded weights.
    """

    centre: np.ndarray
    apart: np.ndarray
    neighbours: list[list[np.ndarray]]
    features: list[np.ndarray]

    @classmethod
    def of(cls, phase: _Phase, planes: np.ndarray, references: list[np.ndarray], shape: tuple[int, ...]) -> "_Seen":
        """Look at points of this shape. planes: of the lattice; references: of those of the references, or none."""
        peak = max(int(np.abs(each).max(initial=0)) for each in (planes, *references))
        kind = np.dtype(np.int32 if peak < 1 << 20 else np.int64)  # features are up to 100 times larger
        doubled: np.ndarray = 2 * planes.astype(kind)
        features = []
        centre = apart = np.zeros(shape, kind)
        if references:
            nearest = [each.astype(kind) for each in references[:2]]
            both: np.ndarray = reduce(np.add, nearest)
            doubled = doubled - both
            farther: np.ndarray = reduce(np.add, references[2:]).astype(kind) - both
            (centre,) = phase.beside(both, shape, _POINT)
            (apart,) = phase.beside(np.abs(np.subtract(*nearest)), shape, _POINT)
            for sums in (both, farther):
                (point,) = phase.beside(sums, shape, _POINT)
                features.append(point)
                for group in _REFERENCE_GROUPS:
                    beside = phase.beside(sums, shape, group)
                    features.append(reduce(np.add, beside) - len(beside) * point)
        neighbours = [phase.beside(doubled, shape, group) for group in phase.groups]
        if neighbours:
            first, *others = neighbours
            sum_of_first: np.ndarray = reduce(np.add, first)
            features.append(sum_of_first)
            features += [reduce(np.add, each) - len(each) // len(first) * sum_of_first for each in others]
        return cls(centre, apart, neighbours, features)


class _Model:
    """What has been sent so far about a phase: the weights of its features, the row of every class."""

    def __init__(self, phase: _Phase, referring: bool) -> None:
        self.phase = phase
        features = len(phase.groups) + (2 * (1 + len(_REFERENCE_GROUPS)) if referring else 0)
        self.weights = np.zeros(features, np.int64)
        self.rows = np.maximum(_LOWEST_FIRST_ROW, phase.row + np.arange(_CLASSES) // _FRACTIONS * 2).clip(max=ROWS - 1)

    def predict(self, seen: _Seen) -> tuple[np.ndarray, np.ndarray]:
        """Return prediction and class of every point, [n] integers."""
        total = seen.centre.astype(np.int64) << _WEIGHT_BITS
        for weight, feature in zip(self.weights.tolist(), seen.features, strict=True):
            if weight:
                total += weight * feature.astype(np.int64)
        predictions = (total + (1 << _WEIGHT_BITS)) >> (_WEIGHT_BITS + 1)
        # How far the prediction had to be rounded, in eighths: the further, the less likely it is right.
        rounded = np.abs(total - (predictions << (_WEIGHT_BITS + 1))) >> (_WEIGHT_BITS - 2)
        predictions = predictions.clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        expected = 2 * predictions - seen.centre
        activity = seen.apart.astype(np.int64)
        for weight, group in zip(self.phase.activity, seen.neighbours, strict=True):
            if weight:
                activity = activity + weight * reduce(np.add, [np.abs(values - expected) for values in group])
        mantissas, exponents = np.frexp((activity >> 1).astype(np.float64))  # exact
        half_octaves = np.maximum(0, 2 * exponents - 1 + (mantissas >= 0.75))
        classes = half_octaves * _FRACTIONS + np.minimum(rounded, _FRACTIONS - 1)
        return predictions.ravel(), classes.ravel()


class _Models:
    """The models of all phases, of slices that see references and of those that do not."""

    def __init__(self) -> None:
        kinds = [(phase, referring) for phase in (_CORNER, *_REFINEMENT) for referring in (False, True)]
        self._models = {kind: _Model(*kind) for kind in kinds}

    def of(self, phase: _Phase, referring: bool) -> _Model:
        return self._models[phase, referring]


def write_slices(writer: ResidualWriter, slices: np.ndarray) -> None:
    """Code the symbols of a series of slices [slices, channels, height, width], int64."""
    models = _Models()
    for layer in _layers(len(slices)):
        if not layer.references:
            _write_layer(writer, models, slices, layer, False)
            continue
        trials = []
        for referring in (False, True):
            trial, changed = ResidualWriter(), deepcopy(models)
            trial.put(np.array([int(referring)]), np.array([SIDE_ROW]))
            _write_layer(trial, changed, slices, layer, referring)
            trials.append((trial, changed))
        better, models = min(trials, key=lambda trial: trial[0].bits())
        writer.extend(better)


def read_slices(reader: ResidualReader, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Return the symbols of this shape that `write_slices` was given, int32."""
    models = _Models()
    slices = np.zeros(shape, np.int32)
    for layer in _layers(len(slices)):
        referring = reader.take_one(SIDE_ROW) if layer.references else 0
        if referring not in (0, 1):
            raise CorruptFile(f"a residual has a flag of {referring}: obtain the file again")
        _read_layer(reader, models, slices, layer, bool(referring))
    return slices


def _write_layer(writer: ResidualWriter, models: _Models, slices: np.ndarray, layer: _Layer, referring: bool) -> None:
    own = _flat(slices[layer.slices])
    for phase, _, seen, points in _visited(own, _references(slices, layer, referring)):
        _write_phase(writer, models.of(phase, referring), seen, points)


def _read_layer(reader: ResidualReader, models: _Models, slices: np.ndarray, layer: _Layer, referring: bool) -> None:
    own = _flat(slices[layer.slices])
    for phase, planes, seen, points in _visited(own, _references(slices, layer, referring)):
        points[...] = _read_phase(reader, models.of(phase, referring), seen, points.shape)
        _place(points, phase, planes)
    slices[layer.slices] = own.reshape(-1, *slices.shape[1:])


def _visited(
    own: np.ndarray, references: Sequence[np.ndarray]
) -> Iterator[tuple[_Phase, np.ndarray, "_Seen", np.ndarray]]:
    """Yield each phase that has points, the planes it looks at, what it sees there, and the points: parts of `own`.

    own: symbols [slices, height, width]. What is put into planes and points is seen from the next phase on.
    """
    for stride, phases in _levels(*own.shape[1:]):
        lattice = own[:, ::stride, ::stride]
        planes = _planes(lattice)
        shown = [_planes(each[:, ::stride, ::stride]) for each in references]
        for phase in phases:
            points = phase.points(lattice)
            if points.size:
                yield phase, planes, _Seen.of(phase, planes, shown, points.shape), points


def _references(slices: np.ndarray, layer: _Layer, referring: bool) -> list[np.ndarray]:
    return [_flat(slices[numbers]) for numbers in layer.references] if referring else []


def _flat(slices: np.ndarray) -> np.ndarray:
    """Return [slices, channels, height, width] as [slices * channels, height, width]."""
    return slices.reshape(-1, *slices.shape[2:])


def _write_phase(writer: ResidualWriter, model: _Model, seen: _Seen, points: np.ndarray) -> None:
    weights = _fitted_weights(model, seen, points)
    changed = int((weights != model.weights).any())
    writer.put(np.array([changed]), np.array([SIDE_ROW]))
    if changed:
        writer.put(weights - model.weights, np.full(len(weights), _WEIGHT_ROW))
        model.weights = weights
    predictions, classes = model.predict(seen)
    symbols = points.ravel() - predictions
    used, changes = _row_changes(symbols, classes, model.rows)
    writer.put(changes, np.full(len(used), SIDE_ROW))
    model.rows[used] += changes
    writer.put(symbols, model.rows[classes])


def _read_phase(reader: ResidualReader, model: _Model, seen: _Seen, shape: tuple[int, ...]) -> np.ndarray:
    changed = reader.take_one(SIDE_ROW)
    if changed not in (0, 1):
        raise CorruptFile(f"a residual has a flag of {changed}: obtain the file again")
    if changed:
        model.weights = model.weights + reader.take(np.full(len(model.weights), _WEIGHT_ROW))
        if np.abs(model.weights).max(initial=0) > _LARGEST_WEIGHT:
            raise CorruptFile(f"a residual has weights {model.weights.tolist()}: obtain the file again")
    predictions, classes = model.predict(seen)
    used = np.flatnonzero(np.bincount(classes))
    model.rows[used] += reader.take(np.full(len(used), SIDE_ROW))
    if model.rows.min() < 0 or model.rows.max() >= ROWS:
        raise CorruptFile(f"a residual has rows beyond 0..{ROWS - 1}: obtain the file again")
    points = predictions + reader.take(model.rows[classes])
    if np.abs(points).max() >= SYMBOL_LIMIT:
        raise CorruptFile(f"a residual has a symbol of magnitude {np.abs(points).max()}: obtain the file again")
    return points.reshape(shape)


def _fitted_weights(model: _Model, seen: _Seen, points: np.ndarray) -> np.ndarray:
    """Return the weights of least squares, or those sent before if the gain is not worth sending others."""
    before = model.weights
    if not len(before) or not (points.any() or seen.centre.any()):
        return before
    # To be fast, of some rows only; every so many, an odd number: errors often come in blocks of an even size.
    some = (slice(None), slice(None, None, points.size // _FIT_POINTS | 1))
    target = (points[some] - 0.5 * seen.centre[some]).ravel()
    columns = 0.5 * np.stack([feature[some].ravel() for feature in seen.features], 1)
    weights = _rounded_fit(columns, target)

    def spread(candidate: np.ndarray) -> float:
        # Below 1/12, the variance that rounding has, better predictions change little.
        return float(np.mean((target - columns @ candidate / (1 << _WEIGHT_BITS)) ** 2)) + 1 / 12

    gain = points.size / 2 * math.log2(spread(before) / spread(weights))
    return weights if gain > _WEIGHT_COST * len(before) else before


def _rounded_fit(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return integer weights near those of least squares: one after the other is rounded, and the rest fitted anew."""
    products, right = columns.T @ columns, columns.T @ target
    weights = np.zeros(len(right))
    left = np.ones(len(right), bool)
    for column in np.argsort(np.diag(products), kind="stable"):
        # Not solve: where a group is outside the grid, the equations are singular.
        known = right[left] - products[np.ix_(left, ~left)] @ weights[~left]
        fitted = np.linalg.lstsq(products[np.ix_(left, left)], known, rcond=None)[0]
        exact = fitted[np.flatnonzero(np.flatnonzero(left) == column)[0]] * (1 << _WEIGHT_BITS)
        weights[column] = np.rint(exact).clip(-_LARGEST_WEIGHT, _LARGEST_WEIGHT) / (1 << _WEIGHT_BITS)
        left[column] = False
    return np.rint(weights * (1 << _WEIGHT_BITS)).astype(np.int64)


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
