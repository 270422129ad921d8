"""Predictions of the details of a pyramid from all that is decoded before them.

A wavelet leaves dependence between a level's means and its details, and between neighbouring details: an edge that is
seen in the means goes on in the details. Small shared networks turn the means, their 3^d neighbourhood at every phase,
and the details of earlier passes into predictions; only the difference from them is coded. They compute in exact
integers (`inrcodec.models.exact`), so that every machine decodes the same signal.

Where steps are fine, what is left of a smooth signal is small beside the signal: then the networks see it magnified.

Where there are references, decoded signals much like this one (the pictures before and after one of a video), the
networks see how far the references' means are from this signal's, and say how much of their details to take.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.exact import (
    ACTIVATION_UNIT,
    INPUT_UNIT,
    LARGEST_INPUT,
    activation,
    centred_weights,
    check_input_sums,
    check_sums,
    conditioned_bias,
    convolution,
    convolution_within,
    in_layout,
    rounded_bias,
    rounded_down,
    rounded_weights,
)
from inrcodec.models.field import Parameters
from inrcodec.models.latent import Choose, Grid, condition_of, of_kind, quantization_step
from inrcodec.models.order import Order, Place, cropped, interleave, padded, phase_corners, points_within
from inrcodec.models.wavelet import Level, join, levels_of, whole

_GAIN = 8.0
"""Brings means and details of values in [0, 1] to about unit size."""

_FINE = -56
"""Step index below which networks see a signal magnified, in proportion to the step."""

_DIGIT = 1 << 10
"""Magnified means have two digits to this base."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The wavelet transform of a reference: lists of every level, finest first.

    details: [B, C * bands, *half]. means: [B, C, *half], those beside the details.
    """

    details: Sequence[Tensor]
    means: Sequence[Tensor]


@dataclass(frozen=True)
class PredictionNetworks:
    """Configuration of the networks, one for each kind of pass.

    width: of their hidden layers. references: how many references they see.
    """

    order: Order
    width: int
    references: int = 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the shared parameters."""
        order, width = self.order, self.width
        taps = (3,) * len(order.splits)
        shapes: dict[str, tuple[int, ...]] = {}
        for network, level, phase, group in order.networks():
            bands, size, phases = order.bands(level), order.groups[group], order.phases(level)
            name = f"prediction.{network}"
            shapes[f"{name}.means.weight"] = (width, size * phases, *taps)
            shapes[f"{name}.means.bias"] = (order.depth + 2, width)
            if details := bands * (size * phase + sum(order.groups[:group])):
                shapes[f"{name}.details.weight"] = (width, details, *taps)
            shapes[f"{name}.hidden.weight"] = (width, width, *taps)
            shapes[f"{name}.hidden.bias"] = (width,)
            shapes[f"{name}.head.weight"] = (bands * size, width)
            for part in range(1, order.parts(level, phase, group)):
                shapes[f"{name}.part{part}.weight"] = (width, bands * size, *taps)
                shapes[f"{name}.part{part}.bias"] = (order.depth + 2, width)
            if self.references:
                shapes[f"{name}.reference.weight"] = (width, self.references * size * phases * (1 + bands), *taps)
                shapes[f"{name}.share.weight"] = (self.references * bands * size, width)
                shapes[f"{name}.share.bias"] = (order.depth, self.references * bands * size)
        return shapes

    def ready(self, parameters: Parameters, step_index: int) -> Parameters:
        """Return the parameters as `Predictor` takes them; see `LatentTransform.ready`."""
        condition = condition_of(max(step_index, _FINE))
        # Inputs are integers in another unit than activations.
        scale = ACTIVATION_UNIT / INPUT_UNIT
        result: Parameters = {}
        for network, level, phase, group in self.order.networks():
            name = f"prediction.{network}"
            own = of_kind(parameters, name)
            made = {
                "means.weight": centred_weights(own["means.weight"], self.order.groups[group]) * scale,
                "means.bias": conditioned_bias(own["means.bias"], condition),
                "hidden.weight": rounded_weights(own["hidden.weight"]),
                "hidden.bias": rounded_bias(own["hidden.bias"]),
                "head.weight": rounded_weights(own["head.weight"]),
            }
            for part in range(1, self.order.parts(level, phase, group)):
                made[f"part{part}.weight"] = rounded_weights(own[f"part{part}.weight"]) * scale
                made[f"part{part}.bias"] = conditioned_bias(own[f"part{part}.bias"], condition)
            for key in ("details.weight", "reference.weight"):
                if key in own:
                    made[key] = rounded_weights(own[key]) * scale
            if self.references:
                made["share.weight"] = rounded_weights(own["share.weight"])
                made["share.bias"] = rounded_bias(own["share.bias"])
            result |= {f"{name}.{key}": value for key, value in made.items()}
        return result

    def check(self, ready: Parameters) -> None:
        """Check that sums of products are exact. Raises: ValueError if they need not be."""
        for network, level, phase, group in self.order.networks():
            name = f"prediction.{network}"
            seen = [ready[f"{name}.means.weight"]]
            if f"{name}.details.weight" in ready:
                seen.append(ready[f"{name}.details.weight"])
            check_input_sums(name, torch.cat(seen, 1), ready[f"{name}.means.bias"])
            for part in range(1, self.order.parts(level, phase, group)):
                own = f"{name}.part{part}"
                check_input_sums(own, ready[f"{own}.weight"], ready[f"{own}.bias"])
            if self.references:
                check_input_sums(f"{name}.reference", ready[f"{name}.reference.weight"])
            for layer in ("hidden", "head", *(("share",) if self.references else ())):
                check_sums(f"{name}.{layer}", ready[f"{name}.{layer}.weight"], ready.get(f"{name}.{layer}.bias"))

    def decode(
        self,
        ready: Parameters,
        means: Tensor,
        grid: Grid,
        step_index: int,
        choose: Choose,
        references: Sequence[Reference] = (),
    ) -> Tensor:
        """Decode the wavelet's details and invert it; see `LatentTransform.decode`.

        references: as many as configured. Returns [B, C, *grid.shape], in quantization steps.
        """
        order = self.order
        levels = levels_of(grid.shape, order.splits)
        low = [means[:, order.members(group)] for group in range(len(order.groups))]
        phases = [_split(each, order, len(levels) - 1) for each in low]
        for index, level in reversed(list(enumerate(levels))):
            predictor = _Predictor(self, ready, index, level, step_index, phases, references)
            details = predictor.details(choose)
            parts = [join(each, found, level, grid.periodic) for each, found in zip(low, details, strict=True)]
            low = [whole(each, level) for each in parts]
            phases = [[each[corner] for corner in phase_corners(len(level.axes))] for each in parts]
        return torch.cat(low, 1)


