"""The entropy model of latents: a distribution for each symbol, given those decoded before it.

All symbols of a pass (`inrcodec.models.order`) are independent given what was decoded before. Of that, the model sees a
3^d neighbourhood: the earlier phases of the same level, the groups before at the same place, and the two next coarser
levels, all as pseudo-logarithms of magnitudes. A small network turns it into two numbers per symbol: the log odds
that it is not zero, and the log2 of the scale of its magnitude. It computes in exact integers
(`inrcodec.models.exact`), so that every machine has the same distributions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor

from inrcodec.models.exact import (
    ACTIVATION_UNIT,
    LARGEST_ACTIVATION,
    activation,
    applied,
    check_sums,
    conditioned_bias,
    convolution,
    convolution_within,
    in_layout,
    rounded_bias,
    rounded_weights,
)
from inrcodec.models.field import Parameters
from inrcodec.models.latent import Hints, LatentField, condition_of
from inrcodec.models.order import Order, Place, cropped, interleave, padded, points_within
from inrcodec.models.wavelet import Level

MAX_HIDDEN = 1 << 12
"""Largest width of the network."""

_HINT_UNIT = 4.0
"""Hints are told from zero even where they are much smaller than a quantization step."""


@dataclass(frozen=True)
class EntropyModel:
    """Configuration of the network.

    groups: sizes of the groups of channels, coded one after the other ((1, 2): luma, then both chroma channels).
    levels: how often each axis is split.
    hidden: width of the network.
    kinds: kinds of parts that have networks of their own; see `LatentField.kinds`.
    hinted: those of these kinds whose networks see hints; of one kind, whose name is "", whether they do.
    divided: how many of the first phases of a level come in parts; see `Order`.
    """

    groups: tuple[int, ...]
    levels: tuple[int, ...]
    hidden: int = 32
    kinds: tuple[str, ...] = ()
    divided: int = 0
    hinted: tuple[str, ...] = ()

    @classmethod
    def of(cls, field: LatentField, hidden: int) -> Self:
        """Return the configuration for a field. Raises: ValueError if `hidden` is no width."""
        if type(hidden) is not int or not 0 < hidden <= MAX_HIDDEN:
            raise ValueError(f"an entropy model cannot have hidden = {hidden!r:.80}")
        return cls(field.groups, field.levels, hidden, field.kinds, field.order.divided, field.hinted_kinds)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight tensor."""
        if self.kinds:
            return {
                f"{kind}.{name}": shape for kind in self.kinds for name, shape in self.of_kind(kind).shapes().items()
            }
        shapes: dict[str, tuple[int, ...]] = {}
        taps = (3,) * len(self.levels)
        order = self.order
        for name, level, phase, group in order.networks():
            bands, size = order.bands(level), self.groups[group]
            # Own group of earlier phases and of two coarser levels, other groups at the same place.
            inputs = bands * (size * (phase + 2) + sum(self.groups[:group]))
            shapes[f"{name}.input.weight"] = (self.hidden, inputs, *taps)
            shapes[f"{name}.input.bias"] = (order.depth + 2, self.hidden)
            shapes[f"{name}.hidden.weight"] = (self.hidden, self.hidden)
            shapes[f"{name}.hidden.bias"] = (self.hidden,)
            for head in ("flags", "scales"):
                shapes[f"{name}.{head}.weight"] = (size * bands, self.hidden)
                shapes[f"{name}.{head}.bias"] = (order.depth + 2, size * bands)
            if self.hinted:
                # Sizes and distances of the same phase, and whether there is one reference only.
                shapes[f"{name}.hints.weight"] = (self.hidden, 2 * size * bands + 1, *taps)
            for part in range(1, order.parts(level, phase, group)):
                shapes[f"{name}.part{part}.weight"] = (self.hidden, size * bands, *taps)
                shapes[f"{name}.part{part}.bias"] = (order.depth + 2, self.hidden)
        return shapes

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Draw random weights that prefer no symbol, and for which all parts of a phase are alike."""
        weights = {}
        for name, shape in self.shapes().items():
            if name.endswith("bias") or ".part" in name or ".hints" in name:
                weights[name] = torch.zeros(shape)
                continue
            gain = 0.1 if "flags" in name or "scales" in name else 1.0
            bound = gain / math.sqrt(math.prod(shape[1:]))
            weights[name] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        return weights

    def of_kind(self, kind: str) -> "EntropyModel":
        """Return the configuration of the networks of one kind."""
        return replace(self, kinds=(), hinted=("",) if kind in self.hinted else ())

    @property
    def order(self) -> Order:
        """The order in which latents are decoded."""
        return Order(self.groups, self.levels, self.divided)

    def ready(self, weights: Parameters, step_index: int) -> Parameters:
        """Return weights of one kind as `passes` takes them, rounded and for one quantization step.

        Differentiable, straight through. Raises: ValueError for weights with which sums need not be exact.
        """
        condition = condition_of(step_index)
        ready = {}
        for name, value in weights.items():
            if not name.endswith("bias"):
                ready[name] = rounded_weights(value)
            elif name.endswith("hidden.bias"):
                ready[name] = rounded_bias(value)
            else:
                ready[name] = conditioned_bias(value, condition)
        for name, level, phase, group in self.order.networks():
            weight, bias = self._input_weight(ready, name), ready[f"{name}.input.bias"]
            check_sums(f"{name}.input", weight, bias)
            for part in range(1, self.order.parts(level, phase, group)):
                with_own = torch.cat([weight, ready[f"{name}.part{part}.weight"]], 1)
                check_sums(f"{name}.part{part}", with_own, bias.abs() + ready[f"{name}.part{part}.bias"].abs())
            for layer in ("hidden", "flags", "scales"):
                largest = LARGEST_ACTIVATION * (1 if layer == "hidden" else 2)
                check_sums(f"{name}.{layer}", ready[f"{name}.{layer}.weight"], ready[f"{name}.{layer}.bias"], largest)
        return ready

    def passes(
        self,
        ready: Parameters,
        levels: Sequence[Level],
        order: Order,
        magnitudes: Callable[[], Tensor],
        like: Tensor,
        hints: Hints | None = None,
    ) -> Iterator[tuple[Place, Tensor, Tensor]]:
        """Yield the passes in coding order, with the distributions of their symbols.

        ready: of `ready`. order: that of the signal's field, which can have levels without some groups.
        magnitudes: called after every pass for those of its symbols, [B, channels, *shape] float.
        like: [B, ...], for the number of signals, the type and the device.
        hints: of the references, for networks that see them.
        Yields (place, flags, scales): log odds of a non-zero, and log2 of the magnitude's scale, [B, channels, *shape],
            both in units of 1 / ACTIVATION_UNIT.
        """
        parents: list[Tensor | None] = [None] * len(self.groups)
        grandparents = parents
        for index, level in reversed(list(enumerate(levels))):
            grid = order.grid(index, level.half)
            coarser = [
                self._coarser(index, group, grid, parents[group], grandparents[group], like)
                for group in range(len(self.groups))
            ]
            seen: list[list[Tensor]] = [[] for _ in self.groups]
            for phase in range(order.phases(index)):
                for group in order.coded_groups(index):
                    before = [*seen[group], *(each[phase] for each in seen[:group]), *coarser[group]]
                    if self.hinted and hints is not None:
                        before += self._hints(hints, order, index, phase, group, grid)
                    inputs = in_layout(torch.cat(before, 1))
                    places = order.pass_places(index, phase, group, level.half)
                    within = [place.within for place in places]
                    parts: list[Tensor | None] = [None] * len(places)
                    for place in places:
                        own = interleave(parts, within, grid) if place.part else None
                        flags, scales = self._network(ready, place, inputs, own)
                        yield place, cropped(flags, place.shape), cropped(scales, place.shape)
                        parts[place.part] = padded(_logarithm(magnitudes()), points_within(grid, place.within))
                    seen[group].append(interleave(parts, within, grid) if len(parts) > 1 else cast(Tensor, parts[0]))
            grandparents = parents
            parents = [order.together(each, index, level.half) if each else None for each in seen]

    def _coarser(
        self,
        level: int,
        group: int,
        grid: tuple[int, ...],
        parent: Tensor | None,
        grandparent: Tensor | None,
        like: Tensor,
    ) -> list[Tensor]:
        """Return a group of the two next coarser levels at a phase's grid, each with this level's channels."""
        channels = self.groups[group] * self.order.bands(level)
        parts = []
        for distance, found in ((1, parent), (2, grandparent)):
            if found is None or found.shape[1] != channels:
                parts.append(like.new_zeros(len(like), channels, *grid))
                continue
            for axis in self.order.interleaved(level + 1) if distance == 2 else ():
                found = found.repeat_interleave(2, axis + 2)
            parts.append(cropped(found, grid))
        return parts

    def _hints(
        self, hints: Hints, order: Order, level: int, phase: int, group: int, grid: tuple[int, ...]
    ) -> list[Tensor]:
        """Return what networks see of hints at the points of a phase."""
        bands, members = order.bands(level), order.members(group)
        channels = slice(bands * members.start, bands * members.stop)
        within = (slice(None), channels, *order.phase_slices(level)[phase])
        shown = [padded(_logarithm(each[level][within] * _HINT_UNIT), grid) for each in (hints.sizes, hints.distances)]
        return [*shown, shown[0].new_full((len(shown[0]), 1, *grid), ACTIVATION_UNIT * hints.single)]

    def _input_weight(self, ready: Parameters, name: str) -> Tensor:
        """Return the weights of the first layer, hints last."""
        weight = ready[f"{name}.input.weight"]
        return torch.cat([weight, ready[f"{name}.hints.weight"]], 1) if self.hinted else weight

    def _network(self, ready: Parameters, place: Place, inputs: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Apply the network at the points of a pass.

        inputs: on the phase's grid. own: the phase's symbols, of the parts before.
        """
        name = self.order.name(place.level, place.phase, place.group)
        weight, bias = self._input_weight(ready, name), ready[f"{name}.input.bias"][place.level]
        if own is not None:
            part = f"{name}.part{place.part}"
            inputs = torch.cat([inputs, own], 1)
            weight = torch.cat([weight, ready[f"{part}.weight"]], 1)
            bias = bias + ready[f"{part}.bias"][place.level]
        hidden = activation(convolution_within(inputs, in_layout(weight), bias, place.within))
        hidden = hidden + activation(convolution(hidden, ready[f"{name}.hidden.weight"], ready[f"{name}.hidden.bias"]))
        flags, scales = (
            convolution(hidden, ready[f"{name}.{head}.weight"], ready[f"{name}.{head}.bias"][place.level])
            for head in ("flags", "scales")
        )
        return flags, scales


class _Logarithm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, magnitudes: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(magnitudes + 1)
        ctx.save_for_backward(exponent)
        logarithm = mantissa.mul_(2 * ACTIVATION_UNIT).add_((exponent - 2) * ACTIVATION_UNIT)
        return logarithm.floor_().clamp_(max=LARGEST_ACTIVATION)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (exponent,) = ctx.saved_tensors
        return gradients[0] * torch.exp2(1.0 - exponent) * ACTIVATION_UNIT


def _logarithm(magnitudes: Tensor) -> Tensor:
    """Return a pseudo-logarithm of 1 + |q| to the base 2, which is linear between powers of two, as an activation."""
    return applied(_Logarithm, magnitudes)
