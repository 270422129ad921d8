"""Initializations: their file, their tensors and their identifier.

It follows "Initialization" of docs/FORMAT.md.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import rfc8785
from safetensors import SafetensorError
from safetensors.numpy import load

from second_decoder import clip, entropy_model, pyramid, series, spectrum, weight_fields
from second_decoder.reading import Refused, require

TYPES = {"float32": "F32", "int16": "I16"}


@dataclass(frozen=True)
class Initialization:
    """All that was meta-learned. document: its settings. tensors: by their full names."""

    identifier: bytes
    document: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def field(self) -> Mapping[str, Any]:
        """The settings of the field."""
        return self.document["field"]

    @property
    def patches(self) -> Mapping[str, Any]:
        """The settings of the patches."""
        return self.document["patches"]

    def named(self, group: str) -> dict[str, np.ndarray]:
        """Return the tensors `group/NAME` by NAME: floats as float64, integers as int64."""
        found = {name.removeprefix(f"{group}/"): t for name, t in self.tensors.items() if name.startswith(f"{group}/")}
        return {name: t.astype(np.float64 if t.dtype.kind == "f" else np.int64) for name, t in found.items()}


def read_initialization(data: bytes) -> Initialization:
    """Return the initialization that a safetensors file has."""
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        document = json.loads(
            header["__metadata__"]["inrcodec"], object_pairs_hook=_different_keys, parse_constant=_no_number
        )
        computed = identifier_of(document, tensors)
        require(document["identifier"] == computed.hex(), "the identifier of an initialization is that of its content")
        require(_tensors_fit(document["field"], document, tensors), "an initialization has the tensors of its field")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"an initialization is no such file: {error!r}") from error
    return Initialization(computed, document, tensors)


def identifier_of(document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Compute the identifier, 8 bytes."""
    hashed = {key: value for key, value in document.items() if key not in ("identifier", "provenance")}
    digest = hashlib.sha256(rfc8785.dumps(hashed))
    for name, tensor in sorted(tensors.items()):
        kind = TYPES.get(tensor.dtype.name)
        require(kind is not None, "a tensor is F32 or I16")
        digest.update(f"{name} {kind} {list(tensor.shape)}\n".encode())
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:8]


def _different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    require(len(dict(pairs)) == len(pairs), "the keys of an object are different")
    return dict(pairs)


def _no_number(constant: str) -> float:
    raise Refused(f"the document has {constant}")


def _tensors_fit(field: Mapping[str, Any], document: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bool:
    """Say whether the tensors that decoders need, and no others, are there in their types and shapes."""
    if field["name"] in weight_fields.NAMES:
        coded = weight_fields.coded_tensors(field)
        shared = {**coded, **weight_fields.other_tensors(field)}
        prior = {f"scales/{name}": ("int16", shape) for name, shape in coded.items()}
    else:
        family = {"pyramid": pyramid, "clip": clip, "series": series, "spectrum": spectrum}[field["name"]]
        shared = family.shared_tensors(field)
        hidden = document["entropy_model"]["hidden"]
        prior = {
            f"entropy_model/{kind}{name}": ("float32", shape)
            for kind in family.KINDS
            for name, shape in entropy_model.weight_tensors(
                family.grids_of(field), hidden, hints=(field["name"], kind) == ("series", "inter.")
            ).items()
        }
    expected = prior | {f"theta_0/{name}": ("float32", shape) for name, shape in shared.items()}
    found = {name: (t.dtype.name, t.shape) for name, t in tensors.items() if not name.startswith("step_sizes/")}
    return found == expected
