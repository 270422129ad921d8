"""Priors: how the symbols of a signal are distributed, as encoder and decoder know beforehand.

Each is a part of an initialization, and knows how it is read from the file of one.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, cast

import torch
from torch import Tensor

from inrcodec.models import EntropyModel, Family, Field, LatentField, Parameters, PointField

MAX_PARAMETERS = 1 << 26
"""Elements that a tensor of an initialization may have."""


class Prior(Protocol):
    """How the symbols of a signal are distributed, as encoder and decoder know beforehand."""

    GROUP: ClassVar[str]
    """The first part of its tensors' names."""

    @property
    def tensors(self) -> Parameters:
        """Its tensors, by name."""

    @property
    def coded_parameters(self) -> int:
        """How many parameters of theta_0 are coded per patch."""

    @property
    def summary(self) -> str:
        """What is coded, in a few words."""

    def settings(self) -> dict[str, Any]:
        """Return what the initialization's document says of it."""

    @classmethod
    def parsed(cls, document: dict[str, Any], tensors: Parameters, field: Field) -> Self:
        """Build the prior for a field from a document and tensors. Raises: KeyError, TypeError, ValueError."""


@dataclass(frozen=True, eq=False)
class DeltaPrior:
    """The prior of the delta of a weight-coded field.

    scales: int16, one per adapted parameter and shaped like it: log2 of the mean absolute delta, in quarter octaves,
        for patches of unit contrast.
    step_indices: quantization step of each adapted tensor at medium quality, log2 in quarter octaves, in coding order.
    """

    scales: Parameters
    step_indices: tuple[int, ...]

    GROUP: ClassVar[str] = "scales"

    @property
    def tensors(self) -> Parameters:
        return self.scales

    @property
    def coded_parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.scales.values())

    @property
    def summary(self) -> str:
        return f"{self.coded_parameters} parameters coded per patch"

    def settings(self) -> dict[str, Any]:
        return {"step_indices": list(self.step_indices)}

    @classmethod
    def parsed(cls, document: dict[str, Any], tensors: Parameters, field: Field) -> Self:
        shapes = cast(PointField, field).adapted_shapes()
        scales = {name: tensor_of(tensors, f"{cls.GROUP}/{name}", torch.int16, shape) for name, shape in shapes.items()}
        indices = document["step_indices"]
        listed = type(indices) is list and len(indices) == len(shapes)
        if not listed or not all(type(index) is int and -128 <= index <= 127 for index in indices):
            raise ValueError(f"expected {len(shapes)} quantization step indices, found {indices!r:.200}")
        return cls(scales, tuple(indices))


@dataclass(frozen=True, eq=False)
class LatentPrior:
    """The prior of the symbols of a latent field.

    entropy_model: its configuration; weights: its parameters, float32.
    """

    entropy_model: EntropyModel
    weights: Parameters

    GROUP: ClassVar[str] = "entropy_model"

    @property
    def tensors(self) -> Parameters:
        return self.weights

    @property
    def coded_parameters(self) -> int:
        return 0

    @property
    def summary(self) -> str:
        weights = sum(value.numel() for value in self.weights.values())
        return f"latents are coded, with an entropy model of {weights} weights"

    def settings(self) -> dict[str, Any]:
        return {"entropy_model": {"hidden": self.entropy_model.hidden}}

    @classmethod
    def parsed(cls, document: dict[str, Any], tensors: Parameters, field: Field) -> Self:
        latent_field = cast(LatentField, field)
        for variant in range(latent_field.variants):
            latent_field.transform(variant)  # which may be larger than a field can be
        settings = mapping_of(document["entropy_model"])
        if settings.keys() != {"hidden"}:
            raise ValueError(f"an entropy model has the setting 'hidden', not {sorted(settings)!r:.200}")
        entropy_model = EntropyModel.of(latent_field, settings["hidden"])
        shapes = entropy_model.shapes()
        weights = {
            name: tensor_of(tensors, f"{cls.GROUP}/{name}", torch.float32, shape) for name, shape in shapes.items()
        }
        return cls(entropy_model, weights)


PRIORS: dict[Family, type[DeltaPrior] | type[LatentPrior]] = {"weights": DeltaPrior, "latents": LatentPrior}


def tensor_of(tensors: Parameters, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Take a tensor from an initialization's file. Raises: KeyError, ValueError if it is not as it should be."""
    if math.prod(shape) > MAX_PARAMETERS:
        raise ValueError(f"{name} has {math.prod(shape)} elements, more than {MAX_PARAMETERS}")
    tensor = tensors[name]
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has values that are not finite")
    return tensor


def mapping_of(value: Any) -> dict[str, Any]:
    """Return an object of a document. Raises: ValueError if it is none."""
    if type(value) is not dict:
        raise ValueError(f"expected an object, found {value!r:.80}")
    return value
