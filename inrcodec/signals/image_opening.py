"""The one gate through which every picture comes: our formats only, our limit of pixels, one picture in a file."""

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals.image_formats import FORMATS
from inrcodec.signals.image_gamma import colour_code
from inrcodec.signals.image_metadata import is_turned
from inrcodec.signals.reading_errors import unreadable

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MAX_PIXELS = 1 << 29
"""Larger images are refused before anything is allocated (Pillow's own limit is a third of it, and a
200-megapixel phone photo is above that)."""

# What Pillow's parsers were seen to raise on damaged files.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_readers_lock = threading.Lock()
_readers = 0
_settings = ExitStack()
"""What to put back when the last reader leaves."""

# Without a handler, the program's standard error would get what Pillow logs about damaged files.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_SUBFILE, _OLD_SUBFILE = 254, 255
"""TIFF's tags that say of a page what it is: bits of NewSubfileType, a number of SubfileType."""
_OVERVIEW, _MASK = 1, 4
_OLD_OVERVIEW = 2


@contextmanager
def decoded(path: Path) -> Iterator[tuple["PillowImage", bool]]:
    """Open a picture file as a decoded Pillow image, whatever its suffix is, and say whether it was stored on its side.

    Raises: SignalError if the file is missing, damaged, none of the readable formats, an animation, has several pages,
        more than `MAX_PIXELS` pixels or a depth Pillow cannot hold; and for Pillow's errors while the image is used.
    """
    from PIL import Image

    if path.exists() and not path.is_file():
        raise SignalError(f"{path}: cannot be read as an image (it is no regular file); give the path of a picture")
    try:
        # Given a name instead of a file, Pillow maps uncompressed TIFFs into memory, and confuses width and
        # height of those that lie on their side.
        with _our_pillow(), path.open("rb") as file:
            image = _opened(path, file)
            turned = image.format == "TIFF" and is_turned(image)  # those Pillow turns, and forgets that it did
            try:
                image.load()
            except OSError:
                if image.format not in ("JPEG", "MPO"):
                    raise
                file.seek(0)
                image = _without_end(path, file.read())
            yield image, turned or is_turned(image)
    except Image.DecompressionBombError as error:
        raise SignalError(f"{path}: more than {MAX_PIXELS} pixels; cut it into tiles") from error
    except PILLOW_ERRORS as error:
        raise unreadable(path, "an image", error, "the file may be damaged or incomplete") from error


@contextmanager
def _our_pillow() -> Iterator[None]:
    """Set our limit of pixels, a variable of Pillow's module, and silence Pillow's warnings while any thread reads."""
    from PIL import Image

    global _readers
    with _readers_lock:
        if not _readers:
            _settings.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            _settings.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS
        _readers += 1
    try:
        yield
    finally:
        with _readers_lock:
            _readers -= 1
            if not _readers:
                _settings.close()


def _opened(path: Path, file: BinaryIO) -> "PillowImage":
    """Open the one image of a file without decoding it."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    formats = [name for name in {name for name, _ in FORMATS.values()} if name in Image.OPEN]
    try:
        image: PillowImage = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise SignalError(
            f"{path}: not an image, or damaged at its beginning; readable are {' '.join(FORMATS)}"
        ) from error
    # An MPO file is a photo followed by its previews or its other eye: the first is the photo.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "TIFF":
        _seek_full_page(path, image, frames)
    elif frames > 1:
        raise SignalError(f"{path}: an animation of {frames} frames; convert it to a video, such as .mp4")
    if image.width * image.height > MAX_PIXELS:
        raise SignalError(f"{path}: {image.width}x{image.height} are more than {MAX_PIXELS} pixels; cut it into tiles")
    _check_depth(path, image)
    if code := colour_code(file, str(image.format)):
        image.info["colour_code"] = code
    return image


def _seek_full_page(path: Path, image: Any, pages: int) -> None:
    """Turn to the one page of a TIFF that is neither an overview of another nor its mask."""
    full: list[int] = []
    masks = 0
    for page in range(pages):
        image.seek(page)
        kind = image.tag_v2.get(_SUBFILE, 0)
        if kind & _MASK:
            masks += 1
        elif not kind & _OVERVIEW and image.tag_v2.get(_OLD_SUBFILE) != _OLD_OVERVIEW:
            full.append(page)
    if len(full) != 1:
        raise SignalError(f"{path}: {len(full)} pages in one file; split it into one file per page")
    if masks:
        warnings.warn(f"{path}: the page with a mask of transparency is left out", InrcodecWarning, stacklevel=2)
    image.seek(full[0])


def _check_depth(path: Path, image: "PillowImage") -> None:
    """Refuse what Pillow would silently reduce to 8 bits: its raw modes still tell, before decoding."""
    if image.mode.startswith(("I", "F")):
        return
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        deep = any(isinstance(argument, str) and ";16" in argument for argument in arguments)
        if tile[0] in ("ppm", "ppm_plain"):
            deep = isinstance(arguments[-1], int) and arguments[-1] > 255
        if deep:
            raise SignalError(
                f"{path}: 16 bits per channel are read only in grey without alpha; convert it to 8 bits first"
            )


def _without_end(path: Path, data: bytes) -> "PillowImage":
    """Return the image of a JPEG file that lacks its end marker only.

    No pixel is missing exactly if none depends on what follows the data. Raises: OSError if some do.
    """
    followers = (b"", bytes(range(1, 251)), bytes(range(250, 0, -1)))
    images = [_opened(path, io.BytesIO(data.rstrip(b"\xff") + follower + b"\xff\xd9")) for follower in followers]
    first, *others = (np.asarray(image) for image in images)
    if any(not np.array_equal(first, other) for other in others):
        raise OSError("image file is truncated")
    warnings.warn(f"{path}: the JPEG data lacks its end marker; no pixel is missing", InrcodecWarning, stacklevel=2)
    return images[0]
