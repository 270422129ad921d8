"""The predictions of details, and with them the latents.

It follows "What is the prediction of a detail?" and "What does a picture see of its references?" of docs/FORMAT.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from second_decoder.arrays import at, bias, convolution, cropped, gelu, pointwise
from second_decoder.latent_fields import kappa, quantization_step
from second_decoder.latent_grids import LatentGrids, Pass
from second_decoder.wavelet import join, split


@dataclass(frozen=True)
class Reference:
    """The transform of a reference. details: of every level. lows: the low bands r_0..r_D."""

    details: list[np.ndarray]
    lows: list[np.ndarray]


def reference_of(values: np.ndarray, grids: LatentGrids, around: Sequence[bool]) -> Reference:
    """Transform a reference: its values less 1/2, in the colours of latents."""
    details, lows = [], [values]
    for level in range(grids.depth):
        low, high = split(lows[-1], grids.split_axes(level), around)
        details.append(high)
        lows.append(low)
    return Reference(details, lows)


def network_tensors(grids: LatentGrids, width: int, references: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the prediction networks' tensors. width: `prediction`."""
    taps = (3,) * len(grids.levels)
    shapes = {}
    for level, phase, group in grids.networks():
        name = f"prediction.{grids.name(level, phase, group)}"
        bands, phases, k = grids.bands(level), len(grids.phases(level)), grids.groups[group]
        c, before = bands * k, bands * sum(grids.groups[:group])
        shapes[f"{name}.input.weight"] = (width, k * phases + c * phase + before, *taps)
        shapes[f"{name}.input.bias"] = (grids.depth + 2, width)
        shapes[f"{name}.hidden.weight"] = (width, width, *taps)
        shapes[f"{name}.hidden.bias"] = (width,)
        shapes[f"{name}.head.weight"] = (c, width)
        for part in range(1, len(grids.parts(level, phase))):
            shapes[f"{name}.part{part}.weight"] = (width, c, *taps)
            shapes[f"{name}.part{part}.bias"] = (grids.depth + 2, width)
        if references:
            shapes[f"{name}.reference.weight"] = (width, references * k * phases * (1 + bands), *taps)
            shapes[f"{name}.share.weight"] = (references * c, width)
            shapes[f"{name}.share.bias"] = (grids.depth, references * c)
    return shapes


@dataclass(frozen=True)
class Surroundings:
    """What the networks of a level see besides its details, times a.

    gain: a. lows: g_l+1 at the places of every phase. distances: g_l+1 - r_l+1 there, for every reference.
    details: those of every reference.
    """

    gain: float
    lows: list[np.ndarray]
    distances: list[list[np.ndarray]]
    details: list[np.ndarray]


