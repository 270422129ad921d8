"""Where commands read and write: derived names, folders, standard input and output."""

import errno
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from inrcodec.errors import InrcodecError, SignalError, UsageError
from inrcodec.interruption import held_back

STANDARD = Path("-")
"""Standard input or output."""

SUFFIX = ".inr"
"""The extension of encoded files."""

ZARR = ".zarr"
"""The extension of folders that count as files."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Input:
    """A file to read. name: of the output, relative to the output folder, where -o does not name it."""

    source: Path
    name: str


def encoded_inputs(paths: Iterable[Path]) -> list[Input]:
    """Return the `.inr` files that are given, and for folders those below; their names lack an extension.

    Raises: UsageError if a folder has none.
    """
    found = []
    for path in paths:
        files = sorted(file for file in path.rglob(f"*{SUFFIX}") if file.is_file()) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path} holds no {SUFFIX} file: give another folder")
        top = path if path.is_dir() else path.parent
        found += [Input(file, str(file.relative_to(top).with_suffix(""))) for file in files]
    return found


def extension(format: str | None) -> str | None:
    """Return the extension that --format means, ".png" for "png". Raises: UsageError if it cannot be one."""
    if format is None:
        return None
    name = format.removeprefix(".").lower()
    if not re.fullmatch(r"[a-z0-9]{1,16}", name):
        raise UsageError(f"--format is {format!r}, give the extension of a file, as png or wav")
    return f".{name}"


def is_folder(output: str) -> bool:
    """Say whether -o means a folder for files: it is one, or is written as one. A Zarr store counts as a file."""
    return Path(output).suffix.lower() != ZARR and (output.endswith(("/", "\\")) or Path(output).is_dir())


def output_path(output: str | None, source: Path, name: str) -> Path:
    """Return the file to write for `source`: what -o says, in the folder it says, or beside the source.

    name: of the file where -o does not name it.
    Raises: UsageError if the file would be written over the source, or is in a folder that does not exist.
    """
    if source == STANDARD and (output is None or is_folder(output)):
        raise UsageError("say with -o which file to write from standard input, - is standard output")
    path = source.parent / name if output is None else Path(output) / name if is_folder(output) else Path(output)
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path} would be written over itself: give -o another name")
    if output is not None and not is_folder(output) and not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    return path


def check_free(path: Path, force: bool) -> None:
    """Raises: UsageError if a file would be written over another one, unless that is asked for."""
    if is_there(path) and not force:
        raise UsageError(f"{path} is there already: give another name with -o, or --force to write over it")


def is_there(path: Path) -> bool:
    """Say whether there is a file, or a Zarr store."""
    return path.is_file() or (path.suffix.lower() == ZARR and path.is_dir())


class Outputs:
    """The files that a command writes, no two inputs to the same.

    output: what -o says. several: whether it must be a folder, for several inputs.
    force: write over files that are there. skip_existing: leave them, and their inputs.
    Raises: UsageError if `output` is no folder where it must be, or for both of the latter.
    """

    def __init__(self, output: str | None, *, several: bool, force: bool, skip_existing: bool) -> None:
        if several and (output is None or output == "-" or (Path(output).exists() and not is_folder(output))):
            raise UsageError(f"-o is {output or 'not given'}, several inputs need a folder: give one")
        if force and skip_existing:
            raise UsageError("--force writes over files that are there, --skip-existing leaves them: give one of them")
        self._output = f"{output}/" if several else output
        self._force = force
        self._skip_existing = skip_existing
        self._claimed: set[Path] = set()

    def claim(self, source: Path, name: str) -> Path:
        """Return the file to write for an input; `name` and errors as of `output_path` and `check_free`."""
        if self._output == "-":
            return STANDARD
        target = output_path(self._output, source, name)
        if target in self._claimed:
            raise UsageError(f"{target} is the output of another input too: rename one of them")
        if not self.keeps(target):
            check_free(target, self._force)
        self._claimed.add(target)
        return target

    def keeps(self, target: Path) -> bool:
        """Say whether a file is there and stays. It is a whole one: files appear whole or not at all."""
        return self._skip_existing and target != STANDARD and is_there(target)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextmanager
def to_read(source: Path, suffix: str) -> Iterator[Path]:
    """Give the file to read for an input; `suffix` and errors as of `spooled_input`."""
    with spooled_input(suffix) if source == STANDARD else nullcontext(source) as path:
        yield path


@contextmanager
def to_write(target: Path, suffix: str) -> Iterator[Path]:
    """Give the file to write for an output, in a folder that is there; `suffix` and errors as of `spooled_output`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with spooled_output(suffix) if target == STANDARD else nullcontext(target) as path:
        yield path


@contextmanager
def spooled_input(suffix: str) -> Iterator[Path]:
    """Keep standard input in a temporary file, since readers want to seek; errors name it as standard input.

    Raises: SignalError if there is no room for temporary files.
    """
    with _temporary_folder("standard input") as folder:
        path = folder / f"input{suffix}"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(binary(sys.stdin), file)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _no_room("standard input", error) from error
        try:
            yield path
        except InrcodecError as error:
            raise type(error)(str(error).replace(str(path), "standard input")) from error


@contextmanager
def spooled_output(suffix: str) -> Iterator[Path]:
    """Give a temporary file whose content goes to standard output at the end, if all went well.

    Raises: SignalError if there is no room for temporary files; UsageError if standard output cannot take them.
    """
    check_standard_output()
    if suffix == ZARR:
        raise UsageError("a Zarr store is a folder, which standard output cannot take: give -o a name")
    with _temporary_folder("standard output") as folder:
        path = folder / f"output{suffix}"
        try:
            yield path
        except InrcodecError as error:
            if str(path) in str(error) and (full := _full_disk(error)):
                raise _no_room("standard output", full) from error
            raise type(error)(str(error).replace(str(path), "standard output")) from error
        with path.open("rb") as file:
            shutil.copyfileobj(file, binary(sys.stdout))
        sys.stdout.flush()


@contextmanager
def _temporary_folder(stream: str) -> Iterator[Path]:
    with held_back():  # else one between making the folder and noting it would leave it behind
        try:
            folder = tempfile.TemporaryDirectory(prefix="inrcodec-")
        except OSError as error:
            raise _no_room(stream, error) from error
    try:
        yield Path(folder.name).resolve()  # as errors name it
    finally:
        with held_back():
            folder.cleanup()


def _no_room(stream: str, error: OSError) -> SignalError:
    """Return what to raise where the system has no room for the copy of a standard stream."""
    folder = tempfile.tempdir or "none"  # none was found to be writable
    return SignalError(
        f"{stream} cannot be kept in the folder for temporary files ({folder}): {error.strerror or error}; "
        "set TMPDIR to a folder with more room"
    )


def _full_disk(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk among an error and its causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__
    return None


def check_standard_output() -> None:
    """Raises: UsageError if standard output is a terminal, which binary data would upset."""
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal, which cannot show binary data: redirect it or give -o FILE")


def binary(stream: object) -> BinaryIO:
    """Return the byte stream below a text stream."""
    return cast(BinaryIO, getattr(stream, "buffer", stream))
