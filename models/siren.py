"""SIREN: a multilayer perceptron with sine activations (Sitzmann et al. 2020)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inrcodec.models.field import Parameters, PointField, batched_linear, uniform


@dataclass(frozen=True)
class Siren(PointField):
    """`depth` linear layers of `width` hidden units: sin(w0 (W x + b)) between them, linear readout at the end.

    Defaults are GradNCP's for images; video uses depth 7, the sphere w0 = 50.
    """

    width: int = 256
    depth: int = 5
    w0: float = 30.0

    name: ClassVar[str] = "siren"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        fan_in = self.in_features
        for layer in range(self.depth - 1):
            shapes |= {f"layer{layer}.weight": (self.width, fan_in), f"layer{layer}.bias": (self.width,)}
            fan_in = self.width
        return shapes | {"head.weight": (self.out_features, fan_in), "head.bias": (self.out_features,)}

    def initialize(self, generator: torch.Generator) -> Parameters:
        parameters: Parameters = {}
        for name, shape in self.shapes().items():
            if name.endswith(".weight"):  # a bias follows its weight and shares its bound
                fan_in = shape[1]
                bound = 1 / fan_in if name == "layer0.weight" else math.sqrt(6 / fan_in) / self.w0
            parameters[name] = uniform(shape, bound, generator)
        return parameters

    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        hidden = coordinates
        for layer in range(self.depth - 1):
            weight, bias = parameters[f"layer{layer}.weight"], parameters[f"layer{layer}.bias"]
            # Scaling the small parameters instead of the large activations saves one pass over memory.
            hidden = torch.sin(batched_linear(hidden, self.w0 * weight, self.w0 * bias))
        return hidden
