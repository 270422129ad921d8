"""What --resolution, --fps and --sample-rate ask for, in the terms of the file's modality."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from inrcodec.errors import UsageError

if TYPE_CHECKING:
    from inrcodec.resolution import Resolution

MAX_RATE = 10_000_000
"""Frames or samples per second."""


def resolution_for(
    modalities: Sequence[str], resolution: str | None, fps: str | None, sample_rate: int | None
) -> "Resolution":
    """Return what the decoder is asked for.

    modalities: of the signals in the file, the main one first; it decides what --resolution means:
        WIDTHxHEIGHT for pictures, rows x columns (latitudes x longitudes) for climate fields.
    Raises: UsageError if an option cannot be understood or does not fit the file.
    """
    from inrcodec.resolution import Resolution

    main = modalities[0]
    if resolution is not None and main == "audio":
        raise UsageError("--resolution is for pictures and climate fields, the file is sound: give --sample-rate")
    if fps is not None and "video" not in modalities:
        raise UsageError(f"--fps is for video, the file is {main}")
    if sample_rate is not None and "audio" not in modalities:
        raise UsageError(f"--sample-rate is for sound, the file is {main} without sound")
    if sample_rate is not None and not 1 <= sample_rate <= MAX_RATE:
        raise UsageError(f"--sample-rate is {sample_rate}, give 1 to {MAX_RATE} samples per second")
    size, longer, factor = parse_resolution(resolution)
    if size is not None and main != "climate":
        size = size[1], size[0]
    return Resolution(
        size=size, longer=longer, factor=factor, frame_rate=parse_frame_rate(fps), sample_rate=sample_rate
    )


def parse_resolution(text: str | None) -> tuple[tuple[int, int] | None, int | None, float | None]:
    """Return (pair as written, longer side, factor), of which at most one is not None.

    Raises: UsageError.
    """
    if text is None:
        return None, None, None
    if pair := re.fullmatch(r"([0-9]{1,9})[xX\u00d7]([0-9]{1,9})", text):
        size = int(pair[1]), int(pair[2])
        if min(size) > 0:
            return size, None, None
    elif (longer := re.fullmatch(r"[0-9]{1,9}", text)) and int(text) > 0:
        return None, int(longer[0]), None
    elif (factor := re.fullmatch(r"([0-9]{0,9}\.?[0-9]{1,9})[xX]", text)) and float(factor[1]) > 0:
        return None, None, float(factor[1])
    raise UsageError(
        f"--resolution is {text!r}, give WIDTHxHEIGHT (800x600; latitudes x longitudes for climate), "
        "the longer side (2048) or a factor (0.5x)"
    )


def parse_frame_rate(text: str | None) -> Fraction | None:
    """Parse frames per second, "25", "29.97" or "30000/1001". Raises: UsageError."""
    if text is None:
        return None
    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([0-9]{1,9}))?", text):
        over = int(match[2] or 1)
        if over > 0 and 0 < (rate := Fraction(match[1]) / over) <= MAX_RATE:
            return rate
    raise UsageError(f"--fps is {text!r}, give frames per second, as 25, 29.97 or 30000/1001")
