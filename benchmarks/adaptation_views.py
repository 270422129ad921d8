"""Whole signals during adaptation: reconstructions, and the context that pruning keeps."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.field_values import native_values, signal_channels
from inrcodec.initialization import Initialization
from inrcodec.models import Parameters
from inrcodec.patches import Patches, PatchSamples
from inrcodec.signals.signal import Signal
from inrcodec.weights.adaptation import adapt
from inrcodec.weights.context_set import ContextSet, PatchContextSets, patch_context_sets
from inrcodec.weights.pruning import prune

BATCH_POINTS = 1 << 17
"""ContextSet points of the patches adapted at once."""


@dataclass(frozen=True, eq=False)
class View:
    """A signal after some adaptation steps.

    reconstruction: its fields asked at every sample, not quantized but for the values' own type.
    selected: [*grid] bool, the context points that pruning would keep for the next step; None if not wanted.
    """

    reconstruction: Signal
    selected: np.ndarray | None


def random_initialization(initialization: Initialization, step_size: float) -> Initialization:
    """The same field from random parameters, for plain gradient descent on the full context."""
    return replace(
        initialization,
        theta_0=initialization.field.initialize(torch.Generator().manual_seed(1)),
        log_step_sizes={SHARED: torch.tensor([step_size]).log()},
        adaptation=replace(initialization.adaptation, score="full"),
    )


def adaptation_views(
    signal: Signal,
    initialization: Initialization,
    device: torch.device,
    steps: Collection[int],
    selected: Collection[int] = (),
) -> dict[int, View]:
    """Adapt as the encoder does, and look after each of `steps`.

    selected: those after which the kept context is wanted too.
    Raises: UsageError if the initialization does not fit the signal.
    """
    patches = Patches.cover(signal.axes, initialization.patches)
    contexts = patch_context_sets(signal, patches, initialization.field.out_features)
    samples = patches.resampled(signal.axes)
    shown = {step: np.zeros(signal.values.shape) for step in steps}
    kept = {step: np.zeros(signal.shape, bool) for step in selected}
    for part in contexts.batches(BATCH_POINTS):
        batch = contexts[part]
        context = batch.context_set(device)
        adapt(
            initialization.field,
            _to(initialization.theta_0, device),
            _to(initialization.log_step_sizes, device),
            context,
            initialization.adaptation,
            steps=max(steps),
            on_step=_recorder(initialization, batch, context, list(islice(samples, len(batch))), shown, kept),
        )
    return {
        step: View(
            replace(signal, values=native_values(values, signal.value_range, signal.values.dtype)),
            kept.get(step),
        )
        for step, values in shown.items()
    }


def _recorder(
    initialization: Initialization,
    batch: PatchContextSets,
    context: ContextSet,
    samples: Sequence[PatchSamples],
    shown: dict[int, np.ndarray],
    kept: dict[int, np.ndarray],
) -> Callable[[int, Parameters, Tensor], None]:
    """What `adapt` calls at every step: adds the patches of a batch to the views of the whole signal."""
    model, config = initialization.field, initialization.adaptation

    def record(step: int, theta: Parameters, _: Tensor) -> None:
        if step in shown:
            with torch.no_grad():
                values = batch.normalization.invert(model(theta, context.coordinates).cpu().numpy())
            # A step size too large diverges; what is left must still be a number.
            values = np.nan_to_num(values, nan=0.5).clip(-10, 10)
            for patch, own in zip(samples, values, strict=True):
                patch.accumulate(signal_channels(own, shown[step].shape[-1]), shown[step])
        if step in kept:
            pruned = prune(model, theta, context, score=config.score, gamma=config.gamma)
            for patch, mask in zip(samples, kept_points(context, pruned), strict=True):
                kept[step][np.ix_(*patch.indices)] |= mask.reshape([len(index) for index in patch.indices])

    return record


def kept_points(context: ContextSet, pruned: ContextSet) -> np.ndarray:
    """Which points of the context the pruned one has: [B, N] bool.

    Pruning returns points, not where they were: they are found again by their coordinates, which differ.
    """
    batch, points = context.values.shape[:2]
    everything = _rows(context.coordinates.expand(batch, -1, -1))
    left = _rows(pruned.coordinates.expand(batch, -1, -1))
    masks = [np.isin(rows, some) for rows, some in zip(everything, left, strict=True)]
    return np.stack(masks).reshape(batch, points)


def _rows(coordinates: Tensor) -> np.ndarray:
    """Coordinates [B, N, d] as one opaque value per point, [B, N]."""
    array = np.ascontiguousarray(coordinates.cpu().numpy())
    return array.view([("", array.dtype)] * array.shape[-1])[..., 0]


def _to(parameters: Parameters, device: torch.device) -> Parameters:
    return {name: value.to(device) for name, value in parameters.items()}
