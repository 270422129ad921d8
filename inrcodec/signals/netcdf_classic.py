"""Checking that a NetCDF classic file is complete: the NetCDF library reads zeros where it is cut off."""

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

from inrcodec.errors import SignalError

_TYPE_SIZES = (0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8)


def check_length(path: Path) -> None:
    """Compare a classic file's length with what its header announces. Other files pass.

    Raises: SignalError for a file that is cut off.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            return
        length = os.fstat(file.fileno()).st_size
        try:
            needed = _data_end(file, ">q" if magic[3] == 5 else ">i", ">i" if magic[3] == 1 else ">q")
        except struct.error:
            needed = length + 1
    if needed > length:
        raise SignalError(f"{path}: cut off: {length} bytes of at least {needed}; fetch the file again")


def _data_end(file: BinaryIO, count_format: str, offset_format: str) -> int:
    """Return where the last value ends by the header, in bytes. Raises: struct.error if the header is cut off."""

    def number(kind: str = count_format) -> int:
        return int(struct.unpack(kind, file.read(struct.calcsize(kind)))[0])

    def skip(size: int) -> None:
        if size < 0:
            raise struct.error("negative size")
        file.seek(-(-size // 4) * 4, os.SEEK_CUR)

    def items() -> range:
        number(">i")  # what is listed
        return range(number())

    def type_size() -> int:
        return _TYPE_SIZES[number(">i") % len(_TYPE_SIZES)]

    def skip_attributes() -> None:
        for _ in items():
            skip(number())
            skip(type_size() * number())

    records = number()
    sizes = []
    for _ in items():
        skip(number())
        sizes.append(number())
    skip_attributes()
    fixed, recorded = [file.tell()], []
    for _ in items():
        skip(number())
        dimensions = [number() for _ in range(number())]
        if not all(0 <= dimension < len(sizes) for dimension in dimensions):
            raise struct.error("no such dimension")
        shape = [sizes[dimension] for dimension in dimensions]
        skip_attributes()
        width = type_size()
        number()
        begin = number(offset_format)
        if shape and shape[0] == 0:
            recorded.append((begin, width * math.prod(shape[1:])))
        else:
            fixed.append(begin + width * math.prod(shape))
    # Records are padded unless there is only one variable of them.
    record = sum(-(-size // 4) * 4 for _, size in recorded) if len(recorded) > 1 else sum(s for _, s in recorded)
    return max(fixed + [begin + (records - 1) * record + size for begin, size in recorded if records > 0])
