"""Files and folders that appear whole or not at all, whatever happens while they are written: all of the project's.

A file is written under a temporary name beside its own, brought to the disk and renamed. Libraries lose errors: Pillow
ignores a short write, libsndfile the errors of closing. So they write into memory, or through a `CheckedFile`.
"""

import errno
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from inrcodec.errors import InrcodecError, InrcodecWarning, SignalError
from inrcodec.interruption import held_back

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
_PROBE = 1 << 16
"""Bytes that a disk which is not full has room for."""


def write_whole(path: Path, write_to: Callable[[Path], object]) -> None:
    """Let `write_to` make a file under a temporary name beside `path`, then move it there in one step.

    When this returns, the file is on the disk and not only in memory. A file that is replaced keeps its permissions
    and, where that is allowed, its owner. If anything fails or is interrupted from the keyboard, no temporary file
    stays; what was at `path` before is unharmed. If only the folder cannot be brought to the disk, the new file is
    there, and a warning says that it may not outlast a power failure.

    Raises: SignalError if the folder cannot be written to or the disk is full.
    """
    path = path.resolve()  # a link is followed, not replaced
    if path.exists() and not path.is_file():
        raise SignalError(f"cannot write {path}: it is there and no file; give another name, or - for standard output")
    temporary = None
    try:
        with held_back():  # else one between making the file and noting it would leave it behind
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".inrcodec-", suffix=path.suffix)
            temporary = Path(name)
            os.close(handle)
        try:
            write_to(temporary)
        except InrcodecError as error:
            # netCDF calls a full disk a lack of permission, for one.
            if full := _full_disk(temporary):
                raise unwritable(path, full) from error
            raise _renamed(error, temporary, path) from error
        _set_permissions(temporary, path)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with held_back():
            if temporary is not None:
                temporary.unlink(missing_ok=True)
    _sync_name(path)


def write_whole_folder(path: Path, write_to: Callable[[Path], object]) -> None:
    """Let `write_to` make a folder under a temporary name beside `path`, then move it there, as `write_whole` does.

    A folder that is replaced is moved away just before, and removed when the new one is in its place.

    Raises: SignalError if the folder around cannot be written to or the disk is full.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise SignalError(f"cannot write {path}: it is there and no folder; give another name")
    around = None
    try:
        with held_back():
            around = Path(tempfile.mkdtemp(dir=path.parent, prefix=".inrcodec-"))
        temporary, old = around / f"new{path.suffix}", around / "old"
        try:
            write_to(temporary)
        except InrcodecError as error:
            if full := _full_disk(around / "probe"):
                raise unwritable(path, full) from error
            raise _renamed(error, temporary, path) from error
        for each in temporary.rglob("*"):
            if each.is_file():
                with each.open("r+b") as file:
                    os.fsync(file.fileno())
            else:
                _sync_folder(each)
        with held_back():
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with held_back():
            if around is not None:
                shutil.rmtree(around, ignore_errors=True)
    _sync_name(path)


def _renamed(error: InrcodecError, temporary: Path, path: Path) -> InrcodecError:
    """The same error with the name that the user gave."""
    return type(error)(str(error).replace(str(temporary), str(path)).replace(temporary.name, path.name))


def _sync_name(path: Path) -> None:
    """Bring the new name to the disk, or warn that it is not there."""
    try:
        _sync_folder(path.parent)
    except OSError as error:
        warnings.warn(
            f"{path} is written, but its folder cannot be brought to the disk ({error.strerror or error}): a power "
            "failure may undo it, so keep what it was made from, and check the disk",
            InrcodecWarning,
            stacklevel=3,
        )


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file of these bytes. Raises: SignalError if they are not all written."""
    with checked_file(path) as file:
        file.write(data)


class CheckedFile:
    """A file open for writing and reading that remembers the first error of writing, for libraries that lose it.

    raises: whether `write` raises that error, or returns 0 to callers that cannot be raised through (libsndfile).
    """

    def __init__(self, raw: BinaryIO, raises: bool) -> None:
        self.error: OSError | None = None
        self._raw = raw
        self._raises = raises
        self.seek, self.tell, self.read = raw.seek, raw.tell, raw.read

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the data, whose length is returned."""
        try:
            if self.error is not None:
                raise self.error
            _write_all(self._raw.fileno(), data)
        except OSError as error:
            self.error = self.error or error
            if self._raises:
                raise
            return 0
        return len(data)


@contextmanager
def checked_file(path: Path, *, raises: bool = True) -> Iterator[CheckedFile]:
    """A new file at `path`, for libraries that write into file objects.

    Raises: SignalError if anything that was written is not in the file, whatever else was raised before.
    """
    try:
        raw = path.open("w+b", buffering=0)
    except OSError as error:
        raise unwritable(path, error) from error
    with raw:
        file = CheckedFile(raw, raises)
        try:
            yield file
        except Exception:
            if file.error is None:
                raise
        if file.error is not None:
            raise unwritable(path, file.error) from file.error


def unwritable(path: Path, error: OSError) -> SignalError:
    """What to raise where the system cannot write a file."""
    hint = f"; free some space in {path.parent}, or write to another disk" if error.errno in _FULL else ""
    return SignalError(f"cannot write {path}: {error.strerror or error}{hint}")


def _write_all(handle: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[os.write(handle, rest) :]


def _full_disk(temporary: Path) -> OSError | None:
    """The error of a disk without any room beside the file, which is discarded; None where there is some."""
    try:
        with temporary.open("ab", buffering=0) as file:
            _write_all(file.fileno(), bytes(_PROBE))
            os.fsync(file.fileno())
    except OSError as error:
        return error if error.errno in _FULL else None
    return None


def _set_permissions(temporary: Path, path: Path) -> None:
    """Those of the file at `path`, or of any new file where there is none."""
    try:
        before = path.stat()
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        return
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too, where the system can."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
