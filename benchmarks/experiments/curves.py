"""Measures of every held-out patch after numbers of adaptation steps."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from inrcodec.weights.context_set import ContextSet

POINTS_AT_ONCE = 1 << 20
"""Context points of all patches that are measured at once at most, for memory."""

Curve = dict[int, Tensor]
"""A measure, PSNR in dB where nothing else is said, of every held-out patch, [P], after numbers of adaptation steps."""


def slices(context_set: ContextSet) -> Iterator[ContextSet]:
    """Yield the patches that are measured at once."""
    batch, points = context_set.values.shape[:2]
    size = max(1, POINTS_AT_ONCE // points)
    for start in range(0, batch, size):
        part = slice(start, start + size)
        shared = len(context_set.coordinates) == 1
        yield ContextSet(context_set.coordinates if shared else context_set.coordinates[part], context_set.values[part])


def decibels(losses: Tensor) -> Tensor:
    """Return the PSNR of mean squared errors at peak 1; what diverged counts as an error of 1."""
    return -10 * losses.detach().nan_to_num(nan=1.0).clamp(1e-12, 1.0).log10()


def best_of(trials: Sequence[Curve]) -> Curve:
    """Return for every number of steps the trial with the highest mean."""
    return {mark: max((trial[mark] for trial in trials), key=lambda psnr: float(psnr.mean())) for mark in trials[0]}


def means(curve: Curve) -> dict[float, float]:
    """Return the mean over patches, by the number of steps."""
    return {mark: float(psnr.mean()) for mark, psnr in curve.items()}


def joined(parts: Sequence[Curve]) -> Curve:
    """Return the curve of all patches from those of `slices`."""
    return {mark: torch.cat([part[mark] for part in parts]) for mark in parts[0]}
