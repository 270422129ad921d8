"""The integers in an `.inr` file, as one hash."""

import hashlib

import numpy as np

from inrcodec.coding.chunk import read_symbols
from inrcodec.coding.container import read_container
from inrcodec.coding.quantization import Quantizer
from inrcodec.initializations import find_initialization
from inrcodec.meta.initialization import Initialization
from inrcodec.patches import Patches


def symbols_digest(data: bytes) -> str:
    """SHA-256 over the normalization and symbols of all chunks, as little-endian 64-bit integers."""
    container = read_container(data)
    embedded = [Initialization.from_bytes(content) for content in container.initializations]
    digest = hashlib.sha256()
    for stream in container.streams:
        header = stream.header
        initialization = find_initialization(header.initialization, embedded)
        left = len(Patches.cover(header.axes, initialization.patches))
        for chunk in stream.chunks:
            count = min(left, header.patches_per_chunk)
            left -= count
            quantizer = Quantizer(header.steps, header.shifts)
            normalization, symbols = read_symbols(chunk, count, quantizer, initialization)
            for integers in (normalization.exponents, normalization.means, symbols):
                digest.update(np.ascontiguousarray(integers, "<i8").tobytes())
    return digest.hexdigest()
