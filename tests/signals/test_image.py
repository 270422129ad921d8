"""Reading and writing images, checked against arrays and against Pillow itself."""

import functools
import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

import inrcodec.signals
from inrcodec import metrics
from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals import image as image_signals
from inrcodec.signals.signal import Axis, Signal

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
LOSSLESS = [".png", ".tiff", ".jp2"]


def pixels(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    limit = int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(0).integers(0, limit, shape).astype(dtype)


def signals(main: np.ndarray, alpha: np.ndarray | None = None, **attributes: object) -> list[Signal]:
    axes = (Axis(main.shape[0]), Axis(main.shape[1]))
    value_range = (0.0, float(np.iinfo(main.dtype).max))
    result = [Signal("image", main, axes, value_range, attributes=attributes)]
    if alpha is not None:
        result.append(Signal("image", alpha, axes, value_range, name="alpha"))
    return result


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG file by the specification, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@functools.cache  # the profile holds the time of its making
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# Reading


def test_colour_image(tmp_path: Path) -> None:
    expected = pixels((5, 7, 3))
    Image.fromarray(expected).save(tmp_path / "x.png")
    (signal,) = image_signals.read(tmp_path / "x.png")
    assert np.array_equal(signal.values, expected)
    assert signal.values.dtype == np.uint8
    assert [(axis.size, axis.kind) for axis in signal.axes] == [(5, "cell"), (7, "cell")]
    assert (signal.modality, signal.name, signal.value_range) == ("image", "", (0, 255))
    assert signal.attributes == {}


def test_grey_image(tmp_path: Path) -> None:
    expected = pixels((5, 7))
    Image.fromarray(expected).save(tmp_path / "x.png")
    (signal,) = image_signals.read(tmp_path / "x.png")
    assert np.array_equal(signal.values, expected[..., None])
    assert signal.attributes == {}


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_a_signal_of_its_own(tmp_path: Path, channels: int) -> None:
    expected = pixels((5, 7, channels))
    Image.fromarray(expected).save(tmp_path / "x.png")
    main, alpha = image_signals.read(tmp_path / "x.png")
    assert np.array_equal(main.values, expected[..., :-1])
    assert np.array_equal(alpha.values, expected[..., -1:])
    assert (alpha.name, alpha.value_range) == ("alpha", (0, 255))


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([2, 0, 1])
    image.save(tmp_path / "opaque.png")
    (main,) = image_signals.read(tmp_path / "opaque.png")
    assert main.values.tolist() == [[[70, 80, 90], [10, 20, 30], [40, 50, 60]]]

    image.save(tmp_path / "key.png", transparency=0)
    main, alpha = image_signals.read(tmp_path / "key.png")
    assert main.values[0, 0].tolist() == [70, 80, 90]
    assert alpha.values[..., 0].tolist() == [[255, 0, 255]]

    image.save(tmp_path / "table.png", transparency=bytes([0, 128, 255]))
    _, alpha = image_signals.read(tmp_path / "table.png")
    assert alpha.values[..., 0].tolist() == [[255, 0, 128]]


@pytest.mark.parametrize(
    ("colour_type", "row", "key", "expected"),
    [(0, b"\5\6", b"\0\5", [0, 255]), (2, b"\1\2\3\1\2\4", b"\0\1\0\2\0\3", [0, 255])],
)
def test_transparent_colour(tmp_path: Path, colour_type: int, row: bytes, key: bytes, expected: list[int]) -> None:
    (tmp_path / "x.png").write_bytes(png(2, 1, 8, colour_type, b"\0" + row, (b"tRNS", key)))
    main, alpha = image_signals.read(tmp_path / "x.png")
    assert alpha.values[0, :, 0].tolist() == expected
    assert main.values.tobytes() == row


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".pbm"])
def test_one_bit_round_trip(tmp_path: Path, suffix: str) -> None:
    bits = pixels((5, 11)) > 127
    Image.fromarray(bits).save(tmp_path / f"x{suffix}")
    read = image_signals.read(tmp_path / f"x{suffix}")
    assert np.array_equal(read[0].values[..., 0], np.where(bits, 255, 0))
    assert read[0].attributes["mode"] == "1"
    image_signals.write(read, tmp_path / f"y{suffix}")
    with Image.open(tmp_path / f"y{suffix}") as image:
        assert image.mode == "1"
        assert np.array_equal(np.asarray(image), bits)


