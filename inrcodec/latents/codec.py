"""The codec of latent fields: adapt the latents of each patch, code their symbols; and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch

from inrcodec.coding.container import Stream, stream_of
from inrcodec.coding.header import StreamHeader
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.field_values import check_channels, field_channels, signal_channels, unit_values
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import best_variant
from inrcodec.latents.clip_coder import ClipCoder
from inrcodec.latents.coder import (
    MAX_AT_ONCE,
    MAX_LATENTS,
    MAX_STEP_INDEX,
    MIN_STEP_INDEX,
    AdaptationPlan,
    LatentCoder,
    TransformCoder,
)
from inrcodec.latents.model import LatentModel, field_of
from inrcodec.latents.objective import step_index_of_trade_off
from inrcodec.latents.sequence_coder import SeriesCoder
from inrcodec.models import Grid, LatentClip, LatentSeries
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import Patches, PatchSamples, RenderedPatch, patch_layout, unknown_patch
from inrcodec.signals.signal import Signal

CHUNK_POINTS = 1 << 18
"""Samples of a chunk, about, where patches are smaller."""

MAX_CHUNK_LATENTS = 1 << 21
"""Latents of a chunk of several patches that a decoder accepts."""

KEPT_VALUES = 1 << 26
"""Values of a signal, at most, that are kept after they are coded; larger signals are decoded again."""

VARIANT_PATCHES = 4
"""Patches from which the variant of a field is chosen."""

_CODERS: dict[str, type[LatentCoder]] = {LatentClip.name: ClipCoder, LatentSeries.name: SeriesCoder}
"""Coders of fields that are not those of one transform."""


def coder_class(initialization: Initialization) -> type[LatentCoder]:
    """Return the kind of coder that an initialization's field needs."""
    return _CODERS.get(initialization.field.name, TransformCoder)


@dataclass(frozen=True)
class LatentQuantization:
    """How latents become symbols. variant: of the field; trade_off: lambda, for the decisions only."""

    step_index: int
    trade_off: float
    variant: int = 0

    tensors = 0
    """Nothing to refine: the trade-off is continuous."""

    def moved(self, tensor: int, direction: int) -> "LatentQuantization":
        """Raises: IndexError, as there are no tensors."""
        raise IndexError(f"no tensor {tensor}")

    def held_at(self, trade_off: float) -> "LatentQuantization":
        """Return the same step index with decisions for another lambda."""
        return replace(self, trade_off=trade_off)

    def to_bytes(self, variants: int) -> bytes:
        """Return what the header says of it: the step index, and the variant if there are several."""
        return bytes([self.step_index & 0xFF, *([self.variant] if variants > 1 else [])])

    @classmethod
    def from_bytes(cls, content: bytes, variants: int) -> Self:
        """Read what `to_bytes` wrote; lambda is not known. Raises: CorruptFile."""
        step_index, variant = (*content, 0)[:2] if content else (0x80, 0)
        step_index = (step_index ^ 0x80) - 0x80
        known = MIN_STEP_INDEX <= step_index <= MAX_STEP_INDEX and 0 <= variant < variants
        if len(content) != (1 if variants == 1 else 2) or not known:
            raise CorruptFile(
                f"the coding parameters {content.hex():.80} are not those of latents: obtain the file again"
            )
        return cls(step_index, 0.0, variant)


