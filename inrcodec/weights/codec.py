"""The codec of weight-coded fields: adapt a network to each patch, code its delta; and back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inrcodec.coding.container import header_of
from inrcodec.coding.header import StreamHeader
from inrcodec.errors import CorruptFile
from inrcodec.field_values import signal_channels
from inrcodec.initialization import Initialization
from inrcodec.models import Parameters
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import Patches, PatchSamples, RenderedPatch, patch_layout, unknown_patch
from inrcodec.settings import Rescaling
from inrcodec.signals.lazy import AnySignal, Window
from inrcodec.weights.adaptation import adapt
from inrcodec.weights.chunk import PatchDeltas, pack_chunk, read_symbols, unpack_chunk
from inrcodec.weights.context_set import PatchContextSets, patch_context_sets
from inrcodec.weights.model import WeightModel
from inrcodec.weights.quantization import Quantizer
from inrcodec.weights.quantizer_search import BATCH_POINTS, choose_quantizer

STEPS = {"instant": 4, "fast": 16, "default": 64, "high": 256}
"""Adaptation steps of every effort."""

CHUNK_POINTS = 1 << 20
"""Samples and parameters of a chunk, about: what must be decoded to see any of its points."""

MAX_CHUNK_SIZE = 1 << 26
"""Samples and parameters of a chunk that a decoder accepts: a small file must not make it allocate without bound."""


class WeightCodec:
    """The `FieldCodec` of weight-coded fields, whose networks compute in floating point."""

    machine_margin = 2.0**-18

    def steps(self, options: EncodeOptions, initialization: Initialization) -> int:
        """Return K_test."""
        return STEPS[options.effort] if options.steps is None else options.steps

    def prepare(
        self,
        signal: AnySignal,
        initialization: Initialization,
        options: EncodeOptions,
        device: torch.device,
        on_progress: ProgressCallback | None = None,
    ) -> "AdaptedWeights":
        """Cut a signal into context sets and adapt a field to each of them."""
        model = WeightModel.of(initialization)
        patches = Patches.cover(signal.axes, initialization.patches)
        context_sets = patch_context_sets(signal, patches, model.field.out_features)
        steps = self.steps(options, initialization)
        deltas = adapt_patches(
            context_sets, model, device, steps=steps, rescaling=options.rescaling or "exact", on_progress=on_progress
        )
        return AdaptedWeights(signal, initialization, model, patches, context_sets, deltas, device)

    def open(self, header: StreamHeader, initialization: Initialization, device: torch.device) -> "WeightReader":
        """Prepare to decode a stream.

        Raises: CorruptFile if the header's coding parameters or chunks cannot be those of the initialization's fields.
        """
        model = WeightModel.of(initialization)
        quantizer = Quantizer.from_bytes(header.coding, len(model.adapted))
        patches, shape = patch_layout(header.axes, initialization.patches)
        size = math.prod(shape) + model.delta_size
        if min(patches, header.patches_per_chunk) * size > MAX_CHUNK_SIZE:
            raise CorruptFile(
                f"a chunk of the signal {header.name!r} has {header.patches_per_chunk} patches of {size} samples and "
                f"parameters, more than {MAX_CHUNK_SIZE} in all"
            )
        return WeightReader(header, model, quantizer, Patches.cover(header.axes, initialization.patches), device)


@dataclass(frozen=True, eq=False)
class AdaptedWeights:
    """A signal and the fields of its patches: what is left is to choose the quantization and to code.

    deltas: change of the parameters of every patch, float32 [P, n].
    """

    signal: AnySignal
    initialization: Initialization
    model: WeightModel
    patches: Patches
    context_sets: PatchContextSets
    deltas: np.ndarray
    device: torch.device

    def choose(self, trade_off: float, start: Quantizer | None) -> Quantizer:
        """Return the quantizer for a trade-off of rate against distortion."""
        return choose_quantizer(
            self.deltas, self.context_sets, self.model, trade_off=trade_off, device=self.device, start=start
        )

    def header(self, quantizer: Quantizer) -> StreamHeader:
        """Return the header of the coded signal."""
        chunks = -(-len(self.patches) // self._patches_per_chunk)
        identifier = self.initialization.identifier
        return header_of(self.signal, identifier, quantizer.to_bytes(), self._patches_per_chunk, chunks)

    def code(
        self, quantizer: Quantizer, rows: Window, samples: Iterator[PatchSamples]
    ) -> Iterator[bytes | RenderedPatch]:
        """Quantize and code the deltas, chunk by chunk; see `PreparedSignal.code`."""
        reader = WeightCodec().open(self.header(quantizer), self.initialization, self.device)
        normalization = self.context_sets.normalization
        for start in range(0, len(self.patches), self._patches_per_chunk):
            part = slice(start, start + self._patches_per_chunk)
            chunk = pack_chunk(PatchDeltas(normalization[part], self.deltas[part]), quantizer, self.model)
            yield chunk
            yield from reader.rendered(chunk, len(self.deltas[part]), samples)

    @property
    def _patches_per_chunk(self) -> int:
        return max(1, CHUNK_POINTS // (self.patches.points + self.model.delta_size))

    def quick(self) -> "AdaptedWeights":
        """Return the same, which is adapted already."""
        return self

    def corrected(self, bound: float) -> "AdaptedWeights":
        """Return the same, which is adapted already."""
        return self


def adapt_patches(
    context_sets: PatchContextSets,
    model: WeightModel,
    device: torch.device,
    *,
    steps: int,
    rescaling: Rescaling = "exact",
    on_progress: ProgressCallback | None = None,
) -> np.ndarray:
    """Adapt the fields of all patches; return their deltas theta_K - theta_0, float32 [P, n].

    Patches are adapted as many at once as memory allows; a patch's result does not depend on the others.
    """
    theta_0, step_sizes = (
        {name: value.to(device) for name, value in tensors.items()} for tensors in (model.theta_0, model.log_step_sizes)
    )
    batches = context_sets.batches(BATCH_POINTS)
    deltas = []
    for number, part in enumerate(batches):
        batch = context_sets[part]
        watch = _Watch(number, len(batches), steps, batch.normalization.scales, on_progress)
        theta = adapt(
            model.field,
            theta_0,
            step_sizes,
            batch.context_set(device),
            model.adaptation,
            steps=steps,
            rescaling=rescaling,
            on_step=watch,
        )
        delta = model.deltas(theta)
        # Beyond the horizon a few steps of a rare patch diverge; theta_0 is then the better field.
        delta[~(watch.losses[steps] <= watch.losses[0])] = 0
        deltas.append(delta)
    return np.concatenate(deltas)


class _Watch:
    """Keeps the first and the last losses of a batch's adaptation, and reports its progress."""

    def __init__(
        self, batch: int, batches: int, steps: int, scales: np.ndarray, on_progress: ProgressCallback | None
    ) -> None:
        self.losses: dict[int, np.ndarray] = {}
        self._batch, self._batches, self._steps = batch, batches, steps
        self._scales, self._on_progress = scales, on_progress

    def __call__(self, step: int, theta: Parameters, losses: torch.Tensor) -> None:
        values = losses.detach().cpu().numpy()
        if step in (0, self._steps):
            self.losses[step] = values
        if self._on_progress is not None:
            error = float((values * self._scales**2).mean())
            done = self._batch * self._steps + step
            self._on_progress(Progress("adapt", done, self._batches * self._steps, _decibels(error)))