def test_one_bit_values_between_are_rounded(tmp_path: Path) -> None:
    values = np.array([[0, 100, 127, 128, 200, 255]], np.uint8)[..., None]
    image_signals.write(signals(values, mode="1"), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert np.asarray(image).tolist() == [[False, False, False, True, True, True]]


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".pgm"])
def test_sixteen_bits_are_exact(tmp_path: Path, suffix: str) -> None:
    expected = pixels((9, 6), np.uint16)
    Image.fromarray(expected).save(tmp_path / f"x{suffix}")
    read = image_signals.read(tmp_path / f"x{suffix}")
    assert np.array_equal(read[0].values[..., 0], expected)
    assert read[0].values.dtype == np.uint16
    assert read[0].value_range == (expected.min(), expected.max())
    image_signals.write(read, tmp_path / f"y{suffix}")
    with Image.open(tmp_path / f"y{suffix}") as image:
        assert np.array_equal(np.asarray(image), expected)


def test_big_endian_and_32_bit_grey(tmp_path: Path) -> None:
    expected = pixels((4, 3), np.uint16)
    Image.frombytes("I;16B", (3, 4), expected.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    Image.fromarray(expected.astype(np.int32)).save(tmp_path / "wide.tif")
    for name in ("big.tif", "wide.tif"):
        (signal,) = image_signals.read(tmp_path / name)
        assert signal.values.dtype == np.uint16
        assert np.array_equal(signal.values[..., 0], expected)
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(SignalError, match="70000"):
        image_signals.read(tmp_path / "wide.tif")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_what_pillow_would_reduce_to_8_bits_is_refused(tmp_path: Path, colour_type: int, channels: int) -> None:
    row = pixels((channels,), np.uint16).astype(">u2").tobytes()
    (tmp_path / "x.png").write_bytes(png(1, 1, 16, colour_type, b"\0" + row))
    with pytest.raises(SignalError, match="16 bits"):
        image_signals.read(tmp_path / "x.png")


def test_deep_ppm_and_float_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    with pytest.raises(SignalError, match="16 bits"):
        image_signals.read(tmp_path / "x.ppm")
    (tmp_path / "y.ppm").write_bytes(b"P3 1 1 65535\n1 2 3\n")
    with pytest.raises(SignalError, match="16 bits"):
        image_signals.read(tmp_path / "y.ppm")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(SignalError, match="floating-point"):
        image_signals.read(tmp_path / "x.tif")


def test_cmyk_becomes_rgb_without_its_profile(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    profile = srgb()
    profile = profile[:16] + b"CMYK" + profile[20:]
    cmyk.save(tmp_path / "x.tif", icc_profile=profile)
    (signal,) = image_signals.read(tmp_path / "x.tif")
    assert signal.values.tolist() == [[[0, 255, 255]] * 2]
    assert signal.attributes == {}


def test_ycbcr_and_lab_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    red.convert("YCbCr").save(tmp_path / "y.tif")
    # CIE Lab of sRGB red, relative to D50: 54.29, 80.80, 69.89; in memory 255/100 L, a + 128, b + 128.
    Image.new("LAB", (2, 2), (138, 209, 198)).save(tmp_path / "lab.tif")
    for name in ("y.tif", "lab.tif"):
        (signal,) = image_signals.read(tmp_path / name)
        assert np.abs(signal.values.astype(int) - [255, 0, 0]).max() <= 6
        assert signal.attributes == {}


# EXIF, profiles, resolution

# What the eight orientations make of the stored picture [[1, 2, 3], [4, 5, 6]].
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    stored = Image.fromarray(np.array(UPRIGHT[1], np.uint8))
    stored.save(tmp_path / f"x{suffix}", exif=exif)
    read = image_signals.read(tmp_path / f"x{suffix}")
    assert read[0].values[..., 0].tolist() == UPRIGHT[orientation]

    image_signals.write(read, tmp_path / "y.png")
    with Image.open(tmp_path / "y.png") as image:
        assert np.asarray(ImageOps.exif_transpose(image)).tolist() == UPRIGHT[orientation]
        assert image.getexif()[0x010F] == "maker"
    assert image_signals.read(tmp_path / "y.png")[0].attributes == read[0].attributes


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
def test_exif_and_profile_travel(tmp_path: Path, source: str, target: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    for directory, entries in ((0x8769, {0x9286: b"comment"}), (0x8825, {1: "N"})):
        exif.get_ifd(directory).update(entries)
        exif[directory] = exif.get_ifd(directory)
    Image.fromarray(pixels((6, 4, 3))).save(tmp_path / f"x{source}", exif=exif, icc_profile=srgb())
    read = image_signals.read(tmp_path / f"x{source}")
    assert read[0].values.shape == (4, 6, 3)
    image_signals.write(read, tmp_path / f"y{target}")
    with Image.open(tmp_path / f"y{target}") as image:
        assert image.info["icc_profile"] == srgb()
        kept = image.getexif()
        assert kept.get(0x0112, 1) == 1
        assert kept[0x010F] == "maker"
        assert kept.get_ifd(0x8769)[0x9286] == b"comment"
        assert kept.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_changes_in_the_orientation_only(tmp_path: Path, order: str) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"

    def block(orientation: int) -> bytes:
        entries = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
        entries += struct.pack(order + "HHI4s", 0xC000, 7, 4, b"note")
        head = mark + struct.pack(order + "IH", 8, 2)
        return head + entries + bytes(4) + b"whatever the maker put behind"

    Image.new("L", (3, 2)).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + block(8))
    (signal,) = image_signals.read(tmp_path / "x.jpg")
    assert signal.values.shape == (3, 2, 1)
    assert signal.attributes["exif"] == block(1)


def test_sizes_in_exif_do_not_become_those_of_a_tiff(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({0x0100: 4000, 0x0101: 3000, 0x0102: 16, 0x0111: 12345, 0x010F: "maker"})
    expected = pixels((5, 7, 3))
    Image.fromarray(expected).save(tmp_path / "x.png", exif=exif)
    image_signals.write(image_signals.read(tmp_path / "x.png"), tmp_path / "y.tif")
    with Image.open(tmp_path / "y.tif") as image:
        assert np.array_equal(np.asarray(image), expected)
        assert image.getexif()[0x010F] == "maker"


def test_grey_profile_is_not_put_on_colours(tmp_path: Path) -> None:
    profile = srgb()
    profile = profile[:16] + b"GRAY" + profile[20:]
    (tmp_path / "x.png").write_bytes(b"")
    Image.new("L", (3, 2)).save(tmp_path / "x.png", icc_profile=profile)
    read = image_signals.read(tmp_path / "x.png")
    assert read[0].attributes == {"icc": profile}
    image_signals.write(read, tmp_path / "y.webp")
    with Image.open(tmp_path / "y.webp") as image:
        assert (image.mode, "icc_profile" in image.info) == ("RGB", False)


def test_resolution_travels(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "x.jpg", dpi=(300, 200))
    read = image_signals.read(tmp_path / "x.jpg")
    assert read[0].attributes == {"dpi": [300, 200]}
    for suffix in (".png", ".jpg", ".tif"):
        image_signals.write(read, tmp_path / f"y{suffix}")
        with Image.open(tmp_path / f"y{suffix}") as image:
            assert [float(value) for value in image.info["dpi"]] == pytest.approx([300, 200], abs=0.01)
    Image.new("L", (3, 2)).save(tmp_path / "x.tif")
    assert image_signals.read(tmp_path / "x.tif")[0].attributes == {}


def test_what_is_told_of_width_and_height_is_exchanged_with_them(tmp_path: Path) -> None:
    for orientation, expected in ((1, [300, 150]), (3, [300, 150]), (6, [150, 300]), (8, [150, 300])):
        exif = Image.Exif()
        exif.update({0x0112: orientation, 0x011A: 300.0, 0x011B: 150.0})
        exif.get_ifd(0x8769).update({0xA002: 40, 0xA003: 20})
        exif[0x8769] = exif.get_ifd(0x8769)
        for suffix in (".jpg", ".png", ".tif"):
            Image.new("L", (40, 20)).save(tmp_path / f"x{suffix}", dpi=(300, 150), exif=exif)
            read = image_signals.read(tmp_path / f"x{suffix}")
            assert read[0].attributes["dpi"] == pytest.approx(expected, abs=0.02)  # PNG counts dots per metre
            image_signals.write(read, tmp_path / f"y{suffix}")
            with Image.open(tmp_path / f"y{suffix}") as image:
                assert [float(value) for value in image.info["dpi"]] == pytest.approx(expected, abs=0.02)
                if suffix == ".tif":
                    continue
                tags = image.getexif()
                assert [tags[0x011A], tags[0x011B]] == expected
                size = [tags.get_ifd(0x8769)[tag] for tag in (0xA002, 0xA003)]
                assert size == list(image.size)


# Gamma: what a PNG file says of light, as lcms understands what comes out


def test_gamma_and_primaries_travel_between_png_files(tmp_path: Path) -> None:
    primaries = [31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000]
    chunks = (b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", struct.pack(">8I", *primaries))
    (tmp_path / "x.png").write_bytes(png(1, 1, 8, 2, b"\0abc", *chunks))
    read = image_signals.read(tmp_path / "x.png")
    assert read[0].attributes == {"gamma": 1.0, "chromaticity": [value / 100_000 for value in primaries]}
    image_signals.write(read, tmp_path / "y.png")
    written = (tmp_path / "y.png").read_bytes()
    assert all(name + data in written for name, data in chunks)
    assert image_signals.read(tmp_path / "y.png")[0].attributes == read[0].attributes


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.1])
def test_gamma_becomes_a_profile_elsewhere(tmp_path: Path, suffix: str, gamma: float) -> None:
    ramp = np.repeat(np.arange(0, 256, 5, np.uint8)[None, :, None], 3, axis=-1)
    image_signals.write(signals(ramp, gamma=gamma), tmp_path / f"x{suffix}")
    with Image.open(tmp_path / f"x{suffix}") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        light = (ramp / 255.0) ** (1 / gamma)
        expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        shown = ImageCms.profileToProfile(Image.fromarray(ramp), profile, ImageCms.createProfile("sRGB"))
        assert np.abs(np.asarray(shown) - expected).max() <= 2.5


def test_primaries_become_a_profile(tmp_path: Path) -> None:
    """Red of Display P3 with the gamma 2.2; the profile's columns for D50 are those that Apple publishes."""
    p3 = [0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06]
    image_signals.write(signals(pixels((2, 2, 3)), chromaticity=p3), tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])).profile
    assert profile.red_colorant[0] == pytest.approx([0.5151, 0.2412, -0.0011], abs=0.001)
    assert profile.green_colorant[0] == pytest.approx([0.2920, 0.6922, 0.0419], abs=0.001)
    assert profile.blue_colorant[0] == pytest.approx([0.1571, 0.0666, 0.7841], abs=0.001)


