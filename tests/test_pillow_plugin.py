"""The Pillow plugin, as a user of Pillow meets it."""

import doctest
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import inrcodec
import inrcodec.plugins.pillow
from inrcodec.plugins import pillow

SAMPLES = Path(__file__).parent.parent / "assets" / "samples"
FAST = {"quality": 30, "effort": "instant"}


@pytest.fixture
def photo() -> Image.Image:
    with Image.open(SAMPLES / "photo.png") as image:
        return image.convert("RGB").resize((90, 60))


def saved(image: Image.Image, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format="INR", **(FAST | options))
    file.seek(0)
    return file


def test_the_examples(tmp_path: Path) -> None:
    given = {"photo": SAMPLES / "photo.png", "output": tmp_path / "photo.inr"}
    assert doctest.testmod(pillow, extraglobs=given).failed == 0


def test_a_picture_is_what_inrcodec_decodes(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "photo.inr"
    photo.save(path, **FAST)
    (signal,) = inrcodec.decode(path.read_bytes())
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("INR", "RGB", (90, 60))
        np.testing.assert_array_equal(np.asarray(image), signal.values)
    error = np.asarray(photo, float) - signal.values
    assert 0 < np.sqrt((error**2).mean()) < 20


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_modes(photo: Image.Image, mode: str) -> None:
    image = photo.convert("L").convert("I").point(lambda value: value * 200).convert("I;16")
    if mode != "I;16":
        image = photo.convert(mode)
    with Image.open(saved(image, max_error=0.4, quality=None)) as again:
        shown = again.mode  # of a file that is not decoded yet
        again.load()
        assert shown == again.mode == ("RGB" if mode == "P" else mode)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(image.convert(again.mode)))


def test_metadata(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    with Image.open(SAMPLES / "photo.png") as image:
        known = image.info
    file = saved(photo, exif=exif, dpi=(72.0, 72.0), icc_profile=known.get("icc_profile"))
    with Image.open(file) as again:
        assert again.getexif()[0x010F] == "Maker"
        assert again.info["dpi"] == (72.0, 72.0)
        assert again.info.get("icc_profile") == known.get("icc_profile")


def test_small_pictures_are_decoded_as_such(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    known = pillow.open_container

    def watched(container: object, resolution: inrcodec.Resolution) -> object:
        asked.append(resolution.size)
        return known(container, resolution=resolution)  # type: ignore[arg-type]

    monkeypatch.setattr(pillow, "open_container", watched)
    with Image.open(saved(photo)) as image:
        image.thumbnail((30, 30), reducing_gap=1.0)
        assert image.size == (30, 20)
    with Image.open(saved(photo)) as image:
        image.load()
        image.draft("RGB", (10, 10))
        assert image.size == (90, 60)
    assert asked == [(30, 45), None]


def test_files_that_are_none(photo: Image.Image, tmp_path: Path) -> None:
    content = saved(photo).getvalue()
    with pytest.raises(OSError, match=r"obtain the file again|cut"):
        Image.open(io.BytesIO(content[:-5]))
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 1
    with pytest.raises(OSError, match="obtain the file again"):
        Image.open(io.BytesIO(bytes(broken))).load()
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"no INR file at all"))
    sound = tmp_path / "a.inr"
    inrcodec.encode_file(SAMPLES / "speech.flac", sound, inrcodec.EncodeOptions(effort="instant"))
    with pytest.raises(OSError, match="holds audio, no picture"):
        Image.open(sound)


def test_pictures_that_cannot_be_saved(photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="floating-point pixels"):
        saved(photo.convert("F"))
    with pytest.raises(OSError, match="quality is 0"):
        photo.save(tmp_path / "a.inr", quality=0)
    assert not (tmp_path / "a.inr").exists()


def test_registering_again_changes_nothing() -> None:
    pillow.register()
    assert Image.ID.count("INR") == 1 and Image.registered_extensions()[".inr"] == "INR"
