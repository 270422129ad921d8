"""`inrcodec verify`, and decoding what is whole of a damaged file."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import FAST, Run, is_one_error, photo
from PIL import Image

from inrcodec.coding.container import read_outline


@pytest.fixture
def picture(run: Run, folder: Path) -> Path:
    """Return an `.inr` file of a picture in several chunks, its original `photo.png` beside it."""
    y, x = np.mgrid[:600, :1400]
    Image.fromarray(np.uint8((x // 8 + y // 8) % 2 * 60 + 90)).save(folder / "photo.png")
    assert run("encode", "photo.png", "--init", "tiny-image", "--steps", 0, "--device", "cpu")[0] == 0
    return folder / "photo.inr"


def chunk_ends(data: bytes) -> list[int]:
    """Return where the chunks of a file end."""
    ends, position = [], 0
    for part in read_outline(io.BytesIO(data)).sizes:
        position += part.size
        ends += [position] if part.label == "chunk" else []
    return ends


def test_a_whole_file(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    assert run("encode", "photo.png", "--init", "tiny-image", "--max-error", 9, *FAST)[0] == 0
    code, out, err = run("verify", "photo.inr")
    assert (code, out) == (0, "") and err.startswith("photo.inr: whole, ") and err.count("\n") == 1
    assert ", 1 signal, " in err
    assert run("verify", "photo.inr", "--quiet") == (0, "", "")
    code, out, _ = run("verify", "photo.inr", "--against", "photo.png", "--json")
    (signal,) = json.loads(out)["signals"]
    assert code == 0 and signal["bound"] == 9 and 0 < signal["max_error"] <= 9 and signal["symbols"] > 0


def test_a_value_beyond_the_bound_is_found(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    assert run("encode", "photo.png", "--init", "tiny-image", "--max-error", 9, *FAST)[0] == 0
    with Image.open(folder / "photo.png") as original:
        values = np.array(original)
    values[3, 4, 1] ^= 128
    Image.fromarray(values).save(folder / "other.png")
    code, _, err = run("verify", "photo.inr", "--against", "other.png")
    assert code == 1 and is_one_error(err, "photo.inr", "bound of 9")
    Image.fromarray(values[:20]).save(folder / "smaller.png")
    code, _, err = run("verify", "photo.inr", "--against", "smaller.png")
    assert code == 2 and is_one_error(err, "(20, 40, 3)")


@pytest.mark.parametrize("failure", [MemoryError("24 TiB"), OSError(5, "Input/output error"), RuntimeError("odd")])
def test_a_file_that_fails_does_not_stop_the_others(
    run: Run, folder: Path, tiny_image_file: bytes, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    from inrcodec import verification

    for name in "abc":
        (folder / f"{name}.inr").write_bytes(tiny_image_file)
    (folder / "d.inr").write_bytes(b"no codec")
    usual = verification.verify_file

    def fail(path: Path, **options: Any) -> verification.Verification:
        if path.name == "b.inr":
            raise failure
        return usual(path, **options)

    monkeypatch.setattr(verification, "verify_file", fail)
    embedded = ("--init", "tiny-image", "--device", "cpu", "--jobs", 1)
    code, out, err = run("verify", ".", "--json", "--quiet", *embedded)
    assert code == 1 and [json.loads(line)["input"] for line in out.splitlines()] == ["a.inr", "c.inr"]
    assert err.count("inrcodec: error: ") == err.count("\n") == 2 and "b.inr" in err and "d.inr" in err
    assert run("verify", ".", *embedded)[2].endswith(
        f"\n4 files: 2 whole, 2 failed; {2 * len(tiny_image_file)} bytes\n"
    )


def test_damage_is_found_and_skipped(run: Run, folder: Path, picture: Path) -> None:
    data = picture.read_bytes()
    ends = chunk_ends(data)
    assert len(ends) > 1
    damaged = bytearray(data)
    damaged[ends[1] - 3] ^= 16
    (folder / "damaged.inr").write_bytes(damaged)
    code, _, err = run("verify", "damaged.inr", "photo.inr", "--jobs", 1)
    assert code == 1 and err.count("inrcodec: error: ") == 1 and "damaged.inr" in err
    code, _, err = run("decode", "damaged.inr", "-o", "a.png")
    assert code == 1 and is_one_error(err, "damaged.inr", "checksum") and not (folder / "a.png").exists()

    code, _, err = run("decode", "damaged.inr", "-o", "a.png", "--skip-damaged")
    assert code == 0 and f"damaged chunks, which are left out: 1 (from 0) of {len(ends)}" in err
    assert run("decode", "photo.inr", "-o", "b.png")[0] == 0
    with Image.open(folder / "a.png") as skipped, Image.open(folder / "b.png") as whole:
        different = np.array(skipped) != np.array(whole)
        assert 0 < different.mean() < 0.8
        assert np.median(np.array(skipped)[different]) in (127, 128)


def test_a_cut_file_is_decoded_up_to_its_end(run: Run, folder: Path, picture: Path) -> None:
    data = picture.read_bytes()
    (folder / "cut.inr").write_bytes(data[: chunk_ends(data)[0] + 2])
    assert run("decode", "cut.inr", "-o", "a.png")[0] == 1
    code, _, err = run("decode", "cut.inr", "-o", "a.png", "--skip-damaged")
    assert code == 0 and "cut off" in err and "damaged chunks" in err
    assert run("decode", "photo.inr", "-o", "b.png")[0] == 0
    with Image.open(folder / "a.png") as cut, Image.open(folder / "b.png") as whole:
        assert np.array_equal(np.array(cut)[:32, :1000], np.array(whole)[:32, :1000])


def test_more_samples_than_asked_for_are_refused(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    assert run("encode", "photo.png", "--init", "tiny-image", *FAST)[0] == 0
    for arguments in (("decode", "photo.inr", "-o", "a.png"), ("verify", "photo.inr")):
        code, _, err = run(*arguments, "--max-samples", 32 * 40 - 1)
        assert code == 2 and is_one_error(err, "1280", "--max-samples")
    code, _, err = run("decode", "photo.inr", "-o", "a.png", "--max-samples", 1280, "--resolution", 80)
    assert code == 2 and is_one_error(err, "5120", "--max-samples")
    assert run("decode", "photo.inr", "-o", "a.png", "--max-samples", 1280)[0] == 0


def test_the_help_says_how_many_samples_are_decoded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec.decoder import SAMPLES

    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    for command in ("decode", "verify"):
        shown = run(command, "--help")[1]
        (power,) = re.findall(r"--max-samples.*?\(?2\^(\d+)\)?", shown, re.DOTALL)
        assert 2 ** int(power) == SAMPLES
