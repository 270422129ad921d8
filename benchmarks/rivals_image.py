"""Images through Pillow's codecs.

Most codecs store colour at half the resolution (4:2:0) unless told otherwise, which costs PSNR at high rates, and
AVIF's encoder is tuned for structural similarity: both choices are shown.
"""

import io
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, features
from rivals import Rival

from inrcodec.signals.signal import Signal


def _encode_image(signal: Signal, quality: int, *, format: str, options: dict[str, Any]) -> bytes:
    values = signal.values[..., 0] if signal.channels == 1 else signal.values
    file = io.BytesIO()
    Image.fromarray(values).save(file, format, quality=quality, **options)
    return file.getvalue()


def _decode_image(data: bytes, signal: Signal) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L" if signal.channels == 1 else "RGB")).reshape(signal.values.shape)


def _image_obstacle(signal: Signal, *, feature: str) -> str | None:
    if not features.check(feature):
        return "this Pillow was built without it"
    return None if signal.values.dtype == np.uint8 else f"it is for 8 bits, the image is {signal.values.dtype}"


def _image_rival(name: str, format: str, feature: str, settings: tuple[int, ...], **options: Any) -> Rival:
    return Rival(
        name=name,
        unit="quality",
        settings=settings,
        encode=partial(_encode_image, format=format, options=options),
        decode=_decode_image,
        obstacle=partial(_image_obstacle, feature=feature),
    )


_JPEG = (5, 10, 20, 30, 50, 70, 85, 95)
_WEBP = (1, 10, 25, 50, 75, 90, 98)
_AVIF = (10, 25, 40, 55, 70, 85, 95)
RIVALS = (
    _image_rival("JPEG", "JPEG", "jpg", _JPEG, progressive=True, optimize=True, subsampling="4:2:0"),
    _image_rival("JPEG 4:4:4", "JPEG", "jpg", _JPEG, progressive=True, optimize=True, subsampling="4:4:4"),
    _image_rival("WebP", "WEBP", "webp", _WEBP, method=6),
    _image_rival("AVIF", "AVIF", "avif", _AVIF, speed=4, subsampling="4:2:0"),
    _image_rival("AVIF 4:4:4", "AVIF", "avif", _AVIF, speed=4, subsampling="4:4:4"),
    _image_rival("AVIF for PSNR", "AVIF", "avif", _AVIF, speed=4, subsampling="4:4:4", advanced={"tune": "psnr"}),
)
