"""The motion of some pictures: integer vectors of blocks to what the entropy coder is given, and back.

A field of vectors is coded from coarse to fine: first that of block (0, 0); then every halving of a lattice of blocks
adds those at the centres of its squares and then those between, whose four neighbours are known. A component is
predicted by a median of its neighbours; what is coded are a flag that says whether it differs, the sign and the
magnitude less one of the difference. The more the neighbours differ among each other, the higher its class, and each
class has its rows of flags and of magnitudes, which come first. dy and dx know nothing of each other, nor do fields.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inrcodec.coding import entropy
from inrcodec.coding.flagged import flagged_batches, read_flagged
from inrcodec.errors import CorruptFile

LARGEST_MOTION = 1 << 12
"""The magnitude that no component of a vector exceeds."""

_DIVERSE = 8
"""The last of the classes by the sum of the neighbours' differences from their median: 0, 1, 2..3, 4..7, ..., 128.."""
_MOVING, _FIRST = _DIVERSE + 1, _DIVERSE + 2
"""Further classes: of neighbours that are alike, but not 0; and of block (0, 0), which has none."""

_FLAGS = np.array([-13, -3, 0, 2, 3, 4, 5, 6, 7, -6, -1]) + entropy.EVEN_FLAG
_MAGNITUDES = np.array([-2, -2, 0, 4, 8, 12, 16, 20, 24, -2, 16]) + entropy.UNIT_MAGNITUDE
_USUAL_ROWS = np.stack([_FLAGS + entropy.FLAG_ROW, _MAGNITUDES + entropy.MAGNITUDE_ROW])
"""The usual rows of flags and of magnitudes, by class; rows are coded as differences from these."""
_ROW_RANGES = (
    range(entropy.FLAG_ROW, entropy.FLAG_ROW + entropy.FLAG_ROWS),
    range(entropy.MAGNITUDE_ROW, entropy.MAGNITUDE_ROW + entropy.MAGNITUDE_ROWS),
)
_ROW_ROW = entropy.ZERO_ROW
"""The Laplace model of those differences."""

_UNKNOWN = 1 << 40
"""In the place of a neighbour beyond the edges: more than any component."""


@dataclass(frozen=True)
class _Pass:
    """Components that are coded at once, and their predictions.

    index: of them in the fields. predictions, classes: of each, [N, 2, blocks down, blocks across] of the pass.
    """

    index: tuple[slice, ...]
    predictions: np.ndarray
    classes: np.ndarray


def motion_batches(motion: np.ndarray) -> list[entropy.Batch]:
    """Return what is coded for fields of vectors.

    motion: int64 [N, 2, blocks down, blocks across], at most LARGEST_MOTION in magnitude.
    Raises: ValueError for a larger one.
    """
    largest = np.abs(motion).max(initial=0)
    if largest > LARGEST_MOTION:
        raise ValueError(f"motion must not exceed {LARGEST_MOTION} in magnitude: {largest = }")
    passes = [((motion[each.index] - each.predictions).ravel(), each.classes.ravel()) for each in _passes(motion)]
    flag_rows, magnitude_rows = rows = _best_rows(*(np.concatenate(each) for each in zip(*passes, strict=True)))
    batches = [((rows - _USUAL_ROWS).ravel(), np.full(rows.size, _ROW_ROW))]
    for errors, classes in passes:
        batches += flagged_batches(errors, flag_rows[classes], magnitude_rows[classes])
    return batches


