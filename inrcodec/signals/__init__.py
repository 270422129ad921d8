"""Files to signals and back, one module per modality; nothing else in the project knows file formats."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from inrcodec.errors import SignalError, UsageError
from inrcodec.signals.signal import Axis, Signal
from inrcodec.signals.video_frames import FRAME_EXTENSIONS
from inrcodec.signals.whole_files import write_whole

MODALITIES = ("image", "video", "audio", "climate")
AXES = {"image": 2, "video": 3, "audio": 2, "climate": 3}

__all__ = [
    "MODALITIES",
    "Axis",
    "Signal",
    "default_extension",
    "find_files",
    "read",
    "read_back",
    "stored_step",
    "write",
    "write_whole",
]


def _module(modality: str) -> ModuleType:
    """The module of a modality; imported when needed, because the libraries behind are slow to import."""
    if modality not in MODALITIES:
        raise UsageError(f"no modality is called {modality!r}: choose from {', '.join(MODALITIES)}")
    return importlib.import_module(f"inrcodec.signals.{modality}")


def modality_of(path: Path) -> str:
    """The modality a file's name belongs to; a folder is a video, one image per frame.

    Raises: SignalError if no modality knows the extension.
    """
    if path.is_dir():
        return "video"
    extension = path.suffix.lower()
    for modality in MODALITIES:
        if extension in _module(modality).EXTENSIONS:
            return modality
    raise SignalError(
        f"{path}: {extension or 'a name without extension'} is of no known modality; rename the file or give --modality"
    )


def read(path: Path, modality: str | None = None) -> list[Signal]:
    """The signals of a file, the main one first.

    modality: read it as this, whatever its name.
    Raises: SignalError if the file is missing, damaged or of an unknown kind.
    """
    if not path.exists():
        raise SignalError(f"{path}: there is no such file")
    signals: list[Signal] = _module(modality or modality_of(path)).read(path)
    return signals


def write(signals: Sequence[Signal], path: Path) -> None:
    """Write signals of one file in the format its extension names; the file appears whole or not at all.

    Raises: SignalError if the format is not written or cannot hold them, or values are NaN or infinite.
    """
    module = _module(signals[0].modality)
    check_writable(signals[0].modality, path)
    for signal in signals:
        if len(signal.axes) != AXES[signal.modality]:
            raise SignalError(f"{path}: a signal of {len(signal.axes)} axes is no {signal.modality}")
        signal.check_finite(path)
    write_whole(path, lambda temporary: module.write(list(signals), temporary))


def check_writable(modality: str, path: Path) -> None:
    """Raises: SignalError if the modality is not written in the format that the path's extension names."""
    module = _module(modality)
    if path.suffix.lower() not in module.WRITABLE:
        raise SignalError(
            f"{path}: {modality} cannot be written as {path.suffix!r}; use one of {' '.join(module.WRITABLE)}"
        )


def stored_step(signal: Signal) -> float:
    """How far apart the values are that a file of the decoded signal can hold; 0 where it holds any of their type."""
    step: float = getattr(_module(signal.modality), "stored_step", lambda _: 0.0)(signal)
    return step


def read_back(signal: Signal) -> np.ndarray:
    """The values that reading a file of the decoded signal gives: those of the signal, unless they are packed there."""
    values: np.ndarray = getattr(_module(signal.modality), "read_back", lambda same: same.values)(signal)
    return values


def default_extension(modality: str) -> str:
    """What `decode` writes when no format is asked for."""
    extension: str = _module(modality).DEFAULT_EXTENSION
    return extension


def find_files(folder: Path, modality: str | None = None) -> list[Path]:
    """All files below a folder (links followed) whose names belong to a modality (or to any), sorted.

    A folder with nothing but images is one video when videos are asked for.
    """
    modalities = MODALITIES if modality is None else (modality,)
    extensions = frozenset().union(*(_module(name).EXTENSIONS for name in modalities))
    found: list[Path] = []
    for parent, _, names in os.walk(folder, followlinks=True):
        files = [Path(parent, name) for name in names if not name.startswith(".")]
        if modality == "video" and files and all(path.suffix.lower() in FRAME_EXTENSIONS for path in files):
            found.append(Path(parent))
        found += [path for path in files if path.suffix.lower() in extensions]
    return sorted(found)
