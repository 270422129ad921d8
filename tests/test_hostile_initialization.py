"""Initialization files of strangers: whatever is wrong with one is an error of one line."""

import copy
import json
import math
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_latents import FIELD, initialization_of, latent_trainer, tiny_preset
from tiny_weights import NERV, untrained_initialization
from torch import Tensor

from inrcodec.errors import InitializationError
from inrcodec.initialization import Initialization
from inrcodec.latents.model import LatentModel
from inrcodec.models import LatentPyramid
from inrcodec.priors import LatentPrior

Document = dict[str, Any]
Change = Callable[[Document], object]


def parts(data: bytes) -> tuple[dict[str, Tensor], Document]:
    """Return the tensors and the document of a file."""
    length = int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["inrcodec"])
    return safetensors.torch.load(data), document


def assemble(tensors: dict[str, Tensor], document: Any) -> bytes:
    """Return the file of tensors and a document, which may be text that is none."""
    text = document if isinstance(document, str) else json.dumps(document)
    return safetensors.torch.save(tensors, metadata={"inrcodec": text})


def refuse(data: bytes) -> None:
    """Check that a file is refused, and before its content is compared with its identifier."""
    with pytest.raises(InitializationError) as caught:
        Initialization.from_bytes(data)
    message = str(caught.value)
    assert "\n" not in message
    assert "is not that of the content" not in message


def untrained_latents() -> Initialization:
    return initialization_of(latent_trainer(tiny_preset()), tiny_preset())


def test_what_is_taken_apart_and_put_together_again_is_accepted() -> None:
    """Or the other tests would say nothing."""
    for original in (untrained_initialization(), untrained_initialization(NERV), untrained_latents()):
        again = Initialization.from_bytes(assemble(*parts(original.to_bytes())))
        assert again.to_bytes() == original.to_bytes()


# Damage


def test_truncated_initializations_are_refused() -> None:
    data = untrained_initialization().to_bytes()
    for length in {*range(0, len(data), 97), *range(12), len(data) - 1}:
        refuse(data[:length])
    refuse(data + b"x")


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    refuse(data)


@settings(deadline=None, max_examples=100)
@given(header=st.binary(max_size=60), body=st.binary(max_size=20))
def test_random_headers_are_refused(header: bytes, body: bytes) -> None:
    refuse(struct.pack("<Q", len(header)) + header + body)


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing_that_counts(position: int, value: int) -> None:
    original = untrained_initialization()
    data = bytearray(original.to_bytes())
    data[position % len(data)] ^= value
    try:
        other = Initialization.from_bytes(bytes(data))
    except InitializationError as error:
        assert "\n" not in str(error)
        return
    assert other.identifier == original.identifier
    assert other.provenance != original.provenance or other.to_bytes() == original.to_bytes()


def test_an_identifier_that_is_not_the_contents_is_refused() -> None:
    tensors, document = parts(untrained_initialization().to_bytes())
    own = document["identifier"]
    for other in ("", own[:-1], own.upper(), "0" * 16, None, [own]):
        with pytest.raises(InitializationError, match="is not that of the content"):
            Initialization.from_bytes(assemble(tensors, document | {"identifier": other}))
    for name, value in tensors.items():
        moved = value.clone()
        moved.view(-1)[0] += 1
        with pytest.raises(InitializationError, match=f"is not that of the content, (?!{own})"):
            Initialization.from_bytes(assemble({**tensors, name: moved}, document))
    document["field"]["w0"] = 31
    with pytest.raises(InitializationError, match="is not that of the content"):
        Initialization.from_bytes(assemble(tensors, document))


@pytest.mark.parametrize("name", ["theta_0/head.weight", "step_sizes/head.weight", "scales/head.weight"])
def test_wrong_tensors_are_refused(name: str) -> None:
    tensors, document = parts(untrained_initialization().to_bytes())
    refuse(assemble({key: value for key, value in tensors.items() if key != name}, document))
    refuse(assemble(tensors | {f"{name}.more": tensors[name].clone()}, document))
    value = tensors[name]
    wrong = [
        value.double(),
        value.to(torch.int32),
        value.to(torch.bool),
        value.to(torch.bfloat16),
        value[:, :-1].contiguous(),
        value.flatten(),
        value[None].contiguous(),
        torch.zeros(0, dtype=value.dtype),
        torch.zeros((), dtype=value.dtype),
        torch.zeros((0, *value.shape[1:]), dtype=value.dtype),
    ]
    if value.is_floating_point():
        wrong += [torch.full_like(value, bad) for bad in (math.nan, math.inf)]
    if name.startswith("step_sizes"):
        wrong += [torch.full_like(value, bad) for bad in (-50.1, 50.1)]
    for tensor in wrong:
        refuse(assemble({**tensors, name: tensor}, document))


