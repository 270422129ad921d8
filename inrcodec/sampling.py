"""A part of a long signal to try codings on."""

from dataclasses import replace

import numpy as np

from inrcodec.patches import PatchConfig, Patches
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.signal import Axis, Signal

SAMPLE_VALUES = 1 << 23
"""Values that a signal may have, about, to be its own sample."""

OF_THE_WHOLE = ("file", "zeros", "limits", "gaps")
"""Attributes that would be wrong of a part."""


def sample_of(signal: AnySignal, config: PatchConfig) -> AnySignal:
    """Return a signal, or if it is long some of its patches, evenly spread and one after the other.

    Of patches that are long themselves only the middle of the first axis is taken.
    Missing values stay missing. A sample has the attributes but for those that are about the whole, and the points of
    its first patch.
    """
    if signal.samples * signal.channels <= SAMPLE_VALUES:
        return signal
    patches = Patches.cover(signal.axes, config)
    size = patches.axes[0].size
    rows = min(size, max(1, SAMPLE_VALUES * size // (patches.points * signal.channels)))
    count = max(1, SAMPLE_VALUES // (patches.points * signal.channels))
    if count >= len(patches) and rows == size:
        return signal
    values, masks, ranges = [], [], []
    for patch in ((np.arange(count) + 0.5) * len(patches) / count).astype(int).tolist():
        first, *others = patches.samples(patch)
        first = first[(size - rows) // 2 :][:rows]
        part = signal.part(int(first[0]), int(first[-1]) + 1)
        values.append(part.values[np.ix_(first - first[0], *others)])
        if part.missing is not None:
            masks.append(part.missing[np.ix_(first - first[0], *others)])
        if part.slice_ranges is not None:
            ranges.append(part.slice_ranges[first - first[0]])
    joined = np.concatenate(values)
    first, *others = patches.samples(0)
    axes = [_cut(axis, indices) for axis, indices in zip(signal.axes[1:], others, strict=True)]
    return Signal(
        modality=signal.modality,
        values=joined,
        axes=(replace(signal.axes[0], size=len(joined), points=None), *axes),
        value_range=signal.value_range,
        name=signal.name,
        sphere=signal.sphere,
        missing=np.concatenate(masks) if masks else None,
        attributes={key: value for key, value in signal.attributes.items() if key not in OF_THE_WHOLE},
        slice_ranges=np.concatenate(ranges) if ranges else None,
    )


def _cut(axis: Axis, indices: np.ndarray) -> Axis:
    """Return the axis of some neighbouring samples of one, which need not be periodic any more."""
    if len(indices) == axis.size:
        return axis
    points = None if axis.points is None else axis.points_at(indices[0] + np.arange(len(indices), dtype=np.float64))
    return replace(axis, kind="node" if axis.kind == "periodic" else axis.kind, size=len(indices), points=points)
