"""Initializations: theta_0 and all that was meta-learned with it, immutable and named by their content.

On disk an initialization is a safetensors file whose metadata holds one JSON document under the key "inrcodec";
docs/FORMAT.md specifies it.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from dataclasses import field as dataclass_field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast

import rfc8785
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.errors import InitializationError
from inrcodec.models import FIELDS, EntropyModel, Family, Field, LatentField, Parameters, PointField
from inrcodec.models.layers import check_exact
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import MODALITIES

FORMAT = 1
METADATA_KEY = "inrcodec"
SUFFIX = ".safetensors"
IDENTIFIER_BYTES = 8
MAX_PARAMETERS = 1 << 26
MAX_STEPS = 1 << 16
LARGEST_LOG_STEP_SIZE = 50.0
"""Logarithms of step sizes are within this of 0."""

_DTYPES = {torch.float32: "F32", torch.int32: "I32", torch.int16: "I16"}


class Prior(Protocol):
    """The knowledge that encoder and decoder share of what is coded, before they have seen it."""

    GROUP: ClassVar[str]
    """The first part of its tensors' names."""

    @property
    def tensors(self) -> Parameters:
        """Its tensors, by name."""

    def settings(self) -> dict[str, Any]:
        """Return what the initialization's document says of it."""

    @classmethod
    def parsed(cls, document: dict[str, Any], tensors: Parameters, model: Field) -> Self:
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

    def settings(self) -> dict[str, Any]:
        return {"step_indices": list(self.step_indices)}

    @classmethod
    def parsed(cls, document: dict[str, Any], tensors: Parameters, model: Field) -> Self:
        shapes = cast(PointField, model).adapted_shapes()
        scales = {name: _tensor(tensors, f"{cls.GROUP}/{name}", torch.int16, shape) for name, shape in shapes.items()}
        indices = document["step_indices"]
        listed = type(indices) is list and len(indices) == len(shapes)
        if not listed or not all(type(index) is int and -128 <= index <= 127 for index in indices):
            raise ValueError(f"expected {len(shapes)} quantization step indices, found {indices!r:.200}")
        return cls(scales, tuple(indices))


@dataclass(frozen=True, eq=False)
class LatentPrior:
    """The prior of the symbols of a latent field.

    entropy_model: its configuration; weights: int32, in the units of coding.
    """

    entropy_model: EntropyModel
    weights: Parameters

    GROUP: ClassVar[str] = "entropy_model"

    @property
    def tensors(self) -> Parameters:
        return self.weights

    def settings(self) -> dict[str, Any]:
        return {"entropy_model": {"hidden": self.entropy_model.hidden}}

    @classmethod
    def parsed(cls, document: dict[str, Any], tensors: Parameters, model: Field) -> Self:
        latent_field = cast(LatentField, model)
        for variant in range(latent_field.variants):
            latent_field.transform(variant)  # which may be larger than a field can be
        settings = _mapping(document["entropy_model"])
        if settings.keys() != {"hidden"}:
            raise ValueError(f"an entropy model has the setting 'hidden', not {sorted(settings)!r:.200}")
        entropy_model = EntropyModel.of(latent_field, settings["hidden"])
        shapes = entropy_model.shapes()
        weights = {name: _tensor(tensors, f"{cls.GROUP}/{name}", torch.int32, shape) for name, shape in shapes.items()}
        check_exact(weights)
        return cls(entropy_model, weights)


_PRIORS: dict[Family, type[DeltaPrior] | type[LatentPrior]] = {"weights": DeltaPrior, "latents": LatentPrior}


@dataclass(frozen=True, eq=False)
class Initialization:
    """theta_0 with its field, the way signals are shown to it, its step sizes and its prior.

    modality: what it was trained for.
    field: the field's configuration.
    theta_0: float32 parameters without batch dimension, on the CPU, in the field's order.
    log_step_sizes: logarithms of the inner step sizes, by the names of `Field.step_size_shapes`, each [rows, ...]: a
        row for every step, the last one for all later ones. Or one number for all, [1], under the key `SHARED`.
    prior: what is expected of what is coded: a `DeltaPrior` or a `LatentPrior`, by the field's family.
    provenance: data, steps, machine and measurements of the training; plain JSON values.
    """

    modality: str
    field: Field
    patches: PatchConfig
    adaptation: AdaptationConfig
    theta_0: Parameters
    log_step_sizes: Parameters
    prior: Prior
    provenance: dict[str, Any] = dataclass_field(default_factory=dict)

    @property
    def coded_parameters(self) -> int:
        """How many parameters of theta_0 are coded per patch; of latent fields none."""
        if self.field.family == "latents":
            return 0
        return sum(tensor.numel() for tensor in self.prior.tensors.values())

    @cached_property
    def identifier(self) -> bytes:
        """8 bytes of SHA-256 over all that encoding and decoding depend on: one identifier, one initialization.

        The provenance is left out, so that the same training gives the same identifier however long it took.
        """
        digest = hashlib.sha256(rfc8785.dumps(self._settings()))
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {_DTYPES[tensor.dtype]} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.digest()[:IDENTIFIER_BYTES]

    def to_bytes(self) -> bytes:
        """Return the content of the initialization's file."""
        document = self._settings() | {"identifier": self.identifier.hex(), "provenance": self.provenance}
        return safetensors.torch.save(self._tensors(), metadata={METADATA_KEY: rfc8785.dumps(document).decode()})

    def _settings(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "modality": self.modality,
            "field": {"name": self.field.name, **_plain(self.field)},
            "patches": _plain(self.patches),
            "adaptation": _plain(self.adaptation),
            **self.prior.settings(),
        }

    def _tensors(self) -> Parameters:
        groups = {"theta_0": self.theta_0, "step_sizes": self.log_step_sizes, self.prior.GROUP: self.prior.tensors}
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
        """Parse a file's content, checking every setting and every shape before it is used.

        Raises: InitializationError.
        """
        try:
            tensors = safetensors.torch.load(data)
            document = _document(data)
            if type(document["format"]) is not int or document["format"] != FORMAT:
                raise InitializationError(
                    f"initialization format {document['format']!r:.80} is not {FORMAT}: update inrcodec"
                )
            initialization = _parsed(document, tensors)
            identifier = document["identifier"]
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InitializationError(f"not an inrcodec initialization: {error!r:.300}") from error
        unknown = sorted(document.keys() - initialization._settings().keys() - {"identifier", "provenance"})
        unknown += sorted(tensors.keys() - initialization._tensors().keys())
        if unknown:
            raise InitializationError(f"an initialization has no {unknown[0]!r:.80}: update inrcodec")
        if identifier != initialization.identifier.hex():
            raise InitializationError(
                f"the identifier {identifier!r:.80} is not that of the content, "
                f"{initialization.identifier.hex()}: obtain the file again"
            )
        return initialization


