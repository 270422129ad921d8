"""Time stamps of frames and of sound to constant rates, so that a picture and its sound stay together."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.audio_blocks import BLOCK
from inrcodec.signals.video_formats import MAX_RATE

_USUAL_RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")))
_MULTIPLES = 12
"""The shortest time between two frames is up to so many times that between two ticks of the constant rate."""
_SHARE, _SECONDS, _MOST = 0.1, 0.002, 0.4
"""How far a time stamp may lie beside a tick: this share of one or these seconds, but not more than this share."""
_DENSE_RATE = 60
_JITTER = 0.0125
"""Seconds around a constant rate that time stamps may lie, as those of cameras do."""
_MAX_REPEATS = 10_000
"""How often a frame may be repeated, on average: minutes at the usual rates. More would take for ever to encode."""

_SLACK = Fraction(15, 1000)
"""Seconds that time stamps of sound may be off: less than any lost packet is long."""
_LONGEST_STEP_BACK = Fraction(1, 2)
_LONGEST_GAP = Fraction(10)
"""Seconds; longer gaps are believed where the picture is as long."""


def even_frames(
    stamps: np.ndarray, base: Fraction, last: Fraction, rate: Fraction, path: Path
) -> tuple[Fraction, np.ndarray]:
    """Return a constant rate for frames shown from certain times on, and the frame to show at every tick, int64.

    Frames that are as good as equally spaced, at the `rate` that the container tells, keep it. Others are repeated at
    the lowest rate that has a tick for each of them.

    stamps: the times in units of `base` seconds, [frames] int64, in order. last: seconds that the last frame is shown,
        0 if unknown.
    Raises: SignalError if time runs backwards, or frames would be repeated more than `_MAX_REPEATS` times on average.
    """
    count = len(stamps)
    steps = np.diff(stamps)
    offsets = _seconds(stamps - stamps[0], base)
    span = int(stamps[-1] - stamps[0]) * base
    mean = (Fraction(count - 1) / span).limit_denominator(1001) if span > 0 else rate
    for constant in (rate, mean or rate):
        strays = offsets - np.arange(count) / float(constant)
        if np.ptp(strays) / 2 <= min(_JITTER, _MOST / float(constant)):
            return constant, np.arange(count)
    if steps.min() < 0:
        back = float(-int(steps.min()) * base)
        raise SignalError(f"{path}: the time stamps jump back by {back:.3f} s; split or repair the file")
    rate = _tick_rate(steps, base, offsets, rate)
    ticks = np.rint(offsets * float(rate)).astype(np.int64)
    shown = int(ticks[-1]) + max(1, round(last * rate))
    if shown > count * _MAX_REPEATS:
        raise SignalError(
            f"{path}: {count} frames at uneven times would become {shown} at {float(rate):g} per second; cut it"
        )
    return rate, np.searchsorted(ticks, np.arange(shown), side="right") - 1


def _seconds(stamps: np.ndarray, base: Fraction) -> np.ndarray:
    return stamps * float(base.numerator) / base.denominator


def _tick_rate(steps: np.ndarray, base: Fraction, offsets: np.ndarray, rate: Fraction) -> Fraction:
    """Return the lowest rate of which every frame is near a tick of its own; a dense rate where there is none.

    steps: from every frame to the next, in units of `base` seconds.
    """
    shortest = int(steps[steps > 0].min()) * base
    rates = {rate, *_USUAL_RATES, *(multiple / shortest for multiple in range(1, _MULTIPLES + 1))}
    for candidate in sorted(rates):
        if candidate > MAX_RATE:
            break
        exact = offsets * float(candidate)
        ticks = np.rint(exact)
        if np.abs(exact - ticks).max() <= min(max(_SHARE, _SECONDS * candidate), _MOST) and np.diff(ticks).min() > 0:
            return candidate.limit_denominator(1_001_000)
    usual = float(np.quantile(_seconds(steps, base), 0.1))
    return Fraction(min(max(_DENSE_RATE, round(1 / max(usual, 1 / MAX_RATE))), MAX_RATE))


def continuous_sound(
    pieces: Iterable[tuple[Fraction | None, np.ndarray]], rate: int, clip: Fraction, path: Path
) -> Iterator[np.ndarray]:
    """Yield pieces of sound [n, channels] as one without an end between them: gaps become silence, overlaps are cut.

    pieces: each with its time in seconds, if that is known. clip: seconds that the picture takes.
    Raises: SignalError if time runs backwards, or the sound has a gap longer than the picture.
    """
    begin: Fraction | None = None
    position = 0
    for time, piece in pieces:
        begin = (time or Fraction(0)) if begin is None else begin
        gap = 0 if time is None else round((time - begin) * rate) - position
        if gap > max(_LONGEST_GAP, clip) * rate or gap < -_LONGEST_STEP_BACK * rate:
            raise SignalError(f"{path}: the time stamps of the sound jump by {gap / rate:.3f} s; split or repair it")
        if gap > _SLACK * rate:
            yield from _silence(gap, piece)
        elif gap < -_SLACK * rate:
            piece = piece[-gap:]
        else:
            gap = 0
        yield piece
        position += max(gap, 0) + len(piece)


def shifted_sound(blocks: Iterator[np.ndarray], shift: int) -> Iterator[np.ndarray]:
    """Yield blocks [n, channels] that begin so many samples later, or earlier, without those before the beginning.

    The last sample stays, whatever the shift.
    """
    dropped = max(0, -shift)
    last = None
    for index, block in enumerate(blocks):
        if index == 0:
            yield from _silence(shift, block)
        if dropped < len(block):
            yield block[dropped:]
            dropped, last = 0, None
        elif dropped and len(block):
            dropped, last = dropped - len(block), block[-1:]
    if last is not None:
        yield last


def _silence(count: int, like: np.ndarray) -> Iterator[np.ndarray]:
    """Yield so many samples of the channels and the type of a block."""
    for begin in range(0, count, BLOCK):
        yield np.zeros((min(BLOCK, count - begin), like.shape[1]), like.dtype)
