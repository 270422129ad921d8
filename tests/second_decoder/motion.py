"""The motion of a clip: vectors of blocks, and pictures that are moved along.

It follows "How is motion coded?" and "What does a picture see of its references?" of docs/FORMAT.md.
"""

from collections.abc import Iterator

import numpy as np

from second_decoder.arrays import cubic_weight, linear_interpolation
from second_decoder.entropy import EntropyDecoder
from second_decoder.reading import require

USUAL_ROWS = np.array(
    [
        [76, 86, 89, 91, 92, 93, 94, 95, 96, 83, 88],
        [136, 136, 138, 142, 146, 150, 154, 158, 162, 136, 154],
    ]
)
"""The usual rows of flags and of magnitudes, by class."""

Offsets = tuple[tuple[int, int], ...]


def read_motion(decoder: EntropyDecoder, fields: int, height: int, width: int) -> np.ndarray:
    """Return the vectors of some fields of blocks, int64 [fields, 2, height, width]."""
    rows = USUAL_ROWS + decoder.batch(np.full(USUAL_ROWS.shape, 24))
    flag_rows, magnitude_rows = rows[0].clip(49, 129), rows[1].clip(130, 193)
    motion = np.zeros((fields, 2, height, width), np.int64)
    for blocks, offsets in _turns(height, width):
        predictions = np.zeros((fields, 2, len(blocks)), np.int64)
        classes = np.full(predictions.shape, 10)
        if offsets:
            for number, (y, x) in enumerate(blocks):
                there = [(y + dy, x + dx) for dy, dx in offsets if 0 <= y + dy < height and 0 <= x + dx < width]
                neighbours = np.sort([motion[:, :, row, column] for row, column in there], axis=0)
                predictions[:, :, number], classes[:, :, number] = _prediction_and_class(neighbours)
        differences = decoder.flagged(flag_rows[classes], magnitude_rows[classes])
        require(bool((np.abs(predictions + differences) <= 4096).all()), "a component is -4096..4096")
        for number, (y, x) in enumerate(blocks):
            motion[:, :, y, x] = predictions[:, :, number] + differences[:, :, number]
    return motion


def _turns(height: int, width: int) -> Iterator[tuple[list[tuple[int, int]], Offsets]]:
    """Yield the blocks of every turn by rows, and where their neighbours are."""
    yield [(0, 0)], ()
    s = 1
    while s < max(height, width):
        s *= 2
    while s > 1:
        h = s // 2
        diagonal = ((-h, -h), (-h, h), (h, -h), (h, h))
        straight = ((-h, 0), (h, 0), (0, -h), (0, h))
        for y0, x0, offsets in ((h, h, diagonal), (0, h, straight), (h, 0, straight)):
            yield [(y, x) for y in range(y0, height, s) for x in range(x0, width, s)], offsets
        s = h


def _prediction_and_class(neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions and the classes of components with neighbours [n, ...] in ascending order."""
    low, high = neighbours[(len(neighbours) - 1) // 2], neighbours[len(neighbours) // 2]
    prediction = np.where(np.abs(low) <= np.abs(high), low, high)
    deviation = np.abs(neighbours - prediction).sum(0)
    digits = np.frexp(deviation.astype(np.float64))[1]
    return prediction, np.where((deviation == 0) & (prediction != 0), 9, np.minimum(digits, 8))


def moved(pictures: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Move pictures [n, C, H, W] along vectors [n, 2, blocks down, blocks across]."""
    height, width = pictures.shape[2:]
    flow = motion.astype(np.float64) / 4
    for dimension, size in ((2, height), (3, width)):
        blocks = flow.shape[dimension]
        flow = np.take(linear_interpolation(flow, dimension, 16 * blocks), range(size), dimension)
    result = np.zeros_like(pictures)
    for picture, (down, across), out in zip(pictures, flow, result, strict=True):
        y, x = np.arange(height)[:, None] + down, np.arange(width) + across
        top, left = np.floor(y).astype(int), np.floor(x).astype(int)
        for row in (top - 1, top, top + 1, top + 2):
            for column in (left - 1, left, left + 1, left + 2):
                samples = picture[:, row.clip(0, height - 1), column.clip(0, width - 1)]
                out += samples * cubic_weight(y - row, -0.75) * cubic_weight(x - column, -0.75)
    return result
