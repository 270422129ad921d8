"""The grid that a signal is asked at, and how a field that was asked at a finer one is reduced to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import numpy as np

from inrcodec.coding.header import MAX_SAMPLES
from inrcodec.errors import UsageError
from inrcodec.signals.signal import Axis


@dataclass(frozen=True)
class Resolution:
    """The resolution asked of the decoder; all None keeps the original grid. Raises: UsageError unless positive.

    size: samples along the last two axes of pictures and climate fields (height, width).
    longer: samples along the longer of them; the other follows.
    factor: what both are multiplied by.
    frame_rate: frames per second of videos. sample_rate: samples per second of sound.
    """

    size: tuple[int, int] | None = None
    longer: int | None = None
    factor: float | None = None
    frame_rate: Fraction | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        sizes = [*(self.size or ()), self.longer, self.factor, self.frame_rate, self.sample_rate]
        for asked in sizes:
            if asked is not None and not 0 < asked < math.inf:
                raise UsageError(f"a resolution of {asked} is not a positive number")

    def apply(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """Return the grid at this resolution. Raises: UsageError if an axis would have no or too many samples."""
        spatial = [i for i, axis in enumerate(axes) if axis.kind not in ("slice", "start")]
        targets = list(axes)
        if spatial:
            sizes = self._sizes([axes[i].size for i in spatial])
            for i, size in zip(spatial, sizes, strict=True):
                targets[i] = axes[i].resampled(size)
        rate = self.frame_rate if spatial else self.sample_rate
        if rate is not None:
            targets = [axis.at_rate(Fraction(rate)) if axis.rate is not None else axis for axis in targets]
        if math.prod(axis.size for axis in targets) > MAX_SAMPLES:
            shape = " x ".join(str(axis.size) for axis in targets)
            raise UsageError(f"a resolution of {shape} samples is more than can be decoded ({MAX_SAMPLES})")
        return tuple(targets)

    def _sizes(self, sizes: list[int]) -> list[int]:
        if self.size is not None:
            return list(self.size)
        factor = self.factor
        if self.longer is not None:
            factor = self.longer / max(sizes)
        return sizes if factor is None else [max(1, round(size * factor)) for size in sizes]


def oversampled(axis: Axis, target: Axis) -> Axis:
    """Return the grid to evaluate for `target`: where that is coarser than the signal, a multiple that is not.

    A field asked at few points only would alias. Latitudes and longitudes are asked where they are, as interpolation
    to another grid is understood there, and video frames when they are.
    """
    factor = math.ceil(axis.size / target.size)
    if factor == 1 or axis.kind in ("node", "periodic", "slice") or (axis.rate is not None and axis.rate < 1000):
        return target
    return target.resampled(target.size * factor)


class Regrid:
    """A grid that is wanted, and the finer one that a field is asked at for it.

    axes: of the grid that is wanted. finer: of the other.
    """

    def __init__(self, stored: tuple[Axis, ...], axes: tuple[Axis, ...]) -> None:
        self.axes = axes
        self.finer = tuple(oversampled(axis, target) for axis, target in zip(stored, axes, strict=True))

    @property
    def rows_together(self) -> int:
        """How many rows of the finer grid make one of the other."""
        return self.finer[0].size // self.axes[0].size

    def decimated(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield rows of the wanted grid, [rows, *grid, C], from all rows of the finer one, in multiples that make some.

        One is made of several: the mean of a cell's, a low-pass filtered sample of sound.
        """
        factors = [fine.size // target.size for fine, target in zip(self.finer, self.axes, strict=True)]
        if factors[0] > 1 and self.finer[0].kind == "start":
            blocks, factors[0] = _filtered(blocks, factors[0]), 1
        for block in blocks:
            for dimension, factor in enumerate(factors):
                if factor > 1:
                    shape = (*block.shape[:dimension], -1, factor, *block.shape[dimension + 1 :])
                    block = block.reshape(shape).mean(axis=dimension + 1)
            yield block


REACH = 11
"""Samples to both sides that a low-pass filtered one depends on, in those of the coarser grid; `resample_poly` says."""


def _filtered(blocks: Iterator[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    """Yield one low-pass filtered row for every `factor`, as if the blocks were one: they overlap for that."""
    from scipy.signal import resample_poly

    kept = next(blocks)
    first = begin = 0  # row of the result where `kept` begins, and which is the next
    for block in chain(blocks, (None,)):
        last = first + len(kept) // factor
        end = last if block is None else max(begin, last - REACH)
        if end > begin and (block is None or end - begin > REACH):
            rows = resample_poly(kept, 1, factor, axis=0, padtype="edge").astype(kept.dtype)
            yield rows[begin - first : end - first]
            begin = end
            kept = kept[max(0, begin - REACH - first) * factor :]
            first = max(first, begin - REACH)
        if block is not None:
            kept = np.concatenate((kept, block))


def same_grid(axes: tuple[Axis, ...], others: tuple[Axis, ...]) -> bool:
    return [(axis.size, axis.rate) for axis in axes] == [(axis.size, axis.rate) for axis in others]