class LatentCodec:
    """The `FieldCodec` of latent fields."""

    def steps(self, options: EncodeOptions, initialization: Initialization) -> int:
        """Return K_test, beyond the first step."""
        return coder_class(initialization).STEPS[options.effort] if options.steps is None else options.steps

    def prepare(
        self,
        signal: Signal,
        initialization: Initialization,
        options: EncodeOptions,
        device: torch.device,
        on_progress: ProgressCallback | None = None,
    ) -> "PreparedLatents":
        """Cut a signal into patches.

        As the rate is part of the adaptation, that waits for the quantization.
        Raises: UsageError if the signal has other channels than the field, a rescaling is asked for, or its patches
        are too large.
        """
        check_channels(signal, initialization.field.out_features)
        patches = Patches.cover(signal.axes, initialization.patches)
        grid = Grid(patches.shape, patches.closed)
        last = field_of(initialization).variants - 1  # the one of most latents
        coder = coder_class(initialization)(initialization, grid, MIN_STEP_INDEX, last, device)
        if not coder.is_small:
            raise UsageError(
                f"a patch of {' x '.join(map(str, patches.shape))} samples has {coder.size} latents, more than a "
                "decoder takes: use an initialization of smaller patches"
            )
        if options.rescaling is not None:
            raise UsageError(
                f"a rescaling of {options.rescaling!r} means nothing for latents, which have no context set: "
                "leave it out"
            )
        steps = self.steps(options, initialization)
        return PreparedLatents(signal, initialization, patches, steps, device, on_progress)

    def open(self, header: StreamHeader, initialization: Initialization, device: torch.device) -> "LatentReader":
        """Prepare to decode a stream.

        Raises: CorruptFile if the header's coding parameters or chunks cannot be those of the initialization's fields.
        """
        quantization = LatentQuantization.from_bytes(header.coding, field_of(initialization).variants)
        patches, shape = patch_layout(header.axes, initialization.patches)
        make = coder_class(initialization)
        coder = make(initialization, Grid.open(shape), quantization.step_index, quantization.variant, device)
        together = min(patches, header.patches_per_chunk)
        if not coder.is_small or (together > 1 and together * coder.size > MAX_CHUNK_LATENTS):
            raise CorruptFile(
                f"a chunk of the signal {header.name!r} has {together} patches of {coder.size} latents: a patch may "
                f"have {MAX_LATENTS}, {MAX_AT_ONCE} of them at once, several in a chunk {MAX_CHUNK_LATENTS} in all"
            )
        covering = Patches.cover(header.axes, initialization.patches)
        coder = replace(coder, grid=Grid(covering.shape, covering.closed))
        return LatentReader(header, covering, coder)


