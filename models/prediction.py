"""Predictions of the details of a pyramid from all that is decoded before them.

A wavelet leaves dependence between a level's means and its details, and between neighbouring details: an edge that is
seen in the means goes on in the details. Small shared networks turn the means, their 3^d neighbourhood at every phase,
and the details of earlier passes into predictions; only the difference from them is coded. They are ordinary floating
point: the entropy model sees symbols alone, so that machines that round differently still decode the same symbols.

Where there are references, decoded signals much like this one (the pictures before and after one of a video), the
networks see how far the references' means are from this signal's, and say how much of their details to take.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.convolution import convolution, convolution_within, pointwise
from inrcodec.models.field import Parameters
from inrcodec.models.latent import Choose, Grid, condition_of, quantization_step
from inrcodec.models.order import Order, Place, assemble, cropped, filled, padded
from inrcodec.models.wavelet import Level, join, levels_of

_GAIN = 8.0
"""Brings means and details of values in [0, 1] to about unit size."""


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
        for level in range(order.depth):
            for phase, group in itertools.product(range(order.phases(level)), range(len(order.groups))):
                bands, size = order.bands(level), order.groups[group]
                inputs = size * (order.phases(level) + bands * phase) + bands * sum(order.groups[:group])
                name = _name(order, level, phase, group)
                shapes[f"{name}.input.weight"] = (width, inputs, *taps)
                shapes[f"{name}.input.bias"] = (order.depth + 2, width)
                shapes[f"{name}.hidden.weight"] = (width, width, *taps)
                shapes[f"{name}.hidden.bias"] = (width,)
                shapes[f"{name}.head.weight"] = (bands * size, width)
                for part in range(1, order.parts(level, phase)):
                    shapes[f"{name}.part{part}.weight"] = (width, bands * size, *taps)
                    shapes[f"{name}.part{part}.bias"] = (order.depth + 2, width)
                if self.references:
                    inputs = self.references * size * order.phases(level) * (1 + bands)
                    shapes[f"{name}.reference.weight"] = (width, inputs, *taps)
                    shapes[f"{name}.share.weight"] = (self.references * bands * size, width)
                    shapes[f"{name}.share.bias"] = (order.depth, self.references * bands * size)
        return shapes

    def latents(
        self,
        parameters: Parameters,
        means: Tensor,
        grid: Grid,
        step_index: Tensor,
        choose: Choose,
        references: Sequence[Reference] = (),
    ) -> list[Tensor]:
        """Decode latents pass by pass; see `LatentTransform.latents`. references: as many as configured."""
        batch, channels = means.shape[:2]
        levels = levels_of(grid.shape, self.order.splits)
        scale, condition = quantization_step(step_index, len(grid.shape)), condition_of(step_index)
        details: list[Tensor] = []
        low = means
        for index, level in reversed(list(enumerate(levels))):
            # Orthonormal wavelets make means grow by sqrt(2) with every halving.
            unit = _GAIN / 2 ** (sum(len(each.axes) for each in levels[: index + 1]) / 2)
            gain = scale * unit
            around = self._phases(index, low * gain)
            shown = [self._shown(index, level, reference, around, unit) for reference in references]
            parts: list[tuple[Place, Tensor]] = []
            earlier: list[list[Tensor]] = []
            for place in self.order.passes(index, level.half):
                if place.part == 0:
                    if place.group == 0:
                        earlier.append([])
                    own = self.order.members(place.group)
                    bands = self.order.channels(index, place.group)
                    before = [*(phase[place.group] for phase in earlier[:-1]), *earlier[-1]]
                    inputs = torch.cat([*(phase[:, own] for phase in around), *before], 1)
                    shown_of_group = [each.of_group(own, bands) for each in shown]
                    features = self._features(parameters, place, inputs, condition, shown_of_group)
                of_phase = earlier[-1].pop() if place.part else None
                prediction = self._predict(parameters, place, features, of_phase, condition, shown_of_group) / gain
                prediction = cropped(prediction, place.shape)
                part = prediction + choose(place, prediction)
                parts.append((place, part))
                earlier[-1].append(filled(of_phase, place, part * gain))
            whole = assemble(parts, (batch, channels * level.bands, *level.half))
            details.append(whole)
            if index > 0:
                low = join(low, whole.unflatten(1, (channels, -1)), level, grid.periodic)
        return [*details[::-1], means]

    def _phases(self, level: int, means: Tensor) -> list[Tensor]:
        """Return the means of a level at each of its phases."""
        ends = [
            end
            for axis in reversed(range(means.dim() - 2))
            for end in (0, means.shape[axis + 2] % 2 if axis in self.order.interleaved(level) else 0)
        ]
        even = functional.pad(means, ends, mode="replicate")
        return [even[(slice(None), slice(None), *slices)] for slices in self.order.phase_slices(level)]

    def _shown(self, index: int, level: Level, reference: Reference, around: Sequence[Tensor], unit: float) -> "_Shown":
        """Return what a reference shows at the phases of a level."""
        details = reference.details[index] * unit
        means = self._phases(index, reference.means[index] * unit)
        grid = self.order.grid(index, level.half)
        return _Shown(
            means=[own - other for own, other in zip(around, means, strict=True)],
            details=[
                padded(details[(slice(None), slice(None), *slices)], grid) for slices in self.order.phase_slices(index)
            ],
        )

    def _features(
        self, parameters: Parameters, place: Place, inputs: Tensor, condition: Tensor, shown: Sequence["_Shown"]
    ) -> Tensor:
        """Compute the first layer, before its activation, on a phase's whole grid; its own details come later."""
        order = self.order
        name = _name(order, place.level, place.phase, place.group)
        weight = parameters[f"{name}.input.weight"]
        # Filters of the means sum to zero: what counts is how they change, not how bright they are.
        of_means = weight[:, : order.phases(place.level) * order.groups[place.group]]
        by_phase = of_means.unflatten(1, (order.phases(place.level), order.groups[place.group]))
        others = (1, *range(3, by_phase.dim()))
        centred = (by_phase - by_phase.mean(others, keepdim=True)).flatten(1, 2)
        weight = torch.cat([centred, weight[:, of_means.shape[1] :]], 1)
        bias = _conditioned(parameters[f"{name}.input.bias"], place.level, condition, inputs.dim())
        hidden = convolution(_edged(inputs), weight) + bias
        if shown:
            joined = torch.cat([grid for each in shown for grid in (*each.means, *each.details)], 1)
            hidden = hidden + convolution(_edged(joined), parameters[f"{name}.reference.weight"])
        return hidden

    def _predict(
        self,
        parameters: Parameters,
        place: Place,
        features: Tensor,
        own: Tensor | None,
        condition: Tensor,
        shown: Sequence["_Shown"],
    ) -> Tensor:
        """Predict the points of a pass. own: the phase's details, [B, channels, *grid], of the parts before."""
        name = _name(self.order, place.level, place.phase, place.group)
        if own is not None:
            part = f"{name}.part{place.part}"
            bias = _conditioned(parameters[f"{part}.bias"], place.level, condition, own.dim())
            features = features + convolution(own, parameters[f"{part}.weight"], padding=1) + bias
        hidden = functional.gelu(features)
        weight, bias = parameters[f"{name}.hidden.weight"], parameters[f"{name}.hidden.bias"]
        hidden = functional.gelu(convolution_within(_edged(hidden), weight, bias, place.within))
        prediction = pointwise(hidden, parameters[f"{name}.head.weight"])
        if shown:
            # Their mean, but for what the network says.
            bias = parameters[f"{name}.share.bias"][place.level] + 1 / len(shown)
            shares = pointwise(hidden, parameters[f"{name}.share.weight"], bias).chunk(len(shown), 1)
            for share, each in zip(shares, shown, strict=True):
                prediction = prediction + share * each.details[place.phase][(slice(None), slice(None), *place.within)]
        return prediction


def _name(order: Order, level: int, phase: int, group: int) -> str:
    return f"prediction.{order.name(level, phase, group)}"


def _conditioned(table: Tensor, level: int, condition: Tensor, dimensions: int) -> Tensor:
    """Return the bias of a level for quantization steps, as it broadcasts over [B, width, ...]."""
    bias = table[level] + condition[:, None] * table[-2] + condition[:, None].square() * table[-1]
    return bias.reshape(*bias.shape, *[1] * (dimensions - 2))


@dataclass(frozen=True, eq=False)
class _Shown:
    """What a reference shows at the phases of a level, [B, channels, *grid] each, in about unit size.

    means: how far this signal's are from them. details: the reference's.
    """

    means: list[Tensor]
    details: list[Tensor]

    def of_group(self, members: slice, channels: slice) -> "_Shown":
        return _Shown([part[:, members] for part in self.means], [part[:, channels] for part in self.details])


def _edged(values: Tensor) -> Tensor:
    return functional.pad(values, (1, 1) * (values.dim() - 2), mode="replicate")
