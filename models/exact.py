"""Arithmetic that gives the same numbers on every machine: small integers, carried by float32.

Weights are multiples of 1 / WEIGHT_UNIT, activations integers. A sum of products in which every partial sum stays
below 2^24 units is exact, whatever the order of summation, the instruction set or the device; `check_sums` proves that
bound when an initialization is made or loaded. Everything else on the way is done element by element, one IEEE-754
operation at a time, which no machine may round differently. So encoder and decoder compute one and the same signal.

In training the same integers are computed; gradients pass the rounding straight through.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

WEIGHT_UNIT = 1 << 7
ACTIVATION_UNIT = 1 << 7
LARGEST_ACTIVATION = (1 << 11) - 1
"""Activations are integers from 0 to this, in units of 1 / ACTIVATION_UNIT."""

INPUT_UNIT = 1 << 8
LARGEST_INPUT = 5 * INPUT_UNIT
"""Inputs of prediction networks are integers of at most this magnitude, in units of 1 / INPUT_UNIT."""

FINE_UNIT, LARGEST_FINE = 1 << 24, 1 << 44
"""Weights that are centred are first rounded to multiples of 1 / FINE_UNIT, of at most LARGEST_FINE of these units."""

LARGEST_SUM = 1 << 24
"""Sums of products are smaller, in units of 1 / WEIGHT_UNIT of an activation."""

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def applied(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Apply a function that has its own gradient."""
    return cast(Tensor, function.apply(*arguments))


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        out = _activated(sums)
        ctx.save_for_backward((out > 0) & (out < LARGEST_ACTIVATION))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (passes,) = ctx.saved_tensors
        return gradients[0] * passes


def activation(sums: Tensor) -> Tensor:
    """Apply the rectifier: round sums [B, n, *grid] down, and clip to 0 .. LARGEST_ACTIVATION."""
    return applied(_Activation, sums) if sums.requires_grad else _activated(sums)


def _activated(sums: Tensor) -> Tensor:
    return sums.floor().clamp_(0, LARGEST_ACTIVATION)


class _Rounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: float, largest: int) -> Tensor:
        rounded = (values * scale).floor_()
        if largest:
            rounded.clamp_(-largest, largest)
            ctx.save_for_backward(rounded.abs() < largest)
        ctx.scale = scale
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0] * ctx.scale
        return gradient * ctx.saved_tensors[0] if ctx.saved_tensors else gradient, None, None


def rounded_down(values: Tensor, scale: float, largest: int = 0) -> Tensor:
    """Return floor(values * scale), clipped to +-largest where that is given."""
    if not values.requires_grad:
        rounded = (values * scale).floor_()
        return rounded.clamp_(-largest, largest) if largest else rounded
    return applied(_Rounding, values, scale, largest)


def straight_through(exact: Tensor, values: Tensor) -> Tensor:
    """Return `exact` with the gradient of `values`."""
    return values + (exact - values).detach() if values.requires_grad else exact


def rounded_weights(weight: Tensor) -> Tensor:
    """Round weights to multiples of 1 / WEIGHT_UNIT, in the layout of convolutions."""
    return in_layout(straight_through(torch.round(weight.detach() * WEIGHT_UNIT) / WEIGHT_UNIT, weight))


