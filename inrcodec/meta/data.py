"""Signals as context sets: what the field is shown, in meta-training and when encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inrcodec.errors import UsageError
from inrcodec.meta.context import Context
from inrcodec.normalization import Normalization
from inrcodec.patches import PatchConfig, Patches
from inrcodec.signals.signal import Signal

FLOAT_BITS = 16
"""Precision that is kept of flat patches of floating-point signals."""


def unit_values(signal: Signal, values: np.ndarray) -> np.ndarray:
    """Native values to the [0, 1] the field is shown, float64."""
    low, high = signal.value_range
    return (values.astype(np.float64) - low) / (high - low)


def field_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Values [..., C] for a field with `channels` outputs: a single channel is shown to all of them."""
    return np.repeat(values, channels, axis=-1) if values.shape[-1] == 1 else values


def signal_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Inverse of `field_channels`: the mean of the outputs that showed a single channel."""
    return values.mean(axis=-1, keepdims=True) if channels == 1 else values


def check_channels(signal: Signal, channels: int) -> None:
    """Raises: UsageError if a field with `channels` outputs cannot show a signal."""
    if signal.channels not in (1, channels):
        raise UsageError(
            f"the signal has {signal.channels} channels, the initialization's field {channels}: "
            "choose another initialization"
        )


@dataclass(frozen=True, eq=False)
class PatchContexts:
    """The context sets of all patches of a signal.

    normalization: what turned the values in [0, 1] into the context's.
    values: [P, N, C] float32; coordinates: [P or 1, N, d] float32.
    """

    normalization: Normalization
    values: np.ndarray
    coordinates: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, patches: slice | list[int]) -> "PatchContexts":
        shared = len(self.coordinates) == 1
        coordinates = self.coordinates if shared else self.coordinates[patches]
        return PatchContexts(self.normalization[patches], self.values[patches], coordinates)

    def context(self, device: torch.device) -> Context:
        return Context(torch.from_numpy(self.coordinates).to(device), torch.from_numpy(self.values).to(device))

    def batches(self, points: int) -> list[slice]:
        """Slices of patches with at most `points` context points together (at least one patch each)."""
        size = max(1, points // self.values.shape[1])
        return [slice(start, start + size) for start in range(0, len(self), size)]


def patch_contexts(signal: Signal, patches: Patches, channels: int) -> PatchContexts:
    """Cut a signal into the context sets of a field with `channels` outputs.

    Raises: UsageError if the signal has several channels, but not as many as the field.
    """
    check_channels(signal, channels)
    values = np.empty((len(patches), patches.points, channels), np.float32)
    exponents = np.zeros(len(patches), np.int64)
    means = np.zeros((len(patches), channels), np.int64)
    bits = 8 * signal.values.dtype.itemsize if signal.values.dtype.kind in "iu" else FLOAT_BITS
    finest = -min(bits, FLOAT_BITS)
    # Patch by patch: a video as 64-bit floats would not fit into memory.
    for patch in range(len(patches)):
        shown = field_channels(unit_values(signal, patches.values(signal, patch)), channels)[None]
        normalization = Normalization.measure(shown, finest)
        if not patches.config.normalize:
            normalization = Normalization.none(1, channels)
        values[patch] = normalization.apply(shown)[0]
        exponents[patch], means[patch] = normalization.exponents[0], normalization.means[0]
    asked = range(1 if patches.shares_coordinates() else len(patches))
    coordinates = np.stack([patches.coordinates(patch) for patch in asked])
    return PatchContexts(Normalization(exponents, means), values, coordinates)


class PatchSampler:
    """Random patches of nominal size from a set of signals, for meta-training.

    Every signal is as likely as any other, whatever its size; axes whose direction means nothing (pixels) are
    flipped half of the time.
    """

    def __init__(self, signals: Sequence[Signal], config: PatchConfig, channels: int, seed: int) -> None:
        """Raises: UsageError if no signal is large enough for a patch."""
        self.signals = [signal for signal in signals if _fits(signal, config)]
        if not self.signals:
            largest = [signal.shape for signal in signals[:3]]
            raise UsageError(
                f"none of {len(signals)} signals is as large as a patch of {config.shape} samples "
                f"(the first ones: {largest}): give larger signals or smaller patches"
            )
        self.config = config
        self.channels = channels
        self.seed = seed

    def batch(self, step: int, size: int) -> PatchContexts:
        """The patches of an outer step: the same for the same (seed, step)."""
        random = np.random.default_rng([self.seed, step])
        parts = [self._patch(random) for _ in range(size)]
        shared = not self.config.sphere
        return PatchContexts(
            Normalization(
                np.concatenate([part.normalization.exponents for part in parts]),
                np.concatenate([part.normalization.means for part in parts]),
            ),
            np.concatenate([part.values for part in parts]),
            parts[0].coordinates if shared else np.concatenate([part.coordinates for part in parts]),
        )

    def _patch(self, random: np.random.Generator) -> PatchContexts:
        signal = self.signals[random.integers(len(self.signals))]
        patches = Patches.random(signal.axes, self.config, random)
        contexts = patch_contexts(signal, patches, self.channels)
        if self.config.sphere:
            return contexts
        values = contexts.values.reshape(*(axis.size for axis in patches.axes), self.channels)
        flipped = [i for i, axis in enumerate(patches.axes) if axis.axis.kind == "cell" and random.random() < 0.5]
        values = np.ascontiguousarray(np.flip(values, tuple(flipped))).reshape(contexts.values.shape)
        return PatchContexts(contexts.normalization, values, contexts.coordinates)


def _fits(signal: Signal, config: PatchConfig) -> bool:
    sizes = [axis.size for axis in signal.axes if axis.kind != "slice"]
    return len(sizes) == len(config.shape) and all(
        size >= nominal for size, nominal in zip(sizes, config.shape, strict=True)
    )
