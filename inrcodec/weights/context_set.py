"""Context sets: the (coordinate, value) pairs that a weight-coded field is adapted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from inrcodec.field_values import check_channels, field_channels, unit_values
from inrcodec.patches import Patches
from inrcodec.signals.lazy import AnySignal
from inrcodec.weights.normalization import Normalization

FLOAT_BITS = 16
"""Precision that is kept of flat patches of floating-point signals."""


@dataclass(frozen=True, eq=False)
class ContextSet:
    """The (coordinate, value) pairs C_full of a batch of signals.

    coordinates: [B, N, d], or [1, N, d] where the signals share them.
    values: [B, N, C].
    shape: how many of the N points there are along each axis, where they are a grid.
    """

    coordinates: Tensor
    values: Tensor
    shape: tuple[int, ...] = ()

    def select(self, points: Tensor) -> "ContextSet":
        """Return the subset at `points`, [B, n] indices into the N points, different for every signal."""
        batch = self.values.shape[0]
        coordinates = self.coordinates.expand(batch, -1, -1)
        return ContextSet(_take(coordinates, points), _take(self.values, points))


def _take(values: Tensor, points: Tensor) -> Tensor:
    return values.gather(1, points.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


@dataclass(frozen=True, eq=False)
class PatchContextSets:
    """The context sets of P patches of a signal.

    normalization: what turned the values in [0, 1] into those of the context sets.
    values: [P, N, C] float32; coordinates: [P or 1, N, d] float32.
    shape: of a patch, see `Patches`.
    """

    normalization: Normalization
    values: np.ndarray
    coordinates: np.ndarray
    shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, patches: slice | list[int]) -> "PatchContextSets":
        shared = len(self.coordinates) == 1
        coordinates = self.coordinates if shared else self.coordinates[patches]
        return PatchContextSets(self.normalization[patches], self.values[patches], coordinates, self.shape)

    @classmethod
    def concatenated(cls, parts: Sequence["PatchContextSets"], *, shared: bool) -> Self:
        """Return several as one. shared: whether all have the coordinates of the first."""
        return cls(
            Normalization(
                np.concatenate([part.normalization.exponents for part in parts]),
                np.concatenate([part.normalization.means for part in parts]),
            ),
            np.concatenate([part.values for part in parts]),
            parts[0].coordinates if shared else np.concatenate([part.coordinates for part in parts]),
            parts[0].shape,
        )

    def context_set(self, device: torch.device) -> ContextSet:
        """Return the context sets of all patches as one batch."""
        coordinates, values = (torch.from_numpy(each).to(device) for each in (self.coordinates, self.values))
        return ContextSet(coordinates, values, self.shape)

    def batches(self, points: int) -> list[slice]:
        """Return slices of patches with at most `points` context points together (at least one patch each)."""
        size = max(1, points // self.values.shape[1])
        return [slice(start, start + size) for start in range(0, len(self), size)]


def patch_context_sets(signal: AnySignal, patches: Patches, channels: int) -> PatchContextSets:
    """Cut a signal into the context sets of a field with `channels` outputs.

    Raises: UsageError if the signal has several channels, but not as many as the field.
    """
    check_channels(signal, channels)
    values = np.empty((len(patches), patches.points, channels), np.float32)
    exponents = np.zeros(len(patches), np.int64)
    means = np.zeros((len(patches), channels), np.int64)
    bits = 8 * signal.dtype.itemsize if signal.dtype.kind in "iu" else FLOAT_BITS
    finest = -min(bits, FLOAT_BITS)
    # Patch by patch: a video as 64-bit floats would not fit into memory.
    for patch in range(len(patches)):
        unit = unit_values(signal, patches.values(signal, patch), patches.first_samples(patch))
        shown = field_channels(unit, channels)[None]
        normalization = Normalization.measure(shown, finest)
        if not patches.config.normalize:
            normalization = Normalization.none(1, channels)
        values[patch] = normalization.apply(shown)[0]
        exponents[patch], means[patch] = normalization.exponents[0], normalization.means[0]
    asked = range(1 if patches.shares_coordinates() else len(patches))
    coordinates = np.stack([patches.coordinates(patch) for patch in asked])
    return PatchContextSets(Normalization(exponents, means), values, coordinates, patches.shape)