@dataclass(frozen=True, eq=False)
class PreparedLatents:
    """A signal cut into patches. As the rate is part of adaptation, that waits for the quantization."""

    signal: Signal
    initialization: Initialization
    patches: Patches
    steps: int
    device: torch.device
    on_progress: ProgressCallback | None
    known: "dict[tuple[bytes, ...], list[torch.Tensor]]" = field(default_factory=dict)
    """What the chunks of the last stream decode to, under its coding parameters and its chunks."""

    def choose(self, trade_off: float, start: LatentQuantization | None) -> LatentQuantization:
        """Return the quantization for a trade-off of rate against distortion."""
        step_index = step_index_of_trade_off(trade_off, self.initialization.field.out_features)
        step_index = min(max(step_index, MIN_STEP_INDEX), MAX_STEP_INDEX)
        variant = self._variant(step_index, trade_off) if start is None else start.variant
        return LatentQuantization(step_index, trade_off, variant)

    def code(self, quantization: LatentQuantization) -> Stream:
        """Adapt the latents and code them, chunk by chunk."""
        make = coder_class(self.initialization)
        coder = make(self.initialization, self._grid, quantization.step_index, quantization.variant, self.device)
        plan = AdaptationPlan(quantization.trade_off, self.steps)
        per_chunk = max(1, min(CHUNK_POINTS // self.patches.points, MAX_CHUNK_LATENTS // coder.size))
        chunks: list[bytes] = []
        shown: list[torch.Tensor] = []
        keeps = len(self.patches) * self.patches.points * self.initialization.field.out_features <= KEPT_VALUES
        for start in range(0, len(self.patches), per_chunk):
            end = min(start + per_chunk, len(self.patches))
            values = torch.cat([self._values(patch) for patch in range(start, end)])
            chunk, decoded = coder.encode(values.to(self.device), plan)
            chunks.append(chunk)
            if keeps:
                shown.append(decoded)
            if self.on_progress is not None:
                self.on_progress(Progress("adapt", end, len(self.patches), None))
        coding = quantization.to_bytes(field_of(self.initialization).variants)
        stream = stream_of(self.signal, self.initialization.identifier, coding, per_chunk, tuple(chunks))
        self.known.clear()
        if keeps:
            self.known[_coded(stream)] = shown
        return stream

    def quick(self) -> "PreparedLatents":
        """Return the same without steps beyond the first decisions."""
        return replace(self, steps=0, known={}) if self.steps else self

    def reader(self, stream: Stream) -> "LatentReader":
        """Return a reader of a stream that this coded, which knows what it decodes to."""
        reader = LatentCodec().open(stream.header, self.initialization, self.device)
        return replace(reader, known=self.known.get(_coded(stream)))

    @property
    def _grid(self) -> Grid:
        return Grid(self.patches.shape, self.patches.closed)

    def _variant(self, step_index: int, trade_off: float) -> int:
        """Return the variant of the field that suits some patches best."""
        own = field_of(self.initialization)
        if own.variants == 1:
            return 0
        some = range(0, len(self.patches), -(-len(self.patches) // VARIANT_PATCHES))
        values = torch.cat([self._values(patch) for patch in some]).to(self.device)

        def model_of(variant: int) -> LatentModel:
            return LatentModel.of(self.initialization, self.device, step_index, variant)

        candidates = list(own.candidates(values, step_index))
        return best_variant(model_of, candidates, values, self._grid, trade_off)

    def _values(self, patch: int) -> torch.Tensor:
        """Return the values of one patch, in [0, 1]: [1, C, *shape] float32."""
        native = self.patches.values(self.signal, patch)
        values = unit_values(self.signal, native, self.patches.first_samples(patch))
        shown = field_channels(values, self.initialization.field.out_features).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(shown.T)).reshape(1, -1, *self.patches.shape)


def _coded(stream: Stream) -> tuple[bytes, ...]:
    """Return all that decides what a stream of a signal decodes to: equal chunks can be of several step indices."""
    return (stream.header.coding, *stream.chunks)


@dataclass(frozen=True, eq=False)
class LatentReader:
    """The `StreamReader` of latent fields."""

    header: StreamHeader
    patches: Patches
    coder: LatentCoder
    known: Sequence[torch.Tensor] | None = None
    """Values of every chunk's patches at their samples, where these are asked for and were computed before."""

    def symbols(self, chunks: Sequence[bytes]) -> Iterator[list[np.ndarray]]:
        """Decode the symbols of one chunk after the other, as `LatentCoder.symbols` returns them."""
        for number, chunk in enumerate(chunks):
            symbols = self.coder.symbols(chunk, self._count(number))
            yield [each.cpu().numpy().astype(np.int64) for each in symbols]

    def _count(self, chunk: int) -> int:
        """Return how many patches a chunk has."""
        per_chunk = self.header.patches_per_chunk
        return min(per_chunk, len(self.patches) - chunk * per_chunk)

    def render(
        self, chunks: Sequence[bytes], samples: Iterator[PatchSamples], damaged: frozenset[int] = frozenset()
    ) -> Iterator[RenderedPatch]:
        """Yield the fields' values in [0, 1] where every patch asks for `samples`."""
        for number, chunk in enumerate(chunks):
            count = self._count(number)
            if number in damaged:
                yield from (unknown_patch(next(samples), self.header.channels) for _ in range(count))
                continue
            asked = [next(samples) for _ in range(count)]
            if self.known is not None:
                # The last group of slices may be filled up.
                known = zip(self.known[number], asked, strict=True)
                shown = iter([values[:, : len(patch.local[0])] for values, patch in known])
            else:
                shown = self.coder.decode(chunk, count, [each.local for each in asked])
            for patch, values in zip(asked, shown, strict=True):
                yield patch, signal_channels(values.flatten(1).T.cpu().numpy(), self.header.channels)
