"""Codecs people would use otherwise, behind one interface: signal and setting to bytes, and back to values.

Every rival is given its best: the strong presets, no container around a video stream, no header around the
deflated arrays.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inrcodec.signals.signal import Signal


@dataclass(frozen=True)
class Rival:
    """A codec and the settings it is swept over, what `unit` counts.

    encode: (signal, setting) to the bytes of a file.
    decode: (those bytes, the original for its shape and rates) to values as the original's.
    obstacle: why the codec cannot be used here or on this signal, or None.
    """

    name: str
    unit: str
    settings: tuple[float, ...]
    encode: Callable[[Signal, Any], bytes]
    decode: Callable[[bytes, Signal], np.ndarray]
    obstacle: Callable[[Signal], str | None]


@dataclass(frozen=True, eq=False)
class Coded:
    """What a rival made of a signal: `size` in bytes, and the time it took in seconds."""

    size: int
    values: np.ndarray
    encode_seconds: float
    decode_seconds: float


def code(rival: Rival, signal: Signal, setting: float) -> Coded:
    """Encode and decode. Raises: ValueError if the codec gives up, with its reason."""
    import av

    began = time.perf_counter()
    try:
        data = rival.encode(signal, setting)
        encoded = time.perf_counter()
        values = rival.decode(data, signal)
    except (av.FFmpegError, OSError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return Coded(len(data), values, encoded - began, time.perf_counter() - encoded)


def rivals_of(modality: str, bounds: Sequence[float] = ()) -> tuple[Rival, ...]:
    """Return the rivals of a modality, one module each; with `bounds` on the error those that can keep them."""
    module = importlib.import_module(f"rivals_{modality}")
    if bounds:
        return tuple(replace(rival, settings=tuple(bounds)) for rival in getattr(module, "BOUNDED", ()))
    found: tuple[Rival, ...] = module.RIVALS
    return found


def missing_encoder(signal: Signal, *, codec: str) -> str | None:
    """Return the obstacle of a codec that FFmpeg may be built without."""
    import av

    try:
        av.Codec(codec, "w")
    except ValueError:
        return f"this FFmpeg was built without {codec}"
    return None
