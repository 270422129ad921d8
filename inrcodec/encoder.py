"""From signals to the bytes of an `.inr` file.

The pipeline: cut the signal into context sets, adapt the fields from the shared initialization (`adapt_signal`), choose
the quantization and code the change of the parameters (`encode`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from inrcodec import metrics
from inrcodec.coding.chunk import PatchDeltas, pack_chunk
from inrcodec.coding.container import Container, Stream, pack_missing, write_container
from inrcodec.coding.header import StreamHeader
from inrcodec.coding.quantization import Quantizer, flatten
from inrcodec.coding.rate_distortion import BATCH_POINTS, choose_quantizer
from inrcodec.decoder import Resolution, decode_stream, pick_device
from inrcodec.errors import UsageError
from inrcodec.meta.adaptation import Rescaling, adapt
from inrcodec.meta.data import PatchContexts, patch_contexts
from inrcodec.meta.initialization import Initialization
from inrcodec.models import Parameters
from inrcodec.patches import Patches
from inrcodec.signals.signal import Signal
from inrcodec.targets import Target, search

CHUNK_POINTS = 1 << 20
"""Samples and parameters of a chunk, about: what must be decoded to see any of its points."""


@dataclass(frozen=True)
class EncodeOptions:
    """What a user can ask of the encoder.

    quality: 1..100, sets the trade-off of rate against distortion; ignored where a target is given.
    steps: K_test, adaptation steps on the full context.
    bits_per_sample: size of the file to aim for, in bits per sample of the signal.
    psnr: reconstruction to aim for, in dB, at the lowest rate.
    rescaling: how the full-context gradient is rescaled.
    device: "auto", "cpu" or "cuda[:n]".
    """

    quality: float = 40.0
    steps: int = 64
    bits_per_sample: float | None = None
    psnr: float | None = None
    rescaling: Rescaling = "exact"
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality}, give 1 (smallest) to 100 (best)")
        if self.steps < 0:
            raise UsageError(f"{self.steps} adaptation steps: give 0 or more")
        if self.bits_per_sample is not None and self.psnr is not None:
            raise UsageError("a rate and a PSNR cannot both be targets: give one of them")
        for name, target in (("bits per sample", self.bits_per_sample), ("PSNR", self.psnr)):
            if target is not None and not 0 < target < math.inf:
                raise UsageError(f"the target of {target} {name} is not a positive number")

    @property
    def target(self) -> Target | None:
        """What to aim for instead of a quality."""
        if self.bits_per_sample is None and self.psnr is None:
            return None
        return Target(self.bits_per_sample, self.psnr)

    @property
    def trade_off(self) -> float:
        """lambda of D + lambda R, in squared error of values in [0, 1] per bit per sample."""
        return trade_off_of_quality(self.quality)


def trade_off_of_quality(quality: float) -> float:
    """Qualities 1 to 100 to lambda, five decades apart, evenly in its logarithm."""
    return 10 ** (-1 - 5 * quality / 100)


@dataclass(frozen=True)
class Progress:
    """Where the encoding of a signal is.

    stage: "adapt", or "search" for a target.
    step: adaptation steps done of `steps` (all batches of patches together), or trials of nobody knows how many.
    psnr: in dB, of the patches not yet quantized or of the trial; rate: of the trial, in bits per sample.
    """

    stage: str
    step: int
    steps: int | None
    psnr: float | None
    rate: float | None = None


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, eq=False)
class AdaptedSignal:
    """A signal and the fields of its patches: what is left is to choose the quantization and to code.

    deltas: change of the parameters of every patch, float32 [P, n].
    """

    signal: Signal
    initialization: Initialization
    patches: Patches
    contexts: PatchContexts
    deltas: np.ndarray
    device: torch.device

    def choose(self, trade_off: float, start: Quantizer | None) -> Quantizer:
        """The quantization for a trade-off of rate against distortion."""
        return choose_quantizer(
            self.deltas, self.contexts, self.initialization, trade_off=trade_off, device=self.device, start=start
        )

    def code(self, quantizer: Quantizer) -> Stream:
        """The coded signal."""
        return pack_stream(self.signal, self.patches, self.deltas, self.contexts, quantizer, self.initialization)


class EncodedFile:
    """The file that some quantizers of some signals give.

    data: its content; rate: its bits per sample.
    """

    def __init__(self, parts: Sequence[AdaptedSignal], quantizers: Sequence[Quantizer], embed: bool) -> None:
        self.parts = parts
        self.streams = tuple(part.code(quantizer) for part, quantizer in zip(parts, quantizers, strict=True))
        carried = {part.initialization.identifier: part.initialization for part in parts} if embed else {}
        embedded = tuple(initialization.to_bytes() for initialization in carried.values())
        self.data = write_container(Container(self.streams, embedded))
        self.rate = 8 * len(self.data) / counted_samples([part.signal for part in parts])

    @cached_property
    def decoded(self) -> list[Signal]:
        """The signals as a decoder returns them."""
        return [
            decode_stream(stream, part.initialization, resolution=Resolution(), device=part.device)
            for part, stream in zip(self.parts, self.streams, strict=True)
        ]

    @property
    def psnr(self) -> float:
        """Of the main signal, in dB."""
        return metrics.psnr(self.parts[0].signal, self.decoded[0])


def counted_samples(signals: Sequence[Signal]) -> int:
    """What the bits of a file are divided by: the pixels of a picture or video, whatever goes with it; the samples of
    all sound channels or climate variables."""
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

    A target rate is that of the whole file, a target PSNR that of the first signal; all signals share one trade-off.

    embed: carry the initializations in the file, so that it decodes wherever this version of the format does.
    Returns the file's content and the signals as the decoder will return them.
    Raises: UsageError if an initialization does not fit its signal or a target is out of reach.
    """
    options = options or EncodeOptions()
    parts = [
        adapt_signal(signal, initialization, options, on_progress)
        for signal, initialization in zip(signals, initializations, strict=True)
    ]

    def choose(trade_off: float, start: tuple[Quantizer, ...] | None = None) -> tuple[Quantizer, ...]:
        starts = start or (None,) * len(parts)
        return tuple(part.choose(trade_off, before) for part, before in zip(parts, starts, strict=True))

    def code(quantizers: tuple[Quantizer, ...]) -> EncodedFile:
        return EncodedFile(parts, quantizers, embed)

    def report(trial: int, file: EncodedFile) -> None:
        if on_progress is not None:
            psnr = None if options.psnr is None else file.psnr
            on_progress(Progress("search", trial, None, psnr, file.rate))

    target = options.target
    file = code(choose(options.trade_off)) if target is None else search(target, choose, code, report)
    return file.data, file.decoded


