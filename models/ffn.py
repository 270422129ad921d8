"""Fourier feature network: a ReLU perceptron over random sinusoids of the coordinate (Tancik et al. 2020)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inrcodec.models.field import Parameters, PointField, batched_linear, uniform


@dataclass(frozen=True)
class FourierFeatureNetwork(PointField):
    """gamma(x) = [cos(2 pi B x), sin(2 pi B x)] with B ~ N(0, scale^2) fixed, then `depth` ReLU layers.

    frequencies: number of rows of B; the encoding has twice as many features.
    scale: standard deviation of B, in cycles per unit of the coordinate.
    """

    width: int = 256
    depth: int = 5
    frequencies: int = 128
    scale: float = 10.0

    name: ClassVar[str] = "ffn"
    constants: ClassVar[frozenset[str]] = frozenset({"frequencies"})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"frequencies": (self.frequencies, self.in_features)}
        fan_in = 2 * self.frequencies
        for layer in range(self.depth - 1):
            shapes |= {f"layer{layer}.weight": (self.width, fan_in), f"layer{layer}.bias": (self.width,)}
            fan_in = self.width
        return shapes | {"head.weight": (self.out_features, fan_in), "head.bias": (self.out_features,)}

    def initialize(self, generator: torch.Generator) -> Parameters:
        parameters: Parameters = {}
        for name, shape in self.shapes().items():
            if name == "frequencies":
                parameters[name] = torch.randn(shape, generator=generator) * self.scale
                continue
            if name.endswith(".weight"):  # a bias follows its weight
                fan_in = shape[1]
            # He's uniform initialization for the weights of ReLU layers.
            gain = 6 if name.startswith("layer") and name.endswith(".weight") else 1
            parameters[name] = uniform(shape, math.sqrt(gain / fan_in), generator)
        return parameters

    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        phase = (2 * math.pi) * coordinates @ parameters["frequencies"].T
        hidden = torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)
        for layer in range(self.depth - 1):
            weight, bias = parameters[f"layer{layer}.weight"], parameters[f"layer{layer}.bias"]
            hidden = torch.relu(batched_linear(hidden, weight, bias))
        return hidden
