"""The command line as its users see it: output, messages, exit codes, files."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from PIL import Image
from safetensors.numpy import load_file

from inrcodec import __version__, weight_fields
from inrcodec import files as files_module
from inrcodec.cli import main
from inrcodec.cli.encode import encode_options
from inrcodec.cli.resolution import parse_frame_rate, parse_resolution, resolution_for
from inrcodec.cli.training_settings import configure
from inrcodec.errors import UsageError
from inrcodec.options import EncodeOptions

FAST = ["--steps", "4", "--device", "cpu"]
TINY = [
    *("--modality", "image", "--patch", "16x16", "--width", "8", "--depth", "3", "-K", "2", "--batch", "2"),
    *("--device", "cpu"),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_installed: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program in this process: exit code, standard output, standard error."""

    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(path: Path, seed: int = 1) -> Path:
    """Write a smooth picture, 40 x 32 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:32, :40] / 8
    waves = [np.sin(seed + x), np.sin(y - seed), np.sin((x + y) / 2)]
    Image.fromarray(np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)).save(path)
    return path


def program(*argv: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a process of its own."""
    command = [sys.executable, "-m", "inrcodec", *map(str, argv)]
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **options)


def is_one_error(text: str, *parts: str) -> bool:
    return text.startswith("inrcodec: error: ") and text.count("\n") == 1 and all(part in text for part in parts)


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
    assert code == 0 and json.loads(out)["shape"] == [1, 1200]
    assert soundfile.info(folder / "speech.wav").samplerate == 16000
    assert soundfile.info(folder / "speech.wav").frames == 1200


