"""What the benchmarks measure on: files of one modality, each signal in a lossless file of its own."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from inrcodec.errors import SignalError, UsageError
from inrcodec.signals import MODALITIES, find_files, read, write
from inrcodec.signals.signal import Axis, Signal

LOSSLESS = {"image": ".png", "video": ".mkv", "audio": ".wav", "climate": ".nc"}


@dataclass(frozen=True, eq=False)
class Source:
    """One signal to measure on.

    name: the file it came from, relative to the data, and the variable of a climate field.
    path: a file that holds this signal alone: the given one or, where that holds more, a lossless copy, which
        the next source may replace.
    group: signals of one group are averaged: the variable of a climate field, else "".
    """

    name: str
    path: Path
    signal: Signal
    group: str


@dataclass(frozen=True)
class Cut:
    """How much of every signal is used; None is all of it.

    frames: video frames or climate slices, from the beginning. seconds: of sound, from the beginning.
    crop: samples along both axes of pictures and climate fields at most, or rows and columns, from the middle.
    """

    frames: int | None = None
    seconds: float | None = None
    crop: int | tuple[int, int] | None = None

    def apply(self, signal: Signal) -> Signal:
        """Return the part of the signal that is used; the signal itself where that is all of it."""
        parts = [self._part(signal, number) for number in range(len(signal.axes))]
        if all(len(part) == axis.size for part, axis in zip(parts, signal.axes, strict=True)):
            return signal
        box = tuple(slice(part.start, part.stop) for part in parts)
        return replace(
            signal,
            values=np.ascontiguousarray(signal.values[box]),
            axes=tuple(_cut_axis(axis, part) for axis, part in zip(signal.axes, parts, strict=True)),
            missing=None if signal.missing is None else signal.missing[box],
            attributes={} if signal.modality == "climate" else signal.attributes,
        )

    def _part(self, signal: Signal, number: int) -> range:
        axis = signal.axes[number]
        if signal.modality == "audio":
            rate = axis.rate
            if rate is None or self.seconds is None:
                return range(axis.size)
            return range(min(axis.size, max(1, round(self.seconds * rate))))
        if number < len(signal.axes) - 2:
            return range(min(axis.size, self.frames or axis.size))
        crop = self.crop[number - len(signal.axes)] if isinstance(self.crop, tuple) else self.crop
        size = min(axis.size, crop or axis.size)
        start = (axis.size - size) // 2
        return range(start, start + size)


def _cut_axis(axis: Axis, part: range) -> Axis:
    if len(part) == axis.size:
        return axis
    points = None if axis.points is None else axis.points[part.start : part.stop]
    return replace(axis, size=len(part), points=points, kind="node" if axis.kind == "periodic" else axis.kind)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all benchmarks on signals share."""
    parser.add_argument(
        "--modality", nargs="+", choices=MODALITIES, help="of the signals [default: all, or that of --init]"
    )
    parser.add_argument("--data", type=Path, help="folder of signals [default: the shipped samples]")
    parser.add_argument(
        "--init", nargs="+", default=[], help="initializations, by file or name [default: the installed ones]"
    )
    parser.add_argument("--limit", type=positive, help="signals per modality at most")
    parser.add_argument("--frames", type=positive, help="frames of a video, slices of a climate file at most")
    parser.add_argument("--seconds", type=float, help="seconds of a sound at most")
    parser.add_argument("--crop", type=positive, help="size of pictures and climate fields at most, from the middle")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder for JSON and plots [default: benchmarks/results]",
    )


def cut_of(arguments: argparse.Namespace) -> Cut:
    """Return how much of every signal is used. Raises: UsageError if there would be no sound left."""
    if arguments.seconds is not None and not arguments.seconds > 0:
        raise UsageError(f"--seconds is {arguments.seconds}, give a positive number")
    return Cut(arguments.frames, arguments.seconds, arguments.crop)


def sources(modality: str, data: Path | None, limit: int | None, cut: Cut, folder: Path) -> Iterator[Source]:
    """Yield the signals of a modality below a folder, or the shipped samples; `folder` is for copies.

    They are the picture of a video without its sound, an image without its alpha, every variable of a climate file.
    Raises: UsageError if there is none, SignalError if one cannot be read.
    """
    root = _samples() if data is None else data
    paths = _sample_files(root, modality) if data is None else find_files(root, modality)
    if not paths:
        raise UsageError(f"{root} has no files of {modality}: give another folder with --data")
    yield from islice((source for path in paths for source in _of_file(path, root, modality, cut, folder)), limit)


def readable(modality: str, data: Sequence[Path], cut: Cut, folder: Path) -> Iterator[Source]:
    """Yield the signals below folders, or the shipped samples, of all files that can be read.

    Folders of frames come after files. `folder` is for copies.
    """
    for root in data or [_samples()]:
        paths = find_files(root, modality) if data else _sample_files(root, modality)
        for path in sorted(paths, key=Path.is_dir):
            with suppress(SignalError):
                yield from _of_file(path, root, modality, cut, folder)


def first(modality: str, data: Sequence[Path], cut: Cut, folder: Path, fits: Callable[[Signal], bool]) -> Source:
    """Return the first of the readable signals that fits, or the very first where none does.

    Raises: UsageError if there is none.
    """
    for source in readable(modality, data, cut, folder):
        if fits(source.signal):
            return source
    for source in readable(modality, data, cut, folder):  # another time, as its copy may have been replaced
        return source
    names = ", ".join(map(str, data))
    raise UsageError(f"{names}: no file of {modality} can be read there: give another folder with --data")


def _samples() -> Path:
    import inrcodec.assets

    return Path(next(iter(inrcodec.assets.__path__))) / "samples"


def _sample_files(root: Path, modality: str) -> list[Path]:
    # The folder as a whole would do, if a folder of images were not a video.
    single = {"image": "photo.png", "video": "clip.mp4", "audio": "speech.flac", "climate": "t2m.nc"}
    return [root / single[modality], *find_files(root / modality, modality)]


def _of_file(path: Path, root: Path, modality: str, cut: Cut, folder: Path) -> Iterator[Source]:
    signals = read(path, modality)
    used = [signal for signal in signals if signal.modality == modality]
    used = used if modality == "climate" else used[:1]
    name = str(path.relative_to(root))
    for signal in used:
        group = signal.name if modality == "climate" else ""
        label = f"{name}:{group}" if group else name
        part = cut.apply(signal)
        if len(signals) == 1 and part is signal:
            yield Source(label, path, signal, group)
        else:
            yield _copy(label, part, group, folder)


def _copy(name: str, signal: Signal, group: str, folder: Path) -> Source:
    path = folder / f"source{LOSSLESS[signal.modality]}"
    copied = replace(signal, attributes={}) if signal.modality == "climate" else signal
    formats = [copied]
    if signal.modality == "audio":  # Ogg and MP3 decode to floats
        formats.append(replace(copied, attributes=copied.attributes | {"subtype": "FLOAT"}))
    for candidate in formats:
        write([candidate], path)
        (copy,) = read(path, signal.modality)
        if np.array_equal(copy.values, signal.values):
            return Source(name, path, copy, group)
    raise SignalError(f"{name}: its lossless copy {path.suffix} differs from it; convert the file by hand")


def positive(text: str) -> int:
    """Parse a number of samples, frames or files. Raises: ArgumentTypeError if it is below 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number
