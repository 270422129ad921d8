"""Decoding of damaged files of several signals: those that are not hurt come back bit for bit."""

import itertools
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from waves import tiny_image, tiny_sound

import inrcodec
from inrcodec.coding.container import read_outline
from inrcodec.errors import InrcodecWarning
from inrcodec.initialization import Initialization
from inrcodec.signals.signal import Axis, Signal


def picture_with_transparency() -> list[Signal]:
    colours, alpha = tiny_image(1), tiny_image(2)
    transparency = np.ascontiguousarray(alpha.values[..., :1])
    return [colours, Signal("image", transparency, alpha.axes, alpha.value_range, name="alpha")]


def clip_with_sound() -> list[Signal]:
    frames = np.stack([tiny_image(1).values, tiny_image(1).values[:, ::-1]] * 2)
    axes = (Axis(4, "start", rate=Fraction(25)), Axis(32), Axis(40))
    sound = tiny_sound(1)
    return [
        Signal("video", frames, axes, (0.0, 255.0)),
        Signal("audio", sound.values, sound.axes, sound.value_range, name="sound"),
    ]


def climate_fields() -> list[Signal]:
    random = np.random.default_rng(0)
    latitudes, longitudes = np.linspace(90, -90, 13), np.arange(24) * 15.0
    axes = (
        Axis(3, "slice"),
        Axis(13, "node", points=latitudes),
        Axis(24, "periodic", points=longitudes),
    )
    signals = []
    for name in ("t", "u"):
        values = random.normal(280, 10, (3, 13, 24, 1)).astype(np.float32)
        missing = random.random((3, 13, 24)) < 0.1
        ends = (float(values.min()), float(values.max()))
        signals.append(Signal("climate", values, axes, ends, name=name, missing=missing))
    return signals


FILES = {"image": picture_with_transparency, "video": clip_with_sound, "climate": climate_fields}


def encoded(signals: list[Signal], max_error: float | None) -> bytes:
    initializations = [inrcodec.default_initialization(signal.modality) for signal in signals]
    options = inrcodec.EncodeOptions(steps=0, device="cpu", max_error=max_error)
    return inrcodec.encode(signals, initializations, options)[0]


def content(signal: Signal) -> tuple[Any, ...]:
    missing = None if signal.missing is None else signal.missing.tobytes()
    return signal.values.tobytes(), signal.shape, missing


@pytest.mark.filterwarnings("ignore::inrcodec.errors.InrcodecWarning")
@pytest.mark.parametrize("file", FILES)
def test_signals_that_are_not_hurt_are_decoded_as_ever(file: str) -> None:
    signals = FILES[file]()
    data = encoded(signals, 0.5 if file == "climate" else None)
    whole = {signal.name: content(signal) for signal in inrcodec.decode(data, device="cpu")}
    random = Random(file)
    parts = read_outline(BytesIO(data)).sizes
    begins = list(itertools.accumulate((part.size for part in parts), initial=0))
    places = list(zip(parts, begins[:-1], begins[1:], strict=True))
    for number, part in enumerate(parts[1:], 1):
        for length in (1, part.size, part.size + random.randrange(30)):
            begin = begins[number] + (random.randrange(2, part.size) if length == 1 else 0)
            end = min(begin + length, len(data))
            damaged = data[:begin] + bytes(byte ^ 21 for byte in data[begin:end]) + data[end:]
            hurt = {each.stream for each, at, to in places if at < end and begin < to}
            untouched = {signal.name for index, signal in enumerate(signals) if index not in hurt}
            if not untouched:
                continue
            found = {
                signal.name: content(signal) for signal in inrcodec.decode(damaged, skip_damaged=True, device="cpu")
            }
            assert {name: found.get(name) for name in untouched} == {name: whole[name] for name in untouched}


def test_what_is_lost_is_named(tmp_path: Path) -> None:
    data = encoded(picture_with_transparency(), None)
    parts = read_outline(BytesIO(data)).sizes
    begins = list(itertools.accumulate(part.size for part in parts))
    names = [part.label for part in parts]
    place = begins[names.index("header", 2) - 1] + 9
    without_transparency = data[:place] + b"\0" + data[place + 1 :]
    with pytest.warns(InrcodecWarning, match="the file is damaged: 1 signal is lost after the image"):
        (colours,) = inrcodec.decode(without_transparency, skip_damaged=True, device="cpu")
    assert content(colours) == content(inrcodec.decode(data, device="cpu")[0])

    without_picture = tmp_path / "alone.inr"
    without_picture.write_bytes(data[:14] + b"\0" + data[15:])
    with (
        pytest.warns(InrcodecWarning, match="the first header of the file is damaged: its signal is lost"),
        pytest.raises(inrcodec.SignalError, match=r"a\.png: .*the picture itself is lost"),
    ):
        inrcodec.decode_file(without_picture, tmp_path / "a.png", skip_damaged=True, device="cpu")
    assert not (tmp_path / "a.png").exists()


def test_an_initialization_that_is_lost_costs_its_signals_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_initializations: Path
) -> None:
    """The other one is in the file."""
    picture, sound = (
        Initialization.load(tiny_initializations / f"tiny-{name}.safetensors") for name in ("image", "audio")
    )
    signals = [tiny_image(1), Signal("audio", *_of(tiny_sound(1)), name="sound")]
    options = inrcodec.EncodeOptions(steps=0, device="cpu")
    data, decoded = inrcodec.encode(signals, [picture, sound], options, embed=True)
    place = data.index(sound.to_bytes()) + 100
    damaged = data[:place] + b"\0\0\0" + data[place + 3 :]
    with pytest.warns(InrcodecWarning) as warned:
        (alone,) = inrcodec.decode(damaged, skip_damaged=True, device="cpu")
    assert content(alone) == content(decoded[0])
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == 2 and "initializations or signals are lost" in texts[0]
    assert texts[1].startswith("the file is damaged: the signal 'sound' is left out: ")


def _of(signal: Signal) -> tuple[np.ndarray, tuple[Axis, ...], tuple[float, float]]:
    return signal.values, signal.axes, signal.value_range
