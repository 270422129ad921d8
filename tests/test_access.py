"""Slabs that are decoded alone are those of the whole signal."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from random_latents import random_initialization
from waves import tiny_sound

from inrcodec.access import SlabReader, open_anywhere
from inrcodec.coding.container import read_container
from inrcodec.decoder import decode
from inrcodec.encoder import encode
from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents import codec
from inrcodec.models import LatentClip, LatentPyramid, LatentSpectrum
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.registry import default_initialization
from inrcodec.resolution import Resolution
from inrcodec.signals import lazy
from inrcodec.signals.signal import Axis, Signal

FAST = EncodeOptions(steps=0, device="cpu", quality=60)


def noise(modality: str, axes: tuple[Axis, ...], channels: int, **more: object) -> Signal:
    random = np.random.default_rng(0)
    shape = [axis.size for axis in axes]
    values = np.cumsum(random.normal(0, 0.03, (*shape, channels)), 0).astype(np.float32) + 0.5
    if modality == "image":
        return Signal(modality, (255 * values).clip(0, 255).astype(np.uint8), axes, (0.0, 255.0))
    return Signal(modality, values, axes, (-1.0, 2.0), **more)  # type: ignore[arg-type]


def kinds() -> dict[str, tuple[Signal, Initialization]]:
    """Return a signal of several patches along its first axis for every kind of field, and its initialization."""
    pyramid = LatentPyramid(2, 3, (2, 3), prediction=4, divided=2)
    fields = LatentPyramid(2, 1, (2, 2), prediction=4)
    globe = Axis(7, "slice"), Axis(9, "node"), Axis(14, "periodic")
    missing = np.random.default_rng(1).random((7, 9, 14)) < 0.2
    ranges = np.stack([np.full(7, -1.0), np.arange(2.0, 9.0)], 1)
    frames = Axis(11, "start", rate=Fraction(25)), Axis(20), Axis(26)
    return {
        "image": (
            noise("image", (Axis(61), Axis(40)), 3),
            random_initialization("image", pyramid, PatchConfig((24, 32), (4, 4), normalize=False)),
        ),
        "climate": (
            noise("climate", globe, 1, missing=missing, slice_ranges=ranges),
            random_initialization("climate", fields, PatchConfig((9, 10), (0, 4), normalize=False)),
        ),
        "video": (
            noise("video", frames, 3),
            random_initialization(
                "video", LatentClip(3, 3, (1, 2), prediction=4), PatchConfig((4, 20, 16), (1, 0, 4), normalize=False)
            ),
        ),
        "audio": (
            tiny_sound(0, 900),
            random_initialization("audio", LatentSpectrum(1, 1, (2, 3)), PatchConfig((256,), (32,), normalize=False)),
        ),
        "weights": (noise("image", (Axis(70), Axis(40)), 3), default_initialization("image", "siren")),
    }


KINDS = kinds()


@pytest.mark.parametrize("bound", [None, 0.02])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_any_order(kind: str, bound: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "CHUNK_POINTS", 1 << 9)
    signal, initialization = KINDS[kind]
    row = signal.values[0].size
    monkeypatch.setattr(lazy, "SLAB_VALUES", 4 * row)
    options = (
        FAST
        if bound is None
        else EncodeOptions(steps=0, device="cpu", max_error=bound * (1 + 99 * (signal.values.dtype == np.uint8)))
    )
    data, _ = encode([signal], [initialization], options, embed=True)
    (whole,) = decode(data, device="cpu")
    (read,) = open_anywhere(read_container(data), device="cpu")
    size = signal.shape[0]
    for begin, end in ((0, 1), (size - 1, size), (3, 9), (size // 2, size // 2 + 1), (0, size), (1, 4)):
        end = min(end, size)
        part, expected = read.part(begin, end), whole.part(begin, end)
        np.testing.assert_array_equal(part.values, expected.values)
        assert (part.missing is None) == (expected.missing is None)
        if expected.missing is not None:
            np.testing.assert_array_equal(part.missing, expected.missing)


@pytest.mark.parametrize("kind", ["pyramid", "series", "siren"])
def test_points_of_fields(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field at points shows what decoding at another resolution gives there, in slices of several groups."""
    monkeypatch.setattr(codec, "CHUNK_POINTS", 1 << 9)
    signal, initialization = KINDS["climate"]
    if kind != "pyramid":
        initialization = default_initialization("climate", kind)
        points = np.linspace(60, -60, 9), np.arange(14) * 360 / 14
        axes = [replace(axis, points=each) for axis, each in zip(signal.axes[1:], points, strict=True)]
        signal = replace(signal, axes=(signal.axes[0], *axes), sphere=True)
    if kind == "series":
        patches = replace(initialization.patches, shape=(3, 9, 10), overlap=(0, 0, 4))
        initialization = replace(initialization, patches=patches)
    data, _ = encode([signal], [initialization], FAST, embed=True)
    (read,) = open_anywhere(read_container(data), device="cpu")
    (finer,) = decode(data, resolution=Resolution(size=(17, 35)), device="cpu")
    places = [np.arange(7), np.arange(17) / 2, np.arange(35) * 14 / 35]
    random = np.random.default_rng(0)
    some = np.stack([random.integers(0, len(each), 50) for each in places])
    assert read.ask is not None
    found = read.ask(np.stack([each[index] for each, index in zip(places, some, strict=True)]))
    assert found.shape == (50, 1) and found.dtype == np.float64
    np.testing.assert_allclose(found[:, 0], finer.values[(*some, 0)], atol=2e-5)
    assert read.ask(np.zeros((3, 0))).shape == (0, 1)


