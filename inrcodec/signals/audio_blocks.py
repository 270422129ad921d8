"""Sounds that are read block by block, in as many passes as are needed, and never whole in memory if they are long."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from inrcodec.signals.lazy import AnySignal, ForwardReader, LazySignal, Rows, joined
from inrcodec.signals.signal import Axis, Signal

BLOCK = 1 << 16
"""Samples of each channel that are read or written at once."""
KEPT_SAMPLES = 1 << 22
"""Sounds of up to so many samples of all channels stay in memory once they are decoded: decoding again takes time."""
# Beyond this, differences of two 32-bit floats overflow; no recording gets anywhere near it.
_LARGEST = 2.0**126
# Below it, 32-bit floats lose their relative precision: -760 dB, silence.
_SMALLEST = 2.0**-126


@dataclass
class Summary:
    """What one pass over a sound finds.

    length: samples of each channel. strange: how many samples are NaN, infinite or absurdly large.
    kept: the blocks [n, channels] of a short sound, else none. dtype: of the samples.
    """

    channels: int = 0
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    length: int = 0
    strange: int = 0
    kept: list[np.ndarray] | None = field(default_factory=list)
    _peak: float = 0.0

    @property
    def peak(self) -> float:
        """The largest absolute sample, as a 32-bit float, which takes less room in a file; 1 if all is silence."""
        peak = float(np.float32(self._peak))
        return peak if peak >= _SMALLEST else 1.0


def summary_of(blocks: Iterable[np.ndarray]) -> Summary:
    """Read blocks [n, channels] of floats to their end."""
    summary = Summary()
    for block in blocks:
        if not len(block):
            continue
        summary.channels, summary.dtype = block.shape[1], block.dtype
        summary.length += len(block)
        summary.strange += int(np.count_nonzero(~(np.abs(block) <= _LARGEST)))
        summary._peak = max(summary._peak, float(block.max()), -float(block.min()))
        if summary.length * summary.channels > KEPT_SAMPLES:
            summary.kept = None
        if summary.kept is not None:
            summary.kept.append(block)
    return summary


@contextmanager
def sound_signal(
    summary: Summary,
    rate: Fraction,
    begin: Callable[[], Generator[np.ndarray]],
    name: str = "",
    attributes: dict[str, Any] | None = None,
) -> Iterator[AnySignal]:
    """Give the signal [time, channels, 1] of a sound, in memory if it was kept.

    begin: starts to yield the blocks that were summarized, from the first on.
    """
    axes = (Axis(summary.length, "start", rate=rate), Axis(summary.channels, "slice"))
    value_range = (-summary.peak, summary.peak)
    if summary.kept is not None:
        summary.kept[:] = [joined(summary.kept)]
        values = summary.kept[0][..., np.newaxis]
        yield Signal("audio", values, axes, value_range, name=name, attributes=attributes or {})
        return

    def rows() -> Generator[Rows]:
        for block in begin():
            yield block[..., np.newaxis], None

    with forward_reader(rows) as read:
        yield LazySignal(
            "audio", summary.dtype, axes, 1, value_range, read=read, name=name, attributes=attributes or {}
        )


@contextmanager
def forward_reader(begin: Callable[[], Generator[Rows]]) -> Iterator[ForwardReader]:
    """Give a reader of what `begin` yields; the pass that is under way ends with it, and closes its file."""
    passes: list[Generator[Rows]] = []

    def begun() -> Iterator[Rows]:
        for old in passes:
            old.close()
        passes[:] = [begin()]
        return passes[0]

    try:
        yield ForwardReader(begun)
    finally:
        for old in passes:
            old.close()
