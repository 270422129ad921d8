"""Files to `.inr` files and back: what the command line does for each of its arguments."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inrcodec.coding.container import read_container
from inrcodec.decoder import SAMPLES, open_container
from inrcodec.device import pick_device
from inrcodec.encoder import CodedSignal, counted_samples, encode_signals
from inrcodec.errors import ContainerError, InitializationError, SignalError, UsageError
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.options import EncodeOptions, ProgressCallback
from inrcodec.registry import default_initialization
from inrcodec.resolution import Resolution
from inrcodec.signals import check_writable, default_extension, opened, write, write_whole
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.reading_errors import files_label

NAMED_FIELDS = 3
"""Variables of a file that a message names."""


@dataclass(frozen=True)
class EncodeReport:
    """The outcome of encoding a file, measured on the file and on what its decoder returns.

    input: its name, the first and the last of a series, or "the dataset".

    A sample is a pixel, a video pixel, an audio sample of one channel, or a grid point. `bytes` is the size of the
    file, `samples` and the measures are of the main signal; `signals` has those of every signal in the file, and of
    those with a bound on their error the largest error "max_error", the bound ("bound", "smallest_bound" where slices
    have their own, "bound_share" of each value) and how much of it is used ("of_bound", at most 1).
    ratio: bytes of the uncompressed values of all signals over `bytes`.
    """

    input: str
    output: str
    modality: str
    field: str
    initialization: str
    bytes: int
    samples: int
    bits_per_sample: float
    ratio: float
    steps: int
    seconds: float
    device: str
    signals: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; measures that are infinite (a lossless result) become None."""
        main = {key: value for key, value in self.signals[0].items() if key not in ("name", "modality", "samples")}
        return {**vars(self), "signals": list(self.signals), **main}


def encode_file(
    path: Path | Sequence[Path],
    output: Path,
    options: EncodeOptions | None = None,
    *,
    series: str | None = None,
    initialization: Initialization | None = None,
    field: str | None = None,
    modality: str | None = None,
    embed: bool = False,
    on_progress: ProgressCallback | None = None,
) -> EncodeReport:
    """Encode a file, or several climate files as one; the output appears whole or not at all.

    series: the dimension along which several files follow each other, as "time"; `path` has them in this order.
    initialization: for the signals of its modality, instead of the installed one. field: choose the installed
    initialization by its field. modality: read the file as this, whatever its name.
    Raises: SignalError, UnknownInitialization, UsageError; the last also for climate fields of which the options do not
        say how near they shall be.
    """
    began = time.perf_counter()
    name = files_label([path] if isinstance(path, Path) else path)
    with opened(path, modality, series) as signals:
        return encode_opened(
            signals,
            name,
            output,
            options or EncodeOptions(),
            initialization=initialization,
            field=field,
            embed=embed,
            on_progress=on_progress,
            began=began,
        )


def encode_opened(
    signals: Sequence[AnySignal],
    name: str,
    output: Path,
    options: EncodeOptions,
    *,
    initialization: Initialization | None,
    field: str | None,
    embed: bool,
    on_progress: ProgressCallback | None,
    began: float,
) -> EncodeReport:
    """Encode what was opened. name: what messages call it. began: when it was, by `time.perf_counter`.

    Other arguments and errors as for `encode_file`.
    """
    if signals[0].modality == "climate" and options.leaves_open:
        raise UsageError(f"{name}: {_suggestion(signals)}")
    chosen = [_initialization(signal, signals[0].modality, initialization, field) for signal in signals]
    file = encode_signals(signals, chosen, options, embed=embed, on_progress=on_progress)
    samples = counted_samples(signals)
    size = len(file.data)
    write_whole(output, lambda temporary: temporary.write_bytes(file.data))
    return EncodeReport(
        input=name,
        output=str(output),
        modality=signals[0].modality,
        field=chosen[0].field.name,
        initialization=chosen[0].identifier.hex(),
        bytes=size,
        samples=samples,
        bits_per_sample=8 * size / samples,
        ratio=sum(signal.samples * signal.channels * signal.dtype.itemsize for signal in signals) / size,
        steps=codec_of(chosen[0]).steps(options, chosen[0]),
        seconds=time.perf_counter() - began,
        device=str(pick_device(options.device)),
        signals=tuple(measures(coded, size) for coded in file.signals),
    )