def _decibels(error: float) -> float:
    return math.inf if error <= 0 else -10 * math.log10(error)


@dataclass(frozen=True, eq=False)
class WeightReader:
    """The `StreamReader` of weight-coded fields."""

    header: StreamHeader
    model: WeightModel
    quantizer: Quantizer
    patches: Patches
    device: torch.device

    def symbols(self, chunks: Sequence[bytes]) -> Iterator[list[np.ndarray]]:
        """Decode the integers of one chunk after the other: exponents, means and symbols of its patches."""
        for number, chunk in enumerate(chunks):
            normalization, symbols = read_symbols(
                chunk, self.header.patches_in(number, len(self.patches)), self.quantizer, self.model
            )
            yield [normalization.exponents, normalization.means, symbols]

    def render(
        self,
        chunks: Sequence[bytes],
        samples: Iterator[PatchSamples],
        damaged: frozenset[int] = frozenset(),
        processes: int = 1,
        numbers: Sequence[int] | None = None,
    ) -> Iterator[RenderedPatch]:
        """Yield the fields' values in [0, 1] where every patch asks for `samples`; this process does it all."""
        for number in range(len(chunks)) if numbers is None else numbers:
            chunk, count = chunks[number], self.header.patches_in(number, len(self.patches))
            if number in damaged:
                yield from (unknown_patch(next(samples), self.header.channels) for _ in range(count))
                continue
            yield from self.rendered(chunk, count, samples)

    def rendered(self, chunk: bytes, count: int, samples: Iterator[PatchSamples]) -> Iterator[RenderedPatch]:
        """Yield the values of the fields of one chunk, of so many patches, as `render`."""
        patches = unpack_chunk(chunk, count, self.quantizer, self.model)
        for asked, values in self._rendered(patches, samples):
            yield asked, signal_channels(values, self.header.channels)

    def _rendered(self, patches: PatchDeltas, samples: Iterator[PatchSamples]) -> Iterator[RenderedPatch]:
        """Ask the fields of a chunk where the grid asks for them; small ones are evaluated together."""
        count = len(patches.deltas)
        start = 0
        while start < count:
            asked = [next(samples)]
            while start + len(asked) < count and len(asked) * len(asked[0].coordinates) < BATCH_POINTS:
                asked.append(next(samples))
            part = slice(start, start + len(asked))
            fields = PatchDeltas(patches.normalization[part], patches.deltas[part])
            yield from zip(asked, self._evaluate(fields, asked), strict=True)
            start = part.stop

    def _evaluate(self, patches: PatchDeltas, asked: list[PatchSamples]) -> list[np.ndarray]:
        """Return the values in [0, 1] of one field per patch at the points asked of it, which may differ in number."""
        field = self.model.field
        longest = max(len(patch.coordinates) for patch in asked)
        coordinates = np.zeros((len(asked), longest, field.in_features), np.float32)
        for row, patch in zip(coordinates, asked, strict=True):
            row[: len(patch.coordinates)] = patch.coordinates
        parameters = self.model.parameters(patches.deltas, self.device)
        shown = np.empty((len(asked), longest, field.out_features), np.float32)
        block = max(1, BATCH_POINTS // len(asked))
        with torch.no_grad():
            for start in range(0, longest, block):
                part = torch.from_numpy(coordinates[:, start : start + block]).to(self.device)
                shown[:, start : start + block] = field(parameters, part).cpu().numpy()
        values = patches.normalization.invert(shown)
        return [row[: len(patch.coordinates)] for row, patch in zip(values, asked, strict=True)]
