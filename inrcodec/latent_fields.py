"""Latent fields: one per patch, of which the integer latents are coded."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrcodec.clip_coder import ClipCoder
from inrcodec.coding.container import Stream, stream_of
from inrcodec.coding.header import StreamHeader
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.latent_coders import (
    MAX_STEP,
    MIN_STEP,
    Adaptation,
    LatentCoder,
    TransformCoder,
    latent_parts,
    pyramid_on,
)
from inrcodec.meta.adaptation import Rescaling
from inrcodec.meta.data import check_channels, field_channels, signal_channels, unit_values
from inrcodec.meta.initialization import Initialization
from inrcodec.meta.latent_gradients import rescales
from inrcodec.meta.latent_objective import step_of_trade_off
from inrcodec.meta.pyramid_adaptation import best_variant
from inrcodec.models import LatentClip
from inrcodec.models.clip import MAX_PICTURES
from inrcodec.models.latent import Grid
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import Patches, PatchSamples, RenderedPatch, patch_layout
from inrcodec.signals.signal import Signal

STEPS = {"fast": 2, "default": 10, "high": 50}
CLIP_STEPS = {"fast": 0, "default": 2, "high": 10}
"""Adaptation steps of every effort, beyond the first. Clips have many pictures, and most of them little to say."""

CHUNK_POINTS = 1 << 18
"""Samples of a chunk, about, where patches are smaller."""

MAX_AT_ONCE, MAX_LATENTS, MAX_CHUNK_LATENTS = 1 << 24, 1 << 26, 1 << 21
"""Latents that a decoder accepts: of a patch at once (of a clip those of a stage), of a patch, and of a chunk of
several patches. A small file must not make it allocate without bound; the entropy model takes 100 bytes for each at
once."""

VARIANT_PATCHES = 4
"""Patches from which the variant of a field is chosen."""


@dataclass(frozen=True)
class LatentQuantization:
    """step: index of the quantization step; variant: of the field; trade_off: lambda, for the decisions only."""

    step: int
    trade_off: float
    variant: int = 0

    tensors = 0
    """Nothing to refine: the trade-off is continuous."""

    def moved(self, tensor: int, direction: int) -> "LatentQuantization":
        raise IndexError(f"no tensor {tensor}")

    def held_at(self, trade_off: float) -> "LatentQuantization":
        return replace(self, trade_off=trade_off)


@dataclass(frozen=True, eq=False)
class AdaptedLatents:
    """A signal cut into patches. As the rate is part of adaptation, that waits for the quantization."""

    signal: Signal
    initialization: Initialization
    patches: Patches
    steps: int
    device: torch.device
    on_progress: ProgressCallback | None
    rescaling: Rescaling = "exact"

    def choose(self, trade_off: float, start: LatentQuantization | None) -> LatentQuantization:
        """The quantization for a trade-off of rate against distortion."""
        step = step_of_trade_off(trade_off, self.initialization.model.out_features)
        step = min(max(step, MIN_STEP), MAX_STEP)
        variant = self._variant(step, trade_off) if start is None else start.variant
        return LatentQuantization(step, trade_off, variant)

    def code(self, quantization: LatentQuantization) -> Stream:
        """Adapt the latents and code them, chunk by chunk."""
        grid = Grid(self.patches.shape, self.patches.closed)
        coder = coder_of(self.initialization, grid, quantization.step, quantization.variant, self.device)
        adaptation = Adaptation(quantization.trade_off, self.steps, self.rescaling)
        per_chunk = max(1, min(CHUNK_POINTS // self.patches.points, MAX_CHUNK_LATENTS // coder.size))
        chunks = []
        for start in range(0, len(self.patches), per_chunk):
            end = min(start + per_chunk, len(self.patches))
            values = torch.cat([self._values(patch) for patch in range(start, end)])
            chunks.append(coder.encode(values.to(self.device), adaptation))
            if self.on_progress is not None:
                self.on_progress(Progress("adapt", end, len(self.patches), None))
        choices = _choices(self.initialization)
        return stream_of(
            self.signal,
            self.initialization.identifier,
            (quantization.step, quantization.variant)[:choices],
            (0,) * choices,
            per_chunk,
            tuple(chunks),
        )

    def _variant(self, step: int, trade_off: float) -> int:
        """The variant of the field that suits some patches best."""
        if latent_parts(self.initialization)[0].variants == 1:
            return 0
        pyramid = pyramid_on(self.initialization, self.device)
        grid = Grid(self.patches.shape, self.patches.closed)
        some = range(0, len(self.patches), -(-len(self.patches) // VARIANT_PATCHES))
        values = torch.cat([self._values(patch) for patch in some]).to(self.device)
        return best_variant(
            pyramid,
            values,
            grid,
            torch.full((len(values),), float(step), device=self.device),
            torch.full((len(values),), trade_off, device=self.device),
        )

    def _values(self, patch: int) -> torch.Tensor:
        """Of one patch, in [0, 1]: [1, C, *shape] float32."""
        values = unit_values(self.signal, self.patches.values(self.signal, patch))
        shown = field_channels(values, self.initialization.model.out_features).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(shown.T)).reshape(1, -1, *self.patches.shape)


def adapt_signal(
    signal: Signal,
    initialization: Initialization,
    options: EncodeOptions,
    device: torch.device,
    on_progress: ProgressCallback | None = None,
) -> AdaptedLatents:
    """Cut a signal into the patches of latent pyramids.

    Raises: UsageError if the signal has several channels, but not as many as the field, for a rescaling that the
    initialization has no use for, or if its patches are too large.
    """
    check_channels(signal, initialization.model.out_features)
    if options.rescaling != "exact" and not rescales(initialization.adaptation, initialization.log_step_sizes):
        raise UsageError(
            f"a rescaling of {options.rescaling!r} means nothing for this initialization, whose step sizes were not "
            "learned on a pruned context: leave it out"
        )
    patches = Patches.cover(signal.axes, initialization.patches)
    field, _ = latent_parts(initialization)
    grid = Grid(patches.shape, patches.closed)
    coders = [coder_of(initialization, grid, MIN_STEP, variant, device) for variant in range(field.variants)]
    if not all(map(_is_small, coders)):
        raise UsageError(
            f"a patch of {' x '.join(map(str, patches.shape))} samples has {coders[-1].size} latents, more than a "
            "decoder takes: use an initialization of smaller patches"
        )
    steps = adaptation_steps(options, initialization)
    return AdaptedLatents(signal, initialization, patches, steps, device, on_progress, options.rescaling)


def adaptation_steps(options: EncodeOptions, initialization: Initialization) -> int:
    if options.steps is not None:
        return options.steps
    return (CLIP_STEPS if isinstance(initialization.model, LatentClip) else STEPS)[options.effort]


def coder_of(initialization: Initialization, grid: Grid, step: int, variant: int, device: torch.device) -> LatentCoder:
    """The coder for an initialization's kind of field."""
    kind = ClipCoder if isinstance(initialization.model, LatentClip) else TransformCoder
    return kind(initialization, grid, step, variant, device)


