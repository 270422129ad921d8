"""From the bytes of an `.inr` file back to signals, at any resolution."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from inrcodec.coding.chunk import PatchDeltas, unpack_chunk
from inrcodec.coding.container import Stream, read_container, unpack_missing
from inrcodec.coding.header import MAX_SAMPLES, StreamHeader
from inrcodec.coding.quantization import Quantizer, unflatten
from inrcodec.coding.rate_distortion import BATCH_POINTS
from inrcodec.errors import CorruptFile, UsageError
from inrcodec.initializations import find_initialization
from inrcodec.meta.data import signal_channels
from inrcodec.meta.initialization import Initialization
from inrcodec.patches import Patches, PatchSamples, patch_count
from inrcodec.signals.signal import Axis, Signal

MAX_CHUNK_SIZE = 1 << 26
"""Samples and parameters of a chunk that a decoder accepts: a small file must not make it allocate without bound."""


@dataclass(frozen=True)
class Resolution:
    """What is asked of the decoder; all None keeps the original grid. Raises: UsageError for what is not positive.

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
        """The grid at this resolution. Raises: UsageError if an axis would have no or too many samples."""
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
    device: str | torch.device = "auto",
    on_progress: Callable[[float], None] | None = None,
) -> list[Signal]:
    """The signals of an `.inr` file, the main one first.

    initializations: looked through before the embedded and the installed ones.
    on_progress: called with the share of the work done, 0 to 1.
    Raises: ContainerError, UnknownInitialization, UsageError.
    """
    container = read_container(data)
    known = [*initializations, *(Initialization.from_bytes(content) for content in container.initializations)]
    signals = []
    for number, stream in enumerate(container.streams):
        initialization = find_initialization(stream.header.initialization, known)

        def report(share: float, number: int = number) -> None:
            if on_progress is not None:
                on_progress((number + share) / len(container.streams))

        signals.append(
            decode_stream(
                stream,
                initialization,
                resolution=resolution or Resolution(),
                device=device,
                on_progress=report,
            )
        )
    return signals


