"""The codec of latent fields: adapt the latents of each patch, code their symbols; and back."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Self

import numpy as np
import torch

from inrcodec.coding.container import header_of
from inrcodec.coding.header import StreamHeader
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.field_values import BLOCK_VALUES, check_channels, field_channels, signal_channels, unit_values
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import best_variant
from inrcodec.latents.chunks import (
    CoderParts,
    DecodeTask,
    EncodeTask,
    coder_class,
    decode_chunk,
    decode_elsewhere,
    encode_chunk,
    encode_elsewhere,
    one_thread,
)
from inrcodec.latents.coder import (
    MAX_AT_ONCE,
    MAX_LATENTS,
    MAX_STEP_INDEX,
    MIN_STEP_INDEX,
    AdaptationPlan,
    LatentCoder,
)
from inrcodec.latents.model import LatentModel, field_of
from inrcodec.latents.objective import step_index_of_trade_off
from inrcodec.models import Grid
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.parallel import AHEAD, shared
from inrcodec.patches import Patches, PatchSamples, RenderedPatch, patch_layout, unknown_patch
from inrcodec.signals.lazy import AnySignal, Window

CHUNK_POINTS = 1 << 18
"""Samples of a chunk, about, where patches are smaller."""

MAX_CHUNK_LATENTS = 1 << 21
"""Latents of a chunk of several patches that a decoder accepts."""

AHEAD_POINTS = 1 << 24
"""Samples of chunks, about, that are kept while one before them is waited for."""

VARIANT_PATCHES = 4
"""Patches from which the variant of a field is chosen."""

VARIANT_POINTS = 1 << 24
"""Samples that these have at most, if there is more than one."""


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

    machine_margin = 0.0

    def steps(self, options: EncodeOptions, initialization: Initialization) -> int:
        """Return K_test, beyond the first step."""
        return coder_class(initialization).STEPS[options.effort] if options.steps is None else options.steps

    def prepare(
        self,
        signal: AnySignal,
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
        return PreparedLatents(
            signal, initialization, patches, steps, device, on_progress, options.processes, options.effort == "instant"
        )

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
    """A signal cut into patches. As the rate is part of adaptation, that waits for the quantization.

    instant: whether latents are decided once only. bound: as of `AdaptationPlan`.
    """

    signal: AnySignal
    initialization: Initialization
    patches: Patches
    steps: int
    device: torch.device
    on_progress: ProgressCallback | None
    processes: int = 1
    instant: bool = False
    bound: float | None = None

    def choose(self, trade_off: float, start: LatentQuantization | None) -> LatentQuantization:
        """Return the quantization for a trade-off of rate against distortion."""
        step_index = step_index_of_trade_off(trade_off, self.initialization.field.out_features)
        step_index = min(max(step_index, MIN_STEP_INDEX), MAX_STEP_INDEX)
        variant = self._variant(step_index, trade_off) if start is None else start.variant
        return LatentQuantization(step_index, trade_off, variant)

    def header(self, quantization: LatentQuantization) -> StreamHeader:
        """Return the header of the coded signal."""
        coding = quantization.to_bytes(field_of(self.initialization).variants)
        per_chunk = self._patches_per_chunk(self._coder(quantization))
        chunks = -(-len(self.patches) // per_chunk)
        return header_of(self.signal, self.initialization.identifier, coding, per_chunk, chunks)

    def code(
        self, quantization: LatentQuantization, rows: Window, samples: Iterator[PatchSamples]
    ) -> Iterator[bytes | RenderedPatch]:
        """Adapt the latents and code them, chunk by chunk; see `PreparedSignal.code`."""
        coder = self._coder(quantization)
        processes = self.processes if self.device.type == "cpu" else 1
        parts = CoderParts.of(coder) if processes > 1 else None
        plan = AdaptationPlan(quantization.trade_off, self.steps, self.bound)
        per_chunk = self._patches_per_chunk(coder)
        starts = range(0, len(self.patches), per_chunk)

        def tasks() -> Iterator[EncodeTask]:
            for start in starts:
                some = range(start, min(start + per_chunk, len(self.patches)))
                yield EncodeTask(parts, np.concatenate([self._values(patch, rows) for patch in some]), plan)

        ahead = min(AHEAD, AHEAD_POINTS // (per_chunk * self.patches.points))
        coded = shared(partial(encode_chunk, coder), encode_elsewhere, tasks(), len(starts), processes, ahead)
        for number, (chunk, decoded) in enumerate(coded, 1):
            if self.on_progress is not None:
                self.on_progress(Progress("adapt", min(number * per_chunk, len(self.patches)), len(self.patches), None))
            yield chunk
            for shown in decoded:
                asked = next(samples)
                # The last group of slices may be filled up.
                yield asked, _rendered(shown[:, : len(asked.local[0])], self.signal.channels)

    def quick(self) -> "PreparedLatents":
        """Return the same without steps beyond the first decisions."""
        return replace(self, steps=0) if self.steps else self

    def corrected(self, bound: float) -> "PreparedLatents":
        """Return the same for a signal whose errors beyond a bound, in [0, 1], are corrected."""
        return self if self.instant else replace(self, bound=bound)

    def _coder(self, quantization: LatentQuantization) -> LatentCoder:
        make = coder_class(self.initialization)
        return make(self.initialization, self._grid, quantization.step_index, quantization.variant, self.device)

    def _patches_per_chunk(self, coder: LatentCoder) -> int:
        return max(1, min(CHUNK_POINTS // self.patches.points, MAX_CHUNK_LATENTS // coder.size))

    @property
    def _grid(self) -> Grid:
        return Grid(self.patches.shape, self.patches.closed)

    def _variant(self, step_index: int, trade_off: float) -> int:
        """Return the variant of the field that suits some patches best."""
        own = field_of(self.initialization)
        if own.variants == 1:
            return 0
        count = max(1, min(VARIANT_PATCHES, VARIANT_POINTS // self.patches.points))
        some = range(0, len(self.patches), -(-len(self.patches) // count))
        values = torch.from_numpy(np.concatenate([self._values(patch, self.signal) for patch in some])).to(self.device)

        def model_of(variant: int) -> LatentModel:
            return LatentModel.of(self.initialization, self.device, step_index, variant)

        candidates = list(own.candidates(values, step_index))
        with one_thread():
            return best_variant(model_of, candidates, values, self._grid, trade_off)

    def _values(self, patch: int, signal: AnySignal | Window) -> np.ndarray:
        """Return the values of one patch, in [0, 1]: [1, C, *shape] float32."""
        native = self.patches.values(signal, patch)
        slices = self.patches.first_samples(patch)
        outputs = self.initialization.field.out_features
        shown = np.empty((outputs, len(native)), np.float32)
        each = len(native) // len(slices)
        rows = max(1, BLOCK_VALUES // native[:each].size)
        for begin in range(0, len(slices), rows):  # for the memory that 64 bits need
            some = slice(begin * each, (begin + rows) * each)
            values = unit_values(self.signal, native[some], slices[begin : begin + rows])
            shown[:, some] = field_channels(values, outputs).T
        return shown.reshape(1, -1, *self.patches.shape)


def _rendered(shown: np.ndarray, channels: int) -> np.ndarray:
    """Return the values [C, ...] of a patch's field as those of a signal of `channels`, [points, channels]."""
    return signal_channels(shown.reshape(len(shown), -1).T, channels)