def test_gamma_of_grey(tmp_path: Path) -> None:
    image_signals.write(signals(pixels((4, 4, 1)), gamma=1.0), tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert profile.profile.xcolor_space == "GRAY"
        middle = ImageCms.profileToProfile(
            Image.new("L", (1, 1), 128), profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    # Half of the light is 188 in sRGB.
    assert np.asarray(middle).ravel() == pytest.approx([188] * 3, abs=1)


def test_hdr_colours_travel_between_png_files(tmp_path: Path) -> None:
    chunk = b"cICP", bytes([9, 16, 0, 1])
    gamma = b"gAMA", struct.pack(">I", 100_000)
    (tmp_path / "x.png").write_bytes(png(1, 1, 8, 2, b"\0abc", chunk, gamma))
    read = image_signals.read(tmp_path / "x.png")
    assert read[0].attributes == {"colour": [9, 16]}
    assert read[0].values.tobytes() == b"abc"
    image_signals.write(read, tmp_path / "y.png")
    assert b"\0\0\0\4" + b"".join(chunk) in (tmp_path / "y.png").read_bytes()
    assert image_signals.read(tmp_path / "y.png")[0].attributes == read[0].attributes
    with pytest.warns(InrcodecWarning, match=r"y\.jpg: the format has no place for wide or HDR colours"):
        image_signals.write(read, tmp_path / "y.jpg")


def test_hdr_colours_of_avif(tmp_path: Path) -> None:
    image_signals.write(signals(pixels((16, 16, 3))), tmp_path / "x.avif")
    data = (tmp_path / "x.avif").read_bytes()
    place = data.index(b"colrnclx") + 8
    assert image_signals.read(tmp_path / "x.avif")[0].attributes == {}
    (tmp_path / "x.avif").write_bytes(data[:place] + bytes([0, 9, 0, 18]) + data[place + 4 :])
    assert image_signals.read(tmp_path / "x.avif")[0].attributes == {"colour": [9, 18]}


@pytest.mark.parametrize("extra", [(), ((b"sRGB", b"\0"),), ((b"gAMA", struct.pack(">I", 45455)),)])
def test_ordinary_files_have_no_gamma(tmp_path: Path, extra: tuple[tuple[bytes, bytes], ...]) -> None:
    gamma = () if extra and extra[0][0] == b"gAMA" else ((b"gAMA", struct.pack(">I", 100_000)),) if extra else ()
    (tmp_path / "x.png").write_bytes(png(1, 1, 8, 2, b"\0abc", *extra, *gamma))
    assert image_signals.read(tmp_path / "x.png")[0].attributes == {}


def test_where_there_is_no_place_for_a_gamma(tmp_path: Path) -> None:
    with pytest.warns(InrcodecWarning, match=r"x\.bmp: the format has no place"):
        image_signals.write(signals(pixels((2, 2, 3)), gamma=1.0), tmp_path / "x.bmp")


@pytest.mark.parametrize(
    "attributes",
    [
        {"gamma": "1"},
        {"gamma": 0},
        {"gamma": float("nan")},
        {"gamma": 1e9},
        {"chromaticity": [0] * 8},
        {"chromaticity": [0.3] * 8},
        {"chromaticity": 3},
        {"chromaticity": ["a"] * 8},
        {"colour": [9, 256]},
        {"colour": "9"},
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_strange_gammas_are_left_out(tmp_path: Path, attributes: dict[str, object], suffix: str) -> None:
    image_signals.write(signals(pixels((2, 2, 3)), **attributes), tmp_path / f"x{suffix}")
    with Image.open(tmp_path / f"x{suffix}") as image:
        assert not {"gamma", "chromaticity", "icc_profile"} & set(image.info)


# Deep grey: which values count


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bits_where_white_is_zero(tmp_path: Path, compression: str) -> None:
    expected = pixels((5, 7), np.uint16)
    Image.fromarray(65535 - expected).save(tmp_path / "x.tif", tiffinfo={262: 0}, compression=compression)
    # Pillow's writer inverts nothing in 16 bits, so that the file holds 65535 - expected.
    with Image.open(tmp_path / "x.tif") as image:
        assert image.tag_v2[262] == 0
    (signal,) = image_signals.read(tmp_path / "x.tif")
    assert np.array_equal(signal.values[..., 0], expected)
    Image.fromarray(expected).save(tmp_path / "y.tif", tiffinfo={262: 1}, compression=compression)
    assert np.array_equal(image_signals.read(tmp_path / "y.tif")[0].values, signal.values)


def test_8_bits_where_white_is_zero(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 255]], np.uint8)
    Image.fromarray(stored).save(tmp_path / "x.tif", tiffinfo={262: 0})
    data = (tmp_path / "x.tif").read_bytes()
    with Image.open(tmp_path / "x.tif") as image:
        place = image.tag_v2[273][0]
    assert np.array_equal(
        255 - np.frombuffer(data[place : place + 3], np.uint8), image_signals.read(tmp_path / "x.tif")[0].values.ravel()
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 4095, (0, 4095)), (500, 4000, (500, 4000)), (7, 7, (7, 8)), (65535, 65535, (65534, 65535)), (0, 0, (0, 1))],
)
def test_range_of_16_bits_is_that_of_the_data(
    tmp_path: Path, low: int, high: int, expected: tuple[float, float]
) -> None:
    values = np.linspace(low, high, 12).round().astype(np.uint16).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "x.png")
    (signal,) = image_signals.read(tmp_path / "x.png")
    assert signal.value_range == expected
    assert np.array_equal(signal.values[..., 0], values)


