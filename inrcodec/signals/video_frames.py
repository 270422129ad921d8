"""Frames: the images of a folder in their order, and many frames as one picture signal."""

import re
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.signal import Axis, Signal

FOLDER_RATE = Fraction(25)
"""Frames per second of a folder of frames, and of the rare file whose frame rate cannot be told."""

FRAME_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def folder_frames(folder: Path) -> list[np.ndarray]:
    """Return the [H, W, 3] uint8 images of a folder in natural order.

    Raises: SignalError if there are none, one cannot be read, or they differ in size.
    """
    from inrcodec.signals import image

    names = [p for p in folder.iterdir() if p.suffix.lower() in FRAME_EXTENSIONS and not p.name.startswith(".")]
    if not names:
        raise SignalError(f"{folder}: no frames here; expected {', '.join(sorted(FRAME_EXTENSIONS))}")
    frames: list[np.ndarray] = []
    translucent = 0
    for path in sorted(names, key=_natural_order):
        main, *alpha = (signal.values for signal in image.read(path))
        values = on_black(main, alpha[0]) if alpha else main
        translucent += values is not main
        if values.dtype != np.uint8:
            raise SignalError(f"{path}: frames have 8 bits per channel, this one has {8 * values.itemsize}")
        frames.append(np.broadcast_to(values, (*values.shape[:2], 3)))
        check_same_size(frames, path)
    warn_of_transparency(folder, translucent)
    return frames


def on_black(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return values [H, W, C] as they look on black, or the same array if all of it is opaque.

    The colours of transparent places are often noise. values, alpha [H, W, 1]: uint8.
    """
    if alpha.min() == 255:
        return values
    return ((values * alpha.astype(np.uint16) + 127) // 255).astype(np.uint8)


def warn_of_transparency(path: Path, frames: int) -> None:
    """Warn that so many frames of a clip were shown on black."""
    if frames:
        text = f"{path}: {frames} frames are transparent in places; black is put behind them"
        warnings.warn(text, InrcodecWarning, stacklevel=2)


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def check_same_size(frames: list[np.ndarray], path: Path) -> None:
    """Refuse the last frame if it is of another size than the first."""
    (height, width, _), (last_height, last_width, _) = frames[0].shape, frames[-1].shape
    if (height, width) != (last_height, last_width):
        raise SignalError(
            f"{path}: frame {len(frames) - 1} is {last_width}x{last_height}, the first is {width}x{height}; "
            f"scale them to one size"
        )


def picture_signal(frames: list[np.ndarray], rate: Fraction, attributes: dict[str, Any] | None = None) -> Signal:
    """Return the signal of [H, W, 3] uint8 frames, `rate` per second."""
    values = np.stack(frames)
    axes = (Axis(len(frames), "start", rate=rate), Axis(values.shape[1]), Axis(values.shape[2]))
    return Signal("video", values, axes, (0.0, 255.0), attributes=attributes or {})
