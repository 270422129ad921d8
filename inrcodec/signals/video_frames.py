"""Frames: the images of a folder in their order, and many frames as one picture signal that reads them when asked."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.lazy import LazySignal, Rows
from inrcodec.signals.reading_errors import unreadable
from inrcodec.signals.signal import Axis

FOLDER_RATE = Fraction(25)
"""Frames per second of a folder of frames, and of the rare file whose frame rate cannot be told."""

FRAME_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp"})

TRANSPARENT = "frames are transparent in places; black is put behind them"
"""A warning, behind the number of the frames."""

KEPT_BYTES = 1 << 26
"""The frames of a clip stay in memory once they are decoded if they take no more: decoding again takes time."""


class FirstLook:
    """Frames as they are read for the first time: how many they are, their size, and all of them if they are few.

    shape: [H, W, 3] of the first. kept: the frames, or None where they take more than `KEPT_BYTES`.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shape: tuple[int, ...] = ()
        self.kept: list[np.ndarray] | None = []

    def add(self, frame: np.ndarray, path: Path) -> None:
        """Take the next frame. Raises: SignalError that names `path` if it is of another size than the first."""
        self.shape = self.shape or frame.shape
        check_same_size(frame, self.shape, self.count, path)
        self.count += 1
        if self.kept is not None:
            self.kept.append(frame)
            self.kept = self.kept if self.count * frame.nbytes <= KEPT_BYTES else None


def folder_picture(folder: Path) -> LazySignal:
    """Return the picture of a folder of [H, W, 3] uint8 images in natural order; all are looked at once.

    Raises: SignalError if there are none, one cannot be read, or they differ in size.
    """
    names = [p for p in folder.iterdir() if p.suffix.lower() in FRAME_EXTENSIONS and not p.name.startswith(".")]
    if not names:
        raise SignalError(f"{folder}: no frames here; expected {', '.join(sorted(FRAME_EXTENSIONS))}")
    paths = sorted(names, key=_natural_order)
    look, translucent = FirstLook(), 0
    for path in paths:
        frame, is_translucent = _image_frame(path)
        look.add(frame, path)
        translucent += is_translucent
    if translucent:
        warnings.warn(f"{folder}: {translucent} {TRANSPARENT}", InrcodecWarning, stacklevel=2)

    def read_again(index: int) -> np.ndarray:
        with readable(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", InrcodecWarning)  # told the first time
            frame, _ = _image_frame(paths[index])
        check_same_size(frame, look.shape, index, paths[index])
        return frame

    frame_at = read_again if look.kept is None else look.kept.__getitem__
    return picture_signal(len(paths), look.shape, FOLDER_RATE, by_frame(frame_at))


def _image_frame(path: Path) -> tuple[np.ndarray, bool]:
    """Return the [H, W, 3] uint8 image of a file on black, and whether it is transparent in places."""
    from inrcodec.signals import image

    main, *alpha = (signal.values for signal in image.read(path))
    values = on_black(main, alpha[0]) if alpha else main
    if values.dtype != np.uint8:
        raise SignalError(f"{path}: frames have 8 bits per channel, this one has {8 * values.itemsize}")
    return np.broadcast_to(values, (*values.shape[:2], 3)), values is not main


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell the errors of libraries that cannot read a clip. Raises: SignalError."""
    import av

    try:
        yield
    # PyAV raises ValueError for what FFmpeg has no error for, such as sound that changes its layout.
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise unreadable(path, "a video", error, "the file may be damaged or incomplete") from error


def on_black(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return values [H, W, C] as they look on black, or the same array if all of it is opaque.

    The colours of transparent places are often noise. values, alpha [H, W, 1]: uint8.
    """
    if alpha.min() == 255:
        return values
    return ((values * alpha.astype(np.uint16) + 127) // 255).astype(np.uint8)


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdecimal() else part for part in parts], path.name


def check_same_size(frame: np.ndarray, shape: tuple[int, ...], index: int, path: Path) -> None:
    """Refuse the frame of this index if it is of another shape [H, W, 3] than the first."""
    if frame.shape != shape:
        (height, width, _), (first_height, first_width, _) = frame.shape, shape
        raise SignalError(
            f"{path}: frame {index} is {width}x{height}, the first is {first_width}x{first_height}; "
            f"scale them to one size"
        )


def by_frame(frame_at: Callable[[int], np.ndarray]) -> Callable[[int, int], Rows]:
    """Return a `LazySignal.read` of frames that can be had in any order."""
    return lambda begin, end: (np.stack([frame_at(index) for index in range(begin, end)]), None)


def picture_signal(
    count: int,
    shape: tuple[int, ...],
    rate: Fraction,
    read: Callable[[int, int], Rows],
    attributes: dict[str, Any] | None = None,
) -> LazySignal:
    """Return the signal of so many uint8 frames of a shape [H, W, 3], `rate` per second."""
    height, width, channels = shape
    axes = (Axis(count, "start", rate=rate), Axis(height), Axis(width))
    dtype = np.dtype(np.uint8)
    return LazySignal("video", dtype, axes, channels, (0.0, 255.0), read=read, attributes=attributes or {})
