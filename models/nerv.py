"""NeRV: a field whose coordinate in time is decoded to a whole feature frame by convolutions (Chen et al. 2021).

To be a field like the others, which can be asked at any point and pruned point by point, the frame is a grid of
penultimate features on [-1, 1]^2 that a query interpolates bilinearly before the linear readout. At the frame's
own resolution this is NeRV with a 1x1 convolution as its last layer.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from inrcodec.models.field import Parameters, PointField, batched_linear, uniform

MAX_FRAME = 1 << 11
"""Largest side of a frame of features."""


@dataclass(frozen=True)
class NeRV(PointField):
    """Positional encoding of time, two linear layers, then blocks of 3x3 convolution, pixel shuffle and GELU.

    Coordinates are (time, y, x), so `in_features` is 3.
    octaves: frequencies of the positional encoding, sin and cos of pi 2^i t.
    stem: width of the hidden linear layer.
    base: (height, width) of the first feature map.
    channels: channels of the feature map before the first block and after each block.
    upscale: factor of every block's pixel shuffle; the frame is `base * upscale ** blocks` samples large.
    """

    octaves: int = 6
    stem: int = 128
    base: tuple[int, int] = (4, 4)
    channels: tuple[int, ...] = (32, 24, 16, 16)
    upscale: int = 2

    name: ClassVar[str] = "nerv"
    linear_readout: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_features != 3:
            raise ValueError(f"NeRV needs coordinates (time, y, x): {self.in_features = }")
        if len(self.base) != 2 or not self.channels:
            raise ValueError(f"NeRV needs a base of two sizes, and channels: {self.base = }, {self.channels = }")
        frame = max(self.base) * self.upscale ** (len(self.channels) - 1)
        if frame > MAX_FRAME or len(self.channels) > 16 or self.octaves > 32:
            raise ValueError(f"NeRV's frame of {frame} samples is larger than {MAX_FRAME}, or it has too many layers")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        weights: dict[str, tuple[int, ...]] = {
            "stem0": (self.stem, 2 * self.octaves),
            "stem1": (self.channels[0] * math.prod(self.base), self.stem),
        }
        for block, (fan_in, fan_out) in enumerate(zip(self.channels[:-1], self.channels[1:], strict=True)):
            weights[f"block{block}"] = (fan_out * self.upscale**2, fan_in, 3, 3)
        weights["head"] = (self.out_features, self.channels[-1])
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in weights.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes

    def initialize(self, generator: torch.Generator) -> Parameters:
        return {
            name: torch.zeros(shape)
            if name.endswith(".bias")
            else uniform(shape, math.sqrt(3 / math.prod(shape[1:])), generator)
            for name, shape in self.shapes().items()
        }

    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        batch = parameters["head.weight"].shape[0]
        coordinates = coordinates.expand(batch, -1, -1)
        times, frame_of_query = torch.unique(coordinates[..., 0], return_inverse=True)
        frames = self._frames(parameters, times)
        return _interpolate(frames, frame_of_query, coordinates[..., 1:])

    def _frames(self, parameters: Parameters, times: Tensor) -> Tensor:
        """Return feature frames at `times` [T] for every signal: [B, T, F, height, width]."""
        batch = parameters["head.weight"].shape[0]
        phase = times[:, None] * (math.pi * 2.0 ** torch.arange(self.octaves, device=times.device))
        encoded = torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)[None]
        hidden = F.gelu(batched_linear(encoded, parameters["stem0.weight"], parameters["stem0.bias"]))
        hidden = F.gelu(batched_linear(hidden, parameters["stem1.weight"], parameters["stem1.bias"]))
        # Grouped convolutions run one convolution per signal: the signals lie side by side as channels.
        maps = hidden.transpose(0, 1).reshape(len(times), batch * self.channels[0], *self.base)
        for block in range(len(self.channels) - 1):
            weight, bias = parameters[f"block{block}.weight"], parameters[f"block{block}.bias"]
            maps = F.conv2d(maps, weight.flatten(0, 1), bias.flatten(), padding=1, groups=batch)
            maps = F.gelu(F.pixel_shuffle(maps, self.upscale))
        height, width = maps.shape[-2:]
        return maps.reshape(len(times), batch, self.channels[-1], height, width).transpose(0, 1)

    def activation(self, preactivation: Tensor) -> Tensor:
        return torch.sigmoid(preactivation)

    def activation_slope(self, preactivation: Tensor) -> Tensor:
        value = torch.sigmoid(preactivation)
        return value * (1 - value)


def _interpolate(frames: Tensor, frame_of_query: Tensor, points: Tensor) -> Tensor:
    """Sample feature frames bilinearly, cell-centred and clamped at the border.

    frames: [B, T, F, H, W]; frame_of_query: [B, N] in 0..T-1; points: [B, N, 2] (y, x) in [-1, 1].
    Returns [B, N, F]. Written with gathers because grid_sample has no second derivative.
    """
    batch, _, channels, height, width = frames.shape
    flat = frames.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    y = ((points[..., 0] + 1) * height / 2 - 0.5).clamp(0, height - 1)
    x = ((points[..., 1] + 1) * width / 2 - 0.5).clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = (y - top).unsqueeze(-1), (x - left).unsqueeze(-1)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        index = (frame_of_query * height + row) * width + column
        return flat.gather(1, index.unsqueeze(-1).expand(-1, -1, channels))

    upper = corner(top, left) * (1 - along) + corner(top, right) * along
    lower = corner(bottom, left) * (1 - along) + corner(bottom, right) * along
    return upper * (1 - down) + lower * down
