"""The predictions of details, and with them the latents.

It follows "What is the prediction of a detail?" and "What does a picture see of its references?" of docs/FORMAT.md.
Arrays of float32 are rounded at every operation; arrays of float64 hold integers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from second_decoder.arrays import at, bias, convolution, cropped, pointwise
from second_decoder.integers import (
    LARGEST_ACTIVATION,
    activation,
    biases,
    centred_weights,
    level_biases,
    require_exact,
    weights,
)
from second_decoder.latent_fields import quantization_step
from second_decoder.latent_grids import LatentGrids, Pass
from second_decoder.wavelet import join, split

LARGEST_INPUT = 1280
FINE = -56
"""The step index below which the networks see the signal magnified."""


@dataclass(frozen=True)
class Reference:
    """The transform of a reference, float32. details: of every level. lows: the low bands r_1..r_D."""

    details: list[np.ndarray]
    lows: list[np.ndarray]


def reference_of(values: np.ndarray, grids: LatentGrids, around: Sequence[bool]) -> Reference:
    """Transform a reference: its values less 1/2, in the colours of latents."""
    details, low = [], values
    for level in range(grids.depth):
        low, high = split(low, grids.split_axes(level), grids.closed(level, around))
        details.append(high)
    lows = [low]
    for level in reversed(range(1, grids.depth)):
        joined = join(lows[0], details[level], grids.split_axes(level), grids.closed(level, around))
        lows.insert(0, cropped(joined, grids.whole(level)))
    return Reference(details, lows)


def network_tensors(grids: LatentGrids, width: int, references: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the prediction networks' tensors. width: `prediction`."""
    taps = (3,) * len(grids.levels)
    shapes = {}
    for level, phase, group in grids.networks():
        name = f"prediction.{grids.name(level, phase, group)}"
        bands, phases, k = grids.bands(level), len(grids.phases(level)), grids.groups[group]
        c, before = bands * k, bands * sum(grids.groups[:group])
        shapes[f"{name}.means.weight"] = (width, k * phases, *taps)
        shapes[f"{name}.means.bias"] = (grids.depth + 2, width)
        if c * phase + before:
            shapes[f"{name}.details.weight"] = (width, c * phase + before, *taps)
        shapes[f"{name}.hidden.weight"] = (width, width, *taps)
        shapes[f"{name}.hidden.bias"] = (width,)
        shapes[f"{name}.head.weight"] = (c, width)
        for part in range(1, len(grids.parts(level, phase, group))):
            shapes[f"{name}.part{part}.weight"] = (width, c, *taps)
            shapes[f"{name}.part{part}.bias"] = (grids.depth + 2, width)
        if references:
            shapes[f"{name}.reference.weight"] = (width, references * k * phases * (1 + bands), *taps)
            shapes[f"{name}.share.weight"] = (references * c, width)
            shapes[f"{name}.share.bias"] = (grids.depth, references * c)
    return shapes


@dataclass(frozen=True)
class Surroundings:
    """What the networks of a level see besides its details.

    gain: G. lows: g_l+1 at the places of every phase. distances: g_l+1 - r_l+1 there, for every reference. details:
    those of every reference. All in quantization steps.
    """

    gain: float
    lows: list[np.ndarray]
    distances: list[list[np.ndarray]]
    details: list[np.ndarray]

    def inputs(self, values: np.ndarray, largest: int = LARGEST_INPUT) -> np.ndarray:
        """Return numbers in quantization steps as inputs of a network."""
        return np.floor(values * np.float32(256 * self.gain)).clip(-largest, largest).astype(np.float64)


