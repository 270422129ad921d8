"""Whole signals during adaptation: reconstructions, and the context points that pruning keeps."""

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
from inrcodec.weights.model import WeightModel
from inrcodec.weights.pruning import prune

BATCH_POINTS = 1 << 17
"""Context points of the patches adapted at once."""


@dataclass(frozen=True, eq=False)
class View:
    """A signal after some adaptation steps.

    reconstruction: its fields asked at every sample, not quantized but for the values' own type.
    selected: [*grid] bool, the context points that pruning would keep for the next step; None if not wanted.
    """

    reconstruction: Signal
    selected: np.ndarray | None


def random_initialization(initialization: Initialization, step_size: float) -> Initialization:
    """Return the same field from random parameters, for plain gradient descent on the full context set."""
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

    selected: steps after which the kept points are wanted too.
    Raises: UsageError if the initialization does not fit the signal.
    """
    model = WeightModel.of(initialization)
    patches = Patches.cover(signal.axes, initialization.patches)
    context_sets = patch_context_sets(signal, patches, model.field.out_features)
    samples = patches.resampled(signal.axes)
    shown = {step: np.zeros(signal.values.shape) for step in steps}
    kept = {step: np.zeros(signal.shape, bool) for step in selected}
    for part in context_sets.batches(BATCH_POINTS):
        batch = context_sets[part]
        context_set = batch.context_set(device)
        adapt(
            model.field,
            _to(model.theta_0, device),
            _to(model.log_step_sizes, device),
            context_set,
            model.adaptation,
            steps=max(steps),
            on_step=_recorder(model, batch, context_set, list(islice(samples, len(batch))), shown, kept),
        )
    return {
        step: View(
            replace(signal, values=native_values(values, signal.value_range, signal.values.dtype)),
            kept.get(step),
        )
        for step, values in shown.items()
    }


def _recorder(
    model: WeightModel,
    batch: PatchContextSets,
    context_set: ContextSet,
    samples: Sequence[PatchSamples],
    shown: dict[int, np.ndarray],
    kept: dict[int, np.ndarray],
) -> Callable[[int, Parameters, Tensor], None]:
    """Return what `adapt` calls at every step, which adds the patches of a batch to the views of the whole signal."""
    field, config = model.field, model.adaptation

    def record(step: int, theta: Parameters, _: Tensor) -> None:
        if step in shown:
            with torch.no_grad():
                values = batch.normalization.invert(field(theta, context_set.coordinates).cpu().numpy())
            # A step size too large diverges; what is left must still be a number.
            values = np.nan_to_num(values, nan=0.5).clip(-10, 10)
            for patch, own in zip(samples, values, strict=True):
                patch.accumulate(signal_channels(own, shown[step].shape[-1]), shown[step])
        if step in kept:
            pruned = prune(field, theta, context_set, score=config.score, gamma=config.gamma)
            for patch, mask in zip(samples, kept_points(context_set, pruned), strict=True):
                kept[step][np.ix_(*patch.indices)] |= mask.reshape([len(index) for index in patch.indices])

    return record


def kept_points(context_set: ContextSet, pruned: ContextSet) -> np.ndarray:
    """Return which points of the context set the pruned one has: [B, N] bool.

    Pruning returns points, not their indices: they are found again by their coordinates, which all differ.
    """
    batch, points = context_set.values.shape[:2]
    everything = _rows(context_set.coordinates.expand(batch, -1, -1))
    left = _rows(pruned.coordinates.expand(batch, -1, -1))
    masks = [np.isin(rows, some) for rows, some in zip(everything, left, strict=True)]
    return np.stack(masks).reshape(batch, points)


def _rows(coordinates: Tensor) -> np.ndarray:
    """Return coordinates [B, N, d] as one opaque value per point, [B, N]."""
    array = np.ascontiguousarray(coordinates.cpu().numpy())
    return array.view([("", array.dtype)] * array.shape[-1])[..., 0]


def _to(parameters: Parameters, device: torch.device) -> Parameters:
    return {name: value.to(device) for name, value in parameters.items()}
