"""The residual: corrections that bring every value within the largest error.

It follows "Residual" of docs/FORMAT.md.
"""

import math
import struct
from dataclasses import dataclass, field

import numpy as np

from second_decoder.entropy import EntropyDecoder
from second_decoder.reading import read_varint, require

LAST_ROW = 140
LARGEST_WEIGHT = 2048
SYMBOL_LIMIT = 1 << 28
CLASSES = 276

AROUND = ((0, 1), (1, 0), (1, 1))
"""The groups of neighbours whose features references have."""


@dataclass
class Phase:
    """A phase. offset: (y0, x0). groups, activities, first_row: as in the page's table.

    referring: whether slices see references. weights: of the features. rows: of the classes. Both stay from level to
    level, and from layer to layer.
    """

    offset: tuple[int, int]
    groups: tuple[tuple[int, int], ...]
    activities: tuple[int, ...]
    first_row: int
    referring: bool
    weights: np.ndarray = field(init=False)
    rows: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        features = len(self.groups) + (2 * (1 + len(AROUND)) if self.referring else 0)
        self.weights = np.zeros(features, np.int64)
        self.rows = np.maximum(14, self.first_row + 2 * (np.arange(CLASSES) // 4)).clip(max=LAST_ROW)


def phases(*, referring: bool) -> list[Phase]:
    """Return corner, A, B and C as they are at first."""
    return [
        Phase((0, 0), (), (), 24, referring),
        Phase((1, 1), ((1, 1), (1, 3), (3, 1)), (3, 0, 0), 7, referring),
        Phase((0, 1), ((0, 1), (1, 0), (0, 3), (3, 0), (1, 2), (2, 1)), (2, 2, 0, 0, 1, 1), 9, referring),
        Phase((1, 0), ((0, 1), (1, 0), (1, 1), (0, 3), (3, 0)), (2, 2, 1, 0, 0), 6, referring),
    ]


@dataclass(frozen=True)
class Layer:
    """Slices of a slab. references: a, b, a' and b' of each slice, [4, slices], or None if it can have none."""

    slices: np.ndarray
    references: np.ndarray | None


def layers_of(slices: int) -> list[Layer]:
    """Return the layers of a slab in coding order."""
    layers = [Layer(np.arange(0, slices, 16), None)]
    for d in (8, 4, 2, 1):
        own = np.arange(d, slices, 2 * d)
        a, b, further_a, further_b = own - d, own + d, own - 3 * d, own + 3 * d
        b = np.where(b < slices, b, a)
        further_a = np.where(further_a >= 0, further_a, a)
        further_b = np.where(further_b < slices, further_b, b)
        layers.append(Layer(own, np.stack([a, b, further_a, further_b])))
    return [layer for layer in layers if len(layer.slices)]


@dataclass(frozen=True)
class Seen:
    """What the slices of a layer see of their references, [planes, height, width] each.

    near: r. far: r'. apart: |q_a - q_b|. All are 0 if they see none.
    """

    near: np.ndarray
    far: np.ndarray
    apart: np.ndarray


class ResidualDecoder:
    """Reads the batches of a residual with their free bits. rest: what follows the batches."""

    def __init__(self, batches: bytes, rest: bytes) -> None:
        self._decoder = EntropyDecoder(batches)
        self._rest = rest
        self._position = 0

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the symbols of a batch; rows are 0..140."""
        free = np.maximum(0, -(-(rows - 48) // 4))
        symbols = self._decoder.batch(rows - 4 * free)
        for count in range(1, int(free.max(initial=0)) + 1):
            places = np.flatnonzero(free == count)
            bits = self._bits(count * len(places)).reshape(-1, count)
            symbols[places] = (symbols[places] << count) + (bits << np.arange(count)).sum(1)
        return symbols

    def one(self, row: int) -> int:
        """Return the symbol of a batch of one symbol."""
        return int(self.batch(np.array([row]))[0])

    def finish(self) -> bytes:
        """Make sure that the batches are at their end, and return the stored values."""
        self._decoder.finish()
        require(not self._bits(-self._position % 8).any(), "the bits that fill the last byte are 0")
        return self._rest[self._position // 8 :]

    def _bits(self, count: int) -> np.ndarray:
        begin, end = self._position, self._position + count
        require(end <= 8 * len(self._rest), "there are as many free bits as the batches need")
        self._position = end
        taken = np.frombuffer(self._rest[begin // 8 : -(-end // 8)], np.uint8)
        return np.unpackbits(taken, bitorder="little")[begin % 8 :][:count].astype(np.int64)


def corrected(values: np.ndarray, payload: bytes, largest_error: float) -> np.ndarray:
    """Return native values [*grid, C] as the payload of a section `R` corrects them."""
    if not payload:
        return values
    rows = max(1, 2**22 // math.prod(values.shape[1:]))
    position = 0
    result = []
    for begin in range(0, len(values), rows):
        size, position = read_varint(payload, position)
        slab = payload[position : position + size]
        require(len(slab) == size, "a slab is within the residual")
        result.append(_corrected_slab(values[begin : begin + rows], slab, largest_error))
        position += size
    require(position == len(payload), "a residual ends with its last slab")
    require(len(payload) > len(result), "some slab of a residual has bytes")
    return np.concatenate(result)


def _corrected_slab(values: np.ndarray, payload: bytes, largest_error: float) -> np.ndarray:
    if not payload:
        return values
    require(len(payload) > 8, "a slab has more than 8 bytes, or none")
    (beta,) = struct.unpack("<d", payload[:8])
    require(2.0**-1000 <= beta <= largest_error, "β is 2^-1000..ε")
    length, begin = read_varint(payload, 8)
    require(begin + length <= len(payload), "the batches are within the residual")
    decoder = ResidualDecoder(payload[begin : begin + length], payload[begin + length :])
    step = _step(beta, 12 - decoder.one(20))
    *grid, channels = values.shape
    height, width = (1, *grid)[-2:]
    planes = _symbols(decoder, values.size // (height * width * channels), channels, height, width)
    q = np.moveaxis(planes, 1, -1).reshape(values.shape)
    places = _places(decoder, values.size)
    stored = decoder.finish()
    require(len(stored) == len(places) * values.itemsize, "there are as many stored values as places")
    result = _added(values, q, step)
    result.reshape(-1)[places] = np.frombuffer(stored, values.dtype.newbyteorder("<"))
    return result


def _step(beta: float, g: int) -> float:
    """Return δ."""
    require(-2200 <= g <= 12, "g is -2200..12")
    exponent = math.frexp(beta)[1] - 1
    require(exponent - g <= 1000, "E - g is at most 1000")
    u = math.ldexp(1.0, exponent - g)
    return (2 * math.floor(beta / u) + 1) * u * 1023 / 1024


def _symbols(decoder: ResidualDecoder, slices: int, channels: int, height: int, width: int) -> np.ndarray:
    """Return the symbols q of a slab, int64 [slices, channels, height, width]."""
    result = np.zeros((slices, channels, height, width), np.int64)
    known = {referring: phases(referring=referring) for referring in (False, True)}
    for layer in layers_of(slices):
        referring = 0
        if layer.references is not None:
            referring = decoder.one(20)
            require(referring in (0, 1), "the flag of references is 0 or 1")
        q = np.zeros((len(layer.slices) * channels, height, width), np.int64)
        seen = Seen(*[np.zeros_like(q)] * 3)
        if layer.references is not None and referring:
            a, b, further_a, further_b = (result[each].reshape(q.shape) for each in layer.references)
            seen = Seen(a + b, further_a + further_b - (a + b), np.abs(a - b))
        _read_layer(decoder, known[bool(referring)], q, seen)
        result[layer.slices] = q.reshape(-1, channels, height, width)
    return result


def _read_layer(decoder: ResidualDecoder, known: list[Phase], q: np.ndarray, seen: Seen) -> None:
    """Decode the planes of a layer into `q`."""
    _, height, width = q.shape
    corner, *others = known
    levels = (max(height, width) - 1).bit_length()
    _read_phase(decoder, corner, q, seen, np.zeros(1, np.int64), np.zeros(1, np.int64), 1 << levels)
    for level in reversed(range(levels)):
        for phase in others:
            y0, x0 = phase.offset
            ys = np.arange(y0 << level, height, 2 << level)
            xs = np.arange(x0 << level, width, 2 << level)
            if len(ys) and len(xs):
                _read_phase(decoder, phase, q, seen, ys, xs, 1 << level)


def _read_phase(
    decoder: ResidualDecoder, phase: Phase, q: np.ndarray, seen: Seen, ys: np.ndarray, xs: np.ndarray, distance: int
) -> None:
    """Decode the points of a phase into `q`. ys, xs: theirs. distance: 2^l."""
    changed = decoder.one(20)
    require(changed in (0, 1), "the flag of new weights is 0 or 1")
    if changed:
        phase.weights += decoder.batch(np.full(len(phase.weights), 38))
        require(bool((np.abs(phase.weights) <= LARGEST_WEIGHT).all()), "a weight is -2048..2048")

    def neighbours(values: np.ndarray, group: tuple[int, int]) -> np.ndarray:
        return _neighbours(values, ys, xs, group[0] * distance, group[1] * distance)

    def here(values: np.ndarray) -> np.ndarray:
        return values[:, ys[:, None], xs]

    features = []
    for each in (seen.near, seen.far) if phase.referring else ():
        own = here(each)
        features += [own, *[(neighbours(each, group) - own).sum(0) for group in AROUND]]
    groups = [neighbours(2 * q - seen.near, group) for group in phase.groups]
    sums = [group.sum(0) for group in groups]
    features += [
        total - (len(group) // len(groups[0]) * sums[0] if number else 0)
        for number, (group, total) in enumerate(zip(groups, sums, strict=True))
    ]
    t = 128 * here(seen.near)
    for weight, feature in zip(phase.weights, features, strict=True):
        t = t + weight * feature
    rounded = (t + 128) >> 8
    prediction = rounded.clip(-SYMBOL_LIMIT, SYMBOL_LIMIT)
    activity = here(seen.apart)
    for weight, group in zip(phase.activities, groups, strict=True):
        activity = activity + weight * np.abs(group - (2 * prediction - here(seen.near))).sum(0)
    classes = 4 * _halves_of_octaves(activity // 2) + np.minimum(3, np.abs(t - 256 * rounded) // 32)
    used = np.unique(classes)
    phase.rows[used] += decoder.batch(np.full(len(used), 20))
    require(bool(((phase.rows >= 0) & (phase.rows <= LAST_ROW)).all()), "a row is 0..140")
    found = prediction + decoder.batch(phase.rows[classes.ravel()]).reshape(prediction.shape)
    require(bool((np.abs(found) < SYMBOL_LIMIT).all()), "a symbol q is smaller than 2^28 in magnitude")
    q[:, ys[:, None], xs] = found


def _halves_of_octaves(activity: np.ndarray) -> np.ndarray:
    """Return h."""
    e = np.frexp(activity.astype(np.float64))[1].astype(np.int64) - 1  # of 0 it is -1
    return np.where(activity == 0, 0, 2 * e + 1 + (2 * activity >= 3 * 2.0**e))


def _neighbours(values: np.ndarray, ys: np.ndarray, xs: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Return the different neighbours (y ± dy, x ± dx) of points, [n, planes, rows, columns]; 0 beyond a plane."""
    _, height, width = values.shape
    found = []
    for down, across in sorted({(dy, dx), (dy, -dx), (-dy, dx), (-dy, -dx)}):
        y, x = (ys + down)[:, None], xs + across
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        found.append(np.where(inside, values[:, y.clip(0, height - 1), x.clip(0, width - 1)], 0))
    return np.stack(found)


def _places(decoder: ResidualDecoder, values: int) -> np.ndarray:
    """Return the places of the stored values among all values."""
    count = decoder.one(0)
    require(0 <= count <= values, "the number of stored values is within the values")
    if count == 0:
        return np.zeros(0, np.int64)
    row = decoder.one(24)
    require(0 <= row <= LAST_ROW, "a row is 0..140")
    between = decoder.batch(np.full(count, row))
    require(bool(((between >= 0) & (between < values)).all()), "stored values come one after the other")
    places = np.cumsum(between + 1) - 1
    require(int(places[-1]) < values, "the places of stored values are within the values")
    return places


def _added(values: np.ndarray, q: np.ndarray, step: float) -> np.ndarray:
    """Return values + q δ, clipped and rounded to their type, where q is not 0."""
    result = values.copy()
    where = q != 0
    with np.errstate(over="ignore"):  # what overflows is clipped
        exact = values[where].astype(np.float64) + q[where] * step
    if values.dtype.kind == "f":
        largest = float(np.finfo(values.dtype).max)
        result[where] = exact.clip(-largest, largest)
    else:
        limits = np.iinfo(values.dtype)
        result[where] = np.rint(exact).clip(limits.min, limits.max)
    return result
