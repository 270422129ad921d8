"""Images: whatever Pillow reads, 8 bits per channel in colour, 8 or 16 in grey.

The main signal holds [height, width, 1 or 3] values, a second one named "alpha" the transparency. What
Pillow cannot hold is refused instead of rounded: colour, or grey with alpha, at 16 bits per channel;
floating-point pixels. It does reduce JPEG 2000 colour and AVIF above 8 bits per channel without a sign,
so those are read as 8 bits.

CMYK, YCbCr and LAB become RGB (CMYK by the plain formula, without its profile). Kept with the file: EXIF
(with the orientation applied to the pixels and its tag reset), ICC profile (unless the colours were
converted), gamma, primaries and HDR of PNG and AVIF files, dots per inch, 1-bit depth. Not kept: XMP,
comments, thumbnails of TIFF files.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.image_formats import FORMATS, SAVE_OPTIONS, holder_of, mode_of
from inrcodec.signals.image_formats import WRITABLE as WRITABLE
from inrcodec.signals.image_metadata import colour_metadata, exif_of, save_options
from inrcodec.signals.image_opening import PILLOW_ERRORS, decoded
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.reading_errors import reason
from inrcodec.signals.signal import Axis, Signal
from inrcodec.signals.whole_files import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MODALITY = "image"
DEFAULT_EXTENSION = ".png"
EXTENSIONS = frozenset(FORMATS)

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0


def read(path: Path) -> list[Signal]:
    """Read an image file.

    Returns the main signal: values [height, width, 1 or 3], uint8 with the range (0, 255) or uint16 with the range
    from the smallest to the largest value, as depth maps and 12-bit cameras use a part of the 16 bits only; and,
    if the file has transparency, a signal named "alpha" [height, width, 1]. 1-bit images have the values
    0 and 255. The main signal's attributes: "mode" ("1", for 1-bit images only), "icc" and "exif" (bytes),
    "dpi" ([x, y]), "gamma", "chromaticity" and "colour" (see `image_gamma`).

    Of a TIFF with overviews, the full picture is read. JPEG data without its end marker is read with a warning.

    Raises: SignalError if the file is missing, damaged, no image, an animation, has several pages, more
    than `image_opening.MAX_PIXELS` pixels or a depth Pillow cannot hold.
    """
    with decoded(path) as (image, turned):
        return signals_of(path, image, turned)


def write(signals: list[AnySignal], path: Path) -> None:
    """Write the main signal, and the one named "alpha" if there is one, in the format of `path.suffix`.

    The suffix is one of `WRITABLE`.

    Values are those `read` returns, at any resolution. PNG, WebP, TIFF, BMP, PPM, JPEG 2000, TGA and QOI
    are written lossless, JPEG and AVIF at quality 95. Grey becomes RGB where the format has no grey.
    Formats that have no place for EXIF, ICC profile or dots per inch are written without them; a gamma becomes an
    ICC profile in formats other than PNG, and a warning where there is no place for one.

    Raises: SignalError if the format cannot hold the transparency, the 16 bits,
    the colours or the size of the image, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    main, *others = [signal.loaded() for signal in signals]
    if main.name == "alpha":
        raise SignalError(f"{path}: there is only the transparency of a picture, the picture itself is lost")
    alpha = next((signal for signal in others if signal.name == "alpha"), None)
    format_name, _ = FORMATS[suffix]
    holder = holder_of(path, mode_of(path, main, alpha))
    image = pillow_image(path, main, alpha)
    if image.mode != holder:
        image = image.convert(holder)

    try:
        metadata = save_options(main.attributes, format_name, holder, path)
        # Into memory: given a file, Pillow ignores that a full disk writes less than it is asked to, or never returns.
        encoded = io.BytesIO()
        image.save(encoded, format=format_name, **SAVE_OPTIONS.get(format_name, {}), **metadata)
    except PILLOW_ERRORS as error:
        raise SignalError(
            f"{path}: cannot write {image.size} pixels as {suffix} ({reason(error)}); try .png"
        ) from error
    write_bytes(path, encoded.getbuffer())


def pillow_image(path: Path, main: Signal, alpha: Signal | None) -> "PillowImage":
    """Return the pixels of signals as Pillow holds them. Raises: SignalError that names `path` if it cannot."""
    from PIL import Image

    mode = mode_of(path, main, alpha)
    planes = [main.values] if alpha is None else [main.values, alpha.values]
    pixels = np.concatenate(planes, axis=-1)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    return image.point(lambda value: 255 * (value >= 128), "1") if mode == "1" else image


def signals_of(path: Path, image: "PillowImage", turned: bool) -> list[Signal]:
    """Return the signals of a decoded image, as `read` does; it lay on its side if `turned`.

    Raises: SignalError that names `path`.
    """
    from PIL import ImageOps

    attributes: dict[str, Any] = {}
    if exif := exif_of(image, turned):
        attributes["exif"] = exif
    ImageOps.exif_transpose(image, in_place=True)

    if image.mode.startswith("I"):
        pixels = _deep_grey(path, image)
    elif image.mode == "F":
        raise SignalError(f"{path}: floating-point pixels; convert it to 8 or 16 bits first")
    else:
        if image.mode == "1" and not image.has_transparency_data:
            attributes["mode"] = "1"
        image = _converted(image)
        pixels = np.array(image).reshape(image.height, image.width, -1)

    attributes |= colour_metadata(image, turned)

    axes = (Axis(image.height, "cell"), Axis(image.width, "cell"))
    value_range = _value_range(pixels)
    colours = pixels.shape[-1] - (image.mode in ("LA", "RGBA"))
    main = np.ascontiguousarray(pixels[..., :colours])
    signals = [Signal(MODALITY, main, axes, value_range, attributes=attributes)]
    if colours < pixels.shape[-1]:
        alpha = np.ascontiguousarray(pixels[..., colours:])
        signals.append(Signal(MODALITY, alpha, axes, value_range, name="alpha"))
    return signals


def _deep_grey(path: Path, image: "PillowImage") -> np.ndarray:
    """Return the [height, width, 1] uint16 of a grey image with more than 8 bits (Pillow's I;16 flavours and I)."""
    if "transparency" in image.info:
        raise SignalError(f"{path}: 16-bit grey with a transparent value; convert it to 8 bits first")
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise SignalError(f"{path}: values from {low} to {high} do not fit 16 bits; rescale it to 0..65535")
    pixels = pixels.astype(np.uint16)[..., None]
    # Pillow leaves out this step, which it does not with 8 bits.
    tags = getattr(image, "tag_v2", {})
    return ~pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels


def _value_range(pixels: np.ndarray) -> tuple[float, float]:
    """Return (0, 255) for 8 bits, the smallest and the largest value for 16, which often hold 10, 12 or 14 bits."""
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(pixels.min()), float(pixels.max())
    return (low, high) if low < high else (min(low, 65534.0), min(low, 65534.0) + 1)


def _converted(image: "PillowImage") -> "PillowImage":
    """Convert the image to one of L, LA, RGB, RGBA."""
    grey = image.mode in ("1", "L", "LA", "La")
    target = ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")
    if image.mode == target:
        return image
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # only None when converting in place
        image = converted
        image.info.pop("icc_profile", None)
    if image.mode == "PA":
        image = image.convert("RGBA")
    return image.convert(target)
