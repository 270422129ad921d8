"""Fixtures for the command line."""

from pathlib import Path

import pytest
from command_line import FAST, Run, photo

from inrcodec.cli import main


@pytest.fixture
def run(tiny_installed: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the program in this process, for its exit code, standard output and standard error."""

    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_image_file(tiny_initializations: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the content of an `.inr` file of a picture."""
    folder = tmp_path_factory.mktemp("encoded")
    source, target = photo(folder / "photo.png"), folder / "photo.inr"
    init = tiny_initializations / "tiny-image.safetensors"
    assert main(["encode", str(source), "-o", str(target), "--init", str(init), "--quiet", *FAST]) == 0
    return target.read_bytes()
