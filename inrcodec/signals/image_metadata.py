"""What travels with an image beside its pixels: EXIF, ICC profile or gamma, dots per inch."""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inrcodec.signals.image_gamma import gamma_attributes, light_options

if TYPE_CHECKING:
    from PIL.Image import Exif
    from PIL.Image import Image as PillowImage

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
# TIFF keeps these among the tags that describe its own layout, which must not travel to another file:
# description, make, model, software, date, artist, host computer, copyright; camera and GPS directories.
_DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298)
_DESCRIPTIVE_DIRECTORIES = (0x8769, 0x8825)
_CAMERA = 0x8769
# What is told of width and height apart: resolution, size and resolution of the focal plane.
_ALONG_SIDES = ((0x011A, 0x011B), (0xA002, 0xA003), (0xA20E, 0xA20F))
_TURNED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""


def is_turned(image: "PillowImage") -> bool:
    """Say whether the stored picture lies on its side."""
    return image.getexif().get(_ORIENTATION) in _TURNED


def exif_of(image: "PillowImage", turned: bool) -> bytes:
    """Return the EXIF block of the upright picture without the block's prefix; empty if there is none.

    The orientation is reset to 1, and what is told of width and height exchanged if the picture was stored on its
    side (`turned`). The bytes are patched instead of written anew: makers' notes refer to their position in the block.
    """
    raw = image.info.get("exif") or _descriptive(image.getexif())
    block = bytearray(raw.removeprefix(_EXIF_PREFIX))
    order = ">" if block[:2] == b"MM" else "<"
    if len(block) < 10:
        return bytes(block)
    entries = dict(_entries(block, order, struct.unpack_from(order + "I", block, 4)[0]))
    if _CAMERA in entries:
        entries |= dict(_entries(block, order, struct.unpack_from(order + "I", block, entries[_CAMERA] + 8)[0]))
    if _ORIENTATION in entries:
        struct.pack_into(order + "HIHH", block, entries[_ORIENTATION] + 2, 3, 1, 1, 0)
    for pair in _ALONG_SIDES if turned else ():
        if all(tag in entries for tag in pair):
            one, other = (slice(entries[tag] + 2, entries[tag] + 12) for tag in pair)
            block[one], block[other] = block[other], block[one]
    return bytes(block)


def _entries(block: bytearray, order: str, directory: int) -> Iterator[tuple[int, int]]:
    """Yield the tags of a directory and where their entries begin, as far as they are within the block."""
    if directory + 2 > len(block):
        return
    count = struct.unpack_from(order + "H", block, directory)[0]
    for start in range(directory + 2, min(directory + 2 + 12 * count, len(block) - 11), 12):
        yield struct.unpack_from(order + "H", block, start)[0], start


def colour_metadata(image: "PillowImage", turned: bool) -> dict[str, Any]:
    """Return the attributes "icc" (bytes), "dpi" ([x, y]), and those that `gamma_attributes` returns.

    A profile is left out if it is not for the colours that the image has now.
    turned: the picture lay on its side.
    """
    attributes: dict[str, Any] = gamma_attributes(image.info)
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and _profile_fits(profile, image.mode):
        attributes["icc"] = profile
    if dpi := _dpi(image.info.get("dpi")):
        attributes["dpi"] = dpi[::-1] if turned else dpi
    return attributes


def save_options(attributes: dict[str, Any], format_name: str, mode: str, path: Path) -> dict[str, Any]:
    """Return the options of Pillow's `save` that write the attributes "exif", "dpi", and "icc", "gamma" or "colour".

    format_name, mode: Pillow's names of the format and of the mode that are written. path: of the file, for
    warnings. Pillow's errors about malformed EXIF pass through.
    """
    exif, icc = attributes.get("exif"), attributes.get("icc")
    if isinstance(icc, bytes) and _profile_fits(icc, mode):
        attributes = {key: value for key, value in attributes.items() if key not in ("gamma", "chromaticity")}
        options: dict[str, Any] = {"icc_profile": icc}
    else:
        options = {}
    options |= light_options(attributes, format_name, mode.startswith("RGB"), path)
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
    """Return an EXIF block of the tags that are about the picture and not about the layout of a file."""
    from PIL.Image import Exif

    kept = Exif()
    kept.update({tag: tags[tag] for tag in _DESCRIPTIVE_TAGS if tag in tags})
    for directory in _DESCRIPTIVE_DIRECTORIES:
        if entries := tags.get_ifd(directory):
            kept.get_ifd(directory).update(entries)
            kept[directory] = kept.get_ifd(directory)
    return kept.tobytes() if len(kept) else b""


def _profile_fits(profile: bytes, mode: str) -> bool:
    """Say whether an ICC profile is for the colours of `mode` (bytes 16 to 20 name its colour space)."""
    return profile[16:20] == (b"RGB " if mode.startswith("RGB") else b"GRAY")


def _dpi(dpi: Any) -> list[float] | None:
    """Return dots per inch as [x, y], or None if the file says nothing (TIFF without a resolution reads as 1)."""
    try:
        x, y = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    plausible = all(math.isfinite(value) and value > 0 for value in (x, y)) and (x, y) != (1, 1)
    return [x, y] if plausible else None
