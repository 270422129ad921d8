"""Deltas as integers: uniform quantization per tensor, and the Laplace model each symbol is coded with.

Every scale here (quantization steps, prior scales, shifts) is the logarithm to base 2 in quarter octaves, an
integer, so that which model codes which symbol is integer arithmetic from the header and the initialization alone.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.meta.initialization import Initialization
from inrcodec.models import Parameters

QUARTERS = 4
"""Scale indices per octave."""

PATCH_SHIFTS = range(-16, 9, 2)
"""Candidates for the shift of a patch's prior."""


@dataclass(frozen=True)
class Quantizer:
    """How the deltas of one stream become symbols.

    steps: per tensor, the quantization step; a patch of scale 2^e uses 2^-e times the step, so that an error costs
        the same in the signal wherever it happens.
    shifts: per tensor, how much wider the deltas are than the initialization's prior says.
    """

    steps: tuple[int, ...]
    shifts: tuple[int, ...]

    @property
    def tensors(self) -> int:
        return len(self.steps)

    def moved(self, tensor: int, direction: int) -> "Quantizer":
        """With the step of one tensor a quarter octave larger or smaller."""
        steps = list(self.steps)
        steps[tensor] += direction
        return replace(self, steps=tuple(steps))

    def held_at(self, trade_off: float) -> "Quantizer":
        """Rounding does not depend on the trade-off."""
        return self

    def columns(self, initialization: Initialization) -> tuple[np.ndarray, np.ndarray]:
        """Steps and model scales of every coded parameter, each int64 [n]."""
        sizes = [initialization.theta_0[name].numel() for name in initialization.adapted]
        scales = [initialization.delta_prior.scales[name].flatten() for name in initialization.adapted]
        prior = torch.cat(scales).numpy().astype(np.int64)
        return np.repeat(np.array(self.steps), sizes), prior + np.repeat(np.array(self.shifts), sizes)


def flatten(parameters: Parameters, initialization: Initialization) -> np.ndarray:
    """Deltas of the adapted parameters [B, ...] from theta_0 as one float32 matrix [B, n]."""
    deltas = [(parameters[name].cpu() - initialization.theta_0[name]).flatten(1) for name in initialization.adapted]
    return torch.cat(deltas, dim=1).numpy()


def unflatten(deltas: np.ndarray, initialization: Initialization, device: torch.device) -> Parameters:
    """theta_0 plus a matrix of deltas [B, n], as the field takes it: [B, ...] and the constants."""
    theta_0 = initialization.theta_0
    sizes = [theta_0[name].numel() for name in initialization.adapted]
    parts = torch.from_numpy(deltas.astype(np.float32)).split(sizes, dim=1)
    parameters: dict[str, Tensor] = {name: theta_0[name].to(device) for name in initialization.model.constants}
    for name, part in zip(initialization.adapted, parts, strict=True):
        parameters[name] = (theta_0[name] + part.reshape(-1, *theta_0[name].shape)).to(device)
    return parameters


def step_exponents(steps: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Quantization step of every symbol in quarter octaves, [P, n]: steps [n] of patches of scale 2^exponents [P]."""
    return steps[None, :] - QUARTERS * exponents[:, None]


def quantize(deltas: np.ndarray, step_indices: np.ndarray, dead_zone: float = 0.15) -> np.ndarray:
    """Nearest multiples of the steps, int64 [P, n].

    dead_zone: moves the rounding boundaries away from zero by this share of a step; Laplace-distributed values
        gain more rate than they lose distortion.
    """
    magnitude = np.floor(np.abs(deltas) * np.exp2(-step_indices / QUARTERS) + (0.5 - dead_zone))
    return (np.sign(deltas) * magnitude.clip(max=entropy.SYMBOL_LIMIT - 1)).astype(np.int64)


def dequantize(symbols: np.ndarray, step_indices: np.ndarray) -> np.ndarray:
    """Deltas from symbols, float64 [P, n]."""
    return symbols * np.exp2(step_indices / QUARTERS)


def model_rows(scales: np.ndarray, step_indices: np.ndarray, patch_shifts: np.ndarray) -> np.ndarray:
    """Row of the Laplace table for every symbol, [P, n]: prior scale relative to the quantization step."""
    rows = entropy.ZERO_ROW + scales[None, :] + patch_shifts[:, None] - step_indices
    return rows.clip(0, entropy.ROWS - 1)


def best_patch_shifts(symbols: np.ndarray, scales: np.ndarray, step_indices: np.ndarray) -> np.ndarray:
    """The shift of every patch's prior that codes its symbols in the fewest bits, [P]."""
    costs = []
    for shift in PATCH_SHIFTS:
        rows = model_rows(scales, step_indices, np.full(len(symbols), shift))
        costs.append(entropy.code_length(symbols.ravel(), rows.ravel()).reshape(symbols.shape).sum(1))
    return np.array(PATCH_SHIFTS)[np.argmin(costs, axis=0)]


def fit_shifts(
    quantizer: Quantizer, initialization: Initialization, symbols: np.ndarray, exponents: np.ndarray
) -> Quantizer:
    """The quantizer with the prior's scale per tensor fitted to the symbols it gave."""
    steps, _ = quantizer.columns(initialization)
    step_indices = step_exponents(steps, exponents)
    neutral = replace(quantizer, shifts=(0,) * len(quantizer.shifts))
    _, prior = neutral.columns(initialization)
    patch_shifts = best_patch_shifts(symbols, quantizer.columns(initialization)[1], step_indices)
    shifts, start = [], 0
    for name in initialization.adapted:
        columns = slice(start, start + initialization.theta_0[name].numel())
        start = columns.stop
        part = symbols[:, columns].ravel()
        costs = {}
        for shift in range(-8, 9):
            rows = model_rows(prior[columns] + shift, step_indices[:, columns], patch_shifts)
            costs[shift] = entropy.code_length(part, rows.ravel()).sum()
        shifts.append(min(costs, key=costs.__getitem__))
    return replace(quantizer, shifts=tuple(shifts))
