"""docs/FORMAT.md is enough to write a decoder: one that was written from it decodes as inrcodec does."""

import ast
import functools
import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import second_decoder
import torch
from damage import with_flipped_bits
from headers import file_with, section
from second_decoder.sections import read_sections
from symbols import symbols_digest
from waves import tiny_image

import inrcodec
import inrcodec.latents.codec
import inrcodec.weights.codec
from inrcodec.initialization import Initialization
from inrcodec.models import EntropyModel, LatentPyramid
from inrcodec.models.layers import integer_weights
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.settings import AdaptationConfig
from inrcodec.signals.signal import Axis, Signal

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "assets" / "initializations"
GOLDEN = sorted((HERE / "golden").glob("*.inr"))
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


def assert_close(values: np.ndarray, expected: np.ndarray, value_range: tuple[float, float]) -> None:
    """Compare native values: integers to one level, floats to 1e-4 of their range."""
    assert values.dtype == expected.dtype and values.shape == expected.shape
    tolerance = 1 if expected.dtype.kind in "iu" else 1e-4 * (value_range[1] - value_range[0])
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
    assert_close(stream.values(), np.load(path.with_suffix(".npy")), value_range_of(stream))


@dataclass(frozen=True)
class Case:
    """Signals for the real encoder.

    initializations: of each signal, embedded in the file or published. resolution, sizes: another one to decode at, for
    inrcodec and as samples along every axis of each signal.
    """

    signals: list[Signal]
    initializations: list[Initialization]
    resolution: inrcodec.Resolution
    sizes: list[tuple[int, ...]]
    steps: int = 0
    max_error: float | None = None
    embed: bool = False


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


def picture_with_alpha() -> Case:
    image = replace(tiny_image(3, 29, 44), values=levels(texture((29, 44, 3), 1)))
    alpha = replace(image, values=levels(texture((29, 44, 1), 2)), name="alpha")
    published = inrcodec.named_initialization("image-pyramid")
    return Case([image, alpha], [published] * 2, inrcodec.Resolution(size=(40, 50)), [(40, 50)] * 2)


def picture_of_weights() -> Case:
    image = replace(tiny_image(4, 70, 50), values=levels(texture((70, 50, 3), 3)))
    published = inrcodec.named_initialization("image-siren")
    return Case([image], [published], inrcodec.Resolution(size=(33, 17)), [(33, 17)], steps=2)


def picture_of_a_random_initialization() -> Case:
    """Return a case with other levels, parts and chunks than published initializations have."""
    generator = torch.Generator().manual_seed(5)
    field = LatentPyramid(2, 3, (2, 3), width=4, prediction=4, divided=4)
    model = EntropyModel.of(field, 5)
    weights = {n: v + 0.1 * torch.randn(v.shape, generator=generator) for n, v in model.initialize(generator).items()}
    theta_0 = {n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in field.initialize(generator).items()}
    initialization = Initialization(
        modality="image",
        field=field,
        patches=PatchConfig((20, 24), (3, 2), normalize=False),
        adaptation=AdaptationConfig(steps=2, gamma=1.0, score="full"),
        theta_0=theta_0,
        log_step_sizes={"shared": torch.zeros(1)},
        prior=LatentPrior(model, integer_weights(weights)),
    )
    image = replace(tiny_image(6, 29, 41), values=levels(texture((29, 41, 1), 6)))
    return Case([image], [initialization], inrcodec.Resolution(size=(14, 60)), [(14, 60)], embed=True)


def climate_with_missing_values_and_a_bound() -> Case:
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
    published = inrcodec.named_initialization("climate-pyramid")
    return Case([signal], [published], inrcodec.Resolution(size=(25, 50)), [(2, 25, 50)], max_error=0.3)


def levels_with_ranges_limits_and_zeros() -> Case:
    values = (texture((2, 19, 36, 1), 7) * np.array([1.0, 1e-3]).reshape(2, 1, 1, 1)).astype(np.float32)
    zeros = texture((2, 19, 36), 8) < 0.4
    values[zeros] = 0
    packed = zlib.compress(np.packbits(zeros).tobytes())
    signal = Signal(
        "climate",
        values,
        (Axis(2, "slice"), Axis(19, "node"), Axis(36, "node")),
        (float(values.min()), float(values.max())),
        name="q",
        attributes={"limits": [float(values[~zeros].min()), 0.5], "zeros": [0.0, *zeros.shape, packed]},
        slice_ranges=np.stack([values.min((1, 2, 3)), values.max((1, 2, 3))], 1).astype(np.float64),
    )
    published = inrcodec.named_initialization("climate-pyramid")
    return Case([signal], [published], inrcodec.Resolution(size=(25, 50)), [(2, 25, 50)])


