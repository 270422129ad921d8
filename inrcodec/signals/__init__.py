"""Files to signals and back, one module per modality; nothing else in the project knows file formats."""

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from inrcodec.errors import InrcodecWarning, SignalError, UsageError
from inrcodec.signals.lazy import AnySignal, LazySignal, Rows
from inrcodec.signals.signal import Axis, Signal
from inrcodec.signals.video_frames import FRAME_EXTENSIONS
from inrcodec.signals.whole_files import write_whole, write_whole_folder

MODALITIES = ("image", "video", "audio", "climate")
ZARR = ".zarr"
"""Extension of a folder that holds a climate store."""

AXES = {"image": 2, "video": 3, "audio": 2, "climate": 3}
"""How many axes the grid of a signal has, by modality."""

__all__ = [
    "AXES",
    "MODALITIES",
    "AnySignal",
    "Axis",
    "LazySignal",
    "Signal",
    "check",
    "check_writable",
    "default_extension",
    "exact_reader",
    "extensions",
    "find_files",
    "in_order_of",
    "modality_of",
    "opened",
    "read",
    "read_back",
    "stored_step",
    "write",
    "write_whole",
    "write_whole_folder",
]


def _module(modality: str) -> ModuleType:
    """Return the module of a modality; imported when needed, because the libraries behind are slow to import."""
    if modality not in MODALITIES:
        raise UsageError(f"no modality is called {modality!r}: choose from {', '.join(MODALITIES)}")
    return importlib.import_module(f"inrcodec.signals.{modality}")


def modality_of(path: Path) -> str:
    """Return the modality that a file's name belongs to; a folder is a video, one image per frame, or a Zarr store.

    Raises: SignalError if no modality knows the extension.
    """
    if path.is_dir():
        return "climate" if path.suffix.lower() == ZARR else "video"
    extension = path.suffix.lower()
    for modality in MODALITIES:
        if extension in _module(modality).EXTENSIONS:
            return modality
    raise SignalError(
        f"{path}: {extension or 'a name without extension'} is of no known modality; rename the file or give --modality"
    )


def read(path: Path, modality: str | None = None) -> list[Signal]:
    """Read the signals of a file, the main one first.

    modality: read it as this, whatever its name.
    Raises: SignalError if the file is missing, damaged, no regular file or of an unknown kind.
    """
    with opened(path, modality) as signals:
        return [signal.loaded() for signal in signals]


@contextmanager
def opened(
    path: Path | Sequence[Path], modality: str | None = None, series: str | None = None
) -> Iterator[list[AnySignal]]:
    """Open the signals of a file, the main one first, to be read part by part; arguments and errors as for `read`.

    Long ones are looked through once, for their range and for what is wrong with them.

    path: also several climate files that follow each other along the dimension `series`, opened as one.
    Raises: SignalError also if files are no series; UsageError if they are of other modalities, or `series` is missing.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    for each in paths:
        if not each.exists():
            raise SignalError(f"{each}: there is no such file")
        if not each.is_file() and not each.is_dir():
            raise SignalError(
                f"{each}: neither a file nor a folder; save it as a file, or give - to read standard input"
            )
    found = [modality or modality_of(each) for each in paths]
    if series is not None:
        for each, kind in zip(paths, found, strict=True):
            if kind != "climate":
                raise UsageError(f"{each} is {kind}: only climate files make a series, encode others one by one")
        with _module("climate").opened_series(paths, series) as signals:
            yield signals
        return
    if len(paths) != 1:
        raise UsageError(f"{len(paths)} files as one: say along which dimension they follow each other, as time")
    module = _module(found[0])
    if hasattr(module, "opened"):
        with module.opened(paths[0]) as signals:
            yield signals
    else:
        yield module.read(paths[0])


def exact_reader(
    modality: str,
    name: str,
    attributes: dict[str, Any],
    stored: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return what corrects decoded rows by what a signal's attributes say exactly: limits and zeros of fields.

    It takes values [rows, *grid, C] and the index of their first row; rows are corrected fastest in ascending order.
    stored, shape: of the original and of the decoded grid.
    Raises: SignalError, here or later, if the attributes are malformed.
    """
    make = getattr(_module(modality), "exact_reader", None)
    if make is None:
        return lambda values, begin: values
    correct: Callable[[np.ndarray, int], np.ndarray] = make(name, attributes, stored, shape, dtype)
    return correct


def check(signal: AnySignal) -> None:
    """Look at those attributes of a decoded signal that matter only when it is written.

    Raises: SignalError if they are malformed.
    """
    getattr(_module(signal.modality), "check", lambda _: None)(signal)


