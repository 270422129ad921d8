"""The integers in an `.inr` file, as one hash."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from inrcodec.coding.container import read_container
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.registry import find_initialization


def symbols_of(data: bytes) -> Iterator[np.ndarray]:
    """Yield the integers of all chunks."""
    container = read_container(data)
    embedded = [Initialization.from_bytes(content) for content in container.initializations]
    for stream in container.streams:
        initialization = find_initialization(stream.header.initialization, embedded)
        reader = codec_of(initialization).open(stream.header, initialization, torch.device("cpu"))
        for integers in reader.symbols(stream.chunks):
            yield from integers


def symbols_digest(data: bytes) -> str:
    """Return the SHA-256 over all integers of all chunks, as little-endian 64-bit integers."""
    digest = hashlib.sha256()
    for each in symbols_of(data):
        digest.update(np.ascontiguousarray(each, "<i8").tobytes())
    return digest.hexdigest()
