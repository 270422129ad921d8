"""The interface all neural fields share.

`Field` is the configuration of any field. `PointField` is a field that can be asked at single points and differs from
signal to signal in its weights; `inrcodec.models.latent` has those that differ in grids of latents.

A class holds the configuration only. Parameters are passed in, so that one call evaluates a batch of signals, each with
parameters of its own, and so that adaptation can differentiate through parameters that are themselves results of
gradient steps.
"""

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, get_origin

import torch
from torch import Tensor

Parameters = dict[str, Tensor]

Family = Literal["weights", "latents"]
"""The part of a field that differs from signal to signal, and is coded."""

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
    family: ClassVar[Family]

    def __post_init__(self) -> None:
        """Raises: ValueError for sizes that no field has; configurations come from files of strangers too."""
        for each in fields(self):
            value: Any = getattr(self, each.name)
            if get_origin(each.type) is tuple and type(value) in (list, tuple):  # a list as it comes back from JSON
                value = tuple(value)
                object.__setattr__(self, each.name, value)
                numbers = value
            else:
                numbers = (value,)
            types = (int, float) if each.type is float else (int,)
            absent = each.default is not MISSING and each.default == 0  # such a part may be left out
            for number in numbers:
                if type(number) not in types or not (0 < number <= MAX_SIZE or (absent and number == 0)):
                    raise ValueError(f"the field {self.name} cannot have {each.name} = {value!r:.80}")

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of theta_0, without batch dimension, in the order of the format."""

    @abstractmethod
    def initialize(self, generator: torch.Generator) -> Parameters:
        """Draw a random theta_0 of these `shapes`, float32 on the CPU."""

    def check_alone(self) -> None:  # noqa: B027
        """Check that signals can have fields like this one by themselves. Raises: ValueError if not."""

    @abstractmethod
    def step_size_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of what each learned step size of the adaptation applies to, by its name."""


@dataclass(frozen=True)
class PointField(Field):
    """A function `f_theta: coordinates [N, d] -> values [N, C]`, which ends in a linear readout of features phi.

    f = sigma(W phi(x) + b). The parameters are adapted to each signal, but for the `constants`.
    """

    family: ClassVar[Family] = "weights"
    constants: ClassVar[frozenset[str]] = frozenset()
    """Tensors that are the same for every signal (no batch dimension)."""
    linear_readout: ClassVar[bool] = True
    """Whether `activation` only shifts."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of theta_0, without batch dimension, in coding order.

        Includes the `constants`, and `head.weight` [C, F] and `head.bias` [C], the readout's.
        """

    def adapted_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that are adapted and coded, in coding order."""
        return {name: shape for name, shape in self.shapes().items() if name not in self.constants}

    def step_size_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.adapted_shapes()

    @abstractmethod
    def features(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        """Return the penultimate features phi(x), [B, N, F].

        parameters: [B, ...] each, but for the `constants`.
        coordinates: [B, N, d], or [1, N, d] where the signals share them.
        """

    def preactivation(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Apply the linear readout W phi + b: [B, N, F] -> [B, N, C]."""
        return batched_linear(features, parameters["head.weight"], parameters["head.bias"])

    def activation(self, preactivation: Tensor) -> Tensor:
        """Apply the output non-linearity sigma; here a shift of +0.5, the middle of the value range [0, 1]."""
        return preactivation + 0.5

    def activation_slope(self, preactivation: Tensor) -> Tensor:
        """Return the derivative of `activation`, for the gradient-norm score: [B, N, C]."""
        return torch.ones_like(preactivation)

    def __call__(self, parameters: Parameters, coordinates: Tensor) -> Tensor:
        """Return the values f_theta(x), [B, N, C]; arguments as for `features`."""
        return self.activation(self.preactivation(parameters, self.features(parameters, coordinates)))


def batched_linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply one linear layer per signal: [B or 1, N, I], [B, O, I], [B, O] -> [B, N, O]."""
    batch = weight.shape[0]
    return torch.baddbmm(bias.unsqueeze(1), inputs.expand(batch, -1, -1), weight.transpose(1, 2))


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Draw samples of U(-bound, bound)."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