def test_json_of_encode_and_decode(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, out, _ = run("encode", "photo.png", "--init", "tiny-image", "--embed", "--json", *FAST)
    report = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert report["bytes"] == (folder / "photo.inr").stat().st_size
    assert report["bits_per_sample"] == pytest.approx(8 * report["bytes"] / (32 * 40))
    assert {"input", "output", "initialization", "field", "seconds", "device", "steps"} <= report.keys()
    code, out, _ = run("decode", "photo.inr", "-o", "new.png", "--json")
    keys = {"input", "output", "modality", "shape", "seconds", "device"}
    assert code == 0 and json.loads(out).keys() == keys
    assert json.loads(out)["shape"] == [32, 40]


def test_options_that_are_left_out_are_the_encoders_own(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, out, _ = run("encode", "photo.png", "--init", "tiny-image", "--json")
    assert code == 0 and json.loads(out)["steps"] == weight_fields.STEPS[EncodeOptions().effort]
    assert "--quality" in run("encode", "--help")[1]


def test_quality_changes_the_size(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")

    def size(quality: int) -> int:
        code, _, _ = run("encode", "photo.png", "-o", "out.inr", "--quality", quality, "--init", "tiny-image", *FAST)
        assert code == 0
        return (folder / "out.inr").stat().st_size

    assert size(5) < size(60)


def test_targets_reach_the_encoder() -> None:
    assert encode_options(bits_per_sample=1.5, psnr=None) == EncodeOptions(bits_per_sample=1.5)
    assert encode_options(psnr=30.0, rescaling="none") == EncodeOptions(psnr=30.0, rescaling="none")


def test_folder_keeps_its_tree(run: Run, folder: Path) -> None:
    photo(folder / "in" / "a.png", 1)
    photo(folder / "in" / "deep" / "b.png", 2)
    (folder / "in" / "notes.txt").write_text("no picture")
    code, out, err = run("encode", "in", "-o", "out", "--init", "tiny-image", "--json", *FAST)
    assert code == 0
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.inr")) == [
        "a.inr",
        str(Path("deep", "b.inr")),
    ]
    assert len([json.loads(line) for line in out.splitlines()]) == 2
    assert err.count("\n") == 2


def test_one_of_several_fails(run: Run, folder: Path) -> None:
    files = [photo(folder / "a.png"), folder / "broken.png", photo(folder / "c.png"), folder / "none.png"]
    files[1].write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    code, _, err = run("encode", *files, "-o", "out", "--init", "tiny-image", *FAST)
    assert code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.inr", "c.inr"]
    lines = err.splitlines()
    assert sum(line.startswith("inrcodec: error: ") and "broken.png" in line for line in lines) == 1
    assert sum(line.startswith("inrcodec: error: ") and "none.png" in line for line in lines) == 1
    assert lines[-1] == "2 of 4 files failed"


def test_one_of_several_fails_as_nobody_expected(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photo(folder / "a.png"), photo(folder / "b.png")]
    encode_file = files_module.encode_file

    def failing(source: Path, *arguments: Any, **options: Any) -> Any:
        if source == files[0]:
            raise ZeroDivisionError("a defect")
        return encode_file(source, *arguments, **options)

    monkeypatch.setattr(files_module, "encode_file", failing)
    command = ["encode", *files, "-o", "out", "--init", "tiny-image", *FAST]
    code, _, err = run(*command)
    assert code == 1
    assert [path.name for path in Path("out").iterdir()] == ["b.inr"]
    assert "a.png: unexpected ZeroDivisionError (a defect)" in err
    with pytest.raises(ZeroDivisionError):
        run("--debug", *command)


def test_formats_that_are_not_written_are_refused_before_the_work(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(folder / "a.png")
    assert run("encode", "a.png", "--init", "tiny-image", *FAST)[0] == 0

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(files_module, "decode", never)
    code, _, err = run("decode", "a.inr", "-o", "a.wav")
    assert code == 1
    assert is_one_error(err, "a.wav: image cannot be written as '.wav'; use one of .png")


@pytest.mark.parametrize("device", ["meta", "cuda:x", "mps", "CPU", ""])
def test_devices_there_are_none_of(run: Run, folder: Path, device: str) -> None:
    code, _, err = run("encode", photo(folder / "a.png"), "--device", device)
    assert code == 2
    assert is_one_error(err, f"device {device!r} cannot be used: use auto, cpu or cuda[:n]")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_standard_output(run: Run, folder: Path) -> None:
    photo(folder / "a.png")
    assert run("encode", "a.png", "--init", "tiny-image", *FAST)[0] == 0
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "inrcodec", "info", "a.inr"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode != 0
    assert b"standard output: No space left" in done.stderr


def test_two_inputs_of_one_name(run: Run, folder: Path) -> None:
    files = [photo(folder / "a.png"), photo(folder / "a.bmp", 2)]
    code, _, err = run("encode", *files, "-o", "out", "--init", "tiny-image", "--quiet", *FAST)
    assert code == 1
    assert is_one_error(err, "a.bmp", "another input")


def test_several_inputs_need_a_folder(run: Run, folder: Path) -> None:
    files = [photo(folder / "a.png"), photo(folder / "b.png")]
    (folder / "file").write_text("in the way")
    for output in ([], ["-o", "-"], ["-o", "file"]):
        code, out, err = run("encode", *files, *output, "--init", "tiny-image")
        assert (code, out) == (2, "") and is_one_error(err, "folder")
    assert (folder / "file").read_text() == "in the way"
    (folder / "empty").mkdir()
    code, _, err = run("encode", "empty", "-o", "out")
    assert code == 2 and is_one_error(err, "empty")


def test_derived_output_is_not_overwritten(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    (folder / "photo.inr").write_bytes(b"precious")
    code, _, err = run("encode", "photo.png", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "photo.inr", "-o")
    assert (folder / "photo.inr").read_bytes() == b"precious"

    assert run("encode", "photo.png", "-o", "photo.inr", "--init", "tiny-image", *FAST)[0] == 0
    before = (folder / "photo.png").read_bytes()
    code, _, err = run("decode", "photo.inr")
    assert code == 2 and is_one_error(err, "photo.png", "-o")
    assert (folder / "photo.png").read_bytes() == before


def test_input_is_never_the_output(run: Run, folder: Path) -> None:
    before = photo(folder / "photo.png").read_bytes()
    code, _, err = run("encode", "photo.png", "-o", "photo.png", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "photo.png")
    assert (folder / "photo.png").read_bytes() == before


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


@pytest.fixture(scope="session")
def tiny_image_file(tiny_initializations: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of an `.inr` file of a picture."""
    folder = tmp_path_factory.mktemp("encoded")
    source, target = photo(folder / "photo.png"), folder / "photo.inr"
    init = tiny_initializations / "tiny-image.safetensors"
    assert main(["encode", str(source), "-o", str(target), "--init", str(init), "--quiet", *FAST]) == 0
    return target.read_bytes()


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


def test_unknown_initialization_can_be_given(
    run: Run, folder: Path, tiny_image_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INRCODEC_INITIALIZATIONS", raising=False)
    (folder / "photo.inr").write_bytes(tiny_image_file)
    code, _, err = run("decode", "photo.inr")
    assert code == 1 and is_one_error(err, "--init")
    monkeypatch.undo()


def test_initialization_by_file_and_embedded(
    run: Run,
    folder: Path,
    tiny_image_file: bytes,
    tiny_initializations: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("INRCODEC_INITIALIZATIONS")
    init = tiny_initializations / "tiny-image.safetensors"
    (folder / "photo.inr").write_bytes(tiny_image_file)
    assert run("decode", "photo.inr", "--init", init)[0] == 0
    assert run("encode", "photo.png", "-o", "whole.inr", "--embed", "--init", init, *FAST)[0] == 0
    assert run("decode", "whole.inr")[0] == 0
    assert "embedded" in run("info", "whole.inr")[1]


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
    content = photo(folder / "photo.png").read_bytes()
    init = tiny_initializations / "tiny-image.safetensors"
    encoded = program("encode", "-", "--modality", "image", "-o", "-", "--init", init, "--embed", *FAST, input=content)
    assert encoded.returncode == 0, encoded.stderr
    assert encoded.stderr.startswith(b"- -> -: ")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encoded.stdout)))
    assert main(["decode", "-", "-o", "-", "--format", "bmp", "--quiet"]) == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    with Image.open(io.BytesIO(out)) as picture:
        assert (picture.format, picture.size) == ("BMP", (40, 32))
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


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


def test_info_needs_no_torch(folder: Path, tiny_image_file: bytes) -> None:
    (folder / "photo.inr").write_bytes(tiny_image_file)
    script = "import sys; from inrcodec.cli import main\nmain(['info', 'photo.inr']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"inrcodec {__version__}\n", "")
    code, out, err = run()
    assert (code, err) == (0, "")
    assert all(command in out for command in ("encode", "decode", "info", "inits", "meta-train"))


def test_inits(run: Run, tiny_installed: Path) -> None:
    code, out, _ = run("inits", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    assert code == 0
    assert found["tiny-image"]["modality"] == "image" and found["tiny-audio"]["modality"] == "audio"
    code, out, _ = run("inits")
    assert code == 0 and "tiny-image" in out and found["tiny-image"]["identifier"] in out
    card = (tiny_installed / "tiny-image.md").read_text()
    for name in ("tiny-image", found["tiny-image"]["identifier"], tiny_installed / "tiny-image.safetensors"):
        assert run("inits", name) == (0, card.rstrip() + "\n", "")
        assert json.loads(run("inits", name, "--json")[1]) == found["tiny-image"] | {
            "path": str(tiny_installed / "tiny-image.safetensors")
        }


def test_inits_reports_damaged_files(
    run: Run, folder: Path, tiny_initializations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny_initializations / "tiny-image.safetensors", folder / "good.safetensors")
    (folder / "bad.safetensors").write_text("no initialization")
    monkeypatch.setenv("INRCODEC_INITIALIZATIONS", str(folder))
    code, out, err = run("inits")
    assert code == 1 and "good" in out and is_one_error(err, "bad.safetensors")
    code, _, err = run("inits", "good")
    assert code == 1 and is_one_error(err, "model card")


@pytest.fixture
def quick_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec.meta import evaluation, run

    monkeypatch.setattr(run, "PRIOR_PATCHES", 8)
    monkeypatch.setattr(evaluation, "WEIGHT_PATCHES", 2)


def test_meta_train(run: Run, folder: Path, quick_evaluation: None) -> None:
    for seed in range(3):
        photo(folder / "data" / f"{seed}.png", seed)
    (folder / "data" / "9.png").write_text("no picture")
    command = ["meta-train", *TINY, "--data", "data", "--outer-steps", "3"]
    code, out, err = run(*command, "--json")
    report = json.loads(out)
    assert code == 0
    assert "9.png" in err and "identifier" in err
    assert report["output"] == "image-siren.safetensors"
    assert list(report["unreadable"]) == [str(Path("data", "9.png"))]
    for name in (report["output"], report["card"], report["checkpoint"]):
        assert (folder / name).is_file()
    assert report["identifier"] in (folder / "image-siren.md").read_text()

    code, _, err = run(*command)
    assert code == 2 and is_one_error(err, "image-siren.safetensors", "--resume")
    code, _, err = run(*command, "--resume", "--gamma", "0.5")
    assert code == 2 and err.splitlines()[-1].startswith("inrcodec: error: ") and "gamma" in err
    assert run("encode", "data/1.png", "-o", "x.inr", "--init", "./image-siren.safetensors", *FAST)[0] == 0

    code, out, _ = run(*command, "-o", "on.safetensors", "--start", "./image-siren.safetensors", "--json")
    assert code == 0 and json.loads(out)["identifier"] != report["identifier"]
    code, _, err = run(*command, "-o", "off.safetensors", "--start", "nowhere")
    assert code == 1 and is_one_error(err, "nowhere")


def test_resumed_run_is_the_uncut_run(
    run: Run, folder: Path, quick_evaluation: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inrcodec.meta import run as library
    from inrcodec.meta.weight_trainer import WeightTrainer

    for seed in range(3):
        photo(folder / "data" / f"{seed}.png", seed)
    command = ["meta-train", *TINY, "--data", "data", "--outer-steps", "5", "--quiet"]
    assert run(*command, "-o", "uncut.safetensors")[0] == 0

    def press_ctrl_c(self: WeightTrainer, *arguments: Any) -> Any:
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    step = WeightTrainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(library, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(WeightTrainer, "train_step", press_ctrl_c)
        code, _, err = run(*command, "-o", "cut.safetensors")
    assert code == 130
    assert "cut.safetensors.checkpoint stays" in err and "--resume" in err
    assert sorted(path.name for path in folder.glob("*cut*") if path.name.startswith("cut")) == [
        "cut.safetensors.checkpoint"
    ]
    code, _, err = run(*command, "-o", "cut.safetensors")
    assert code == 2 and is_one_error(err, "checkpoint", "--resume")

    assert run(*command, "-o", "cut.safetensors", "--resume")[0] == 0
    uncut, cut = load_file(folder / "uncut.safetensors"), load_file(folder / "cut.safetensors")
    assert uncut.keys() == cut.keys()
    for name, tensor in uncut.items():
        assert tensor.tobytes() == cut[name].tobytes(), name


def test_interrupted_encoding_leaves_nothing(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(folder / "photo.png")

    def press_ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inrcodec.files.encode", press_ctrl_c)
    code, out, err = run("encode", "photo.png", "--init", "tiny-image")
    assert (code, out) == (130, "") and "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("gamma", 0.0),
        ("gamma", 1.5),
        ("gamma", float("nan")),
        ("inner_steps", 0),
        ("bootstrap_steps", -1),
        ("bootstrap_weight", -1.0),
        ("bootstrap_step_ratio", 0.0),
        ("inner_step_size", float("inf")),
        ("outer_step_size", 0.0),
        ("step_size_rate", -1.0),
        ("batch", 0),
        ("outer_steps", 0),
        ("clip", 0.0),
        ("seed", -1),
        ("width", 0),
        ("depth", 1),
        ("score", "best"),
        ("step_sizes", "all"),
        ("schedule", "linear"),
        ("method", "sgd"),
        ("bootstrap_context", "none"),
        ("backward_share", 0.0),
        ("backward_share", 1.5),
        ("patch", "32"),
        ("patch", "2x2"),
        ("patch", "axb"),
        ("patch", "32x-32"),
    ],
)
def test_training_settings_out_of_range(name: str, bad: object) -> None:
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        configure("image", "siren", "codec", {name: bad})


def test_training_settings() -> None:
    from inrcodec.meta.presets import preset

    assert configure("video", "nerv", "paper", {}) == preset("video", "nerv", "paper")
    changed = configure(
        "image",
        "siren",
        "codec",
        {"inner_steps": 3, "gamma": 1.0, "score": "error", "step_sizes": "scalar", "clip": 2.0, "width": 9}
        | {"patch": "16x24", "seed": 5, "schedule": "constant"},
    )
    assert changed.training.adaptation == type(changed.training.adaptation)(3, 1.0, "error")
    assert (changed.training.step_sizes, changed.training.clip) == ("scalar", 2.0)
    assert (changed.training.seed, changed.training.schedule) == (5, "constant")
    assert changed.patches.shape == (16, 24)
    assert changed.model == type(changed.model)(2, 3, width=9, depth=4)
    reptile = configure("image", "siren", "codec", {"method": "reptile"}).training
    assert (reptile.method, reptile.bootstrap_steps, reptile.step_sizes) == ("reptile", 0, "none")
    with pytest.raises(UsageError, match="--step-sizes"):
        configure("image", "siren", "codec", {"method": "reptile", "step_sizes": "scalar"})
    with pytest.raises(UsageError, match="--backward-share"):
        configure("image", "siren", "codec", {"method": "fomaml", "backward_share": 0.5})
    with pytest.raises(UsageError, match="--method"):
        configure("image", "pyramid", "codec", {"method": "fomaml"})
    with pytest.raises(UsageError, match="--score"):
        configure("image", "pyramid", "codec", {"second_order": 1, "score": "tpg"})
    with pytest.raises(UsageError, match="--width"):
        configure("video", "nerv", "codec", {"width": 8})
    with pytest.raises(UsageError, match="--preset"):
        configure("image", "siren", "poster", {})


def test_choices_in_the_help_are_the_librarys(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec.meta.config import Method
    from inrcodec.meta.presets import Scale
    from inrcodec.meta.weight_trainer import BootstrapContext
    from inrcodec.models import FIELDS
    from inrcodec.settings import Rescaling, ScoreName, StepSizeKind
    from inrcodec.signals import MODALITIES

    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    monkeypatch.setenv("COLUMNS", "400")
    shown = run("encode", "--help")[1] + run("meta-train", "--help")[1]
    literals = (Rescaling, StepSizeKind, ScoreName, Scale, BootstrapContext, Method)
    for choices in (*map(get_args, literals), FIELDS, MODALITIES):
        assert "|".join(choices) in re.sub(r"\s", "", shown) or " ".join(choices) in shown, choices


def test_resolution_follows_the_modality() -> None:
    def size(modality: str, text: str) -> tuple[int, int] | None:
        return resolution_for([modality], text, None, None).size

    assert size("image", "800x600") == (600, 800)
    assert size("video", "800x600") == (600, 800)
    assert size("climate", "721x1440") == (721, 1440)
    clip = resolution_for(["video", "audio"], "0.5x", "30000/1001", 48000)
    assert (clip.factor, clip.frame_rate, clip.sample_rate) == (0.5, Fraction(30000, 1001), 48000)
    for modalities, arguments in (
        (["audio"], ("64", None, None)),
        (["image"], (None, "25", None)),
        (["video"], (None, None, 8000)),
        (["audio"], (None, None, 0)),
    ):
        with pytest.raises(UsageError):
            resolution_for(modalities, *arguments)


def test_resolutions_and_rates() -> None:
    assert parse_resolution(None) == (None, None, None)
    assert parse_resolution("2048") == (None, 2048, None)
    assert parse_resolution("8x6") == ((8, 6), None, None)
    assert parse_resolution("2x") == (None, None, 2.0)
    assert parse_resolution(".5x") == (None, None, 0.5)
    for text in ("", "x", "0", "0x", "0x1", "1x0", "-5", "1x2x3", "1e9x", "nan", "٣", "9" * 5000):
        with pytest.raises(UsageError):
            parse_resolution(text)
    assert parse_frame_rate("29.97") == Fraction(2997, 100)
    for text in ("0", "-1", "1/0", "nan", "1e400", "fast", ""):
        with pytest.raises(UsageError):
            parse_frame_rate(text)
    assert np.isfinite(float(parse_frame_rate("60") or 0))


def test_names_may_be_as_long_as_the_file_system_allows(run: Run, folder: Path) -> None:
    name = "a" * 251 + ".inr"
    code, _, err = run("encode", photo(folder / "a.png"), "-o", name, "--init", "tiny-image", *FAST)
    assert code == 0, err
    assert [path.name for path in folder.iterdir() if path.suffix == ".inr"] == [name]
