"""The sections of a `.inr` file for the fuzzer: to take a file apart, and to put it together with what is right again.

That is checksums, and where it makes a reader go further the number of chunks and the size of the mask.
"""

import functools
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import numpy as np
from headers import file_with, section
from second_decoder import Initialization, Refused, read_initialization
from second_decoder.header import Header, HeaderReader
from second_decoder.patches import layout_of
from second_decoder.reading import inflate
from second_decoder.sections import read_sections

MODALITY, IDENTIFIER, DTYPE, AXES, CHANNELS, TOGETHER, CHUNKS, CODING = range(8)
RANGE, NAME, FLAGS, ATTRIBUTES, BOUND = range(8, 13)
DEFAULTS: list[Any] = [None, "", 0, {}, None]
MOST_CHUNKS = 64
"""Chunks that are put into a file to suit its header."""


@dataclass(frozen=True)
class Section:
    """A section of a file. payload: of a header its content, neither packed nor marked."""

    kind: str
    payload: bytes


Sections = list[Section]
Patches = dict[bytes, dict[str, Any]]
"""How initializations cut signals into patches, by identifier."""

PUBLISHED = Path(__file__).parent.parent / "assets" / "initializations"


def take_apart(data: bytes) -> Sections:
    """Return the sections of a valid file."""
    return [Section(kind, _content(kind, payload)) for kind, payload in read_sections(data)]


def _content(kind: str, payload: bytes) -> bytes:
    if kind != "S":
        return payload
    return inflate(payload[1:], 1 << 24) if payload[0] else payload[1:]


def put_together(sections: Sections, random: Random) -> bytes:
    """Return the file of sections, with checksums that are right. Headers are packed or not."""
    parts = []
    for each in sections:
        payload = each.payload
        if each.kind == "S":
            payload = random.choice([b"\0" + payload, b"\1" + zlib.compress(payload)])
        parts.append(section(each.kind.encode("latin1"), payload))
    return file_with(*parts)


@functools.cache
def published() -> list[Initialization]:
    """Return the published initializations, as the second decoder reads them."""
    return [read_initialization(path.read_bytes()) for path in sorted(PUBLISHED.glob("*.safetensors"))]


def fields_of(content: bytes) -> list[Any]:
    """Return all 13 fields of a header; fewer or more of one that was changed before."""
    fields = list(cbor2.loads(content))
    return fields + DEFAULTS[len(fields) - 8 :] if len(fields) >= 8 else fields


def with_payload(sections: Sections, random: Random, kind: str, change: Callable[[bytes], bytes]) -> Sections:
    """Change the payload of one of the sections of a kind, if there is any."""
    places = [number for number, each in enumerate(sections) if each.kind == kind]
    if not places:
        return sections
    place = random.choice(places)
    changed = replace(sections[place], payload=change(sections[place].payload))
    return [*sections[:place], changed, *sections[place + 1 :]]


def suited(sections: Sections, random: Random) -> Sections:
    """Give every stream the number of chunks and the mask that its header needs, as far as it can be read."""
    settings = {each.identifier: dict(each.patches) for each in published()}
    result: Sections = []
    rest = list(sections)
    while rest:
        each = rest.pop(0)
        if each.kind == "I":
            settings |= _settings_of(each.payload)
        if each.kind != "S":
            result.append(each)
            continue
        followers: Sections = []
        while rest and rest[0].kind in "MCR":
            followers.append(rest.pop(0))
        result += _suited_stream(each, followers, settings, random)
    return result


def _settings_of(payload: bytes) -> Patches:
    try:
        initialization = read_initialization(payload)
    except (Refused, MemoryError):
        return {}
    return {initialization.identifier: dict(initialization.patches)}


def _suited_stream(each: Section, followers: Sections, settings: Patches, random: Random) -> Sections:
    try:
        header = HeaderReader().read(b"\0" + each.payload)
        count = layout_of(header.axes, settings[header.identifier]).count
        fields = fields_of(each.payload)
    except (Refused, LookupError, ValueError, TypeError, ZeroDivisionError, OverflowError):
        return [each, *followers]
    chunks = -(-count // header.patches_per_chunk)
    if chunks > MOST_CHUNKS:
        return [each, *followers]
    fields[CHUNKS] = chunks
    own = {kind: [other for other in followers if other.kind == kind] for kind in "MCR"}
    payloads = [own["C"][i % len(own["C"])] if own["C"] else Section("C", b"") for i in range(chunks)]
    mask = [Section("M", _random_mask(header, random))] if header.has_mask else []
    return [Section("S", cbor2.dumps(fields)), *(mask or own["M"]), *payloads, *own["R"]]


def _random_mask(header: Header, random: Random) -> bytes:
    samples = math.prod(header.sizes)
    if samples > 1 << 22:
        return b""
    bits = np.zeros(samples, bool)
    begin, end = sorted(random.randrange(samples + 1) for _ in range(2))
    bits[begin:end] = True
    return zlib.compress(np.packbits(bits).tobytes())
