"""The symbols of latent fields: the means, and then pass by pass the details with the rows of the entropy model.

It follows "What is in a chunk of a pyramid or spectrum?", "How does the entropy model find the rows?" and "What does
the entropy model of a series see?" of docs/FORMAT.md. All of it is integer arithmetic, but for the hints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from second_decoder.arrays import at, bias, convolution, cropped, pointwise
from second_decoder.entropy import FLAG_ROWS, MAGNITUDE_ROWS, EntropyDecoder
from second_decoder.integers import (
    LARGEST_ACTIVATION,
    activation,
    biases,
    level_biases,
    require_exact,
    weights,
)
from second_decoder.latent_grids import LatentGrids, Pass


def weight_tensors(grids: LatentGrids, width: int, *, hints: bool = False) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the entropy model's tensors. width: `hidden`. hints: whether it sees hints."""
    taps = (3,) * len(grids.levels)
    tables = grids.depth + 2
    shapes = {}
    for level, phase, group in grids.networks():
        name, bands = grids.name(level, phase, group), grids.bands(level)
        c, before = bands * grids.groups[group], bands * sum(grids.groups[:group])
        shapes[f"{name}.input.weight"] = (width, c * (phase + 2) + before, *taps)
        shapes[f"{name}.input.bias"] = (tables, width)
        if hints:
            shapes[f"{name}.hints.weight"] = (width, 2 * c + 1, *taps)
        shapes[f"{name}.hidden.weight"] = (width, width)
        shapes[f"{name}.hidden.bias"] = (width,)
        for head in ("flags", "scales"):
            shapes[f"{name}.{head}.weight"] = (c, width)
            shapes[f"{name}.{head}.bias"] = (tables, c)
        for part in range(1, len(grids.parts(level, phase, group))):
            shapes[f"{name}.part{part}.weight"] = (width, c, *taps)
            shapes[f"{name}.part{part}.bias"] = (tables, width)
    return shapes


@dataclass(frozen=True)
class Hints:
    """What fields see of their references. details: of every level, |a + b| and |a - b| as inputs. alone: see there."""

    details: list[tuple[np.ndarray, np.ndarray]]
    alone: bool


def hints_of(first: Sequence[np.ndarray], second: Sequence[np.ndarray], step: float, *, alone: bool) -> Hints:
    """Return the hints of fields.

    first, second: details of every level of their two references, float32. step: Δ. alone: whether there is one
    reference only.
    """
    f = np.float32(1 / (2 * step))
    return Hints([(_hint((a + b) * f), _hint((a - b) * f)) for a, b in zip(first, second, strict=True)], alone)


