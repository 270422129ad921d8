"""Initializations: theta_0 and all that was meta-learned with it, immutable and named by their content.

On disk an initialization is a safetensors file whose metadata holds one JSON document under the key "inrcodec";
docs/FORMAT.md specifies it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from dataclasses import field as dataclass_field
from functools import cached_property
from pathlib import Path
from typing import Any

import rfc8785
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.errors import InitializationError
from inrcodec.models import FIELDS, Field, Parameters
from inrcodec.patches import PatchConfig
from inrcodec.priors import MAX_PARAMETERS, PRIORS, Prior, mapping_of, tensor_of
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import MODALITIES

FORMAT = 1
METADATA_KEY = "inrcodec"
SUFFIX = ".safetensors"
IDENTIFIER_BYTES = 8
MAX_STEPS = 1 << 16
LARGEST_LOG_STEP_SIZE = 50.0
"""Logarithms of step sizes are within this of 0."""

_DTYPES = {torch.float32: "F32", torch.int16: "I16"}


@dataclass(frozen=True, eq=False)
class Initialization:
    """theta_0 with its field, the way signals are shown to it, its step sizes and its prior.

    modality: what it was trained for.
    field: the field's configuration.
    theta_0: float32 parameters without batch dimension, on the CPU, in the field's order.
    log_step_sizes: logarithms of the inner step sizes, by the names of `Field.step_size_shapes`, each [rows, ...]: a
        row for every step, the last one for all later ones. Or one number for all, [1], under the key `SHARED`.
    prior: how symbols are distributed: a `DeltaPrior` or a `LatentPrior`, by the field's family.
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
        return self.prior.coded_parameters

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
    sizes = dict(mapping_of(document["field"]))
    field_class = FIELDS[sizes.pop("name")]
    field = _configured(field_class, sizes)
    patches = _configured(PatchConfig, document["patches"])
    adaptation = _configured(AdaptationConfig, document["adaptation"])
    field.check_alone()
    if field.family == "latents" and (patches.normalize or patches.sphere):
        raise ValueError("patches of latents are neither normalized nor on the sphere")
    modality = document["modality"]
    if modality not in MODALITIES or field.in_features != patches.dimensions:
        raise ValueError(
            f"a field of {field.in_features} coordinates for {modality!r:.80} patches of {patches.dimensions} axes"
        )
    check_adaptation(field, adaptation)
    return Initialization(
        modality=modality,
        field=field,
        patches=patches,
        adaptation=adaptation,
        theta_0={
            name: tensor_of(tensors, f"theta_0/{name}", torch.float32, shape) for name, shape in field.shapes().items()
        },
        log_step_sizes=_step_sizes(tensors, field),
        prior=PRIORS[field.family].parsed(document, tensors, field),
        provenance=_writable(document["provenance"]),
    )


def check_adaptation(field: Field, adaptation: AdaptationConfig) -> None:
    """Raises: ValueError for settings that mean nothing for a field."""
    if field.family == "latents" and adaptation != AdaptationConfig.unpruned(adaptation.steps):
        raise ValueError(
            f"latents have no context set to prune: gamma = {adaptation.gamma} with the score {adaptation.score!r} "
            "means nothing for them"
        )


def _plain(configuration: Any) -> dict[str, Any]:
    """Return all settings of a configuration as JSON values."""
    return {name: list(value) if type(value) is tuple else value for name, value in asdict(configuration).items()}


def _configured(kind: type[Any], settings: Any) -> Any:
    """Build a configuration from all of its settings. Raises: ValueError if one is missing or unknown."""
    names = {each.name for each in fields(kind)}
    given = mapping_of(settings)
    if given.keys() != names:
        raise ValueError(f"{kind.__name__} has the settings {sorted(names)}, not {sorted(given)!r:.200}")
    built = kind(**given)
    if _plain(built) != given:
        raise ValueError(f"{kind.__name__} is spelled {given!r:.200}, which means {_plain(built)!r:.200}")
    return built


def _document(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    content = json.loads(data[8 : 8 + length])["__metadata__"][METADATA_KEY]
    return mapping_of(json.loads(content, parse_constant=_not_a_number, object_pairs_hook=_distinct))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises: ValueError if it has a key twice."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"an object has a key twice: {keys!r:.200}")
    return dict(pairs)


def _not_a_number(constant: str) -> float:
    raise ValueError(f"{constant} in the settings")


def _step_sizes(tensors: Parameters, field: Field) -> Parameters:
    if f"step_sizes/{SHARED}" in tensors:
        return {SHARED: _logarithms(tensors, SHARED, (1,))}
    sizes = {}
    for name, shape in field.step_size_shapes().items():
        tensor = tensors[f"step_sizes/{name}"]
        if tensor.dim() == 0 or not 1 <= len(tensor) <= MAX_STEPS:
            raise ValueError(f"step_sizes/{name} has the shape {tuple(tensor.shape)}")
        per_element, per_tensor = (len(tensor), *shape), (len(tensor), *[1] * len(shape))
        sizes[name] = _logarithms(tensors, name, per_element if tuple(tensor.shape) == per_element else per_tensor)
    return sizes


def _logarithms(tensors: Parameters, name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = tensor_of(tensors, f"step_sizes/{name}", torch.float32, shape)
    if float(tensor.abs().max()) > LARGEST_LOG_STEP_SIZE:
        raise ValueError(f"step_sizes/{name} are beyond e^{LARGEST_LOG_STEP_SIZE:g}")
    return tensor


def _writable(provenance: Any) -> dict[str, Any]:
    """Return a provenance. Raises: ValueError if it cannot be written again, as integers beyond 2^53 cannot."""
    try:
        rfc8785.dumps(provenance)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(f"a provenance that has no canonical form ({error})") from error
    return mapping_of(provenance)
