"""Which quantization steps: the search for the least D + lambda R over one integer per tensor."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrcodec.coding import entropy
from inrcodec.coding.quantization import (
    Quantizer,
    best_patch_shifts,
    dequantize,
    fit_shifts,
    model_rows,
    quantize,
    step_exponents,
    unflatten,
)
from inrcodec.meta.adaptation import signal_losses
from inrcodec.meta.data import PatchContexts
from inrcodec.meta.initialization import Initialization

STEP_LIMIT = 120
"""Largest magnitude of a quantization step's index: 2^30 and 2^-30."""

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
    """What came of trying a quantizer on some patches: symbols [P, n] and their cost."""

    symbols: np.ndarray
    cost: Cost


def measure(
    deltas: np.ndarray,
    contexts: PatchContexts,
    initialization: Initialization,
    quantizer: Quantizer,
    device: torch.device,
    patch_shifts: np.ndarray | None = None,
) -> Trial:
    """Try a quantizer on some patches' deltas [P, n].

    patch_shifts: of the patches' priors, [P]; None for the best ones.
    The distortion is that of the patches by themselves, before they are blended.
    """
    exponents = contexts.normalization.exponents
    steps, scales = quantizer.columns(initialization)
    step_indices = step_exponents(steps, exponents)
    symbols = quantize(deltas, step_indices)
    if patch_shifts is None:
        patch_shifts = best_patch_shifts(symbols, scales, step_indices)
    rows = model_rows(scales, step_indices, patch_shifts)
    bits = entropy.code_length(symbols.ravel(), rows.ravel()).sum()
    rebuilt = dequantize(symbols, step_indices)
    squares = np.empty(len(deltas))
    with torch.no_grad():
        for part in contexts.batches(BATCH_POINTS):
            parameters = unflatten(rebuilt[part], initialization, device)
            losses = signal_losses(initialization.model, parameters, contexts[part].context(device))
            squares[part] = losses.cpu().numpy()
    distortion = float((squares * contexts.normalization.scales**2).mean())
    return Trial(symbols, Cost(distortion, float(bits) / contexts.values[..., 0].size))


def choose_quantizer(
    deltas: np.ndarray,
    contexts: PatchContexts,
    initialization: Initialization,
    *,
    trade_off: float,
    device: torch.device,
    sample: int = 24,
    start: Quantizer | None = None,
    moves: tuple[int, ...] = (4, 2, 1),
) -> Quantizer:
    """The quantizer with the least D + trade_off * R on a sample of the patches.

    First all steps together, then one tensor after the other, by ever smaller moves (in quarter octaves); a search
    by descent, because cost has one valley along each of these lines. The priors' scales are fitted before every
    round of moves.

    trade_off: lambda, in squared error of values in [0, 1] per bit per sample.
    sample: patches that are looked at, spread evenly.
    """
    chosen = np.unique(np.linspace(0, len(deltas) - 1, min(sample, len(deltas))).astype(int)).tolist()
    deltas, contexts = deltas[chosen], contexts[chosen]
    exponents = contexts.normalization.exponents
    tensors = len(initialization.delta_prior.steps)
    quantizer = start or Quantizer(initialization.delta_prior.steps, (0,) * tensors)
    for move in moves:
        symbols = measure(deltas, contexts, initialization, quantizer, device).symbols
        quantizer = fit_shifts(quantizer, initialization, symbols, exponents)
        steps, scales = quantizer.columns(initialization)
        patch_shifts = best_patch_shifts(symbols, scales, step_exponents(steps, exponents))

        def cost(candidate: Quantizer, patch_shifts: np.ndarray = patch_shifts) -> float:
            trial = measure(deltas, contexts, initialization, candidate, device, patch_shifts)
            return trial.cost.total(trade_off)

        groups = [range(tensors)] + [range(tensor, tensor + 1) for tensor in range(tensors)]
        best = cost(quantizer)
        for group in groups[: 1 if move == moves[0] else None]:
            quantizer, best = _slide(quantizer, best, group, move, cost)
    symbols = measure(deltas, contexts, initialization, quantizer, device).symbols
    return fit_shifts(quantizer, initialization, symbols, exponents)


def _slide(
    quantizer: Quantizer, best: float, group: range, move: int, cost: Callable[[Quantizer], float]
) -> tuple[Quantizer, float]:
    """Move the steps of a group of tensors up or down for as long as that lowers the cost."""
    for direction in (move, -move):
        moved = False
        while True:
            steps = tuple(
                min(max(step + direction, -STEP_LIMIT), STEP_LIMIT) if tensor in group else step
                for tensor, step in enumerate(quantizer.steps)
            )
            candidate = replace(quantizer, steps=steps)
            candidate_cost = cost(candidate)
            if steps == quantizer.steps or candidate_cost >= best:
                break
            quantizer, best, moved = candidate, candidate_cost, True
        if moved:
            break
    return quantizer, best
