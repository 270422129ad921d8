"""Decoding the sound of video containers in passes. Importing this imports PyAV."""

from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.resampler import AudioResampler

from inrcodec.signals.video_frames import readable
from inrcodec.signals.video_timing import continuous_sound, shifted_sound
from inrcodec.signals.video_tracks import decoded, opened_tracks, sound_track


def sound_rate(path: Path) -> int | None:
    """Return the sample rate of the sound, None if there is none.

    The first frame and not the track knows the rate: AAC with SBR doubles it.
    """
    with opened_tracks(path) as container:
        track = sound_track(container)
        frame = next(decoded(container, track), None) if track is not None else None
        return None if frame is None else int(frame.sample_rate)


def sound_blocks(path: Path, rate: int, begin: Fraction, clip: Fraction) -> Generator[np.ndarray]:
    """Decode the sound of a clip and yield it as blocks [n, channels] float32 that begin with the picture.

    begin: seconds at which the picture begins. clip: seconds that it takes.
    """
    with readable(path), opened_tracks(path) as container:
        pieces = _sound_pieces(container, rate)
        first = next(pieces, None)
        if first is not None:
            delay = min((first[0] or Fraction(0)) - begin, clip)
            # Containers round times to a millisecond: a shift of less than a frame is no shift.
            shift = round(delay * rate) if abs(delay) > 0.02 else 0
            yield from shifted_sound(continuous_sound(chain([first], pieces), rate, clip, path), shift)


def _sound_pieces(container: Any, rate: int) -> Iterator[tuple[Fraction | None, np.ndarray]]:
    """Yield samples [n, channels] float32 as they are decoded, with their times in seconds where these are known."""
    resampler = None
    for frame in decoded(container, sound_track(container)):
        time = None if frame.pts is None else frame.pts * frame.time_base
        resampler = resampler or AudioResampler("flt", frame.layout, rate)
        for part in resampler.resample(frame):
            yield time, _interleaved(part)
            time = None
    if resampler is not None:
        for part in resampler.resample(None):
            yield None, _interleaved(part)


def _interleaved(part: Any) -> np.ndarray:
    """Return packed samples as [n, channels]: PyAV miscounts the planes of eight channels, and crashes."""
    return part.to_ndarray().reshape(-1, part.layout.nb_channels)
