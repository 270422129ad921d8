"""The search for the quantization steps of least D + lambda R, one integer per tensor."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrcodec.coding import entropy
from inrcodec.weights.adaptation import signal_losses
from inrcodec.weights.context_set import PatchContextSets
from inrcodec.weights.model import WeightModel
from inrcodec.weights.quantization import (
    Quantizer,
    best_patch_shifts,
    dequantize,
    fit_shifts,
    model_rows,
    quantize,
    symbol_step_indices,
)

LARGEST_STEP_INDEX = 120
"""Largest magnitude of a quantization step index: 2^30 and 2^-30."""

BATCH_POINTS = 1 << 17
"""Context points evaluated at once; bounds memory."""


@dataclass(frozen=True)
class Cost:
    """Distortion (mean squared error of values in [0, 1]) and rate (bits per context point) of a choice."""

    distortion: float
    rate: float

    def total(self, trade_off: float) -> float:
        return self.distortion + trade_off * self.rate


@dataclass(frozen=True, eq=False)
class Trial:
    """The outcome of trying a quantizer on some patches: symbols [P, n] and their cost."""

    symbols: np.ndarray
    cost: Cost


def measure(
    deltas: np.ndarray,
    context_sets: PatchContextSets,
    model: WeightModel,
    quantizer: Quantizer,
    device: torch.device,
    patch_shifts: np.ndarray | None = None,
) -> Trial:
    """Try a quantizer on some patches' deltas [P, n].

    patch_shifts: of the patches' priors, [P]; None for the best ones.
    The distortion is that of the patches by themselves, before they are blended.
    """
    exponents = context_sets.normalization.exponents
    indices, scales = quantizer.columns(model)
    step_indices = symbol_step_indices(indices, exponents)
    symbols = quantize(deltas, step_indices)
    if patch_shifts is None:
        patch_shifts = best_patch_shifts(symbols, scales, step_indices)
    rows = model_rows(scales, step_indices, patch_shifts)
    bits = entropy.code_length(symbols.ravel(), rows.ravel()).sum()
    rebuilt = dequantize(symbols, step_indices)
    squares = np.empty(len(deltas))
    with torch.no_grad():
        for part in context_sets.batches(BATCH_POINTS):
            parameters = model.parameters(rebuilt[part], device)
            losses = signal_losses(model.field, parameters, context_sets[part].context_set(device))
            squares[part] = losses.cpu().numpy()
    distortion = float((squares * context_sets.normalization.scales**2).mean())
    return Trial(symbols, Cost(distortion, float(bits) / context_sets.values[..., 0].size))


def choose_quantizer(
    deltas: np.ndarray,
    context_sets: PatchContextSets,
    model: WeightModel,
    *,
    trade_off: float,
    device: torch.device,
    sample: int = 24,
    start: Quantizer | None = None,
    moves: tuple[int, ...] = (4, 2, 1),
) -> Quantizer:
    """Find the quantizer with the least D + trade_off * R on a sample of the patches.

    All step indices move together first, then one tensor after the other, by ever smaller moves (in quarter octaves).
    Descent finds the best, because cost has one valley along each of these lines. The priors' scales are fitted before
    every round of moves.

    trade_off: lambda, in squared error of values in [0, 1] per bit per sample.
    sample: patches that are looked at, spread evenly.
    """
    chosen = np.unique(np.linspace(0, len(deltas) - 1, min(sample, len(deltas))).astype(int)).tolist()
    deltas, context_sets = deltas[chosen], context_sets[chosen]
    exponents = context_sets.normalization.exponents
    quantizer = start or Quantizer.start(model)
    tensors = quantizer.tensors
    for move in moves:
        symbols = measure(deltas, context_sets, model, quantizer, device).symbols
        quantizer = fit_shifts(quantizer, model, symbols, exponents)
        indices, scales = quantizer.columns(model)
        patch_shifts = best_patch_shifts(symbols, scales, symbol_step_indices(indices, exponents))

        def cost(candidate: Quantizer, patch_shifts: np.ndarray = patch_shifts) -> float:
            trial = measure(deltas, context_sets, model, candidate, device, patch_shifts)
            return trial.cost.total(trade_off)

        groups = [range(tensors)] + [range(tensor, tensor + 1) for tensor in range(tensors)]
        best = cost(quantizer)
        for group in groups[: 1 if move == moves[0] else None]:
            quantizer, best = _slide(quantizer, best, group, move, cost)
    symbols = measure(deltas, context_sets, model, quantizer, device).symbols
    return fit_shifts(quantizer, model, symbols, exponents)


def _slide(
    quantizer: Quantizer, best: float, group: range, move: int, cost: Callable[[Quantizer], float]
) -> tuple[Quantizer, float]:
    """Move the step indices of a group of tensors up or down for as long as that lowers the cost."""
    for direction in (move, -move):
        moved = False
        while True:
            step_indices = tuple(
                min(max(index + direction, -LARGEST_STEP_INDEX), LARGEST_STEP_INDEX) if tensor in group else index
                for tensor, index in enumerate(quantizer.step_indices)
            )
            candidate = replace(quantizer, step_indices=step_indices)
            candidate_cost = cost(candidate)
            if step_indices == quantizer.step_indices or candidate_cost >= best:
                break
            quantizer, best, moved = candidate, candidate_cost, True
        if moved:
            break
    return quantizer, best
