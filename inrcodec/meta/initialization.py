"""Initializations: theta_0 and all that was meta-learned with it, immutable and named by their content.

On disk an initialization is a safetensors file whose metadata holds one JSON document under the key "inrcodec".
"""

import hashlib
import json
import math
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from inrcodec.coding.context_model import LARGEST_SUM, LARGEST_WEIGHT, ContextModel, largest_sum
from inrcodec.errors import InitializationError
from inrcodec.meta.adaptation import SHARED, AdaptationConfig
from inrcodec.meta.context import GAINS
from inrcodec.meta.latent_step_sizes import LARGEST_LOGARITHM, StepSizes
from inrcodec.models import FIELDS, Field, LatentField, Parameters
from inrcodec.patches import PatchConfig
from inrcodec.signals import MODALITIES

FORMAT = 1
METADATA_KEY = "inrcodec"
SUFFIX = ".safetensors"
IDENTIFIER_BYTES = 8
MAX_PARAMETERS = 1 << 26
MAX_STEPS = 1 << 16


@dataclass(frozen=True, eq=False)
class CodingPrior:
    """What encoder and decoder expect of a delta before they have seen it.

    scales: int16, one per parameter and shaped like it: log2 of the mean absolute delta, in quarter octaves, for
        patches of unit contrast.
    steps: quantization step of each adapted tensor at medium quality, log2 in quarter octaves, in coding order.
    """

    scales: dict[str, Tensor]
    steps: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ContextPrior:
    """The entropy model of a latent pyramid.

    contexts: its configuration; weights: int32, in the units of coding.
    """

    contexts: ContextModel
    weights: Parameters


@dataclass(frozen=True, eq=False)
class Initialization:
    """theta_0 with its field, the way signals are shown to it, its step sizes and coding prior.

    modality: what it was trained for.
    model: the field's configuration.
    theta_0: float32 parameters without batch dimension, on the CPU, in the field's order.
    log_step_sizes: see `inrcodec.meta.adaptation.initial_step_sizes`; of latents, `inrcodec.meta.latent_step_sizes`.
    provenance: data, steps, machine and measurements of the training; plain JSON values.
    """

    modality: str
    model: Field
    patches: PatchConfig
    adaptation: AdaptationConfig
    theta_0: Parameters
    log_step_sizes: Parameters
    prior: CodingPrior | ContextPrior
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def adapted(self) -> list[str]:
        """Names of the tensors a delta has, in coding order."""
        return [name for name in self.theta_0 if name not in self.model.constants]

    @property
    def delta_prior(self) -> CodingPrior:
        """The prior of a weight-coded field's delta."""
        if not isinstance(self.prior, CodingPrior):
            raise TypeError(f"a {self.model.name} has no delta")
        return self.prior

    @property
    def delta_size(self) -> int:
        """Parameters coded per patch."""
        return sum(self.theta_0[name].numel() for name in self.adapted)

    @property
    def identifier(self) -> bytes:
        """8 bytes of SHA-256 over all that encoding and decoding depend on: one identifier, one initialization.

        The provenance is left out, so that the same training gives the same identifier however long it took.
        """
        digest = hashlib.sha256(_json(self._configuration()).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.digest()[:IDENTIFIER_BYTES]

    def to_bytes(self) -> bytes:
        """The file's content."""
        document = _json(self._configuration() | {"provenance": self.provenance})
        return safetensors.torch.save(self._tensors(), metadata={METADATA_KEY: document})

    def _configuration(self) -> dict[str, Any]:
        prior: dict[str, Any] = (
            _entropy_model(self.prior.contexts) if isinstance(self.prior, ContextPrior) else {"steps": self.prior.steps}
        )
        return prior | {
            "format": FORMAT,
            "modality": self.modality,
            "field": {"name": self.model.name, **_not_default(self.model)},
            "patches": _not_default(self.patches),
            "adaptation": _not_default(self.adaptation),
        }

    def _tensors(self) -> dict[str, Tensor]:
        groups = {"theta_0": self.theta_0, "step_sizes": self.log_step_sizes}
        if isinstance(self.prior, ContextPrior):
            groups["contexts"] = self.prior.weights
        else:
            groups["scales"] = self.prior.scales
        return {f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()}

    @classmethod
    def load(cls, path: Path) -> "Initialization":
        """Read a file. Raises: InitializationError if it is not an initialization."""
        try:
            return cls.from_bytes(path.read_bytes())
        except OSError as error:
            raise InitializationError(f"cannot read initialization {path}: {error.strerror}") from error
        except InitializationError as error:
            raise InitializationError(f"{path}: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> "Initialization":
        """Parse a file's content, checking every shape against the field before it is used.

        Raises: InitializationError.
        """
        try:
            tensors = safetensors.torch.load(data)
            document = json.loads(_metadata(data)[METADATA_KEY], parse_constant=_not_a_number)
            if document["format"] != FORMAT:
                raise InitializationError(
                    f"initialization format {document['format']!r} is not {FORMAT}: update inrcodec"
                )
            options = dict(document["field"])
            model = FIELDS[options.pop("name")](**options)
            patches = PatchConfig(**document["patches"])
            if model.in_features != patches.dimensions or document["modality"] not in MODALITIES:
                raise ValueError(
                    f"a field of {model.in_features} coordinates for {document['modality']!r} patches of "
                    f"{patches.dimensions} dimensions"
                )
            adaptation = AdaptationConfig(**document["adaptation"])
            if isinstance(model, LatentField):
                if adaptation.score in GAINS:
                    raise ValueError(f"latents have no score {adaptation.score!r}")
                for index in range(model.variants):
                    model.variant(index)  # which may be larger than a field can be
            shapes, constants = model.shapes(), model.constants
            adapted = {name: shape for name, shape in shapes.items() if name not in constants}
            return cls(
                modality=str(document["modality"]),
                model=model,
                patches=patches,
                adaptation=adaptation,
                theta_0={
                    name: _tensor(tensors, f"theta_0/{name}", torch.float32, shape) for name, shape in shapes.items()
                },
                log_step_sizes=_step_sizes(tensors, model, adapted),
                prior=_prior(document, tensors, model, adapted),
                provenance=_mapping(document["provenance"]),
            )
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InitializationError(f"not an inrcodec initialization: {error!r}") from error


def _entropy_model(contexts: ContextModel) -> dict[str, Any]:
    """What a context model's configuration says beyond the field's; without a squeeze as when there was none yet."""
    return {"hidden": contexts.hidden} | ({"squeeze": contexts.squeeze} if contexts.squeeze else {})


def _not_default(configuration: Any) -> dict[str, Any]:
    """What a configuration says beyond its defaults.

    So a setting that is added later, with a default that changes nothing, changes no identifier. A default itself
    must never change.
    """
    return {
        each.name: getattr(configuration, each.name)
        for each in fields(configuration)
        if each.default is MISSING or getattr(configuration, each.name) != each.default
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _not_a_number(constant: str) -> float:
    raise ValueError(f"{constant} in the configuration")


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length])["__metadata__"])


