"""The entropy model of a latent pyramid: what each symbol is expected to be, given those decoded before it.

All symbols of a pass (`inrcodec.models.order`) are independent given their context. That is, within a 3^d
neighbourhood: the earlier phases of the same level, the groups before at the same place, and the two next coarser
levels, all as pseudo-logarithms of magnitudes. A small network turns it into two numbers per symbol: the log odds
that it is not zero, and the log2 of the scale of its magnitude.

The network runs in two ways. In training and adaptation it is ordinary float32, differentiable in weights and
symbols. In coding it is integer arithmetic: weights are integers in units of 2^-10, activations in units of 2^-8,
carried by float64 whose sums stay far below 2^53, so every machine computes the same rows of the shipped tables.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.coding.entropy import EVEN_FLAG, FLAG_ROWS, MAGNITUDE_ROWS, UNIT_MAGNITUDE
from inrcodec.models import Parameters
from inrcodec.models.convolution import convolution_within, pointwise
from inrcodec.models.order import Order, Place, cropped, filled
from inrcodec.models.wavelet import Level

WEIGHT_UNIT = 1 << 10
LARGEST_WEIGHT = 1 << 24
"""Integer weights are smaller, so that sums of products stay exact."""

ACTIVATION_UNIT = 1 << 8
LARGEST_ACTIVATION = 1 << 15
LARGEST_SUM = 1 << 52
"""Sums of an output are smaller: float64 holds them, and what is added to them, exactly."""

BLOCK = 4096
"""Points, of all signals together, that are computed at once in coding: more would not fit the processor's cache."""

SLOPE = 8
"""Negative activations are divided by this (leaky ReLU)."""

ROWS_PER_UNIT = 4
"""Rows of both tables are a quarter of a logit, or of an octave, apart."""


def largest_sum(weight: Tensor) -> int:
    """The largest sum of products that an output can have, for any activations."""
    return LARGEST_ACTIVATION * int(weight.long().abs().flatten(1).sum(1).max()) if weight.dim() > 1 else 0