def test_only_what_is_needed_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    signal, initialization = KINDS["climate"]
    monkeypatch.setattr(lazy, "SLAB_VALUES", 1)
    monkeypatch.setattr(codec, "CHUNK_POINTS", 1)
    data, _ = encode([replace(signal, slice_ranges=None)], [initialization], FAST)
    (stream,) = read_container(data).streams
    read = SlabReader(stream, initialization, "cpu")
    each = len(read._reader.patches) // 7
    read(5, 6)
    assert each > 1 and read.patches == each
    read(5, 6)
    assert read.patches == each
    read(0, 3)
    assert read.patches == 4 * each


def test_too_many_samples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a time: a long file may have many."""
    signal, initialization = KINDS["image"]
    monkeypatch.setattr(lazy, "SLAB_VALUES", 4 * signal.values[0].size)
    monkeypatch.setattr(codec, "CHUNK_POINTS", 1)
    data, _ = encode([signal], [initialization], FAST, embed=True)
    (read,) = open_anywhere(read_container(data), max_samples=signal.samples - 1)
    read.part(0, 1)
    (read,) = open_anywhere(read_container(data), max_samples=100)
    with pytest.raises(UsageError, match="max_samples"):
        read.part(0, 1)


def test_threads_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several may read one signal, each anywhere."""
    signal, initialization = KINDS["climate"]
    monkeypatch.setattr(lazy, "SLAB_VALUES", 1)
    data, _ = encode([signal], [initialization], FAST, embed=True)
    (whole,) = decode(data, device="cpu")
    (read,) = open_anywhere(read_container(data), device="cpu")
    with ThreadPoolExecutor(4) as pool:
        places = [int(place) for place in np.random.default_rng(0).integers(0, 7, 40)]
        for place, part in zip(places, pool.map(lambda place: read.part(place, place + 1), places), strict=True):
            np.testing.assert_array_equal(part.values, whole.values[place : place + 1])
            np.testing.assert_array_equal(part.missing, whole.missing[place : place + 1])
    assert read.count_missing is not None and whole.missing is not None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        np.testing.assert_array_equal(other.submit(read.part, 2, 5).result().values, whole.values[2:5])
        counted = list(other.map(read.count_missing, (0, 3, 7, 1)))
    assert counted == [int(whole.missing[:index].sum()) for index in (0, 3, 7, 1)]
