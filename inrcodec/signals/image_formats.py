"""Image formats, and the Pillow modes ("L", "RGBA", ...) that hold a signal and that a format can hold."""

from pathlib import Path
from typing import Any

import numpy as np

from inrcodec.errors import SignalError
from inrcodec.signals.signal import Signal

# Suffix -> (Pillow's format, the modes it can be written in). GIF holds only 256 colours: read only.
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    ".png": ("PNG", ("1", "L", "LA", "RGB", "RGBA", "I;16")),
    ".jpg": ("JPEG", ("L", "RGB")),
    ".jpeg": ("JPEG", ("L", "RGB")),
    ".webp": ("WEBP", ("RGB", "RGBA")),
    ".tif": ("TIFF", ("1", "L", "LA", "RGB", "RGBA", "I;16")),
    ".tiff": ("TIFF", ("1", "L", "LA", "RGB", "RGBA", "I;16")),
    ".bmp": ("BMP", ("1", "L", "RGB")),
    ".ppm": ("PPM", ("1", "L", "RGB", "I;16")),
    ".pnm": ("PPM", ("1", "L", "RGB", "I;16")),
    ".pgm": ("PPM", ("L", "I;16")),
    ".pbm": ("PPM", ("1",)),
    ".jp2": ("JPEG2000", ("L", "LA", "RGB", "RGBA", "I;16")),
    ".avif": ("AVIF", ("L", "RGB", "RGBA")),
    ".tga": ("TGA", ("L", "LA", "RGB", "RGBA")),
    ".qoi": ("QOI", ("RGB", "RGBA")),
    ".gif": ("GIF", ()),
}
WRITABLE = tuple(suffix for suffix, (_, modes) in FORMATS.items() if modes)

# Modes that hold the same values without loss, narrowest first.
_HOLDERS = {
    "1": ("1", "L", "RGB"),
    "L": ("L", "RGB"),
    "LA": ("LA", "RGBA"),
    "RGB": ("RGB",),
    "RGBA": ("RGBA",),
    "I;16": ("I;16",),
}
_DESCRIPTIONS = {
    "1": "1-bit images",
    "L": "grey images",
    "LA": "transparency (grey with alpha)",
    "RGB": "colour images",
    "RGBA": "transparency (colour with alpha)",
    "I;16": "16 bits per channel",
}
# Decoded values should reach the eye as they are: lossless where the format can, else near enough to it.
# TIFF stays uncompressed: Pillow cannot write compressed TIFF with EXIF.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def mode_of(path: Path, main: Signal, alpha: Signal | None) -> str:
    """Return the narrowest Pillow mode that holds the signals.

    Raises: SignalError if no mode does.
    """
    dtypes = {main.values.dtype} | ({alpha.values.dtype} if alpha else set())
    if main.channels not in (1, 3) or not dtypes <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise SignalError(
            f"{path}: an image has 1 or 3 channels of uint8 or uint16: "
            f"{main.channels = }, {[str(dtype) for dtype in dtypes] = }"
        )
    if alpha is not None and (alpha.values.shape != (*main.shape, 1) or len(dtypes) > 1):
        raise SignalError(
            f"{path}: alpha must be one channel of the image's size and type: "
            f"{alpha.values.shape = }, {main.values.shape = }"
        )
    if np.dtype(np.uint16) in dtypes:
        if main.channels == 3 or alpha is not None:
            raise SignalError(f"{path}: 16 bits per channel can be written only in grey without alpha; use 8")
        return "I;16"
    if main.channels == 1 and alpha is None and main.attributes.get("mode") == "1":
        return "1"
    return ("L" if main.channels == 1 else "RGB") + ("A" if alpha is not None else "")


def holder_of(path: Path, mode: str) -> str:
    """Return the narrowest Pillow mode that holds the values of `mode` and can be written as `path.suffix`.

    Raises: SignalError if the format has none.
    """
    suffix = path.suffix.lower()
    _, modes = FORMATS[suffix]
    holder = next((candidate for candidate in _HOLDERS[mode] if candidate in modes), None)
    if holder is None:
        fitting = (s for s in WRITABLE if any(m in FORMATS[s][1] for m in _HOLDERS[mode]))
        raise SignalError(f"{path}: {suffix} cannot hold {_DESCRIPTIONS[mode]}; use one of {' '.join(fitting)}")
    return holder
