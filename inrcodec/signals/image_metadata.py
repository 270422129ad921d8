"""What travels with an image beside its pixels: EXIF, ICC profile, dots per inch."""

import math
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.Image import Image as PillowImage

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
# TIFF keeps these among the tags that describe its own layout, which must not travel to another file:
# description, make, model, software, date, artist, host computer, copyright; camera and GPS directories.
_DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298)
_DESCRIPTIVE_DIRECTORIES = (0x8769, 0x8825)


def exif_of(image: "PillowImage") -> bytes:
    """The EXIF block without its prefix, its orientation tag reset to 1; empty if there is none.

    The bytes are patched instead of written anew: makers' notes refer to their position in the block.
    """
    raw = image.info.get("exif") or _descriptive(image.getexif())
    block = bytearray(raw.removeprefix(_EXIF_PREFIX))
    order = ">" if block[:2] == b"MM" else "<"
    if len(block) < 10:
        return bytes(block)
    directory = struct.unpack_from(order + "I", block, 4)[0]
    if directory + 2 > len(block):
        return bytes(block)
    entries = struct.unpack_from(order + "H", block, directory)[0]
    for start in range(directory + 2, min(directory + 2 + 12 * entries, len(block) - 11), 12):
        if struct.unpack_from(order + "H", block, start)[0] == _ORIENTATION:
            struct.pack_into(order + "HIHH", block, start + 2, 3, 1, 1, 0)
    return bytes(block)


def colour_metadata(image: "PillowImage") -> dict[str, Any]:
    """The attributes "icc" (bytes; only if it is for the colours the image has now) and "dpi" ([x, y])."""
    attributes: dict[str, Any] = {}
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and _profile_fits(profile, image.mode):
        attributes["icc"] = profile
    if dpi := _dpi(image.info.get("dpi")):
        attributes["dpi"] = dpi
    return attributes


def save_options(attributes: dict[str, Any], format_name: str, mode: str) -> dict[str, Any]:
    """The options of Pillow's `save` that write "exif", "icc" and "dpi" of a signal's attributes.

    format_name, mode: Pillow's names of the format and of the mode that are written. Pillow's errors about
    malformed EXIF pass through.
    """
    options: dict[str, Any] = {}
    exif, icc = attributes.get("exif"), attributes.get("icc")
    if isinstance(icc, bytes) and _profile_fits(icc, mode):
        options["icc_profile"] = icc
    if dpi := _dpi(attributes.get("dpi")):
        options["dpi"] = tuple(dpi)
    if isinstance(exif, bytes):
        options["exif"] = _EXIF_PREFIX + exif
        if format_name == "TIFF":
            from PIL.Image import Exif

            # Cameras put width and height into EXIF, and Pillow would put those into the TIFF.
            tags = Exif()
            tags.load(options["exif"])
            options["exif"] = _descriptive(tags)
    return options


def _descriptive(tags: "Exif") -> bytes:
    """An EXIF block of those tags that are about the picture and not about the layout of a file."""
    from PIL.Image import Exif

    kept = Exif()
    kept.update({tag: tags[tag] for tag in _DESCRIPTIVE_TAGS if tag in tags})
    for directory in _DESCRIPTIVE_DIRECTORIES:
        if entries := tags.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
            kept[directory] = kept.get_ifd(directory)
    return kept.tobytes() if len(kept) else b""


def _profile_fits(profile: bytes, mode: str) -> bool:
    """Whether an ICC profile is for the colours of `mode` (bytes 16 to 20 name its colour space)."""
    return profile[16:20] == (b"RGB " if mode.startswith("RGB") else b"GRAY")


def _dpi(dpi: Any) -> list[float] | None:
    """Dots per inch as [x, y], or None if the file says nothing (TIFF without a resolution reads as 1)."""
    try:
        x, y = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    plausible = all(math.isfinite(value) and value > 0 for value in (x, y)) and (x, y) != (1, 1)
    return [x, y] if plausible else None