def in_order_of(signal: AnySignal, other: AnySignal) -> AnySignal:
    """Return a signal with its samples in the order of those of another, which was read from the same file.

    Readers may choose the order of the slices of climate fields. Raises: SignalError if attributes are malformed.
    """
    ordered: AnySignal = getattr(_module(signal.modality), "in_order_of", lambda same, _: same)(signal, other)
    return ordered


def write(signals: Sequence[AnySignal], path: Path) -> None:
    """Write signals of one file in the format its extension names; the file appears whole or not at all.

    Lazy ones are read part by part while they are written.

    Raises: SignalError if the format is not written or cannot hold them, or values are NaN or infinite.
    """
    module = _module(signals[0].modality)
    check_writable(signals[0].modality, path)
    for signal in signals:
        if len(signal.axes) != AXES[signal.modality]:
            raise SignalError(f"{path}: a signal of {len(signal.axes)} axes is no {signal.modality}")
    finite = [_finite(signal, path) for signal in signals]
    writing = write_whole_folder if path.suffix.lower() == ZARR else write_whole
    writing(path, lambda temporary: module.write(finite, temporary))


def _finite(signal: AnySignal, path: Path) -> AnySignal:
    """Return a signal without NaN and infinite values; a lazy one is looked at when it is read."""
    if isinstance(signal, Signal):
        signal.check_finite(path)
        return signal

    def read(begin: int, end: int) -> Rows:
        part = signal.part(begin, end)
        part.check_finite(path)
        return part.values, part.missing

    return replace(signal, read=read)


def check_writable(modality: str, path: Path) -> None:
    """Check that the modality is written in the format that the path's extension names.

    Raises: SignalError if it is not.
    """
    module = _module(modality)
    if path.suffix.lower() not in module.WRITABLE:
        raise SignalError(
            f"{path}: {modality} cannot be written as {path.suffix!r}; use one of {' '.join(module.WRITABLE)}"
        )


def stored_step(signal: Signal) -> float:
    """Return how far apart the values are that a file of the decoded signal can hold; 0 for any of their type."""
    step: float = getattr(_module(signal.modality), "stored_step", lambda _: 0.0)(signal)
    return step


def read_back(signal: Signal) -> np.ndarray:
    """Return the values that reading a file of the decoded signal gives; they differ where the file packs them."""
    values: np.ndarray = getattr(_module(signal.modality), "read_back", lambda same: same.values)(signal)
    return values


def default_extension(modality: str) -> str:
    """Return the extension of what `decode` writes when no format is asked for."""
    extension: str = _module(modality).DEFAULT_EXTENSION
    return extension


def extensions(modality: str) -> frozenset[str]:
    """Return the extensions of the files that a modality reads."""
    known: frozenset[str] = frozenset(_module(modality).EXTENSIONS)
    return known


def find_files(folder: Path, modality: str | None = None) -> list[Path]:
    """Return all regular files below a folder (links followed) whose names belong to a modality (or to any), sorted.

    A file or folder that several links lead to is found once, by its own name if that is below the folder too. A folder
    with nothing but images is one video when videos are asked for; a Zarr store is a file. A folder that cannot be read
    is warned of.
    """
    modalities = MODALITIES if modality is None else (modality,)
    wanted = frozenset().union(*map(extensions, modalities))
    found: dict[Path, Path] = {}
    if _is_store(folder):
        return [folder] if ZARR in wanted else []
    for parent, files in _folders(folder):
        if modality == "video" and files and all(path.suffix.lower() in FRAME_EXTENSIONS for path in files):
            found.setdefault(parent.resolve(), parent)
        for path in files:
            if path.suffix.lower() in wanted and (not path.is_symlink() or path.resolve() not in found):
                found[path.resolve()] = path
    return sorted(found.values())


def _folders(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder from `top` on with its visible files, once each, those behind links last."""
    folders: list[Path] = [top]
    links: list[Path] = []
    seen: set[Path] = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            warnings.warn(f"{folder}: cannot be read ({error.strerror}); left out", InrcodecWarning, stacklevel=3)
            continue
        for path in entries:
            if path.is_dir() and not _is_store(path):
                (links if path.is_symlink() else folders).append(path)
        files = [path for path in entries if path.is_file() or _is_store(path)]
        yield folder, [path for path in files if not path.name.startswith(".")]


def _is_store(path: Path) -> bool:
    """Say whether a folder is a climate store, which counts as a file."""
    return path.suffix.lower() == ZARR and path.is_dir()
