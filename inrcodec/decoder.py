"""From the bytes of an `.inr` file back to signals, at any resolution."""

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch

from inrcodec.coding.container import Container, Stream, read_container
from inrcodec.coding.header import MAX_SAMPLES, StreamHeader
from inrcodec.coding.missing import unpack_missing
from inrcodec.device import pick_device
from inrcodec.errors import CorruptFile, InrcodecWarning, SignalError, UsageError
from inrcodec.field_codec import StreamReader, codec_of
from inrcodec.field_values import native_values
from inrcodec.initialization import Initialization
from inrcodec.patches import Patches, RenderedPatch, fits, patch_layout
from inrcodec.registry import find_initialization
from inrcodec.residual.section import apply_section
from inrcodec.signals import exact_values
from inrcodec.signals.signal import Axis, Signal

SAMPLES = 1 << 30
"""Samples of a file that are decoded unless more are asked for: a small file may claim to be very large."""

SMALL_PATCH, WORK_PER_SAMPLE = 1 << 10, 8
"""Samples that a patch counts as at least, and how many of all patches there may be for each sample that is allowed."""

NAMED_RANGES = 8
"""Ranges of damaged chunks that a warning names."""


@dataclass(frozen=True)
class Resolution:
    """The resolution asked of the decoder; all None keeps the original grid. Raises: UsageError unless positive.

    size: samples along the last two axes of pictures and climate fields (height, width).
    longer: samples along the longer of them; the other follows.
    factor: what both are multiplied by.
    frame_rate: frames per second of videos. sample_rate: samples per second of sound.
    """

    size: tuple[int, int] | None = None
    longer: int | None = None
    factor: float | None = None
    frame_rate: Fraction | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        sizes = [*(self.size or ()), self.longer, self.factor, self.frame_rate, self.sample_rate]
        for asked in sizes:
            if asked is not None and not 0 < asked < math.inf:
                raise UsageError(f"a resolution of {asked} is not a positive number")

    def apply(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """Return the grid at this resolution. Raises: UsageError if an axis would have no or too many samples."""
        spatial = [i for i, axis in enumerate(axes) if axis.kind not in ("slice", "start")]
        targets = list(axes)
        if spatial:
            sizes = self._sizes([axes[i].size for i in spatial])
            for i, size in zip(spatial, sizes, strict=True):
                targets[i] = axes[i].resampled(size)
        rate = self.frame_rate if spatial else self.sample_rate
        if rate is not None:
            targets = [axis.at_rate(Fraction(rate)) if axis.rate is not None else axis for axis in targets]
        if math.prod(axis.size for axis in targets) > MAX_SAMPLES:
            shape = " x ".join(str(axis.size) for axis in targets)
            raise UsageError(f"a resolution of {shape} samples is more than can be decoded ({MAX_SAMPLES})")
        return tuple(targets)

    def _sizes(self, sizes: list[int]) -> list[int]:
        if self.size is not None:
            return list(self.size)
        factor = self.factor
        if self.longer is not None:
            factor = self.longer / max(sizes)
        return sizes if factor is None else [max(1, round(size * factor)) for size in sizes]


def decode(
    data: bytes,
    *,
    resolution: Resolution | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    skip_damaged: bool = False,
    device: str | torch.device = "auto",
    on_progress: Callable[[float], None] | None = None,
) -> list[Signal]:
    """Decode the signals of an `.inr` file, the main one first.

    initializations: looked through before the embedded and the installed ones.
    max_samples: of all signals together, as stored and as asked for; a file of more is refused before any work.
    skip_damaged: decode what is whole of a damaged or cut file. A warning names the damaged chunks. Their samples
        become missing values of climate fields, gray of pictures and silence of sound. A bound does not hold for
        samples that patches of damaged chunks have a share in.
    on_progress: called with the share of the work done, 0 to 1.
    Raises: ContainerError, InitializationError (UnknownInitialization among them), UsageError.
    """
    return decode_container(
        read_container(data, skip_damaged=skip_damaged),
        resolution=resolution,
        initializations=initializations,
        max_samples=max_samples,
        device=device,
        on_progress=on_progress,
    )


def decode_container(
    container: Container,
    *,
    resolution: Resolution | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    device: str | torch.device = "auto",
    on_progress: Callable[[float], None] | None = None,
) -> list[Signal]:
    """Decode the signals of a container that was read; arguments and errors as for `decode`."""
    resolution = resolution or Resolution()
    if container.cut:
        warnings.warn("the file is cut off: further signals may be missing", InrcodecWarning, stacklevel=2)
    if container.mended:
        warnings.warn(
            "the file is damaged at heads of sections or at its end, where no value is lost",
            InrcodecWarning,
            stacklevel=2,
        )
    for stream in container.streams:
        _warn_of_damage(stream)
    check_samples([stream.header for stream in container.streams], max_samples, resolution)
    known = [*initializations, *(Initialization.from_bytes(content) for content in container.initializations)]
    used = [find_initialization(stream.header.initialization, known) for stream in container.streams]
    for stream, initialization in zip(container.streams, used, strict=True):
        check_stream(stream, initialization)
    check_work([stream.header for stream in container.streams], used, max_samples)
    signals = []
    for number, (stream, initialization) in enumerate(zip(container.streams, used, strict=True)):

        def report(share: float, number: int = number) -> None:
            if on_progress is not None:
                on_progress((number + share) / len(container.streams))

        signals.append(
            decode_stream(
                stream,
                initialization,
                resolution=resolution,
                device=device,
                on_progress=report,
            )
        )
    return signals


def check_work(headers: Sequence[StreamHeader], initializations: Sequence[Initialization], max_samples: int) -> None:
    """Raises: UsageError if patches overlap so much, or are so small, that they take more work than `max_samples` do.

    Patches that overlap by up to half of their size on three axes have eight times as many samples as the signal.
    """
    work = 0
    for header, initialization in zip(headers, initializations, strict=True):
        count, shape = patch_layout(header.axes, initialization.patches)
        work += count * max(math.prod(shape), SMALL_PATCH)
    if work > WORK_PER_SAMPLE * max_samples:
        raise UsageError(
            f"decoding the file takes the work of {work // WORK_PER_SAMPLE} samples, more than {max_samples}: if you "
            "trust it, ask for them with --max-samples (max_samples)"
        )


def _warn_of_damage(stream: Stream) -> None:
    """Warn of what is damaged and was skipped."""
    label = f"the signal {stream.header.name!r}" if stream.header.name else f"the {stream.header.modality}"
    if stream.damaged:
        numbers = f"{_ranges(stream.damaged)} (from 0) of {stream.header.chunks}"
        text = f"{label} has damaged chunks, which are left out: {numbers}"
        if stream.header.max_error is not None:
            text += f"; values there and where others overlap them may be further off than {stream.header.max_error:g}"
        warnings.warn(text, InrcodecWarning, stacklevel=3)
    if stream.header.max_error is not None and stream.residual is None:
        warnings.warn(
            f"{label} has a damaged residual: its values may be further off than {stream.header.max_error:g}",
            InrcodecWarning,
            stacklevel=3,
        )


def _ranges(numbers: Collection[int]) -> str:
    """Return numbers as ranges, "3-17, 20", the first ones where there are many."""
    ordered = sorted(numbers)
    begins = [number for number in ordered if number - 1 not in numbers]
    ends = [number for number in ordered if number + 1 not in numbers]
    ranges = [f"{begin}" if begin == end else f"{begin}-{end}" for begin, end in zip(begins, ends, strict=True)]
    if len(ranges) > NAMED_RANGES:
        ranges = [*ranges[:NAMED_RANGES], f"and others, {len(ordered)} in all"]
    return ", ".join(ranges)


def check_samples(headers: Sequence[StreamHeader], max_samples: int, resolution: Resolution | None = None) -> None:
    """Raises: UsageError if a file has more samples, as stored or as asked for, than are to be decoded."""
    resolution = resolution or Resolution()
    for axes in ([header.axes for header in headers], [resolution.apply(header.axes) for header in headers]):
        samples = sum(math.prod(axis.size for axis in each) for each in axes)
        if samples > max_samples:
            raise UsageError(
                f"the file would decode to {samples} samples, more than {max_samples}: if you trust it, ask for them "
                "with --max-samples (max_samples)"
            )


def decode_stream(
    stream: Stream,
    initialization: Initialization,
    *,
    resolution: Resolution,
    device: str | torch.device = "auto",
    on_progress: Callable[[float], None] | None = None,
    reader: StreamReader | None = None,
) -> Signal:
    """Decode one signal: chunks to symbols to fields, which are asked at every point of the wanted grid.

    Where that is the original one, a residual brings the values within the header's largest error, but not those that a
    damaged chunk has a share in.

    reader: one that is open already.
    """
    header = stream.header
    check_stream(stream, initialization)
    axes = resolution.apply(header.axes)
    reader = reader or codec_of(initialization).open(header, initialization, pick_device(device))
    finer = tuple(oversampled(axis, target) for axis, target in zip(header.axes, axes, strict=True))
    patches = reader.patches
    native = np.empty([*(axis.size for axis in axes), header.channels], header.dtype)
    begin = 0
    rendered = reader.render(stream.chunks, patches.resampled(finer), stream.damaged)
    rendered = _reporting(rendered, len(patches), on_progress)
    for rows in patches.joined(rendered, finer, header.channels, _rows_together(finer[0], axes[0])):
        for dimension, (fine, target) in enumerate(zip(finer, axes, strict=True)):
            rows = decimate(rows, dimension, fine.size // target.size, fine.kind)
        ranges = np.array(header.value_range)
        if header.slice_ranges is not None:
            ranges = header.slice_ranges[begin : begin + len(rows)]
        native[begin : begin + len(rows)] = native_values(rows, ranges, native.dtype)
        begin += len(rows)
    damaged = _damaged_samples(stream, axes, patches)
    signal = Signal(
        modality=header.modality,
        values=native,
        axes=axes,
        value_range=header.value_range,
        name=header.name,
        sphere=header.sphere,
        missing=_missing(stream, axes, damaged),
        attributes=header.attributes,
        slice_ranges=header.slice_ranges,
    )
    signal = with_exact_values(signal)
    if stream.residual is None or header.max_error is None or not _same_grid(axes, header.axes):
        return signal
    corrected = apply_section(signal.values, stream.residual, header.max_error)
    if damaged is not None:
        corrected[damaged] = signal.values[damaged]
    return with_exact_values(replace(signal, values=corrected))


def with_exact_values(signal: Signal) -> Signal:
    """Return a decoded signal with what its attributes say exactly. Raises: CorruptFile if they are malformed."""
    try:
        return replace(signal, values=exact_values(signal))
    except SignalError as error:
        raise CorruptFile(
            f"the signal {signal.name!r} has malformed attributes ({error}): obtain the file again"
        ) from error


def _reporting(
    rendered: Iterator[RenderedPatch], count: int, on_progress: Callable[[float], None] | None
) -> Iterator[RenderedPatch]:
    for done, patch in enumerate(rendered, 1):
        yield patch
        if on_progress is not None:
            on_progress(done / count)


def oversampled(axis: Axis, target: Axis) -> Axis:
    """Return the grid to evaluate for `target`: where that is coarser than the signal, a multiple that is not.

    A field asked at few points only would alias. Latitudes and longitudes are asked where they are, as interpolation
    to another grid is understood there, and video frames when they are.
    """
    factor = math.ceil(axis.size / target.size)
    if factor == 1 or axis.kind in ("node", "periodic", "slice") or (axis.rate is not None and axis.rate < 1000):
        return target
    return target.resampled(target.size * factor)


def _rows_together(fine: Axis, target: Axis) -> int:
    """Return how many samples of an oversampled axis are needed to make one of `target`."""
    factor = fine.size // target.size
    return fine.size if factor > 1 and fine.kind == "start" else factor


def decimate(values: np.ndarray, dimension: int, factor: int, kind: str) -> np.ndarray:
    """Make one of every `factor` samples: the mean of a cell's, a low-pass filtered sample of sound."""
    if factor == 1:
        return values
    if kind == "start":
        from scipy.signal import resample_poly

        return resample_poly(values, 1, factor, axis=dimension, padtype="edge").astype(values.dtype)
    shape = (*values.shape[:dimension], -1, factor, *values.shape[dimension + 1 :])
    return values.reshape(shape).mean(axis=dimension + 1)


def _same_grid(axes: tuple[Axis, ...], others: tuple[Axis, ...]) -> bool:
    return [(axis.size, axis.rate) for axis in axes] == [(axis.size, axis.rate) for axis in others]


def check_stream(stream: Stream, initialization: Initialization) -> None:
    """Check that a stream can be one of an initialization's fields. Raises: CorruptFile."""
    header = stream.header
    if header.modality != initialization.modality:
        raise CorruptFile(
            f"the signal {header.name!r} is {header.modality}, its initialization is for {initialization.modality}: "
            "obtain the file again"
        )
    regular = sum(axis.kind != "slice" for axis in header.axes)
    wanted = len(initialization.patches.shape)
    if not fits(header.axes, initialization.patches):
        raise CorruptFile(
            f"the signal {header.name!r} has {regular} axes, its initialization is for {wanted}: obtain the file again"
        )
    outputs = initialization.field.out_features
    if header.channels not in (1, outputs):
        raise CorruptFile(
            f"the signal {header.name!r} has {header.channels} channels, its initialization's field {outputs}: obtain "
            "the file again"
        )
    patches, _ = patch_layout(header.axes, initialization.patches)
    needed = -(-patches // header.patches_per_chunk)
    if not header.chunks == len(stream.chunks) == needed:
        raise CorruptFile(
            f"the signal {header.name!r} has {len(stream.chunks)} chunks, its size needs {needed}: obtain the file "
            "again"
        )


def _damaged_samples(stream: Stream, axes: tuple[Axis, ...], patches: Patches) -> np.ndarray | None:
    """Return where patches of damaged chunks are, bool [*grid]; None if no chunk is damaged."""
    if not stream.damaged:
        return None
    mask = np.zeros([axis.size for axis in axes], bool)
    for number, samples in enumerate(patches.resampled(axes)):
        if number // stream.header.patches_per_chunk in stream.damaged:
            mask[np.ix_(*samples.indices)] = True
    return mask


def _missing(stream: Stream, axes: tuple[Axis, ...], damaged: np.ndarray | None) -> np.ndarray | None:
    """Return the mask at the wanted resolution: that of the nearest original sample.

    Of climate fields, samples where chunks are damaged are missing too.
    """
    header = stream.header
    mask = None
    if stream.missing is not None:
        stored = unpack_missing(stream.missing, tuple(axis.size for axis in header.axes))
        mask = stored[np.ix_(*map(_nearest_samples, header.axes, axes))]
    if damaged is None or header.modality != "climate":
        return mask
    return damaged if mask is None else mask | damaged


def _nearest_samples(axis: Axis, target: Axis) -> np.ndarray:
    """Return the nearest sample of `axis` for every one of `target`; a periodic axis begins again after its end."""
    nearest = np.rint(axis.positions(target)).astype(np.int64)
    return nearest % axis.size if axis.kind == "periodic" else nearest.clip(0, axis.size - 1)
