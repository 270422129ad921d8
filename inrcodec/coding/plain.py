"""Plain values (None, bool, int, float, str, bytes, lists and str-keyed dicts of those) to CBOR and back.

Deliberately a small part of CBOR (RFC 8949): no tags, no items of indefinite length, only distinct strings as map keys,
and one spelling of every value. Bytes from outside are walked item by item before cbor2 builds anything, so that their
number is bounded by a `Budget`, however small the file.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import cbor2

MAX_DEPTH = 16
MAX_ITEMS = 1 << 16
MAX_GROWTH = 1 << 24

_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7  # CBOR's major types; 0 and 1 are integers
_SIMPLE_INFOS = (20, 21, 22, 25, 27)  # false, true, null, and floats of 16 (not finite) and 64 bits


@dataclass
class Budget:
    """The limits of all plain values of a file together.

    growth: by how many bytes they may be longer than what the file has for them. items: keys of maps among them.
    """

    growth: int = MAX_GROWTH
    items: int = MAX_ITEMS

    def grow(self, stored: int, inflated: int) -> None:
        """Take the growth of stored bytes. Raises: ValueError if there is not so much left."""
        self.growth -= max(0, inflated - stored)
        if self.growth < 0:
            raise ValueError(f"more content than {MAX_GROWTH} bytes beyond what is stored of all headers of a file")


def dumps(value: Any, budget: Budget | None = None) -> bytes:
    """Return the CBOR of a plain value, and take its items from the budget, a whole file's unless given.

    Raises: ValueError if it is none: another type, an integer beyond 64 bits, text that is no Unicode, nested
        deeper than `MAX_DEPTH`, or more than is left of the budget.
    """
    _check_value(value, 0)
    content: bytes = cbor2.dumps(value)
    _check_items(content, budget or Budget())
    return content


def loads(content: bytes, budget: Budget) -> Any:
    """Return the plain value that `dumps` was given, and take its items from the budget.

    Raises: ValueError if `content` is not exactly what `dumps` returns for some value, or the budget is exceeded.
    """
    _check_items(content, budget)
    try:
        value = cbor2.loads(content)
    except cbor2.CBORDecodeError as error:  # text that is not UTF-8
        raise ValueError(f"malformed CBOR ({error})") from error
    if cbor2.dumps(value) != content:
        raise ValueError("CBOR that spells a value otherwise than in its one way, or a map with a key twice")
    return value


def inflate(data: bytes, limit: int) -> bytes:
    """Return what a zlib stream unpacks to, never building more than `limit` bytes.

    Raises: ValueError if it is damaged, cut or longer than that, or if something follows it.
    """
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) > limit:
        raise ValueError(f"more than {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise ValueError("the zlib stream and its data do not end together")
    return content


def _check_value(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"values nested deeper than {MAX_DEPTH} levels")
    # Exact types: a NumPy float is a float too, but would not come back as what it was.
    if type(value) is list:
        for item in value:
            _check_value(item, depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError(f"a key that is not a string: {key!r:.80}")
            _check_value(key, depth + 1)
            _check_value(item, depth + 1)
    elif type(value) is int:
        if not -(1 << 64) <= value < 1 << 64:
            raise ValueError(f"an integer beyond 64 bits: {value!r:.80}")
    elif type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text that is not Unicode: {value!r:.80}") from error
    elif value is not None and type(value) not in (bool, float, bytes):
        raise ValueError(f"a value of type {type(value).__name__}: {value!r:.80}")


def _check_items(content: bytes, budget: Budget) -> None:
    """Raises: ValueError unless `content` is one well-formed item of the allowed part of CBOR, within the budget."""
    position = 0
    budget.items -= 1
    missing = [1]  # items still to come: of the whole, and of each array and map around the position
    in_map = [False]
    while missing:
        if missing[-1] == 0:
            missing.pop()
            in_map.pop()
            continue
        if position >= len(content):
            raise ValueError("CBOR ends early")
        major, info = content[position] >> 5, content[position] & 31
        position += 1
        if in_map[-1] and missing[-1] % 2 == 0 and major != _TEXT:
            raise ValueError(f"a CBOR map key of major type {major}, not text")
        missing[-1] -= 1
        argument, size = info, 0
        if info >= 24:
            if info > 27:
                raise ValueError(f"CBOR with additional information {info} (indefinite length or reserved)")
            size = 1 << (info - 24)
            argument = int.from_bytes(content[position : position + size], "big")
        position += size
        left = len(content) - position
        if left < 0:
            raise ValueError("CBOR ends early")
        if major in (_BYTES, _TEXT):
            position += argument
        elif major in (_ARRAY, _MAP):
            missing.append(argument * (2 if major == _MAP else 1))
            in_map.append(major == _MAP)
            argument = missing[-1]
            budget.items -= argument
            if len(missing) > MAX_DEPTH + 1:
                raise ValueError(f"CBOR nested deeper than {MAX_DEPTH} levels")
        elif major == _TAG or (major == _SIMPLE and info not in _SIMPLE_INFOS):
            raise ValueError(f"CBOR of major type {major} with additional information {info}")
        if budget.items < 0:
            raise ValueError(f"more than {MAX_ITEMS} values")
        if major in (_BYTES, _TEXT, _ARRAY, _MAP) and argument > left:
            raise ValueError(f"a CBOR length of {argument} where {left} bytes are left")
    if position != len(content):
        raise ValueError(f"{len(content) - position} bytes after the CBOR item")
