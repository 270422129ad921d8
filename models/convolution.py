"""Convolutions over one to three grid axes, by the number of axes of what they are given."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def convolution(values: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int = 0) -> Tensor:
    """Convolve values [B, in, *grid], padded with zeros, with weight [out, in, *taps]: [B, out, *grid]."""
    result: Tensor = _CONVOLUTIONS[weight.dim() - 2](values, weight, bias, padding=padding)
    return result


def convolution_within(padded: Tensor, weight: Tensor, bias: Tensor | None, within: Sequence[slice]) -> Tensor:
    """Convolve values that are padded already, at some points of the grid: slices with a start and a step."""
    cut = padded[(slice(None), slice(None), *(slice(along.start, None) for along in within))]
    steps = tuple(along.step for along in within)
    result: Tensor = _CONVOLUTIONS[weight.dim() - 2](cut, weight, bias, stride=steps)
    return result


def pointwise(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply the same linear map, weight [out, in], at every point."""
    return convolution(values, weight.reshape(*weight.shape, *[1] * (values.dim() - 2)), bias)