@dataclass(frozen=True)
class ContextModel:
    """Configuration of the network.

    groups: sizes of the groups of channels, coded one after the other ((1, 2): luma, then both chroma channels).
    levels: how often each axis is split.
    hidden: width of the network.
    squeeze: number of mixtures of the inputs that their neighbourhood is seen of, where all of it would take too long
        (three axes have many bands and phases); 0: all inputs as they are.
    kinds: names of the networks, where a field has several; see `LatentField.kinds`.
    divided: how many of the first phases of a level come in parts; see `Order`.
    """

    groups: tuple[int, ...]
    levels: tuple[int, ...]
    hidden: int = 32
    squeeze: int = 0
    kinds: tuple[str, ...] = ()
    divided: int = 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight tensor."""
        if self.kinds:
            of_one = self.of_one_kind.shapes().items()
            return {f"{kind}.{name}": shape for kind in self.kinds for name, shape in of_one}
        shapes: dict[str, tuple[int, ...]] = {}
        taps = (3,) * len(self.levels)
        order = self.order
        for level in range(order.depth):
            for phase, group in itertools.product(range(order.phases(level)), range(len(self.groups))):
                name = order.name(level, phase, group)
                outputs = 2 * self.groups[group] * order.bands(level)
                inputs = self._inputs(level, phase, group)
                if self.squeeze:
                    shapes[f"{name}.squeeze"] = (self.squeeze, inputs)
                    shapes[f"{name}.squeeze_bias"] = (1, self.squeeze)
                shapes[f"{name}.context"] = (self.hidden, self.squeeze or inputs, *taps)
                shapes[f"{name}.hidden"] = (self.hidden, self.hidden)
                shapes[f"{name}.head"] = (outputs, self.hidden)
                shapes[f"{name}.context_bias"] = (order.depth + 2, self.hidden)
                shapes[f"{name}.hidden_bias"] = (1, self.hidden)
                shapes[f"{name}.head_bias"] = (order.depth + 2, outputs)
                for part in range(1, order.parts(level, phase)):
                    shapes[f"{name}.part{part}"] = (self.hidden, self.groups[group] * order.bands(level), *taps)
                    shapes[f"{name}.part{part}_bias"] = (order.depth + 2, self.hidden)
        return shapes

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Random weights for which every symbol is probably zero, and all parts of a phase are alike."""
        weights = {}
        for name, shape in self.shapes().items():
            if name.endswith("bias") or ".part" in name:
                weights[name] = torch.zeros(shape)
                continue
            fan_in = math.prod(shape[1:])
            gain = 0.1 if name.endswith("head") else 1.0
            bound = gain / math.sqrt(fan_in)
            weights[name] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        return weights

    @property
    def of_one_kind(self) -> "ContextModel":
        return replace(self, kinds=())

    @property
    def order(self) -> Order:
        return Order(self.groups, self.levels, self.divided)

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
        parent = grandparent = None
        for level, shapes in reversed(list(enumerate(levels))):
            known = magnitudes[level]
            coarser = self._coarser(level, parent, grandparent, known, self.order.grid(level, shapes.half))
            earlier: list[list[Tensor]] = []
            for place in self.order.passes(level, shapes.half):
                if place.part == 0:
                    if place.group == 0:
                        earlier.append([])
                    own = self.order.channels(level, place.group)
                    before = [*(phase[place.group] for phase in earlier[:-1]), *earlier[-1]]
                    seen = torch.cat([*before, *(part[:, own] for part in coarser)], 1)
                    inputs = self._mixed(weights, place, seen, exact)
                of_phase = earlier[-1].pop() if place.part else None
                outputs = self._network(weights, place, inputs, of_phase, condition, exact)
                flags, scales = cropped(outputs, place.shape).chunk(2, 1)
                yield place, flags, scales
                earlier[-1].append(filled(of_phase, place, _logarithm(known[place.index], exact)))
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
            for axis in self.order.interleaved(level + 1) if distance == 2 else ():
                found = found.repeat_interleave(2, axis + 2)
            parts.append(cropped(found, grid))
        return parts

    def _mixed(self, weights: Parameters, place: Place, seen: Tensor, exact: bool) -> Tensor:
        """The inputs of a phase's networks, fewer mixtures of what is seen if configured."""
        if not self.squeeze:
            return seen
        layers = _ExactLayers() if exact else _FloatLayers()
        name = self.order.name(place.level, place.phase, place.group)
        bias = layers.conditioned(weights[f"{name}.squeeze_bias"], 0, None)
        return layers.activation(layers.pointwise(seen, weights[f"{name}.squeeze"], bias))

    def _network(
        self, weights: Parameters, place: Place, inputs: Tensor, own: Tensor | None, condition: Tensor, exact: bool
    ) -> Tensor:
        """At the points of a pass. inputs: on the phase's grid; own: the phase's symbols, of the parts before."""
        layers = _ExactLayers() if exact else _FloatLayers()
        level = place.level
        name = self.order.name(level, place.phase, place.group)
        weight = weights[f"{name}.context"]
        bias = layers.conditioned(weights[f"{name}.context_bias"], level, condition)
        if own is not None:
            inputs = torch.cat([inputs, own], 1)
            weight = torch.cat([weight, weights[f"{name}.part{place.part}"]], 1)
            bias = bias + layers.conditioned(weights[f"{name}.part{place.part}_bias"], level, condition)
        hidden_bias = layers.conditioned(weights[f"{name}.hidden_bias"], 0, None)
        head_bias = layers.conditioned(weights[f"{name}.head_bias"], level, condition)

        def rest(context: Tensor) -> Tensor:
            hidden = layers.activation(context)
            hidden = hidden + layers.activation(layers.pointwise(hidden, weights[f"{name}.hidden"], hidden_bias))
            return layers.outputs(layers.pointwise(hidden, weights[f"{name}.head"], head_bias))

        return layers.neighbourhood(inputs, weight, bias, place.within, rest)

    def _inputs(self, level: int, phase: int, group: int) -> int:
        """Context channels: own group of earlier phases and of two coarser levels, other groups at the same place."""
        return self.order.bands(level) * (self.groups[group] * (phase + 2) + sum(self.groups[:group]))