def centred_weights(weight: Tensor, groups: int) -> Tensor:
    """Round weights as `rounded_weights` does, so that they sum to zero over all inputs of a channel, and its taps.

    weight: [out, n * groups, *taps]; the inputs of a channel are `groups` apart. What counts is how a channel changes
    from place to place, not how high it is.
    """
    apart = weight.unflatten(1, (-1, groups)).transpose(1, 2)
    flat = apart.flatten(2)
    with torch.no_grad():
        # Of integers, as a mean in floating point depends on the order of summation.
        fine = torch.round(flat.double() * FINE_UNIT).clamp(-LARGEST_FINE, LARGEST_FINE).long()
        unit = flat.shape[2] * (FINE_UNIT // WEIGHT_UNIT)
        distances = flat.shape[2] * fine - fine.sum(2, keepdim=True)
        rounded = distances.div(unit, rounding_mode="floor")
        # One unit more for those that lost most, as many as it takes.
        ranks = distances.remainder(unit).argsort(dim=2, descending=True, stable=True).argsort(2)
        rounded += ranks < -rounded.sum(2, keepdim=True)
        units = rounded.to(flat) / WEIGHT_UNIT
    exact = straight_through(units, flat - flat.mean(2, keepdim=True))
    return in_layout(exact.unflatten(2, apart.shape[2:]).transpose(1, 2).flatten(1, 2))


def rounded_bias(bias: Tensor) -> Tensor:
    """Return a bias in units of activations, rounded to those of sums."""
    exact = torch.round(bias.detach() * (ACTIVATION_UNIT * WEIGHT_UNIT)) / WEIGHT_UNIT
    return straight_through(exact, bias * ACTIVATION_UNIT)


def conditioned_bias(table: Tensor, condition: float) -> Tensor:
    """Return the bias of every level as `rounded_bias` does: [levels, n].

    table: [levels + 2, n], and the coefficients of the condition and of its square.
    condition: a multiple of 1/8, as `inrcodec.models.latent.condition_of` gives it.
    """
    eighths = round(condition * 8)
    units = torch.round(table.detach().double() * (ACTIVATION_UNIT * WEIGHT_UNIT))
    # Integers below 2^53, so nothing is rounded but by floor.
    sums = torch.floor((units[:-2] * 64 + units[-2] * (8 * eighths) + units[-1] * eighths**2) / 64)
    exact = (sums / WEIGHT_UNIT).float()
    if not table.requires_grad:
        return exact
    return straight_through(exact, (table[:-2] + table[-2] * condition + table[-1] * condition**2) * ACTIVATION_UNIT)


def convolution(
    values: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int | tuple[int, ...] = 0, stride: int = 1
) -> Tensor:
    """Convolve integers [B, in, *grid], padded with zeros, with weights [out, in, *taps]: [B, out, *grid].

    A weight [out, in] is a linear map at every point.
    """
    dimensions = values.dim() - 2
    if weight.dim() == 2:
        weight = weight.reshape(*weight.shape, *[1] * dimensions)
    paddings = (padding,) * dimensions if isinstance(padding, int) else padding
    sizes = zip(values.shape[2:], weight.shape[2:], paddings, strict=True)
    shape = [(size + 2 * around - taps) // stride + 1 for size, taps, around in sizes]
    if 0 in shape:  # a part without points, which libraries refuse
        return values.new_zeros(len(values), len(weight), *shape)
    # Of one channel alone torch makes a Winograd transform on ARM, which nothing turns off.
    if values.device.type != "cpu" or weight.shape[1] == 1:
        return _by_products(values, weight, bias, paddings, stride)
    with torch.backends.nnpack.flags(enabled=False):  # its Winograd transform is not exact
        return _CONVOLUTIONS[dimensions](values, weight, bias, padding=paddings, stride=stride)


def convolution_within(values: Tensor, weight: Tensor, bias: Tensor, within: Sequence[slice]) -> Tensor:
    """Convolve values, padded with zeros, at some points of their grid: slices with a start and a step."""
    offsets = [along.start for along in within]
    step = within[0].step
    if any(along.step != step for along in within):
        return in_layout(convolution(values, weight, bias, padding=1)[(slice(None), slice(None), *within)])
    if any(offsets):
        values = in_layout(functional.pad(values, [end for offset in reversed(offsets) for end in (0, offset)]))
    return convolution(values, weight, bias, padding=tuple(1 - offset for offset in offsets), stride=step)


def _by_products(values: Tensor, weight: Tensor, bias: Tensor | None, paddings: tuple[int, ...], stride: int) -> Tensor:
    """Convolve by a matrix product, which no library replaces by a transform that is not exact."""
    dimensions = values.dim() - 2
    if any(paddings):
        values = functional.pad(values, [end for size in reversed(paddings) for end in (size, size)])
    for axis in range(dimensions):
        values = values.unfold(axis + 2, weight.shape[axis + 2], stride)
    points = values.movedim(1, dimensions + 1).flatten(dimensions + 1)
    sums = functional.linear(points, weight.flatten(1))
    if bias is not None:
        sums = sums + bias
    return sums.movedim(-1, 1)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a tensor of the type and device of another, not filled, in the layout of `in_layout`."""
    layout = _LAYOUTS.get(len(shape), torch.contiguous_format)
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def in_layout(values: Tensor) -> Tensor:
    """Return values [B, n, *grid] in the memory layout in which convolutions are fast."""
    layout = _LAYOUTS.get(values.dim())
    return values.contiguous() if layout is None else values.contiguous(memory_format=layout)


def check_sums(name: str, weight: Tensor, bias: Tensor | None = None, largest: int = LARGEST_ACTIVATION) -> None:
    """Check that sums of products are exact: below 2^24 units, whatever the inputs.

    name: of the layer. weight: [out, ...], bias: [..., out] as `rounded_weights` and `rounded_bias` give them.
    largest: magnitude of the inputs. Raises: ValueError if sums need not be exact.
    """
    _check(name, weight, bias, largest, WEIGHT_UNIT)


def check_input_sums(name: str, weight: Tensor, bias: Tensor | None = None) -> None:
    """Check the sums of a layer that sees inputs in units of 1 / INPUT_UNIT; see `check_sums`."""
    _check(name, weight, bias, LARGEST_INPUT, WEIGHT_UNIT * INPUT_UNIT // ACTIVATION_UNIT)


def _check(name: str, weight: Tensor, bias: Tensor | None, largest: int, unit: int) -> None:
    sums = weight.detach().double().abs().flatten(1).sum(1) * largest
    if bias is not None:
        sums = sums + bias.detach().double().abs().reshape(-1, len(sums)).amax(0)
    share = float(sums.max()) * unit / LARGEST_SUM
    if not share < 1:
        raise ValueError(f"the weights of {name} are {share:.3g} times too large for exact sums")
