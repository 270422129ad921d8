"""The codec from signals to bytes and back, on tiny initializations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waves import tiny_image, tiny_sound

from inrcodec import metrics
from inrcodec.coding.container import Container, read_container, write_container
from inrcodec.decoder import _ranges, decode, open_container
from inrcodec.encoder import encode
from inrcodec.errors import ContainerError, CorruptFile, InrcodecWarning, UnknownInitialization, UsageError
from inrcodec.initialization import Initialization
from inrcodec.options import EncodeOptions
from inrcodec.patches import Patches
from inrcodec.registry import DEFAULTS, PATH_VARIABLE, default_initialization, named_initialization
from inrcodec.resolution import Resolution
from inrcodec.signals.signal import Axis, Signal
from inrcodec.verification import verify_file
from inrcodec.weights import codec as weight_codec
from inrcodec.weights.chunk import PatchDeltas, pack_chunk, unpack_chunk
from inrcodec.weights.model import WeightModel
from inrcodec.weights.normalization import Normalization
from inrcodec.weights.quantization import Quantizer, dequantize, quantize, symbol_step_indices

FEW = EncodeOptions(steps=4, quality=60)


@pytest.fixture(scope="module")
def image_initialization(tiny_initializations: Path) -> Initialization:
    return Initialization.load(tiny_initializations / "tiny-image.safetensors")


@pytest.fixture(scope="module")
def sound_initialization(tiny_initializations: Path) -> Initialization:
    return Initialization.load(tiny_initializations / "tiny-audio.safetensors")


def rough_image(height: int, width: int, channels: int = 3) -> Signal:
    values = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Signal("image", values, (Axis(height), Axis(width)), (0.0, 255.0))


def test_decoding_gives_what_the_encoder_says(image_initialization):
    picture = tiny_image(5)
    data, said = encode([picture], [image_initialization], FEW)
    decoded = decode(data, initializations=[image_initialization])
    np.testing.assert_array_equal(decoded[0].values, said[0].values)
    assert decoded[0].values.dtype == np.uint8
    assert metrics.psnr(picture, decoded[0]) > 15


def test_more_quality_is_more_bytes_and_less_error(image_initialization):
    picture = tiny_image(6)
    sizes, qualities = [], []
    for quality in (1, 40, 100):
        data, decoded = encode([picture], [image_initialization], EncodeOptions(steps=12, quality=quality))
        sizes.append(len(data))
        qualities.append(metrics.psnr(picture, decoded[0]))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert qualities == sorted(qualities) and qualities[0] < qualities[-1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (17, 3), (16, 16), (33, 47)])
@pytest.mark.parametrize("channels", [1, 3])
def test_grids_of_any_size(image_initialization, shape, channels):
    picture = rough_image(*shape, channels)
    data, _ = encode([picture], [image_initialization], replace(FEW, steps=1))
    decoded = decode(data, initializations=[image_initialization])[0]
    assert decoded.values.shape == picture.values.shape


def test_several_signals_and_their_attributes(image_initialization, sound_initialization):
    picture = replace(tiny_image(7), attributes={"icc": b"profile", "dpi": [72, 72]})
    alpha = replace(rough_image(32, 40, 1), name="alpha")
    sound = replace(tiny_sound(7), name="sound")
    data, _ = encode([picture, alpha, sound], [image_initialization, image_initialization, sound_initialization], FEW)
    decoded = decode(data, initializations=[image_initialization, sound_initialization])
    assert [signal.name for signal in decoded] == ["", "alpha", "sound"]
    assert [signal.modality for signal in decoded] == ["image", "image", "audio"]
    assert decoded[0].attributes == picture.attributes
    assert decoded[2].axes[0].rate == sound.axes[0].rate
    assert decoded[2].values.dtype == np.float32


def test_missing_values_are_restored_where_they_were(image_initialization):
    missing = np.zeros((32, 40), bool)
    missing[3:9, 5:11] = missing[-1, -1] = True
    picture = replace(tiny_image(8), missing=missing)
    data, _ = encode([picture], [image_initialization], FEW)
    decoded = decode(data, initializations=[image_initialization])[0]
    np.testing.assert_array_equal(decoded.missing, missing)
    larger = decode(data, initializations=[image_initialization], resolution=Resolution(factor=2))[0]
    np.testing.assert_array_equal(larger.missing, missing.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("resolution", "shape"),
    [
        (Resolution(longer=80), (64, 80)),
        (Resolution(size=(10, 90)), (10, 90)),
        (Resolution(factor=0.25), (8, 10)),
        (Resolution(longer=1), (1, 1)),
    ],
)
def test_any_resolution(image_initialization, resolution, shape):
    data, _ = encode([tiny_image(9)], [image_initialization], FEW)
    decoded = decode(data, initializations=[image_initialization], resolution=resolution)[0]
    assert decoded.values.shape == (*shape, 3)


def test_another_resolution_shows_the_same_picture(image_initialization):
    data, small = encode([tiny_image(10)], [image_initialization], replace(FEW, steps=16))
    large = decode(data, initializations=[image_initialization], resolution=Resolution(factor=3))[0]
    # Every third sample of the larger grid, from the second on, lies on a sample of the original.
    difference = large.values[1::3, 1::3].astype(int) - small[0].values
    assert np.abs(difference).max() <= 1


def test_a_smaller_picture_does_not_alias(image_initialization):
    data, _ = encode([tiny_image(10)], [image_initialization], replace(FEW, steps=16))
    known = [image_initialization]
    full = decode(data, initializations=known)[0].values.astype(float)
    small = decode(data, initializations=known, resolution=Resolution(factor=0.25))[0].values
    means = full.reshape(8, 4, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1


def test_sound_at_another_sample_rate(sound_initialization):
    data, same = encode([tiny_sound(11)], [sound_initialization], FEW)
    double = decode(data, initializations=[sound_initialization], resolution=Resolution(sample_rate=16000))[0]
    assert double.axes[0].size == 1200 and double.axes[0].rate == 16000
    np.testing.assert_allclose(double.values[::2], same[0].values, atol=1e-5)


def test_embedded_initialization_decodes_anywhere(image_initialization, monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    data, said = encode([tiny_image(12)], [image_initialization], FEW, embed=True)
    np.testing.assert_array_equal(decode(data)[0].values, said[0].values)


def test_of_several_initializations_for_a_field_the_default_is_used(tiny_installed, monkeypatch):
    monkeypatch.setitem(DEFAULTS, "image", "tiny-image")
    tiny = named_initialization("tiny-image")
    assert default_initialization("image", "siren").identifier == tiny.identifier
    assert default_initialization("image", "pyramid").field.name == "pyramid"


def test_unknown_initialization(image_initialization, monkeypatch):
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    data, _ = encode([tiny_image(13)], [image_initialization], FEW)
    with pytest.raises(UnknownInitialization, match=image_initialization.identifier.hex()):
        decode(data)


def test_targets(image_initialization):
    picture = tiny_image(14)
    options = EncodeOptions(steps=16)
    data, _ = encode([picture], [image_initialization], replace(options, bits_per_sample=4.0))
    assert 3.8 <= 8 * len(data) / picture.samples <= 4.0
    sizes, qualities = [], []
    for quality in (1, 100):
        data, decoded = encode([picture], [image_initialization], replace(options, quality=quality))
        sizes.append(len(data))
        qualities.append(metrics.psnr(picture, decoded[0]))
    wanted = sum(qualities) / 2
    data, decoded = encode([picture], [image_initialization], replace(options, psnr=wanted))
    assert wanted <= metrics.psnr(picture, decoded[0]) <= qualities[1]
    assert len(data) < sizes[1]


@pytest.mark.parametrize("target", [{"bits_per_sample": 0.001}, {"psnr": 99.0}])
def test_targets_out_of_reach(image_initialization, target):
    with pytest.raises(UsageError, match="out of reach"):
        encode([tiny_image(15)], [image_initialization], EncodeOptions(steps=2, **target))


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 0},
        {"quality": 101},
        {"steps": -1},
        {"bits_per_sample": 0.0},
        {"psnr": float("nan")},
        {"psnr": 30.0, "bits_per_sample": 1.0},
        {"rescaling": "foo"},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(UsageError):
        EncodeOptions(**options)


def test_progress_goes_forward_to_the_end(image_initialization):
    signals = [tiny_image(1, 60, 60), replace(tiny_image(2, 60, 90), name="alpha")]
    data, _ = encode(signals, [image_initialization] * 2, EncodeOptions(steps=1, device="cpu"), embed=True)
    seen = []
    one, other = open_container(read_container(data), device="cpu", on_progress=seen.append)
    other.part(0, 30)
    one.loaded()
    other.loaded()
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(set(seen)) > 4


def test_a_rescaling_that_does_not_exist():
    with pytest.raises(UsageError, match="no rescaling is called 'foo': choose from exact, loss-ratio, none"):
        EncodeOptions(rescaling="foo")


@pytest.mark.parametrize("lost", [{0}, {1, 2}, set(range(3))])
def test_a_residual_leaves_damaged_chunks_as_they_are(image_initialization, monkeypatch, lost):
    """Beyond the patches of damaged chunks the bound holds."""
    monkeypatch.setattr(weight_codec, "CHUNK_POINTS", 1)
    picture = rough_image(20, 60)
    data, _ = encode([picture], [image_initialization], EncodeOptions(steps=0, device="cpu", max_error=9))
    (stream,) = read_container(data).streams
    count = stream.header.chunks
    assert count > 3 and stream.residual
    if len(lost) == 3:
        lost = set(range(count))
    damaged = replace(stream, damaged=frozenset(lost))
    with pytest.warns(InrcodecWarning, match=r"damaged chunks, .* may be further off than 9"):
        (decoded,) = open_container(Container((damaged,)), initializations=[image_initialization], device="cpu")
        decoded = decoded.loaded()
    patches = Patches.cover(picture.axes, image_initialization.patches)
    touched = np.zeros(picture.shape, int)
    for number, samples in enumerate(patches.resampled(picture.axes)):
        touched[np.ix_(*samples.indices)] |= 1 if number in lost else 2
    assert (touched & 1).any() and np.isin(decoded.values[touched == 1], (127, 128)).all()
    error = np.abs(decoded.values.astype(int) - picture.values)
    assert (error[touched == 2] <= 9).all()
    if lost < set(range(count)):
        assert (touched == 2).any()


def test_a_warning_names_ranges_of_chunks():
    assert _ranges({1}) == "1"
    assert _ranges({0, 1, 2, 3, 7, 9, 10}) == "0-3, 7, 9-10"
    assert _ranges(frozenset(range(0, 40, 2))) == "0, 2, 4, 6, 8, 10, 12, 14, and others, 20 in all"


@pytest.mark.parametrize("attributes", [{"limits": ["a", 1]}, {"limits": [1]}, {"zeros": [0.0, 3, 20, 30, b"x"]}])
def test_malformed_attributes_are_found_without_decoding(tmp_path, attributes):
    values = np.random.default_rng(0).normal(size=(3, 20, 30, 1)).astype(np.float32)
    field = Signal("climate", values, (Axis(3, "slice"), Axis(20, "node"), Axis(30, "node")), (-5.0, 5.0))
    data, _ = encode([field], [default_initialization("climate")], EncodeOptions(steps=0, device="cpu"))
    path = tmp_path / "field.inr"
    path.write_bytes(data)
    verify_file(path, device="cpu")
    (stream,) = read_container(data).streams
    forged = replace(stream, header=replace(stream.header, attributes=attributes))
    path.write_bytes(write_container(Container((forged,))))
    for check in (lambda: verify_file(path, device="cpu"), lambda: decode(path.read_bytes(), device="cpu")):
        with pytest.raises(CorruptFile, match=r"malformed attributes .* obtain the file again"):
            check()


def test_an_initialization_of_another_kind(sound_initialization, image_initialization):
    with pytest.raises(UsageError, match="choose another"):
        encode([tiny_image(16)], [sound_initialization], FEW)
    two_channels = replace(rough_image(20, 20, 2))
    with pytest.raises(UsageError, match="2 channels"):
        encode([two_channels], [image_initialization], FEW)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_chunks_round_trip_and_stand_alone(image_initialization, data):
    count = data.draw(st.integers(1, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    model = WeightModel.of(image_initialization)
    tensors = len(model.adapted)
    quantizer = Quantizer(
        tuple(random.integers(-60, 10, tensors).tolist()), tuple(random.integers(-8, 9, tensors).tolist())
    )
    exponents = random.integers(-24, 2, count)
    means = np.rint(random.uniform(size=(count, 3)) * 16 * np.exp2(-exponents)[:, None]).astype(np.int64)
    normalization = Normalization(exponents, means)
    deltas = random.laplace(size=(count, model.delta_size)) * 10 ** random.uniform(-4, 1)
    packed = pack_chunk(PatchDeltas(normalization, deltas), quantizer, model)
    unpacked = unpack_chunk(packed, count, quantizer, model)
    np.testing.assert_array_equal(unpacked.normalization.exponents, normalization.exponents)
    np.testing.assert_array_equal(unpacked.normalization.means, normalization.means)
    step_indices = symbol_step_indices(quantizer.columns(model)[0], normalization.exponents)
    np.testing.assert_array_equal(unpacked.deltas, dequantize(quantize(deltas, step_indices), step_indices))


@settings(deadline=None, max_examples=50)
@given(
    value=st.floats(-1e3, 1e3),
    step_index=st.integers(-40, 40),
    dead_zone=st.floats(0, 0.49),
)
def test_quantization_error_is_bounded(value, step_index, dead_zone):
    step_indices = np.array([[step_index]])
    rebuilt = dequantize(quantize(np.array([[value]]), step_indices, dead_zone), step_indices)[0, 0]
    assert abs(rebuilt - value) <= (0.5 + dead_zone) * 2 ** (step_index / 4) * (1 + 1e-9)
    assert rebuilt * value >= 0


def test_a_file_that_does_not_fit_its_initialization(image_initialization):
    data, _ = encode([tiny_image(17)], [image_initialization], FEW)
    stream = read_container(data).streams[0]
    broken = [
        {"axes": (Axis(32), Axis(400))},
        {"axes": (Axis(32),)},
        {"channels": 2},
        {"coding": stream.header.coding[:-1]},
        {"coding": b""},
        {"patches_per_chunk": 1},
    ]
    for change in broken:
        forged = write_container(Container((replace(stream, header=replace(stream.header, **change)),)))
        with pytest.raises(CorruptFile):
            decode(forged, initializations=[image_initialization])


def test_a_file_of_another_modality_than_its_initialization(image_initialization):
    data, _ = encode([tiny_image(17)], [image_initialization], FEW)
    stream = read_container(data).streams[0]
    for modality in ("climate", "audio", "video"):
        forged = write_container(Container((replace(stream, header=replace(stream.header, modality=modality)),)))
        with pytest.raises(CorruptFile, match=f"is {modality}, its initialization is for image"):
            decode(forged, initializations=[image_initialization])


def test_flipped_bits_are_noticed(image_initialization):
    data, _ = encode([tiny_image(18)], [image_initialization], FEW)
    random = np.random.default_rng(0)
    for position in random.choice(8 * len(data), 100, replace=False).tolist():
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ContainerError):
            decode(bytes(damaged), initializations=[image_initialization])


def test_slices_have_ranges_of_their_own() -> None:
    """Humidity on levels: the uppermost is a thousandth of the lowest, and is not lost."""
    random = np.random.default_rng(0)
    waves = np.sin(np.add.outer(np.arange(40) / 7, np.arange(60) / 9)) + 0.02 * random.normal(size=(40, 60))
    scales = np.array([1e-2, 1e-3, 1e-5])
    values = (scales[:, None, None] * (2 + waves)).astype(np.float32)[..., None]
    ranges = np.stack([values.min((1, 2, 3)), values.max((1, 2, 3))], 1).astype(np.float64)
    axes = (Axis(3, "slice"), Axis(40, "node"), Axis(60, "node"))
    whole = float(ranges.min()), float(ranges.max())
    one = Signal("climate", values, axes, whole)
    each = replace(one, slice_ranges=ranges)
    initialization = default_initialization("climate")
    options = EncodeOptions(quality=50, steps=0, device="cpu")
    errors = {}
    for name, signal in (("one", one), ("each", each)):
        data, said = encode([signal], [initialization], options)
        (decoded,) = decode(data)
        assert np.array_equal(decoded.values, said[0].values)
        errors[name] = metrics.fidelity(each, decoded).slice_errors
        assert metrics.psnr(signal, decoded) == pytest.approx(
            -10 * np.log10(np.mean(metrics.fidelity(signal, decoded).slice_errors ** 2)), abs=0.2
        )
    assert np.array_equal(decoded.slice_ranges, ranges) and decoded.value_range == whole
    assert errors["one"][2] > 0.1  # nothing of it is left
    assert errors["each"].max() < 0.03

    # With a bound all slices share one range: its unit is that of the values.
    data, (decoded,) = encode([each], [initialization], EncodeOptions(steps=0, device="cpu", max_error=1e-4))
    assert decoded.slice_ranges is None and np.abs(decoded.values - values).max() <= 1e-4
