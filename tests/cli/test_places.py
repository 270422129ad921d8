"""Where commands keep standard input and output while they work."""

import errno
import io
import os
import sys
import tempfile
from pathlib import Path

import pytest

from inrcodec.cli import places
from inrcodec.errors import SignalError
from inrcodec.signals.whole_files import unwritable


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_room_for_standard_input(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        def read(self, _: int = -1) -> bytes:
            raise full()  # as writing the copy does

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Endless()))  # type: ignore[arg-type]
    words = f"standard input .*{temporary}.*No space left.*set TMPDIR"
    with pytest.raises(SignalError, match=words), places.spooled_input(".png"):
        pytest.fail("went on")
    assert not list(temporary.iterdir())


def test_no_room_for_standard_output(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    words = f"standard output .*{temporary}.*No space left.*set TMPDIR"
    with pytest.raises(SignalError, match=words), places.spooled_output(".inr") as path:
        try:
            raise unwritable(path, full()) from full()
        except SignalError as error:
            raise SignalError(f"later: {error}") from error
    assert not list(temporary.iterdir())


def test_other_failures_keep_their_words(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SignalError, match=r"^standard output: odd$"), places.spooled_output(".inr") as path:
        raise SignalError(f"{path}: odd")
    with pytest.raises(SignalError, match=r"^cannot write elsewhere: No space"), places.spooled_output(".inr"):
        raise unwritable(Path("elsewhere"), full()) from full()


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    words = r"No usable temporary directory found .*set TMPDIR"
    with pytest.raises(SignalError, match=words), places.spooled_input(".png"):
        pytest.fail("went on")
