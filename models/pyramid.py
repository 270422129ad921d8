"""The latent pyramid: a field whose per-signal parameters are grids of latents, sparse and cheap to code.

The latents are the detail bands of a wavelet transform, one grid per level and band, and the coarsest means. Every
latent contributes a smooth kernel of its level's width; small shared networks predict the latents from coarse to fine.
Between the samples of the grid the field is interpolated. The networks are shared by all signals; only the latents are
adapted, from theta_0 = 0.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inrcodec.models.field import Parameters
from inrcodec.models.latent import Choose, Grid, Hints, LatentTransform, Positions, quantization_step
from inrcodec.models.order import Order
from inrcodec.models.prediction import PredictionNetworks, Reference
from inrcodec.models.wavelet import Level, analyse, join, levels_of, whole

HUES = 64
"""The plane of the two chroma channels can be turned by multiples of pi / HUES."""

COLOR_UNIT = 1 << 24
"""Coefficients of the colours are multiples of one over this."""

MOST_BARE = 2
"""How many of the finest levels can do without chroma, at most."""

_CHROMA_WORTH = 8.0
"""What the first detail that is not zero costs, in bits, about, where there are hardly any."""

_CHROMA_SHARE = 2e-3
"""Bits a sample that a level's chroma must save in distortion to be coded."""


