"""The latent spectrum: a field over time whose latents are the coefficients of overlapping cosines.

The modified discrete cosine transform (Princen, Johnson and Bradley 1987) with a sine window: frame n weighs the
cosines of N frequencies with a window two hops of N samples long, so that at every time two frames overlap. It is
orthonormal, and its inverse is a sum of windowed cosines, which can be asked at any time. The coefficients make a
plane, frames by frequencies; as nothing in it is smooth, its levels are those of the lazy wavelet: the details are
the coefficients at odd places, the means those at even ones.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.field import Parameters
from inrcodec.models.latent import Choose, Grid, LatentTransform, Positions, quantization_step
from inrcodec.models.wavelet import Level, levels_of

COSINE_UNIT = 1 << 26
"""Cosines are integers in units of one over this where values at the samples are computed."""

_PHASES = 1 << 9
"""Times within a hop for which the cosines are computed at once."""


@dataclass(frozen=True)
class LatentSpectrum(LatentTransform):
    """Configuration of a latent spectrum.

    levels: how often the axes of the plane, frames and frequencies, are halved; (4, 6) unless given.
    hop: N, samples from frame to frame and frequencies of each, the least; its variants have up to 8 times as many.
    """

    hop: int = 256

    name: ClassVar[str] = "spectrum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels:
            object.__setattr__(self, "levels", (4, 6))
        if self.in_features != 1 or len(self.levels) != 2 or max(self.levels) > 16:
            raise ValueError(
                f"a spectrum has one axis and a plane of two: {self.in_features = }, levels = {self.levels}"
            )

    @property
    def variants(self) -> int:
        return 4

    def transform(self, variant: int = 0, kind: str = "") -> "LatentSpectrum":
        """Return the field of a variant. Longer frames tell tones apart, shorter ones times."""
        return replace(self, hop=self.hop << variant)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return no shapes: the transform has no networks, and only the entropy model is shared."""
        return {}

    def initialize(self, generator: torch.Generator) -> Parameters:
        return {}

    def levels_of(self, grid: Grid) -> tuple[Level, ...]:
        return levels_of((self._frames(grid), self.hop), self.levels)

    def analyse(self, values: Tensor, grid: Grid) -> list[Tensor]:
        frames = self._frames(grid)
        # The first hop of a shorter signal goes on as it ends: with zeros its few samples would be spread over
        # hundreds of latents, each below what is coded.
        mode = "replicate" if grid.shape[0] < self.hop else "constant"
        padded = functional.pad(values - 0.5, (self.hop, frames * self.hop - grid.shape[0]), mode=mode)
        windows = padded.unfold(2, 2 * self.hop, self.hop)
        *details, means = _take_apart(windows @ _frame_cosines(self.hop).to(values), self.levels_of(grid))
        return [means, *self.order.split(details)]

    def decode(self, ready: Parameters, means: Tensor, grid: Grid, step_index: int, choose: Choose) -> Tensor:
        """Decode the plane of coefficients: [B, C, frames, N]; its predictions are zero."""
        nothing = means.new_zeros(())
        passes = [choose(place, nothing) for place in self.places(grid)]
        levels = self.levels_of(grid)
        return _put_together([*self.order.merge(passes, levels), means], levels, self.out_features)

    def values(self, linear: Tensor, grid: Grid, step_index: int) -> Tensor:
        # Products of integers, all sums below 2^53: the same on every machine.
        rising, falling = (linear.double() @ _integer_cosines(self.hop).to(linear.device).T).chunk(2, 3)
        sums = (falling[:, :, :-1] + rising[:, :, 1:]).flatten(2)[..., : grid.shape[0]]
        return (sums * (quantization_step(step_index) / COSINE_UNIT)).to(linear) + 0.5

    def values_at(self, linear: Tensor, positions: Positions, grid: Grid, step_index: int) -> Tensor:
        (times,) = positions
        samples = times.clip(0, grid.shape[0] - 1).astype(np.int64)
        if np.array_equal(times, samples):
            shown = self.values(linear, grid, step_index)
            whole = len(times) == grid.shape[0] and np.array_equal(samples, np.arange(grid.shape[0]))
            return shown if whole else shown[..., torch.from_numpy(samples).to(shown.device)]
        linear = linear * quantization_step(step_index)
        # Half a sample before the first begins the hop that frames 0 and 1 share.
        block = np.floor((times + 0.5) / self.hop).clip(0, linear.shape[2] - 2).astype(np.int64)
        phases, phase = np.unique(times - block * self.hop, return_inverse=True)
        result = linear.new_empty(*linear.shape[:2], len(times))
        for start in range(0, len(phases), _PHASES):
            asked = phases[start : start + _PHASES]
            falling = linear[:, :, :-1] @ _cosines(self.hop, asked + self.hop).to(linear).T
            rising = linear[:, :, 1:] @ _cosines(self.hop, asked).to(linear).T
            here = np.flatnonzero((phase >= start) & (phase < start + _PHASES))
            places = [torch.from_numpy(index).to(linear.device) for index in (here, block[here], phase[here] - start)]
            result[..., places[0]] = (falling + rising)[:, :, places[1], places[2]]
        return result + 0.5

    def _frames(self, grid: Grid) -> int:
        return -(-grid.shape[0] // self.hop) + 1


@lru_cache(maxsize=4)
def _frame_cosines(hop: int) -> Tensor:
    """Return the windowed cosines at the samples of a frame, [2 N, N]: kept, as they take longer than their use."""
    return _cosines(hop, np.arange(2 * hop)).float()


@lru_cache(maxsize=4)
def _integer_cosines(hop: int) -> Tensor:
    """Return the windowed cosines at the samples of a frame, [2 N, N], as integers in units of 1 / COSINE_UNIT."""
    times, frequencies = np.arange(2 * hop), np.arange(hop)
    # Angles are multiples of pi / (4 N). Without whole turns they are so exact that every library rounds to the same
    # integers: no true value is that near to the middle of two.
    multiples = np.outer(2 * times + hop + 1, 2 * frequencies + 1) % (8 * hop)
    cosines = np.cos(math.pi / (4 * hop) * np.arange(8 * hop))
    return torch.from_numpy(np.rint(_window(hop, times)[:, None] * cosines[multiples] * COSINE_UNIT))


def _cosines(hop: int, times: np.ndarray) -> Tensor:
    """Return the windowed cosines at times within a frame, in samples: [len(times), N] float64."""
    angles = math.pi / hop * np.outer(times + (hop + 1) / 2, np.arange(hop) + 0.5)
    return torch.from_numpy(_window(hop, times)[:, None] * np.cos(angles))


def _window(hop: int, times: np.ndarray) -> np.ndarray:
    """Return the window of a frame at times within it, with the cosines' norm."""
    return np.sin(math.pi / (2 * hop) * (times + 0.5)) * math.sqrt(2 / hop)


def _take_apart(plane: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Split the places of a plane [B, C, *grid] by level: details [B, C * bands, *half], finest first, and the rest."""
    result = []
    for level in levels:
        ends = [end for axis in (1, 0) for end in (0, level.grid[axis] % 2 if axis in level.axes else 0)]
        padded = functional.pad(plane, ends)
        plane, *details = (padded[(..., *band)] for band in _bands(level))
        result.append(torch.stack(details, 2).flatten(1, 2))
    return [*result, plane]


def _put_together(latents: Sequence[Tensor], levels: Sequence[Level], channels: int) -> Tensor:
    """Undo `_take_apart`."""
    plane = latents[-1]
    for level, details in zip(reversed(levels), reversed(latents[:-1]), strict=True):
        sizes = [2 * half if axis in level.axes else half for axis, half in enumerate(level.half)]
        whole = plane.new_zeros(*plane.shape[:2], *sizes)
        parts = [plane, *details.unflatten(1, (channels, -1)).unbind(2)]
        for band, part in zip(_bands(level), parts, strict=True):
            whole[(..., *band)] = part
        plane = whole[..., : level.grid[0], : level.grid[1]]
    return plane


def _bands(level: Level) -> list[tuple[slice, slice]]:
    """Return where the bands of a level lie in its grid: the means, then the details."""
    choices = [(0, 1) if axis in level.axes else (None,) for axis in range(2)]
    return [
        (slice(first, None, None if first is None else 2), slice(second, None, None if second is None else 2))
        for first, second in itertools.product(*choices)
    ]
