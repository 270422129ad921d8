"""Encoding within a largest error, from signals and NetCDF files to bytes and back."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cbor2
import netCDF4
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from random_latents import random_initialization
from waves import tiny_image

from inrcodec import encoder, sampling
from inrcodec.bounds import Bound
from inrcodec.cli import main
from inrcodec.cli.encode import parse_bounds
from inrcodec.coding.container import Container, Stream, read_container, read_outline, write_container
from inrcodec.coding.header import pack_header, unpack_header
from inrcodec.coding.plain import Budget
from inrcodec.decoder import decode
from inrcodec.encoder import encode
from inrcodec.errors import CorruptFile, InrcodecWarning, UsageError
from inrcodec.field_values import native_values
from inrcodec.initialization import Initialization
from inrcodec.latents.codec import LatentQuantization, PreparedLatents
from inrcodec.models import LatentPyramid, LatentSpectrum
from inrcodec.options import EncodeOptions, Tolerance
from inrcodec.patches import PatchConfig
from inrcodec.residual import bound as error_bound
from inrcodec.residual.section import apply_slab, pack_section, unpack_section
from inrcodec.resolution import Resolution
from inrcodec.signals import read, read_back, write
from inrcodec.signals.netcdf import plain_attributes
from inrcodec.signals.signal import Axis, Signal

FIELD = (2, 21, 34)


def untrained_pyramid(modality: str, channels: int) -> Initialization:
    """Return a latent pyramid that predicts nothing yet, for small patches."""
    patches = PatchConfig((24, 40), (4, 4), normalize=False)
    return random_initialization(modality, LatentPyramid(2, channels, (2, 1), prediction=4), patches, gain=0.0)


CLIMATE = untrained_pyramid("climate", 1)
IMAGE = untrained_pyramid("image", 3)
AUDIO = random_initialization(
    "audio", LatentSpectrum(1, 1, (2, 4), hop=32), PatchConfig((1200,), (32,), normalize=False)
)


def value_range(values: np.ndarray) -> tuple[float, float]:
    """Return the range that reading a file gives, also of constant values."""
    low, high = float(values.min()), float(values.max())
    return low, high if low < high else low + max(1.0, abs(low)) * 1e-6


def climate_field(
    seed: int = 0,
    dtype: str = "f4",
    offset: float = 280.0,
    spread: float = 20.0,
    shape: tuple[int, int, int] = FIELD,
    name: str = "t2m",
    missing: np.ndarray | None = None,
) -> Signal:
    """Return waves and some noise, another field for each slice."""
    random = np.random.default_rng(seed)
    _, height, width = shape
    y, x = np.mgrid[:height, :width] / 8
    slopes = random.uniform(-1, 1, (shape[0], 3, 1, 1))
    waves = np.sin(3 * slopes[:, 0] * y + 3 * slopes[:, 1] * x + slopes[:, 2])
    exact = offset + spread * (waves + 0.05 * random.normal(size=shape))
    values = (np.rint(exact) if np.dtype(dtype).kind in "iu" else exact).astype(dtype)
    return Signal(
        modality="climate",
        values=values[..., None],
        axes=(Axis(shape[0], "slice"), Axis(height, "node"), Axis(width, "node")),
        value_range=value_range(values),
        name=name,
        missing=missing,
    )


def packed_attributes(field: Signal, packing: dict[str, Any]) -> dict[str, Any]:
    """Return what a signal carries of a variable of 16-bit integers."""
    return {
        "dimensions": ["time", "lat", "lon"],
        "shape": list(field.shape),
        "horizontal": ["lat", "lon"],
        "dtype": "<i2",
        "attributes": plain_attributes({key: np.array(value, np.float64) for key, value in packing.items()}),
    }


def bounds(max_error: float | dict[str, float], **more: Any) -> EncodeOptions:
    return EncodeOptions(steps=0, device="cpu", max_error=max_error, **more)


def errors(original: Signal, decoded: Signal) -> np.ndarray:
    """Return absolute errors where values are not missing."""
    difference = np.abs(original.values.astype(np.float64) - decoded.values.astype(np.float64))
    return difference if original.missing is None else difference[~original.missing]


def unchanged(values: np.ndarray) -> np.ndarray:
    return values


def within(original: Signal, max_error: float, initialization: Initialization = CLIMATE) -> bytes:
    """Encode and decode, check the bound and what the encoder says; return the file."""
    data, said = encode([original], [initialization], bounds(max_error))
    (decoded,) = decode(data, initializations=[initialization], device="cpu")
    np.testing.assert_array_equal(decoded.values, said[0].values)
    assert decoded.values.dtype == original.values.dtype
    assert (errors(original, decoded) <= max_error).all()
    return data


@pytest.mark.parametrize("max_error", [3.0, 1e-2])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "i4"])
def test_every_value_is_within_the_bound(dtype: str, max_error: float) -> None:
    within(climate_field(dtype=dtype, spread=200.0), max_error)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "VORBIS"])
@pytest.mark.parametrize("max_error", [1e-3, 2e-5])
def test_sound_is_within_the_bound_in_the_file_that_is_written(tmp_path: Path, subtype: str, max_error: float) -> None:
    times = np.arange(2000) / 8000
    samples = 0.4 * np.sin(2 * np.pi * 440 * times) + 0.1 * np.random.default_rng(0).normal(size=2000)
    source = tmp_path / ("a.ogg" if subtype == "VORBIS" else "a.wav")
    soundfile.write(source, samples, 8000, subtype=subtype)
    (original,) = read(source)
    data, _ = encode([original], [AUDIO], bounds(max_error))
    write(decode(data, initializations=[AUDIO], device="cpu"), tmp_path / "b.wav")
    (copy,) = read(tmp_path / "b.wav")
    assert (errors(original, copy) <= max_error).all()


def test_sound_of_a_lossy_file_cannot_be_nearer_than_the_samples_that_are_written(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.ogg", 0.4 * np.sin(np.arange(2000) / 3), 8000)
    with pytest.raises(UsageError, match="too coarse: give a larger bound"):
        encode(read(tmp_path / "a.ogg"), [AUDIO], bounds(1e-6))


@pytest.mark.parametrize("max_error", [6.0, 0.5])
def test_pictures_too(max_error: float) -> None:
    alpha = replace(tiny_image(4), values=tiny_image(4).values[..., :1], name="alpha")
    data, _ = encode([tiny_image(3), alpha], [IMAGE, IMAGE], bounds(max_error))
    for original, decoded in zip([tiny_image(3), alpha], decode(data, initializations=[IMAGE]), strict=True):
        assert (errors(original, decoded) <= max_error).all()


def test_fields_with_coded_weights_too(tiny_initializations: Path) -> None:
    within(tiny_image(3), 2.0, Initialization.load(tiny_initializations / "tiny-image.safetensors"))


@settings(deadline=None, max_examples=5)
@given(exponent=st.floats(-4, 2), holes=st.floats(0, 1), seed=st.integers(0, 1000))
def test_any_bound_holds(exponent: float, holes: float, seed: int) -> None:
    shape = (2, 9, 12)
    missing = np.random.default_rng(seed).random(shape) < holes
    within(climate_field(seed, shape=shape, missing=missing), float(10**exponent))


@settings(deadline=None, max_examples=100)
@given(
    dtype=st.sampled_from(["f2", "f4", "f8", "i2", "i4"]),
    offset=st.sampled_from([0.0, 280.0, -3000.0]),
    spread=st.sampled_from([0.5, 5.0, 300.0]),
    exponent=st.floats(-9, 3),
    coarseness=st.floats(-4, 1),
    step=st.none() | st.floats(-3, 1).map(lambda exponent: 10.0**exponent),
    margin=st.sampled_from([0.0, 2.0**-18]),
    seed=st.integers(0, 1000),
)
def test_any_field_can_be_corrected(
    bounded_stream: Stream,
    dtype: str,
    offset: float,
    spread: float,
    exponent: float,
    coarseness: float,
    step: float | None,
    margin: float,
    seed: int,
) -> None:
    """Also where floats are packed into integers by steps of `step`, and what is rounded to 7 steps means: missing."""
    random = np.random.default_rng(seed)
    field = climate_field(seed, dtype, offset, spread, (1, 9, 12))
    values, attributes = field.values, {}
    if step is not None and dtype in ("f4", "f8"):
        numbers = np.rint((values.astype(np.float64) - offset) / step).clip(-32768, 32767)
        numbers[numbers == 7] = 8
        values = (numbers * step + offset).astype(np.float64)
        packing = {"scale_factor": step, "add_offset": offset, "_FillValue": 7}
        attributes = packed_attributes(field, packing)
        values = read_back(replace(field, values=values, attributes=attributes))
    low, high = value_range(values)
    field = replace(field, values=values, value_range=(low, high), attributes=attributes)
    noise = 10**coarseness * (high - low) * random.normal(size=values.shape)
    base = native_values(((values - low) / (high - low) + noise).clip(-9, 9), field.value_range, values.dtype)
    max_error = float(10**exponent)
    residual, decoded = error_bound.corrected_slab(
        field, replace(field, values=base), unchanged, Bound(max_error), 0, margin
    )
    np.testing.assert_array_equal(decoded.values, apply_slab(base, residual, max_error))
    assert errors(field, decoded).max() <= max_error
    assert errors(field, replace(field, values=read_back(decoded))).max() <= max_error


def test_missing_values_do_not_matter() -> None:
    missing = np.zeros(FIELD, bool)
    missing[:, 4:9, 10:20] = True
    field = climate_field(missing=missing)
    rough = replace(field, values=field.values.copy())
    rough.values[missing] += np.random.default_rng(0).choice([-9, 9], (missing.sum(), 1)).astype(np.float32)
    base = decode(file_of(replace_residual(field)), initializations=[CLIMATE])[0]
    (plain, _), (hard, _) = (
        error_bound.corrected_slab(original, base, unchanged, Bound(0.5), 0, 0.0) for original in (field, rough)
    )
    assert plain == hard
    (decoded,) = decode(within(field, 0.5), initializations=[CLIMATE])
    np.testing.assert_array_equal(decoded.missing, missing)


@pytest.mark.parametrize("value", [0.0, 273.15, -1e20, 1e-30])
def test_constant_fields(value: float) -> None:
    values = np.full((*FIELD, 1), value, np.float32)
    field = replace(climate_field(), values=values, value_range=value_range(values))
    assert len(within(field, 0.1)) < 300
    within(field, 1e-9)


def test_infinite_values_are_refused() -> None:
    field = climate_field()
    field.values[1, 2, 3] = np.inf
    field.values[0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="'t2m' has 2 values that are not finite: mark them as missing"):
        encode([field], [CLIMATE], bounds(0.1))


def test_bounds_by_name() -> None:
    fields = [climate_field(1), climate_field(2, name="z", offset=5e4, spread=1000.0), climate_field(3, name="q")]
    options = bounds({"t2m": 0.1, "z": 5})
    data, said = encode(fields, [CLIMATE] * 3, options)
    decoded = decode(data, initializations=[CLIMATE])
    for original, rebuilt, bound in zip(fields, decoded, (0.1, 5.0, math.inf), strict=True):
        assert (errors(original, rebuilt) <= bound).all()
    streams = read_container(data).streams
    assert [stream.header.bound for stream in streams] == [Bound(0.1), Bound(5.0), None]
    free = read_container(encode(fields, [CLIMATE] * 3, EncodeOptions(steps=0, device="cpu"))[0]).streams[2]
    assert streams[2].chunks == free.chunks and streams[2].residual is None
    assert pack_header(streams[2].header) == pack_header(free.header)
    np.testing.assert_array_equal(said[2].values, decoded[2].values)
    with pytest.raises(UsageError, match="for 'temperature', but the signals are called 't2m', 'z', 'q'"):
        encode(fields, [CLIMATE] * 3, bounds({"temperature": 1.0}))


def test_the_main_modality_only() -> None:
    sound = replace(tiny_image(1), modality="audio", name="sound")
    wide, narrow = Tolerance(2.0), Tolerance(0.1)
    assert bounds(2.0).tolerances([tiny_image(0), tiny_image(1), sound]) == [wide, wide, None]
    assert bounds({"sound": 0.1}).tolerances([tiny_image(0), sound]) == [None, narrow]
    assert EncodeOptions().tolerances([tiny_image(0), sound]) == [None, None]


def test_a_smaller_bound_is_a_larger_file() -> None:
    sizes = [len(within(climate_field(5), bound)) for bound in (8.0, 1.0, 0.1)]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)


def test_many_slices_are_searched_by_some(monkeypatch: pytest.MonkeyPatch) -> None:
    field = climate_field(6, shape=(12, 9, 12), missing=np.zeros((12, 9, 12), bool))
    seen = []
    adapt = encoder.prepare_signal

    def watch(signal: Signal, *arguments: Any) -> Any:
        seen.append(signal.shape)
        return adapt(signal, *arguments)

    monkeypatch.setattr(encoder, "prepare_signal", watch)
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 3 * 9 * 12)
    within(field, 0.5)
    assert seen == [(12, 9, 12), (3, 9, 12)]


@pytest.mark.parametrize(("steps", "codings"), [(0, 0), (2, 1)])
def test_only_what_is_found_is_adapted(steps: int, codings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search tells fields apart by their first decisions; where those are all, the best is not coded again."""
    adapted = []
    code = PreparedLatents.code

    def watch(prepared: PreparedLatents, quantization: LatentQuantization, *others: Any) -> Any:
        adapted.append((prepared.steps, quantization.step_index, prepared.bound))
        return code(prepared, quantization, *others)

    monkeypatch.setattr(PreparedLatents, "code", watch)
    field = climate_field(6)
    data, (said,) = encode([field], [CLIMATE], replace(bounds(0.5), steps=steps))
    (decoded,) = decode(data, initializations=[CLIMATE], device="cpu")
    np.testing.assert_array_equal(decoded.values, said.values)
    assert errors(field, decoded).max() <= 0.5
    trials = [step_index for number, step_index, bound in adapted if number == 0 and bound is None]
    assert 1 < len(set(trials)) == len(trials) <= error_bound.CODINGS
    low, high = field.value_range
    _, step_index, known = adapted[len(trials)]  # with the bound in mind
    assert step_index in trials and known == pytest.approx(0.5 / (high - low))
    assert len(adapted) - len(trials) - 1 == codings
    assert all(number == steps and each == step_index for number, each, _ in adapted[len(trials) + 1 :])


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("gain", [-1, 1])
def test_the_smaller_of_two_ways_stays(steps: int, gain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents are decided with the bound in mind where that makes a smaller file."""
    kept = []
    code_signal = encoder.code_signal

    def watch(prepared: PreparedLatents, *others: Any, **more: Any) -> Any:
        coded = code_signal(prepared, *others, **more)
        padding = bytes(10_000) if (prepared.bound is None) == (gain > 0) else b""
        kept.append((prepared.bound, coded))
        return replace(coded, stream=replace(coded.stream, residual=(coded.stream.residual or b"") + padding))

    monkeypatch.setattr(encoder, "code_signal", watch)
    part = encoder.prepare_signal(climate_field(6), CLIMATE, bounds(0.5))
    part = replace(part, steps=steps)
    found = encoder.code_within(part, climate_field(6), Bound(0.5), bounds(0.5))
    ways = {bound is not None for bound, coded in kept if coded.stream.chunks == found.stream.chunks}
    assert ways == {gain > 0}


def test_a_sample_knows_how_its_file_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound of floats can be nearer than 16 bits are apart, also where the search is on a part of it."""
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 1 << 12)
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", np.cumsum(random.normal(0, 0.001, 20000)), 8000, subtype="FLOAT")
    (signal,) = read(tmp_path / "a.wav")
    assert sampling.sample_of(signal, AUDIO.patches) is not signal
    _, (decoded,) = encode([signal], [AUDIO], bounds(1e-6))
    assert errors(signal, decoded).max() <= 1e-6