# Settings


CHANGES: dict[str, Change] = {
    "no format": lambda d: d.pop("format"),
    "another format": lambda d: d.update(format=2),
    "format of another type": lambda d: d.update(format="1"),
    "format true": lambda d: d.update(format=True),
    "no identifier": lambda d: d.pop("identifier"),
    "unknown setting": lambda d: d.update(colour="red"),
    "no field": lambda d: d.pop("field"),
    "no field name": lambda d: d["field"].pop("name"),
    "unknown field": lambda d: d["field"].update(name="mlp"),
    "field name of another type": lambda d: d["field"].update(name=["siren"]),
    "unknown option": lambda d: d["field"].update(colour="red"),
    "field is a list": lambda d: d.update(field=[]),
    "width of another field": lambda d: d["field"].update(width=7),
    "no width": lambda d: d["field"].update(width=0),
    "negative width": lambda d: d["field"].update(width=-6),
    "huge width": lambda d: d["field"].update(width=10**18),
    "astronomic width": lambda d: d["field"].update(width=10**4000),
    "fractional width": lambda d: d["field"].update(width=6.5),
    "width as text": lambda d: d["field"].update(width="6"),
    "other depth": lambda d: d["field"].update(depth=4),
    "negative depth": lambda d: d["field"].update(depth=-1),
    "depth as text": lambda d: d["field"].update(depth="3"),
    "no inputs": lambda d: d["field"].update(in_features=0),
    "no modality": lambda d: d.pop("modality"),
    "unknown modality": lambda d: d.update(modality="smell"),
    "modality is a list": lambda d: d.update(modality=["image"]),
    "no patches": lambda d: d.pop("patches"),
    "patches without shape": lambda d: d["patches"].pop("shape"),
    "overlap as large as the patch": lambda d: d["patches"].update(overlap=[8, 8]),
    "patch shape as text": lambda d: d["patches"].update(shape="88"),
    "patch shape as number": lambda d: d["patches"].update(shape=8),
    "unknown patch option": lambda d: d["patches"].update(colour="red"),
    "no adaptation": lambda d: d.pop("adaptation"),
    "unknown adaptation option": lambda d: d["adaptation"].update(colour="red"),
    "no step indices": lambda d: d.pop("step_indices"),
    "too few step indices": lambda d: d["step_indices"].pop(),
    "step indices as text": lambda d: d.update(step_indices="......"),
    "step indices as number": lambda d: d.update(step_indices=6),
    "fractional step indices": lambda d: d.update(step_indices=[0.5] * 6),
    "no provenance": lambda d: d.pop("provenance"),
    # Each of the following would be found out by the codec only, as a raw error or a wrong result.
    "w0 as text": lambda d: d["field"].update(w0="30"),
    "w0 is not a number": lambda d: d["field"].update(w0=math.nan),
    "w0 beyond floats": lambda d: d["field"].update(w0=10**400),
    "infinite w0": lambda d: d["field"].update(w0=math.inf),
    "w0 is a list": lambda d: d["field"].update(w0=[1, 1]),
    "w0 true": lambda d: d["field"].update(w0=True),
    "width as float": lambda d: d["field"].update(width=6.0),
    "inputs that the patches do not have": lambda d: d["patches"].update(shape=[8], overlap=[1]),
    "fractional patch": lambda d: d["patches"].update(shape=[8.5, 8]),
    "empty patch": lambda d: d["patches"].update(shape=[], overlap=[]),
    "patch beyond floats": lambda d: d["patches"].update(shape=[10**400, 8]),
    "huge patch": lambda d: d["patches"].update(shape=[2**31 + 1, 8]),
    "patches of a sphere of three axes": lambda d: d["patches"].update(shape=[8] * 3, overlap=[1] * 3, sphere=True),
    "huge extent": lambda d: d["patches"].update(extent=2**16 + 1),
    "extent as text": lambda d: d["patches"].update(extent="1"),
    "extent is not a number": lambda d: d["patches"].update(extent=math.nan),
    "extent beyond floats": lambda d: d["patches"].update(extent=10**400),
    "extent true": lambda d: d["patches"].update(extent=True),
    "normalize as text": lambda d: d["patches"].update(normalize="no"),
    "normalize as number": lambda d: d["patches"].update(normalize=1),
    "sphere as number": lambda d: d["patches"].update(sphere=0),
    "unknown score": lambda d: d["adaptation"].update(score="best"),
    "gamma as text": lambda d: d["adaptation"].update(gamma="0.5"),
    "gamma true": lambda d: d["adaptation"].update(gamma=True),
    "gamma is not a number": lambda d: d["adaptation"].update(gamma=math.nan),
    "negative gamma": lambda d: d["adaptation"].update(gamma=-0.5),
    "adaptation steps as text": lambda d: d["adaptation"].update(steps="2"),
    "adaptation steps true": lambda d: d["adaptation"].update(steps=True),
    "huge step indices": lambda d: d.update(step_indices=[10**30] * 6),
    "step indices true": lambda d: d.update(step_indices=[True] * 6),
    "provenance is a list": lambda d: d.update(provenance=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hostile_settings_are_refused(change: Change) -> None:
    tensors, document = parts(untrained_initialization().to_bytes())
    change(document)
    refuse(assemble(tensors, document))


LATENT_CHANGES: dict[str, Change] = {
    "no entropy model": lambda d: d.pop("entropy_model"),
    "entropy model is a list": lambda d: d.update(entropy_model=[]),
    "unknown setting of the entropy model": lambda d: d["entropy_model"].update(colour="red"),
    "step indices, which are of weights": lambda d: d.update(step_indices=[]),
    "no hidden units": lambda d: d["entropy_model"].update(hidden=0),
    "other hidden units": lambda d: d["entropy_model"].update(hidden=7),
    "hidden units true": lambda d: d["entropy_model"].update(hidden=True),
    "hidden units as text": lambda d: d["entropy_model"].update(hidden="6"),
    "huge hidden units": lambda d: d["entropy_model"].update(hidden=10**400),
    "levels as text": lambda d: d["field"].update(levels="12"),
    "levels that mean others": lambda d: d["field"].update(levels=[]),
    "levels as number": lambda d: d["field"].update(levels=1),
    "levels of one axis": lambda d: d["field"].update(levels=[2]),
    "levels that are text": lambda d: d["field"].update(levels=["1", "2"]),
    "negative levels": lambda d: d["field"].update(levels=[1, -2]),
    "too many levels": lambda d: d["field"].update(levels=[17, 17]),
    "predictions true": lambda d: d["field"].update(prediction=True),
    "no predictions": lambda d: d["field"].update(prediction=0),
    "references without pictures": lambda d: d["field"].update(references=2),
    "normalized patches": lambda d: d["patches"].update(normalize=True),
    "patches of a sphere": lambda d: d["patches"].update(sphere=True),
    "a score of weights": lambda d: d["adaptation"].update(score="error"),
    "a share of the context set": lambda d: d["adaptation"].update(gamma=0.5),
}


@pytest.mark.parametrize("change", LATENT_CHANGES.values(), ids=LATENT_CHANGES)
def test_hostile_settings_of_latents_are_refused(change: Change) -> None:
    tensors, document = parts(untrained_latents().to_bytes())
    change(document)
    refuse(assemble(tensors, document))


@pytest.mark.parametrize("key", ["format", "identifier", "field"])
def test_a_setting_twice_is_refused(key: str) -> None:
    """Though both say the same."""
    tensors, document = parts(untrained_initialization().to_bytes())
    text = json.dumps(document)
    own = f'"{key}": {json.dumps(document[key])}'
    refuse(assemble(tensors, text.replace(own, f"{own}, {own}")))
    refuse(assemble(tensors, f"{{{own}, {text[1:]}"))
    refuse(assemble(tensors, text.replace('"depth": 3', '"depth": 3, "depth": 3')))


def without_one_setting(document: Document) -> Iterator[Document]:
    """Yield the document without each of its settings, and without each setting of its groups."""
    for name, value in document.items():
        yield {other: value for other, value in document.items() if other != name}
        for inner in value if isinstance(value, dict) and name != "provenance" else ():
            less = copy.deepcopy(document)
            del less[name][inner]
            yield less


@pytest.mark.parametrize("latents", [False, True])
def test_every_setting_is_needed(latents: bool) -> None:
    """There are no defaults: a setting that is added later changes no initialization that exists."""
    original = untrained_latents() if latents else untrained_initialization()
    tensors, document = parts(original.to_bytes())
    changed = list(without_one_setting(document))
    assert len(changed) == (24 if latents else 22)
    for less in changed:
        refuse(assemble(tensors, less))


def test_a_bottomless_field_is_refused_before_it_is_laid_out() -> None:
    tensors, document = parts(untrained_initialization().to_bytes())
    document["field"]["depth"] = 20_000
    data = assemble(tensors, document)
    tracemalloc.start()
    refuse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "7", '"text"', "NaN", "1" * 5000, "[" * 100_000, '{"format":' * 50_000],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_documents_are_refused(text: str) -> None:
    tensors, _ = parts(untrained_initialization().to_bytes())
    refuse(assemble(tensors, text))


NERV_CHANGES: dict[str, Change] = {
    "two inputs": lambda d: d["field"].update(in_features=2),
    "no channels": lambda d: d["field"].update(channels=[]),
    "channels as number": lambda d: d["field"].update(channels=4),
    "base of one axis": lambda d: d["field"].update(base=[4]),
    "base as text": lambda d: d["field"].update(base="22"),
    "no upscaling": lambda d: d["field"].update(upscale=0),
    "huge octaves": lambda d: d["field"].update(octaves=10**12),
}


@pytest.mark.parametrize("change", NERV_CHANGES.values(), ids=NERV_CHANGES)
def test_hostile_nerv_configurations_are_refused(change: Change) -> None:
    tensors, document = parts(untrained_initialization(NERV).to_bytes())
    change(document)
    refuse(assemble(tensors, document))


# Weights of latent fields, whose sums must be exact


def used(initialization: Initialization, step_index: int = -30) -> None:
    """Make an initialization, as a file has it, ready to code with. Raises: InitializationError."""
    LatentModel.of(Initialization.from_bytes(initialization.to_bytes()), torch.device("cpu"), step_index)


def refuse_to_use(initialization: Initialization, step_index: int = -30) -> None:
    with pytest.raises(InitializationError, match=r"times too large for exact sums$") as caught:
        used(initialization, step_index)
    assert initialization.identifier.hex() in str(caught.value) and "\n" not in str(caught.value)


def with_weights(initialization: Initialization, changes: dict[str, float]) -> Initialization:
    """Return an initialization with the same number everywhere in some of the entropy model's tensors, zero in others.

    changes: the numbers, by the names of the tensors.
    """
    prior = initialization.prior
    assert isinstance(prior, LatentPrior)
    weights = {name: torch.full_like(value, changes.get(name, 0.0)) for name, value in prior.weights.items()}
    return replace(initialization, prior=replace(prior, weights=weights))


def test_too_large_weights_are_refused() -> None:
    """Six inputs of the entropy model's hidden layer, of up to 2047 / 128 in units of 1 / 128: below 2^24."""
    initialization = untrained_latents()
    hidden = "3.2.0.0.hidden.weight"
    for weight in (10.5, -10.5):
        used(with_weights(initialization, {hidden: weight}))
    for weight in (10.75, -10.75, 1e6, 3e38, -3e38):
        refuse_to_use(with_weights(initialization, {hidden: weight}))


def test_every_tensor_of_latents_can_be_too_large() -> None:
    settings = replace(tiny_preset(), field=LatentPyramid(2, 3, (1, 2), prediction=4, divided=2))
    initialization = initialization_of(latent_trainer(settings), settings)
    prior = initialization.prior
    assert isinstance(prior, LatentPrior)
    for name, value in initialization.theta_0.items():
        large = value.clone()
        large.view(-1)[0] = 3e38
        refuse_to_use(replace(initialization, theta_0=initialization.theta_0 | {name: large}))
    for name, value in prior.weights.items():
        large = value.clone()
        large.view(-1)[0] = -3e38
        weights = replace(prior, weights=prior.weights | {name: large})
        refuse_to_use(replace(initialization, prior=weights))


def test_a_bias_can_be_too_large_at_some_step_indices_alone() -> None:
    """The last two rows of a table are multiplied by the condition and its square, here -12 and 144 at the most."""
    initialization = untrained_latents()
    prior = initialization.prior
    assert isinstance(prior, LatentPrior)
    table = torch.zeros_like(prior.weights["3.2.0.0.input.bias"])
    table[-1] = 20.0
    weights = replace(prior, weights=prior.weights | {"3.2.0.0.input.bias": table})
    changed = replace(initialization, prior=weights)
    used(changed, -24)
    refuse_to_use(changed, -120)


def test_parts_whose_sums_are_beyond_exact_ones_are_refused() -> None:
    """The products of a part are added to those of the input: together they may pass the limit where neither does."""
    settings = replace(tiny_preset(), field=replace(FIELD, divided=1))
    initialization = initialization_of(latent_trainer(settings), settings)
    prior = initialization.prior
    assert isinstance(prior, LatentPrior)
    name = "3.2.0.0"
    inputs, own = (prior.weights[f"{name}.{part}.weight"][0].numel() for part in ("input", "part1"))
    largest = 2**24 / 2**7 / 2047
    of_input, of_part = 0.6 * largest / inputs, 0.6 * largest / own
    used(with_weights(initialization, {f"{name}.input.weight": of_input}))
    used(with_weights(initialization, {f"{name}.part1.weight": of_part}))
    refuse_to_use(with_weights(initialization, {f"{name}.input.weight": of_input, f"{name}.part1.weight": of_part}))
