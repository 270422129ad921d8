"""Neural-field codec: images, video, sound and climate fields as the change of meta-learned parameters.

>>> import inrcodec
>>> report = inrcodec.encode_file(photo, output, inrcodec.EncodeOptions(quality=20, steps=8))
>>> report.bits_per_sample < 3
True
>>> signals = inrcodec.decode(output.read_bytes(), resolution=inrcodec.Resolution(longer=90))
>>> signals[0].values.shape
(60, 90, 3)

What is listed in `__all__` is the public interface. Names are imported when they are first used, because the
libraries behind them take seconds to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

from inrcodec.errors import InrcodecError

if TYPE_CHECKING:
    from inrcodec.decoder import Resolution, decode
    from inrcodec.encoder import encode
    from inrcodec.files import EncodeReport, decode_file, encode_file
    from inrcodec.initialization import Initialization
    from inrcodec.options import EncodeOptions
    from inrcodec.registry import default_initialization, named_initialization
    from inrcodec.signals import read, write
    from inrcodec.signals.signal import Axis, Signal
    from inrcodec.verification import Verification, verify_file

__version__ = "0.1.0"

_HOMES = {
    "Axis": "inrcodec.signals.signal",
    "EncodeOptions": "inrcodec.options",
    "EncodeReport": "inrcodec.files",
    "Initialization": "inrcodec.initialization",
    "Resolution": "inrcodec.decoder",
    "Signal": "inrcodec.signals.signal",
    "Verification": "inrcodec.verification",
    "decode": "inrcodec.decoder",
    "decode_file": "inrcodec.files",
    "default_initialization": "inrcodec.registry",
    "encode": "inrcodec.encoder",
    "encode_file": "inrcodec.files",
    "named_initialization": "inrcodec.registry",
    "read": "inrcodec.signals",
    "verify_file": "inrcodec.verification",
    "write": "inrcodec.signals",
}

__all__ = [
    "Axis",
    "EncodeOptions",
    "EncodeReport",
    "Initialization",
    "InrcodecError",
    "Resolution",
    "Signal",
    "Verification",
    "decode",
    "decode_file",
    "default_initialization",
    "encode",
    "encode_file",
    "named_initialization",
    "read",
    "verify_file",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inrcodec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
