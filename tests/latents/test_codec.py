"""The codec from signals to bytes and back, with latent pyramids of random networks."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from damage import with_flipped_bits
from random_latents import random_initialization
from waves import tiny_image

from inrcodec import metrics
from inrcodec.coding.container import Container, Stream, read_container, write_container
from inrcodec.decoder import decode, decode_stream
from inrcodec.encoder import encode
from inrcodec.errors import ContainerError, CorruptFile, UnknownInitialization, UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents import codec, coder
from inrcodec.latents.codec import LatentQuantization
from inrcodec.models import LatentPyramid
from inrcodec.options import EncodeOptions
from inrcodec.patches import PatchConfig
from inrcodec.registry import PATH_VARIABLE
from inrcodec.resolution import Resolution
from inrcodec.signals.signal import Axis, Signal

QUICK = EncodeOptions(steps=1, quality=60)
FINE = EncodeOptions(steps=0, quality=100)


@pytest.fixture(scope="module")
def pictures() -> Initialization:
    field = LatentPyramid(2, 3, (2, 3), prediction=4, divided=2)
    return random_initialization("image", field, PatchConfig((24, 32), (4, 4), normalize=False))


@pytest.fixture(scope="module")
def maps() -> Initialization:
    field = LatentPyramid(2, 1, (2, 2), prediction=4)
    return random_initialization("climate", field, PatchConfig((12, 16), (4, 4), normalize=False))


@pytest.fixture(scope="module")
def videos() -> Initialization:
    field = LatentPyramid(3, 3, (1, 2, 2), prediction=4)
    return random_initialization("video", field, PatchConfig((4, 16, 16), (0, 4, 4), normalize=False))


def rough_image(height: int, width: int, channels: int = 3) -> Signal:
    values = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Signal("image", values, (Axis(height), Axis(width)), (0.0, 255.0))


def smooth_at(shape: tuple[int, ...]) -> np.ndarray:
    """Return a function of [0, 1]^2, flat at its ends, at the cell centres of a grid: [*shape, 3]."""
    y, x = np.meshgrid(*((np.arange(size) + 0.5) / size for size in shape), indexing="ij")
    return np.stack([0.5 + 0.4 * np.cos(2 * np.pi * y) * np.cos(k * np.pi * x) for k in (1, 2, 3)], -1)


def smooth_image(*shape: int) -> Signal:
    return Signal("image", smooth_at(shape).astype(np.float32), (Axis(shape[0]), Axis(shape[1])), (0.0, 1.0))


def climate_at(latitudes: np.ndarray, longitudes: np.ndarray, slices: int) -> np.ndarray:
    """Return waves that rise from pole to pole and turn from slice to slice: [slices, ..., 1] kelvins."""
    y, x = np.radians(latitudes)[:, None], np.radians(longitudes)
    slice_values = [280 + 20 * np.cos(y) * np.cos(x + turn) + 8 * np.sin(y) for turn in range(slices)]
    return np.stack(slice_values)[..., None]


def globe(height: int, width: int, slices: int = 2) -> Signal:
    """Return such waves from pole to pole, all around."""
    latitudes, longitudes = np.linspace(90, -90, height), np.arange(width) * 360 / width
    axes = (
        Axis(slices, "slice"),
        Axis(height, "node", points=latitudes),
        Axis(width, "periodic", points=longitudes),
    )
    values = climate_at(latitudes, longitudes, slices).astype(np.float32)
    return Signal("climate", values, axes, (250.0, 310.0), sphere=True)


def clip(frames: int) -> Signal:
    values = np.stack([tiny_image(4, 20, 24).values // 2 + 5 * frame for frame in range(frames)])
    return Signal("video", values, (Axis(frames, "start", rate=Fraction(25)), Axis(20), Axis(24)), (0.0, 255.0))


# What comes back


def test_decoding_gives_what_the_encoder_says(
    pictures: Initialization, maps: Initialization, videos: Initialization
) -> None:
    alpha = replace(rough_image(44, 70, 1), name="alpha")
    for signals, initializations, psnr in (
        ([replace(tiny_image(5, 44, 70), attributes={"dpi": [72, 72]}), alpha], [pictures, pictures], 38),
        ([globe(25, 48), replace(globe(7, 9, slices=1), name="other")], [maps, maps], 38),
        ([clip(7)], [videos], 36),
    ):
        data, said = encode(signals, initializations, QUICK)
        decoded = decode(data, initializations=initializations)
        assert [signal.name for signal in decoded] == [signal.name for signal in signals]
        for signal, reported, found in zip(signals, said, decoded, strict=True):
            np.testing.assert_array_equal(found.values, reported.values)
            assert found.values.dtype == signal.values.dtype
            assert (found.modality, found.attributes, found.sphere) == (
                signal.modality,
                signal.attributes,
                signal.sphere,
            )
            for axis, original in zip(found.axes, signal.axes, strict=True):
                assert (axis.size, axis.kind, axis.rate) == (original.size, original.kind, original.rate)
        assert metrics.psnr(signals[0], decoded[0]) > psnr
        again, _ = encode(signals, initializations, QUICK)
        assert again == data


def test_more_quality_is_more_bytes_and_less_error(pictures: Initialization) -> None:
    picture = tiny_image(6)
    sizes, distortions = [], []
    for quality in (1, 20, 40, 60, 80, 100):
        data, decoded = encode([picture], [pictures], replace(QUICK, quality=quality))
        sizes.append(len(data))
        distortions.append(-metrics.psnr(picture, decoded[0]))
    assert sizes == sorted(set(sizes))
    assert distortions == sorted(set(distortions), reverse=True)
    assert -distortions[-1] > 50


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (2, 2), (3, 200), (33, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_grids_of_any_size(pictures: Initialization, shape: tuple[int, int], channels: int) -> None:
    """Noise comes back at every sample, whatever the number of patches."""
    picture = rough_image(*shape, channels)
    data, _ = encode([picture], [pictures], FINE)
    decoded = decode(data, initializations=[pictures])[0]
    assert metrics.max_error(picture, decoded) <= 4


def test_a_signal_of_several_chunks(pictures: Initialization, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are coded alone, but what they say is the same."""
    picture = tiny_image(7, 60, 70)
    whole, said = encode([picture], [pictures], QUICK)
    monkeypatch.setattr(codec, "CHUNK_POINTS", 2000)
    data, _ = encode([picture], [pictures], QUICK)
    (one,), several = read_container(whole).streams[0].chunks, read_container(data).streams[0].chunks
    assert len(several) > 2
    assert len(one) < sum(map(len, several)) < len(one) + 40 * len(several)
    decoded = decode(data, initializations=[pictures])[0]
    assert metrics.psnr(said[0], decoded) > 60


