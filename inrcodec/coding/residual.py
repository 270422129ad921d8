"""The coded residual: what brings a lossy reconstruction within an absolute error bound.

Errors beyond the bound are corrected by multiples of a step of about twice the bound; these integers, most of them 0
where the reconstruction is good, are the symbols. They are coded over the last two axes of the grid from coarse to
fine: a level doubles a lattice along both axes, and of the points that it adds, a first *phase* has those between four
known ones, the second those between two known ones of a row, the third those of a column. All symbols of a phase are
coded at once. Each is predicted by a weighted sum of its known neighbours, and its distribution is a row of the entropy
coder's table, chosen by how much those neighbours deviate from the prediction. Weights and rows adapt: before every
phase come their changes. All that leads to the symbols is integer arithmetic. docs/FORMAT.md has all of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from inrcodec.coding import entropy
from inrcodec.coding.varint import read_varint, write_varint
from inrcodec.errors import CorruptFile, TruncatedFile

SYMBOL_LIMIT = 1 << 28
"""Symbols are smaller; where one would not be, the value itself is stored."""

# The step depends on the bound and on the gap, the bound's exponent less that of the spacing between the values.
_FINEST_GAP = 12  # a spacing that is finer still makes no difference
_COARSEST_GAP = -2200
_LARGEST_SPACING = 1000
_LARGEST_BOUND = 1000
_UNUSUAL_SHARE = 1e-3

# The rows beyond those of the entropy coder's table go on to scale 2^29; they code a symbol without its lowest bits.
_ROWS = entropy.ROWS + 4 * 23
_SIDE_ROW = entropy.ZERO_ROW - 4
_WEIGHT_ROW = entropy.ZERO_ROW + 12
_LOWEST_FIRST_ROW = 14

_WEIGHT_BITS = 6
_LARGEST_WEIGHT = 1 << 10
_FRACTIONS = 4
_CONTEXTS = _FRACTIONS * 69  # an activity is below 2^34
_MARGIN = 2

# Choices of the encoder that a decoder need not know.
_WEIGHT_COST = 8.0  # bits, about
_FIT_POINTS = 1 << 15
_EXACT_MAGNITUDES = 32


def pack_residual(original: np.ndarray, decoded: np.ndarray, bound: float, missing: np.ndarray | None = None) -> bytes:
    """What `apply_residual` needs to bring every value of `decoded` that matters within `bound` of `original`.

    original, decoded: [*grid, C] of one type, floats or integers of up to 32 bits.
    bound: the largest absolute error allowed, in the unit of the values; differences are taken in float64.
    missing: bool [*grid], points whose values do not matter.
    That the bound holds is verified with this very `decoded`. For one from a machine whose floats round otherwise, the
    step leaves room for differences of 8e-4 of the bound.
    Returns b"" where nothing needs to be corrected.
    Raises: ValueError for arrays or a bound of another kind.
    """
    _check(decoded, bound)
    if original.dtype != decoded.dtype or original.shape != decoded.shape:
        raise ValueError(
            f"original and decoded differ: {original.dtype = }, {decoded.dtype = }, {original.shape = }, "
            f"{decoded.shape = }"
        )
    if missing is not None and (missing.dtype != bool or missing.shape != decoded.shape[:-1]):
        raise ValueError(f"missing is no mask of the grid: {missing.dtype = }, {missing.shape = }, {decoded.shape = }")
    beyond = _beyond(original, decoded, bound, missing)
    if not beyond.any():
        return b""
    gap = _best_gap(original[beyond], bound)
    symbols = _quantize(_differences(original, decoded), _step(bound, gap))
    if missing is not None:
        symbols[missing] = 0
    writer = _Writer()
    writer.put(np.array([_FINEST_GAP - gap]), np.array([_SIDE_ROW]))
    _write_slices(writer, _as_slices(symbols))
    payload = writer.finish(np.zeros(0, np.int64), original)
    wrong = np.flatnonzero(_beyond(original, apply_residual(decoded, payload, bound), bound, missing))
    return writer.finish(wrong, original) if len(wrong) else payload


def apply_residual(decoded: np.ndarray, payload: bytes, bound: float) -> np.ndarray:
    """The reconstruction within `bound`: an array like `decoded`, which `pack_residual` was given.

    Raises: CorruptFile if `payload` is not what that returned for such an array and bound; ValueError for an array or
        a bound of another kind.
    """
    _check(decoded, bound)
    if not payload:
        return decoded.copy()
    reader = _Reader(payload)
    gap = _FINEST_GAP - int(reader.take(np.array([_SIDE_ROW]))[0])
    if not _COARSEST_GAP <= gap <= _FINEST_GAP or _exponent(bound) - gap > _LARGEST_SPACING:
        raise CorruptFile(f"a residual is for values 2^{-gap} bounds apart: obtain the file again")
    height, width = _plane(decoded.shape)
    slices = _read_slices(reader, (decoded.size // (height * width), height, width))
    corrected = _corrected(decoded, _from_slices(slices, decoded.shape), _step(bound, gap))
    places, values = reader.finish(decoded.size, decoded.dtype)
    corrected.reshape(-1)[places] = values
    return corrected


def _check(decoded: np.ndarray, bound: float) -> None:
    kind, size = decoded.dtype.kind, decoded.dtype.itemsize
    if not ((kind == "f" and size <= 8) or (kind in "iu" and size <= 4)):
        raise ValueError(f"values must be floats or integers of up to 32 bits: {decoded.dtype = }")
    if decoded.ndim < 2 or not 0 < decoded.size < entropy.SYMBOL_LIMIT:
        raise ValueError(f"values must be [*grid, C], fewer than 2^31 but some: {decoded.shape = }")
    if not 2.0**-_LARGEST_BOUND <= bound <= 2.0**_LARGEST_BOUND:
        raise ValueError(f"a bound must lie in 2^-{_LARGEST_BOUND}..2^{_LARGEST_BOUND}: {bound = }")


def _beyond(original: np.ndarray, decoded: np.ndarray, bound: float, missing: np.ndarray | None) -> np.ndarray:
    """Which values matter and are not within the bound; NaN never is."""
    beyond = ~(np.abs(_differences(original, decoded)) <= bound)
    if missing is not None:
        beyond[missing] = False
    return beyond


def _differences(original: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return original.astype(np.float64) - decoded.astype(np.float64)


def _exponent(bound: float) -> int:
    return math.frexp(bound)[1] - 1


def _step(bound: float, gap: int) -> float:
    """The step for values that are a spacing u of 2^(exponent of the bound - gap) apart.

    A value may be k = floor(bound / u) spacings off, and what is rounded to one any less than (k + 1/2) u. The step is
    twice that, but for 2^-10 of it.
    """
    spacings = math.floor(math.ldexp(bound, gap - _exponent(bound)))
    return math.ldexp(1023 * (2 * spacings + 1), _exponent(bound) - gap - 10)


def _best_gap(values: np.ndarray, bound: float) -> int:
    """The gap with the coarsest step that suits all of these values but a few, which may have to be stored."""
    spacings = np.zeros(len(values), np.int64)  # as powers of two
    if values.dtype.kind == "f":
        kind = np.finfo(values.dtype)
        exponents = np.where(values == 0, kind.minexp, np.frexp(values)[1] - 1)
        spacings = exponents.clip(min=kind.minexp) - kind.nmant
    gaps = (_exponent(bound) - spacings).clip(_COARSEST_GAP, _FINEST_GAP)
    found, counts = np.unique(gaps, return_counts=True)
    suited = 0
    for _, gap, count in sorted((_step(bound, gap), gap, count) for gap, count in np.c_[found, counts].tolist()):
        suited += count
        if suited > _UNUSUAL_SHARE * len(values):
            return gap
    return _FINEST_GAP


def _quantize(residual: np.ndarray, step: float) -> np.ndarray:
    """The nearest multiples of the step, int64; 0 where they are not numbers below `SYMBOL_LIMIT`."""
    with np.errstate(over="ignore"):
        multiples = np.rint(residual / step)
    return np.where(np.abs(multiples) < SYMBOL_LIMIT, multiples, 0).astype(np.int64)


def _corrected(decoded: np.ndarray, symbols: np.ndarray, step: float) -> np.ndarray:
    """decoded + symbols * step in float64, clipped to what the type of `decoded` holds and rounded to it."""
    corrected = decoded.flatten()
    places = np.flatnonzero(symbols)
    with np.errstate(over="ignore"):
        values = corrected[places].astype(np.float64) + symbols.reshape(-1)[places] * step
    if decoded.dtype.kind == "f":
        limit = float(np.finfo(decoded.dtype).max)
        corrected[places] = values.clip(-limit, limit)
    else:
        limits = np.iinfo(decoded.dtype)
        corrected[places] = np.rint(values).clip(limits.min, limits.max)
    return corrected.reshape(decoded.shape)


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the slices of values [*grid, C]; a grid of one axis has height 1."""
    return (1, *shape)[-3], shape[-2]