@dataclass(frozen=True)
class Sized:
    size: int


@settings(deadline=None, max_examples=60)
@given(st.floats(-12, 12), st.floats(0.01, 1))
def test_the_search_for_the_smallest(best: float, slope: float) -> None:
    tried = []

    def code(trade_off: float) -> Sized:
        tried.append(math.log2(trade_off))
        size = round(1000 * (1 + slope * (tried[-1] - best) ** 2))
        return Sized(size)

    trade_off, found = error_bound.best_trade_off(code, 1.0)
    assert len(tried) <= error_bound.CODINGS
    assert found.size <= min(round(1000 * (1 + slope * (x - best) ** 2)) for x in tried)
    if abs(best) <= 6:
        assert abs(math.log2(trade_off) - best) <= 1


def test_another_resolution_is_that_of_the_field() -> None:
    data = within(climate_field(7), 0.2)
    (stream,) = read_container(data).streams
    plain = file_of(replace(stream, header=replace(stream.header, bound=None), residual=None))
    larger, same = Resolution(factor=2), Resolution(size=FIELD[1:])
    for resolution, equal in ((larger, True), (same, False)):
        one, other = (decode(file, initializations=[CLIMATE], resolution=resolution)[0] for file in (data, plain))
        assert np.array_equal(one.values, other.values) == equal


