"""Weight-coded fields: a network per patch, of which the change from theta_0 is coded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from inrcodec.coding.chunk import PatchDeltas, pack_chunk, unpack_chunk
from inrcodec.coding.container import Stream, stream_of
from inrcodec.coding.header import StreamHeader
from inrcodec.coding.quantization import Quantizer, flatten, unflatten
from inrcodec.coding.rate_distortion import BATCH_POINTS, choose_quantizer
from inrcodec.errors import CorruptFile
from inrcodec.meta.adaptation import adapt
from inrcodec.meta.data import PatchContexts, patch_contexts, signal_channels
from inrcodec.meta.initialization import Initialization
from inrcodec.models import Parameters
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import MAX_CHUNK_SIZE, Patches, PatchSamples, RenderedPatch, patch_layout
from inrcodec.signals.signal import Signal

STEPS = {"fast": 16, "default": 64, "high": 256}
"""Adaptation steps of every effort."""

CHUNK_POINTS = 1 << 20
"""Samples and parameters of a chunk, about: what must be decoded to see any of its points."""


@dataclass(frozen=True, eq=False)
class AdaptedWeights:
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


def adapt_weights(
    signal: Signal,
    initialization: Initialization,
    options: EncodeOptions,
    device: torch.device,
    on_progress: ProgressCallback | None = None,
) -> AdaptedWeights:
    """Cut a signal into context sets and adapt a field to each of them."""
    patches = Patches.cover(signal.axes, initialization.patches)
    contexts = patch_contexts(signal, patches, initialization.model.out_features)
    deltas = adapt_patches(contexts, initialization, options, device, on_progress)
    return AdaptedWeights(signal, initialization, patches, contexts, deltas, device)


def adaptation_steps(options: EncodeOptions) -> int:
    return STEPS[options.effort] if options.steps is None else options.steps


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
    steps = adaptation_steps(options)
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
            if step in (0, steps):
                seen[step] = losses.detach().cpu().numpy()
            if on_progress is not None:
                scales = contexts[batches[number]].normalization.scales
                error = float((losses.detach().cpu().numpy() * scales**2).mean())
                done = number * steps + step
                on_progress(Progress("adapt", done, len(batches) * steps, _decibels(error)))

        theta = adapt(
            initialization.model,
            theta_0,
            step_sizes,
            batch.context(device),
            initialization.adaptation,
            steps=steps,
            rescaling=options.rescaling,
            on_step=watch,
        )
        delta = flatten(theta, initialization)
        # Beyond the horizon a few steps of a rare patch diverge; theta_0 is then the better field.
        delta[~(seen[steps] <= seen[0])] = 0
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
    return stream_of(signal, initialization.identifier, quantizer.steps, quantizer.shifts, per_chunk, chunks)


def _to(parameters: Parameters, device: torch.device) -> Parameters:
    return {name: value.to(device) for name, value in parameters.items()}


def _decibels(error: float) -> float:
    return math.inf if error <= 0 else -10 * math.log10(error)


def check_header(header: StreamHeader, initialization: Initialization) -> None:
    """Raises: CorruptFile if a header's quantization or chunks cannot be those of the initialization's fields."""
    if len(header.steps) != len(initialization.adapted) or len(header.shifts) != len(initialization.adapted):
        raise CorruptFile(
            f"the signal {header.name!r} has {len(header.steps)} quantization steps, its initialization "
            f"{len(initialization.adapted)} tensors"
        )
    patches, shape = patch_layout(header.axes, initialization.patches)
    size = math.prod(shape) + initialization.delta_size
    if min(patches, header.patches_per_chunk) * size > MAX_CHUNK_SIZE:
        raise CorruptFile(
            f"a chunk of the signal {header.name!r} has {header.patches_per_chunk} patches of {size} samples and "
            f"parameters, more than {MAX_CHUNK_SIZE} in all"
        )


def render(
    stream: Stream,
    initialization: Initialization,
    patches: Patches,
    samples: Iterator[PatchSamples],
    device: torch.device,
) -> Iterator[RenderedPatch]:
    """Decode a stream: the fields' values in [0, 1] where every patch asks for `samples`."""
    for deltas in _chunks(stream, initialization, len(patches)):
        for asked, values in _rendered(deltas, samples, initialization, device):
            yield asked, signal_channels(values, stream.header.channels)


def _chunks(stream: Stream, initialization: Initialization, patches: int) -> Iterator[PatchDeltas]:
    header = stream.header
    quantizer = Quantizer(header.steps, header.shifts)
    for number, chunk in enumerate(stream.chunks):
        count = min(header.patches_per_chunk, patches - number * header.patches_per_chunk)
        yield unpack_chunk(chunk, count, quantizer, initialization)


def _rendered(
    patches: PatchDeltas, samples: Iterator[PatchSamples], initialization: Initialization, device: torch.device
) -> Iterator[RenderedPatch]:
    """The fields of a chunk where the grid asks for them; small ones are evaluated together."""
    count = len(patches.deltas)
    start = 0
    while start < count:
        asked = [next(samples)]
        while start + len(asked) < count and len(asked) * len(asked[0].coordinates) < BATCH_POINTS:
            asked.append(next(samples))
        part = slice(start, start + len(asked))
        fields = PatchDeltas(patches.normalization[part], patches.deltas[part])
        yield from zip(asked, _evaluate(fields, asked, initialization, device), strict=True)
        start = part.stop


def _evaluate(
    patches: PatchDeltas, asked: list[PatchSamples], initialization: Initialization, device: torch.device
) -> list[np.ndarray]:
    """Values in [0, 1] of one field per patch at the points asked of it, which may differ in number."""
    longest = max(len(patch.coordinates) for patch in asked)
    coordinates = np.zeros((len(asked), longest, initialization.model.in_features), np.float32)
    for row, patch in zip(coordinates, asked, strict=True):
        row[: len(patch.coordinates)] = patch.coordinates
    parameters = unflatten(patches.deltas, initialization, device)
    shown = np.empty((len(asked), longest, initialization.model.out_features), np.float32)
    block = max(1, BATCH_POINTS // len(asked))
    with torch.no_grad():
        for start in range(0, longest, block):
            part = torch.from_numpy(coordinates[:, start : start + block]).to(device)
            shown[:, start : start + block] = initialization.model(parameters, part).cpu().numpy()
    values = patches.normalization.invert(shown)
    return [row[: len(patch.coordinates)] for row, patch in zip(values, asked, strict=True)]
