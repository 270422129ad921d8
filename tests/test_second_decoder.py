"""docs/FORMAT.md is enough to write a decoder: one that was written from it decodes as inrcodec does."""

import ast
import functools
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import second_decoder
import second_decoder.entropy_model
import second_decoder.prediction
import second_decoder.residual
import torch
from damage import with_flipped_bits
from headers import file_with, section
from random_latents import random_initialization
from second_decoder.integers import activation
from second_decoder.sections import read_sections
from symbols import symbols_digest
from torch import Tensor
from waves import tiny_image
from wild_latents import wild_initialization

import inrcodec
import inrcodec.latents.codec
import inrcodec.models.exact
import inrcodec.weights.codec
from inrcodec.coding.entropy import Batch, encode_batches
from inrcodec.coding.varint import write_varint
from inrcodec.initialization import Initialization
from inrcodec.latents.codec import LatentQuantization, PreparedLatents
from inrcodec.latents.objective import trade_off_of_step_index
from inrcodec.models import LatentClip, LatentPyramid, LatentSeries, LatentSpectrum, Parameters
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.signals.signal import Axis, Signal

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "assets" / "initializations"
GOLDEN = sorted((HERE / "golden").glob("*.inr"))
WEIGHT_FIELDS = ("siren", "ffn", "nerv")
LIBRARIES = {"cbor2", "numpy", "rfc8785", "safetensors", "second_decoder"}


@functools.cache
def known() -> list[second_decoder.Initialization]:
    """Return the published initializations, as the second decoder reads them."""
    return [second_decoder.read_initialization(path.read_bytes()) for path in sorted(PUBLISHED.glob("*.safetensors"))]


def digest_of(streams: Iterable[second_decoder.Stream]) -> str:
    """Return the hash of all integers that `symbols_digest` computes with inrcodec."""
    digest = hashlib.sha256()
    for stream in streams:
        for each in stream.symbols:
            digest.update(np.ascontiguousarray(each, "<i8").tobytes())
    return digest.hexdigest()


def value_range_of(stream: second_decoder.Stream) -> tuple[float, float]:
    """Return the value range of all slices."""
    ranges = stream.header.value_ranges
    return float(ranges[:, 0].min()), float(ranges[:, 1].max())


def assert_alike(values: np.ndarray, expected: np.ndarray, value_range: tuple[float, float], *, exact: bool) -> None:
    """Compare native values: bit for bit, or integers to one level, floats to 1e-4 of their range."""
    assert values.dtype == expected.dtype and values.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(values, expected)
        return
    tolerance = 1 if expected.dtype.kind in "iu" else 1e-4 * max(value_range[1] - value_range[0], np.ptp(expected))
    assert np.abs(values.astype(float) - expected.astype(float)).max() <= tolerance