class _FloatLayers:
    """The network as it is trained."""

    def conditioned(self, table: Tensor, level: int, condition: Tensor | None) -> Tensor:
        if condition is None:
            return table[:1]
        condition = condition[:, None]
        return table[level] + condition * table[-2] + condition.square() * table[-1]

    def neighbourhood(
        self, inputs: Tensor, weight: Tensor, bias: Tensor, within: Sequence[slice], rest: Callable[[Tensor], Tensor]
    ) -> Tensor:
        padded = functional.pad(inputs, (1, 1) * len(within))
        return rest(convolution_within(padded, weight, None, within) + _spread(bias, len(within)))

    def pointwise(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return pointwise(inputs, weight) + _spread(bias, inputs.dim() - 2)

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

    def neighbourhood(
        self, inputs: Tensor, weight: Tensor, bias: Tensor, within: Sequence[slice], rest: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Flattened, what a tap sees is a shift of what the others see: so nothing is gathered, and `BLOCK` points go
        through all layers in the processor's cache. Where a row ends, some points see the next one; they are cut off.
        """
        frames, starts = _polyphase(inputs, within)
        flat, last = frames.flatten(3), max(start for _, start in starts)
        taps = [tap.expand(len(inputs), -1, -1) for tap in weight.flatten(2).unbind(2)]
        points = flat.shape[3] - last
        blocks = []
        length = max(1, BLOCK // len(inputs))
        for begin in range(0, points, length):
            end = min(begin + length, points)
            sums = bias[:, :, None].expand(len(inputs), -1, end - begin).clone()
            for tap, (component, start) in zip(taps, starts, strict=True):
                sums.baddbmm_(tap, flat[:, :, component, begin + start : end + start])
            blocks.append(rest(sums))
        blocks.append(blocks[0].new_zeros(*blocks[0].shape[:2], last))
        results = torch.cat(blocks, 2).unflatten(2, frames.shape[3:])
        extent = [len(range(size)[along]) for size, along in zip(inputs.shape[2:], within, strict=True)]
        return cropped(results, tuple(extent))

    def pointwise(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        product = torch.matmul(weight, inputs.flatten(2)).unflatten(2, inputs.shape[2:])
        return product.add_(_spread(bias, inputs.dim() - 2))

    def activation(self, values: Tensor) -> Tensor:
        values = (values / WEIGHT_UNIT).floor_().clamp_(-LARGEST_ACTIVATION, LARGEST_ACTIVATION)
        return torch.maximum(values, (values / SLOPE).floor_())

    def outputs(self, values: Tensor) -> Tensor:
        """Rows of the tables: flags in the first half of the channels, scales in the second."""
        rows = torch.floor(values * (ROWS_PER_UNIT / (WEIGHT_UNIT * ACTIVATION_UNIT)) + 0.5)
        flags, scales = rows.chunk(2, 1)
        flags = (flags + EVEN_FLAG).clamp(0, FLAG_ROWS - 1)
        scales = (scales + UNIT_MAGNITUDE).clamp(0, MAGNITUDE_ROWS - 1)
        return torch.cat([flags, scales], 1)


def integer_weights(weights: Parameters) -> Parameters:
    """Trained weights in the units of coding, int32. Raises: ValueError for one of 2^24 units or more."""
    rounded = {name: torch.round(value.double() * WEIGHT_UNIT) for name, value in weights.items()}
    largest = max(float(value.abs().max()) for value in rounded.values())
    if not largest < LARGEST_WEIGHT:
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


def _polyphase(values: Tensor, within: Sequence[slice]) -> tuple[Tensor, list[tuple[int, int]]]:
    """The components of values [B, C, *grid], with a zero at both ends, that alternate by the steps of `within`.

    Returns them, [B, C, components, *frame], and where the neighbours of the first point of `within` are: for every
    tap of 3^d, its component and its place in the flattened frame. Those of the next points follow.
    """
    steps = [along.step for along in within]
    frame = [-(-(size + 2) // step) for size, step in zip(values.shape[2:], steps, strict=True)]
    ends = [(1, size * step - 1 - old) for size, step, old in zip(frame, steps, values.shape[2:], strict=True)]
    padded = functional.pad(values, [end for pair in reversed(ends) for end in pair])
    corners = itertools.product(*(range(step) for step in steps))
    strided = [[slice(offset, None, step) for offset, step in zip(corner, steps, strict=True)] for corner in corners]
    components = torch.stack([padded[(slice(None), slice(None), *slices)] for slices in strided], 2)
    starts = []
    for offsets in itertools.product(range(3), repeat=len(frame)):
        component = place = 0
        for offset, along, size in zip(offsets, within, frame, strict=True):
            component = component * along.step + (along.start + offset) % along.step
            place = place * size + (along.start + offset) // along.step
        starts.append((component, place))
    return components, starts


def _logarithm(magnitudes: Tensor, exact: bool) -> Tensor:
    """Pseudo-logarithm of 1 + |q| to the base 2: linear between powers of two."""
    mantissa, exponent = torch.frexp(magnitudes + 1)
    logarithm = exponent + (2 * mantissa - 2)
    if exact:
        return torch.floor(logarithm * ACTIVATION_UNIT).clamp(max=LARGEST_ACTIVATION)
    return logarithm


def _spread(bias: Tensor, dimensions: int) -> Tensor:
    return bias.reshape(*bias.shape, *[1] * dimensions)
