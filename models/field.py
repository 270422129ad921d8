"""The interface all neural fields share.

A field is a function `f_theta: coordinates [N, d] -> values [N, C]` that ends in a linear readout of its
penultimate features phi: `f = sigma(W phi(x) + b)`. The class holds the configuration only; parameters are
passed in, so that one call evaluates a batch of signals, each with parameters of its own, and so that
adaptation can differentiate through parameters that are themselves results of gradient steps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

Parameters = dict[str, Tensor]

MAX_SIZE = 1 << 12
"""Largest width, depth, frequency or other number in a field's configuration."""


@dataclass(frozen=True)
class Field(ABC):
    """Configuration of a neural field; subclasses add their sizes as dataclass fields.

    in_features: dimension d of a coordinate.
    out_features: number C of channels of a value.
    """

    in_features: int
    out_features: int

    name: ClassVar[str]
    constants: ClassVar[frozenset[str]] = frozenset()
    """Parameters that belong to the initialization but are the same for every signal (no batch dimension)."""
    linear_readout: ClassVar[bool] = True
    """Whether `activation` only shifts."""

    def __post_init__(self) -> None:
        """Raises: ValueError for sizes that no field has; configurations come from files of strangers too."""
        for each in fields(self):
            value = getattr(self, each.name)
            numbers = list(value) if isinstance(value, list | tuple) else [value]
            if isinstance(value, list | tuple):  # as it comes back from JSON
                object.__setattr__(self, each.name, tuple(value))
            if value == each.default and type(value) is type(each.default):  # which may be 0: there is no such part
                continue
            whole = each.type is not float
            for number in numbers:
                if type(number) not in ((int,) if whole else (int, float)) or not 0 < number <= MAX_SIZE:
                    raise ValueError(f"the field {self.name} cannot have {each.name} = {value!r:.80}")

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter, without batch dimension, in coding order. Includes the `constants`, and
        `head.weight` [C, F] and `head.bias` [C], the readout's."""

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> Parameters:
        """Random parameters theta of these `shapes`, float32 on the CPU."""

    @abstractmethod
    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        """Penultimate features phi(x).

        parameters: [B, ...] each, but for the `constants`.
        coordinates: [B, N, d], or [1, N, d] where the signals share them.
        Returns [B, N, F].
        """

    def preactivation(self, parameters: Parameters, features: Tensor) -> Tensor:
        """The linear readout W phi + b: [B, N, F] -> [B, N, C]."""
        return batched_linear(features, parameters["head.weight"], parameters["head.bias"])

    def activation(self, preactivation: Tensor) -> Tensor:
        """Output non-linearity sigma; here a shift of +0.5, the middle of the value range [0, 1]."""
        return preactivation + 0.5

    def activation_slope(self, preactivation: Tensor) -> Tensor:
        """Derivative of `activation`, for the gradient-norm score: [B, N, C]."""
        return torch.ones_like(preactivation)

    def __call__(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        """Values f_theta(x): [B, N, C]; same arguments as `features`."""
        return self.activation(self.preactivation(parameters, self.features(parameters, coordinates)))


def batched_linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One linear layer per signal: [B or 1, N, I], [B, O, I], [B, O] -> [B, N, O]."""
    batch = weight.shape[0]
    return torch.baddbmm(bias.unsqueeze(1), inputs.expand(batch, -1, -1), weight.transpose(1, 2))


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Samples of U(-bound, bound)."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
