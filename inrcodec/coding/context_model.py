"""The entropy model of a latent pyramid: what each symbol is expected to be, given those decoded before it.

Levels are coded from coarse to fine, each in 2^n interleaved *phases*: the grid is cut into its 2^n polyphase
components along the n axes that the next coarser level splits, so that a phase has exactly the shape of that level.
Within a phase the channels come in groups. All symbols of a (level, phase, group) are independent given the context
and are coded together. Their context, within a 3^d neighbourhood: the earlier phases of the same level, the groups
before at the same place, and the two next coarser levels, all as pseudo-logarithms of magnitudes. A small network
turns it into two numbers per symbol: the log odds that it is not zero, and the log2 of the scale of its magnitude.

The network runs in two ways. In training and adaptation it is ordinary float32, differentiable in weights and
symbols. In coding it is integer arithmetic: weights are integers in units of 2^-10, activations in units of 2^-8,
carried by float64 whose sums stay far below 2^53, so every machine computes the same rows of the shipped tables.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.coding.entropy import EVEN_FLAG, FLAG_ROWS, MAGNITUDE_ROWS, UNIT_MAGNITUDE
from inrcodec.models import Parameters
from inrcodec.models.wavelet import Level

WEIGHT_UNIT = 1 << 10
ACTIVATION_UNIT = 1 << 8
LARGEST_ACTIVATION = 1 << 15
SLOPE = 8
"""Negative activations are divided by this (leaky ReLU)."""

ROWS_PER_UNIT = 4
"""Rows of both tables are a quarter of a logit, or of an octave, apart."""

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@dataclass(frozen=True)
class Place:
    """Where the symbols of one pass stand: `latents[level][index]` is [B, channels, *grid].

    index: of a level's symbols [B, C * bands, *half].
    """

    level: int
    index: tuple[slice, ...]


@dataclass(frozen=True)
class ContextModel:
    """Configuration of the network.

    groups: sizes of the groups of channels, coded one after the other ((1, 2): luma, then both chroma channels).
    levels: how often each axis is split.
    hidden: width of the network.
    """

    groups: tuple[int, ...]
    levels: tuple[int, ...]
    hidden: int = 32

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight tensor."""
        shapes: dict[str, tuple[int, ...]] = {}
        taps = (3,) * len(self.levels)
        for level in range(self.depth):
            for phase, group in itertools.product(range(self._phases(level)), range(len(self.groups))):
                name = self._name(level, phase, group)
                outputs = 2 * self.groups[group] * self._bands(level)
                shapes[f"{name}.context"] = (self.hidden, self._inputs(level, phase, group), *taps)
                shapes[f"{name}.hidden"] = (self.hidden, self.hidden)
                shapes[f"{name}.head"] = (outputs, self.hidden)
                shapes[f"{name}.context_bias"] = (self.depth + 2, self.hidden)
                shapes[f"{name}.hidden_bias"] = (1, self.hidden)
                shapes[f"{name}.head_bias"] = (self.depth + 2, outputs)
        return shapes

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Random weights for which every symbol is probably zero."""
        weights = {}
        for name, shape in self.shapes().items():
            if name.endswith("bias"):
                weights[name] = torch.zeros(shape)
                continue
            fan_in = math.prod(shape[1:])
            gain = 0.1 if name.endswith("head") else 1.0
            bound = gain / math.sqrt(fan_in)
            weights[name] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        return weights

    @property
    def depth(self) -> int:
        return max(self.levels)

    def passes(
        self, weights: Parameters, magnitudes: Sequence[Tensor], levels: Sequence[Level], condition: Tensor
    ) -> Iterator[tuple[Place, Tensor, Tensor]]:
        """The passes in coding order, with what is expected of their symbols.

        weights: float32, or float64 holding integers for the exact arithmetic of coding (then on the CPU).
        magnitudes: of the symbols of every level, [B, C * bands, *half] float, finest first; those of a pass must be
            there when the next one is asked for.
        condition: [B] log2 of the quantization step relative to 1/8; integers in units of 2^-8 if exact.
        Yields (place, flags, scales): log odds of a non-zero, and log2 of the magnitude's scale, [B, n, *grid], both
        as rows of the tables if exact.
        """
        exact = next(iter(weights.values())).dtype == torch.float64
        dimensions = len(self.levels)
        parent = grandparent = None
        for level in reversed(range(self.depth)):
            known = magnitudes[level]
            half = levels[level].half
            axes = self._interleaved(level)
            grid = tuple(-(-size // 2) if axis in axes else size for axis, size in enumerate(half))
            coarser = self._coarser(level, parent, grandparent, known, grid)
            phases: list[Tensor] = []
            for phase, offsets in enumerate(_offsets(axes, dimensions)):
                steps = tuple(slice(offset, None, 2 if axis in axes else 1) for axis, offset in enumerate(offsets))
                shape = tuple(len(range(size)[step]) for size, step in zip(half, steps, strict=True))
                inside = tuple(slice(0, size) for size in shape)
                current: list[Tensor] = []
                for group in range(len(self.groups)):
                    own = self._channels(level, group)
                    inputs = torch.cat(
                        [*(earlier[:, own] for earlier in phases), *current, *(part[:, own] for part in coarser)], 1
                    )
                    outputs = self._network(weights, self._name(level, phase, group), level, inputs, condition, exact)
                    outputs = outputs[(slice(None), slice(None), *inside)]
                    flags, scales = outputs.chunk(2, 1)
                    place = Place(level, (slice(None), own, *steps))
                    yield place, flags, scales
                    current.append(_padded(_logarithm(known[place.index], exact), grid))
                phases.append(torch.cat(current, 1))
            grandparent, parent = parent, _logarithm(known, exact)

    def _coarser(
        self, level: int, parent: Tensor | None, grandparent: Tensor | None, known: Tensor, grid: tuple[int, ...]
    ) -> list[Tensor]:
        """The two next coarser levels at a phase's grid, each with this level's channels."""
        missing = known.new_zeros(*known.shape[:2], *grid)
        parts = []
        for distance, found in ((1, parent), (2, grandparent)):
            if found is None or found.shape[1] != known.shape[1]:
                parts.append(missing)
                continue
            for axis in self._interleaved(level + 1) if distance == 2 else ():
                found = found.repeat_interleave(2, axis + 2)
            parts.append(found[(slice(None), slice(None), *[slice(0, size) for size in grid])])
        return parts

    def _network(
        self, weights: Parameters, name: str, level: int, inputs: Tensor, condition: Tensor, exact: bool
    ) -> Tensor:
        layers = _ExactLayers() if exact else _FloatLayers()
        bias = layers.conditioned(weights[f"{name}.context_bias"], level, condition)
        hidden = layers.activation(layers.neighbourhood(inputs, weights[f"{name}.context"], bias))
        bias = layers.conditioned(weights[f"{name}.hidden_bias"], 0, None)
        hidden = hidden + layers.activation(layers.pointwise(hidden, weights[f"{name}.hidden"], bias))
        bias = layers.conditioned(weights[f"{name}.head_bias"], level, condition)
        return layers.outputs(layers.pointwise(hidden, weights[f"{name}.head"], bias))

    def _name(self, level: int, phase: int, group: int) -> str:
        """Levels with the same bands, phases and coarser levels share their weights."""
        return f"{self._bands(level)}.{self._phases(level)}.{phase}.{group}"

    def _axes(self, level: int) -> tuple[int, ...]:
        return tuple(axis for axis, splits in enumerate(self.levels) if level < splits)

    def _interleaved(self, level: int) -> tuple[int, ...]:
        return self._axes(min(level + 1, self.depth - 1))

    def _bands(self, level: int) -> int:
        return 2 ** len(self._axes(level)) - 1

    def _phases(self, level: int) -> int:
        return 2 ** len(self._interleaved(level))

    def _channels(self, level: int, group: int) -> slice:
        bands = self._bands(level)
        return slice(bands * sum(self.groups[:group]), bands * sum(self.groups[: group + 1]))

    def _inputs(self, level: int, phase: int, group: int) -> int:
        """Context channels: own group of earlier phases and of two coarser levels, other groups at the same place."""
        return self._bands(level) * (self.groups[group] * (phase + 2) + sum(self.groups[:group]))


class _FloatLayers:
    """The network as it is trained."""

    def conditioned(self, table: Tensor, level: int, condition: Tensor | None) -> Tensor:
        if condition is None:
            return table[:1]
        condition = condition[:, None]
        return table[level] + condition * table[-2] + condition.square() * table[-1]

    def neighbourhood(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dimensions = weight.dim() - 2
        return _CONVOLUTIONS[dimensions](inputs, weight, padding=1) + _spread(bias, dimensions)

    def pointwise(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dimensions = inputs.dim() - 2
        kernel = weight.reshape(*weight.shape, *[1] * dimensions)
        return _CONVOLUTIONS[dimensions](inputs, kernel) + _spread(bias, dimensions)

    def activation(self, values: Tensor) -> Tensor:
        return functional.leaky_relu(values, 1 / SLOPE)

    def outputs(self, values: Tensor) -> Tensor:
        return values


class _ExactLayers:
    """The same in integers, carried by float64: sums of products in units of 2^-18, activations in 2^-8."""

    def conditioned(self, table: Tensor, level: int, condition: Tensor | None) -> Tensor:
        if condition is None:
            return table[:1] * ACTIVATION_UNIT
        condition = condition[:, None]
        square = torch.floor(condition.square() / ACTIVATION_UNIT)
        return table[level] * ACTIVATION_UNIT + condition * table[-2] + square * table[-1]

    def neighbourhood(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        dimensions = weight.dim() - 2
        grid = inputs.shape[2:]
        padded = functional.pad(inputs, (1, 1) * dimensions)
        taps = [
            padded[
                (
                    slice(None),
                    slice(None),
                    *[slice(start, start + size) for start, size in zip(starts, grid, strict=True)],
                )
            ]
            for starts in itertools.product(range(3), repeat=dimensions)
        ]
        gathered = torch.stack(taps, 2).flatten(1, 2)  # channel-major, tap-minor, as the weight is laid out
        return self.pointwise(gathered, weight.flatten(1), bias)

    def pointwise(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        product = torch.matmul(weight, inputs.flatten(2)).unflatten(2, inputs.shape[2:])
        return product + _spread(bias, inputs.dim() - 2)

    def activation(self, values: Tensor) -> Tensor:
        values = torch.floor(values / WEIGHT_UNIT).clamp_(-LARGEST_ACTIVATION, LARGEST_ACTIVATION)
        return torch.where(values < 0, torch.floor(values / SLOPE), values)

    def outputs(self, values: Tensor) -> Tensor:
        """Rows of the tables: flags in the first half of the channels, scales in the second."""
        rows = torch.floor(values * (ROWS_PER_UNIT / (WEIGHT_UNIT * ACTIVATION_UNIT)) + 0.5)
        flags, scales = rows.chunk(2, 1)
        flags = (flags + EVEN_FLAG).clamp(0, FLAG_ROWS - 1)
        scales = (scales + UNIT_MAGNITUDE).clamp(0, MAGNITUDE_ROWS - 1)
        return torch.cat([flags, scales], 1)


def integer_weights(weights: Parameters) -> Parameters:
    """Trained weights in the units of coding, int32. Raises: ValueError for one beyond 2^31 units."""
    rounded = {name: torch.round(value.double() * WEIGHT_UNIT) for name, value in weights.items()}
    largest = max(float(value.abs().max()) for value in rounded.values())
    if not largest < 1 << 24:
        raise ValueError(f"a weight of the context model is {largest / WEIGHT_UNIT}, too large for exact sums")
    return {name: value.to(torch.int32) for name, value in rounded.items()}


@dataclass(frozen=True, eq=False)
class Costs:
    """What symbols cost in bits, linear in the magnitude beyond 1; shaped like the symbols.

    zero: of a 0; one: of a 1 or -1, sign included; more: of every further unit.
    """

    zero: Tensor
    one: Tensor
    more: Tensor

    @classmethod
    def of(cls, flags: Tensor, scales: Tensor) -> "Costs":
        """From log odds and log2 scales (not rows), differentiable in both."""
        decay = torch.exp2(-scales.clamp(-2, 14))
        one = functional.softplus(-flags) + math.log(2) - torch.log(-torch.expm1(-decay))
        return cls(functional.softplus(flags) / math.log(2), one / math.log(2), decay / math.log(2))

    def __call__(self, magnitudes: Tensor) -> Tensor:
        """Bits of symbols of these integer magnitudes."""
        return torch.where(magnitudes < 0.5, self.zero, self.one + (magnitudes - 1) * self.more)


def _logarithm(magnitudes: Tensor, exact: bool) -> Tensor:
    """Pseudo-logarithm of 1 + |q| to the base 2: linear between powers of two."""
    mantissa, exponent = torch.frexp(magnitudes + 1)
    logarithm = exponent + (2 * mantissa - 2)
    if exact:
        return torch.floor(logarithm * ACTIVATION_UNIT).clamp(max=LARGEST_ACTIVATION)
    return logarithm


def _offsets(axes: tuple[int, ...], dimensions: int) -> list[tuple[int, ...]]:
    """Offsets of the phases: opposite corners follow each other, so that the later phases see both sides."""
    corners = list(itertools.product((0, 1), repeat=len(axes)))
    first = corners[: len(corners) // 2]
    ordered = [corner for low in first for corner in (low, tuple(1 - offset for offset in low))]
    return [tuple(corner[axes.index(axis)] if axis in axes else 0 for axis in range(dimensions)) for corner in ordered]


def _padded(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Zeros at the end of axes shorter than `grid`."""
    ends = [end for axis in reversed(range(len(grid))) for end in (0, grid[axis] - values.shape[axis + 2])]
    return functional.pad(values, ends) if any(ends) else values


def _spread(bias: Tensor, dimensions: int) -> Tensor:
    return bias.reshape(*bias.shape, *[1] * dimensions)
