"""Latent pyramids: one field per patch, of which the integer latents are coded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrcodec.coding.container import Stream, stream_of
from inrcodec.coding.context_model import WEIGHT_UNIT
from inrcodec.coding.header import StreamHeader
from inrcodec.coding.latents import pack_latents, unpack_latents
from inrcodec.errors import CorruptFile
from inrcodec.meta.adaptation import Rescaling
from inrcodec.meta.data import check_channels, field_channels, signal_channels, unit_values
from inrcodec.meta.initialization import ContextPrior, Initialization
from inrcodec.meta.latent_objective import Pyramid, step_of_trade_off
from inrcodec.meta.pyramid_adaptation import adapt_latents, best_variant
from inrcodec.models.latent import Grid, LatentField
from inrcodec.options import EncodeOptions, Progress, ProgressCallback
from inrcodec.patches import MAX_CHUNK_SIZE, Patches, PatchSamples, patch_layout
from inrcodec.signals.signal import Signal

STEPS = {"fast": 2, "default": 10, "high": 50}
"""Adaptation steps of every effort, beyond the first."""

CHUNK_POINTS = 1 << 18
"""Samples of a chunk, about, where patches are smaller."""

VARIANT_PATCHES = 4
"""Patches from which the variant of a field is chosen."""

MIN_STEP, MAX_STEP = -120, 24
"""Indices of quantization steps: 2^-15 to 2^3."""


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
        _, prior = _parts(self.initialization)
        pyramid = pyramid_on(self.initialization, self.device, quantization.variant)
        grid = Grid(self.patches.shape, self.patches.closed)
        per_chunk = max(1, CHUNK_POINTS // self.patches.points)
        chunks = []
        for start in range(0, len(self.patches), per_chunk):
            end = min(start + per_chunk, len(self.patches))
            values = torch.cat([self._values(patch) for patch in range(start, end)])
            count = torch.ones(len(values), device=self.device)
            symbols = adapt_latents(
                pyramid,
                values.to(self.device),
                grid,
                quantization.step * count,
                steps=self.steps,
                trade_off=quantization.trade_off * count,
                rescaling=self.rescaling,
            )
            integers = [level.cpu().numpy().astype(np.int64) for level in symbols]
            chunks.append(pack_latents(integers, quantization.step, pyramid.field, grid, prior.contexts, prior.weights))
            if self.on_progress is not None:
                self.on_progress(Progress("adapt", end, len(self.patches), None))
        return stream_of(
            self.signal,
            self.initialization.identifier,
            (quantization.step, quantization.variant)[: _choices(pyramid.field)],
            (0,) * _choices(pyramid.field),
            per_chunk,
            tuple(chunks),
        )

    def _variant(self, step: int, trade_off: float) -> int:
        """The variant of the field that suits some patches best."""
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

    Raises: UsageError if the signal has several channels, but not as many as the field.
    """
    check_channels(signal, initialization.model.out_features)
    patches = Patches.cover(signal.axes, initialization.patches)
    return AdaptedLatents(
        signal, initialization, patches, adaptation_steps(options), device, on_progress, options.rescaling
    )


def adaptation_steps(options: EncodeOptions) -> int:
    return STEPS[options.effort] if options.steps is None else options.steps


def pyramid_on(initialization: Initialization, device: torch.device, variant: int = 0) -> Pyramid:
    """A variant of an initialization's field with its networks in floating point, as adaptation needs them."""
    field, prior = _parts(initialization)
    return Pyramid(
        field=field.variant(variant),
        shared={name: value.to(device) for name, value in initialization.theta_0.items()},
        contexts=prior.contexts,
        weights={name: (value.float() / WEIGHT_UNIT).to(device) for name, value in prior.weights.items()},
        log_step_sizes={name: value.to(device) for name, value in initialization.log_step_sizes.items()},
        adaptation=initialization.adaptation,
    )


def check_header(header: StreamHeader, initialization: Initialization) -> None:
    """Raises: CorruptFile if a header's quantization or chunks cannot be those of the initialization's fields."""
    field, _ = _parts(initialization)
    step, variant = (*header.steps, 0)[:2] if header.steps else (MIN_STEP - 1, 0)
    known = MIN_STEP <= step <= MAX_STEP and 0 <= variant < field.variants
    if len(header.steps) != _choices(field) or any(header.shifts) or not known:
        raise CorruptFile(
            f"the signal {header.name!r} has the quantization steps {header.steps!r:.80}, shifts {header.shifts!r:.80}"
        )
    patches, shape = patch_layout(header.axes, initialization.patches)
    grid = Grid(shape, (False,) * len(shape))
    size = sum(math.prod(latents) for latents in field.variant(variant).latent_shapes(grid))
    if min(patches, header.patches_per_chunk) * size > MAX_CHUNK_SIZE:
        raise CorruptFile(
            f"a chunk of the signal {header.name!r} has {header.patches_per_chunk} patches of {size} latents, "
            f"more than {MAX_CHUNK_SIZE} in all"
        )


def render(
    stream: Stream,
    initialization: Initialization,
    patches: Patches,
    samples: Iterator[PatchSamples],
    device: torch.device,
    onto: np.ndarray,
) -> Iterator[int]:
    """Decode a stream and add the fields' values in [0, 1] to `onto` [*grid, C], where every patch asks for `samples`.

    Yields the number of patches done.
    """
    field = _parts(initialization)[0]
    step, variant = (*stream.header.steps, 0)[:2]
    field = field.variant(variant)
    grid = Grid(patches.shape, patches.closed)
    shared = {name: value.to(device) for name, value in initialization.theta_0.items()}
    steps = torch.full((1,), float(step), device=device)
    done = 0
    for integers in read_symbols(stream, initialization, patches):
        symbols = [torch.from_numpy(level).float() for level in integers]
        for patch in range(len(symbols[0])):
            coded = [level[patch : patch + 1].to(device) for level in symbols]
            asked = next(samples)
            with torch.no_grad():
                decoded = field.decoded(shared, coded, grid, steps)
                maps = field.maps(shared, decoded, grid, steps)
                values = field.values_at(shared, maps, asked.local, grid, steps)[0].flatten(1).T.cpu().numpy()
            asked.accumulate(signal_channels(values, onto.shape[-1]), onto)
            done += 1
            yield done


def read_symbols(stream: Stream, initialization: Initialization, patches: Patches) -> Iterator[list[np.ndarray]]:
    """The latents of one chunk after the other, as `unpack_latents` returns them. Raises: CorruptFile."""
    field, prior = _parts(initialization)
    step, variant = (*stream.header.steps, 0)[:2]
    grid = Grid(patches.shape, patches.closed)
    per_chunk = stream.header.patches_per_chunk
    for number, chunk in enumerate(stream.chunks):
        count = min(per_chunk, len(patches) - number * per_chunk)
        yield unpack_latents(chunk, count, step, field.variant(variant), grid, prior.contexts, prior.weights)


def _choices(field: LatentField) -> int:
    """How many numbers a header has to say how the latents were made."""
    return 1 if field.variants == 1 else 2


def _parts(initialization: Initialization) -> tuple[LatentField, ContextPrior]:
    assert isinstance(initialization.model, LatentField) and isinstance(initialization.prior, ContextPrior)
    return initialization.model, initialization.prior