def test_missing_values_are_restored_where_they_were(maps: Initialization) -> None:
    signal = globe(13, 16)
    missing = np.zeros(signal.shape, bool)
    missing[0, 3:6, 14:] = missing[1, 0] = True
    data, _ = encode([replace(signal, missing=missing)], [maps], QUICK)
    decoded = decode(data, initializations=[maps])[0]
    np.testing.assert_array_equal(decoded.missing, missing)
    larger = decode(data, initializations=[maps], resolution=Resolution(size=(25, 32)))[0]
    np.testing.assert_array_equal(larger.missing[:, ::2, ::2], missing)
    # Three quarters of the way from the last longitude to the first, the first is nearer.
    finer = decode(data, initializations=[maps], resolution=Resolution(size=(13, 64)))[0]
    assert finer.missing[0, 3:6, 54:62].all()
    assert not finer.missing[0, 3:6, 63].any()


def test_one_channel_is_the_mean_of_the_outputs(pictures: Initialization) -> None:
    """A file of grey says the same as one of three equal channels."""
    grey = replace(tiny_image(8), values=tiny_image(8).values[..., :1])
    (stream,) = read_container(encode([grey], [pictures], QUICK)[0]).streams
    colours = replace(stream, header=replace(stream.header, channels=3, dtype="<f4"))
    shades = replace(stream, header=replace(stream.header, dtype="<f4", name="shades"))
    decoded = decode(write_container(Container((colours, shades))), initializations=[pictures])
    np.testing.assert_allclose(decoded[0].values.mean(-1, keepdims=True), decoded[1].values, rtol=1e-5)


