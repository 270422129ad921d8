"""The entropy model of latents: a distribution for each symbol, given those decoded before it.

All symbols of a pass (`inrcodec.models.order`) are independent given what was decoded before. Of that, the model sees a
3^d neighbourhood: the earlier phases of the same level, the groups before at the same place, and the two next coarser
levels, all as pseudo-logarithms of magnitudes. A small network turns it into two numbers per symbol: the log odds
that it is not zero, and the log2 of the scale of its magnitude.

The network runs in two arithmetics (`inrcodec.models.layers`). In training and adaptation it is ordinary float32,
differentiable in weights and symbols; in coding it is exact integers, so that every machine computes the same
distributions.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from inrcodec.models.field import Parameters
from inrcodec.models.latent import LatentField
from inrcodec.models.layers import ACTIVATION_UNIT, LARGEST_ACTIVATION, ExactLayers, FloatLayers, Layers
from inrcodec.models.order import Order, Place, cropped, filled
from inrcodec.models.wavelet import Level

MAX_HIDDEN = 1 << 12
"""Largest width of the network."""


@dataclass(frozen=True)
class EntropyModel:
    """Configuration of the network.

    groups: sizes of the groups of channels, coded one after the other ((1, 2): luma, then both chroma channels).
    levels: how often each axis is split.
    hidden: width of the network.
    kinds: kinds of parts that have networks of their own; see `LatentField.kinds`.
    divided: how many of the first phases of a level come in parts; see `Order`.
    """

    groups: tuple[int, ...]
    levels: tuple[int, ...]
    hidden: int = 32
    kinds: tuple[str, ...] = ()
    divided: int = 0

    @classmethod
    def of(cls, field: LatentField, hidden: int) -> Self:
        """Return the configuration for a field. Raises: ValueError if `hidden` is no width."""
        if type(hidden) is not int or not 0 < hidden <= MAX_HIDDEN:
            raise ValueError(f"an entropy model cannot have hidden = {hidden!r:.80}")
        return cls(field.groups, field.levels, hidden, field.kinds, field.order.divided)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight tensor."""
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
                shapes[f"{name}.input"] = (self.hidden, self._inputs(level, phase, group), *taps)
                shapes[f"{name}.hidden"] = (self.hidden, self.hidden)
                shapes[f"{name}.head"] = (outputs, self.hidden)
                shapes[f"{name}.input_bias"] = (order.depth + 2, self.hidden)
                shapes[f"{name}.hidden_bias"] = (1, self.hidden)
                shapes[f"{name}.head_bias"] = (order.depth + 2, outputs)
                for part in range(1, order.parts(level, phase)):
                    shapes[f"{name}.part{part}"] = (self.hidden, self.groups[group] * order.bands(level), *taps)
                    shapes[f"{name}.part{part}_bias"] = (order.depth + 2, self.hidden)
        return shapes

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Draw random weights for which every symbol is probably zero, and all parts of a phase are alike."""
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
    def of_one_kind(self) -> "EntropyModel":
        """The configuration of the networks of one kind."""
        return replace(self, kinds=())

    @property
    def order(self) -> Order:
        """The order in which latents are decoded."""
        return Order(self.groups, self.levels, self.divided)

    def passes(
        self, weights: Parameters, magnitudes: Sequence[Tensor], levels: Sequence[Level], condition: Tensor
    ) -> Iterator[tuple[Place, Tensor, Tensor]]:
        """Yield the passes in coding order, with the distributions of their symbols.

        weights: float32, or float64 holding integers for the exact arithmetic of coding (then on the CPU).
        magnitudes: of the symbols of every level, [B, C * bands, *half] float, finest first; those of a pass must be
            there when the next one is asked for.
        condition: [B] log2 of the quantization step relative to 1/8; integers in units of 2^-8 if exact.
        Yields (place, flags, scales): log odds of a non-zero, and log2 of the magnitude's scale, [B, n, *grid]; if
        exact, integers in units of 1 / ROWS_PER_UNIT.
        """
        exact = next(iter(weights.values())).dtype == torch.float64
        layers: Layers = ExactLayers() if exact else FloatLayers()
        parent = grandparent = None
        for level, shapes in reversed(list(enumerate(levels))):
            here = magnitudes[level]
            coarser = self._coarser(level, parent, grandparent, here, self.order.grid(level, shapes.half))
            earlier: list[list[Tensor]] = []
            for place in self.order.passes(level, shapes.half):
                if place.part == 0:
                    if place.group == 0:
                        earlier.append([])
                    own = self.order.channels(level, place.group)
                    before = [*(phase[place.group] for phase in earlier[:-1]), *earlier[-1]]
                    inputs = torch.cat([*before, *(part[:, own] for part in coarser)], 1)
                of_phase = earlier[-1].pop() if place.part else None
                outputs = self._network(layers, weights, place, inputs, of_phase, condition)
                flags, scales = cropped(outputs, place.shape).chunk(2, 1)
                yield place, flags, scales
                earlier[-1].append(filled(of_phase, place, _logarithm(here[place.index], exact)))
            grandparent, parent = parent, _logarithm(here, exact)

    def _coarser(
        self, level: int, parent: Tensor | None, grandparent: Tensor | None, here: Tensor, grid: tuple[int, ...]
    ) -> list[Tensor]:
        """Return the two next coarser levels at a phase's grid, each with this level's channels."""
        missing = here.new_zeros(*here.shape[:2], *grid)
        parts = []
        for distance, found in ((1, parent), (2, grandparent)):
            if found is None or found.shape[1] != here.shape[1]:
                parts.append(missing)
                continue
            for axis in self.order.interleaved(level + 1) if distance == 2 else ():
                found = found.repeat_interleave(2, axis + 2)
            parts.append(cropped(found, grid))
        return parts

    def _network(
        self, layers: Layers, weights: Parameters, place: Place, inputs: Tensor, own: Tensor | None, condition: Tensor
    ) -> Tensor:
        """Apply the network at the points of a pass.

        inputs: on the phase's grid. own: the phase's symbols, of the parts before.
        """
        level = place.level
        name = self.order.name(level, place.phase, place.group)
        weight = weights[f"{name}.input"]
        bias = layers.conditioned(weights[f"{name}.input_bias"], level, condition)
        if own is not None:
            inputs = torch.cat([inputs, own], 1)
            weight = torch.cat([weight, weights[f"{name}.part{place.part}"]], 1)
            bias = bias + layers.conditioned(weights[f"{name}.part{place.part}_bias"], level, condition)
        hidden_bias = layers.conditioned(weights[f"{name}.hidden_bias"], 0, None)
        head_bias = layers.conditioned(weights[f"{name}.head_bias"], level, condition)

        def rest(sums: Tensor) -> Tensor:
            hidden = layers.activation(sums)
            hidden = hidden + layers.activation(layers.pointwise(hidden, weights[f"{name}.hidden"], hidden_bias))
            return layers.outputs(layers.pointwise(hidden, weights[f"{name}.head"], head_bias))

        return layers.neighbourhood(inputs, weight, bias, place.within, rest)

    def _inputs(self, level: int, phase: int, group: int) -> int:
        """Count the inputs: own group of earlier phases and of two coarser levels, other groups at the same place."""
        return self.order.bands(level) * (self.groups[group] * (phase + 2) + sum(self.groups[:group]))


def _logarithm(magnitudes: Tensor, exact: bool) -> Tensor:
    """Return a pseudo-logarithm of 1 + |q| to the base 2, which is linear between powers of two."""
    mantissa, exponent = torch.frexp(magnitudes + 1)
    logarithm = exponent + (2 * mantissa - 2)
    if exact:
        return torch.floor(logarithm * ACTIVATION_UNIT).clamp(max=LARGEST_ACTIVATION)
    return logarithm
