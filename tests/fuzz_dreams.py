"""Chunks and residuals of symbols that no encoder would write, but which decode: what a hostile encoder could send.

A reader is run with a coder that makes symbols up. Those are then entropy coded with the rows that the reader asked
for, so that it can read them again.
"""

import contextlib
import struct
from random import Random
from typing import cast

import numpy as np
import pytest
import torch

from inrcodec.coding import entropy
from inrcodec.coding.header import StreamHeader, unpack_header
from inrcodec.coding.plain import Budget
from inrcodec.coding.varint import write_varint
from inrcodec.errors import InrcodecError
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.registry import find_initialization
from inrcodec.residual import section as residual_section
from inrcodec.residual.payload import ResidualReader

MOST_SYMBOLS = 1 << 17
"""A reader that asks for more is not waited for."""


class Awake(Exception):
    """A reader asks for too many symbols."""


class Dreams:
    """Makes symbols up. parts: what was asked for and what was told.

    wild: the share of symbols that are as large as can be or nearly so.
    """

    def __init__(self, random: Random) -> None:
        self.parts: list[entropy.Batch] = []
        self.told = 0
        self.random = np.random.default_rng(random.getrandbits(32))
        self.wild = random.choice([0.0, 0.001, 0.01, 0.3])
        self.busy = random.choice([0.0, 0.05, 0.5])

    def symbols(self, rows: np.ndarray) -> np.ndarray:
        """Return symbols for rows, [n] int64."""
        self.told += len(rows)
        if self.told > MOST_SYMBOLS:
            raise Awake
        small = self.random.integers(-3, 4, len(rows)) * (self.random.random(len(rows)) < self.busy)
        if len(rows) == 1:  # a flag, a count or a row: few others go further
            small = self.random.choice([0, 1] * 20 + [2], 1)
        large = (1 << self.random.integers(0, 31, len(rows))) * self.random.choice([-1, 1], len(rows))
        symbols = np.where(self.random.random(len(rows)) < self.wild, large, small)
        unsigned = rows >= entropy.FLAG_ROW
        symbols = np.where(unsigned, np.abs(symbols), symbols)
        symbols = np.where(unsigned & (rows < entropy.MAGNITUDE_ROW), symbols % 2, symbols).astype(np.int64)
        self.parts.append((symbols, rows.copy()))
        return symbols.copy()

    def decoder(self, data: bytes) -> entropy.Decoder:
        """Return a decoder that tells the dreams."""
        return cast(entropy.Decoder, _Teller(self))


class _Teller:
    def __init__(self, dreams: Dreams) -> None:
        self._dreams = dreams

    def decode(self, rows: np.ndarray) -> np.ndarray:
        return self._dreams.symbols(np.asarray(rows))

    def finish(self) -> None:
        """All was told."""


def dreamt_chunk(header: bytes, embedded: list[bytes], number: int, random: Random) -> bytes:
    """Return a chunk of made-up symbols. header: content of the stream's. number: of the chunk in the stream.

    Raises: InrcodecError if the stream cannot be read.
    """
    parsed = _header(header)
    initialization = find_initialization(parsed.initialization, map(Initialization.from_bytes, embedded))
    reader = codec_of(initialization).open(parsed, initialization, torch.device("cpu"))
    dreams = Dreams(random)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "Decoder", dreams.decoder)
        symbols = reader.symbols([b""] * (number + 1))
        with contextlib.suppress(InrcodecError, Awake, StopIteration):  # what was told before is coded all the same
            for _ in range(number + 1):
                dreams.parts, dreams.told = [], 0
                next(symbols)
    return entropy.encode_batches(dreams.parts)


def dreamt_residual(header: bytes, random: Random) -> bytes:
    """Return a residual of one slab of made-up symbols. Raises: InrcodecError if the header cannot be read."""
    parsed = _header(header)
    shape = [*(axis.size for axis in parsed.axes), parsed.channels]
    if parsed.bound is None or np.prod(shape, dtype=float) > MOST_SYMBOLS:
        return b""
    dreams = Dreams(random)
    readers: list[_DreamingReader] = []

    def reader(payload: bytes) -> ResidualReader:
        readers.append(_DreamingReader(payload, dreams))
        return readers[0]

    bound = random.choice([parsed.bound.on_scale, parsed.bound.on_scale, parsed.bound.on_scale / 2])
    values = parsed.bound.scaled(np.zeros(shape, parsed.dtype), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residual_section, "ResidualReader", reader)
        patch.setattr(entropy, "Decoder", dreams.decoder)
        with contextlib.suppress(InrcodecError, ValueError, Awake):
            residual_section.apply_residual(values, b"\0", bound)
    if not readers:
        return b""
    coded = entropy.encode_batches(dreams.parts)
    free = np.packbits(np.concatenate([*readers[0].bits, np.zeros(0, np.uint8)]), bitorder="little").tobytes()
    stored = random.randbytes(min(readers[0].count, 1 << 12) * values.itemsize)
    slab = struct.pack("<d", bound) + write_varint(len(coded)) + coded + free + stored
    return residual_section.pack_section([slab])


class _DreamingReader(ResidualReader):
    """bits: the free bits that it made up. count: of the values that are stored."""

    def __init__(self, payload: bytes, dreams: Dreams) -> None:
        super().__init__(payload)
        self.bits: list[np.ndarray] = []
        self.count = 0
        self._dreams = dreams

    def take_one(self, row: int) -> int:
        symbol = super().take_one(row)
        if row == 0:
            self.count = max(0, symbol)
        return symbol

    def _take_bits(self, count: int) -> np.ndarray:
        if count > MOST_SYMBOLS:
            raise Awake
        filling = count < 8 and sum(map(len, self.bits)) % 8
        bits = np.zeros(count, np.uint8) if filling else self._dreams.random.integers(0, 2, count).astype(np.uint8)
        self.bits.append(bits)
        self._position += count
        return bits


def _header(content: bytes) -> StreamHeader:
    return unpack_header(b"\0" + content, Budget())
