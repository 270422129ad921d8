"""From the bytes of an `.inr` file back to signals, at any resolution."""

import math
import operator
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from inrcodec.coding.container import Container, Stream, read_container
from inrcodec.coding.header import StreamHeader
from inrcodec.device import pick_device
from inrcodec.errors import CorruptFile, InrcodecWarning, UnknownInitialization, UsageError
from inrcodec.field_codec import codec_of
from inrcodec.initialization import Initialization
from inrcodec.patches import RenderedPatch, fits, patch_layout
from inrcodec.registry import find_initialization
from inrcodec.resolution import Regrid, Resolution, same_grid
from inrcodec.signals.lazy import ForwardReader, LazySignal, Rows
from inrcodec.signals.signal import Axis, Signal
from inrcodec.slabs import DamagedRows, MissingRows, Slabs

SAMPLES = 1 << 30
"""Samples of a file that are decoded unless more are asked for: a small file may claim to be very large."""

SMALL_PATCH, WORK_PER_SAMPLE = 1 << 10, 8
"""Samples that a patch counts as at least, and how many of all patches there may be for each sample that is allowed."""

NAMED_RANGES = 8
"""Ranges of damaged chunks that a warning names."""


def decode(
    data: bytes,
    *,
    resolution: Resolution | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    skip_damaged: bool = False,
    device: str | torch.device = "auto",
    processes: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> list[Signal]:
    """Decode the signals of an `.inr` file, the main one first.

    initializations: looked through before the embedded and the installed ones.
    max_samples: of all signals together, as stored and as asked for; a file of more is refused before any work.
    skip_damaged: decode what is whole of a damaged or cut file. A warning names the damaged chunks. Their samples
        become missing values of climate fields, gray of pictures and silence of sound. A bound does not hold for
        samples that patches of damaged chunks have a share in. A signal without its header, its mask of missing values
        or its initialization is left out, with a warning.
    processes: that share the work on latent fields, where the CPU does it.
    on_progress: called with the share of the work done, 0 to 1.
    Raises: ContainerError, InitializationError (UnknownInitialization among them), UsageError.
    """
    signals = open_container(
        read_container(data, skip_damaged=skip_damaged),
        resolution=resolution,
        initializations=initializations,
        max_samples=max_samples,
        device=device,
        processes=processes,
        on_progress=on_progress,
    )
    return [signal.loaded() for signal in signals]


def open_container(
    container: Container,
    *,
    resolution: Resolution | None = None,
    initializations: Sequence[Initialization] = (),
    max_samples: int = SAMPLES,
    device: str | torch.device = "auto",
    processes: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> list[LazySignal]:
    """Return the signals of a container that was read, to be decoded slab by slab when they are read.

    Arguments and errors are those of `decode`; CorruptFile may be raised later.
    """
    resolution = resolution or Resolution()
    if container.lacks_initializations:
        container = _with_initializations(container, initializations)
    if container.cut:
        warnings.warn("the file is cut off", InrcodecWarning, stacklevel=2)
    if container.mended:
        warnings.warn(
            "the file is damaged at heads of sections or at its end, where no value is lost",
            InrcodecWarning,
            stacklevel=2,
        )
    for text in container.lost:
        warnings.warn(f"the file is damaged: {text}", InrcodecWarning, stacklevel=2)
    for stream in container.streams:
        _warn_of_damage(stream)
    used = check_container(container, resolution, initializations, max_samples)
    samples = [math.prod(axis.size for axis in stream.header.axes) for stream in container.streams]
    shares = [0.0] * len(samples)

    def open_stream(number: int) -> LazySignal:
        def report(share: float) -> None:
            shares[number] = max(shares[number], share)  # what is read again is done already
            if on_progress is not None:
                on_progress(sum(map(operator.mul, samples, shares)) / sum(samples))

        return decode_stream(
            container.streams[number],
            used[number],
            resolution=resolution,
            device=device,
            processes=processes,
            on_progress=report,
        )

    return [open_stream(number) for number in range(len(samples))]


def _with_initializations(container: Container, initializations: Sequence[Initialization]) -> Container:
    """Return a container without the signals whose initializations are lost.

    Raises: UnknownInitialization if that is so of all.
    """
    known = _known_initializations(container, initializations)
    streams, lost, unknown = [], list(container.lost), None
    for stream in container.streams:
        try:
            find_initialization(stream.header.initialization, known)
            streams.append(stream)
        except UnknownInitialization as error:
            unknown = error
            lost.append(f"{stream.header.label} is left out: {error}")
    if unknown is not None and not streams:
        raise unknown
    return replace(container, streams=tuple(streams), lost=tuple(lost))


def _known_initializations(container: Container, initializations: Sequence[Initialization]) -> list[Initialization]:
    return [*initializations, *(Initialization.from_bytes(content) for content in container.initializations)]


def check_container(
    container: Container, resolution: Resolution, initializations: Sequence[Initialization], max_samples: int
) -> list[Initialization]:
    """Check what a file says of itself before any work, and return the initialization of each of its signals.

    Raises: as `decode`.
    """
    headers = [stream.header for stream in container.streams]
    check_samples(headers, max_samples, resolution)
    known = _known_initializations(container, initializations)
    used = [find_initialization(header.initialization, known) for header in headers]
    for stream, initialization in zip(container.streams, used, strict=True):
        check_stream(stream, initialization)
    check_work(headers, used, max_samples)
    return used


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
    label = stream.header.label
    if stream.damaged:
        numbers = f"{_ranges(stream.damaged)} (from 0) of {stream.header.chunks}"
        text = f"{label} has damaged chunks, which are left out: {numbers}"
        if stream.header.bound is not None:
            text += f"; values there and where others overlap them may be further off than {stream.header.bound}"
        warnings.warn(text, InrcodecWarning, stacklevel=3)
    if stream.header.bound is not None and stream.residual is None:
        warnings.warn(
            f"{label} has a damaged residual: its values may be further off than {stream.header.bound}",
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
    processes: int = 1,
    on_progress: Callable[[float], None] | None = None,
) -> LazySignal:
    """Return one signal, to be decoded slab by slab when it is read.

    Chunks become symbols and symbols fields, which are asked at every point of the wanted grid. Where that is the
    original one, a residual brings the values within the header's largest error, but not those that a damaged chunk
    has a share in.
    """
    header = stream.header
    check_stream(stream, initialization)
    axes = resolution.apply(header.axes)
    reader = codec_of(initialization).open(header, initialization, pick_device(device))
    grid = Regrid(header.axes, axes)
    residual = stream.residual if same_grid(axes, header.axes) else None
    slabs = Slabs(header, axes, residual)
    loses = bool(stream.damaged) and header.modality == "climate"

    def rows() -> Iterator[Rows]:
        rendered = reader.render(stream.chunks, reader.patches.resampled(grid.finer), stream.damaged, processes)
        rendered = _reporting(rendered, len(reader.patches), on_progress)
        damaged = DamagedRows(stream, axes, reader.patches) if stream.damaged else None
        missing = None if stream.missing is None else MissingRows(stream.missing, header.axes, axes)
        for number, values in enumerate(slabs.joined(rendered, reader.patches, grid)):
            span = slabs.span(number)
            corrected = slabs.corrected(values, number)
            lost = None if damaged is None else damaged.between(*span)
            if lost is not None and corrected is not values:
                corrected[lost] = values[lost]
            mask = None if missing is None else missing.between(*span)
            if loses and lost is not None:
                mask = lost if mask is None else mask | lost
            yield corrected, mask

    return signal_of(header, axes, ForwardReader(rows), has_missing=header.has_missing or loses)


def signal_of(
    header: StreamHeader,
    axes: tuple[Axis, ...],
    read: Callable[[int, int], Rows],
    *,
    has_missing: bool,
    count_missing: Callable[[int], int] | None = None,
    ask: Callable[[np.ndarray], np.ndarray] | None = None,
) -> LazySignal:
    """Return the signal that a header describes, on a grid and with values that are read."""
    return LazySignal(
        modality=header.modality,
        dtype=np.dtype(header.dtype),
        axes=axes,
        channels=header.channels,
        value_range=header.value_range,
        read=read,
        name=header.name,
        sphere=header.sphere,
        has_missing=has_missing,
        attributes=header.attributes,
        slice_ranges=header.slice_ranges,
        count_missing=count_missing,
        ask=ask,
    )


def _reporting(
    rendered: Iterator[RenderedPatch], count: int, on_progress: Callable[[float], None] | None
) -> Iterator[RenderedPatch]:
    for done, patch in enumerate(rendered, 1):
        if on_progress is not None:
            on_progress(done / count)
        yield patch


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
