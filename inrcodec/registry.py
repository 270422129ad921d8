"""The installed initializations: which there are, which one a modality uses, and which one an identifier means."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from inrcodec.errors import InitializationError, UnknownInitialization, UsageError
from inrcodec.initialization import IDENTIFIER_BYTES, SUFFIX, Initialization, stored_identifier
from inrcodec.signals import MODALITIES

DEFAULTS: dict[str, str] = {
    "image": "image-pyramid",
    "video": "video-clip",
    "audio": "audio-spectrum",
    "climate": "climate-series",
}
"""Name of the installed initialization that encodes a modality when none is asked for."""

PATH_VARIABLE = "INRCODEC_INITIALIZATIONS"
"""Environment variable with further folders of initializations, separated as in PATH."""


def installed() -> Iterator[Path]:
    """Yield the files of all installed initializations: the published ones, then those of `PATH_VARIABLE`'s folders."""
    import inrcodec.assets

    folders = [Path(next(iter(inrcodec.assets.__path__))) / "initializations"]
    folders += [Path(folder) for folder in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if folder]
    for folder in folders:
        yield from sorted(folder.glob(f"*{SUFFIX}"))


def named_initialization(name: str) -> Initialization:
    """Load the initialization of a file, or of an installed name or identifier (16 hexadecimal digits).

    Raises: UnknownInitialization, InitializationError.
    """
    if is_path(name):
        return Initialization.load(Path(name))
    for path in installed():
        if path.stem == name:
            return Initialization.load(path)
    if re.fullmatch(f"[0-9a-fA-F]{{{2 * IDENTIFIER_BYTES}}}", name):
        return find_initialization(bytes.fromhex(name))
    names = ", ".join(path.stem for path in installed())
    raise UnknownInitialization(f"no initialization is called {name!r}; installed are: {names}")


def is_path(name: str) -> bool:
    """Say whether a name of an initialization is that of a file."""
    return bool(Path(name).suffix) or os.sep in name


def default_initialization(modality: str, field: str | None = None) -> Initialization:
    """Load the installed initialization for a modality, of a certain field if one is asked for: of several the default.

    Raises: UsageError if there is no such modality; UnknownInitialization, InitializationError.
    """
    check_modality(modality)
    default = DEFAULTS[modality]
    if field is None:
        return named_initialization(default)
    there = set()
    for path in sorted(installed(), key=lambda path: path.stem != default):
        with contextlib.suppress(InitializationError):  # a damaged one must not keep others from being used
            initialization = Initialization.load(path)
            if initialization.modality == modality:
                if initialization.field.name == field:
                    return initialization
                there.add(initialization.field.name)
    raise UnknownInitialization(
        f"no {field!r} initialization for {modality} is installed, but of {', '.join(sorted(there)) or 'no field'}: "
        "give one with --init, 'inrcodec meta-train' makes it"
    )


def check_modality(modality: str) -> None:
    """Raises: UsageError if no modality has this name."""
    if modality not in MODALITIES:
        raise UsageError(f"no modality is called {modality!r}: choose from {', '.join(MODALITIES)}")


def find_initialization(identifier: bytes, known: Iterable[Initialization] = ()) -> Initialization:
    """Find the initialization with an identifier, first among `known`, then among the installed.

    Raises: UnknownInitialization.
    """
    for initialization in known:
        if initialization.identifier == identifier:
            return initialization
    for path in installed():
        if stored_identifier(path) == identifier.hex():
            with contextlib.suppress(InitializationError):  # a damaged one must not hide a sound one elsewhere
                return Initialization.load(path)
    raise UnknownInitialization(
        f"the file needs the initialization {identifier.hex()}, which is not installed: give its file with --init, "
        f"or put it into a folder named in {PATH_VARIABLE}"
    )