# Other resolutions


@pytest.mark.parametrize(
    ("resolution", "shape"),
    [
        (Resolution(factor=2), (80, 120)),
        (Resolution(factor=0.5), (20, 30)),
        (Resolution(size=(27, 97)), (27, 97)),
        (Resolution(size=(301, 21)), (301, 21)),
    ],
)
def test_another_resolution_shows_the_same_picture(
    pictures: Initialization, resolution: Resolution, shape: tuple[int, int]
) -> None:
    data, _ = encode([smooth_image(40, 60)], [pictures], FINE)
    decoded = decode(data, initializations=[pictures], resolution=resolution)[0]
    assert decoded.values.shape == (*shape, 3)
    np.testing.assert_allclose(decoded.values, smooth_at(shape), atol=0.01)
    again = decode(data, initializations=[pictures], resolution=resolution)[0]
    np.testing.assert_array_equal(again.values, decoded.values)


def test_a_point_has_one_value_at_all_resolutions() -> None:
    """The middle one of every three samples lies on a sample of a third of the size, even of grids that are too large
    to be asked at once."""
    field = LatentPyramid(2, 3, (3, 3), prediction=4)
    single = random_initialization("image", field, PatchConfig((40, 40), (4, 4), normalize=False))
    data, said = encode([smooth_image(32, 38)], [single], FINE)
    smaller = said[0].values
    for factor in (3, 9, 27):
        larger = decode(data, initializations=[single], resolution=Resolution(factor=factor))[0].values
        np.testing.assert_allclose(larger[1::3, 1::3], smaller, atol=1e-6)
        smaller = larger


def test_a_smaller_picture_does_not_alias(pictures: Initialization) -> None:
    data, full = encode([rough_image(40, 60)], [pictures], FINE)
    small = decode(data, initializations=[pictures], resolution=Resolution(factor=0.25))[0]
    means = full[0].values.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.values - means).max() <= 1


@pytest.mark.parametrize("shape", [(13, 16), (25, 48), (23, 49)])
def test_globes_close_and_end_at_the_poles(maps: Initialization, shape: tuple[int, int]) -> None:
    """One patch goes all around, or several, of which the last ends where the first begins."""
    height, width = shape
    signal = globe(height, width)
    data, same = encode([signal], [maps], FINE)
    assert metrics.max_error(signal, same[0]) < 0.3
    double = Resolution(size=(2 * height - 1, 2 * width))
    finer = decode(data, initializations=[maps], resolution=double)[0]
    latitudes, longitudes = np.linspace(90, -90, 2 * height - 1), np.arange(2 * width) * 180 / width
    np.testing.assert_allclose(finer.axes[1].points, latitudes)
    np.testing.assert_allclose(finer.axes[2].points, longitudes)
    np.testing.assert_allclose(finer.values[:, ::2, ::2], same[0].values, atol=1e-3)
    np.testing.assert_allclose(finer.values, climate_at(latitudes, longitudes, 2), atol=0.5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (25, 1)])
def test_globes_with_fewer_points_than_patches(maps: Initialization, size: tuple[int, int]) -> None:
    data, _ = encode([globe(25, 48)], [maps], FINE)
    coarse = decode(data, initializations=[maps], resolution=Resolution(size=size))[0]
    wanted = climate_at(np.linspace(90, -90, size[0]), np.arange(size[1]) * 360 / size[1], 2)
    np.testing.assert_allclose(coarse.values, wanted, atol=0.5)


