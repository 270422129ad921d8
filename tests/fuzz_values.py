"""Other values of any type for the fuzzer: those at the ends of ranges, of other types, and damaged ones."""

import math
import struct
from random import Random
from typing import Any

_EDGES = [0, 1, -1, 2, 7, 255, 256, 4096, 4097, 8192, 2**16, 2**20, 2**24, 2**26, 2**31 - 1, 2**31, 2**31 + 1, 2**32]
_EDGES += [2**40, 2**40 + 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63), -(2**64)]
_FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e-9, 255.0, 1e15, 1e38, 1e39, 1e308, -1e308, 5e-324, 65536.0]
_FLOATS += [math.inf, -math.inf, math.nan, 2.0**-1000, 2.0**1000, 2.0**-1001]
_TEXTS = ["", "alpha", "sound", "\n", "a\nb", "\x1b[2J", "\u202e", "\0", "ÿ", "x" * 300, "image", "siren", "9" * 5000]
_SHARE_OF_OTHER_TYPES = 0.15


def other_value(value: Any, random: Random) -> Any:
    """Return another value, most often of the same type."""
    if random.random() < _SHARE_OF_OTHER_TYPES:
        others: list[Any] = [None, True, False, 0, 1, -1, 0.5, "", b"", [], {}, [0], {"": 0}, [[[]]]]
        return random.choice(others)
    if type(value) is int:
        near = [value + 1, value - 1, 2 * value, value // 2, -value, float(value)]
        return random.choice([*near, *near, random.choice(_EDGES), random.randrange(40)])
    if type(value) is float:
        near = [-value, value * 2, value / 2, math.nextafter(value, 0), math.nextafter(value, math.inf)]
        return random.choice([*near, random.choice(_FLOATS), random.randrange(40)])
    if type(value) is str:
        return random.choice([random.choice(_TEXTS), value[1:], value + "x", value.upper()])
    if type(value) is bytes:
        return other_bytes(value, random)
    if type(value) is list:
        return _other_list(value, random)
    if type(value) is dict:
        return _other_map(value, random)
    return random.choice([0, 1, 2, not value, [random.choice(_FLOATS), random.choice(_FLOATS)]])


def other_inside(value: Any, random: Random) -> Any:
    """Return a value of which one part, however deep, is another one."""
    if random.random() < 0.7:
        if type(value) is list and value:
            place = random.randrange(len(value))
            return [*value[:place], other_inside(value[place], random), *value[place + 1 :]]
        if type(value) is dict and value:
            key = random.choice(sorted(value))
            return {**value, key: other_inside(value[key], random)}
    return other_value(value, random)


def other_bytes(data: bytes, random: Random) -> bytes:
    """Return other bytes: a bit flipped, some cut off, repeated, appended or rewritten."""
    size = len(data)
    begin, end = sorted(random.randrange(size + 1) for _ in range(2))
    what = random.randrange(9)
    if what < 3 and size:
        place = random.randrange(size)
        return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
    if what == 3:
        return data[:begin] + random.randbytes(min(end - begin, 100)) + data[end:]
    if what == 4:
        return data[:begin] + data[end:]
    if what == 5:
        return data[:end] + data[begin:]
    if what == 6:
        return data[:begin]
    if what == 7 and size >= 8:
        place = random.randrange(size - 7)
        number = random.choice([struct.pack("<d", random.choice(_FLOATS)), b"\xff" * 8, b"\0" * 8, b"\0" * 7 + b"\x80"])
        return data[:place] + number + data[place + 8 :]
    return random.choice([b"", data + b"\0", data + b"\1", random.randbytes(random.randrange(40))])


def _other_list(value: list[Any], random: Random) -> list[Any]:
    place = random.randrange(len(value) + 1)
    what = random.randrange(5)
    if what == 0:
        return value[:place] + value[place + 1 :]
    if what == 1:
        return value[:place] + value[place : place + 1] * 2 + value[place + 1 :]
    if what == 2:
        return value[::-1]
    if what == 3:
        return [*value[:place], random.choice([0, None, [], "x", 1.5]), *value[place:]]
    return random.choice([[], value * 2, value * 300 if len(value) < 9 else value])


def _other_map(value: dict[str, Any], random: Random) -> dict[str, Any]:
    what = random.randrange(4)
    if what == 0 and value:
        gone = random.choice(sorted(value))
        return {key: item for key, item in value.items() if key != gone}
    if what == 1:
        return {**value, random.choice(_TEXTS): random.choice([0, None, [], {}, "x", 1.5])}
    if what == 2:
        return {**value, "limits": [random.choice(_FLOATS), random.choice(_FLOATS)]}
    return {} if what == 3 else {**value, "zeros": [random.choice(_FLOATS), 1, 1, b""]}
