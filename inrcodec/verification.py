"""The check of `.inr` files: that they are whole and decode, and how near they are to their originals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inrcodec import metrics
from inrcodec.coding.container import Container, Stream, read_container
from inrcodec.coding.missing import unpack_missing
from inrcodec.decoder import SAMPLES, check_samples, check_stream, check_work, decode_container, with_exact_values
from inrcodec.device import pick_device
from inrcodec.errors import ContainerError, CorruptFile, InitializationError, SignalError, UsageError
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.registry import find_initialization
from inrcodec.residual.section import apply_section
from inrcodec.signals import read
from inrcodec.signals.signal import Signal


@dataclass(frozen=True)
class Verification:
    """The outcome of a check that found no fault.

    signals: for each its "name", "modality", "chunks" and "symbols", and where there is an original its "psnr_db"
        (None if nothing differs), "max_error", and "bound" if it has one.
    """

    input: str
    bytes: int
    signals: tuple[dict[str, Any], ...]


def verify_file(
    path: Path,
    *,
    against: Path | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    device: str = "auto",
) -> Verification:
    """Check the checksums, the structure and the symbols of a file; beside its original, its bound too.

    against: the original. Other arguments as for `decode`.
    Raises: SignalError, ContainerError, UnknownInitialization; CorruptFile also where a value is beyond the bound;
        UsageError if the original has other signals.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    try:
        container = read_container(data)
        known = [*initializations, *map(Initialization.from_bytes, container.initializations)]
        check_samples([stream.header for stream in container.streams], max_samples)
        used = [find_initialization(stream.header.initialization, known) for stream in container.streams]
        for stream, initialization in zip(container.streams, used, strict=True):
            check_stream(stream, initialization)
        check_work([stream.header for stream in container.streams], used, max_samples)
        signals = [_checked(*each, device) for each in zip(container.streams, used, strict=True)]
        if against is not None:
            decoded = decode_container(
                container, initializations=initializations, max_samples=max_samples, device=device
            )
            for report, measured in zip(signals, _compared(container, decoded, read(against)), strict=True):
                report |= measured
    except (ContainerError, InitializationError) as error:
        raise type(error)(f"{path}: {error}") from error
    return Verification(str(path), len(data), tuple(signals))


def _checked(stream: Stream, initialization: Initialization, device: str) -> dict[str, Any]:
    """Decode all integers of a stream, and check its attributes. Raises: CorruptFile."""
    header = stream.header
    reader = codec_of(initialization).open(header, initialization, pick_device(device))
    symbols = sum(each.size for integers in reader.symbols(stream.chunks) for each in integers)
    shape = tuple(axis.size for axis in header.axes)
    missing = None if stream.missing is None else unpack_missing(stream.missing, shape)
    zeros = np.zeros((*shape, header.channels), header.dtype)
    if stream.residual is not None and header.max_error is not None:
        # What a residual consists of does not depend on the values that it corrects.
        apply_section(zeros, stream.residual, header.max_error)
    # Nor does whether the attributes are well formed.
    with_exact_values(
        Signal(
            modality=header.modality,
            values=zeros,
            axes=header.axes,
            value_range=header.value_range,
            name=header.name,
            sphere=header.sphere,
            missing=missing,
            attributes=header.attributes,
            slice_ranges=header.slice_ranges,
        )
    )
    return {"name": header.name, "modality": header.modality, "chunks": header.chunks, "symbols": symbols}


def _compared(container: Container, decoded: Sequence[Signal], originals: Sequence[Signal]) -> list[dict[str, Any]]:
    """Measure decoded signals beside their originals. Raises: CorruptFile if one is beyond its bound, UsageError."""
    by_name = {signal.name: signal for signal in originals}
    result = []
    for stream, signal in zip(container.streams, decoded, strict=True):
        original = by_name.get(signal.name)
        label = f"the signal {signal.name!r}" if signal.name else f"the {signal.modality}"
        if original is None or original.values.shape != signal.values.shape:
            found = "has none of this name" if original is None else f"has {original.values.shape}"
            raise UsageError(
                f"{label} has the shape {signal.values.shape}, the original {found}: give the right original"
            )
        psnr, error = metrics.psnr(original, signal), metrics.max_error(original, signal)
        bound = stream.header.max_error
        if bound is not None and not error <= bound:
            raise CorruptFile(f"{label} is {error:g} off, beyond its bound of {bound:g}: obtain the file again")
        measured = {"psnr_db": round(psnr, 4) if math.isfinite(psnr) else None, "max_error": error}
        result.append(measured if bound is None else measured | {"bound": bound})
    return result