def test_videos_with_fewer_frames_than_patches(videos: Initialization) -> None:
    data, same = encode([clip(13)], [videos], FINE)
    slow = decode(data, initializations=[videos], resolution=Resolution(frame_rate=Fraction(25, 12)))[0]
    np.testing.assert_array_equal(slow.values, same[0].values[:1])


# Targets


def textured_image() -> Signal:
    """Return noise on waves, so that the rate does not leap where the noise begins to be coded."""
    picture = tiny_image(9, 48, 64)
    noise = np.random.default_rng(9).normal(0, 20, picture.values.shape)
    return replace(picture, values=np.rint(picture.values + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("rate", [2.0, 4.0])
def test_a_target_rate_is_reached(pictures: Initialization, rate: float) -> None:
    picture = textured_image()
    data, _ = encode([picture], [pictures], EncodeOptions(steps=0, bits_per_sample=rate))
    assert 0.95 * rate <= 8 * len(data) / picture.samples <= rate


def test_a_target_psnr_is_reached(pictures: Initialization) -> None:
    picture = textured_image()
    _, decoded = encode([picture], [pictures], EncodeOptions(steps=0, psnr=32.0))
    assert 32.0 <= metrics.psnr(picture, decoded[0]) <= 32.5


def test_a_target_out_of_reach(pictures: Initialization) -> None:
    with pytest.raises(UsageError, match="out of reach"):
        encode([tiny_image(9, 16, 16)], [pictures], EncodeOptions(steps=0, bits_per_sample=0.01))


# Initializations


def test_an_embedded_initialization_decodes_anywhere(pictures: Initialization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    data, said = encode([tiny_image(10)], [pictures], QUICK, embed=True)
    np.testing.assert_array_equal(decode(data)[0].values, said[0].values)


def test_an_unknown_initialization(pictures: Initialization, maps: Initialization) -> None:
    data, _ = encode([tiny_image(10)], [pictures], QUICK)
    with pytest.raises(UnknownInitialization, match=pictures.identifier.hex()):
        decode(data, initializations=[maps])


def test_an_initialization_of_another_kind(pictures: Initialization, videos: Initialization) -> None:
    with pytest.raises(UsageError, match="choose another"):
        encode([tiny_image(10)], [videos], QUICK)


def test_a_number_of_channels_the_field_does_not_have(pictures: Initialization) -> None:
    with pytest.raises(UsageError, match="2 channels"):
        encode([rough_image(20, 20, 2)], [pictures], QUICK)


# Damage


@pytest.fixture(scope="module")
def coded(pictures: Initialization) -> Stream:
    data, _ = encode([tiny_image(11, 33, 47)], [pictures], QUICK)
    return read_container(data).streams[0]


def decoded_stream(stream: Stream, initialization: Initialization) -> Signal:
    """Return what a file with this stream decodes to, its checksums right."""
    (read,) = read_container(write_container(Container((stream,)))).streams
    return decode_stream(read, initialization, resolution=Resolution(), device="cpu").loaded()


@pytest.mark.parametrize(
    "change",
    [
        {"axes": (Axis(33), Axis(400))},
        {"axes": (Axis(33), Axis(17))},
        {"axes": (Axis(47), Axis(33))},
        {"axes": (Axis(33),)},
        {"axes": (Axis(2, "slice"), Axis(33), Axis(47))},
        {"axes": (Axis(1 << 20), Axis(1 << 20))},
        {"channels": 2},
        {"channels": 4},
        {"coding": b""},
        {"coding": bytes([256 - 40])},
        {"coding": bytes([256 - 40, 1, 0])},
        {"coding": bytes([256 - 40, 192])},
        {"coding": bytes([256 - 121, 0])},
        {"coding": bytes([25, 0])},
        {"coding": bytes([0, 0])},
        {"patches_per_chunk": 1},
    ],
    ids=str,
)
def test_a_header_that_does_not_fit(pictures: Initialization, coded: Stream, change: dict[str, object]) -> None:
    with pytest.raises(CorruptFile):
        decoded_stream(replace(coded, header=replace(coded.header, **change)), pictures)


@pytest.mark.parametrize("variants", [1, 4])
@pytest.mark.parametrize("step_index", [-120, -1, 0, 24])
def test_coding_parameters_are_a_step_index_and_a_variant(step_index: int, variants: int) -> None:
    quantization = LatentQuantization(step_index, 0.0, variants - 1)
    content = quantization.to_bytes(variants)
    assert content == bytes([step_index % 256, 3][: 1 if variants == 1 else 2])
    assert LatentQuantization.from_bytes(content, variants) == quantization
    for wrong in (content[:-1], content + b"\0", bytes([step_index % 256, 4])):
        with pytest.raises(CorruptFile, match="coding parameters"):
            LatentQuantization.from_bytes(wrong, variants)


def test_a_header_that_asks_for_too_much_memory(coded: Stream, pictures: Initialization) -> None:
    """Patches larger than any decoder takes: refused before anything is laid out."""
    vast = replace(pictures, patches=PatchConfig((1 << 14, 1 << 14), (0, 0), normalize=False))
    header = replace(coded.header, initialization=vast.identifier, axes=(Axis(1 << 14), Axis(1 << 14)))
    with pytest.raises(CorruptFile, match="latents"):
        decoded_stream(replace(coded, header=header), vast)


def test_several_patches_in_a_chunk_are_few_latents(
    coded: Stream, pictures: Initialization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "MAX_CHUNK_LATENTS", 3 * 1000)
    with pytest.raises(CorruptFile, match="several"):
        decoded_stream(coded, pictures)
    picture = tiny_image(7, 60, 70)
    data, said = encode([picture], [pictures], QUICK)
    assert read_container(data).streams[0].header.patches_per_chunk == 1
    assert metrics.psnr(said[0], decode(data, initializations=[pictures])[0]) > 60


def test_an_initialization_of_patches_that_no_decoder_takes(
    pictures: Initialization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coder, "MAX_AT_ONCE", 1000)
    with pytest.raises(UsageError, match="smaller patches"):
        encode([tiny_image(7, 60, 70)], [pictures], QUICK)


def test_chunks_that_do_not_fit(pictures: Initialization, coded: Stream) -> None:
    (chunk,) = coded.chunks
    for chunks in ((), (chunk, chunk)):
        with pytest.raises(CorruptFile):
            decoded_stream(replace(coded, header=replace(coded.header, chunks=len(chunks)), chunks=chunks), pictures)
    for content in (chunk[:-3], chunk[3:], chunk + b"\1", b"\xff" * 5000):
        with pytest.raises(CorruptFile):
            decoded_stream(replace(coded, chunks=(content,)), pictures)


def test_any_other_chunk_is_a_picture_or_corrupt(pictures: Initialization, coded: Stream) -> None:
    random = np.random.default_rng(0)
    contents = [random.bytes(size) for size in (0, 1, 4, 50, 2000)]
    for content in contents + with_flipped_bits(coded.chunks[0], random, 15):
        try:
            decoded = decoded_stream(replace(coded, chunks=(content,)), pictures)
        except CorruptFile:
            continue
        assert decoded.values.shape == (33, 47, 3)


def test_flipped_bits_are_noticed(pictures: Initialization, coded: Stream) -> None:
    data = write_container(Container((coded,)))
    random = np.random.default_rng(0)
    for position in random.choice(8 * len(data), 50, replace=False).tolist():
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises((ContainerError, UnknownInitialization)):
            decode(bytes(damaged), initializations=[pictures])


def test_a_rescaling_that_an_initialization_has_no_use_for_is_refused(pictures: Initialization) -> None:
    with pytest.raises(UsageError, match="a rescaling of 'none' means nothing"):
        encode([tiny_image(8)], [pictures], replace(QUICK, rescaling="none"))