class Predictor:
    """Turns symbols into latents, with one step index. tensors: float64, by name, without a kind.

    around: see `LatentField`.
    """

    def __init__(
        self, grids: LatentGrids, tensors: Mapping[str, np.ndarray], around: Sequence[bool], step_index: int
    ) -> None:
        self.grids = grids
        self.around = around
        self.step_index = step_index
        self.magnified = 1 << max(0, -((step_index - FINE) // 8))
        self.integers: dict[str, np.ndarray] = {}
        for level, phase, group in grids.networks():
            name = f"prediction.{grids.name(level, phase, group)}."
            for key, tensor in tensors.items():
                if key.startswith(name):
                    self.integers[key] = self._integers(key.removeprefix(name), tensor, grids.groups[group])
            self._check(name, len(grids.parts(level, phase, group)))

    def _integers(self, layer: str, tensor: np.ndarray, channels: int) -> np.ndarray:
        if layer == "means.weight":
            return centred_weights(tensor, channels)
        if layer.endswith("weight"):
            return weights(tensor)
        if layer in ("hidden.bias", "share.bias"):
            return biases(tensor)
        return level_biases(tensor, max(self.step_index, FINE) + 24)

    def _check(self, name: str, parts: int) -> None:
        of = {key.removeprefix(name): each for key, each in self.integers.items() if key.startswith(name)}
        seen = [of[key] for key in ("means.weight", "details.weight") if key in of]
        require_exact(LARGEST_INPUT, seen, [of["means.bias"]], unit=2)
        for part in range(1, parts):
            require_exact(LARGEST_INPUT, [of[f"part{part}.weight"]], [of[f"part{part}.bias"]], unit=2)
        require_exact(LARGEST_ACTIVATION, [of["hidden.weight"]], [of["hidden.bias"]])
        require_exact(LARGEST_ACTIVATION, [of["head.weight"]])
        if "reference.weight" in of:
            require_exact(LARGEST_INPUT, [of["reference.weight"]])
            require_exact(LARGEST_ACTIVATION, [of["share.weight"]], [of["share.bias"]])

    def field(self, symbols: Sequence[np.ndarray], references: Sequence[Reference] = ()) -> np.ndarray:
        """Return g_0 of symbols, those of the means and of every pass: float32 [n, C, *grid], in quantization steps."""
        grids = self.grids
        left: Iterator[np.ndarray] = iter([each.astype(np.float32) for each in symbols])
        low = next(left)
        if references:
            total = references[0].lows[-1] + references[1].lows[-1]
            low = low + total * np.float32(1 / (2 * quantization_step(self.step_index)))
        for level in reversed(range(grids.depth)):
            found = np.zeros((len(low), *grids.details_shape(level)), np.float32)
            seen = self._surroundings(level, low, references)
            for each in grids.passes(level):
                found[each.place] = self._prediction(each, found, seen) + next(left)
            uncut = low if level == grids.depth - 1 else cropped(low, grids.halves(level))
            low = join(uncut, found, grids.split_axes(level), grids.closed(level, self.around))
        return cropped(low, grids.grid)

    def _surroundings(self, level: int, low: np.ndarray, references: Sequence[Reference]) -> Surroundings:
        """low: g_l+1, not cut."""
        splits = sum(len(self.grids.split_axes(finer)) for finer in range(level + 1))
        a = 8 / 2 ** (splits // 2) / (math.sqrt(2) if splits % 2 else 1)
        step = quantization_step(self.step_index)
        lows = self._at_phases(level, low)
        distances = []
        for each in references:
            theirs = self._at_phases(level, each.lows[level] * np.float32(1 / step))
            distances.append([mine - other for mine, other in zip(lows, theirs, strict=True)])
        return Surroundings(
            gain=step * a * self.magnified,
            lows=lows,
            distances=distances,
            details=[each.details[level] * np.float32(1 / step) for each in references],
        )

    def _at_phases(self, level: int, low: np.ndarray) -> list[np.ndarray]:
        """Return a low band at the places of every phase, continued by one sample along axes of odd length."""
        axes = self.grids.interleaved(level)
        ends = [(0, size % 2 if axis in axes else 0) for axis, size in enumerate(low.shape[2:])]
        continued = np.pad(low, [(0, 0), (0, 0), *ends], mode="edge")
        return [continued[at(places)] for places in self.grids.phases(level)]

    def _prediction(self, each: Pass, details: np.ndarray, seen: Surroundings) -> np.ndarray:
        """Return the predictions of a pass, float32. details: of the level, as far as they are decoded."""
        z = self._first_layer(each, details, seen)
        if seen.details:
            z = z + self._of_references(each, seen)
        if each.part > 0:
            own = self._on_phase_grid(seen.inputs(details[:, each.details]), each)
            sums = convolution(own, self._tensor(each, f"part{each.part}.weight"))
            sums = sums + bias(2 * self._tensor(each, f"part{each.part}.bias")[each.level], sums)
            z = z + (sums / 256).astype(np.float32)
        h = activation(z.astype(np.float64), 1)
        sums = convolution(h, self._tensor(each, "hidden.weight"))[at(each.points)]
        u = activation(cropped(sums + bias(self._tensor(each, "hidden.bias"), sums), each.shape))
        heads = pointwise(u, self._tensor(each, "head.weight"))
        prediction = (heads / 128).astype(np.float32) * np.float32(1 / (128 * seen.gain))
        if not seen.details:
            return prediction
        shares = pointwise(u, self._tensor(each, "share.weight"))
        shares = ((shares + bias(self._tensor(each, "share.bias")[each.level], shares)) / (1 << 14)).astype(np.float32)
        for share, known in zip(np.split(shares, len(seen.details), 1), seen.details, strict=True):
            prediction = prediction + (share + np.float32(1 / 2)) * known[each.place]
        return prediction

    def _first_layer(self, each: Pass, details: np.ndarray, seen: Surroundings) -> np.ndarray:
        """Return the sums of the first layer over means and details, float32."""
        lows = np.concatenate([low[:, each.channels] for low in seen.lows], 1)
        of_means, high = self._tensor(each, "means.weight"), None
        if self.magnified > 1:
            high, low = np.divmod(seen.inputs(lows, LARGEST_INPUT * 1024), 1024)
        else:
            low = seen.inputs(lows)
        sums = convolution(low, of_means, edge=True)
        sums = sums + bias(2 * self._tensor(each, "means.bias")[each.level], sums)
        before = seen.inputs(details)
        inputs = [self._on_phase_grid(before[:, each.details], each, phase=phase) for phase in range(each.phase)]
        inputs.append(self._on_phase_grid(before[:, each.before], each))
        if sum(part.shape[1] for part in inputs):
            sums = sums + convolution(np.concatenate(inputs, 1), self._tensor(each, "details.weight"))
        z = (sums / 256).astype(np.float32)
        if high is not None:
            z = z + (4 * convolution(high, of_means, edge=True)).astype(np.float32)
        return z

    def _of_references(self, each: Pass, seen: Surroundings) -> np.ndarray:
        """Return the sums of the first layer over what references show, float32."""
        weight = self._tensor(each, "reference.weight")
        result, begin = np.zeros(()), 0
        for distances, details in zip(seen.distances, seen.details, strict=True):
            away = seen.inputs(np.concatenate([distance[:, each.channels] for distance in distances], 1))
            known = seen.inputs(details[:, each.details])
            theirs = [self._on_phase_grid(known, each, phase=phase) for phase in range(len(distances))]
            for shown, edge in ((away, True), (np.concatenate(theirs, 1), False)):
                end = begin + shown.shape[1]
                result = result + convolution(shown, weight[:, begin:end], edge=edge)
                begin = end
        return (result / 256).astype(np.float32)

    def _on_phase_grid(self, values: np.ndarray, each: Pass, *, phase: int | None = None) -> np.ndarray:
        return self.grids.on_phase_grid(values, each.level, each.phase if phase is None else phase)

    def _tensor(self, each: Pass, name: str) -> np.ndarray:
        return self.integers[f"prediction.{each.name}.{name}"]
