"""The layers of the entropy model in its two arithmetics: floating point as trained, and exact integers as coded.

Exact arithmetic is carried by float64: weights are integers in units of 1 / WEIGHT_UNIT, activations in units of
1 / ACTIVATION_UNIT, and all sums of products stay below 2^53. No operation rounds, whatever the order of summation, so
every machine computes the same numbers.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.convolution import convolution_within, pointwise
from inrcodec.models.field import Parameters
from inrcodec.models.order import cropped

WEIGHT_UNIT = 1 << 10
LARGEST_WEIGHT = 1 << 24
"""Integer weights are smaller, so that sums of products stay exact."""

ACTIVATION_UNIT = 1 << 8
LARGEST_ACTIVATION = 1 << 15
LARGEST_SUM = 1 << 52
"""Sums of an output are smaller: float64 holds them, and what is added to them, exactly."""

SLOPE = 8
"""Negative activations are divided by this (leaky ReLU)."""

ROWS_PER_UNIT = 4
"""Exact outputs are in quarters of a logit, or of an octave."""

_BLOCK = 4096
"""Points, of all signals together, that are computed at once in coding: more would not fit the processor's cache."""


class Layers(Protocol):
    """What the network consists of."""

    def conditioned(self, table: Tensor, level: int, condition: Tensor | None) -> Tensor:
        """Return the bias [B or 1, n] of a level: a polynomial of the condition [B], or the first row without one."""

    def neighbourhood(
        self, inputs: Tensor, weight: Tensor, bias: Tensor, within: Sequence[slice], rest: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Convolve inputs, padded with zeros, at the points `within`, add the bias, and apply the `rest` of the layers.

        `rest` is pointwise and may be called with blocks of points [B, n, *points].
        """

    def pointwise(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Apply a linear map at every point."""

    def activation(self, values: Tensor) -> Tensor:
        """Apply the leaky ReLU; exact sums are brought back to units of activations first."""

    def outputs(self, values: Tensor) -> Tensor:
        """Return the network's outputs; exact ones rounded to units of 1 / ROWS_PER_UNIT."""


class FloatLayers:
    """The layers as they are trained, differentiable."""

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


class ExactLayers:
    """The same in integers carried by float64, on the CPU: sums are in units of 2^-18."""

    def conditioned(self, table: Tensor, level: int, condition: Tensor | None) -> Tensor:
        if condition is None:
            return table[:1] * ACTIVATION_UNIT
        condition = condition[:, None]
        square = torch.floor(condition.square() / ACTIVATION_UNIT)
        return table[level] * ACTIVATION_UNIT + condition * table[-2] + square * table[-1]

    def neighbourhood(
        self, inputs: Tensor, weight: Tensor, bias: Tensor, within: Sequence[slice], rest: Callable[[Tensor], Tensor]
    ) -> Tensor:
        # Flattened, what a tap sees is a shift of what the others see: so nothing is gathered, and `_BLOCK` points go
        # through all layers in the processor's cache. Where a row ends, some points see the next one; they are cut off.
        frames, starts = _polyphase(inputs, within)
        flat, last = frames.flatten(3), max(start for _, start in starts)
        taps = [tap.expand(len(inputs), -1, -1) for tap in weight.flatten(2).unbind(2)]
        points = flat.shape[3] - last
        blocks = []
        length = max(1, _BLOCK // len(inputs))
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
        return torch.floor(values * (ROWS_PER_UNIT / (WEIGHT_UNIT * ACTIVATION_UNIT)) + 0.5)


def integer_weights(weights: Parameters) -> Parameters:
    """Return trained weights in the units of coding, int32. Raises: ValueError where sums would not be exact."""
    rounded = {name: torch.round(value.double() * WEIGHT_UNIT) for name, value in weights.items()}
    largest = max(float(value.abs().max()) for value in rounded.values())
    if not largest < LARGEST_WEIGHT:
        raise ValueError(f"a weight of the entropy model is {largest / WEIGHT_UNIT}, too large for exact sums")
    return {name: value.to(torch.int32) for name, value in rounded.items()}


def check_exact(weights: Parameters) -> None:
    """Check that sums of products are exact. Raises: ValueError for integer weights with which they need not be."""
    if any(int(value.long().abs().max()) >= LARGEST_WEIGHT for value in weights.values()):
        raise ValueError("a weight of the entropy model is too large for exact sums")
    for name, value in weights.items():
        network, part, _ = name.rpartition(".part")
        beside = largest_sum(weights[f"{network}.input"]) if part else 0  # a part's products are added to these
        doubled = 2 if name.endswith(".head") else 1  # its inputs are sums of two activations
        if doubled * largest_sum(value) + beside >= LARGEST_SUM:
            raise ValueError(f"the weights {name} of the entropy model are too many for exact sums")


def largest_sum(weight: Tensor) -> int:
    """Return the largest sum of products that an output of integer weights [out, ...] can have, for any activations."""
    return LARGEST_ACTIVATION * int(weight.long().abs().flatten(1).sum(1).max()) if weight.dim() > 1 else 0


def _polyphase(values: Tensor, within: Sequence[slice]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the components of values [B, C, *grid], with a zero at both ends, that alternate by the steps of `within`.

    Returns them, [B, C, components, *frame], and where the neighbours of the first point of `within` are: for every
    tap of 3^d, its component and its place in the flattened frame. The neighbours of the next points follow.
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


def _spread(bias: Tensor, dimensions: int) -> Tensor:
    return bias.reshape(*bias.shape, *[1] * dimensions)
