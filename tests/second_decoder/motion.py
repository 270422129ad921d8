"""The motion of a clip: vectors of blocks, and pictures that are moved along.

It follows "How is motion coded?" and "What does a picture see of its references?" of docs/FORMAT.md.
"""

from collections.abc import Iterator

import numpy as np

from second_decoder.arrays import along, cubic_weight
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
    """Move pictures, float32 [n, C, H, W], along vectors [n, 2, blocks down, blocks across]."""
    flow = motion
    for dimension, size in ((2, pictures.shape[2]), (3, pictures.shape[3])):
        flow = _between_centres(flow, dimension, size)
    result = np.empty_like(pictures)
    for picture, (down, across), out in zip(pictures, (flow + 64) // 128, result, strict=True):
        rows = _taps(down, np.arange(len(down))[:, None])
        columns = _taps(across, np.arange(across.shape[1]))
        lines = [_added([picture[:, y, x] * weight for x, weight in columns]) for y, _ in rows]
        out[...] = _added([line * weight for line, (_, weight) in zip(lines, rows, strict=True)])
    return result


def _between_centres(vectors: np.ndarray, dimension: int, size: int) -> np.ndarray:
    """Interpolate vectors to samples along one dimension, times 32."""
    last = vectors.shape[dimension] - 1
    place = (2 * np.arange(size) - 15).clip(0, 32 * last)
    block, share = place // 32, along(place % 32, dimension, vectors.ndim)
    after = np.minimum(block + 1, last)
    return np.take(vectors, block, dimension) * (32 - share) + np.take(vectors, after, dimension) * share


def _taps(flow: np.ndarray, own: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the four samples along an axis that a flow leads to, and their weights. own: where it starts."""
    size = own.size
    whole, part = flow // 32, (flow % 32) / 32
    return [
        ((own + whole + tap).clip(0, size - 1), cubic_weight(part - tap, -0.75).astype(np.float32))
        for tap in (-1, 0, 1, 2)
    ]


def _added(terms: list[np.ndarray]) -> np.ndarray:
    """Add up four terms, one after the other."""
    first, second, third, fourth = terms
    return first + second + third + fourth