def test_it_imports_nothing_of_inrcodec_or_torch():
    sources = sorted((HERE / "second_decoder").glob("*.py"))
    assert len(sources) > 20
    imported = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module is not None
                imported.add(node.module.partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == LIBRARIES
    assert "importlib" not in imported


def test_it_computes_the_identifiers_of_published_initializations():
    expected = [Initialization.load(path).identifier for path in sorted(PUBLISHED.glob("*.safetensors"))]
    assert [initialization.identifier for initialization in known()] == expected
    assert expected


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_decode_alike(path):
    streams = second_decoder.read_streams(path.read_bytes(), known())
    expected = json.loads((HERE / "golden" / "symbols.json").read_text())
    assert digest_of(streams) == expected[path.name]
    (stream,) = streams
    exact = not path.stem.endswith(WEIGHT_FIELDS)
    assert_alike(stream.values(), np.load(path.with_suffix(".npy")), value_range_of(stream), exact=exact)


@dataclass(frozen=True)
class Case:
    """Signals for the real encoder.

    initializations: of each signal, embedded in the file. resolution, sizes: another one to decode at, for inrcodec and
    as samples along every axis of each signal. quantization: step index and variant of latent fields, chosen by the
    encoder unless given.
    """

    signals: list[Signal]
    initializations: list[Initialization]
    resolution: inrcodec.Resolution
    sizes: list[tuple[int, ...]]
    steps: int = 0
    max_error: float | str | None = None
    quantization: tuple[int, int] | None = None
    max_error_rel: float | None = None


def texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return waves, an edge and some noise, 0..1: neither all zeros nor all noise."""
    random = np.random.default_rng(seed)
    *grid, channels = shape
    axes = np.meshgrid(*(np.arange(size) / 9 for size in grid), indexing="ij")
    waves = [
        sum(
            np.sin(a * x + b) for a, b, x in zip(random.uniform(0.5, 2, 9), random.uniform(0, 6, 9), axes, strict=False)
        )
        for _ in range(channels)
    ]
    values = np.stack(waves, -1) + random.normal(0, 0.05, shape)
    values[tuple(slice(size // 3, 2 * size // 3) for size in grid)] += 1
    return (values - values.min()) / np.ptp(values)


def floats(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return texture(shape, seed).astype(np.float32)


def levels(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)


def picture(values: np.ndarray, **settings: Any) -> Signal:
    """Return a picture: bytes, or floats in 0..1."""
    largest = 1.0 if values.dtype == np.float32 else 255.0
    return Signal("image", values, (Axis(values.shape[0]), Axis(values.shape[1])), (0.0, largest), **settings)


def picture_of_parts_and_a_hue() -> Case:
    """Return colours whose chroma is turned, and an alpha channel of another field; every phase is divided."""
    colours = picture(floats((29, 41, 3), 1))
    alpha = picture(levels(texture((29, 44, 1), 2)), name="alpha")
    initializations = [
        wild_initialization("image", LatentPyramid(2, 3, (2, 3), prediction=4, divided=4), (20, 24), (3, 2), 1),
        wild_initialization("image", LatentPyramid(2, 3, (3, 2), prediction=4, divided=1), (40, 40), (4, 4), 2),
    ]
    sizes = [(40, 50)] * 2
    return Case([colours, alpha], initializations, inrcodec.Resolution(size=(40, 50)), sizes, 2, None, (-28, 3 * 13))


def picture_of_bare_levels_and_fine_steps() -> Case:
    """Return a picture without chroma on two of five levels, of which the coarsest are not divided."""
    field = LatentPyramid(2, 3, (5, 4), prediction=4, divided=2)
    initialization = wild_initialization("image", field, (37, 53), (0, 0), 3)
    image = picture(floats((37, 53, 3), 3))
    resolution = inrcodec.Resolution(size=(14, 60))
    return Case([image], [initialization], resolution, [(14, 60)], quantization=(-93, 3 * 32 + 2))


def picture_of_coarse_steps() -> Case:
    field = LatentPyramid(2, 3, (2, 2), prediction=4)
    initialization = wild_initialization("image", field, (64, 64), (0, 0), 4)
    resolution = inrcodec.Resolution(size=(20, 90))
    return Case([picture(levels(texture((19, 45, 3), 4)))], [initialization], resolution, [(20, 90)], 1, None, (-8, 1))


def picture_of_weights() -> Case:
    image = replace(tiny_image(4, 70, 50), values=levels(texture((70, 50, 3), 3)))
    published = inrcodec.named_initialization("image-siren")
    return Case([image], [published], inrcodec.Resolution(size=(33, 17)), [(33, 17)], steps=2)


def climate_with_missing_values_and_a_bound() -> Case:
    """Return a globe: its longitudes are closed on two levels, and open on the third, of an odd size."""
    values = (texture((2, 19, 36, 1), 7) * 50 + 240).astype(np.float32)
    missing = np.zeros(values.shape[:-1], bool)
    missing[:, 3:9, 5:30] = True
    missing[1, 9, 5] = True
    latitudes = Axis(19, "node", points=np.linspace(90, -90, 19))
    longitudes = Axis(36, "periodic", points=np.arange(36) * 10.0)
    signal = Signal(
        "climate",
        values,
        (Axis(2, "slice"), latitudes, longitudes),
        (float(values.min()), float(values.max())),
        name="t2m",
        sphere=True,
        missing=missing,
    )
    field = LatentPyramid(2, 1, (3, 3), prediction=4, divided=2)
    initialization = wild_initialization("climate", field, (64, 64), (4, 4), 5)
    return Case([signal], [initialization], inrcodec.Resolution(size=(25, 50)), [(2, 25, 50)], max_error=0.3)


def levels_with_ranges_limits_and_zeros() -> Case:
    values = (texture((2, 19, 35, 1), 7) * np.array([1.0, 1e-3]).reshape(2, 1, 1, 1)).astype(np.float32)
    zeros = texture((2, 19, 35), 8) < 0.4
    values[zeros] = 0
    packed = zlib.compress(np.packbits(zeros).tobytes())
    signal = Signal(
        "climate",
        values,
        (Axis(2, "slice"), Axis(19, "node"), Axis(35, "periodic")),
        (float(values.min()), float(values.max())),
        name="q",
        attributes={"limits": [float(values[~zeros].min()), 0.5], "zeros": [0.0, *zeros.shape, packed]},
        slice_ranges=np.stack([values.min((1, 2, 3)), values.max((1, 2, 3))], 1).astype(np.float64),
    )
    field = LatentPyramid(2, 1, (2, 4), prediction=4, divided=4)
    initialization = wild_initialization("climate", field, (16, 16), (4, 4), 6)
    resolution = inrcodec.Resolution(size=(25, 50))
    return Case([signal], [initialization], resolution, [(2, 25, 50)], 0, None, (-57, 0))


def sound_of_a_pyramid() -> Case:
    """Return a field of one axis, with the finest steps there are."""
    signal = Signal("audio", floats((101, 1), 9), (Axis(101, "start", rate=Fraction(8000)),), (0.0, 1.0))
    initialization = wild_initialization("audio", LatentPyramid(1, 1, (5,), prediction=4, divided=2), (60,), (7,), 7)
    resolution = inrcodec.Resolution(sample_rate=16000)
    return Case([signal], [initialization], resolution, [(202,)], quantization=(-120, 0))


def picture_far_beyond_its_range() -> Case:
    """Return a picture whose means are clipped where networks see two digits of them."""
    image = replace(picture(floats((13, 20, 3), 13)), value_range=(0.5, 0.5 + 2**-14))
    field = LatentPyramid(2, 3, (3, 3), prediction=4, divided=4)
    initialization = wild_initialization("image", field, (20, 20), (0, 0), 12)
    return Case([image], [initialization], inrcodec.Resolution(size=(26, 10)), [(26, 10)], 0, None, (-70, 0))


def video_of_a_pyramid() -> Case:
    """Return a field of three axes, of which the levels split one, two or three."""
    values = floats((9, 17, 22, 3), 10)
    signal = Signal("video", values, (Axis(9, "start", rate=Fraction(25)), Axis(17), Axis(22)), (0.0, 1.0))
    field = LatentPyramid(3, 3, (1, 2, 3), prediction=3, divided=2)
    initialization = wild_initialization("video", field, (9, 20, 30), (1, 2, 2), 8)
    resolution = inrcodec.Resolution(size=(20, 20), frame_rate=Fraction(50))
    return Case([signal], [initialization], resolution, [(18, 20, 20)], quantization=(-40, 3 * 63 + 1))


def video(pictures: int, seed: int) -> Signal:
    """Return pictures that move in many directions."""
    still = floats((37, 53, 3), seed)
    values = np.stack(
        [
            np.concatenate([np.roll(still[:, :26], 2 * n, 0), np.roll(still[:, 26:], -3 * n, 1)], 1)
            for n in range(pictures)
        ]
    )
    return Signal("video", values, (Axis(pictures, "start", rate=Fraction(25)), Axis(37), Axis(53)), (0.0, 1.0))


def clip_of_six_pictures() -> Case:
    field = LatentClip(3, 3, (2, 3), prediction=4, divided=2)
    initialization = wild_initialization("video", field, (6, 37, 53), (0, 0, 0), 9)
    resolution = inrcodec.Resolution(size=(30, 60), frame_rate=Fraction(50))
    return Case([video(6, 11)], [initialization], resolution, [(12, 30, 60)], 1, None, (-30, 3 * 7))


def clip_of_fine_steps() -> Case:
    """Return a clip of two patches; some of its pictures have steps finer than -56, others not."""
    field = LatentClip(3, 3, (3, 2), prediction=4, divided=4)
    initialization = wild_initialization("video", field, (3, 37, 30), (0, 0, 4), 10)
    resolution = inrcodec.Resolution(size=(40, 60), frame_rate=Fraction(50))
    return Case([video(3, 12)], [initialization], resolution, [(6, 40, 60)], 0, None, (-54, 3 * 50 + 1))


def video_with_a_bound() -> Case:
    """Return a residual of several layers, of slices that see references and of others, in three channels."""
    signal = replace(video(19, 13), value_range=(0.0, 255.0))
    signal = replace(signal, values=levels(signal.values))
    field = LatentClip(3, 3, (2, 2), prediction=2, divided=1)
    initialization = random_initialization("video", field, PatchConfig((20, 50, 60), (0, 4, 4), normalize=False))
    resolution = inrcodec.Resolution(size=(30, 60), frame_rate=Fraction(25))
    return Case([signal], [initialization], resolution, [(19, 30, 60)], 0, 1.0, (-10, 0))


def sound_of_two_channels() -> Case:
    values = floats((900, 2, 1), 8) - np.float32(0.5)
    signal = Signal("audio", values, (Axis(900, "start", rate=Fraction(8000)), Axis(2, "slice")), (-0.5, 0.5))
    initialization = wild_initialization("audio", LatentSpectrum(1, 1, (2, 3), hop=24), (500,), (20,), 11)
    return Case([signal], [initialization], inrcodec.Resolution(sample_rate=12000), [(1350, 2)])


def weather(count: int, height: int, width: int, seed: int, noise: float = 0.005) -> np.ndarray:
    """Return fields that drift, [count, height, width, 1] in 0..1, each like the one after it."""
    random = np.random.default_rng(seed)
    times, rows, columns = np.indices((count, height, width))
    values = 0.5 + random.normal(0, noise, times.shape)
    for turns in range(1, 5):
        down, onward = random.uniform(0.1, 0.6), random.uniform(0.05, 0.2)
        values += np.sin(down * rows + 2 * np.pi * turns * columns / width + onward * times) / 10
    return values[..., None].clip(0, 1).astype(np.float32)


def climate(values: np.ndarray, longitudes: str = "periodic", **settings: Any) -> Signal:
    count, height, width, _ = values.shape
    axes = (Axis(count, "slice"), Axis(height, "node"), Axis(width, longitudes))
    return Signal("climate", values, axes, (float(values.min()), float(values.max())), **settings)


def series_of_groups_around_the_globe() -> Case:
    """Return four groups, of which the last has three copies of its last field; longitudes are closed."""
    field = LatentSeries(3, 1, (3, 3), prediction=4, divided=4)
    initialization = wild_initialization("climate", field, (3, 30, 50), (0, 4, 4), 14)
    sizes = (13, 25, 50)
    return Case(
        [climate(weather(13, 19, 36, 20))],
        [initialization],
        inrcodec.Resolution(size=(25, 50)),
        [sizes],
        1,
        None,
        (-40, 0),
    )


def series_without_references() -> Case:
    field = LatentSeries(3, 1, (3, 2), prediction=4, divided=2)
    initialization = wild_initialization("climate", field, (5, 30, 50), (0, 4, 4), 15)
    sizes = (9, 25, 50)
    return Case(
        [climate(weather(9, 19, 36, 21))],
        [initialization],
        inrcodec.Resolution(size=(25, 50)),
        [sizes],
        0,
        None,
        (-40, 1),
    )


def series_of_a_field_alone() -> Case:
    field = LatentSeries(3, 1, (2, 3), prediction=4, divided=2)
    initialization = wild_initialization("climate", field, (5, 30, 50), (0, 4, 4), 16)
    sizes = (1, 25, 50)
    return Case(
        [climate(weather(1, 19, 36, 22))],
        [initialization],
        inrcodec.Resolution(size=(25, 50)),
        [sizes],
        0,
        None,
        (-40, 0),
    )


def series_of_small_patches() -> Case:
    """Return a region of several patches, some of them in one chunk."""
    field = LatentSeries(3, 1, (2, 2), prediction=4, divided=4)
    initialization = wild_initialization("climate", field, (2, 9, 12), (0, 2, 3), 17)
    signal = climate(weather(5, 19, 36, 23), "node")
    sizes = (5, 25, 50)
    return Case([signal], [initialization], inrcodec.Resolution(size=(25, 50)), [sizes], 0, None, (-54, 0))


def series_of_three_channels() -> Case:
    """Return fields in two groups of channels, as those of pictures are, with the finest steps there are."""
    field = LatentSeries(3, 3, (2, 2), prediction=4, divided=4)
    initialization = wild_initialization("climate", field, (3, 30, 50), (0, 4, 4), 18)
    values = np.concatenate([weather(3, 11, 13, seed) for seed in (26, 27, 28)], -1)
    resolution = inrcodec.Resolution(size=(25, 50))
    return Case([climate(values)], [initialization], resolution, [(3, 25, 50)], 0, None, (-118, 0))


def series_with_a_bound() -> Case:
    """Return fields with ranges of their own and missing values."""
    values = weather(22, 11, 18, 24) * np.linspace(1, 3, 22, dtype=np.float32).reshape(-1, 1, 1, 1)
    missing = np.zeros(values.shape[:-1], bool)
    missing[:, 3:9, 5:12] = True
    missing[1, 9, 5] = True
    ranges = np.stack([values.min((1, 2, 3)), values.max((1, 2, 3))], 1).astype(np.float64)
    field = LatentSeries(3, 1, (3, 3), prediction=4, divided=2)
    initialization = random_initialization("climate", field, PatchConfig((22, 30, 50), (0, 4, 4), normalize=False))
    signal = climate(values, missing=missing, slice_ranges=ranges)
    resolution = inrcodec.Resolution(size=(25, 50))
    return Case([signal], [initialization], resolution, [(22, 25, 50)], 0, 0.002, (-24, 0))


def series_of_learned_networks() -> Case:
    published = inrcodec.named_initialization("climate-series")
    signal = climate(weather(7, 40, 72, 29))
    return Case([signal], [published], inrcodec.Resolution(size=(25, 50)), [(7, 25, 50)], 1, 0.01)


def series_whose_rows_are_its_hints() -> Case:
    """Return fields with references whose flags have rows that differ if a hint differs by 1, as rounding makes it."""
    field = LatentSeries(3, 1, (3, 3), prediction=2, divided=0)
    patches = PatchConfig((17, 130, 260), (0, 4, 4), normalize=False)
    initialization = random_initialization("climate", field, patches)
    prior = cast(LatentPrior, initialization.prior)
    prior = replace(prior, weights={name: rows_of_hints(name, value) for name, value in prior.weights.items()})
    signal = climate(weather(17, 128, 250, 30, noise=0.03))
    resolution = inrcodec.Resolution(size=(25, 50))
    return Case([signal], [replace(initialization, prior=prior)], resolution, [(17, 25, 50)], 0, None, (-70, 0))


def rows_of_hints(name: str, value: Tensor) -> Tensor:
    """Return weights of the entropy model that see three hints, |a + b|, from 395 to 435."""
    if not name.startswith("inter."):
        return value
    result = torch.zeros_like(value)
    if name.endswith("input.bias"):
        result[:-2] = -395 / 128
    elif name.endswith("hints.weight"):
        result[range(3), range(3), 1, 1] = 1
    elif name.endswith("flags.weight"):
        result[range(3), range(3)] = 4090 / 128
    return result


def series_of_large_fields() -> Case:
    """Return fields whose stages have streams of their own."""
    field = LatentSeries(3, 1, (4, 4), prediction=2, divided=1)
    patches = PatchConfig((3, 260, 520), (0, 4, 4), normalize=False)
    initialization = random_initialization("climate", field, patches)
    signal = climate(weather(3, 256, 512, 25))
    return Case([signal], [initialization], inrcodec.Resolution(size=(40, 80)), [(3, 40, 80)], 0, None, (-8, 0))


def small_series(values: np.ndarray, seed: int) -> tuple[Signal, Initialization]:
    """Return fields [S, H, W] for a pyramid of small patches."""
    signal = Signal(
        "climate",
        values.astype(np.float32)[..., None],
        (Axis(len(values), "slice"), Axis(values.shape[1], "node"), Axis(values.shape[2], "node")),
        (float(values.min()), float(values.max())),
        name="q",
    )
    field = LatentPyramid(2, 1, (2, 3), prediction=4, divided=2)
    return signal, wild_initialization("climate", field, (24, 24), (2, 2), seed)


def levels_with_bounds_of_their_own() -> Case:
    ranges = np.array([[[2.0]], [[40.0]], [[0.0]]])  # nothing changes on the last one
    signal, initialization = small_series(texture((3, 19, 23, 1), 31)[..., 0] * ranges + 5, 31)
    return Case([signal], [initialization], inrcodec.Resolution(size=(30, 30)), [(3, 30, 30)], max_error="2%")


def rain_within_a_share() -> Case:
    wet = texture((2, 21, 30, 1), 32)[..., 0]
    signal, initialization = small_series(np.where(wet < 0.4, 0, np.exp(9 * wet) - np.exp(5 * wet)), 32)
    return Case([signal], [initialization], inrcodec.Resolution(size=(30, 30)), [(2, 30, 30)], max_error_rel=0.02)


def wind_within_a_share_or_an_error() -> Case:
    signal, initialization = small_series((texture((2, 21, 30, 1), 33)[..., 0] - 0.5) ** 3 * 100, 33)
    resolution = inrcodec.Resolution(size=(30, 30))
    return Case([signal], [initialization], resolution, [(2, 30, 30)], max_error=0.01, max_error_rel=0.02)


CASES = [
    picture_of_parts_and_a_hue,
    picture_of_bare_levels_and_fine_steps,
    picture_of_coarse_steps,
    picture_of_weights,
    climate_with_missing_values_and_a_bound,
    levels_with_ranges_limits_and_zeros,
    picture_far_beyond_its_range,
    sound_of_a_pyramid,
    video_of_a_pyramid,
    clip_of_six_pictures,
    clip_of_fine_steps,
    video_with_a_bound,
    sound_of_two_channels,
    series_of_groups_around_the_globe,
    series_without_references,
    series_of_a_field_alone,
    series_of_small_patches,
    series_of_three_channels,
    series_with_a_bound,
    series_of_large_fields,
    series_of_learned_networks,
    series_whose_rows_are_its_hints,
    levels_with_bounds_of_their_own,
    rain_within_a_share,
    wind_within_a_share_or_an_error,
]
BOUNDED = [climate_with_missing_values_and_a_bound, video_with_a_bound, series_with_a_bound]


def choose_always(step_index: int, variant: int) -> Callable[..., LatentQuantization]:
    def choose(prepared: PreparedLatents, trade_off: float, start: LatentQuantization | None) -> LatentQuantization:
        own = prepared.initialization.field
        known = variant if own.variants > 1 else 0
        return LatentQuantization(step_index, trade_off_of_step_index(step_index, own.out_features), known)

    return choose


@functools.cache
def encoded(make: Callable[[], Case]) -> tuple[Case, bytes]:
    """Return a case and its file."""
    case = make()
    options = EncodeOptions(steps=case.steps, max_error=case.max_error, max_error_rel=case.max_error_rel, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        # So that small signals have several chunks, too.
        patch.setattr(inrcodec.latents.codec, "CHUNK_POINTS", 1000)
        patch.setattr(inrcodec.weights.codec, "CHUNK_POINTS", 4000)
        if case.quantization is not None:
            patch.setattr(PreparedLatents, "choose", choose_always(*case.quantization))
        data, _ = inrcodec.encode(case.signals, case.initializations, options, embed=True)
    return case, data


@functools.cache
def decoded(make: Callable[[], Case]) -> list[second_decoder.Stream]:
    """Return the streams of a case's file."""
    return second_decoder.read_streams(encoded(make)[1])


@pytest.mark.parametrize("make", CASES)
def test_files_of_the_encoder_decode_alike(make):
    case, data = encoded(make)
    streams = decoded(make)
    assert all(sum(map(np.count_nonzero, stream.symbols)) > 30 for stream in streams)  # there is something to compare
    assert digest_of(streams) == symbols_digest(data)
    fields = [initialization.field for initialization in case.initializations]
    for stream, field, expected in zip(streams, fields, inrcodec.decode(data, device="cpu"), strict=True):
        assert stream.header.name == expected.name and value_range_of(stream) == expected.value_range
        assert stream.header.on_sphere == expected.sphere and stream.header.attributes == expected.attributes
        assert_alike(stream.values(), expected.values, expected.value_range, exact=field.family == "latents")
        np.testing.assert_array_equal(stream.missing(), expected.missing)


@pytest.mark.parametrize("make", CASES)
def test_other_resolutions_decode_alike(make):
    case, data = encoded(make)
    shown = inrcodec.decode(data, resolution=case.resolution, device="cpu")
    for stream, expected, sizes in zip(decoded(make), shown, case.sizes, strict=True):
        assert_alike(stream.values(sizes), expected.values, expected.value_range, exact=False)
        np.testing.assert_array_equal(stream.missing(sizes), expected.missing)


@pytest.mark.parametrize(
    "make", [picture_of_parts_and_a_hue, video_of_a_pyramid, clip_of_fine_steps, series_of_small_patches]
)
def test_networks_reach_all_that_activations_can_be(make, monkeypatch):
    """What is compared above would not mean much if nothing were clipped, or all of it."""
    seen: list[np.ndarray] = []

    def watched(sums: np.ndarray, unit: int = 128) -> np.ndarray:
        seen.append(activation(sums, unit).ravel())
        return activation(sums, unit)

    for module in (second_decoder.entropy_model, second_decoder.prediction):
        monkeypatch.setattr(module, "activation", watched)
    for stream in second_decoder.read_streams(encoded(make)[1]):
        stream.values()
    found = np.concatenate(seen)
    shares = [np.mean(found == 0), np.mean(found == 2047), np.mean((found > 0) & (found < 2047))]
    assert min(shares) > 0.02, shares


@pytest.mark.parametrize("make", BOUNDED)
def test_the_second_decoder_keeps_the_bound(make):
    case, data = encoded(make)
    (signal,) = case.signals
    (stream,) = decoded(make)
    assert "R" in [kind for kind, payload in read_sections(data) if payload]
    errors = np.abs(stream.values().astype(float) - signal.values.astype(float))
    assert errors[slice(None) if signal.missing is None else ~signal.missing].max() <= case.max_error


def test_the_second_decoder_keeps_bounds_of_slices_and_shares_of_values():
    for make in (levels_with_bounds_of_their_own, rain_within_a_share, wind_within_a_share_or_an_error):
        case, data = encoded(make)
        assert "R" in [kind for kind, payload in read_sections(data) if payload]
        original = case.signals[0].values.astype(float)
        values = decoded(make)[0].values().astype(float)
        if case.max_error_rel is None:
            ranges = np.ptp(original, axis=(1, 2, 3), keepdims=True)
            allowed = 0.02 * np.maximum(ranges, ranges.max() / 2**16)
        else:
            allowed = np.maximum(0.02 * np.abs(original), case.max_error or 0)
        errors = np.abs(values - original)
        assert (errors <= allowed).all() and (errors > allowed / 2).any()


@pytest.mark.parametrize("make", BOUNDED[1:])
def test_slices_of_residuals_see_references_or_not(make, monkeypatch):
    """What is compared above has both, and weights for both, in several layers."""
    read = second_decoder.residual._read_layer
    seen: list[tuple[bool, bool]] = []

    def watched(decoder: Any, known: list[Any], *others: Any) -> None:
        read(decoder, known, *others)
        seen.extend((phase.referring, bool(phase.weights.any())) for phase in known)

    monkeypatch.setattr(second_decoder.residual, "_read_layer", watched)
    decoded(make)[0].values()
    assert len(seen) > 3 * 4 and {(False, True), (True, True)} <= set(seen)


class Writer:
    """Stands in for the decoder of a residual: it makes the symbols up, and keeps them.

    batches: symbols without their free bits, and rows.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.batches: list[Batch] = []
        self.free_bits: list[np.ndarray] = []

    def batch(self, rows: np.ndarray) -> np.ndarray:
        largest = 60 if (rows == 38).all() else 1
        return self._kept(self._random.integers(-largest, largest + 1, len(rows)), rows)

    def one(self, row: int) -> int:
        """There are references, and new weights."""
        return int(self._kept(np.array([1]), np.array([row]))[0])

    def _kept(self, symbols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        free = np.maximum(0, -(-(rows - 48) // 4))
        self.batches.append((symbols >> free, rows - 4 * free))
        for count in range(1, int(free.max(initial=0)) + 1):
            self.free_bits.append(((symbols[free == count, None] >> np.arange(count)) & 1).ravel())
        return symbols


@pytest.mark.parametrize("shape", [(20, 5, 7), (23, 1, 6), (9, 2, 2), (40, 1, 1)])
def test_both_take_residuals_with_weights_everywhere(shape):
    """No encoder finds weights for the corner worth their bits."""
    field = LatentPyramid(2, 1, (1, 1), prediction=2)
    initialization = random_initialization("climate", field, PatchConfig((30, 50), (0, 0), normalize=False))
    options = EncodeOptions(steps=0, max_error=0.01, device="cpu")
    data, _ = inrcodec.encode([climate(weather(*shape, 31))], [initialization], options, embed=True)
    for seed in range(4):
        writer = Writer(seed)
        start = (np.array([2]), np.array([20]))  # 12 - g
        q = second_decoder.residual._symbols(writer, shape[0], 1, *shape[1:])  # type: ignore[arg-type]
        batches = encode_batches([start, *writer.batches, (np.array([0]), np.array([0]))])
        bits = np.concatenate([np.zeros(0, np.int64), *writer.free_bits]).astype(np.uint8)
        free = np.packbits(bits, bitorder="little").tobytes()
        slab = struct.pack("<d", 0.01) + write_varint(len(batches)) + batches + free
        payload = write_varint(len(slab)) + slab
        sections = [(kind, payload if kind == "R" else other) for kind, other in read_sections(data)]
        changed = file_with(*(section(kind.encode(), content) for kind, content in sections))
        (expected,) = inrcodec.decode(changed, device="cpu")
        (stream,) = second_decoder.read_streams(changed)
        np.testing.assert_array_equal(stream.values(), expected.values)
        assert q.any()


def assert_refused(data: bytes, initializations: Sequence[second_decoder.Initialization] = ()) -> None:
    with pytest.raises(second_decoder.Refused):
        second_decoder.read_streams(data, initializations)
    with pytest.raises(inrcodec.InrcodecError):
        inrcodec.decode(data, device="cpu")


def test_a_flipped_byte_is_refused_by_both():
    data = (HERE / "golden" / "v1-audio-siren.inr").read_bytes()
    for position in range(len(data)):
        assert_refused(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :], known())


@pytest.mark.parametrize("make", CASES)
def test_flipped_bits_are_refused_by_both(make):
    _, data = encoded(make)
    for damaged in with_flipped_bits(data, np.random.default_rng(10), 8):
        assert_refused(damaged)


@pytest.mark.parametrize("layer", ["input", "scales", "means", "hidden", "head", "hints"])
def test_weights_whose_sums_need_not_be_exact_are_refused_by_both(layer, monkeypatch):
    case = series_of_three_channels() if layer == "hints" else picture_of_coarse_steps()
    (known_to_fit,) = case.initializations

    def enlarged(parameters: Parameters) -> Parameters:
        return {name: 2000 * value if f".{layer}.w" in name else value for name, value in parameters.items()}

    prior = cast(LatentPrior, known_to_fit.prior)
    larger = replace(
        known_to_fit,
        theta_0=enlarged(known_to_fit.theta_0),
        prior=replace(prior, weights=enlarged(prior.weights)),
    )
    with monkeypatch.context() as patch:
        patch.setattr(inrcodec.models.exact, "_check", lambda *_: None)
        data, _ = inrcodec.encode(case.signals, [larger], EncodeOptions(steps=0, device="cpu"), embed=True)
    assert_refused(data)


@pytest.mark.parametrize("name", ["v1-image-siren", "v1-audio-spectrum", "v1-climate-bound", "series", "large series"])
def test_both_take_and_refuse_the_same_payloads(name):
    """Payloads that no encoder wrote, under checksums that are right: both decoders decode them alike, or refuse."""
    if name.startswith("v1"):
        data = (HERE / "golden" / f"{name}.inr").read_bytes()
    else:
        _, data = encoded(series_with_a_bound if name == "series" else series_of_large_fields)
    sections = read_sections(data)
    random = np.random.default_rng(11)
    changed = [number for number, (kind, _) in enumerate(sections) if kind in "CR"]
    taken = 0
    for _ in range(12):
        number = random.choice(changed)
        kind, payload = sections[number]
        (payload,) = with_flipped_bits(payload, random, 1)
        other = [*sections[:number], (kind, payload), *sections[number + 1 :]]
        data = file_with(*(section(kind.encode(), payload) for kind, payload in other))
        try:
            (expected,) = inrcodec.decode(data, device="cpu")
        except inrcodec.InrcodecError:
            with pytest.raises(second_decoder.Refused):
                second_decoder.read_streams(data, known())[0].values()
            continue
        taken += 1
        (stream,) = second_decoder.read_streams(data, known())
        assert digest_of([stream]) == symbols_digest(data)
        exact = not name.endswith(WEIGHT_FIELDS)
        assert_alike(stream.values(), expected.values, expected.value_range, exact=exact)
    assert taken < 12
