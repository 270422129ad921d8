"""Changed `.inr` files for the fuzzer: it takes a valid file apart, rewrites fields and puts it together again.

Everything follows from the `Random` that is given.
"""

import zlib
from collections.abc import Callable
from random import Random

import cbor2
from fuzz_headers import (
    add_mask,
    add_residual,
    change_chunk,
    change_chunking,
    change_field,
    change_grid,
    change_header_bytes,
    change_mask,
    change_order,
    change_residual,
    dream_chunk,
    dream_residual,
)
from fuzz_initializations import change_initialization_bytes, change_settings, change_tensors
from fuzz_sections import Sections, put_together, take_apart
from fuzz_values import other_bytes
from second_decoder import Refused

UNREADABLE = (cbor2.CBORError, zlib.error, Refused, LookupError, TypeError, ValueError, OverflowError, ArithmeticError)
"""What taking apart raises of parts that were changed before."""


def change_framing(data: bytes, random: Random) -> bytes:
    """Rewrite bytes of a file, whatever they are; checksums too, so that few get further."""
    if random.random() < 0.5:
        return other_bytes(data, random)
    place = random.randrange(5, min(len(data), 60))  # the first lengths
    length = random.choice([b"\x80", b"\xff" * 6, b"\x80\x80\x80\x80\x80\x20", b"\x00"])
    return data[:place] + length + data[place + random.randrange(2) :]


CHANGES: dict[str, Callable[[Sections, Random], Sections]] = {
    "header": change_field,
    "grid": change_grid,
    "chunking": change_chunking,
    "header bytes": change_header_bytes,
    "chunk": change_chunk,
    "symbols": dream_chunk,
    "residual": change_residual,
    "residual symbols": dream_residual,
    "residual added": add_residual,
    "mask": change_mask,
    "mask added": add_mask,
    "order": change_order,
    "settings": change_settings,
    "tensors": change_tensors,
    "initialization bytes": change_initialization_bytes,
}
FRAMING = "framing"
NEEDED = dict.fromkeys(("settings", "tensors", "initialization bytes"), "I")
NEEDED |= {"residual": "R", "residual symbols": "R", "mask": "M", "chunk": "C", "symbols": "C"}
"""The section that a change is of, where that is not every file's."""


def changed_file(data: bytes, random: Random, only: str | None = None) -> tuple[str, bytes]:
    """Return a changed copy of a valid file, and the kind of its first change; there may be up to three.

    only: the kind, instead of a random one.
    """
    sections = take_apart(data)
    there = {each.kind for each in sections}
    kinds = [kind for kind in [*CHANGES, FRAMING] if NEEDED.get(kind, "S") in there]
    kind = only or random.choice(kinds)
    if kind == FRAMING:
        return kind, change_framing(put_together(sections, random), random)
    for change in [kind, *random.choices(list(CHANGES), k=random.choice([0, 0, 0, 1, 2]))]:
        try:
            sections = CHANGES[change](sections, random)
        except UNREADABLE:  # what was changed before cannot be taken apart any more
            break
    return kind, put_together(sections, random)
