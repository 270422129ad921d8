"""The check of `.inr` files: that they are whole and decode, and how near they are to their originals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inrcodec.coding.container import Container, Stream, read_container
from inrcodec.coding.missing import MissingReader
from inrcodec.decoder import SAMPLES, check_container, open_container, signal_of
from inrcodec.device import pick_device
from inrcodec.errors import ContainerError, CorruptFile, InitializationError, SignalError, UsageError
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.metrics import Fidelity
from inrcodec.resolution import Resolution
from inrcodec.signals import check, in_order_of, opened
from inrcodec.signals.lazy import AnySignal, Rows, slabs_of
from inrcodec.slabs import Slabs


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
    against: Path | Sequence[Path] | None = None,
    series: str | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    device: str = "auto",
) -> Verification:
    """Check the checksums, the structure and the symbols of a file; beside its original, its bound too.

    against: the original, or several that follow each other along the dimension `series`. Other arguments as for
        `decode`.
    Raises: SignalError, ContainerError, UnknownInitialization; CorruptFile also where a value is beyond the bound;
        UsageError if the original has other signals.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    try:
        container = read_container(data)
        used = check_container(container, Resolution(), initializations, max_samples)
        found = [_checked(*each, device) for each in zip(container.streams, used, strict=True)]
        if against is not None:
            decoded = open_container(container, initializations=initializations, max_samples=max_samples, device=device)
            with opened(against, series=series) as originals:
                for report, measured in zip(found, _compared(container, decoded, originals), strict=True):
                    report |= measured
    except (ContainerError, InitializationError) as error:
        raise type(error)(f"{path}: {error}") from error
    return Verification(str(path), len(data), tuple(found))


def _checked(stream: Stream, initialization: Initialization, device: str) -> dict[str, Any]:
    """Decode all integers of a stream, and check its attributes. Raises: CorruptFile."""
    header = stream.header
    reader = codec_of(initialization).open(header, initialization, pick_device(device))
    symbols = sum(each.size for integers in reader.symbols(stream.chunks) for each in integers)
    shape = tuple(axis.size for axis in header.axes)
    missing = None if stream.missing is None else MissingReader(stream.missing, shape)
    slabs = Slabs(header, header.axes, stream.residual)
    for number in range(len(slabs)):
        # Neither what a residual consists of nor whether attributes are well formed depends on the values.
        values = slabs.empty(number)
        values[...] = 0
        slabs.corrected(slabs.exact(values, number), number)
        if missing is not None:
            missing.take(len(values))
    try:
        check(signal_of(header, header.axes, _unread, has_missing=header.has_missing))
    except SignalError as error:
        raise CorruptFile(f"{error}: obtain the file again") from error
    return {"name": header.name, "modality": header.modality, "chunks": header.chunks, "symbols": symbols}


def _unread(begin: int, end: int) -> Rows:
    raise ValueError("the values of a signal whose attributes are checked are not read")


def _compared(
    container: Container, decoded: Sequence[AnySignal], originals: Sequence[AnySignal]
) -> Iterator[dict[str, Any]]:
    """Measure decoded signals beside their originals. Raises: CorruptFile if one is beyond its bound, UsageError."""
    by_name = {signal.name: signal for signal in originals}
    for stream, signal in zip(container.streams, decoded, strict=True):
        original = by_name.get(signal.name)
        label = f"the signal {signal.name!r}" if signal.name else f"the {signal.modality}"
        shape = (*signal.shape, signal.channels)
        if original is None or (*original.shape, original.channels) != shape:
            found = "none of this name" if original is None else f"{(*original.shape, original.channels)}"
            raise UsageError(f"{label} has the shape {shape}, the original has {found}: give the right original")
        original = in_order_of(original, signal)
        bound = stream.header.bound
        fidelity = Fidelity(original, bound)
        for begin, part in slabs_of(original):
            fidelity.add(part, signal.part(begin, begin + len(part.values)))
        if bound is not None and not fidelity.worst <= bound.limit:
            raise CorruptFile(
                f"{label} is {fidelity.max_error:g} off, beyond its bound of {bound}: obtain the file again"
            )
        psnr = round(fidelity.psnr, 4) if math.isfinite(fidelity.psnr) else None
        measured = {"psnr_db": psnr, "max_error": fidelity.max_error}
        yield measured if bound is None else measured | bound.plain() | {"of_bound": fidelity.worst / bound.limit}
