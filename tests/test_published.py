"""The published initializations on the sample signals: what the README promises, end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import inrcodec
import inrcodec.assets
from inrcodec.initialization import Initialization
from inrcodec.metrics import fidelity, psnr
from inrcodec.options import EncodeOptions, trade_off_of_quality
from inrcodec.priors import DeltaPrior
from inrcodec.registry import DEFAULTS, installed

ASSETS = Path(next(iter(inrcodec.assets.__path__)))
SAMPLES = ASSETS / "samples"

IDENTIFIERS = {
    "audio-siren": "d02bbc2b1c1beff8",
    "audio-spectrum": "22850f7246bcac9a",
    "climate-series": "34e506a68413e2cc",
    "climate-siren": "12db3bf79fcb2380",
    "image-pyramid": "a45c93d44aa5d030",
    "image-siren": "61ef6adbf830928a",
    "video-clip": "b9c47c6bec81a1be",
    "video-siren": "576e37e56f2d9f0a",
}
"""Files name initializations by these; a published one is never changed or removed."""


def test_published_identifiers_never_change():
    published = (ASSETS / "initializations").glob("*.safetensors")
    assert {path.stem: Initialization.load(path).identifier.hex() for path in published} == IDENTIFIERS


def test_every_modality_has_its_default():
    names = {path.stem for path in installed()}
    assert set(DEFAULTS.values()) <= names
    for modality, name in DEFAULTS.items():
        assert inrcodec.named_initialization(name).modality == modality


@pytest.mark.parametrize("path", sorted((ASSETS / "initializations").glob("*.safetensors")), ids=lambda path: path.stem)
def test_published_initializations_are_what_their_cards_say(path):
    initialization = Initialization.load(path)
    card = path.with_suffix(".md").read_text()
    assert initialization.identifier.hex() in card
    evaluation = initialization.provenance["evaluation"]
    columns, rows = evaluation["columns"], evaluation["rows"]
    assert evaluation["title"] in card and "| " + " | ".join(columns) + " |" in card
    for row in rows:
        assert "| " + " | ".join(f"{number:g}" for number in row) + " |" in card
    if isinstance(initialization.prior, DeltaPrior):
        assert columns == ["steps", "this initialization", "random initialization"]
        assert len(rows) > 1 and all(reached > random for _, reached, random in rows)
        return
    assert columns == ["quality", "steps", "bits", "PSNR"]
    qualities = sorted({quality for quality, *_ in rows})
    assert len(qualities) > 1
    for quality in qualities:
        measured = {steps: (bits, reached) for found, steps, bits, reached in rows if found == quality}
        before, after = (
            10 ** (-reached / 10) / trade_off_of_quality(quality) + bits
            for bits, reached in (measured[0], measured[max(measured)])
        )
        assert after < before


def test_a_photo(tmp_path):
    report = inrcodec.encode_file(SAMPLES / "photo.png", tmp_path / "photo.inr", EncodeOptions(steps=2))
    assert (tmp_path / "photo.inr").stat().st_size == report.bytes < 10_000
    assert report.signals[0]["psnr_db"] > 31.9
    inrcodec.decode_file(tmp_path / "photo.inr", tmp_path / "photo.png")
    written = inrcodec.read(tmp_path / "photo.png")[0]
    original = inrcodec.read(SAMPLES / "photo.png")[0]
    assert psnr(original, written) == pytest.approx(report.signals[0]["psnr_db"], abs=0.01)
    json.dumps(report.to_json())


def beginning(signal, *sizes):
    """Return the first samples of a signal along every axis."""
    axes = tuple(replace(axis, size=size) for axis, size in zip(signal.axes, sizes, strict=True))
    return replace(signal, values=signal.values[tuple(slice(size) for size in sizes)], axes=axes)


def test_a_clip_with_sound(tmp_path):
    picture, sound = inrcodec.read(SAMPLES / "clip.mp4")
    inrcodec.write([beginning(picture, 5, 72, 96), beginning(sound, 4096, 2)], tmp_path / "clip.mkv")
    report = inrcodec.encode_file(tmp_path / "clip.mkv", tmp_path / "clip.inr", EncodeOptions(steps=1, quality=50))
    assert [signal["modality"] for signal in report.signals] == ["video", "audio"]
    assert report.signals[0]["psnr_db"] > 36 and report.bytes < 5_000
    inrcodec.decode_file(
        tmp_path / "clip.inr",
        tmp_path / "slow.mp4",
        resolution=inrcodec.Resolution(size=(36, 48), frame_rate=48, sample_rate=16000),
    )
    slow, slow_sound = inrcodec.read(tmp_path / "slow.mp4")
    assert slow.values.shape == (10, 36, 48, 3) and slow.axes[0].rate == 48
    assert slow_sound.axes[0].rate == 16000


def test_speech(tmp_path):
    original = inrcodec.read(SAMPLES / "speech.flac")[0]
    report = inrcodec.encode_file(SAMPLES / "speech.flac", tmp_path / "s.inr", EncodeOptions(steps=2, quality=70))
    assert report.modality == "audio" and report.signals[0]["kbps"] < 16
    inrcodec.decode_file(tmp_path / "s.inr", tmp_path / "s.wav")
    written = inrcodec.read(tmp_path / "s.wav")[0]
    assert written.values.shape == original.values.shape
    assert fidelity(original, written).snr > 23


def test_a_climate_field(tmp_path):
    xarray = pytest.importorskip("xarray")
    report = inrcodec.encode_file(SAMPLES / "t2m.nc", tmp_path / "t2m.inr", EncodeOptions(quality=40, steps=2))
    assert report.signals[0]["rmse"] < 1.6
    assert report.ratio > 120
    inrcodec.decode_file(tmp_path / "t2m.inr", tmp_path / "t2m.nc")
    with xarray.open_dataset(SAMPLES / "t2m.nc") as original, xarray.open_dataset(tmp_path / "t2m.nc") as decoded:
        assert set(decoded.coords) == set(original.coords) and decoded.attrs == original.attrs
        for name in original.coords:
            np.testing.assert_array_equal(decoded[name], original[name])
        (variable,) = original.data_vars
        assert decoded[variable].attrs == original[variable].attrs
        error = np.abs(decoded[variable].values - original[variable].values).max()
        assert error == pytest.approx(report.signals[0]["max_error"], abs=0.02)
