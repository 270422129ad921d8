"""Initializations and their files: what comes back, and what names them."""

import hashlib
import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_weights import FIELDS, NAMES, SIREN, untrained_initialization

from inrcodec.adaptation import SHARED
from inrcodec.errors import InitializationError, UnknownInitialization
from inrcodec.initialization import Initialization
from inrcodec.models import Parameters, PointField
from inrcodec.patches import PatchConfig
from inrcodec.priors import DeltaPrior
from inrcodec.registry import PATH_VARIABLE, find_initialization, named_initialization
from inrcodec.settings import AdaptationConfig, StepSizeKind
from inrcodec.weights.model import WeightModel


@pytest.mark.parametrize("kind", ["none", "scalar", "tensor", "tensor-step", "element"])
@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
def test_initialization_round_trip(field: PointField, kind: StepSizeKind) -> None:
    original = untrained_initialization(field, kind)
    copy = Initialization.from_bytes(original.to_bytes())
    for name in ("modality", "field", "patches", "adaptation", "provenance"):
        assert getattr(copy, name) == getattr(original, name)
    ours, theirs = WeightModel.of(original), WeightModel.of(copy)
    assert theirs.prior.step_indices == ours.prior.step_indices
    for own, other in (
        (original.theta_0, copy.theta_0),
        (original.log_step_sizes, copy.log_step_sizes),
        (ours.prior.scales, theirs.prior.scales),
    ):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in own)
    assert list(copy.theta_0) == list(original.theta_0)
    assert copy.identifier == original.identifier
    assert copy.to_bytes() == original.to_bytes()
    adapted = sum(original.theta_0[name].numel() for name in field.adapted_shapes())
    assert copy.coded_parameters == theirs.delta_size == adapted


def changed(parameters: Parameters, name: str, amount: float = 1) -> Parameters:
    """Return parameters of which one number is another."""
    value = parameters[name].clone()
    value.view(-1)[-1] += amount
    return {**parameters, name: value}


def test_identifier_names_the_content_and_nothing_else() -> None:
    base = untrained_initialization()
    prior = WeightModel.of(base).prior
    assert len(base.identifier) == 8
    assert replace(base, provenance={"seconds": 99}).identifier == base.identifier
    others = [
        replace(base, modality="video"),
        replace(base, field=replace(SIREN, w0=31.0)),
        replace(base, patches=PatchConfig((8, 8), (1, 1), extent=2.0)),
        replace(base, patches=PatchConfig((8, 8), (1, 1), normalize=False)),
        replace(base, patches=PatchConfig((8, 8), (2, 1))),
        replace(base, adaptation=AdaptationConfig(steps=2, gamma=0.6)),
        replace(base, adaptation=AdaptationConfig(steps=2, gamma=0.5, score="error")),
        replace(base, prior=replace(prior, step_indices=(*prior.step_indices[:-1], 0))),
    ]
    for name in base.theta_0:
        others.append(replace(base, theta_0=changed(base.theta_0, name)))
        others.append(replace(base, log_step_sizes=changed(base.log_step_sizes, name)))
        others.append(replace(base, prior=replace(prior, scales=changed(prior.scales, name))))
    identifiers = [other.identifier for other in others]
    assert len({base.identifier, *identifiers}) == len(others) + 1


def test_identifier_is_the_hash_of_canonical_json_and_tensors() -> None:
    """What it is made of is part of the format: published identifiers never change."""
    theta = {name: torch.zeros(shape) for name, shape in SIREN.shapes().items()}
    plain = Initialization(
        modality="image",
        field=SIREN,
        patches=PatchConfig((8, 8), (1, 1)),
        adaptation=AdaptationConfig(),
        theta_0=theta,
        log_step_sizes={SHARED: torch.full((1,), -2.0)},
        prior=DeltaPrior({name: value.to(torch.int16) for name, value in theta.items()}, (0,) * len(theta)),
    )
    spelled = (
        b'{"adaptation":{"gamma":0.25,"score":"grad-norm","steps":16},'
        b'"field":{"depth":3,"in_features":2,"name":"siren","out_features":3,"w0":30,"width":6},'
        b'"format":1,"modality":"image",'
        b'"patches":{"extent":1,"normalize":true,"overlap":[1,1],"shape":[8,8],"sphere":false},'
        b'"step_indices":[0,0,0,0,0,0]}'
    )
    shapes = {"head.bias": [3], "head.weight": [3, 6], "layer0.bias": [6], "layer0.weight": [6, 2]}
    shapes |= {"layer1.bias": [6], "layer1.weight": [6, 6]}
    for name, shape in shapes.items():
        spelled += f"scales/{name} I16 {shape}\n".encode() + bytes(2 * math.prod(shape))
    spelled += b"step_sizes/shared F32 [1]\n" + struct.pack("<f", -2.0)
    for name, shape in shapes.items():
        spelled += f"theta_0/{name} F32 {shape}\n".encode() + bytes(4 * math.prod(shape))
    assert plain.identifier == hashlib.sha256(spelled).digest()[:8]
    assert plain.identifier.hex() == "1b5dac3b049f642f"


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InitializationError, match="nowhere"):
        Initialization.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(InitializationError, match="cannot read"):
        Initialization.load(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(InitializationError, match=r"bad\.safetensors"):
        Initialization.load(tmp_path / "bad.safetensors")


def test_a_damaged_file_does_not_hide_a_sound_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both say that they have the same identifier."""
    original = untrained_initialization()
    damaged = bytearray(original.to_bytes())
    damaged[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(damaged)
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path))
    with pytest.raises(UnknownInitialization, match=original.identifier.hex()):
        find_initialization(original.identifier)
    (tmp_path / "b.safetensors").write_bytes(original.to_bytes())
    assert find_initialization(original.identifier).to_bytes() == original.to_bytes()
    assert named_initialization(original.identifier.hex()).to_bytes() == original.to_bytes()
    with pytest.raises(InitializationError, match=r"a\.safetensors: the identifier .* is not that of the content"):
        named_initialization("a")