def _as_slices(symbols: np.ndarray) -> np.ndarray:
    """[*grid, C] as [slices, height, width]; channels are slices too, beside each other."""
    channels = symbols.shape[-1]
    height, width = _plane(symbols.shape)
    return np.moveaxis(symbols.reshape(-1, height, width, channels), -1, 1).reshape(-1, height, width)


def _from_slices(slices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(slices.reshape(-1, shape[-1], *_plane(shape)), 1, -1).reshape(shape)


class _Writer:
    """Collects the parts that the entropy coder is to code, and the bits that go uncoded."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._bits = [np.zeros(0, np.uint8)]

    def put(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        """A part: [n] int64, rows in 0.._ROWS-1."""
        symbols, rows = symbols.copy(), rows.copy()
        for shift, places in _uncoded(rows):
            digits = symbols[places, None] >> np.arange(shift) & 1
            self._bits.append(digits.astype(np.uint8).ravel())
            symbols[places] >>= shift
            rows[places] -= 4 * shift
        self._parts.append((symbols, rows))

    def finish(self, stored: np.ndarray, original: np.ndarray) -> bytes:
        """The payload; may be called again.

        stored: [n] int64, ascending places in `original` whose values are stored as they are.
        """
        tail = _Writer()
        tail.put(np.array([len(stored)]), np.array([0]))
        if len(stored):
            skipped = np.diff(stored, prepend=-1) - 1
            row = min(_ROWS - 1, entropy.ZERO_ROW + round(4 * math.log2(max(skipped.mean(), 2**-6))))
            tail.put(np.array([row]), np.array([entropy.ZERO_ROW]))
            tail.put(skipped, np.full(len(skipped), row))
        coded = entropy.encode_parts(self._parts + tail._parts)
        bits = np.packbits(np.concatenate(self._bits + tail._bits), bitorder="little")
        values = original.reshape(-1)[stored]
        values = values.astype(values.dtype.newbyteorder("<"))
        return write_varint(len(coded)) + coded + bits.tobytes() + values.tobytes()


class _Reader:
    """Reads what a `_Writer` has written. Raises: CorruptFile, in all methods."""

    def __init__(self, payload: bytes) -> None:
        try:
            length, begin = read_varint(payload, 0)
        except TruncatedFile as error:
            raise CorruptFile(f"a residual of {len(payload)} bytes has no length: obtain the file again") from error
        if length > len(payload) - begin:
            raise CorruptFile(f"a residual of {len(payload)} bytes claims {length}: obtain the file again")
        self._decoder = entropy.Decoder(payload[begin : begin + length])
        self._uncoded = np.frombuffer(payload, np.uint8)[begin + length :]
        self._position = 0  # in bits

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The symbols of the next part, [n] int64, given their rows."""
        rows = rows.copy()
        uncoded = _uncoded(rows)
        for shift, places in uncoded:
            rows[places] -= 4 * shift
        symbols = self._decoder.decode(rows)
        for shift, places in uncoded:
            digits = self._take_bits(len(places) * shift).reshape(-1, shift).astype(np.int64)
            symbols[places] = (symbols[places] << shift) + (digits << np.arange(shift)).sum(axis=1)
        return symbols

    def take_one(self, row: int) -> int:
        return int(self.take(np.array([row]))[0])

    def finish(self, size: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """The places among `size` values of this type whose values are stored, and those values."""
        count = self.take_one(0)
        if not 0 <= count <= size:
            raise CorruptFile(f"a residual stores {count} of {size} values: obtain the file again")
        places = np.zeros(0, np.int64)
        if count:
            row = self.take_one(entropy.ZERO_ROW)
            if not 0 <= row < _ROWS:
                raise CorruptFile(f"a residual has a row {row} of {_ROWS}: obtain the file again")
            skipped = self.take(np.full(count, row))
            if skipped.min() < 0 or skipped.max() >= size or skipped.sum() + count > size:
                raise CorruptFile(f"a residual stores values that are not among the {size}: obtain the file again")
            places = np.cumsum(skipped + 1) - 1
        self._decoder.finish()
        if self._take_bits(-self._position % 8).any():
            raise CorruptFile("a residual's last uncoded bits are not zeros: obtain the file again")
        stored = self._uncoded[self._position // 8 :].tobytes()
        if len(stored) != count * dtype.itemsize:
            raise CorruptFile(f"a residual has {len(stored)} bytes for {count} stored values: obtain the file again")
        return places, np.frombuffer(stored, dtype.newbyteorder("<"))

    def _take_bits(self, count: int) -> np.ndarray:
        begin, end = self._position, self._position + count
        if end > 8 * len(self._uncoded):
            raise CorruptFile(f"a residual ends {end - 8 * len(self._uncoded)} bits early: obtain the file again")
        self._position = end
        taken = np.unpackbits(self._uncoded[begin // 8 : -(-end // 8)], bitorder="little")
        return taken[begin % 8 :][:count]


def _uncoded(rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """How many of the lowest bits go uncoded, ascending, and the places of the symbols: those in rows beyond the
    table's."""
    if rows.max(initial=0) < entropy.ROWS:
        return []
    shifts = np.maximum(0, rows - entropy.ROWS + 4) // 4
    return [(shift, np.flatnonzero(shifts == shift)) for shift in range(1, int(shifts.max()) + 1)]


@dataclass(frozen=True)
class _Phase:
    """Which points of a lattice are coded together: every second one along both axes.

    offset: of the first of them. groups: (dy, dx) of known neighbours, mirrored in both axes; those of a group share a
    weight. activity: how much a group's deviations count. row: where the rows of contexts begin at first.
    """

    offset: tuple[int, int]
    groups: tuple[tuple[int, int], ...]
    activity: tuple[int, ...]
    row: int

    def points(self, lattice: np.ndarray) -> np.ndarray:
        """Those of a lattice [slices, height, width]."""
        return lattice[:, self.offset[0] :: 2, self.offset[1] :: 2]

    def neighbours(self, planes: np.ndarray, shape: tuple[int, ...]) -> list[list[np.ndarray]]:
        """What stands beside every point, by group, each of the shape of the points.

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
    """Strides of the lattices, coarse to fine, and the phases that each adds to the one before."""
    top = (max(height, width) - 1).bit_length()
    yield 1 << top, (_CORNER,)
    for level in reversed(range(top)):
        yield 1 << level, _REFINEMENT


def _planes(lattice: np.ndarray) -> np.ndarray:
    """A lattice [slices, height, width] cut into its even and odd rows and columns, with zeros around each of the four:
    int32 [2, 2, slices, ...]."""
    count, height, width = lattice.shape
    planes = np.zeros((2, 2, count, (height + 1) // 2 + 2 * _MARGIN, (width + 1) // 2 + 2 * _MARGIN), np.int32)
    for phase in (_CORNER, *_REFINEMENT):
        _place(phase.points(lattice), phase, planes)
    return planes


def _place(points: np.ndarray, phase: _Phase, planes: np.ndarray) -> None:
    _, height, width = points.shape
    planes[phase.offset][:, _MARGIN : _MARGIN + height, _MARGIN : _MARGIN + width] = points


class _Model:
    """What has been sent so far about a phase: the weights of its groups, the row of every context."""

    def __init__(self, phase: _Phase) -> None:
        self.phase = phase
        self.weights = np.zeros(len(phase.groups), np.int64)
        self.rows = np.maximum(_LOWEST_FIRST_ROW, phase.row + np.arange(_CONTEXTS) // _FRACTIONS * 2).clip(
            max=_ROWS - 1
        )

    def expect(self, planes: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and context of every point, [n] integers, from those that are known."""
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
        contexts = half_octaves * _FRACTIONS + np.minimum(rounded, _FRACTIONS - 1)
        return predictions.ravel(), contexts.ravel()

    def _narrowed(self, planes: np.ndarray) -> np.ndarray:
        """The planes in the narrowest type, hence the fastest, in which nothing of `expect` overflows."""
        peak = int(np.abs(planes).max())
        total = 4 * peak * int(np.abs(self.weights).sum()) + (1 << _WEIGHT_BITS)
        activity = 4 * sum(self.phase.activity) * (peak + (total >> _WEIGHT_BITS) + 1)
        kinds = (np.int16, np.int32, np.int64)
        return planes.astype(next(kind for kind in kinds if max(total, activity) <= np.iinfo(kind).max))


def _write_slices(writer: _Writer, slices: np.ndarray) -> None:
    """Code symbols [slices, height, width], int64."""
    models = {phase: _Model(phase) for phase in (_CORNER, *_REFINEMENT)}
    for stride, phases in _levels(*slices.shape[1:]):
        lattice = slices[:, ::stride, ::stride]
        planes = _planes(lattice)
        for phase in phases:
            points = phase.points(lattice)
            if points.size:
                _write_phase(writer, models[phase], planes, points)


def _read_slices(reader: _Reader, shape: tuple[int, int, int]) -> np.ndarray:
    """The symbols of this shape that `_write_slices` was given, int32."""
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


def _write_phase(writer: _Writer, model: _Model, planes: np.ndarray, points: np.ndarray) -> None:
    weights = _fitted_weights(model, planes, points)
    changed = int((weights != model.weights).any())
    writer.put(np.array([changed]), np.array([_SIDE_ROW]))
    if changed:
        writer.put(weights - model.weights, np.full(len(weights), _WEIGHT_ROW))
        model.weights = weights
    predictions, contexts = model.expect(planes, points.shape)
    symbols = points.ravel() - predictions
    used, changes = _row_changes(symbols, contexts, model.rows)
    writer.put(changes, np.full(len(used), _SIDE_ROW))
    model.rows[used] += changes
    writer.put(symbols, model.rows[contexts])


def _read_phase(reader: _Reader, model: _Model, planes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    changed = reader.take_one(_SIDE_ROW)
    if changed not in (0, 1):
        raise CorruptFile(f"a residual has a flag of {changed}: obtain the file again")
    if changed:
        model.weights = model.weights + reader.take(np.full(len(model.weights), _WEIGHT_ROW))
        if np.abs(model.weights).max(initial=0) > _LARGEST_WEIGHT:
            raise CorruptFile(f"a residual has weights {model.weights.tolist()}: obtain the file again")
    predictions, contexts = model.expect(planes, shape)
    used = np.flatnonzero(np.bincount(contexts))
    model.rows[used] += reader.take(np.full(len(used), _SIDE_ROW))
    if model.rows.min() < 0 or model.rows.max() >= _ROWS:
        raise CorruptFile(f"a residual has rows beyond 0..{_ROWS - 1}: obtain the file again")
    points = predictions + reader.take(model.rows[contexts])
    if np.abs(points).max() >= SYMBOL_LIMIT:
        raise CorruptFile(f"a residual has a symbol of magnitude {np.abs(points).max()}: obtain the file again")
    return points.reshape(shape)


def _fitted_weights(model: _Model, planes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The weights of least squares, or those sent before if the gain is not worth sending others."""
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


def _row_changes(symbols: np.ndarray, contexts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The contexts that occur, ascending, and how the row of each is best changed."""
    magnitudes, costs = _magnitude_costs()
    classes = np.abs(symbols).astype(np.int64)
    large = np.flatnonzero(classes >= _EXACT_MAGNITUDES)
    classes[large] = np.searchsorted(magnitudes, classes[large], side="right") - 1
    counts = np.bincount(classes + contexts * len(magnitudes), minlength=_CONTEXTS * len(magnitudes))
    counts = counts.reshape(_CONTEXTS, -1)
    used = np.flatnonzero(counts.any(axis=1))
    changes = np.arange(_ROWS) - rows[used, None]
    side = entropy.code_length(changes.ravel(), np.full(changes.size, _SIDE_ROW)).reshape(changes.shape)
    return used, (counts[used] @ costs + side).argmin(axis=1) - rows[used]


@cache
def _magnitude_costs() -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes, each for all from it to the next, and what they cost in each row: [m], and [m, _ROWS] bits."""
    octaves = _EXACT_MAGNITUDES << np.arange(25)
    magnitudes = np.concatenate([np.arange(_EXACT_MAGNITUDES), np.stack([octaves, octaves * 3 // 2], 1).ravel()])
    costs = np.empty((len(magnitudes), _ROWS))
    for row in range(_ROWS):
        shift = max(0, row - entropy.ROWS + 4) // 4
        costs[:, row] = entropy.code_length(magnitudes >> shift, np.full(len(magnitudes), row - 4 * shift)) + shift
    return magnitudes, costs
