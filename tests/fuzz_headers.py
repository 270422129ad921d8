"""Changes of headers and of what follows them: masks, chunks, residuals, the order of sections."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import cbor2
import numpy as np
from fuzz_dreams import dreamt_chunk, dreamt_residual
from fuzz_sections import AXES, BOUND, DEFAULTS, FLAGS, TOGETHER, Section, Sections, fields_of, suited, with_payload
from fuzz_values import other_bytes, other_inside

from inrcodec.errors import CorruptFile, InrcodecError
from inrcodec.residual.section import pack_section, unpack_section

KINDS = "ISMCRE"
MASKED = 2


def change_field(sections: Sections, random: Random) -> Sections:
    """Rewrite a field of a header."""

    def change(fields: list[Any]) -> list[Any]:
        number = random.randrange(len(fields))
        fields[number] = other_inside(fields[number], random)
        return fields

    return _with_header(sections, random, change)


def change_grid(sections: Sections, random: Random) -> Sections:
    """Give an axis another size, kind or points."""

    def change(fields: list[Any]) -> list[Any]:
        axes = fields[AXES]
        number = random.randrange(len(axes))
        axis = axes[number] if type(axes[number]) is list else [axes[number], 0]
        size = random.choice([1, 2, 3, axis[0] + 1, 2 * axis[0], max(1, axis[0] // 2), random.randrange(1, 60)])
        if random.random() < 0.02:
            size = 1 << random.randrange(10, 21)
        kind = random.choice([axis[1], axis[1], random.randrange(5)])
        rate = [random.choice([1, 25, 8000, 44100]), random.choice([1, 1001])] if kind == 1 else []
        points = [_points(size, random)] if random.random() < 0.3 else []
        axes[number] = [size, kind, *rate, *points]
        return fields

    return suited(_with_header(sections, random, change), random)


def _points(size: int, random: Random) -> Any:
    first, step = random.uniform(-200, 200), random.uniform(-20, 20)
    rule = random.randrange(5)
    if rule < 3:
        return [rule, first, step if rule == 1 else first + step]
    return np.arange(first, first + step * (size - 0.5), step)[:size].astype(["<f4", "<f8"][rule - 3]).tobytes()


def change_chunking(sections: Sections, random: Random) -> Sections:
    """Give a stream another number of patches per chunk."""

    def change(fields: list[Any]) -> list[Any]:
        fields[TOGETHER] = random.choice([1, 2, 3, 5, 1 << 20, 1 << 31])
        return fields

    return suited(_with_header(sections, random, change), random)


def change_header_bytes(sections: Sections, random: Random) -> Sections:
    """Rewrite bytes of a header, whatever they mean."""
    return with_payload(sections, random, "S", lambda content: other_bytes(content, random))


def _with_header(sections: Sections, random: Random, change: Callable[[list[Any]], list[Any]]) -> Sections:
    """Change the fields of a header; defaults at the end are sometimes spelled out."""

    def changed(content: bytes) -> bytes:
        fields = change(fields_of(content))
        spelled_out = random.random() < 0.2
        while not spelled_out and len(fields) > 8 and fields[-1] == DEFAULTS[len(fields) - 9 :][0]:
            fields.pop()
        return cbor2.dumps(fields)

    return with_payload(sections, random, "S", changed)


def change_chunk(sections: Sections, random: Random) -> Sections:
    """Rewrite bytes of a chunk."""
    return with_payload(sections, random, "C", lambda payload: other_bytes(payload, random))


def change_residual(sections: Sections, random: Random) -> Sections:
    """Rewrite a residual: the error it was made for, its lengths, its batches or what follows them."""

    def change(payload: bytes) -> bytes:
        try:
            (slab,) = unpack_section(payload, 1)
        except CorruptFile:
            slab = b""
        if len(slab) < 10 or not random.randrange(5):
            return other_bytes(payload, random)
        begin, end = random.choice([(0, 8), (8, 9), (9, 9 + slab[8]), (9 + slab[8], len(slab))])
        return pack_section([slab[:begin] + other_bytes(slab[begin:end], random) + slab[end:]])

    return with_payload(sections, random, "R", change)


def add_residual(sections: Sections, random: Random) -> Sections:
    """Give a stream a largest error and a residual, or take them away."""
    streams = [number for number, each in enumerate(sections) if each.kind == "S"]
    if not streams:
        return sections
    place = random.choice(streams)
    fields = fields_of(sections[place].payload)
    bound = random.choice([0.5, 1, 2.0**-1000, 2.0**1000, 2.0**-149])
    fields[BOUND : BOUND + 1] = [bound]
    end = place + 1
    while end < len(sections) and sections[end].kind in "MC":
        end += 1
    batches = random.randbytes(random.randrange(30))
    payload = np.float64(bound).tobytes() + bytes([len(batches)]) + batches + random.randbytes(random.randrange(9))
    residual = Section("R", random.choice([b"", payload, pack_section([payload])]))
    header = Section("S", cbor2.dumps(fields))
    return [*sections[:place], header, *sections[place + 1 : end], residual, *sections[end:]]


def change_mask(sections: Sections, random: Random) -> Sections:
    """Rewrite a mask, unpacked or as it is packed."""

    def change(payload: bytes) -> bytes:
        if random.random() < 0.3:
            return other_bytes(payload, random)
        return zlib.compress(other_bytes(zlib.decompress(payload), random))

    return with_payload(sections, random, "M", change)


def add_mask(sections: Sections, random: Random) -> Sections:
    """Give a stream a mask, with its flag."""

    def change(fields: list[Any]) -> list[Any]:
        fields[FLAGS] = fields[FLAGS] | MASKED if type(fields[FLAGS]) is int else MASKED
        return fields

    return suited(_with_header(sections, random, change), random)


def change_order(sections: Sections, random: Random) -> Sections:
    """Drop, repeat, move or rename a section."""
    sections = list(sections)
    place = random.randrange(len(sections))
    what = random.randrange(4)
    if what == 0 and len(sections) > 1:
        del sections[place]
    elif what == 1:
        sections.insert(random.randrange(len(sections) + 1), sections[place])
    elif what == 2:
        sections.insert(random.randrange(len(sections)), sections.pop(place))
    else:
        sections[place] = replace(sections[place], kind=random.choice(KINDS + "X\0\xff"))
    return sections


def dream_chunk(sections: Sections, random: Random) -> Sections:
    """Replace a chunk by one of made-up symbols that decodes."""
    embedded = [each.payload for each in sections if each.kind == "I"]
    return _dreamt(sections, random, "C", lambda header, number: dreamt_chunk(header, embedded, number, random))


def dream_residual(sections: Sections, random: Random) -> Sections:
    """Replace a residual by one of made-up symbols that decodes."""
    return _dreamt(sections, random, "R", lambda header, _: dreamt_residual(header, random))


def _dreamt(sections: Sections, random: Random, kind: str, make: Callable[[bytes, int], bytes]) -> Sections:
    places = [number for number, each in enumerate(sections) if each.kind == kind]
    place = random.choice(places) if places else 0
    headers = [number for number in range(place) if sections[number].kind == "S"]
    if not headers:
        return sections
    number = sum(each.kind == "C" for each in sections[headers[-1] : place])
    try:
        payload = make(sections[headers[-1]].payload, number)
    except InrcodecError:  # the header was changed before, and nothing reads it any more
        return sections
    return [*sections[:place], Section(kind, payload), *sections[place + 1 :]]
