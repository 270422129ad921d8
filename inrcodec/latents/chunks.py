"""Chunks of latents as tasks that another process can do."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from inrcodec.initialization import Initialization
from inrcodec.latents.clip_coder import ClipCoder
from inrcodec.latents.coder import AdaptationPlan, LatentCoder, TransformCoder
from inrcodec.latents.sequence_coder import SeriesCoder
from inrcodec.models import Grid, LatentClip, LatentSeries, Positions

_CODERS: dict[str, type[LatentCoder]] = {LatentClip.name: ClipCoder, LatentSeries.name: SeriesCoder}
"""Coders of fields that are not those of one transform."""


def coder_class(initialization: Initialization) -> type[LatentCoder]:
    """Return the kind of coder that an initialization's field needs."""
    return _CODERS.get(initialization.field.name, TransformCoder)


@dataclass(frozen=True)
class CoderParts:
    """What a coder is made of, on the CPU. initialization: its file's content."""

    initialization: bytes
    grid: Grid
    step_index: int
    variant: int

    @classmethod
    def of(cls, coder: LatentCoder) -> "CoderParts":
        return cls(coder.initialization.to_bytes(), coder.grid, coder.step_index, coder.variant)


@dataclass(frozen=True, eq=False)
class EncodeTask:
    """Patches to be encoded. parts: of the coder, if another process may do it. values: [B, C, *grid] in [0, 1]."""

    parts: CoderParts | None
    values: np.ndarray
    plan: AdaptationPlan


@dataclass(frozen=True, eq=False)
class DecodeTask:
    """A chunk to be decoded. positions: where each of its patches is asked, in samples."""

    parts: CoderParts | None
    chunk: bytes
    positions: Sequence[Positions]


_LOCK = threading.Lock()
_BEFORE: list[int] = []
"""How many threads torch had before, for each block of `one_thread` that is at work."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the operations are so small that more are never faster, and far slower beside others."""
    with _LOCK:
        _BEFORE.append(_BEFORE[0] if _BEFORE else torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _LOCK:
            before = _BEFORE.pop()
            if not _BEFORE:
                torch.set_num_threads(before)


def encode_chunk(coder: LatentCoder, task: EncodeTask) -> tuple[bytes, np.ndarray]:
    """Return the chunk of some patches, and as what they decode, [B, C, *grid]."""
    with one_thread():
        chunk, decoded = coder.encode(torch.from_numpy(task.values).to(coder.device), task.plan)
        return chunk, decoded.cpu().numpy()


def decode_chunk(coder: LatentCoder, task: DecodeTask) -> list[np.ndarray]:
    """Return the values of every patch, as `LatentCoder.decode`. Raises: CorruptFile."""
    with one_thread():
        decoded = coder.decode(task.chunk, len(task.positions), task.positions)
        return [values.cpu().numpy() for values in decoded]


def encode_elsewhere(task: EncodeTask) -> tuple[bytes, np.ndarray]:
    """Do `encode_chunk` in a process that has no coder yet."""
    return encode_chunk(_coder(task.parts), task)


def decode_elsewhere(task: DecodeTask) -> list[np.ndarray]:
    """Do `decode_chunk` in a process that has no coder yet."""
    return decode_chunk(_coder(task.parts), task)


@lru_cache(maxsize=2)
def _coder(parts: CoderParts | None) -> LatentCoder:
    assert parts is not None
    initialization = Initialization.from_bytes(parts.initialization)
    make = coder_class(initialization)
    return make(initialization, parts.grid, parts.step_index, parts.variant, torch.device("cpu"))