def check_header(header: StreamHeader, initialization: Initialization) -> None:
    """Raises: CorruptFile if a header's quantization or chunks cannot be those of the initialization's fields."""
    field, _ = latent_parts(initialization)
    step, variant = (*header.steps, 0)[:2] if header.steps else (MIN_STEP - 1, 0)
    known = MIN_STEP <= step <= MAX_STEP and 0 <= variant < field.variants
    if len(header.steps) != _choices(initialization) or any(header.shifts) or not known:
        raise CorruptFile(
            f"the signal {header.name!r} has the quantization steps {header.steps!r:.80}, shifts {header.shifts!r:.80}"
        )
    patches, shape = patch_layout(header.axes, initialization.patches)
    if isinstance(field, LatentClip) and shape[0] > MAX_PICTURES:
        raise CorruptFile(f"the signal {header.name!r} has clips of {shape[0]} pictures, more than {MAX_PICTURES}")
    coder = coder_of(initialization, Grid(shape, (False,) * len(shape)), step, variant, torch.device("cpu"))
    together = min(patches, header.patches_per_chunk)
    if not _is_small(coder) or (together > 1 and together * coder.size > MAX_CHUNK_LATENTS):
        raise CorruptFile(
            f"a chunk of the signal {header.name!r} has {together} patches of {coder.size} latents: a patch may have "
            f"{MAX_LATENTS}, {MAX_AT_ONCE} of them at once, several in a chunk {MAX_CHUNK_LATENTS} in all"
        )


def _is_small(coder: LatentCoder) -> bool:
    """Whether a decoder takes its patches."""
    return coder.size <= MAX_LATENTS and coder.at_once <= MAX_AT_ONCE


def render(
    stream: Stream,
    initialization: Initialization,
    patches: Patches,
    samples: Iterator[PatchSamples],
    device: torch.device,
) -> Iterator[RenderedPatch]:
    """Decode a stream: the fields' values in [0, 1] where every patch asks for `samples`."""
    coder = _coder(stream, initialization, patches, device)
    for integers in read_symbols(stream, initialization, patches):
        symbols = [torch.from_numpy(level).float() for level in integers]
        for patch in range(len(symbols[0])):
            asked = next(samples)
            with torch.no_grad():
                values = coder.values_at([level[patch : patch + 1].to(device) for level in symbols], asked.local)
            yield asked, signal_channels(values[0].flatten(1).T.cpu().numpy(), stream.header.channels)


def read_symbols(stream: Stream, initialization: Initialization, patches: Patches) -> Iterator[list[np.ndarray]]:
    """The symbols of one chunk after the other, as `LatentCoder.symbols` returns them. Raises: CorruptFile."""
    coder = _coder(stream, initialization, patches, torch.device("cpu"))
    per_chunk = stream.header.patches_per_chunk
    for number, chunk in enumerate(stream.chunks):
        yield coder.symbols(chunk, min(per_chunk, len(patches) - number * per_chunk))


def _coder(stream: Stream, initialization: Initialization, patches: Patches, device: torch.device) -> LatentCoder:
    step, variant = (*stream.header.steps, 0)[:2]
    return coder_of(initialization, Grid(patches.shape, patches.closed), step, variant, device)


def _choices(initialization: Initialization) -> int:
    """How many numbers a header has to say how the latents were made."""
    return 1 if latent_parts(initialization)[0].variants == 1 else 2