def test_quality_of_16_bits_is_told_against_the_range_of_the_data() -> None:
    depth = np.random.default_rng(0).integers(500, 4001, (20, 30, 1)).astype(np.uint16)
    depth[0, 0], depth[0, 1] = 500, 4000
    coarse = depth + 100
    original = Signal("image", depth, (Axis(20), Axis(30)), (500.0, 4000.0))
    decoded = Signal("image", coarse, (Axis(20), Axis(30)), (500.0, 4000.0))
    assert metrics.psnr(original, decoded) == pytest.approx(20 * np.log10(3500 / 100))


# Several pages, and a missing end


def tiff_pages(path: Path, kinds: list[int], tag: int = 254) -> list[np.ndarray]:
    """Pages of which the n-th has the kind `kinds[n]`, each smaller than the one before."""
    made = [pixels((40 // (n + 1), 30 // (n + 1), 3)) for n in range(len(kinds))]
    with TiffImagePlugin.AppendingTiffWriter(path, new=True) as writer:
        for kind, values in zip(kinds, made, strict=True):
            Image.fromarray(values).save(writer, format="TIFF", tiffinfo={tag: kind})
            writer.newFrame()
    return made


@pytest.mark.parametrize(("kinds", "tag"), [([0, 1], 254), ([1, 0, 1], 254), ([0, 1, 1, 1], 254), ([1, 2], 255)])
def test_overviews_are_no_pages(tmp_path: Path, kinds: list[int], tag: int) -> None:
    made = tiff_pages(tmp_path / "x.tif", kinds, tag)
    full = kinds.index(0 if tag == 254 else 1)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert len(file.pages) == len(kinds)
        assert np.array_equal(file.pages[full].asarray(), made[full])
    (signal,) = image_signals.read(tmp_path / "x.tif")
    assert np.array_equal(signal.values, made[full])


def test_masks_are_no_pages_but_are_missed(tmp_path: Path) -> None:
    made = tiff_pages(tmp_path / "x.tif", [0, 4])
    with pytest.warns(InrcodecWarning, match=r"x\.tif: the page with a mask"):
        (signal,) = image_signals.read(tmp_path / "x.tif")
    assert np.array_equal(signal.values, made[0])


@pytest.mark.parametrize("kinds", [[0, 0], [0, 2, 1], [1, 1]])
def test_several_full_pages_are_refused(tmp_path: Path, kinds: list[int]) -> None:
    tiff_pages(tmp_path / "x.tif", kinds)
    with pytest.raises(SignalError, match=r"[02] pages in one file"):
        image_signals.read(tmp_path / "x.tif")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_a_jpeg_without_its_end_is_whole(tmp_path: Path, progressive: bool, grey: bool, flat: bool) -> None:
    values = np.full((37, 50, 3), 200, np.uint8) if flat else pixels((37, 50, 3))
    image = Image.fromarray(values).convert("L" if grey else "RGB")
    image.save(tmp_path / "x.jpg", progressive=progressive)
    (whole,) = image_signals.read(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    for cut in (1, 2):
        (tmp_path / "y.jpg").write_bytes(data[:-cut])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (signal,) = image_signals.read(tmp_path / "y.jpg")
        # Pillow itself does without the marker where the data ends with a byte.
        assert flat or [str(warning.message) for warning in caught] == [
            f"{tmp_path / 'y.jpg'}: the JPEG data lacks its end marker; no pixel is missing"
        ]
        assert np.array_equal(signal.values, whole.values)
    for cut in (3, 4, 6, 10, 50, len(data) // 2):
        (tmp_path / "y.jpg").write_bytes(data[:-cut])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InrcodecWarning)
                (signal,) = image_signals.read(tmp_path / "y.jpg")
        except SignalError:
            continue
        # The last scan of a progressive file may end with what changes no pixel.
        assert np.array_equal(signal.values, whole.values)
        assert progressive
        assert cut < 10 or flat


# Writing


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    main=st.sampled_from([1, 3]).flatmap(
        lambda channels: hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(channels)))
    ),
    has_alpha=st.booleans(),
    suffix=st.sampled_from(LOSSLESS),
)
def test_lossless_formats_round_trip(tmp_path: Path, main: np.ndarray, has_alpha: bool, suffix: str) -> None:
    written = signals(main, pixels((*main.shape[:2], 1)) if has_alpha else None)
    image_signals.write(written, tmp_path / f"x{suffix}")
    read = image_signals.read(tmp_path / f"x{suffix}")
    assert [signal.name for signal in read] == [signal.name for signal in written]
    for one, other in zip(read, written, strict=True):
        assert np.array_equal(one.values, other.values)
        assert one.attributes == other.attributes


@pytest.mark.parametrize("suffix", [".webp", ".qoi"])
def test_grey_becomes_colour_where_there_is_no_grey(tmp_path: Path, suffix: str) -> None:
    main, alpha = pixels((4, 5, 1)), pixels((4, 5, 1))
    image_signals.write(signals(main, alpha), tmp_path / f"x{suffix}")
    read = image_signals.read(tmp_path / f"x{suffix}")
    assert np.array_equal(read[0].values, np.repeat(main, 3, axis=-1))
    assert np.array_equal(read[1].values, alpha)


@pytest.mark.parametrize("suffix", sorted(image_signals.EXTENSIONS - {".gif", ".pgm", ".pbm"}))
def test_every_extension_is_written_and_read(tmp_path: Path, suffix: str) -> None:
    ramp = np.add.outer(np.arange(16), np.arange(24))
    smooth = np.stack([ramp, 2 * ramp, 3 * ramp], axis=-1).astype(np.uint8)
    image_signals.write(signals(smooth), tmp_path / f"x{suffix}")
    (signal,) = image_signals.read(tmp_path / f"x{suffix}")
    assert np.abs(signal.values.astype(int) - smooth).max() <= (8 if suffix in (".jpg", ".jpeg", ".avif") else 0)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".ppm"])