def _tensor(tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if math.prod(shape) > MAX_PARAMETERS:
        raise ValueError(f"{name} has {math.prod(shape)} elements, more than {MAX_PARAMETERS}")
    tensor = tensors[name]
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has values that are not finite")
    return tensor


def _prior(
    document: dict[str, Any], tensors: dict[str, Tensor], model: Field, adapted: dict[str, tuple[int, ...]]
) -> CodingPrior | ContextPrior:
    if isinstance(model, LatentField):
        hidden, squeeze = document["hidden"], document.get("squeeze", 0)
        contexts = ContextModel(model.groups, model.levels, hidden, squeeze, model.kinds, model.order.divided)
        shapes = contexts.shapes()
        weights = {name: _tensor(tensors, f"contexts/{name}", torch.int32, shape) for name, shape in shapes.items()}
        if any(int(value.long().abs().max()) >= LARGEST_WEIGHT for value in weights.values()):
            raise ValueError("a weight of the context model is too large for exact sums")
        if any(largest_sum(value) >= LARGEST_SUM for value in weights.values()):
            raise ValueError("the weights of the context model are too many for exact sums")
        return ContextPrior(contexts, weights)
    scales = {name: _tensor(tensors, f"scales/{name}", torch.int16, shape) for name, shape in adapted.items()}
    return CodingPrior(scales, _steps(document["steps"], len(adapted)))


def _step_sizes(tensors: dict[str, Tensor], model: Field, adapted: dict[str, tuple[int, ...]]) -> Parameters:
    shared = tensors.get(f"step_sizes/{SHARED}")
    if shared is not None:
        return {SHARED: _tensor(tensors, f"step_sizes/{SHARED}", torch.float32, (1,))}
    if isinstance(model, LatentField):
        rows = len(tensors[f"step_sizes/{StepSizes._fields[0]}"])
        if not 1 <= rows <= MAX_STEPS:
            raise ValueError(f"step sizes of {rows} steps")
        size = (rows, model.order.depth)
        learned = {name: _tensor(tensors, f"step_sizes/{name}", torch.float32, size) for name in StepSizes._fields}
        if any(float(value.abs().max()) > LARGEST_LOGARITHM for value in learned.values()):
            raise ValueError(f"step sizes of latents beyond e^{LARGEST_LOGARITHM:g}")
        return learned
    sizes = {}
    for name, shape in adapted.items():
        tensor = tensors[f"step_sizes/{name}"]
        if tensor.dim() == 0 or not 1 <= len(tensor) <= MAX_STEPS:
            raise ValueError(f"step_sizes/{name} has the shape {tuple(tensor.shape)}")
        per_element, per_tensor = (len(tensor), *shape), (len(tensor), *[1] * len(shape))
        expected = per_element if tuple(tensor.shape) == per_element else per_tensor
        sizes[name] = _tensor(tensors, f"step_sizes/{name}", torch.float32, expected)
    return sizes


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {value!r:.80}")
    return value


def _steps(steps: Any, count: int) -> tuple[int, ...]:
    if len(steps) != count or not all(type(step) is int and -128 <= step <= 127 for step in steps):
        raise ValueError(f"expected {count} quantization steps, found {steps!r}")
    return tuple(steps)
