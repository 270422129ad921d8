"""Neural-field codec: images, video, sound and climate fields as the change of meta-learned parameters.

Files to files, as the commands do:

>>> import inrcodec
>>> report = inrcodec.encode_file(photo, output, inrcodec.EncodeOptions(quality=20, steps=0))
>>> report.bits_per_sample < 3
True
>>> signals = inrcodec.decode(output.read_bytes(), resolution=inrcodec.Resolution(longer=90))
>>> signals[0].values.shape
(60, 90, 3)

Signals to bytes and back, without files:

>>> signals = inrcodec.read(photo)
>>> initialization = inrcodec.default_initialization("image")
>>> data, decoded = inrcodec.encode(signals, [initialization], inrcodec.EncodeOptions(steps=0))
>>> inrcodec.decode(data)[0].values.tobytes() == decoded[0].values.tobytes()
True

Everything raised on purpose is an `InrcodecError`:

>>> inrcodec.decode(data[:-9])
Traceback (most recent call last):
inrcodec.errors.TruncatedFile: ...

What is listed in `__all__` is the public interface. Names are imported when they are first used, because the
libraries behind them take seconds to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the list for type checkers, which a test compares with the other
    from inrcodec.datasets import to_inr as to_inr
    from inrcodec.decoder import decode as decode
    from inrcodec.encoder import encode as encode
    from inrcodec.errors import ContainerError as ContainerError
    from inrcodec.errors import InitializationError as InitializationError
    from inrcodec.errors import InrcodecError as InrcodecError
    from inrcodec.errors import InrcodecWarning as InrcodecWarning
    from inrcodec.errors import SignalError as SignalError
    from inrcodec.errors import UnknownInitialization as UnknownInitialization
    from inrcodec.errors import UsageError as UsageError
    from inrcodec.files import EncodeReport as EncodeReport
    from inrcodec.files import decode_file as decode_file
    from inrcodec.files import encode_file as encode_file
    from inrcodec.initialization import Initialization as Initialization
    from inrcodec.options import EncodeOptions as EncodeOptions
    from inrcodec.options import Progress as Progress
    from inrcodec.registry import default_initialization as default_initialization
    from inrcodec.registry import named_initialization as named_initialization
    from inrcodec.resolution import Resolution as Resolution
    from inrcodec.signals import read as read
    from inrcodec.signals import write as write
    from inrcodec.signals.signal import Axis as Axis
    from inrcodec.signals.signal import Signal as Signal
    from inrcodec.verification import Verification as Verification
    from inrcodec.verification import verify_file as verify_file

__version__ = "0.1.0"

_HOMES = {
    "Axis": "inrcodec.signals.signal",
    "ContainerError": "inrcodec.errors",
    "EncodeOptions": "inrcodec.options",
    "EncodeReport": "inrcodec.files",
    "InitializationError": "inrcodec.errors",
    "Initialization": "inrcodec.initialization",
    "InrcodecError": "inrcodec.errors",
    "InrcodecWarning": "inrcodec.errors",
    "Progress": "inrcodec.options",
    "Resolution": "inrcodec.resolution",
    "Signal": "inrcodec.signals.signal",
    "SignalError": "inrcodec.errors",
    "UnknownInitialization": "inrcodec.errors",
    "UsageError": "inrcodec.errors",
    "Verification": "inrcodec.verification",
    "decode": "inrcodec.decoder",
    "decode_file": "inrcodec.files",
    "default_initialization": "inrcodec.registry",
    "encode": "inrcodec.encoder",
    "encode_file": "inrcodec.files",
    "named_initialization": "inrcodec.registry",
    "read": "inrcodec.signals",
    "to_inr": "inrcodec.datasets",
    "verify_file": "inrcodec.verification",
    "write": "inrcodec.signals",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'inrcodec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
