"""What flows through the codec: values on a grid, and what is needed to write the file back."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inrcodec.errors import SignalError

AxisKind = Literal["cell", "start", "node", "periodic", "slice"]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a sampling grid.

    kind: how the samples lie on the axis, hence where the samples of another resolution lie.
        "cell": a sample is the middle of its cell (pixels).
        "start": a sample is the beginning of its interval (audio samples, video frames); `rate` is set.
        "node": the first and the last sample are the ends of the axis (latitudes, regional longitudes).
        "periodic": the sample after the last one is the first one (longitudes all around the globe).
        "slice": the samples are unrelated signals (sound channels, climate time steps and levels): never
        interpolated, each is coded by fields of its own.
    size: number of samples, at least 1.
    rate: samples per second ("start" axes only).
    points: [size] float64 degrees (latitude and longitude axes only), strictly monotonic; for "periodic"
        axes equally spaced and within one turn.
    """

    size: int
    kind: AxisKind = "cell"
    rate: Fraction | None = None
    points: np.ndarray | None = None

    def positions(self, target: "Axis") -> np.ndarray:
        """Return where the samples of `target`, this axis at another resolution, lie in units of this axis's samples.

        Returns [target.size] float64; exactly 0, 1, 2, ... where the resolution is the same.
        """
        return self.positions_at(target, np.arange(target.size))

    def positions_at(self, target: "Axis", indices: np.ndarray) -> np.ndarray:
        """Return `positions` of some samples of `target` only."""
        index = indices.astype(np.float64)
        if self.rate is not None and target.rate is not None:
            return np.minimum(index * float(self.rate / target.rate), self.size - 1)
        if target.size == self.size:
            return index
        if self.kind == "cell":
            return (index + 0.5) * self.size / target.size - 0.5
        if self.kind == "periodic":
            return index * self.size / target.size
        if self.kind == "node":
            return index * (self.size - 1) / max(target.size - 1, 1)
        raise ValueError(f"a {self.kind!r} axis cannot have another size: {self.size = }, {target.size = }")

    def indices(self, target: "Axis", low: float, high: float) -> tuple[int, int]:
        """Return a range of indices of `target` with all positions from `low` to before `high`, and no others."""

        def position(index: int) -> float:
            return float(self.positions_at(target, np.array(index)))

        first, last = (bisect_left(range(target.size), each, key=position) for each in (low, high))
        return first, last

    def points_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the degrees at fractional sample positions (linear between samples, continued beyond the ends).

        positions: any shape, in units of the sample index. Longitudes may leave [-180, 360).
        """
        if self.points is None:
            raise ValueError("this axis has no points")
        if self.size == 1:
            return np.full(np.shape(positions), self.points[0])
        low = np.clip(np.floor(positions), 0, self.size - 2).astype(np.int64)
        return self.points[low] + (positions - low) * (self.points[low + 1] - self.points[low])

    def resampled(self, size: int) -> "Axis":
        """Return this axis with another number of samples over the same extent."""
        if size == self.size:
            return self
        if self.rate is not None:
            return replace(self, size=size, rate=self.rate * size / self.size)
        target = replace(self, size=size, points=None)
        points = None if self.points is None else self.points_at(self.positions(target))
        return replace(target, points=points)

    def part(self, begin: int, end: int) -> "Axis":
        """Return the samples from `begin` to before `end` as an axis."""
        if (begin, end) == (0, self.size):
            return self
        points = None if self.points is None else self.points[begin:end]
        return replace(self, size=end - begin, points=points)

    def at_rate(self, rate: Fraction) -> "Axis":
        """Return this axis with another number of samples per second over the same time."""
        if self.rate is None:
            raise ValueError(f"a {self.kind!r} axis has no rate")
        return replace(self, size=max(1, round(self.size * rate / self.rate)), rate=rate)


@dataclass(frozen=True, eq=False)
class Signal:
    """Values on a grid plus what is needed to write the file back.

    modality: "image", "video", "audio" or "climate".
    values: [*grid, C] array in its native dtype; always finite, also where `missing` is set.
    axes: one `Axis` per grid dimension, slowest first: image (height, width); video (time, height, width);
        audio (time, channel "slice"); climate ("slice" of all leading dimensions, latitude, longitude).
    value_range: the native values that become 0 and 1 for the field, low < high. Decoded integer values are
        rounded and clipped to the dtype's limits, not to this range.
    name: tells the signals of one file apart: "" for the main one, "alpha", "sound", a variable's name.
    sphere: the last two axes are latitude and longitude in degrees (both with `points`).
    missing: [*grid] bool, True where the file has no value (the values there are fillers), or None.
    slice_ranges: [S, 2] float64, the range of every slice along the first axis, where they differ so much that one for
        all would lose some (humidity on levels); `value_range` is then the range of all. None: it is that of each.
    attributes: what the modality's `write` needs besides; plain values only (str, int, float, bool, bytes,
        None, lists and str-keyed dicts of those). Defaults are left out, so that it is empty for the most
        ordinary file of the modality: it is stored in every `.inr` file.
    """

    modality: str
    values: np.ndarray
    axes: tuple[Axis, ...]
    value_range: tuple[float, float]
    name: str = ""
    sphere: bool = False
    missing: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    slice_ranges: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = tuple(axis.size for axis in self.axes)
        if self.values.shape[:-1] != shape:
            raise ValueError(f"values and axes disagree: {self.values.shape = }, {shape = }")
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"empty value range: {self.value_range = }")
        ranges = self.slice_ranges
        if ranges is not None and (
            self.axes[0].kind != "slice" or ranges.shape != (shape[0], 2) or not (ranges[:, 0] < ranges[:, 1]).all()
        ):
            raise ValueError(f"slice ranges that are not those of {shape[0]} slices: {ranges.shape = }")

    @property
    def shape(self) -> tuple[int, ...]:
        """Grid shape, without the channels."""
        return self.values.shape[:-1]

    @property
    def channels(self) -> int:
        return self.values.shape[-1]

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def has_missing(self) -> bool:
        return self.missing is not None

    @property
    def samples(self) -> int:
        """Number of grid points, what "bits per sample" divides by: pixels, or audio samples of all channels."""
        return math.prod(self.shape)

    def part(self, begin: int, end: int) -> "Signal":
        """Return the samples from `begin` to before `end` of the first axis; the attributes are those of the whole."""
        if (begin, end) == (0, self.shape[0]):
            return self
        return replace(
            self,
            values=self.values[begin:end],
            axes=(self.axes[0].part(begin, end), *self.axes[1:]),
            missing=None if self.missing is None else self.missing[begin:end],
            slice_ranges=None if self.slice_ranges is None else self.slice_ranges[begin:end],
        )

    def loaded(self) -> "Signal":
        """Return the signal with its values in memory, where they are."""
        return self

    def check_finite(self, path: Path) -> None:
        """Refuse NaN and infinite values, other than the missing ones. Raises: SignalError that names `path`."""
        if self.values.dtype.kind != "f":
            return
        finite = np.isfinite(self.values)
        if self.missing is not None:
            finite |= self.missing[..., np.newaxis]
        count = finite.size - int(np.count_nonzero(finite))
        if count:
            what = f"the signal {self.name!r}" if self.name else f"the {self.modality}"
            raise SignalError(
                f"cannot write {path}: {count} of {finite.size} values of {what} are NaN or infinite; "
                "the file it was decoded from may be damaged"
            )