def measures(coded: CodedSignal, size: int) -> dict[str, Any]:
    """Return name, samples and fidelity of one coded signal. size: that of the whole file, in bytes."""
    original, fidelity, bound = coded.signal, coded.fidelity, coded.stream.header.bound
    result: dict[str, Any] = {
        "name": original.name,
        "modality": original.modality,
        "samples": original.samples,
        "psnr_db": _finite(fidelity.psnr),
    }
    if original.modality == "audio":
        result["snr_db"] = _finite(fidelity.snr)
        timed = next((axis for axis in original.axes if axis.rate is not None), None)
        if timed is not None and timed.rate is not None:
            result["kbps"] = 8 * size / 1000 / float(timed.size / timed.rate)
    if original.modality == "climate":
        result["rmse"] = math.sqrt(fidelity.mean_squared_error)
        errors = fidelity.slice_errors
        if len(errors) > 1:
            worst = int(errors.argmax())
            result["worst_slice"] = worst
            result["worst_slice_rmse"] = errors[worst] * _span(original, worst)
            result["worst_slice_psnr_db"] = _finite(-20 * math.log10(errors[worst])) if errors[worst] else None
    if original.modality == "climate" or bound is not None:
        result["max_error"] = fidelity.max_error
    if bound is not None:
        result |= bound.plain() | {"of_bound": fidelity.worst / bound.limit}
    return result


def _span(signal: AnySignal, number: int) -> float:
    """Return the value range of a slice that errors are shares of."""
    low, high = signal.value_range if signal.slice_ranges is None else signal.slice_ranges[number]
    return float(high - low)


def decode_file(
    path: Path,
    output: Path | None = None,
    *,
    resolution: Resolution | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    skip_damaged: bool = False,
    device: str = "auto",
    processes: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> Path:
    """Decode an `.inr` file; returns where the result is.

    output: its extension chooses the format; None is beside the input, in the modality's own format, where nothing
        may stand in the way. Other arguments as for `decode`.
    Raises: ContainerError, UnknownInitialization, UsageError, SignalError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SignalError(f"cannot read {path}: {error.strerror}") from error
    try:
        container = read_container(data, skip_damaged=skip_damaged)
        if output is not None:
            check_writable(container.streams[0].header.modality, output)
        if output is None:
            output = path.with_suffix(default_extension(container.streams[0].header.modality))
            if output.exists():
                raise UsageError(f"{output} is there already: say where to write with -o")
        signals = open_container(
            container,
            resolution=resolution,
            initializations=initializations,
            max_samples=max_samples,
            device=device,
            processes=processes,
            on_progress=on_progress,
        )
        write(signals, output)
    except (ContainerError, InitializationError) as error:
        raise type(error)(f"{path}: {error}") from error
    return output


def _suggestion(signals: Sequence[AnySignal]) -> str:
    """Return what to say where nobody said how near climate fields shall be: how to, with a thousandth of ranges."""
    bounds = []
    for signal in signals[:NAMED_FIELDS]:
        low, high = signal.value_range
        bounds.append(f"--max-error {signal.name}={float(f'{(high - low) / 1000:.0e}'):g}")
    more = ", and others" if len(signals) > NAMED_FIELDS else ""
    return (
        f"say how far values may be off, in the unit of each variable, for a start {' '.join(bounds)}{more}; or give "
        "--quality for a file without such a promise"
    )


def _initialization(signal: AnySignal, main: str, given: Initialization | None, field: str | None) -> Initialization:
    if given is not None and signal.modality == given.modality:
        return given
    if given is not None and signal.modality == main:
        raise UsageError(f"the initialization is for {given.modality}, the signal is {signal.modality}")
    return default_initialization(signal.modality, field if signal.modality == main else None)


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
