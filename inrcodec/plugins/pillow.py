"""The Pillow plugin: once this module is imported, `Image.open` and `Image.save` know `.inr`.

>>> from PIL import Image
>>> import inrcodec.plugins.pillow
>>> with Image.open(photo) as image:
...     image.save(output, quality=20)
>>> with Image.open(output) as image:
...     image.size
(360, 240)

Pictures are decoded when their pixels are needed. `Image.draft`, and with it `Image.thumbnail`, has small ones decoded
as such.
"""

import os
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile

from inrcodec.coding.container import Container, read_container
from inrcodec.coding.sections import MAGIC
from inrcodec.decoder import open_container
from inrcodec.encoder import encode
from inrcodec.errors import InrcodecError
from inrcodec.options import EncodeOptions
from inrcodec.registry import default_initialization
from inrcodec.resolution import Resolution
from inrcodec.signals.image import MODALITY, pillow_image, signals_of
from inrcodec.signals.image_metadata import save_options

FORMAT = "INR"

OPTIONS = ("quality", "effort", "steps", "bits_per_sample", "psnr", "max_error")
"""Arguments of `Image.save` that are those of `EncodeOptions`; there is `embed`, too, as of `inrcodec.encode`."""


class InrImageFile(ImageFile.ImageFile):
    """A picture in an `.inr` file, as Pillow opens it."""

    format = FORMAT
    format_description = "inrcodec picture"

    _name: Path
    _container: Container
    _whole: tuple[int, int]
    _decoded = False

    def _open(self) -> None:
        self._name = _named(self.filename)
        assert self.fp is not None  # Pillow has just opened it
        try:
            self._container = read_container(self.fp.read())
        except InrcodecError as error:
            raise OSError(f"{self._name}: {error}") from error
        header = self._container.streams[0].header
        if header.modality != MODALITY:
            raise OSError(f"{self._name} holds {header.modality}, no picture: decode it with inrcodec")
        alpha = any(stream.header.name == "alpha" for stream in self._container.streams)
        if header.attributes.get("mode") == "1":
            self._mode = "1"
        elif header.dtype == "<u2":
            self._mode = "I;16"
        else:
            self._mode = ("L" if header.channels == 1 else "RGB") + "A" * alpha
        height, width = (axis.size for axis in header.axes)
        self._size = self._whole = width, height
        self.info.update(save_options(header.attributes, "PNG", self.mode, self._name))

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Have the picture decoded at a half, a quarter, ... of its size, but not smaller than `size`."""
        if size is None or self._decoded:
            return None
        width, height = self._whole
        factor = 1
        while width >= 2 * factor * size[0] and height >= 2 * factor * size[1]:
            factor *= 2
        self._size = -(-width // factor), -(-height // factor)
        return self.mode, (0, 0, width / factor, height / factor)

    def load(self) -> Any:
        """Decode the picture. Raises: OSError if that is impossible."""
        if not self._decoded:
            width, height = self.size
            resolution = Resolution() if self.size == self._whole else Resolution(size=(height, width))
            try:
                signals = open_container(self._container, resolution=resolution)
                alpha = next((signal.loaded() for signal in signals if signal.name == "alpha"), None)
                self.im = pillow_image(self._name, signals[0].loaded(), alpha).im
            except InrcodecError as error:
                raise OSError(f"{self._name}: {error}") from error
            self._decoded = True
        return super().load()


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Encode a picture, as `Image.save` asks for. Raises: OSError if it is none that can be, ValueError for options."""
    given = image.encoderinfo
    name = _named(filename)
    copy = image.copy()
    for key in ("exif", "icc_profile", "dpi"):
        if given.get(key) is not None:
            copy.info[key] = given[key].tobytes() if isinstance(given[key], Image.Exif) else given[key]
    options = {key: given[key] for key in OPTIONS if key in given}
    try:
        signals = signals_of(name, copy, turned=False)
        initialization = default_initialization(MODALITY)
        settings = EncodeOptions(**options)
        data, _ = encode(signals, [initialization] * len(signals), settings, embed=bool(given.get("embed")))
    except InrcodecError as error:
        raise OSError(str(error)) from error
    file.write(data)


def _named(filename: str | bytes | None) -> Path:
    """Return what messages call a file."""
    return Path(os.fsdecode(filename)) if filename else Path("the picture")


def register() -> None:
    """Make the format known to Pillow; again does nothing."""
    Image.register_open(FORMAT, InrImageFile, lambda prefix: prefix.startswith(MAGIC))
    Image.register_save(FORMAT, _save)
    if Image.EXTENSION.get(".inr") != FORMAT:
        Image.register_extension(FORMAT, ".inr")


register()