@dataclass(frozen=True)
class LatentPyramid(LatentTransform):
    """Configuration of a latent pyramid.

    levels: how often each axis is halved, six times unless given; the coarsest grid has strides 2 ** levels.
        Three outputs are coded as one luma and two chroma channels.
    prediction: width of the prediction networks.
    references: how many references these see; see `with_references`.
    divided: how many of the first phases of a level come in parts; see `Order`.
    """

    prediction: int = 32
    references: int = 0
    divided: int = 0

    name: ClassVar[str] = "pyramid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_features > 3:
            raise ValueError(f"a pyramid has one to three axes, not {self.in_features}")
        if not self.levels:
            object.__setattr__(self, "levels", (6,) * self.in_features)
        if len(self.levels) != self.in_features or max(self.levels) > 16:
            raise ValueError(f"a pyramid of {self.in_features} axes cannot have the levels {self.levels}")

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

    @property
    def variants(self) -> int:
        """How many there are: of three channels, one for every hue and number of bare levels."""
        return HUES * (MOST_BARE + 1) if self.out_features == 3 else 1

    def transform(self, variant: int = 0, kind: str = "") -> "LatentPyramid":
        if not variant:
            return self
        hue, bare = divmod(variant, MOST_BARE + 1)
        return _PyramidOfSignal(**_settings(self), hue=hue, bare=bare)

    def candidates(self, values: Tensor, step_index: int) -> Iterator[int]:
        """Yield the one variant that chroma calls for: its principal axis is U, and levels that show none are bare."""
        if self.out_features != 3:
            yield 0
            return
        grid = Grid.open(values.shape[2:])
        chroma = torch.stack(_turned(values - 0.5, _colors(0))[1:], 1)
        step = quantization_step(step_index)
        *details, _ = analyse(chroma, self.levels_of(grid), grid.periodic)
        details = [each / step for each in details[: MOST_BARE + 1]]
        covariance = sum(torch.einsum("bc...,bd...->cd", each, each) for each in details)
        (uu, uv), (_, vv) = torch.as_tensor(covariance).tolist()
        hue = round(HUES * 0.5 * math.atan2(2 * uv, uu - vv) / math.pi) % HUES
        bare = 0
        for detail in details[:MOST_BARE]:
            # What a detail that is coded saves, in bits: half the curvature of the distortion times its square.
            saved = (7.2 * detail.square() - _CHROMA_WORTH).clamp(min=0).sum() / values[:, 0].numel()
            if float(saved) > _CHROMA_SHARE:
                break
            bare += 1
        yield hue * (MOST_BARE + 1) + bare

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._prediction.shapes()

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

    def ready(self, parameters: Parameters, step_index: int) -> Parameters:
        ready = self._prediction.ready(parameters, step_index)
        self._prediction.check(ready)
        return ready

    def levels_of(self, grid: Grid) -> tuple[Level, ...]:
        return levels_of(grid.shape, self.levels)

    def analyse(self, values: Tensor, grid: Grid) -> list[Tensor]:
        details, means = self._analysed(values, grid)
        return [means, *self.order.split(details)]

    def _analysed(self, values: Tensor, grid: Grid) -> tuple[list[Tensor], Tensor]:
        """Return the details of every level, [B, C * bands, *half], finest first, and the coarsest means."""
        mixed = torch.stack(_turned(values - 0.5, self._colors), 1) if self.out_features == 3 else values - 0.5
        *details, means = analyse(mixed, self.levels_of(grid), grid.periodic)
        return [detail.flatten(1, 2) for detail in details], means

    def decode(self, ready: Parameters, means: Tensor, grid: Grid, step_index: int, choose: Choose) -> Tensor:
        means = means + self.predicted_means(step_index)
        return self._prediction.decode(ready, means, grid, step_index, choose, self._references)

    def with_references(self, signals: Sequence[Tensor], grid: Grid) -> "LatentPyramid":
        """Return the field of a signal that is predicted from others much like it.

        signals: values [B, C, *grid.shape] in [0, 1], up to as many as `references`; fewer are shown several times.
        """
        different = [self._reference(values, grid) for values in signals]
        shown = tuple(different[number % len(signals)] for number in range(self.references))
        return _PyramidOfSignal(**{"hue": 0, "bare": 0} | _settings(self) | {"shown": shown})

    def _reference(self, values: Tensor, grid: Grid) -> Reference:
        details, low = self._analysed(values, grid)
        means = [low]
        for detail, level in zip(details[:0:-1], self.levels_of(grid)[:0:-1], strict=True):
            low = whole(join(low, detail, level, grid.periodic), level)
            means.append(low)
        return Reference(details, means[::-1])

    @property
    def _references(self) -> tuple[Reference, ...]:
        return ()

    @property
    def _colors(self) -> np.ndarray:
        return _colors(0)

    @property
    def _prediction(self) -> PredictionNetworks:
        return PredictionNetworks(self.order, self.prediction, self.references)

    def values(self, linear: Tensor, grid: Grid, step_index: int) -> Tensor:
        values = linear * quantization_step(step_index)
        if self.out_features == 3:
            values = torch.stack(_turned(values, self._colors.T), 1)
        return values + 0.5

    def values_at(self, linear: Tensor, positions: Positions, grid: Grid, step_index: int) -> Tensor:
        return resample(self.values(linear, grid, step_index), positions, grid.periodic)


@dataclass(frozen=True, eq=False)
class _PyramidOfSignal(LatentPyramid):
    """A pyramid with what a signal chose of it, and the references that it is shown.

    hue: by how many of pi / HUES chroma is turned. bare: see `Order`.
    """

    hue: int = 0
    bare: int = 0
    shown: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        """Leave out the checks: the configuration was checked before."""

    @property
    def order(self) -> Order:
        return Order(self.groups, self.levels, self.divided, self.bare)

    @property
    def _references(self) -> tuple[Reference, ...]:
        return self.shown

    @property
    def _colors(self) -> np.ndarray:
        return _colors(self.hue)

    def hints(self, step_index: int) -> Hints | None:
        if not self.shown:
            return None
        first, *others = self.shown
        half = 0.5 / quantization_step(step_index)
        second = others[0] if others else first
        pairs = list(zip(first.details, second.details, strict=True))
        return Hints(
            sizes=[((one + other) * half).abs() for one, other in pairs],
            distances=[((one - other) * half).abs() for one, other in pairs],
            single=second is first,
        )

    def predicted_means(self, step_index: int) -> Tensor | float:
        if not self.shown:
            return 0.0
        total = self.shown[0].means[-1]
        for reference in self.shown[1:]:
            total = total + reference.means[-1]
        return total * (1 / (len(self.shown) * quantization_step(step_index)))