@dataclass(frozen=True, eq=False)
class LatentReader:
    """The `StreamReader` of latent fields."""

    header: StreamHeader
    patches: Patches
    coder: LatentCoder

    def symbols(self, chunks: Sequence[bytes]) -> Iterator[list[np.ndarray]]:
        """Decode the symbols of one chunk after the other, as `LatentCoder.symbols` returns them."""
        for number, chunk in enumerate(chunks):
            symbols = self.coder.symbols(chunk, self.header.patches_in(number, len(self.patches)))
            yield [each.cpu().numpy().astype(np.int64) for each in symbols]

    def render(
        self,
        chunks: Sequence[bytes],
        samples: Iterator[PatchSamples],
        damaged: frozenset[int] = frozenset(),
        processes: int = 1,
        numbers: Sequence[int] | None = None,
    ) -> Iterator[RenderedPatch]:
        """Yield the fields' values in [0, 1] where every patch asks for `samples`."""
        processes = processes if self.coder.device.type == "cpu" else 1
        parts = CoderParts.of(self.coder) if processes > 1 else None
        asked: deque[list[PatchSamples]] = deque()

        def task(number: int) -> DecodeTask:
            asked.append([next(samples) for _ in range(self.header.patches_in(number, len(self.patches)))])
            return DecodeTask(parts, chunks[number], [each.local for each in asked[-1]])

        for unknown, group in groupby(range(len(chunks)) if numbers is None else numbers, damaged.__contains__):
            some = list(group)
            if unknown:
                lost = sum(self.header.patches_in(number, len(self.patches)) for number in some)
                yield from (unknown_patch(next(samples), self.header.channels) for _ in range(lost))
                continue
            tasks = map(task, some)
            for shown in shared(partial(decode_chunk, self.coder), decode_elsewhere, tasks, len(some), processes):
                for patch, values in zip(asked.popleft(), shown, strict=True):
                    yield patch, _rendered(values, self.header.channels)
