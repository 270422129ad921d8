"""Codecs people would use otherwise, behind one interface: signal and setting to bytes, and back to values.

Every rival is given its best: the strong presets, no container around a video stream, no header around the
deflated arrays.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from inrcodec.signals.signal import Signal


@dataclass(frozen=True)
class Rival:
    """A codec and the settings it is swept over, what `unit` counts.

    settings: none if a setting is a bound on the error, which the user of the benchmark gives.
    encode: (signal, what `tune` returned) to the bytes of a file.
    decode: (those bytes, the original for its shape and rates) to values as the original's.
    obstacle: why the codec cannot be used here or on this signal, or None.
    tune: (signal, setting) to what the codec is told for this setting. It may take trials, which count into no time.
        Raises ValueError if there is nothing to be told.
    """

    name: str
    unit: str
    settings: tuple[float, ...]
    encode: Callable[[Signal, Any], bytes]
    decode: Callable[[bytes, Signal], np.ndarray]
    obstacle: Callable[[Signal], str | None]
    tune: Callable[[Signal, float], Any] = lambda signal, setting: setting


@dataclass(frozen=True, eq=False)
class Coded:
    """What a rival made of a signal: `size` in bytes, and the processor time it took in seconds."""

    size: int
    values: np.ndarray
    encode_seconds: float
    decode_seconds: float


def code(rival: Rival, signal: Signal, setting: float) -> Coded:
    """Encode and decode. Raises: ValueError if the codec gives up, with its reason."""
    import av

    try:
        told = rival.tune(signal, setting)
        began = time.process_time()
        data = rival.encode(signal, told)
        encoded = time.process_time()
        values = rival.decode(data, signal)
    except (av.FFmpegError, OSError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return Coded(len(data), values, encoded - began, time.process_time() - encoded)


def rivals_of(modality: str, *, bounded: bool = False) -> tuple[Rival, ...]:
    """Return the rivals of a modality, one module each; if `bounded` those that can keep a bound on the error."""
    module = importlib.import_module(f"rivals_{modality}")
    found: tuple[Rival, ...] = getattr(module, "BOUNDED", ()) if bounded else module.RIVALS
    return found


def missing_encoder(signal: Signal, *, codec: str) -> str | None:
    """Return the obstacle of a codec that FFmpeg may be built without."""
    import av

    try:
        av.Codec(codec, "w")
    except ValueError:
        return f"this FFmpeg was built without {codec}"
    return None
