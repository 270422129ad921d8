"""Whether a NetCDF classic file is complete, by its own header."""

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

from inrcodec.errors import SignalError


def check_length(path: Path) -> None:
    """Compare a classic file's length with what its header announces: the NetCDF library reads zeros where
    the file is cut off. Other files pass.

    Raises: SignalError for a file that is cut off.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            return
        length = os.fstat(file.fileno()).st_size
        try:
            needed = _Header(file, magic[3]).data_end()
        except struct.error:
            needed = length + 1
    if needed > length:
        raise SignalError(f"{path}: cut off: {length} bytes of at least {needed}; fetch the file again")


class _Header:
    """The header of a classic file (CDF-1, 64-bit offset, CDF-5), read as far as the places of the data."""

    type_sizes = (0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8)

    def __init__(self, file: BinaryIO, version: int) -> None:
        self.file = file
        self.count_format = ">q" if version == 5 else ">i"
        self.offset_format = ">i" if version == 1 else ">q"

    def number(self, number_format: str) -> int:
        value = struct.unpack(number_format, self.file.read(struct.calcsize(number_format)))[0]
        return int(value)

    def count(self) -> int:
        return self.number(self.count_format)

    def skip(self, size: int) -> None:
        if size < 0:
            raise struct.error("negative size")
        self.file.seek(-(-size // 4) * 4, os.SEEK_CUR)

    def list_length(self) -> int:
        self.number(">i")
        return self.count()

    def skip_attributes(self) -> None:
        for _ in range(self.list_length()):
            self.skip(self.count())
            size = self.type_sizes[self.number(">i") % len(self.type_sizes)]
            self.skip(size * self.count())

    def data_end(self) -> int:
        """Bytes up to the last value. Raises: struct.error if the header itself is cut off."""
        records = self.count()
        sizes = []
        for _ in range(self.list_length()):
            self.skip(self.count())
            sizes.append(self.count())
        self.skip_attributes()
        variables = []
        for _ in range(self.list_length()):
            self.skip(self.count())
            shape = [self.dimension(sizes) for _ in range(self.count())]
            self.skip_attributes()
            size = self.type_sizes[self.number(">i") % len(self.type_sizes)]
            self.count()
            begin = self.number(self.offset_format)
            recorded = bool(shape) and shape[0] == 0
            variables.append((begin, size * math.prod(shape[1:] if recorded else shape), recorded))
        recorded_sizes = [size for _, size, recorded in variables if recorded]
        record = sum(-(-size // 4) * 4 for size in recorded_sizes) if len(recorded_sizes) > 1 else sum(recorded_sizes)
        ends = [self.file.tell()]
        for begin, size, recorded in variables:
            if not recorded:
                ends.append(begin + size)
            elif records > 0:
                ends.append(begin + (records - 1) * record + size)
        return max(ends)

    def dimension(self, sizes: list[int]) -> int:
        index = self.count()
        if not 0 <= index < len(sizes):
            raise struct.error("no such dimension")
        return sizes[index]