def adapt_signal(
    signal: Signal,
    initialization: Initialization,
    options: EncodeOptions,
    on_progress: ProgressCallback | None = None,
) -> AdaptedSignal:
    """Cut a signal into context sets and adapt a field to each of them."""
    check_fit(signal, initialization)
    device = pick_device(options.device)
    patches = Patches.cover(signal.axes, initialization.patches)
    contexts = patch_contexts(signal, patches, initialization.model.out_features)
    deltas = adapt_patches(contexts, initialization, options, device, on_progress)
    return AdaptedSignal(signal, initialization, patches, contexts, deltas, device)


def check_fit(signal: Signal, initialization: Initialization) -> None:
    """Raises: UsageError if a signal cannot be shown to an initialization's field."""
    regular = sum(axis.kind != "slice" for axis in signal.axes)
    wanted = len(initialization.patches.shape)
    if regular != wanted:
        raise UsageError(
            f"the initialization is for {initialization.modality} ({wanted} axes), "
            f"the signal is {signal.modality} ({regular} axes): choose another with --init"
        )


def adapt_patches(
    contexts: PatchContexts,
    initialization: Initialization,
    options: EncodeOptions,
    device: torch.device,
    on_progress: ProgressCallback | None = None,
) -> np.ndarray:
    """Test-time adaptation of the fields of all patches; their deltas theta_K - theta_0, float32 [P, n].

    Patches are adapted as many at once as memory allows; a patch's result does not depend on the others.
    """
    theta_0 = _to(initialization.theta_0, device)
    step_sizes = _to(initialization.log_step_sizes, device)
    batches = contexts.batches(BATCH_POINTS)
    deltas = []
    for number, part in enumerate(batches):
        batch = contexts[part]

        seen: dict[int, np.ndarray] = {}

        def watch(
            step: int, _: Parameters, losses: torch.Tensor, number: int = number, seen: dict[int, np.ndarray] = seen
        ) -> None:
            if step in (0, options.steps):
                seen[step] = losses.detach().cpu().numpy()
            if on_progress is not None:
                scales = contexts[batches[number]].normalization.scales
                error = float((losses.detach().cpu().numpy() * scales**2).mean())
                done = number * options.steps + step
                on_progress(Progress("adapt", done, len(batches) * options.steps, _decibels(error)))

        theta = adapt(
            initialization.model,
            theta_0,
            step_sizes,
            batch.context(device),
            initialization.adaptation,
            steps=options.steps,
            rescaling=options.rescaling,
            on_step=watch,
        )
        delta = flatten(theta, initialization)
        # Beyond the horizon a few steps of a rare patch diverge; theta_0 is then the better field.
        delta[~(seen[options.steps] <= seen[0])] = 0
        deltas.append(delta)
    return np.concatenate(deltas)


def pack_stream(
    signal: Signal,
    patches: Patches,
    deltas: np.ndarray,
    contexts: PatchContexts,
    quantizer: Quantizer,
    initialization: Initialization,
) -> Stream:
    """Quantize and code the deltas, chunk by chunk, and describe the signal in the header."""
    per_chunk = max(1, CHUNK_POINTS // (patches.points + initialization.delta_size))
    parts = [slice(start, start + per_chunk) for start in range(0, len(patches), per_chunk)]
    chunks = tuple(
        pack_chunk(PatchDeltas(contexts.normalization[part], deltas[part]), quantizer, initialization) for part in parts
    )
    header = StreamHeader(
        modality=signal.modality,
        name=signal.name,
        initialization=initialization.identifier,
        dtype=signal.values.dtype.newbyteorder("<").str,
        axes=signal.axes,
        channels=signal.channels,
        value_range=signal.value_range,
        sphere=signal.sphere,
        steps=quantizer.steps,
        shifts=quantizer.shifts,
        patches_per_chunk=per_chunk,
        chunks=len(chunks),
        has_missing=signal.missing is not None,
        attributes=signal.attributes,
    )
    return Stream(header, chunks, None if signal.missing is None else pack_missing(signal.missing))


def _to(parameters: Parameters, device: torch.device) -> Parameters:
    return {name: value.to(device) for name, value in parameters.items()}


def _decibels(error: float) -> float:
    return math.inf if error <= 0 else -10 * math.log10(error)
