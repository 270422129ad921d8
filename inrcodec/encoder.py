"""From signals to the bytes of an `.inr` file.

The pipeline: cut the signal into patches (`prepare_signal`), adapt fields to them from the shared initialization,
choose the quantization and code (`encode_signals`). A signal is coded slab by slab: what its rows decode to is known
when the chunks of all patches around them are coded, and is compared and corrected then.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch

from inrcodec.bounds import Bound, SliceBounds
from inrcodec.coding.container import Container, Stream, write_container
from inrcodec.coding.missing import MissingWriter
from inrcodec.decoder import decode_stream
from inrcodec.device import pick_device
from inrcodec.errors import InrcodecWarning, UsageError
from inrcodec.field_codec import PreparedSignal, codec_of
from inrcodec.initialization import Initialization
from inrcodec.metrics import Fidelity
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import RenderedPatch, fits
from inrcodec.residual import bound as error_bound
from inrcodec.residual.section import pack_section
from inrcodec.resolution import Regrid, Resolution
from inrcodec.sampling import sample_of
from inrcodec.signals.lazy import AnySignal, Window, joined, slabs_of
from inrcodec.signals.signal import Signal
from inrcodec.slabs import Slabs
from inrcodec.targets import FIRST_LAMBDA, Quantization, Quantizations, search


@dataclass(frozen=True, eq=False)
class CodedSignal:
    """A coded signal. fidelity: how near what it decodes to is; decoded: that itself, if it was to be kept."""

    signal: AnySignal
    initialization: Initialization
    stream: Stream
    fidelity: Fidelity
    decoded: Signal | None

    @property
    def size(self) -> int:
        """Bytes of its chunks and its residual."""
        return sum(map(len, self.stream.chunks)) + len(self.stream.residual or b"")


class EncodedFile:
    """The file of some coded signals.

    data: its content; rate: its bits per sample; psnr: that of the main signal in dB.
    """

    def __init__(self, signals: Sequence[CodedSignal], embed: bool) -> None:
        self.signals = tuple(signals)
        carried = {part.initialization.identifier: part.initialization for part in signals} if embed else {}
        embedded = tuple(initialization.to_bytes() for initialization in carried.values())
        self.data = write_container(Container(tuple(part.stream for part in signals), embedded))
        self.rate = 8 * len(self.data) / counted_samples([part.signal for part in signals])
        self.psnr = self.signals[0].fidelity.psnr


@dataclass(frozen=True)
class SampledFile:
    """What a file would be, by samples of its signals. rate: bits per sample; psnr: that of the main signal in dB."""

    rate: float
    psnr: float

    @classmethod
    def of(cls, coded: Sequence[CodedSignal], signals: Sequence[AnySignal]) -> "SampledFile":
        """Scale what samples take to the signals that they are of."""
        bits = sum(
            8 * part.size * signal.samples / part.signal.samples for part, signal in zip(coded, signals, strict=True)
        )
        return cls(bits / counted_samples(signals), coded[0].fidelity.psnr)


def counted_samples(signals: Sequence[AnySignal]) -> int:
    """Return what the bits of a file are divided by.

    These are the pixels of a picture or video, whatever goes with it, or the samples of all sound channels or climate
    variables.
    """
    main = signals[0]
    if main.modality in ("image", "video"):
        return main.samples
    return sum(signal.samples for signal in signals if signal.modality == main.modality)


def encode(
    signals: Sequence[AnySignal],
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
    file = encode_signals(signals, initializations, options, embed=embed, keep=True, on_progress=on_progress)
    return file.data, [part.decoded for part in file.signals if part.decoded is not None]


def encode_signals(
    signals: Sequence[AnySignal],
    initializations: Sequence[Initialization],
    options: EncodeOptions | None = None,
    *,
    embed: bool = False,
    keep: bool = False,
    on_progress: ProgressCallback | None = None,
) -> EncodedFile:
    """Compress signals as `encode` does. keep: also keep what they decode to, in memory."""
    options = options or EncodeOptions()
    tolerances = options.tolerances(signals)
    for signal, tolerance in zip(signals, tolerances, strict=True):
        if tolerance is not None and isinstance(signal, Signal):
            error_bound.check_finite(signal)
    bounds = [
        None if tolerance is None else error_bound.bound_of(signal, tolerance)
        for signal, tolerance in zip(signals, tolerances, strict=True)
    ]
    prepared = [
        prepare_signal(signal if bound is None else _shown(signal, bound), initialization, options, on_progress)
        for signal, initialization, bound in zip(signals, initializations, bounds, strict=True)
    ]
    if options.target is not None:
        file = _encode_to_target(prepared, options, embed, keep, on_progress)
    else:
        coded = [
            code_signal(part, part.choose(options.trade_off, None), keep=keep)
            if bound is None
            else code_within(part, signal, bound, options, keep=keep, on_progress=on_progress)
            for part, signal, bound in zip(prepared, signals, bounds, strict=True)
        ]
        file = EncodedFile(coded, embed)
    for part, each, bound in zip(prepared, file.signals, bounds, strict=True):
        if bound is not None:
            # A promise is checked on what the bytes say, not on what is known of them.
            error_bound.check_bound(each.signal, _decoded_fidelity(each, part.device, options.processes))
    return file


def _encode_to_target(
    prepared: Sequence[PreparedSignal],
    options: EncodeOptions,
    embed: bool,
    keep: bool,
    on_progress: ProgressCallback | None,
) -> EncodedFile:
    """Search for the file nearest to a rate or a PSNR; for long signals on samples of them first."""
    target = options.target
    assert target is not None

    def chooser(parts: Sequence[PreparedSignal]) -> Callable[[float, Quantizations | None], Quantizations]:
        def choose(trade_off: float, start: Quantizations | None) -> Quantizations:
            starts = start or (None,) * len(parts)
            return tuple(part.choose(trade_off, before) for part, before in zip(parts, starts, strict=True))

        return choose

    def code_all(parts: Sequence[PreparedSignal], quantizers: Quantizations, keep: bool) -> list[CodedSignal]:
        return [code_signal(part, each, keep=keep) for part, each in zip(parts, quantizers, strict=True)]

    trials = count(1)

    def report(_: int, file: EncodedFile | SampledFile) -> None:
        if on_progress is not None:
            psnr = None if options.psnr is None else file.psnr
            on_progress(Progress("search", next(trials), None, psnr, file.rate))

    trade_off = FIRST_LAMBDA
    signals = [part.signal for part in prepared]
    samples = [sample_of(part.signal, part.initialization.patches) for part in prepared]
    if any(sample is not signal for sample, signal in zip(samples, signals, strict=True)):
        parts = [
            prepare_signal(sample, part.initialization, options, on_progress)
            for sample, part in zip(samples, prepared, strict=True)
        ]

        def try_samples(quantizers: Quantizations) -> SampledFile:
            return SampledFile.of(code_all(parts, quantizers, keep=False), signals)

        with suppress(UsageError):  # what is out of reach for a sample need not be
            _, trade_off = search(target, chooser(parts), try_samples, report)

    def code(quantizers: Quantizations) -> EncodedFile:
        return EncodedFile(code_all(prepared, quantizers, keep), embed)

    file, _ = search(target, chooser(prepared), code, report, trade_off)
    if target.far(file):
        warnings.warn(target.not_near(file), InrcodecWarning, stacklevel=4)
    return file


def code_within(
    part: PreparedSignal,
    original: AnySignal,
    bound: Bound,
    options: EncodeOptions,
    *,
    keep: bool = False,
    on_progress: ProgressCallback | None = None,
) -> CodedSignal:
    """Return the smallest coding found of which every value decodes within a bound, whatever its field's quality.

    A long signal is searched on a sample of it.
    """
    sample = sample_of(part.signal, part.initialization.patches)
    whole = sample is part.signal
    trial = (part if whole else prepare_signal(sample, part.initialization, options, on_progress)).quick()
    chosen, trials = part, 0
    quantization: Quantization | None = None

    def code(trade_off: float, how: PreparedSignal = trial) -> CodedSignal:
        nonlocal trials, quantization
        quantization = how.choose(trade_off, quantization)
        if whole:
            coded = code_signal(how, quantization, original, bound, keep=keep and trial is part)
        else:
            coded = code_signal(how, quantization, sample, Bound(bound.shown))
        trials += 1
        if on_progress is not None:
            on_progress(Progress("search", trials, None, None, 8 * coded.size / sample.samples))
        return coded

    trade_off = error_bound.start_trade_off(part.signal, bound)
    with nullcontext() if whole else suppress(UsageError):  # the sample may have what the whole has not
        trade_off, coded = error_bound.best_trade_off(code, trade_off)
        shown_bound = error_bound.shown_bound(part.signal, bound)
        mindful = trial.corrected(shown_bound)
        if mindful is not trial:
            # Where a residual is dense, fewer large errors are not worth the bits.
            other = code(trade_off, mindful)
            if other.size < coded.size:
                coded, chosen = other, part.corrected(shown_bound)
        if trial is part:
            return coded
    # What suits a sample need not suit all of the signal.
    quantization = chosen.choose(trade_off, quantization if whole else None)
    return code_signal(chosen, quantization, original, bound, keep=keep)


def code_signal(
    prepared: PreparedSignal,
    quantization: Quantization,
    original: AnySignal | None = None,
    bound: Bound | None = None,
    *,
    keep: bool = False,
) -> CodedSignal:
    """Code a signal, part by part, and compare what it decodes to.

    original: what to compare with, where that is not the signal that fields show. bound: what a residual is made for.
    keep: whether the decoded signal is kept.
    Raises: UsageError if the bound is impossible.
    """
    original = original or prepared.signal
    header = prepared.header(quantization)
    if bound is not None:
        dtype = original.dtype.newbyteorder("<").str
        header = replace(header, dtype=dtype, value_range=original.value_range, bound=bound)
    grid = Regrid(header.axes, header.axes)
    rows = Window(original)
    shown = rows
    if bound is not None and bound.shown_on_scale:
        shown = Window(
            prepared.signal if isinstance(prepared.signal, Signal) else error_bound.on_scale(original, bound, rows)
        )
    chunks: list[bytes] = []
    residuals: list[bytes] = []
    missing = MissingWriter()
    fidelity = Fidelity(original, bound)
    kept: list[np.ndarray] = []
    slabs = Slabs(header, header.axes)
    margin = codec_of(prepared.initialization).machine_margin

    def rendered() -> Iterator[RenderedPatch]:
        for coded in prepared.code(quantization, shown, prepared.patches.resampled(grid.finer)):
            if isinstance(coded, bytes):
                chunks.append(coded)
            else:
                yield coded

    for number, values in enumerate(slabs.joined(rendered(), prepared.patches, grid)):
        begin, end = slabs.span(number)
        before = rows.part(begin, end)
        after = replace(before, values=values)
        if bound is not None:
            exact = partial(slabs.exact, number=number)
            residual, after = error_bound.corrected_slab(before, after, exact, bound, begin, margin)
            residuals.append(residual)
        if before.missing is not None:
            missing.add(before.missing)
        fidelity.add(before, after)
        if keep:
            kept.append(after.values)
        rows.done(end)
        shown.done(end)
    stream = Stream(
        header,
        tuple(chunks),
        missing.finish() if original.has_missing else None,
        None if bound is None else pack_section(residuals),
    )
    decoded = None
    if keep:
        decoded = replace(original.loaded(), values=joined(kept), slice_ranges=header.slice_ranges)
    return CodedSignal(original, prepared.initialization, stream, fidelity, decoded)


def _shown(signal: AnySignal, bound: Bound) -> AnySignal:
    """Return what fields show of a signal with a bound."""
    # An error in the unit of the values need not be smaller in slices of a smaller range.
    own = isinstance(bound, SliceBounds)
    return error_bound.on_scale(signal if own else replace(signal, slice_ranges=None), bound)


def _decoded_fidelity(coded: CodedSignal, device: torch.device, processes: int) -> Fidelity:
    """Compare what a decoder makes of a coded signal."""
    decoded = decode_stream(
        coded.stream, coded.initialization, resolution=Resolution(), device=device, processes=processes
    )
    fidelity = Fidelity(coded.signal, coded.stream.header.bound)
    for begin, part in slabs_of(coded.signal):
        fidelity.add(part, decoded.part(begin, begin + len(part.values)))
    return fidelity


def prepare_signal(
    signal: AnySignal,
    initialization: Initialization,
    options: EncodeOptions,
    on_progress: ProgressCallback | None = None,
) -> PreparedSignal:
    """Cut a signal into context sets and adapt a field to each of them."""
    check_fit(signal, initialization)
    return codec_of(initialization).prepare(signal, initialization, options, pick_device(options.device), on_progress)


def check_fit(signal: AnySignal, initialization: Initialization) -> None:
    """Raises: UsageError if a signal cannot be shown to an initialization's field."""
    regular = sum(axis.kind != "slice" for axis in signal.axes)
    wanted = len(initialization.patches.shape)
    if not fits(signal.axes, initialization.patches):
        raise UsageError(
            f"the initialization is for {initialization.modality} ({wanted} axes), "
            f"the signal is {signal.modality} ({regular} axes): choose another with --init"
        )