@pytest.mark.parametrize("max_error", [1e-2, 2e-3])
def test_a_field_of_another_machine_stays_within_the_bound(max_error: float) -> None:
    field = climate_field(8, offset=1e3, spread=50.0)
    base = decode(file_of(replace_residual(field)), initializations=[CLIMATE])[0]
    residual, _ = error_bound.corrected_slab(field, base, unchanged, Bound(max_error), 0, 2.0**-18)
    low, high = field.value_range
    for sign in (-1, 1):
        other = (base.values.astype(np.float64) + sign * 1e-6 * (high - low)).astype(np.float32)
        assert (other != base.values).any()
        rebuilt = apply_slab(other, residual, max_error)
        assert np.abs(rebuilt.astype(np.float64) - field.values.astype(np.float64)).max() <= max_error


def test_machines_that_decode_the_same_use_all_of_the_bound() -> None:
    field = climate_field(8, offset=1e3, spread=50.0)
    (decoded,) = decode(within(field, 2e-3), initializations=[CLIMATE])
    assert errors(field, decoded).max() > 0.95 * 2e-3


def replace_residual(field: Signal, stream: Stream | None = None) -> Stream:
    """Return the stream of a field without a bound."""
    if stream is None:
        (stream,) = read_container(encode([field], [CLIMATE], EncodeOptions(steps=0, device="cpu"))[0]).streams
    return replace(stream, header=replace(stream.header, bound=None), residual=None)


