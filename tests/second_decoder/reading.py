"""What reading any part of a file needs: refusals, varints and zlib streams.

It follows "File" and the first lines of docs/FORMAT.md.
"""

import zlib


class Refused(Exception):
    """The file breaks a rule of the format."""


def require(condition: bool, rule: str) -> None:
    """Refuse the file unless the condition holds. rule: what should be so."""
    if not condition:
        raise Refused(f"a rule is broken: {rule}")


def read_varint(data: bytes, begin: int) -> tuple[int, int]:
    """Return the varint at a place, which has no more bytes than it needs, and the place after it."""
    value = 0
    for count, byte in enumerate(data[begin : begin + 6]):
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            require(count == 0 or byte > 0, "a varint has no more bytes than it needs")
            return value, begin + count + 1
    raise Refused(f"the varint at byte {begin} does not end")


def inflate(data: bytes, limit: int) -> bytes:
    """Return what one zlib stream with nothing after it unpacks to: at most `limit` bytes."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise Refused(f"a zlib stream is damaged: {error}") from error
    require(len(content) <= limit, f"a zlib stream unpacks to at most {limit} bytes")
    require(inflater.eof and not inflater.unused_data, "a zlib stream and its data end together")
    return content
