"""The symbols of latent fields: the means, and then pass by pass the details with the rows of the entropy model.

It follows "What is in a chunk of a pyramid or spectrum?" and "How does the entropy model find the rows?" of
docs/FORMAT.md. All of it is integer arithmetic.
"""

from collections.abc import Mapping

import numpy as np

from second_decoder.arrays import at, bias, convolution, cropped, pointwise
from second_decoder.entropy import FLAG_ROWS, MAGNITUDE_ROWS, EntropyDecoder
from second_decoder.latent_grids import LatentGrids, Pass


def weight_tensors(grids: LatentGrids, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the entropy model's weights. width: `hidden`."""
    taps = (3,) * len(grids.levels)
    tables = grids.depth + 2
    shapes = {}
    for level, phase, group in grids.networks():
        name, bands = grids.name(level, phase, group), grids.bands(level)
        c, before = bands * grids.groups[group], bands * sum(grids.groups[:group])
        shapes[f"{name}.input"] = (width, c * (phase + 2) + before, *taps)
        shapes[f"{name}.input_bias"] = (tables, width)
        shapes[f"{name}.hidden"] = (width, width)
        shapes[f"{name}.hidden_bias"] = (1, width)
        shapes[f"{name}.head"] = (2 * c, width)
        shapes[f"{name}.head_bias"] = (tables, 2 * c)
        for part in range(1, len(grids.parts(level, phase))):
            shapes[f"{name}.part{part}"] = (width, c, *taps)
            shapes[f"{name}.part{part}_bias"] = (tables, width)
    return shapes


class EntropyModel:
    """Reads the symbols of patches. weights: int64, by name, without a kind."""

    def __init__(self, grids: LatentGrids, weights: Mapping[str, np.ndarray]) -> None:
        self.grids = grids
        self.weights = weights

    def read(self, decoder: EntropyDecoder, patches: int, step_index: int) -> list[np.ndarray]:
        """Return the symbols of some patches: details, finest first, and means, [patches, channels, *grid] each."""
        grids, t = self.grids, 32 * step_index + 768
        *shapes, coarsest = [(patches, *shape) for shape in grids.symbol_shapes()]
        means = _read_means(decoder, coarsest, grids)
        details = [np.zeros(shape, np.int64) for shape in shapes]
        inputs = [np.zeros(shape, np.int64) for shape in shapes]
        for level in reversed(range(grids.depth)):
            for each in grids.passes(level):
                o = cropped(self._outputs(each, inputs, t)[at(each.points)], details[level][each.place].shape[2:])
                c = o.shape[1] // 2
                flag_rows = FLAG_ROWS + (o[:, :c] + 40).clip(0, 80)
                magnitude_rows = MAGNITUDE_ROWS + (o[:, c:] + 8).clip(0, 63)
                symbols = decoder.flagged(flag_rows, magnitude_rows)
                details[level][each.place] = symbols
                inputs[level][each.place] = _pseudo_logarithm(symbols)
        return [*details, means]

    def _outputs(self, each: Pass, inputs: list[np.ndarray], t: int) -> np.ndarray:
        """Return the numbers o of the network on the whole phase grid."""
        weights, name, level = self.weights, each.name, each.level

        def with_bias(values: np.ndarray, table: str) -> np.ndarray:
            rows = weights[table]
            depth = self.grids.depth
            return values + bias(rows[level] * 256 + t * rows[depth] + (t * t // 256) * rows[depth + 1], values)

        z = with_bias(convolution(self._inputs(each, inputs), weights[f"{name}.input"]), f"{name}.input_bias")
        if each.part > 0:
            # The inputs of parts that are still to come are 0.
            own = self.grids.on_phase_grid(inputs[level][:, each.details], level, each.phase)
            part = f"{name}.part{each.part}"
            z = with_bias(z + convolution(own, weights[part]), f"{part}_bias")
        h = _activation(z)
        hidden = pointwise(h, weights[f"{name}.hidden"])
        h = h + _activation(hidden + bias(256 * weights[f"{name}.hidden_bias"][0], hidden))
        return (with_bias(pointwise(h, weights[f"{name}.head"]), f"{name}.head_bias") + (1 << 15)) >> 16

    def _inputs(self, each: Pass, inputs: list[np.ndarray]) -> np.ndarray:
        """Return the inputs of a pass on the phase grid, in order."""
        grids, level = self.grids, each.level
        own, grid = inputs[level][:, each.details], grids.phase_grid(level)
        parts = [grids.on_phase_grid(own, level, phase) for phase in range(each.phase)]
        parts.append(grids.on_phase_grid(inputs[level][:, each.before], level, each.phase))
        for coarser in (level + 1, level + 2):
            if coarser >= grids.depth or grids.bands(coarser) != grids.bands(level):
                parts.append(np.zeros((*own.shape[:2], *grid), np.int64))
                continue
            seen = inputs[coarser][:, each.details]
            for axis in grids.split_axes(coarser) if coarser == level + 2 else ():
                seen = np.repeat(seen, 2, axis + 2)
            parts.append(cropped(seen, grid))
        return np.concatenate(parts, 1)


def _read_means(decoder: EntropyDecoder, shape: tuple[int, ...], grids: LatentGrids) -> np.ndarray:
    groups = []
    for channels in grids.groups:
        row = min(max(decoder.one(40) + 24, 0), 48)
        groups.append(decoder.batch(np.full((shape[0], channels, *shape[2:]), row)))
    means = np.concatenate(groups, 1)
    # Along each axis, the lines whose later indices are all 0 become sums.
    for axis in range(2, means.ndim):
        lines = means[(..., *[0] * (means.ndim - axis - 1))]
        lines[...] = np.cumsum(lines, axis)
    return means


def _pseudo_logarithm(symbols: np.ndarray) -> np.ndarray:
    """Return m(q)."""
    a = np.abs(symbols) + 1
    e = np.frexp(a.astype(np.float64))[1].astype(np.int64) - 1
    return np.minimum((256 * ((e - 1) * (1 << e) + a)) >> e, 1 << 15)


def _activation(x: np.ndarray) -> np.ndarray:
    """Return A(x)."""
    y = (x >> 10).clip(-(1 << 15), 1 << 15)
    return np.where(y >= 0, y, y >> 3)
