"""The command line as its users see it: output, messages, exit codes."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile
from command_line import FAST, Run, is_one_error, photo, program
from PIL import Image

from inrcodec import __version__
from inrcodec.cli import main


def test_image_end_to_end(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, out, err = run("encode", "photo.png", "--init", "tiny-image", *FAST)
    size = (folder / "photo.inr").stat().st_size
    assert (code, out) == (0, "")
    assert err.startswith(f"photo.png -> photo.inr: {size:,} bytes (") and err.count("\n") == 1

    code, out, _ = run("info", "photo.inr", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["bytes"] == size == sum(part["bytes"] for part in content["parts"])
    assert content["signals"][0]["shape"] == [32, 40]
    assert content["signals"][0]["modality"] == "image"

    code, out, _ = run("info", "photo.inr")
    assert code == 0 and "32x40" in out and f"{size:,} bytes" in out and "chunk" in out

    assert run("decode", "photo.inr", "-o", "same.png")[0] == 0
    assert run("decode", "photo.inr", "--resolution", "80", "-o", "twice.png")[0] == 0
    assert run("decode", "photo.inr", "--resolution", "20x10", "--format", "webp")[0] == 0
    assert run("decode", "photo.inr", "--resolution", "0.5x", "-o", "half.png")[0] == 0
    sizes = {"same.png": (40, 32), "twice.png": (80, 64), "photo.webp": (20, 10), "half.png": (20, 16)}
    for name, expected in sizes.items():
        with Image.open(folder / name) as picture:
            assert picture.size == expected, name


def test_sound_end_to_end(run: Run, folder: Path) -> None:
    soundfile.write(folder / "speech.flac", 0.5 * np.sin(np.arange(600) / 5), 8000)
    code, out, _ = run("encode", "speech.flac", "--init", "tiny-audio", "--json", "--quiet", *FAST)
    report = json.loads(out)
    assert code == 0
    assert report["modality"] == "audio" and report["samples"] == 600
    assert {"psnr_db", "snr_db", "kbps"} <= report.keys()
    code, out, _ = run("decode", "speech.inr", "--sample-rate", 16000, "-o", "speech.wav", "--json")
    assert code == 0 and json.loads(out)["shape"] == [1200, 1]
    assert soundfile.info(folder / "speech.wav").samplerate == 16000
    assert soundfile.info(folder / "speech.wav").frames == 1200


@pytest.mark.parametrize(
    "argv",
    [
        ("encode",),
        ("encode", "photo.png", "--quality", "0"),
        ("encode", "photo.png", "--quality", "nan"),
        ("encode", "photo.png", "--quality", "much"),
        ("encode", "photo.png", "--bpp", "1", "--psnr", "30"),
        ("encode", "photo.png", "--steps", "-1"),
        ("encode", "photo.png", "--rescaling", "some"),
        ("encode", "photo.png", "--modality", "smell"),
        ("encode", "photo.png", "--device", "abacus"),
        ("encode", "photo.png", "--init", "tiny-image", "--field", "siren"),
        ("encode", "photo.png", "-o", "nowhere/photo.inr", "--init", "tiny-image"),
        ("encode", "photo.png", "-o", "-", "--json"),
        ("encode", "photo.png", "--format", "png"),
        ("encode", "photo.png", "--init", "tiny-audio"),
        ("encode", "-"),
        ("encode", "-", "photo.png"),
        ("encode", "-", "--format", "../../x"),
        ("encode", "--sideways"),
        ("decode", "photo.inr", "--resolution", "huge"),
        ("decode", "photo.inr", "--resolution", "0"),
        ("decode", "photo.inr", "--resolution", "0x5"),
        ("decode", "photo.inr", "--resolution", "9999999"),
        ("decode", "photo.inr", "--fps", "25"),
        ("decode", "photo.inr", "--sample-rate", "8000"),
        ("decode", "photo.inr", "--device", "abacus"),
        ("decode", "photo.inr", "-o", "x.png", "--format", "bmp"),
        ("decode", "photo.inr", "-o", "x"),
        ("decode", "photo.inr", "-o", "-", "--json"),
        ("meta-train",),
        ("meta-train", "--modality", "smell"),
        ("meta-train", "--modality", "image", "--field", "nerv"),
        ("meta-train", "--modality", "image", "--data", "nowhere"),
        ("meta-train", "--modality", "image", "--data", "."),
        ("meta-train", "--modality", "image", "--threads", "0"),
        ("meta-train", "--modality", "image", "-o", "."),
        ("meta-train", "--modality", "image", "-o", "nowhere/x.safetensors"),
        ("inits", "--sideways"),
        ("decipher", "photo.inr"),
        ("--debug", "decipher"),
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, folder: Path, tiny_image_file: bytes, argv: Sequence[str]) -> None:
    photo(folder / "photo.png")
    (folder / "photo.inr").write_bytes(tiny_image_file)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert is_one_error(err), err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_failures_are_one_line(run: Run, folder: Path, tiny_image_file: bytes) -> None:
    (folder / "text.png").write_text("no picture")
    (folder / "letter.inr").write_text("no codec")
    (folder / "cut.inr").write_bytes(tiny_image_file[:-20])
    flipped = bytearray(tiny_image_file)
    flipped[len(flipped) // 2] ^= 1
    (folder / "flipped.inr").write_bytes(flipped)
    (folder / "bad.safetensors").write_text("no initialization")
    for argv in (
        ("encode", "none.png", "--init", "tiny-image"),
        ("encode", "text.png", "--init", "tiny-image"),
        ("encode", "text.unknown", "--init", "tiny-image"),
        ("encode", "text.png", "--init", "nobody"),
        ("encode", "text.png", "--init", "bad.safetensors"),
        *((command, name) for command in ("decode", "info") for name in ("none.inr", "letter.inr", "cut.inr")),
        ("decode", "flipped.inr"),
        ("info", "flipped.inr"),
        ("inits", "nobody"),
    ):
        code, out, err = run(*argv)
        assert (code, out) == (1, ""), argv
        assert is_one_error(err), err
        if argv[0] in ("decode", "info"):
            assert argv[1] in err


def test_debug_shows_where(run: Run, folder: Path) -> None:
    with pytest.raises(Exception, match=r"none\.inr"):
        run("--debug", "info", "none.inr")


def test_unexpected_errors_are_one_line_too(
    run: Run, folder: Path, tiny_image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "photo.inr").write_bytes(tiny_image_file)

    def fail(*_: object) -> None:
        raise MemoryError("24 TiB")

    monkeypatch.setattr("inrcodec.cli.info.describe", fail)
    code, out, err = run("info", "photo.inr")
    assert (code, out) == (1, "") and is_one_error(err, "24 TiB")


def test_standard_input_and_output(
    tiny_initializations: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    def run(content: bytes, *argv: str) -> tuple[int, bytes, bytes]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return main(argv), *capsysbinary.readouterr()

    content = photo(folder / "photo.png").read_bytes()
    init = str(tiny_initializations / "tiny-image.safetensors")
    code, encoded, err = run(content, "encode", "-", "--modality", "image", "-o", "-", "--init", init, "--embed", *FAST)
    assert code == 0, err
    assert err.startswith(b"- -> -: ")

    code, out, err = run(encoded, "decode", "-", "-o", "-", "--format", "bmp", "--quiet")
    assert (code, err) == (0, b"")
    with Image.open(io.BytesIO(out)) as picture:
        assert (picture.format, picture.size) == ("BMP", (40, 32))
    assert [path.name for path in folder.iterdir()] == ["photo.png"]

    shown = program("info", "-", "--json", input=encoded)  # in a process of its own, which needs no torch
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert json.loads(shown.stdout)["bytes"] == len(encoded)


def test_errors_of_standard_input_say_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no picture")))
    code, _, err = run("encode", "-", "--format", "png", "-o", "-", "--init", "tiny-image")
    assert code == 1 and is_one_error(err, "standard input")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no codec")))
    code, _, err = run("decode", "-", "-o", "x.png")
    assert code == 1 and is_one_error(err, "standard input")


def test_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = [sys.executable, "-m", "inrcodec", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert result.stderr == b""


def test_start_is_light() -> None:
    script = (
        "import sys; from inrcodec.cli import main\n"
        "for argv in ['--help'], ['--version'], ['encode', '--help'], ['meta-train', '--help'], []:\n"
        "    assert main(argv) == 0\n"
        "    assert not {'torch', 'numpy', 'av', 'rich.progress'} & set(sys.modules), argv"
    )
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_while_they_wait(given: str | None, expected: str) -> None:
    """Unless asked to, and decided before torch starts them."""
    script = (
        "import os, sys; from inrcodec.cli import main\n"
        "main(['--version']); assert 'torch' not in sys.modules\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    command = [sys.executable, "-P", "-c", script]
    result = subprocess.run(command, capture_output=True, env=environment, text=True, timeout=60, check=True)
    assert result.stdout.split()[-1] == expected


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"inrcodec {__version__}\n", "")
    code, out, err = run()
    assert (code, err) == (0, "")
    assert all(command in out for command in ("encode", "decode", "info", "inits", "meta-train"))


def test_choices_in_the_help_are_the_librarys(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec.meta.config import BootstrapContextSet, Method, Schedule
    from inrcodec.meta.presets import Scale
    from inrcodec.models import FIELDS
    from inrcodec.settings import Rescaling, ScoreName, StepSizeKind
    from inrcodec.signals import MODALITIES

    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    monkeypatch.setenv("COLUMNS", "400")
    shown = run("encode", "--help")[1] + run("meta-train", "--help")[1]
    literals = (Rescaling, StepSizeKind, ScoreName, Scale, BootstrapContextSet, Method, Schedule)
    for choices in (*map(get_args, literals), FIELDS, MODALITIES):
        assert "|".join(choices) in re.sub(r"\s", "", shown) or " ".join(choices) in shown, choices
