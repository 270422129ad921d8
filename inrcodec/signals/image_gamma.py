"""Pictures whose values mean other light than sRGB's: gamma and primaries that PNG files name, HDR in PNG and AVIF.

They travel as numbers. PNG files get them back as they were; formats that hold ICC profiles get one made of a gamma.
"""

import math
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from inrcodec.errors import InrcodecWarning

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

_SRGB_GAMMA = 1 / 2.2
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""x and y of white, red, green and blue."""
_LIKE_SRGB, _LIKE_SRGB_TRANSFER = (0, 1, 2, 5, 6, 7), (0, 1, 2, 6, 13, 14, 15)
"""Colours that are shown as sRGB's are, if they are named at all: those of BT.709 and BT.601."""
_HEAD_BYTES = 1 << 16
_SAME_GAMMA, _SAME_CHROMATICITY = 0.01, 0.002

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_PROFILED = ("JPEG", "TIFF", "WEBP", "AVIF", "PNG")
"""Formats, by Pillow's names, that Pillow writes ICC profiles into."""


def colour_code(file: BinaryIO, format_name: str) -> list[int] | None:
    """Return primaries and transfer of an open PNG or AVIF file, numbers of ITU-T H.273; None if they are sRGB's.

    Pillow does not tell them: a picture in PQ would look like a pale one in sRGB. The file's position stays.
    """
    place = file.tell()
    try:
        file.seek(0)
        head = file.read(_HEAD_BYTES)
    finally:
        file.seek(place)
    code: tuple[int, ...] | None = None
    if format_name == "PNG" and (start := head.find(b"\0\0\0\4cICP")) >= 0 and len(head) >= start + 12:
        code = head[start + 8], head[start + 9]
    if format_name == "AVIF" and (start := head.find(b"colrnclx")) >= 0 and len(head) >= start + 12:
        code = struct.unpack_from(">HH", head, start + 8)
    if code is None or (code[0] in _LIKE_SRGB and code[1] in _LIKE_SRGB_TRANSFER):
        return None
    return list(code)


def gamma_attributes(info: dict[Any, Any]) -> dict[str, Any]:
    """Return the attributes "gamma" and "chromaticity", or "colour", if they are not sRGB's and nothing overrides them.

    gamma: the exponent that turned light into values: 1.0 for linear light. chromaticity: x and y of white, red,
    green and blue. colour: see `colour_code`.
    """
    if info.get("colour_code"):
        return {"colour": info["colour_code"]}
    if "icc_profile" in info or "srgb" in info:
        return {}
    attributes: dict[str, Any] = {}
    gamma, chromaticity = _gamma(info.get("gamma")), _chromaticity(info.get("chromaticity"))
    if gamma is not None and abs(gamma - _SRGB_GAMMA) > _SAME_GAMMA:
        attributes["gamma"] = gamma
    if chromaticity is not None and np.abs(np.subtract(chromaticity, _SRGB)).max() > _SAME_CHROMATICITY:
        attributes["chromaticity"] = chromaticity
    return attributes


def light_options(attributes: dict[str, Any], format_name: str, colour: bool, path: Path) -> dict[str, Any]:
    """Return the options of Pillow's `save` that tell which light the values mean, from a signal's attributes.

    format_name: Pillow's. colour: of three channels. path: of the file, for warnings where the format cannot tell it.
    """
    code, gamma = _code(attributes.get("colour")), _gamma(attributes.get("gamma"))
    chromaticity = _chromaticity(attributes.get("chromaticity"))
    if code is None and gamma is None and chromaticity is None:
        return {}
    gamma, chromaticity = gamma or _SRGB_GAMMA, chromaticity or list(_SRGB)
    if format_name == "PNG":
        return {"pnginfo": _png_chunks(code, gamma, chromaticity)}
    if code is not None:
        text = f"{path}: the format has no place for wide or HDR colours ({code}), .png has; they will look different"
        warnings.warn(text, InrcodecWarning, stacklevel=2)
        return {}
    if format_name in _PROFILED:
        return {"icc_profile": icc_profile(gamma, chromaticity, colour)}
    text = f"{path}: the format has no place for the picture's gamma of {gamma:g}: it will look different"
    warnings.warn(text, InrcodecWarning, stacklevel=2)
    return {}


def _png_chunks(code: list[int] | None, gamma: float, chromaticity: list[float]) -> "PngInfo":
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    if code is not None:
        chunks.add(b"cICP", bytes([*code, 0, 1]))  # RGB in full range
        return chunks
    chunks.add(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    chunks.add(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in chromaticity)))
    return chunks


def icc_profile(gamma: float, chromaticity: list[float], colour: bool) -> bytes:
    """Return an ICC profile (version 2.1, for displays) of pictures with this gamma; for grey unless `colour`."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, min(max(round(256 / gamma), 1), 65535))
    name = b"gamma %.5f\0" % (1 / gamma)
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(4 + 4 + 2 + 1 + 67),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": _xyz(_D50),
    }
    if colour:
        for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _primaries(chromaticity).T, strict=True):
            tags[tag] = _xyz(column)
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    else:
        tags[b"kTRC"] = curve
    table, data = b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", 132 + len(table) + len(data), b"", 0x02100000, b"mntr", _space(colour), b"XYZ ")
    head += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp").ljust(32, b"\0") + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _space(colour: bool) -> bytes:
    return b"RGB " if colour else b"GRAY"


def _xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _primaries(chromaticity: list[float]) -> np.ndarray:
    """Return the colours [XYZ, RGB] of the three primaries, adapted to D50 as profiles are."""
    white, *colours = ((x / y, 1.0, (1 - x - y) / y) for x, y in np.reshape(chromaticity, (4, 2)))
    mixed = np.array(colours).T
    mixed *= np.linalg.solve(mixed, np.array(white))
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ np.array(white))
    return np.linalg.solve(_BRADFORD, scale[:, None] * (_BRADFORD @ mixed))


def _code(values: Any) -> list[int] | None:
    """Return primaries and transfer if they are numbers that PNG holds, else None."""
    valid = isinstance(values, list) and len(values) == 2 and all(type(n) is int and 0 <= n < 256 for n in values)
    return values if valid else None


def _gamma(value: Any) -> float | None:
    valid = isinstance(value, int | float) and math.isfinite(value) and 0.01 <= value <= 100
    return float(value) if valid else None


def _chromaticity(values: Any) -> list[float] | None:
    """Return eight numbers if no colour is black or on a line with the others, else None."""
    if not (isinstance(values, list | tuple) and len(values) == 8 and all(type(v) in (int, float) for v in values)):
        return None
    points = np.reshape(np.array(values, np.float64), (4, 2))
    if not (np.isfinite(points).all() and (points[:, 1] > 0.001).all() and (np.abs(points) < 2).all()):
        return None
    area = np.linalg.det(np.column_stack([points[1:], np.ones(3)]))
    return [float(value) for value in values] if abs(area) > 0.001 else None