def test_alpha_is_never_dropped(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SignalError, match=r"transparency.*\.png"):
        image_signals.write(signals(pixels((2, 2, 3)), pixels((2, 2, 1))), tmp_path / f"x{suffix}")
    assert not (tmp_path / f"x{suffix}").exists()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_sixteen_bits_are_never_reduced(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SignalError, match=r"16 bits.*\.png.*\.tiff"):
        image_signals.write(signals(pixels((2, 2, 1), np.uint16)), tmp_path / f"x{suffix}")


def test_signals_that_are_no_image(tmp_path: Path) -> None:
    for bad in (
        signals(pixels((2, 2, 2))),
        signals(pixels((2, 2, 3), np.uint16)),
        [*signals(pixels((2, 2, 3))), *signals(pixels((3, 2, 3)), pixels((3, 2, 1)))[1:]],
        signals(pixels((2, 2, 1), np.uint16), pixels((2, 2, 1), np.uint16)),
        signals(pixels((2, 2, 3)), pixels((2, 2, 1), np.uint16)),
    ):
        with pytest.raises(SignalError):
            image_signals.write(bad, tmp_path / "x.png")


def test_colours_do_not_go_into_a_grey_format(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"\.pgm cannot hold colour"):
        image_signals.write(signals(pixels((2, 2, 3))), tmp_path / "x.pgm")