class EntropyModel:
    """Reads the symbols of patches. tensors: float64, by name, without a kind."""

    def __init__(self, grids: LatentGrids, tensors: Mapping[str, np.ndarray], step_index: int) -> None:
        self.grids = grids
        self.integers: dict[str, np.ndarray] = {}
        for name, tensor in tensors.items():
            if name.endswith("weight"):
                self.integers[name] = weights(tensor)
            elif name.endswith("hidden.bias"):
                self.integers[name] = biases(tensor)
            else:
                self.integers[name] = level_biases(tensor, step_index + 24)
        for level, phase, group in grids.networks():
            self._check(grids.name(level, phase, group), len(grids.parts(level, phase, group)))

    def _check(self, name: str, parts: int) -> None:
        def of(layer: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
            return [self.integers[f"{name}.{layer}.weight"]], [self.integers[f"{name}.{layer}.bias"]]

        seen, (bias,) = of("input")
        if f"{name}.hints.weight" in self.integers:
            seen.append(self.integers[f"{name}.hints.weight"])
        require_exact(LARGEST_ACTIVATION, seen, [bias])
        for part in range(1, parts):
            (own,), (more,) = of(f"part{part}")
            require_exact(LARGEST_ACTIVATION, [*seen, own], [bias, more])
        require_exact(LARGEST_ACTIVATION, *of("hidden"))
        for head in ("flags", "scales"):
            require_exact(2 * LARGEST_ACTIVATION, *of(head))

    def read(self, decoder: EntropyDecoder, patches: int, hints: Hints | None = None) -> list[np.ndarray]:
        """Return the symbols of some patches: the means, and those of every pass, [patches, channels, *shape] each."""
        grids = self.grids
        result = [_read_means(decoder, (patches, *grids.means_shape), grids)]
        inputs = [np.zeros((patches, *grids.details_shape(level))) for level in range(grids.depth)]
        for level in reversed(range(grids.depth)):
            for each in grids.passes(level):
                flag_rows, magnitude_rows = (np.moveaxis(rows, 1, -1) for rows in self._rows(each, inputs, hints))
                symbols = np.moveaxis(decoder.flagged(flag_rows, magnitude_rows), -1, 1)
                inputs[level][each.place] = _pseudo_logarithm(symbols)
                result.append(symbols)
        return result

    def _rows(self, each: Pass, inputs: list[np.ndarray], hints: Hints | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of flags and of magnitudes of a pass."""
        z = self._layer(f"{each.name}.input", self._inputs(each, inputs), each.level)
        if hints is not None:
            z = z + convolution(self._hints(each, hints), self.integers[f"{each.name}.hints.weight"])
        if each.part > 0:
            # The inputs of parts that are still to come are 0.
            own = self.grids.on_phase_grid(inputs[each.level][:, each.details], each.level, each.phase)
            z = z + self._layer(f"{each.name}.part{each.part}", own, each.level)
        h = activation(cropped(z[at(each.points)], each.shape))
        h = h + activation(self._layer(f"{each.name}.hidden", h, None))
        flags, magnitudes = (
            np.floor(self._layer(f"{each.name}.{head}", h, each.level) / 4096 + 0.5).astype(np.int64)
            for head in ("flags", "scales")
        )
        return FLAG_ROWS + (flags + 40).clip(0, 80), MAGNITUDE_ROWS + (magnitudes + 8).clip(0, 63)

    def _layer(self, name: str, values: np.ndarray, level: int | None) -> np.ndarray:
        """Return the sums of a layer. level: where every level has biases of its own."""
        weight, table = self.integers[f"{name}.weight"], self.integers[f"{name}.bias"]
        sums = pointwise(values, weight) if weight.ndim == 2 else convolution(values, weight)
        return sums + bias(table if level is None else table[level], sums)

    def _hints(self, each: Pass, hints: Hints) -> np.ndarray:
        """Return the hints of a pass on the phase grid, in order."""
        parts = [
            self.grids.on_phase_grid(seen[:, each.details], each.level, each.phase)
            for seen in hints.details[each.level]
        ]
        parts.append(np.full_like(parts[0][:, :1], 128 if hints.alone else 0))
        return np.concatenate(parts, 1)

    def _inputs(self, each: Pass, inputs: list[np.ndarray]) -> np.ndarray:
        """Return the inputs of a pass on the phase grid, in order."""
        grids, level = self.grids, each.level
        own, grid = inputs[level][:, each.details], grids.phase_grid(level)
        parts = [grids.on_phase_grid(own, level, phase) for phase in range(each.phase)]
        parts.append(grids.on_phase_grid(inputs[level][:, each.before], level, each.phase))
        for coarser in (level + 1, level + 2):
            if coarser >= grids.depth or grids.bands(coarser) != grids.bands(level):
                parts.append(np.zeros((*own.shape[:2], *grid)))
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


def _hint(values: np.ndarray) -> np.ndarray:
    """Return m(4 |values|) of float32."""
    a = 4 * np.abs(values) + np.float32(1)
    n = np.frexp(a)[1] - 1
    exact = np.float32(128) * ((n - 1).astype(np.float32) + np.ldexp(a, -n))
    assert exact.dtype == np.float32
    return np.minimum(np.floor(exact), LARGEST_ACTIVATION).astype(np.float64)


def _pseudo_logarithm(symbols: np.ndarray) -> np.ndarray:
    """Return m(q)."""
    a = np.abs(symbols) + 1
    e = np.frexp(a.astype(np.float64))[1].astype(np.int64) - 1
    return np.minimum((128 * ((e - 1) * (1 << e) + a)) >> e, LARGEST_ACTIVATION).astype(np.float64)