def stored_identifier(path: Path) -> str:
    """Return the identifier that a file says it has, without reading its tensors; "" if it says none."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MAX_PARAMETERS)))
        return str(json.loads(header["__metadata__"][METADATA_KEY])["identifier"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return ""


def _parsed(document: dict[str, Any], tensors: Parameters) -> Initialization:
    """Build the initialization of a file. Raises: KeyError, TypeError, ValueError."""
    sizes = dict(_mapping(document["field"]))
    field_class = FIELDS[sizes.pop("name")]
    model = _configured(field_class, sizes)
    patches = _configured(PatchConfig, document["patches"])
    adaptation = _configured(AdaptationConfig, document["adaptation"])
    model.check_alone()
    if model.family == "latents" and (patches.normalize or patches.sphere):
        raise ValueError("patches of latents are neither normalized nor on the sphere")
    modality = document["modality"]
    if modality not in MODALITIES or model.in_features != patches.dimensions:
        raise ValueError(
            f"a field of {model.in_features} coordinates for {modality!r:.80} patches of {patches.dimensions} axes"
        )
    if adaptation.score not in model.scores:
        raise ValueError(f"the field {model.name!r} has no score {adaptation.score!r}")
    return Initialization(
        modality=modality,
        field=model,
        patches=patches,
        adaptation=adaptation,
        theta_0={
            name: _tensor(tensors, f"theta_0/{name}", torch.float32, shape) for name, shape in model.shapes().items()
        },
        log_step_sizes=_step_sizes(tensors, model),
        prior=_PRIORS[model.family].parsed(document, tensors, model),
        provenance=_writable(document["provenance"]),
    )


def _plain(configuration: Any) -> dict[str, Any]:
    """Return all settings of a configuration as JSON values."""
    return {name: list(value) if type(value) is tuple else value for name, value in asdict(configuration).items()}


def _configured(kind: type[Any], settings: Any) -> Any:
    """Build a configuration from all of its settings. Raises: ValueError if one is missing or unknown."""
    names = {each.name for each in fields(kind)}
    given = _mapping(settings)
    if given.keys() != names:
        raise ValueError(f"{kind.__name__} has the settings {sorted(names)}, not {sorted(given)!r:.200}")
    built = kind(**given)
    if _plain(built) != given:
        raise ValueError(f"{kind.__name__} is spelled {given!r:.200}, which means {_plain(built)!r:.200}")
    return built


def _document(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    content = json.loads(data[8 : 8 + length])["__metadata__"][METADATA_KEY]
    return _mapping(json.loads(content, parse_constant=_not_a_number, object_pairs_hook=_distinct))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises: ValueError if it has a key twice."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"an object has a key twice: {keys!r:.200}")
    return dict(pairs)


def _not_a_number(constant: str) -> float:
    raise ValueError(f"{constant} in the settings")


def _tensor(tensors: Parameters, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if math.prod(shape) > MAX_PARAMETERS:
        raise ValueError(f"{name} has {math.prod(shape)} elements, more than {MAX_PARAMETERS}")
    tensor = tensors[name]
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has values that are not finite")
    return tensor


def _step_sizes(tensors: Parameters, model: Field) -> Parameters:
    if f"step_sizes/{SHARED}" in tensors:
        return {SHARED: _logarithms(tensors, SHARED, (1,))}
    sizes = {}
    for name, shape in model.step_size_shapes().items():
        tensor = tensors[f"step_sizes/{name}"]
        if tensor.dim() == 0 or not 1 <= len(tensor) <= MAX_STEPS:
            raise ValueError(f"step_sizes/{name} has the shape {tuple(tensor.shape)}")
        per_element, per_tensor = (len(tensor), *shape), (len(tensor), *[1] * len(shape))
        sizes[name] = _logarithms(tensors, name, per_element if tuple(tensor.shape) == per_element else per_tensor)
    return sizes


def _logarithms(tensors: Parameters, name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = _tensor(tensors, f"step_sizes/{name}", torch.float32, shape)
    if float(tensor.abs().max()) > LARGEST_LOG_STEP_SIZE:
        raise ValueError(f"step_sizes/{name} are beyond e^{LARGEST_LOG_STEP_SIZE:g}")
    return tensor


def _writable(provenance: Any) -> dict[str, Any]:
    """Return a provenance. Raises: ValueError if it cannot be written again, as integers beyond 2^53 cannot."""
    try:
        rfc8785.dumps(provenance)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(f"a provenance that has no canonical form ({error})") from error
    return _mapping(provenance)


def _mapping(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError(f"expected an object, found {value!r:.80}")
    return value
