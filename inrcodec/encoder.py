"""From signals to the bytes of an `.inr` file.

The pipeline: cut the signal into patches (`prepare_signal`), adapt fields to them from the shared initialization,
choose the quantization and code (`encode`).
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from inrcodec import metrics
from inrcodec.coding.container import Container, Stream, write_container
from inrcodec.decoder import Resolution, decode_stream
from inrcodec.device import pick_device
from inrcodec.errors import InrcodecWarning, UsageError
from inrcodec.field_codec import PreparedSignal, codec_of
from inrcodec.initialization import Initialization
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import fits
from inrcodec.residual import bound as error_bound
from inrcodec.signals.signal import Signal
from inrcodec.targets import Quantization, search


class EncodedFile:
    """The file of the streams of some signals.

    data: its content; rate: its bits per sample; psnr: that of the main signal in dB, decoded when first asked for.
    """

    def __init__(self, prepared: Sequence[PreparedSignal], streams: Sequence[Stream], embed: bool) -> None:
        self.prepared = prepared
        self.streams = tuple(streams)
        carried = {part.initialization.identifier: part.initialization for part in prepared} if embed else {}
        embedded = tuple(initialization.to_bytes() for initialization in carried.values())
        self.data = write_container(Container(self.streams, embedded))
        self.rate = 8 * len(self.data) / counted_samples([part.signal for part in prepared])

    @cached_property
    def psnr(self) -> float:
        return metrics.psnr(self.prepared[0].signal, _decoded(self.prepared[0], self.streams[0]))


def counted_samples(signals: Sequence[Signal]) -> int:
    """Return what the bits of a file are divided by.

    These are the pixels of a picture or video, whatever goes with it, or the samples of all sound channels or climate
    variables.
    """
    main = signals[0]
    if main.modality in ("image", "video"):
        return main.samples
    return sum(signal.samples for signal in signals if signal.modality == main.modality)


def encode(
    signals: Sequence[Signal],
    initializations: Sequence[Initialization],
    options: EncodeOptions | None = None,
    *,
    embed: bool = False,
    on_progress: ProgressCallback | None = None,
) -> tuple[bytes, list[Signal]]:
    """Compress signals, each from its own initialization, into one `.inr` file.

    A target rate is that of the whole file, a target PSNR that of the first signal; all signals share one trade-off,
    but those with a bound on their error have each the one that makes it smallest.

    embed: carry the initializations in the file, so that it decodes wherever this version of the format does.
    Returns the file's content and the signals as the decoder will return them.
    Raises: UsageError if an initialization does not fit its signal, a target is out of reach or a bound impossible.
    """
    options = options or EncodeOptions()
    bounds = options.bounds(signals)
    for signal, bound in zip(signals, bounds, strict=True):
        if bound is not None:
            error_bound.check_finite(signal)
    prepared = [
        # A bound is in the unit of the values, so that slices of a smaller range need not be coded more finely.
        prepare_signal(
            signal if bound is None else replace(signal, slice_ranges=None), initialization, options, on_progress
        )
        for signal, initialization, bound in zip(signals, initializations, bounds, strict=True)
    ]

    def choose(trade_off: float, start: tuple[Quantization, ...] | None = None) -> tuple[Quantization, ...]:
        starts = start or (None,) * len(prepared)
        return tuple(part.choose(trade_off, before) for part, before in zip(prepared, starts, strict=True))

    def code(quantizers: tuple[Quantization, ...]) -> EncodedFile:
        return EncodedFile(prepared, [part.code(each) for part, each in zip(prepared, quantizers, strict=True)], embed)

    def report(trial: int, file: EncodedFile) -> None:
        if on_progress is not None:
            psnr = None if options.psnr is None else file.psnr
            on_progress(Progress("search", trial, None, psnr, file.rate))

    if options.target is not None:
        file = search(options.target, choose, code, report)
        if options.target.far(file):
            warnings.warn(options.target.not_near(file), InrcodecWarning, stacklevel=2)
    else:
        streams = [
            part.code(part.choose(options.trade_off, None))
            if bound is None
            else code_within(part, bound, options, on_progress)
            for part, bound in zip(prepared, bounds, strict=True)
        ]
        file = EncodedFile(prepared, streams, embed)
    decoded = []
    for signal, part, stream, bound in zip(signals, prepared, file.streams, bounds, strict=True):
        if bound is None:
            decoded.append(_decoded(part, stream))
            continue
        # A promise is checked on what the bytes say, not on what is known of them.
        after = decode_stream(stream, part.initialization, resolution=Resolution(), device=part.device)
        error_bound.check_bound(signal, after, bound)
        decoded.append(after)
    return file.data, decoded


def code_within(
    part: PreparedSignal, max_error: float, options: EncodeOptions, on_progress: ProgressCallback | None = None
) -> Stream:
    """Return the smallest stream found of which every value decodes within a bound, whatever its field's quality."""
    searched = error_bound.searched_part(part.signal)
    sample = part
    if searched is not part.signal:
        sample = prepare_signal(searched, part.initialization, options, on_progress)
    trial = sample.quick()
    trials = 0
    quantization: Quantization | None = None

    def code(trade_off: float, of: PreparedSignal = trial) -> Stream:
        nonlocal trials, quantization
        quantization = of.choose(trade_off, quantization)
        stream = of.code(quantization)
        stream = error_bound.with_residual(stream, of.signal, _decoded(of, stream), max_error)
        trials += 1
        if on_progress is not None:
            rate = 8 * error_bound.stream_bytes(stream) / of.signal.samples
            on_progress(Progress("search", trials, None, None, rate))
        return stream

    trade_off, stream = error_bound.best_trade_off(code, error_bound.start_trade_off(part.signal, max_error))
    return stream if trial is part else code(trade_off, part)


def _decoded(part: PreparedSignal, stream: Stream) -> Signal:
    """Return the signal of a stream as a decoder returns it, from what is known of it."""
    return decode_stream(
        stream, part.initialization, resolution=Resolution(), device=part.device, reader=part.reader(stream)
    )


def prepare_signal(
    signal: Signal,
    initialization: Initialization,
    options: EncodeOptions,
    on_progress: ProgressCallback | None = None,
) -> PreparedSignal:
    """Cut a signal into context sets and adapt a field to each of them."""
    check_fit(signal, initialization)
    return codec_of(initialization).prepare(signal, initialization, options, pick_device(options.device), on_progress)


def check_fit(signal: Signal, initialization: Initialization) -> None:
    """Raises: UsageError if a signal cannot be shown to an initialization's field."""
    regular = sum(axis.kind != "slice" for axis in signal.axes)
    wanted = len(initialization.patches.shape)
    if not fits(signal.axes, initialization.patches):
        raise UsageError(
            f"the initialization is for {initialization.modality} ({wanted} axes), "
            f"the signal is {signal.modality} ({regular} axes): choose another with --init"
        )
