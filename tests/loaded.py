"""What a module of a modality reads, in memory."""

from pathlib import Path
from types import ModuleType

from inrcodec.signals.signal import Signal


def loaded(module: ModuleType, path: Path) -> list[Signal]:
    """Open a file with a module of `inrcodec.signals`, whatever the file is called."""
    with module.opened(path) as signals:
        return [signal.loaded() for signal in signals]