def decode_stream(
    stream: Stream,
    initialization: Initialization,
    *,
    resolution: Resolution,
    device: str | torch.device = "auto",
    on_progress: Callable[[float], None] | None = None,
) -> Signal:
    """One signal: symbols to deltas to fields, asked at every point of the wanted grid."""
    header = stream.header
    needed = -(-_patch_count(header, initialization) // header.patches_per_chunk)
    if not header.chunks == len(stream.chunks) == needed:
        raise CorruptFile(f"the signal {header.name!r} has {len(stream.chunks)} chunks, its size needs {needed}")
    axes = resolution.apply(header.axes)
    finer = tuple(oversampled(axis, target) for axis, target in zip(header.axes, axes, strict=True))
    patches = Patches.cover(header.axes, initialization.patches)
    values = np.zeros([*(axis.size for axis in finer), header.channels], np.float32)
    samples = patches.resampled(finer)
    done = 0
    for deltas in _chunks(stream, initialization, len(patches)):
        done += _render(deltas, samples, initialization, pick_device(device), values)
        if on_progress is not None:
            on_progress(done / len(patches))
    for dimension, (fine, target) in enumerate(zip(finer, axes, strict=True)):
        values = decimate(values, dimension, fine.size // target.size, fine.kind)
    return Signal(
        modality=header.modality,
        values=native_values(values, header.value_range, np.dtype(header.dtype)),
        axes=axes,
        value_range=header.value_range,
        name=header.name,
        sphere=header.sphere,
        missing=_missing(stream, axes),
        attributes=header.attributes,
    )


def oversampled(axis: Axis, target: Axis) -> Axis:
    """The grid to evaluate for `target`: where that is coarser than the signal, a multiple that is not.

    A field asked at few points only would alias. Latitudes and longitudes are asked where they are, as interpolation
    to another grid is understood there, and video frames when they are.
    """
    factor = math.ceil(axis.size / target.size)
    if factor == 1 or axis.kind in ("node", "periodic", "slice") or (axis.rate is not None and axis.rate < 1000):
        return target
    return target.resampled(target.size * factor)


def decimate(values: np.ndarray, dimension: int, factor: int, kind: str) -> np.ndarray:
    """Every `factor` samples become one: the mean of a cell's, a low-pass filtered sample of sound."""
    if factor == 1:
        return values
    if kind == "start":
        from scipy.signal import resample_poly

        return resample_poly(values, 1, factor, axis=dimension, padtype="edge").astype(values.dtype)
    shape = (*values.shape[:dimension], -1, factor, *values.shape[dimension + 1 :])
    return values.reshape(shape).mean(axis=dimension + 1)


def pick_device(device: str | torch.device) -> torch.device:
    """ "auto" is the first GPU where there is one. Raises: UsageError if the device cannot be used."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda":
            # Convolutions at 10 bits of mantissa would decode to visibly other values than on a CPU.
            torch.backends.cudnn.allow_tf32 = False
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {str(device)!r} cannot be used ({reason}): use auto, cpu or cuda[:n]") from error
    return chosen


def native_values(values: np.ndarray, value_range: tuple[float, float], dtype: np.dtype) -> np.ndarray:
    """Field values in [0, 1] to the signal's own; integers are rounded and clipped to what their type holds."""
    low, high = value_range
    native = np.empty(values.shape, dtype)
    for part, shown in zip(native, values, strict=True):  # part by part, for the memory that 64 bits need
        exact = shown.astype(np.float64) * (high - low) + low
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            exact = np.rint(exact).clip(limits.min, limits.max)
        part[...] = exact
    return native


def _patch_count(header: StreamHeader, initialization: Initialization) -> int:
    regular = sum(axis.kind != "slice" for axis in header.axes)
    if regular != len(initialization.patches.shape):
        raise CorruptFile(
            f"the signal {header.name!r} has {regular} axes, its initialization is for "
            f"{len(initialization.patches.shape)}"
        )
    if len(header.steps) != len(initialization.adapted) or len(header.shifts) != len(initialization.adapted):
        raise CorruptFile(
            f"the signal {header.name!r} has {len(header.steps)} quantization steps, its initialization "
            f"{len(initialization.adapted)} tensors"
        )
    if header.channels not in (1, initialization.model.out_features):
        raise CorruptFile(
            f"the signal {header.name!r} has {header.channels} channels, its initialization "
            f"{initialization.model.out_features}"
        )
    patches, points = patch_count(header.axes, initialization.patches)
    size = points + initialization.delta_size
    if min(patches, header.patches_per_chunk) * size > MAX_CHUNK_SIZE:
        raise CorruptFile(
            f"a chunk of the signal {header.name!r} has {header.patches_per_chunk} patches of {size} samples and "
            f"parameters, more than {MAX_CHUNK_SIZE} in all"
        )
    return patches


def _chunks(stream: Stream, initialization: Initialization, patches: int) -> Iterator[PatchDeltas]:
    header = stream.header
    quantizer = Quantizer(header.steps, header.shifts)
    for number, chunk in enumerate(stream.chunks):
        count = min(header.patches_per_chunk, patches - number * header.patches_per_chunk)
        yield unpack_chunk(chunk, count, quantizer, initialization)


def _render(
    patches: PatchDeltas,
    samples: Iterator[PatchSamples],
    initialization: Initialization,
    device: torch.device,
    onto: np.ndarray,
) -> int:
    """Evaluate the fields of a chunk where the grid asks for them; returns how many there were."""
    count = len(patches.deltas)
    start = 0
    while start < count:
        asked = [next(samples)]
        while start + len(asked) < count and len(asked) * len(asked[0].coordinates) < BATCH_POINTS:
            asked.append(next(samples))
        part = slice(start, start + len(asked))
        fields = PatchDeltas(patches.normalization[part], patches.deltas[part])
        for patch, values in zip(asked, _evaluate(fields, asked, initialization, device), strict=True):
            patch.accumulate(signal_channels(values, onto.shape[-1]), onto)
        start = part.stop
    return count


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


def _missing(stream: Stream, axes: tuple[Axis, ...]) -> np.ndarray | None:
    """The mask at the wanted resolution: that of the nearest original sample."""
    if stream.missing is None:
        return None
    header = stream.header
    mask = unpack_missing(stream.missing, tuple(axis.size for axis in header.axes))
    nearest = [
        np.rint(axis.positions(target)).astype(np.int64).clip(0, axis.size - 1)
        for axis, target in zip(header.axes, axes, strict=True)
    ]
    return mask[np.ix_(*nearest)]