def file_of(stream: Stream) -> bytes:
    return write_container(Container((stream,)))


@pytest.fixture(scope="module")
def bounded_stream() -> Stream:
    (stream,) = read_container(within(climate_field(9), 0.3)).streams
    assert stream.residual is not None
    return stream


def test_hostile_residuals(bounded_stream: Stream) -> None:
    section = bounded_stream.residual or b""
    (residual,) = unpack_section(section, 1)
    bound, payload = residual[:8], residual[8:]
    wrong = [bound, residual[:4], residual[:-1], residual + b"\0", bound + b"\xff" * 9, bound[:1] + payload]
    wrong += [struct.pack("<d", value) + payload for value in (0.0, -0.1, 0.31, 1e-310, math.nan, math.inf)]
    lengths = [section[:-1], section + b"\0", section + section, residual, b"\0", b"\x80", b"\x81\0x"]
    for section in (*(pack_section([part]) for part in wrong), *lengths):
        with pytest.raises(CorruptFile, match=r"residual|integer"):
            decode(file_of(replace(bounded_stream, residual=section)), initializations=[CLIMATE], device="cpu")


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_damaged_residuals_are_refused_or_decode_to_something(bounded_stream: Stream, data: st.DataObject) -> None:
    residual = bytearray(bounded_stream.residual or b"")
    for _ in range(data.draw(st.integers(1, 3))):
        residual[data.draw(st.integers(0, len(residual) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file = file_of(replace(bounded_stream, residual=bytes(residual)))
    try:
        (decoded,) = decode(file, initializations=[CLIMATE])
    except CorruptFile as error:
        assert "\n" not in str(error)
    else:
        assert decoded.values.shape == (*FIELD, 1)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf, 1e-302])
def test_headers_with_an_impossible_bound(bounded_stream: Stream, bound: float) -> None:
    with pytest.raises(ValueError, match="a bound"):
        Bound(bound)
    fields = cbor2.loads(pack_header(bounded_stream.header)[1:])
    assert fields[-1] == 0.3
    payload = bytes([0]) + cbor2.dumps([*fields[:-1], bound])
    with pytest.raises(CorruptFile, match=r"a bound|finite|number"):
        unpack_header(payload, Budget())


def test_a_residual_belongs_to_a_bound(bounded_stream: Stream) -> None:
    for wrong in (
        replace(bounded_stream, residual=None),
        replace(bounded_stream, header=replace(bounded_stream.header, bound=None)),
    ):
        with pytest.raises(UsageError, match="disagrees"):
            file_of(wrong)
    labels = [part.label for part in read_outline(BytesIO(file_of(bounded_stream))).sizes]
    assert labels[:2] == ["preamble", "header"] and labels[-2:] == ["residual", "end"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_error": 0.0},
        {"max_error": -1.0},
        {"max_error": math.nan},
        {"max_error": math.inf},
        {"max_error": {"t2m": 0.1, "z": 0.0}},
        {"max_error": 0.1, "psnr": 30.0},
        {"max_error": {"t2m": 0.1}, "bits_per_sample": 1.0},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="largest error"):
        EncodeOptions(**options)


# Files.


def netcdf(path: Path, variables: dict[str, dict[str, Any]], seed: int = 0) -> Path:
    """Write variables (time, lat, lon) of waves: their attributes, or "dtype" of those not packed."""
    with netCDF4.Dataset(path, "w") as file:
        for name, points in (("time", np.arange(2)), ("lat", np.linspace(60, 40, 21)), ("lon", np.arange(34) * 0.5)):
            file.createDimension(name, len(points))
            file.createVariable(name, "f8", (name,))[:] = points
        file["lat"].units, file["lon"].units = "degrees_north", "degrees_east"
        for number, (name, attributes) in enumerate(variables.items()):
            rest = dict(attributes)
            fill, dtype = rest.pop("_FillValue", None), rest.pop("dtype", "i2")
            variable = file.createVariable(name, dtype, ("time", "lat", "lon"), fill_value=fill)
            variable.set_auto_maskandscale(False)
            variable.setncatts(rest)
            numbers = climate_field(seed + number, "f8", 0.0, 900.0, (2, 21, 34)).values[..., 0]
            if np.dtype(dtype).kind == "i":
                numbers = np.rint(numbers)
                if fill is not None:
                    numbers[numbers == fill] = fill - 1
                    numbers[:, 3:5, 7:20] = fill
            variable[:] = numbers
    return path


def physical(path: Path, name: str) -> np.ndarray:
    """Return stored numbers times scale plus offset in float64, NaN where missing."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        variable = file[name]
        numbers = variable[:]
        attributes = variable.__dict__
    exact = numbers.astype(np.float64) * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
    return np.where(numbers == attributes.get("_FillValue", np.nan), np.nan, exact)


PACKED = {"scale_factor": 0.01, "add_offset": 273.15, "_FillValue": np.int16(-32767)}


@pytest.mark.parametrize(("steps", "fill"), [(0.3, -32767), (0.6, -32767), (1.0, 0), (1.4, 500), (30.2, 0)])
def test_the_bound_survives_packing(tmp_path: Path, steps: float, fill: int) -> None:
    path = netcdf(tmp_path / "a.nc", {"t2m": PACKED | {"_FillValue": np.int16(fill)}})
    data, _ = encode(read(path), [CLIMATE], bounds(0.01 * steps))
    write(decode(data, initializations=[CLIMATE]), tmp_path / "b.nc")
    original, decoded = physical(path, "t2m"), physical(tmp_path / "b.nc", "t2m")
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(original))
    assert np.nanmax(np.abs(decoded - original)) <= 0.01 * steps
    (again,), (before,) = read(tmp_path / "b.nc"), read(path)
    assert errors(before, again).max() <= 0.01 * steps


def test_markers_among_unpacked_integers(tmp_path: Path) -> None:
    """What is rounded to the number that stands for a missing value must not be moved beyond the bound."""
    path = netcdf(tmp_path / "a.nc", {"count": {"_FillValue": np.int16(100)}})
    data, _ = encode(read(path), [CLIMATE], bounds(2.0))
    write(decode(data, initializations=[CLIMATE]), tmp_path / "b.nc")
    assert np.nanmax(np.abs(physical(path, "count") - physical(tmp_path / "b.nc", "count"))) <= 2


def test_infinite_values_of_a_file_are_kept_beside_others_within_the_bound(tmp_path: Path) -> None:
    path = netcdf(tmp_path / "a.nc", {"t2m": {"dtype": "f4"}})
    with netCDF4.Dataset(path, "a") as file:
        file["t2m"][0, 3, 4] = np.inf
    with pytest.warns(InrcodecWarning, match="1 infinite values"):
        signals = read(path)
    data, _ = encode(signals, [CLIMATE], bounds(0.5))
    write(decode(data, initializations=[CLIMATE]), tmp_path / "b.nc")
    original, decoded = physical(path, "t2m"), physical(tmp_path / "b.nc", "t2m")
    finite = np.isfinite(original)
    assert (~finite).sum() == 1 and decoded[0, 3, 4] == np.inf
    assert np.abs(decoded[finite] - original[finite]).max() <= 0.5


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program in an empty folder but for pyramid.safetensors: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyramid.safetensors").write_bytes(CLIMATE.to_bytes())

    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in argv])
        return code, *capsys.readouterr()

    return run


ENCODE = ("encode", "a.nc", "--init", "pyramid.safetensors", "--steps", "0", "--device", "cpu", "--max-error")


def test_the_command_line(run: Run, tmp_path: Path) -> None:
    netcdf(tmp_path / "a.nc", {"t2m": PACKED, "z": {"dtype": "f8"}})
    code, _, said = run(*ENCODE, "t2m=0.1", "--max-error", "z=5")
    assert code == 0 and "(bounds t2m 0.1, z 5)" in said, said
    code, out, _ = run("info", "a.inr")
    assert code == 0 and "largest error" in out and "residual" in out and "chunk" in out
    content = json.loads(run("info", "a.inr", "--json")[1])
    assert [signal["bound"] for signal in content["signals"]] == [0.1, 5.0]
    assert {(part["part"], part["signal"]) for part in content["parts"]} >= {("residual", 0), ("residual", 1)}
    assert run("decode", "a.inr", "--init", "pyramid.safetensors", "-o", "b.nc")[0] == 0
    for name, bound in (("t2m", 0.1), ("z", 5.0)):
        assert np.nanmax(np.abs(physical(tmp_path / "a.nc", name) - physical(tmp_path / "b.nc", name))) <= bound


def test_one_bound_for_all(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLE_VALUES", 21 * 34)
    netcdf(tmp_path / "a.nc", {"t2m": PACKED, "d2m": PACKED})
    code, out, said = run(*ENCODE, "0.2", "--json")
    report = json.loads(out)
    assert code == 0 and "(bound 0.2)" in said
    assert report["bound"] == 0.2 and 0 < report["max_error"] <= 0.2
    assert [signal["bound"] for signal in report["signals"]] == [0.2, 0.2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["much"], "'much'"),
        (["t2m="], "'t2m='"),
        (["0"], "not a positive number"),
        (["0.1", "--max-error", "t2m=0.1"], "for all signals and by name"),
        (["t2m=1", "--max-error", "t2m=0.1"], "twice"),
        (["0.1", "--psnr", "40"], "no choice"),
        (["u10=0.1"], "'t2m'"),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    netcdf(tmp_path / "a.nc", {"t2m": PACKED})
    code, out, err = run(*ENCODE, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err


def test_names_may_have_equal_signs() -> None:
    assert parse_bounds("--max-error", ["a=b=0.5", "c=2%"], percent=True) == {"a=b": 0.5, "c": "2%"}
    assert parse_bounds("--max-error", ["1e-3"]) == 1e-3
    assert parse_bounds("--max-error", []) is None
