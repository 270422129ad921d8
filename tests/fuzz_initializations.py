"""Changes of embedded initializations: their settings and tensors, with identifiers that are right again."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy
from fuzz_sections import Sections, suited, with_payload
from fuzz_values import other_bytes, other_inside
from second_decoder.initialization import identifier_of


def change_settings(sections: Sections, random: Random) -> Sections:
    """Rewrite a setting of an embedded initialization."""

    def change(document: Any, tensors: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
        if random.random() < 0.5:
            return {**document, **_plausible(document, random)}, tensors
        groups = [key for key in document if key not in ("identifier", "provenance")]
        key = random.choice([*groups, "field", "patches", "patches"])
        changed = {**document, key: other_inside(document.get(key), random)}
        return (changed, tensors) if random.random() < 0.95 else (other_inside(document, random), tensors)

    return _with_initialization(sections, random, change)


def _plausible(document: Any, random: Random) -> dict[str, Any]:
    """Return a setting that suits the tensors, however strange it is."""
    patches = dict(document["patches"])
    shape = [random.choice([1, 2, 3, 5, side, side + 1, 64, 1 << 31]) for side in patches["shape"]]
    overlap = [random.choice([0, 0, 1, side - 1, side // 2]) for side in shape]
    changed: list[dict[str, Any]] = [
        {"shape": shape, "overlap": [min(each, side - 1) for each, side in zip(overlap, shape, strict=True)]},
        {"extent": random.choice([1e-300, 1e-9, 1, 30.5, 65536])},
        {"normalize": not patches["normalize"]},
        {"sphere": not patches["sphere"]},
    ]
    field = dict(document["field"])
    own = [name for name in ("w0", "scale", "hop") if name in field]
    if own and random.random() < 0.3:
        return {"field": {**field, own[0]: random.choice([1, 2, 3, 31, 512, 4096])}}
    return {"patches": {**patches, **random.choice([changed[0], *changed])}}


def change_tensors(sections: Sections, random: Random) -> Sections:
    """Rewrite a tensor of an embedded initialization: numbers, type, shape or name."""

    def change(document: Any, tensors: dict[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
        name = random.choice(sorted(tensors))
        return document, _other_tensors(tensors, name, random)

    return _with_initialization(sections, random, change)


def _other_tensors(tensors: dict[str, np.ndarray], name: str, random: Random) -> dict[str, np.ndarray]:
    tensor = tensors[name]
    what = random.randrange(10)
    if what == 0:
        return {other: value for other, value in tensors.items() if other != name}
    if what == 1:
        return {**tensors, f"{name}{random.choice('.x/')}": tensor}
    if what == 2:
        return {**tensors, name: tensor.astype(random.choice(["f4", "f8", "f2", "i2", "i4", "i8", "u1"]))}
    if what == 3:
        return {**tensors, name: np.ascontiguousarray(random.choice([tensor[None], tensor.ravel(), tensor[:-1]]))}
    other = tensor.copy()
    extremes = [0, 1, -1]
    if tensor.dtype.kind == "f":
        extremes += [1e38, -1e38, 1e-45, 3e4, math.inf, math.nan, 49.0, -49.0]
    else:
        limits = np.iinfo(tensor.dtype)
        extremes += [int(limits.min), int(limits.max), 1000, -1000, min(2**24 - 1, int(limits.max))]
    extreme = random.choice(extremes)
    if what < 7:
        other.reshape(-1)[random.randrange(max(1, tensor.size)) :][:1] = extreme
    else:
        other[...] = extreme
    return {**tensors, name: other}


def change_initialization_bytes(sections: Sections, random: Random) -> Sections:
    """Rewrite bytes of an embedded initialization."""
    return with_payload(sections, random, "I", lambda payload: other_bytes(payload, random))


def _with_initialization(sections: Sections, random: Random, change: Callable[..., tuple[Any, Any]]) -> Sections:
    """Change an embedded initialization, compute its identifier anew and let the streams use it."""
    before: list[bytes] = []

    def changed(payload: bytes) -> bytes:
        try:
            tensors = safetensors.numpy.load(payload)
            length = int.from_bytes(payload[:8], "little")
            document = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["inrcodec"])
            before.append(bytes.fromhex(document["identifier"]))
            document, tensors = change(document, tensors)
            identifier = identifier_of(document, tensors)
            document["identifier"] = identifier.hex()
            before.append(identifier)
        except Exception:  # what was changed before need not be an initialization, what it is changed to neither
            before.clear()
            return other_bytes(payload, random)
        text = json.dumps(document, ensure_ascii=False)
        return bytes(safetensors.numpy.save(tensors, metadata={"inrcodec": text}))

    sections = with_payload(sections, random, "I", changed)
    if not before:
        return sections
    old, new = before
    sections = [replace(s, payload=s.payload.replace(old, new)) if s.kind == "S" else s for s in sections]
    return suited(sections, random)