class _Predictor:
    """The predictions of one level."""

    def __init__(
        self,
        networks: PredictionNetworks,
        ready: Parameters,
        index: int,
        level: Level,
        step_index: int,
        means: Sequence[Sequence[Tensor]],
        references: Sequence[Reference],
    ) -> None:
        """Begin with the means of every group at every phase, [B, size, *grid] each, in quantization steps."""
        order = networks.order
        self.order, self.ready, self.index, self.level = order, ready, index, level
        # Orthonormal wavelets make means grow by sqrt(2) with every halving.
        halvings = sum(coarser < splits for splits in order.splits for coarser in range(index + 1))
        unit = _GAIN / 2.0 ** (halvings // 2) / (math.sqrt(2) if halvings % 2 else 1.0)
        magnified = 1 << max(0, -((step_index - _FINE) // 8))
        self.gain = quantization_step(step_index) * unit * magnified
        self.grid = order.grid(index, level.half)
        self.fine = magnified > 1
        self.means = [self._means(each) for each in means]
        unit *= magnified
        self.shown = [_Shown.of(reference, order, index, self.grid, means, unit, self.gain) for reference in references]

    def details(self, choose: Choose) -> list[Tensor | None]:
        """Decode the details of every group, [B, size * bands, *half], in steps; None where all are zero."""
        order, index = self.order, self.index
        groups = order.coded_groups(index)
        decoded: list[list[Tensor]] = [[] for _ in groups]
        seen: list[list[Tensor]] = [[] for _ in groups]
        for phase in range(order.phases(index)):
            for group in groups:
                before = [*seen[group], *(each[phase] for each in seen[:group])]
                found = self._phase(phase, group, before, choose)
                decoded[group].append(found)
                seen[group].append(functional.pad(self._rounded(found), (1, 1) * len(self.grid)))
        details = [order.together(each, index, self.level.half) for each in decoded]
        return [*details, *[None] * (len(order.groups) - len(details))]

    def _phase(self, phase: int, group: int, before: Sequence[Tensor], choose: Choose) -> Tensor:
        """Decode one phase of a group: [B, size * bands, *grid]. before: earlier details, as networks see them."""
        places = self.order.pass_places(self.index, phase, group, self.level.half)
        features = self._features(phase, group, before)
        if len(places) == 1:
            prediction = cropped(self._predict(places[0], features), places[0].shape)
            return padded(prediction + choose(places[0], prediction), self.grid)
        slices = [place.within for place in places]
        parts: list[Tensor | None] = [None] * len(places)
        for place in places:
            own = None if place.part == 0 else self._rounded(interleave(parts, slices, self.grid))
            prediction = cropped(self._predict(place, self._with_own(place, features, own)), place.shape)
            parts[place.part] = padded(prediction + choose(place, prediction), points_within(self.grid, place.within))
        return interleave(parts, slices, self.grid)

    def _means(self, phases: Sequence[Tensor]) -> list[Tensor]:
        """Return what networks see of a group's means: their digits, highest last, with a margin of one."""
        largest = LARGEST_INPUT * _DIGIT if self.fine else LARGEST_INPUT
        joined = torch.cat([padded(phase, self.grid) for phase in phases], 1)
        inputs = rounded_down(joined, self.gain * INPUT_UNIT, largest)
        inputs = functional.pad(inputs, (1, 1) * len(self.grid), mode="replicate")
        if not self.fine:
            return [inputs]
        high = rounded_down(inputs, 1 / _DIGIT)
        return [inputs - high * _DIGIT, high]

    def _rounded(self, details: Tensor) -> Tensor:
        return rounded_down(details, self.gain * INPUT_UNIT, LARGEST_INPUT)

    def _features(self, phase: int, group: int, before: Sequence[Tensor]) -> Tensor:
        """Compute the sums of the first layer on a phase's whole grid; its own details come later."""
        name = self._name(phase, group)
        weight, bias = self.ready[f"{name}.means.weight"], self.ready[f"{name}.means.bias"][self.index]
        low, *high = self.means[group]
        of_means = weight
        if before:
            low = torch.cat([low, *before], 1)
            weight = torch.cat([weight, self.ready[f"{name}.details.weight"]], 1)
        sums = convolution(in_layout(low), in_layout(weight), bias)
        for digit in high:
            sums = sums + convolution(in_layout(digit), in_layout(of_means)) * _DIGIT
        if self.shown:
            joined = torch.cat([grid for each in self.shown for grid in each.inputs(group)], 1)
            sums = sums + convolution(in_layout(joined), in_layout(self.ready[f"{name}.reference.weight"]))
        return sums

    def _with_own(self, place: Place, features: Tensor, own: Tensor | None) -> Tensor:
        """Add to the first layer what is known of the phase itself, [B, channels, *grid], zero elsewhere."""
        if own is None:
            return features
        part = f"{self._name(place.phase, place.group)}.part{place.part}"
        weight, bias = self.ready[f"{part}.weight"], self.ready[f"{part}.bias"][self.index]
        return features + convolution(own, in_layout(weight), bias, padding=1)

    def _predict(self, place: Place, features: Tensor) -> Tensor:
        """Predict the points of a pass, in quantization steps."""
        name = self._name(place.phase, place.group)
        weight, bias = self.ready[f"{name}.hidden.weight"], self.ready[f"{name}.hidden.bias"]
        hidden = activation(convolution_within(activation(features), weight, bias, place.within))
        prediction = convolution(hidden, self.ready[f"{name}.head.weight"]) * (1 / (ACTIVATION_UNIT * self.gain))
        if self.shown:
            weight, bias = self.ready[f"{name}.share.weight"], self.ready[f"{name}.share.bias"][self.index]
            shares = convolution(hidden, weight, bias) * (1 / ACTIVATION_UNIT)
            for share, each in zip(shares.chunk(len(self.shown), 1), self.shown, strict=True):
                # Their mean, but for what the network says.
                known = each.details[place.group][place.phase][(slice(None), slice(None), *place.within)]
                prediction = prediction + (share + 1 / len(self.shown)) * known
        return prediction

    def _name(self, phase: int, group: int) -> str:
        return f"prediction.{self.order.name(self.index, phase, group)}"


def _split(means: Tensor, order: Order, level: int) -> list[Tensor]:
    """Return the means of a level at each of its phases; an odd axis is continued by its last sample."""
    axes = order.interleaved(level)
    ends = [
        end
        for axis in reversed(range(means.dim() - 2))
        for end in (0, means.shape[axis + 2] % 2 if axis in axes else 0)
    ]
    even = functional.pad(means, ends, mode="replicate") if any(ends) else means
    return [even[(slice(None), slice(None), *slices)] for slices in order.phase_slices(level)]


@dataclass(frozen=True, eq=False)
class _Shown:
    """What a reference shows at the phases of a level, for every group.

    means: how far this signal's are from them, [B, size * phases, *grid], as networks see them, with a margin of one.
    seen: the reference's details, [B, size * bands * phases, *grid], the same way.
    details: the same per phase, [B, size * bands, *grid], in quantization steps.
    """

    means: list[Tensor]
    seen: list[Tensor]
    details: list[list[Tensor]] = dataclass_field(default_factory=list)

    @classmethod
    def of(
        cls,
        reference: Reference,
        order: Order,
        level: int,
        grid: tuple[int, ...],
        means: Sequence[Sequence[Tensor]],
        unit: float,
        gain: float,
    ) -> "_Shown":
        """unit: what values are multiplied with for the networks. gain: the same for quantization steps."""
        shown = cls([], [], [])
        border = (1, 1) * len(grid)
        step = unit / gain
        for group, own in enumerate(means):
            members, bands = order.members(group), order.bands(level)
            theirs = _split(reference.means[level][:, members] * step, order, level)
            away = torch.cat(
                [padded(mine, grid) - padded(other, grid) for mine, other in zip(own, theirs, strict=True)], 1
            )
            away = rounded_down(away, gain * INPUT_UNIT, LARGEST_INPUT)
            shown.means.append(functional.pad(away, border, mode="replicate"))
            channels = slice(bands * members.start, bands * members.stop)
            whole_level = reference.details[level][:, channels] * step
            phases = [
                padded(whole_level[(slice(None), slice(None), *slices)], grid) for slices in order.phase_slices(level)
            ]
            shown.details.append(phases)
            seen = rounded_down(torch.cat(phases, 1), gain * INPUT_UNIT, LARGEST_INPUT)
            shown.seen.append(functional.pad(seen, border))
        return shown

    def inputs(self, group: int) -> tuple[Tensor, Tensor]:
        return self.means[group], self.seen[group]
