"""The integers in an `.inr` file, as one hash."""

import hashlib
from collections.abc import Iterator

import numpy as np

from inrcodec import latent_fields
from inrcodec.coding.chunk import read_symbols
from inrcodec.coding.container import Stream, read_container
from inrcodec.coding.quantization import Quantizer
from inrcodec.initializations import find_initialization
from inrcodec.meta.initialization import ContextPrior, Initialization
from inrcodec.patches import Patches


def symbols_digest(data: bytes) -> str:
    """SHA-256 over the normalization and symbols, or the latents, of all chunks, as little-endian 64-bit integers."""
    container = read_container(data)
    embedded = [Initialization.from_bytes(content) for content in container.initializations]
    digest = hashlib.sha256()
    for stream in container.streams:
        header = stream.header
        initialization = find_initialization(header.initialization, embedded)
        patches = Patches.cover(header.axes, initialization.patches)
        chunks = _latents if isinstance(initialization.prior, ContextPrior) else _deltas
        for integers in chunks(stream, initialization, patches):
            digest.update(np.ascontiguousarray(integers, "<i8").tobytes())
    return digest.hexdigest()


def _deltas(stream: Stream, initialization: Initialization, patches: Patches) -> Iterator[np.ndarray]:
    header = stream.header
    left = len(patches)
    for chunk in stream.chunks:
        count = min(left, header.patches_per_chunk)
        left -= count
        quantizer = Quantizer(header.steps, header.shifts)
        normalization, symbols = read_symbols(chunk, count, quantizer, initialization)
        yield from (normalization.exponents, normalization.means, symbols)


def _latents(stream: Stream, initialization: Initialization, patches: Patches) -> Iterator[np.ndarray]:
    for levels in latent_fields.read_symbols(stream, initialization, patches):
        yield from levels
