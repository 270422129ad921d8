"""Time stamps of frames and of sound to constant rates, so that a picture and its sound stay together."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.video_formats import MAX_RATE

_USUAL_RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")))
_MULTIPLES = 12
"""The shortest time between two frames is up to so many times that between two ticks of the constant rate."""
_SHARE, _SECONDS, _MOST = 0.1, 0.002, 0.4
"""How far a time stamp may lie beside a tick: this share of one or these seconds, but not more than this share."""
_DENSE_RATE = 60
_JITTER = 0.0125
"""Seconds around a constant rate that time stamps may lie, as those of cameras do."""
MAX_REPEATED_BYTES = 1 << 31
"""What the frames of a clip may take once they are repeated."""

_SLACK = Fraction(15, 1000)
"""Seconds that time stamps of sound may be off: less than any lost packet is long."""
_LONGEST_STEP_BACK = Fraction(1, 2)
_LONGEST_GAP = Fraction(10)
"""Seconds; longer gaps are believed where the picture is as long."""


def even_frames(
    times: Sequence[Fraction], last: Fraction, rate: Fraction, frame_bytes: int, path: Path
) -> tuple[Fraction, list[int]]:
    """Return a constant rate for frames shown from `times` (in seconds, in order), and the frame to show at every tick.

    Frames that are as good as equally spaced, at the `rate` that the container tells, keep it. Others are repeated at
    the lowest rate that has a tick for each of them.

    last: seconds that the last frame is shown, 0 if unknown. frame_bytes: of one frame.
    Raises: SignalError if time runs backwards, or the repeated frames take more than `MAX_REPEATED_BYTES`.
    """
    offsets = np.array([float(time - times[0]) for time in times])
    mean = (Fraction(len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001) if offsets[-1] > 0 else rate
    for constant in (rate, mean or rate):
        strays = offsets - np.arange(len(times)) / float(constant)
        if np.ptp(strays) / 2 <= min(_JITTER, _MOST / float(constant)):
            return constant, list(range(len(times)))
    gaps = np.diff(offsets)
    if gaps.min() < 0:
        raise SignalError(f"{path}: the time stamps jump back by {-gaps.min():.3f} s; split or repair the file")
    rate = _tick_rate([later - time for time, later in pairwise(times)], offsets, rate)
    ticks = np.rint(offsets * float(rate)).astype(np.int64)
    count = int(ticks[-1]) + max(1, round(last * rate))
    if count * frame_bytes > max(MAX_REPEATED_BYTES, len(times) * frame_bytes):
        raise SignalError(
            f"{path}: {len(times)} frames at uneven times would become {count} at {float(rate):g} per second; cut it"
        )
    return rate, (np.searchsorted(ticks, np.arange(count), side="right") - 1).tolist()


def _tick_rate(gaps: Sequence[Fraction], offsets: np.ndarray, rate: Fraction) -> Fraction:
    """Return the lowest rate of which every frame is near a tick of its own; a dense rate where there is none."""
    shortest = min(gap for gap in gaps if gap > 0)
    rates = {rate, *_USUAL_RATES, *(multiple / shortest for multiple in range(1, _MULTIPLES + 1))}
    for candidate in sorted(rates):
        if candidate > MAX_RATE:
            break
        exact = offsets * float(candidate)
        ticks = np.rint(exact)
        if np.abs(exact - ticks).max() <= min(max(_SHARE, _SECONDS * candidate), _MOST) and np.diff(ticks).min() > 0:
            return candidate.limit_denominator(1_001_000)
    usual = float(np.quantile([float(gap) for gap in gaps], 0.1))
    return Fraction(min(max(_DENSE_RATE, round(1 / max(usual, 1 / MAX_RATE))), MAX_RATE))


def continuous_sound(
    pieces: Sequence[tuple[Fraction | None, np.ndarray]], rate: int, clip: Fraction, path: Path
) -> np.ndarray:
    """Join pieces of sound at their times in seconds to [n, channels]: gaps become silence, overlaps are cut.

    clip: seconds that the picture takes.
    Raises: SignalError if time runs backwards, or the sound has a gap longer than the picture.
    """
    begin = pieces[0][0] or Fraction(0)
    result: list[np.ndarray] = []
    position = 0
    for time, piece in pieces:
        gap = 0 if time is None else round((time - begin) * rate) - position
        if gap > max(_LONGEST_GAP, clip) * rate or gap < -_LONGEST_STEP_BACK * rate:
            raise SignalError(f"{path}: the time stamps of the sound jump by {gap / rate:.3f} s; split or repair it")
        if gap > _SLACK * rate:
            result.append(np.zeros((gap, piece.shape[1]), piece.dtype))
        elif gap < -_SLACK * rate:
            piece = piece[-gap:]
        else:
            gap = 0
        result.append(piece)
        position += max(gap, 0) + len(piece)
    return np.concatenate(result)