@pytest.mark.parametrize("name", ["x.xyz", "x", "x.gif"])
def test_unknown_extension_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(SignalError, match=r"\.png .*\.webp"):
        inrcodec.signals.write(signals(pixels((2, 2, 3))), tmp_path / name)


def test_too_large_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="16384"):
        image_signals.write(signals(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "x.webp")


def test_strange_attributes_are_left_out(tmp_path: Path) -> None:
    image_signals.write(signals(pixels((2, 2, 3)), icc=3, exif="x", dpi=[0, "a"], mode=7), tmp_path / "x.png")
    assert image_signals.read(tmp_path / "x.png")[0].attributes == {}


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="cannot write"):
        image_signals.write(signals(pixels((2, 2, 3))), tmp_path / "missing" / "x.png")


# Files that are no good


@pytest.mark.parametrize("data", [b"", b"\0", b"hello, this is text\n" * 50, b"\x89PNG\r\n\x1a\n"])
def test_not_an_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(SignalError, match=r"not an image.*\.png"):
        image_signals.read(tmp_path / "x.png")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="cannot be read"):
        image_signals.read(tmp_path / "missing.png")
    with pytest.raises(SignalError, match="cannot be read"):
        image_signals.read(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".ppm", ".jp2", ".tga"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"x{suffix}"
    image_signals.write(signals(pixels((32, 32, 3))), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SignalError):
        image_signals.read(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".jpg", ".webp", ".bmp", ".ppm", ".qoi"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_gives_pixels_or_a_signal_error(tmp_path: Path, suffix: str, changes: list[tuple[float, int]]) -> None:
    image = Image.fromarray(pixels((8, 9, 3)))
    stream = io.BytesIO()
    image.save(stream, format=Image.registered_extensions()[suffix])
    data = bytearray(stream.getvalue())
    for place, value in changes:
        data[int(place * len(data))] = value
    (tmp_path / f"x{suffix}").write_bytes(data)
    try:
        read = image_signals.read(tmp_path / f"x{suffix}")
    except SignalError as error:
        assert "\n" not in str(error)
    else:
        assert read[0].values.dtype in (np.uint8, np.uint16)


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    for side in (25_000, 100_000):
        (tmp_path / "x.png").write_bytes(png(side, side, 8, 0, b""))
        with pytest.raises(SignalError, match="536870912 pixels"):
            image_signals.read(tmp_path / "x.png")


def test_large_photos_are_no_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert image_signals.read(tmp_path / "x.png")[0].samples == 1600
    assert Image.MAX_IMAGE_PIXELS == 100


def test_readers_in_threads_leave_pillow_as_it_was(tmp_path: Path) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "x.png")
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        for read in pool.map(lambda _: image_signals.read(tmp_path / "x.png"), range(100)):
            assert read[0].samples == 1600
    assert (warnings.filters, limit) == (filters, Image.MAX_IMAGE_PIXELS)


def test_what_pillow_says_does_not_reach_standard_error(tmp_path: Path) -> None:
    """In a program of its own, as pytest has filters and handlers of its own."""
    exif = Image.Exif()
    exif[0x010F] = "a maker with a long name"
    stream = io.BytesIO()
    Image.fromarray(pixels((8, 9, 3))).save(stream, "TIFF", exif=exif)
    data = bytearray(stream.getvalue())
    place = data.index(struct.pack("<HHI", 0x010F, 2, 25))
    data[place + 4 : place + 8] = b"\xff\xff\xff\x7f"
    (tmp_path / "tag.tif").write_bytes(data)
    (tmp_path / "bomb.png").write_bytes(png(25_000, 25_000, 8, 0, b""))
    place = data.index(struct.pack("<HHI", 0x0115, 3, 1))
    data[place + 8] = 99
    (tmp_path / "samples.tif").write_bytes(data)
    program = (
        "import pathlib, sys; from inrcodec.signals import read; from inrcodec.errors import SignalError\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(read(pathlib.Path(name))[0].shape)\n"
        "    except SignalError: print('refused')\n"
    )
    names = [str(tmp_path / name) for name in ("tag.tif", "bomb.png", "samples.tif")]
    done = subprocess.run([sys.executable, "-W", "always", "-c", program, *names], capture_output=True, text=True)
    assert (done.stdout.split("\n"), done.stderr) == (["(8, 9)", "refused", "refused", ""], "")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(pixels((8, 8, 3))).rotate(angle) for angle in (0, 90, 180)]
    frames[0].save(tmp_path / f"x{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(SignalError, match=r"animation of 3 frames.*video"):
        image_signals.read(tmp_path / f"x{suffix}")


def test_pages_are_refused_and_previews_are_not(tmp_path: Path) -> None:
    first, second = Image.new("L", (16, 8), 100), Image.new("L", (8, 4), 200)
    first.save(tmp_path / "x.tif", save_all=True, append_images=[second])
    with pytest.raises(SignalError, match="2 pages"):
        image_signals.read(tmp_path / "x.tif")
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    (signal,) = image_signals.read(tmp_path / "x.jpg")
    assert signal.shape == (8, 16)
    assert np.abs(signal.values.astype(int) - 100).max() <= 1


def test_still_gif_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "x.gif")
    (signal,) = image_signals.read(tmp_path / "x.gif")
    assert signal.values.tolist() == [[[10, 20, 30]] * 3] * 2


# The shipped samples


@pytest.mark.parametrize("path", [SAMPLES / "photo.png", *sorted((SAMPLES / "image").glob("*"))])
def test_samples_are_ordinary(path: Path) -> None:
    (signal,) = image_signals.read(path)
    assert (signal.channels, signal.attributes) == (3, {})
    assert signal.values.dtype == np.uint8
    assert signal.values.std() > 20


def test_samples_are_there() -> None:
    assert len(sorted((SAMPLES / "image").glob("*.webp"))) == 8
