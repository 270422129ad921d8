"""`inrcodec decode`."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import FAST, Run, is_one_error, photo

from inrcodec import files as files_module
from inrcodec.cli.resolution import parse_frame_rate, parse_resolution, resolution_for
from inrcodec.errors import UsageError


def test_formats_that_are_not_written_are_refused_before_the_work(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(folder / "a.png")
    assert run("encode", "a.png", "--init", "tiny-image", *FAST)[0] == 0

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(files_module, "open_container", never)
    code, _, err = run("decode", "a.inr", "-o", "a.wav")
    assert code == 1
    assert is_one_error(err, "a.wav: image cannot be written as '.wav'; use one of .png")


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