def read_motion(decoder: entropy.Decoder, shape: tuple[int, ...]) -> np.ndarray:
    """Decode the motion, int64 of this `shape`, that `motion_batches` was given.

    Raises: CorruptFile, also where a component would exceed LARGEST_MOTION in magnitude.
    """
    rows = _USUAL_ROWS + decoder.decode(np.full(_USUAL_ROWS.size, _ROW_ROW)).reshape(_USUAL_ROWS.shape)
    flag_rows, magnitude_rows = (
        each.clip(within[0], within[-1]) for each, within in zip(rows, _ROW_RANGES, strict=True)
    )
    motion = np.zeros(shape, np.int64)
    for each in _passes(motion):
        classes = each.classes.ravel()
        errors = read_flagged(decoder, flag_rows[classes], magnitude_rows[classes])
        motion[each.index] = each.predictions + errors.reshape(each.classes.shape)
        largest = np.abs(motion[each.index]).max(initial=0)
        if largest > LARGEST_MOTION:
            raise CorruptFile(f"motion has magnitude {largest}, beyond {LARGEST_MOTION}: obtain the file again")
    return motion


def _passes(motion: np.ndarray) -> Iterator[_Pass]:
    """Yield the passes in coding order. Each sees those before it, as `motion` has them when it is asked for."""
    down, across = motion.shape[2:]
    first = (slice(None), slice(None), slice(1), slice(1))
    yield _Pass(first, np.zeros_like(motion[first]), np.full_like(motion[first], _FIRST))
    stride = 1 << (max(down, across, 1) - 1).bit_length()
    while stride > 1:
        half = stride // 2
        old, new = slice(0, None, stride), slice(half, None, stride)
        diagonal = [(-half, -half), (-half, half), (half, -half), (half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for rows, columns, offsets in ((new, new, diagonal), (old, new, straight), (new, old, straight)):
            index = (slice(None), slice(None), rows, columns)
            yield _Pass(index, *_predicted(_neighbours(motion, index, offsets)))
        stride = half


def _neighbours(motion: np.ndarray, index: tuple[slice, ...], offsets: list[tuple[int, int]]) -> np.ndarray:
    """Return what stands at these offsets from the components at `index`: [offsets, N, 2, rows, columns]."""
    down, across = motion.shape[2:]
    rows, columns = np.arange(down)[index[2]], np.arange(across)[index[3]]
    found = []
    for y, x in offsets:
        row, column = (rows + y)[:, None], columns + x
        inside = (row >= 0) & (row < down) & (column >= 0) & (column < across)
        values = motion[:, :, row.clip(0, down - 1), column.clip(0, across - 1)]
        found.append(np.where(inside, values, _UNKNOWN))
    return np.stack(found)


def _predicted(neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions and classes of components of which at least one neighbour is known."""
    ordered = np.sort(neighbours, axis=0)
    known = ordered != _UNKNOWN
    count = known.sum(0, keepdims=True)
    lower, upper = (np.take_along_axis(ordered, middle, 0)[0] for middle in ((count - 1) // 2, count // 2))
    # Rather one that is there than a mean of the two, which is as wrong on either side of an edge.
    median = np.where(np.abs(lower) <= np.abs(upper), lower, upper)
    spread = np.where(known, np.abs(ordered - median), 0).sum(0)
    digits = np.frexp(spread.astype(np.float64))[1].astype(np.int64)
    return median, np.where((spread == 0) & (median != 0), _MOVING, np.minimum(digits, _DIVERSE))


def _best_rows(errors: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the rows, like _USUAL_ROWS, under which the errors of each class and the rows together are shortest."""
    nonzero = errors != 0
    coded = ((nonzero.astype(np.int64), classes), (np.abs(errors[nonzero]) - 1, classes[nonzero]))
    return np.array(
        [
            [_best_row(symbols[places == k], int(usual), within) for k, usual in enumerate(usuals)]
            for (symbols, places), usuals, within in zip(coded, _USUAL_ROWS, _ROW_RANGES, strict=True)
        ]
    )


def _best_row(symbols: np.ndarray, usual: int, within: range) -> int:
    rows = np.array(within)
    values, counts = np.unique(symbols, return_counts=True)
    bits = entropy.code_length(np.tile(values, len(rows)), np.repeat(rows, len(values))).reshape(len(rows), len(values))
    own = entropy.code_length(rows - usual, np.full(len(rows), _ROW_ROW))
    return within[int(np.argmin(bits @ counts + own))]
