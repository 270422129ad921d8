"""What the benchmarks leave behind: tables, JSON, a description of the machine; and what they stop with."""

import json
import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import similarity
import torch

from inrcodec import metrics
from inrcodec.errors import InrcodecError, UnknownInitialization, UsageError
from inrcodec.initialization import Initialization
from inrcodec.registry import default_initialization, named_initialization
from inrcodec.signals import MODALITIES, write_whole
from inrcodec.signals.signal import Signal

Initializations = list[tuple[str, Initialization]]
"""Initializations of one modality, with the names they are shown under."""

PSNR_PEAK = {
    "image": "largest value of the type (255 for 8 bits), RGB",
    "video": "255, RGB",
    "audio": "2, full scale from -1 to 1, as in the papers; silence scores high, see the SNR",
    "climate": "value range of the variable in the file",
}


def measure(original: Signal, decoded: Signal) -> dict[str, float]:
    """Measure fidelity: "mse", "psnr_db", and what the modality has besides, "rmse" and "max_error" in native units.

    "mse" is relative to the squared peak of `PSNR_PEAK`, so that it can be averaged over signals.
    """
    if original.missing is not None:
        # What a codec puts into gaps does not matter.
        decoded = replace(decoded, values=np.where(original.missing[..., None], original.values, decoded.values))
    fidelity = metrics.fidelity(original, decoded)
    error = fidelity.mean_squared_error
    relative = error / _peak(original) ** 2
    result = {"mse": relative, "psnr_db": decibels(relative)}
    if original.modality == "audio":
        result["snr_db"] = fidelity.snr
    elif similarity.fits(original.shape):
        result["ssim"] = similarity.ssim(original, decoded)
    if original.modality == "climate":
        result["rmse"] = math.sqrt(error)
        result["max_error"] = fidelity.max_error
    return result


def decibels(relative_error: float) -> float:
    """Return the PSNR of a mean squared error at peak 1, in dB."""
    return math.inf if relative_error == 0 else -10 * math.log10(relative_error)


def _peak(signal: Signal) -> float:
    if signal.modality == "audio":
        return 2.0
    if signal.values.dtype == np.uint8:
        return 255.0
    low, high = signal.value_range
    return high - low


def initializations(
    names: list[str], modalities: list[str] | None, field: str | None = None
) -> dict[str, Initializations]:
    """Load for every modality asked for its initializations, with the names they are shown under.

    Without `names`, the installed default of each modality (of a `field`); without `modalities`, all that have one.
    Raises: UsageError, UnknownInitialization, InitializationError.
    """
    chosen: dict[str, Initializations] = {}
    for name in names:
        initialization = named_initialization(name)
        chosen.setdefault(initialization.modality, []).append((Path(name).stem, initialization))
    if names:
        strange = [modality for modality in modalities or chosen if modality not in chosen]
        if strange:
            raise UsageError(f"none of --init is for {', '.join(strange)}: give one, or another --modality")
        return {modality: chosen[modality] for modality in modalities or chosen}
    for modality in modalities or MODALITIES:
        try:
            initialization = default_initialization(modality, field)
        except UnknownInitialization as error:
            if modalities:
                raise
            say(f"{modality} is skipped: {error}")
        else:
            chosen[modality] = [(f"{modality}-{initialization.field.name}", initialization)]
    if not chosen:
        raise UsageError("no initialization is installed: make one with 'inrcodec meta-train', give it with --init")
    return chosen


def describe(name: str, initialization: Initialization) -> dict[str, Any]:
    """Return what a reader must know of an initialization; its size does not count into that of the files."""
    return {
        "name": name,
        "identifier": initialization.identifier.hex(),
        "field": str(initialization.field),
        "patches": str(initialization.patches),
        "bytes": len(initialization.to_bytes()),
        "provenance": initialization.provenance,
    }


def machine() -> dict[str, Any]:
    """Describe the machine on which the times were taken."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "system": platform.platform(),
        "processor": processor,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("inrcodec", "torch", "numpy", "pillow", "av", "soundfile")},
    }


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a JSON file; numbers that are infinite or no numbers become null."""
    write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text file and say where."""
    write_whole(path, lambda temporary: temporary.write_text(text))
    say(f"wrote {path}")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def number(value: float | None, digits: int = 2) -> str:
    """Return a table's cell."""
    return "-" if value is None else f"{value:.{digits}f}"


def significant(value: float, digits: int = 3) -> str:
    """Return a table's cell for what has units."""
    return f"{value:.{digits}g}"


def say(text: str) -> None:
    """Print a line for who waits; the tables go to standard output."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; what goes wrong with its input, or does not fit, is one line and exit code 1."""
    try:
        main()
    except torch.OutOfMemoryError as error:
        say(f"error: it does not fit into the memory of the device: {str(error).splitlines()[0]}")
        sys.exit(1)
    except InrcodecError as error:
        say(f"error: {error}")
        sys.exit(1)


def output_folder(path: Path) -> Path:
    """Make a folder to write to. Raises: UsageError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}: give another --output") from error
    return path
