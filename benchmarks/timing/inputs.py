"""These signals are measured on: one of each modality, made when it is first asked for, and pictures in other forms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import sources
from sources import Cut, Source

from inrcodec.signals import write
from inrcodec.signals.signal import Axis, Signal

LARGE = 2_000_000
"""Pixels that a large picture has at least."""

PICTURES = 6
"""Pictures to train on and to make a large one of."""

FOLDER = 4
"""Pictures in a folder that is encoded as a whole."""

KELVIN = (150.0, 350.0)


@dataclass(frozen=True)
class Wish:
    """A signal to look for: what is used of it, and how one is known that is as wanted."""

    modality: str
    cut: Cut
    fits: Callable[[Signal], bool]


def _temperatures(signal: Signal) -> bool:
    low, high = signal.value_range
    return signal.shape == (1, 721, 1440) and KELVIN[0] < low and high < KELVIN[1]


WISHES = {
    "picture": Wish("image", Cut(), lambda signal: signal.shape == (512, 768)),
    "field": Wish("climate", Cut(frames=1), _temperatures),
    "clip": Wish("video", Cut(frames=16, crop=(240, 320)), lambda signal: signal.shape == (16, 240, 320)),
    "sound": Wish("audio", Cut(seconds=10), lambda signal: signal.shape == (160_000, 1) and _rate(signal) == 16_000),
}


class Inputs:
    """The signals of a run.

    data: folders to look in, in this order; none: the shipped samples. folder: for copies.
    """

    def __init__(self, data: Sequence[Path], folder: Path) -> None:
        self._data = data
        self._folder = folder
        self._found: dict[str, Source] = {}

    def signal(self, name: str) -> Source:
        """Return a signal of `WISHES`, or the large picture. Raises: UsageError if there is none of its modality."""
        if name not in self._found:
            self._found[name] = self._large() if name == "large picture" else self._wished(name)
        return self._found[name]

    @cached_property
    def pictures(self) -> list[Source]:
        """Some pictures of the shape of "picture", in files of their own."""
        shape = self.signal("picture").signal.shape
        candidates = sources.readable("image", self._data, Cut(), self._place("candidates"))
        alike = (source for source in candidates if source.signal.shape == shape)
        return [self._kept(source, number) for number, source in enumerate(islice(alike, PICTURES))]

    @cached_property
    def folder(self) -> Path:
        """A folder of some pictures; where there are fewer, the same ones again."""
        folder = self._place("folder")
        for number, source in enumerate(islice(cycle(self.pictures), FOLDER)):
            (folder / f"{number}.png").write_bytes(source.path.read_bytes())
        return folder

    def _wished(self, name: str) -> Source:
        wish = WISHES[name]
        return sources.first(wish.modality, self._data, wish.cut, self._place(name), wish.fits)

    def _kept(self, source: Source, number: int) -> Source:
        path = self._place("pictures") / f"{number}.png"
        write([source.signal], path)
        return replace(source, path=path)

    def _large(self) -> Source:
        """Return a mosaic of the pictures."""
        values = mosaic([source.signal.values for source in self.pictures], LARGE)
        axes = tuple(Axis(size) for size in values.shape[:-1])
        signal = replace(self.pictures[0].signal, values=values, axes=axes, attributes={})
        path = self._place("large picture") / "large.png"
        write([signal], path)
        names = ", ".join(source.name for source in self.pictures)
        return Source(f"mosaic of {names}", path, signal, "")

    def _place(self, name: str) -> Path:
        place = self._folder / name
        place.mkdir(exist_ok=True)
        return place


def mosaic(tiles: Sequence[np.ndarray], pixels: int) -> np.ndarray:
    """Return a picture of at least so many pixels, about square, of tiles [H, W, C] of one shape; they repeat."""
    height, width = tiles[0].shape[:2]
    columns = max(1, round(math.sqrt(pixels) / width))
    rows = math.ceil(pixels / (columns * width * height))
    each = cycle(tiles)
    return np.concatenate([np.concatenate([next(each) for _ in range(columns)], axis=1) for _ in range(rows)])


def described(source: Source) -> dict[str, Any]:
    """Return what a reader must know of an input."""
    return {"name": source.name, "shape": list(source.signal.shape), "type": str(source.signal.values.dtype)}


def seconds_of(signal: Signal) -> float:
    """Return how long a sound is."""
    return float(signal.axes[0].size / (_rate(signal) or 1))


def _rate(signal: Signal) -> Fraction | None:
    return signal.axes[0].rate