def _settings(field: LatentPyramid) -> dict[str, Any]:
    return {each.name: getattr(field, each.name) for each in fields(field)}


def resample(maps: Tensor, positions: Positions, closed: Sequence[bool]) -> Tensor:
    """Interpolate maps [B, F, *grid] at positions, [B, F, *(len(p) for p in positions)], or [B, F, n] at points.

    Cubic convolution (Keys 1981), which leaves the samples themselves as they are; constant beyond open ends.
    """
    if isinstance(positions, np.ndarray):
        return _resampled_at_points(maps, positions, closed)
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


def _resampled_at_points(maps: Tensor, points: np.ndarray, closed: Sequence[bool]) -> Tensor:
    """Return `resample` of points [axes, n]."""
    taps = []
    for size, along, around in zip(maps.shape[2:], points, closed, strict=True):
        whole = np.floor(along)
        fraction = torch.from_numpy((along - whole).astype(np.float32)).to(maps.device)
        some = (0,) if np.array_equal(whole, along) else range(-1, 3)
        taps.append([(_index(whole + tap, size, around), _cubic(fraction - tap)) for tap in some])
    flat = maps.flatten(2)
    result = torch.zeros(*maps.shape[:2], points.shape[1], device=maps.device)
    for chosen in product(*taps):
        index = np.ravel_multi_index(tuple(each for each, _ in chosen), maps.shape[2:])
        part = flat.index_select(2, torch.from_numpy(index).to(maps.device))
        for _, share in chosen:
            part = part * share
        result += part
    return result


def samples_read(positions: np.ndarray, size: int) -> set[int]:
    """Return the samples of an open axis that `resample` reads for these positions."""
    whole = np.floor(positions)
    taps = (0,) if np.array_equal(whole, positions) else range(-1, 3)
    return {int(sample) for tap in taps for sample in (whole + tap).clip(0, size - 1)}


def _taken(maps: Tensor, axis: int, positions: np.ndarray, closed: bool) -> Tensor:
    """Return the samples at whole positions along a grid axis, which may lie beyond its ends."""
    index = _index(positions, maps.shape[axis + 2], closed)
    return maps.index_select(axis + 2, torch.from_numpy(index).to(maps.device))


def _index(positions: np.ndarray, size: int, closed: bool) -> np.ndarray:
    """Return the samples at whole positions along an axis, which may lie beyond its ends."""
    index = positions.astype(np.int64)
    return index % size if closed else index.clip(0, size - 1)


def _cubic(distance: Tensor) -> Tensor:
    """Evaluate Keys' kernel with a = -1/2."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _colors(hue: int) -> np.ndarray:
    """Return an orthonormal matrix, float32, whose rows are what luma, U and V are of the values' channels.

    hue: by how many of pi / HUES the plane of U and V is turned.
    """
    rows = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    rows /= np.sqrt((rows * rows).sum(1, keepdims=True))
    cosine, sine = math.cos(math.pi * hue / HUES), math.sin(math.pi * hue / HUES)
    turned = np.stack([rows[0], cosine * rows[1] + sine * rows[2], cosine * rows[2] - sine * rows[1]])
    # So coarse that no machine's cosine takes part.
    return (np.rint(turned * COLOR_UNIT) / COLOR_UNIT).astype(np.float32)


def _turned(values: Tensor, matrix: np.ndarray) -> list[Tensor]:
    """Return the channels that a matrix makes of those of values [B, C, ...]: one operation at a time."""
    channels = []
    for row in matrix.tolist():
        total = values[:, 0] * row[0]
        for channel, factor in enumerate(row[1:], 1):
            total = total + values[:, channel] * factor
        channels.append(total)
    return channels