def sound_of_two_channels() -> Case:
    values = (texture((2, 900, 1), 8) - 0.5).astype(np.float32)
    signal = Signal("audio", values, (Axis(2, "slice"), Axis(900, "start", rate=Fraction(8000))), (-0.5, 0.5))
    published = inrcodec.named_initialization("audio-spectrum")
    return Case([signal], [published], inrcodec.Resolution(sample_rate=12000), [(2, 1350)])


def clip_of_three_pictures() -> Case:
    picture = levels(texture((21, 37, 3), 9))
    values = np.stack([np.roll(picture, 2 * number, 1) for number in range(3)])
    signal = Signal("video", values, (Axis(3, "start", rate=Fraction(25)), Axis(21), Axis(37)), (0.0, 255.0))
    published = inrcodec.named_initialization("video-clip")
    resolution = inrcodec.Resolution(size=(30, 40), frame_rate=Fraction(50))
    return Case([signal], [published], resolution, [(6, 30, 40)])


def levels(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * values).astype(np.uint8)


CASES = [
    picture_with_alpha,
    picture_of_weights,
    picture_of_a_random_initialization,
    climate_with_missing_values_and_a_bound,
    levels_with_ranges_limits_and_zeros,
    sound_of_two_channels,
    clip_of_three_pictures,
]


@functools.cache
def encoded(make: Callable[[], Case]) -> tuple[Case, bytes]:
    """Return a case and its file."""
    case = make()
    options = EncodeOptions(steps=case.steps, max_error=case.max_error, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        # So that small signals have several chunks, too.
        patch.setattr(inrcodec.latents.codec, "CHUNK_POINTS", 1000)
        patch.setattr(inrcodec.weights.codec, "CHUNK_POINTS", 4000)
        data, _ = inrcodec.encode(case.signals, case.initializations, options, embed=case.embed)
    return case, data


@pytest.mark.parametrize("make", CASES)
def test_files_of_the_encoder_decode_alike(make):
    case, data = encoded(make)
    streams = second_decoder.read_streams(data, () if case.embed else known())
    assert all(sum(map(np.count_nonzero, stream.symbols)) > 30 for stream in streams)  # there is something to compare
    assert digest_of(streams) == symbols_digest(data)
    for stream, expected in zip(streams, inrcodec.decode(data, device="cpu"), strict=True):
        assert stream.header.name == expected.name and value_range_of(stream) == expected.value_range
        assert stream.header.on_sphere == expected.sphere and stream.header.attributes == expected.attributes
        assert_close(stream.values(), expected.values, expected.value_range)
        np.testing.assert_array_equal(stream.missing(), expected.missing)


@pytest.mark.parametrize("make", CASES)
def test_other_resolutions_decode_alike(make):
    case, data = encoded(make)
    streams = second_decoder.read_streams(data, () if case.embed else known())
    decoded = inrcodec.decode(data, resolution=case.resolution, device="cpu")
    for stream, expected, sizes in zip(streams, decoded, case.sizes, strict=True):
        assert_close(stream.values(sizes), expected.values, expected.value_range)
        np.testing.assert_array_equal(stream.missing(sizes), expected.missing)


def test_the_second_decoder_keeps_the_bound():
    case, data = encoded(climate_with_missing_values_and_a_bound)
    (signal,) = case.signals
    (stream,) = second_decoder.read_streams(data, known())
    assert "R" in [kind for kind, payload in read_sections(data) if payload]
    known_values = ~signal.missing
    errors = np.abs(stream.values().astype(float) - signal.values.astype(float))[known_values]
    assert errors.max() <= case.max_error


def assert_refused(data: bytes) -> None:
    with pytest.raises(second_decoder.Refused):
        second_decoder.read_streams(data, known())
    with pytest.raises(inrcodec.InrcodecError):
        inrcodec.decode(data, device="cpu")


def test_a_flipped_byte_is_refused_by_both():
    data = (HERE / "golden" / "v1-audio-siren.inr").read_bytes()
    for position in range(len(data)):
        assert_refused(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])


@pytest.mark.parametrize("make", CASES)
def test_flipped_bits_are_refused_by_both(make):
    _, data = encoded(make)
    for damaged in with_flipped_bits(data, np.random.default_rng(10), 8):
        assert_refused(damaged)


@pytest.mark.parametrize("name", ["v1-image-siren", "v1-audio-spectrum", "v1-climate-bound"])
def test_both_take_and_refuse_the_same_payloads(name):
    """Payloads that no encoder wrote, under checksums that are right: both decoders decode them alike, or refuse."""
    sections = read_sections((HERE / "golden" / f"{name}.inr").read_bytes())
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
        assert_close(stream.values(), expected.values, expected.value_range)
    assert taken < 12
