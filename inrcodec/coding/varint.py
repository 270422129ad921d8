"""Unsigned LEB128 integers: seven bits a byte, least significant first, the high bit set on all but the last."""

from inrcodec.errors import CorruptFile, TruncatedFile

MAX_BYTES = 6


def write_varint(value: int) -> bytes:
    """Return the bytes of an integer in 0..2^42 - 1."""
    if not 0 <= value < 1 << (7 * MAX_BYTES):
        raise ValueError(f"a varint holds 0..2^{7 * MAX_BYTES} - 1: {value = }")
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Return the integer at `start` and where the data goes on.

    Raises: TruncatedFile if it does not end in time, CorruptFile if it has more bytes than it needs.
    """
    value = 0
    for count, byte in enumerate(data[start : start + MAX_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte == 0 and count:
            raise CorruptFile(f"an integer at byte {start} has more bytes than it needs: obtain the file again")
        if byte < 0x80:
            return value, start + count + 1
    raise TruncatedFile(f"no integer at byte {start} of {len(data)}: obtain the file again")
