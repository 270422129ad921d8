"""The latent pyramid: a field whose per-signal parameters are grids of latents, sparse and cheap to code.

The latents are the detail bands of a wavelet transform, one grid per level and band, and the coarsest means. Every
latent contributes a smooth kernel of its level's width; their sum is the linear part of the field. A small shared
network beside it, fed by the same interpolated sums split by level, restores what quantization took away. All of it
is shared by all signals; only the latents are adapted, from theta_0 = 0.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.convolution import convolution, pointwise
from inrcodec.models.field import Parameters
from inrcodec.models.latent import Choose, Grid, LatentTransform, condition_of, quantization_step
from inrcodec.models.order import Order
from inrcodec.models.prediction import PredictionNetworks, Reference
from inrcodec.models.wavelet import Level, analyse, join, levels_of, synthesise

_INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}
_FEATURE_GAIN = 8.0
"""Brings features of values in [0, 1] to about unit size."""

_RESTORED_LEVELS = 3
"""The network sees this many finest levels apart, the others as their sum."""

_BLOCK_POINTS = 1 << 19
"""Points that the network is asked at once."""


@dataclass(frozen=True)
class LatentPyramid(LatentTransform):
    """Configuration of a latent pyramid.

    levels: how often each axis is halved, six times unless given; the coarsest grid has strides 2 ** levels.
    width: of the restoring network; three outputs are shown as one luma and two chroma channels.
    prediction: width of the prediction networks; 0: there are none, and all predictions are zero.
    references: how many references these see; see `with_references`.
    divided: how many of the first phases of a level come in parts; see `Order`.
    """

    width: int = 16
    prediction: int = 0
    references: int = 0
    divided: int = 0

    name: ClassVar[str] = "pyramid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_features not in _INTERPOLATIONS:
            raise ValueError(f"a pyramid has one to three axes, not {self.in_features}")
        if not self.levels:
            object.__setattr__(self, "levels", (6,) * self.in_features)
        if len(self.levels) != self.in_features or max(self.levels) > 16:
            raise ValueError(f"a pyramid of {self.in_features} axes cannot have the levels {self.levels}")
        if self.references and not self.prediction:
            raise ValueError("a pyramid without prediction networks cannot see references")

    def check_alone(self) -> None:
        if self.references:
            raise ValueError("a pyramid with references is a picture of a clip, and no field by itself")

    @property
    def groups(self) -> tuple[int, ...]:
        """Luma first, then chroma."""
        return (1, 2) if self.out_features == 3 else (self.out_features,)

    @property
    def order(self) -> Order:
        return Order(self.groups, self.levels, self.divided)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        channels, width = self.out_features, self.width
        taps = (3,) * self.in_features
        shapes: dict[str, tuple[int, ...]] = {
            "restoring.input.weight": (width, channels * (min(_RESTORED_LEVELS, max(self.levels)) + 1), *taps),
            "restoring.input.bias": (3, width),
            "restoring.hidden.weight": (width, width),
            "restoring.hidden.bias": (width,),
            "restoring.head.weight": (channels, width),
            "restoring.head.bias": (channels,),
        }
        return shapes | (self._prediction_networks.shapes() if self.prediction else {})

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Draw random shared parameters.

        Heads are zero, so that the field is linear at first and predicts the references' mean.
        """
        parameters = {}
        for name, shape in self.shapes().items():
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            parameters[name] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
            if "head" in name or "share" in name or ".part" in name or name.endswith("bias"):
                parameters[name] = torch.zeros(shape)
        return parameters

    def levels_of(self, grid: Grid) -> tuple[Level, ...]:
        return levels_of(grid.shape, self.levels)

    def analyse(self, values: Tensor, grid: Grid) -> list[Tensor]:
        mixed = torch.einsum("dc,bc...->bd...", _colors(self.out_features, values), values - 0.5)
        *details, means = analyse(mixed, self.levels_of(grid), grid.periodic)
        return [*(detail.flatten(1, 2) for detail in details), means]

    def latents(
        self, parameters: Parameters, means: Tensor, grid: Grid, step_index: Tensor, choose: Choose
    ) -> list[Tensor]:
        if not self.prediction:
            return super().latents(parameters, means, grid, step_index, choose)
        means = means + self.predicted_means(step_index)
        return self._prediction_networks.latents(parameters, means, grid, step_index, choose, self._references)

    def with_references(self, signals: Sequence[Tensor], grid: Grid) -> "LatentPyramid":
        """Return the field of a signal that is predicted from others much like it.

        signals: values [B, C, *grid.shape] in [0, 1], up to as many as `references`; fewer are shown several times.
        """
        different = [self._reference(values, grid) for values in signals]
        shown = tuple(different[number % len(signals)] for number in range(self.references))
        return _ReferencingPyramid(**{each.name: getattr(self, each.name) for each in fields(self)}, shown=shown)

    def _reference(self, values: Tensor, grid: Grid) -> Reference:
        *details, low = self.analyse(values, grid)
        means = [low]
        for detail, level in zip(details[:0:-1], self.levels_of(grid)[:0:-1], strict=True):
            low = join(low, detail.unflatten(1, (self.out_features, -1)), level, grid.periodic)
            means.append(low)
        return Reference(details, means[::-1])

    @property
    def _references(self) -> tuple[Reference, ...]:
        return ()

    @property
    def _prediction_networks(self) -> PredictionNetworks:
        return PredictionNetworks(self.order, self.prediction, self.references)

    def maps(self, parameters: Parameters, latents: Sequence[Tensor], grid: Grid, step_index: Tensor) -> Tensor:
        """Return what is interpolated at a coordinate: [B, C + width, *grid.shape]."""
        scale = quantization_step(step_index, len(grid.shape))
        latents = [level * scale for level in latents]
        condition = condition_of(step_index)
        levels = self.levels_of(grid)
        channels = self.out_features
        split = [detail.unflatten(1, (channels, -1)) for detail in latents[:-1]]
        grids = [*synthesise([*split, latents[-1]], levels, grid.periodic), latents[-1]]
        linear = torch.einsum("dc,bd...->bc...", _colors(channels, latents[0]), grids[0]) + 0.5
        enlarged = [grids[0]]
        factor = 1.0
        for level in range(min(_RESTORED_LEVELS, len(levels))):
            factor *= 2 ** (-len(levels[level].axes) / 2)
            mode = _INTERPOLATIONS[self.in_features]
            enlarged.append(functional.interpolate(grids[level + 1], size=grid.shape, mode=mode) * factor)
        parts = [fine - coarse for fine, coarse in itertools.pairwise(enlarged)]
        inputs = torch.cat([*parts, enlarged[-1]], 1) * _FEATURE_GAIN
        features = convolution(inputs, parameters["restoring.input.weight"], padding=1)
        polynomial = torch.stack([torch.ones_like(condition), condition, condition.square()], 1)
        bias = polynomial @ parameters["restoring.input.bias"]
        features = features + bias.reshape(*bias.shape, *[1] * self.in_features)
        return torch.cat([linear, features], 1)

    def values(self, parameters: Parameters, maps: Tensor, grid: Grid, step_index: Tensor) -> Tensor:
        return self._restored(parameters, maps, step_index)

    def partly_restored(
        self, parameters: Parameters, maps: Tensor, grid: Grid, step_index: Tensor, points: Tensor
    ) -> Tensor:
        flat = maps.flatten(2)
        index = points.unsqueeze(1)
        kept = flat.gather(2, index.expand(-1, flat.shape[1], -1))
        linear = flat[:, : self.out_features]
        restored = self._restored(parameters, kept, step_index)
        return linear.scatter(2, index.expand(-1, self.out_features, -1), restored).unflatten(2, grid.shape)

    def feature_energy(self, parameters: Parameters, maps: Tensor) -> Tensor:
        return self._hidden(parameters, maps[:, self.out_features :]).square().sum(1)

    def values_at(
        self, parameters: Parameters, maps: Tensor, positions: Sequence[np.ndarray], grid: Grid, step_index: Tensor
    ) -> Tensor:
        first, *others = positions
        if not all(len(along) for along in positions):
            return maps.new_empty(maps.shape[0], self.out_features, *map(len, positions))
        size = max(1, _BLOCK_POINTS // math.prod(len(along) for along in others))
        maps = resample(maps, [np.arange(maps.shape[2]), *others], grid.periodic)
        blocks = []
        for start in range(0, len(first), size):
            rows = first[start : start + size]
            # The few rows of the grid that these lie between, so that the others are left alone.
            part = maps
            if not grid.periodic[0]:
                low = max(0, int(np.floor(rows.min())) - 1)
                part, rows = maps[:, :, low : int(np.floor(rows.max())) + 3], rows - low
            here = resample(part, [rows, *(np.arange(size) for size in part.shape[3:])], grid.periodic)
            blocks.append(self._restored(parameters, here, step_index))
        return torch.cat(blocks, 2)

    def _restored(self, parameters: Parameters, maps: Tensor, step_index: Tensor) -> Tensor:
        """Return values [B, C, ...] where the interpolated `maps` are [B, C + width, ...]."""
        linear, features = maps[:, : self.out_features], maps[:, self.out_features :]
        weight, bias = parameters["restoring.head.weight"], parameters["restoring.head.bias"]
        restored = pointwise(self._hidden(parameters, features), weight, bias)
        return linear + quantization_step(step_index, maps.dim() - 2) * restored

    def _hidden(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return the penultimate features of the network, [B, width, ...]."""
        hidden = functional.gelu(features)
        weight, bias = parameters["restoring.hidden.weight"], parameters["restoring.hidden.bias"]
        return functional.gelu(pointwise(hidden, weight, bias))


@dataclass(frozen=True, eq=False)
class _ReferencingPyramid(LatentPyramid):
    """A pyramid and the references that it is shown."""

    shown: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        """Leave out the checks: the configuration was checked before."""

    @property
    def _references(self) -> tuple[Reference, ...]:
        return self.shown

    def predicted_means(self, step_index: Tensor) -> Tensor:
        total = torch.stack([reference.means[-1] for reference in self.shown]).mean(0)
        return total / quantization_step(step_index, total.dim() - 2)


def resample(maps: Tensor, positions: Sequence[np.ndarray], closed: Sequence[bool]) -> Tensor:
    """Interpolate maps [B, F, *grid] at the product of positions along each axis, in samples: [B, F, *(len(p) for p)].

    Cubic convolution (Keys 1981), which leaves the samples themselves as they are; constant beyond open ends.
    """
    for axis, along in enumerate(positions):
        size = maps.shape[axis + 2]
        if len(along) == size and np.array_equal(along, np.arange(size)):
            continue
        whole = np.floor(along)
        if np.array_equal(whole, along):
            maps = _taken(maps, axis, whole, closed[axis])
            continue
        fraction = torch.from_numpy((along - whole).astype(np.float32)).to(maps.device)
        fraction = fraction.reshape(-1, *[1] * (maps.dim() - axis - 3))
        result: Tensor | None = None
        for tap in range(-1, 3):
            part = _taken(maps, axis, whole + tap, closed[axis]).mul_(_cubic(fraction - tap))
            result = part if result is None else result.add_(part)
        assert result is not None
        maps = result
    return maps


def samples_read(positions: np.ndarray, size: int) -> set[int]:
    """Return the samples of an open axis that `resample` reads for these positions."""
    whole = np.floor(positions)
    taps = (0,) if np.array_equal(whole, positions) else range(-1, 3)
    return {int(sample) for tap in taps for sample in (whole + tap).clip(0, size - 1)}


def _taken(maps: Tensor, axis: int, positions: np.ndarray, closed: bool) -> Tensor:
    """Return the samples at whole positions along a grid axis, which may lie beyond its ends."""
    size = maps.shape[axis + 2]
    index = positions.astype(np.int64)
    index = index % size if closed else index.clip(0, size - 1)
    return maps.index_select(axis + 2, torch.from_numpy(index).to(maps.device))


def _cubic(distance: Tensor) -> Tensor:
    """Evaluate Keys' kernel with a = -1/2."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _colors(channels: int, like: Tensor) -> Tensor:
    """Return an orthonormal matrix, whose rows are what the latents' channels show of the values' channels."""
    if channels != 3:
        return torch.eye(channels, dtype=like.dtype, device=like.device)
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=like.dtype, device=like.device)
    return rows / rows.norm(dim=1, keepdim=True)