@dataclass(frozen=True)
class Predictor:
    """Turns symbols into latents. tensors: float64, by name, without a kind. around: see `LatentField`."""

    grids: LatentGrids
    tensors: Mapping[str, np.ndarray]
    around: Sequence[bool]

    def latents(
        self, symbols: Sequence[np.ndarray], step_index: int, references: Sequence[Reference] = ()
    ) -> list[np.ndarray]:
        """Return the latents of symbols: details, finest first, and means, [n, channels, *grid] each."""
        grids, step = self.grids, quantization_step(step_index)
        means = symbols[-1] * step
        if references:
            means = means + sum(reference.lows[-1] for reference in references) / len(references)
        low, details = means, []
        for level in reversed(range(grids.depth)):
            found = np.zeros(symbols[level].shape)
            seen = self._surroundings(level, low, references)
            for each in grids.passes(level):
                prediction = cropped(self._prediction(each, found, seen, step_index), found[each.place].shape[2:])
                found[each.place] = symbols[level][each.place] * step + prediction
            details.append(found)
            low = join(low, found, grids.split_axes(level), grids.whole(level), self.around)
        return [*details[::-1], means]

    def _surroundings(self, level: int, low: np.ndarray, references: Sequence[Reference]) -> Surroundings:
        splits = sum(len(self.grids.split_axes(finer)) for finer in range(level + 1))
        gain = 8 / math.sqrt(2) ** splits
        return Surroundings(
            gain=gain,
            lows=self._at_phases(level, gain * low),
            distances=[self._at_phases(level, gain * (low - each.lows[level + 1])) for each in references],
            details=[gain * each.details[level] for each in references],
        )

    def _at_phases(self, level: int, low: np.ndarray) -> list[np.ndarray]:
        """Return a low band at the places of every phase, continued by one sample along axes of odd length."""
        axes = self.grids.interleaved(level)
        ends = [(0, size % 2 if axis in axes else 0) for axis, size in enumerate(low.shape[2:])]
        continued = np.pad(low, [(0, 0), (0, 0), *ends], mode="edge")
        return [continued[at(places)] for places in self.grids.phases(level)]

    def _prediction(self, each: Pass, details: np.ndarray, seen: Surroundings, step_index: int) -> np.ndarray:
        """Return the predictions of a pass at the part's points. details: of the level, as far as they are decoded."""
        grids, level = self.grids, each.level
        z = self._with_polynomial(self._features(each, details, seen), each, "input.bias", step_index)
        if seen.details:
            shown = np.concatenate(self._shown(each, seen), 1)
            z = z + convolution(shown, self._tensor(each, "reference.weight"), edge=True)
        if each.part > 0:
            own = grids.on_phase_grid(seen.gain * details[:, each.details], level, each.phase)
            z = z + convolution(own, self._tensor(each, f"part{each.part}.weight"))
            z = self._with_polynomial(z, each, f"part{each.part}.bias", step_index)
        hidden = convolution(gelu(z), self._tensor(each, "hidden.weight"), edge=True)[at(each.points)]
        u = gelu(hidden + bias(self._tensor(each, "hidden.bias"), hidden))
        prediction = pointwise(u, self._tensor(each, "head.weight")) / seen.gain
        if not seen.details:
            return prediction
        shares = pointwise(u, self._tensor(each, "share.weight"))
        shares = shares + bias(self._tensor(each, "share.bias")[level], shares) + 1 / 2
        for share, known in zip(np.split(shares, len(seen.details), 1), seen.details, strict=True):
            detail = grids.on_phase_grid(known[:, each.details], level, each.phase)[at(each.points)]
            prediction = prediction + share * detail / seen.gain
        return prediction

    def _features(self, each: Pass, details: np.ndarray, seen: Surroundings) -> np.ndarray:
        """Convolve the inputs with the changed weights."""
        level, own = each.level, seen.gain * details[:, each.details]
        inputs = [low[:, each.channels] for low in seen.lows]
        inputs += [self.grids.on_phase_grid(own, level, phase) for phase in range(each.phase)]
        inputs.append(self.grids.on_phase_grid(seen.gain * details[:, each.before], level, each.phase))
        weight = self._tensor(each, "input.weight").copy()
        of_lows = sum(low.shape[1] for low in inputs[: len(seen.lows)])
        apart = weight[:, :of_lows].reshape(len(weight), len(seen.lows), of_lows // len(seen.lows), -1)
        centred = apart - apart.mean((1, 3), keepdims=True)
        weight[:, :of_lows] = centred.reshape(weight[:, :of_lows].shape)
        return convolution(np.concatenate(inputs, 1), weight, edge=True)

    def _shown(self, each: Pass, seen: Surroundings) -> list[np.ndarray]:
        """Return the inputs that the references give, those of one after those of the other."""
        inputs = []
        for distances, details in zip(seen.distances, seen.details, strict=True):
            inputs += [distance[:, each.channels] for distance in distances]
            phases = range(len(seen.lows))
            inputs += [self.grids.on_phase_grid(details[:, each.details], each.level, phase) for phase in phases]
        return inputs

    def _tensor(self, each: Pass, name: str) -> np.ndarray:
        return self.tensors[f"prediction.{each.name}.{name}"]

    def _with_polynomial(self, values: np.ndarray, each: Pass, table: str, step_index: int) -> np.ndarray:
        rows, depth, k = self._tensor(each, table), self.grids.depth, kappa(step_index)
        return values + bias(rows[each.level] + k * rows[depth] + k**2 * rows[depth + 1], values)
