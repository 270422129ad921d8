"""Deltas as integers: uniform quantization per tensor, and the Laplace model each symbol is coded with.

Every scale here (quantization step indices, prior scales, shifts) is the logarithm to base 2 in quarter octaves, an
integer, so that which model codes which symbol is integer arithmetic from the header and the initialization alone.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.weights.model import WeightModel

QUARTERS = 4
"""Scale indices per octave."""

PATCH_SHIFTS = range(-16, 9, 2)
"""Candidates for the shift of a patch's prior."""


@dataclass(frozen=True)
class Quantizer:
    """How the deltas of one stream become symbols.

    step_indices: per tensor, of the quantization step; a patch of scale 2^e uses 2^-e times the step, so that an error
        costs the same in the signal wherever it happens.
    shifts: per tensor, how much wider the deltas are than the initialization's prior says.
    """

    step_indices: tuple[int, ...]
    shifts: tuple[int, ...]

    @classmethod
    def start(cls, model: WeightModel) -> Self:
        """Return the quantizer for medium quality, from which a search begins."""
        step_indices = model.prior.step_indices
        return cls(step_indices, (0,) * len(step_indices))

    @property
    def tensors(self) -> int:
        """How many tensors have a step index of their own."""
        return len(self.step_indices)

    def moved(self, tensor: int, direction: int) -> "Quantizer":
        """Return the quantizer with the step index of one tensor one larger or smaller."""
        step_indices = list(self.step_indices)
        step_indices[tensor] += direction
        return replace(self, step_indices=tuple(step_indices))

    def held_at(self, trade_off: float) -> "Quantizer":
        """Return it as it is: rounding does not depend on the trade-off."""
        return self

    def to_bytes(self) -> bytes:
        """Return what the header says of it: all step indices, then the shifts unless all are 0."""
        numbers = (*self.step_indices, *(self.shifts if any(self.shifts) else ()))
        return bytes(number & 0xFF for number in numbers)

    @classmethod
    def from_bytes(cls, content: bytes, tensors: int) -> Self:
        """Read what `to_bytes` wrote. Raises: CorruptFile if it is not of this many tensors."""
        if len(content) not in (tensors, 2 * tensors):
            raise CorruptFile(f"{len(content)} coding parameters for {tensors} tensors: obtain the file again")
        numbers = tuple((byte ^ 0x80) - 0x80 for byte in content)
        return cls(numbers[:tensors], numbers[tensors:] or (0,) * tensors)

    def columns(self, model: WeightModel) -> tuple[np.ndarray, np.ndarray]:
        """Return the step index and the model scale of every coded parameter, int64 [n] each."""
        indices, shifts = (np.repeat(np.array(each), model.sizes) for each in (self.step_indices, self.shifts))
        return indices, model.prior_scales + shifts


def symbol_step_indices(step_indices: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return the step index of every symbol, [P, n]: step indices [n] of patches of scale 2^exponents [P]."""
    return step_indices[None, :] - QUARTERS * exponents[:, None]


def quantize(deltas: np.ndarray, step_indices: np.ndarray, dead_zone: float = 0.15) -> np.ndarray:
    """Round to multiples of the quantization steps, int64 [P, n].

    dead_zone: moves the rounding boundaries away from zero by this share of a quantization step; Laplace-distributed
        values gain more rate than they lose distortion.
    """
    magnitude = np.floor(np.abs(deltas) * np.exp2(-step_indices / QUARTERS) + (0.5 - dead_zone))
    return (np.sign(deltas) * magnitude.clip(max=entropy.SYMBOL_LIMIT - 1)).astype(np.int64)


def dequantize(symbols: np.ndarray, step_indices: np.ndarray) -> np.ndarray:
    """Return deltas from symbols, float64 [P, n]."""
    return symbols * np.exp2(step_indices / QUARTERS)


def model_rows(scales: np.ndarray, step_indices: np.ndarray, patch_shifts: np.ndarray) -> np.ndarray:
    """Return the row of the Laplace table for every symbol, [P, n]: prior scale relative to the quantization step."""
    rows = entropy.ZERO_ROW + scales[None, :] + patch_shifts[:, None] - step_indices
    return rows.clip(0, entropy.ROWS - 1)


def best_patch_shifts(symbols: np.ndarray, scales: np.ndarray, step_indices: np.ndarray) -> np.ndarray:
    """Return the shift of every patch's prior that codes its symbols in the fewest bits, [P]."""
    costs = []
    for shift in PATCH_SHIFTS:
        rows = model_rows(scales, step_indices, np.full(len(symbols), shift))
        costs.append(entropy.code_length(symbols.ravel(), rows.ravel()).reshape(symbols.shape).sum(1))
    return np.array(PATCH_SHIFTS)[np.argmin(costs, axis=0)]


def fit_shifts(quantizer: Quantizer, model: WeightModel, symbols: np.ndarray, exponents: np.ndarray) -> Quantizer:
    """Fit the prior's scale per tensor to the symbols that a quantizer gave."""
    indices, scales = quantizer.columns(model)
    step_indices = symbol_step_indices(indices, exponents)
    patch_shifts = best_patch_shifts(symbols, scales, step_indices)
    shifts, start = [], 0
    for size in model.sizes:
        columns = slice(start, start + size)
        start = columns.stop
        part = symbols[:, columns].ravel()
        costs = {}
        for shift in range(-8, 9):
            rows = model_rows(model.prior_scales[columns] + shift, step_indices[:, columns], patch_shifts)
            costs[shift] = entropy.code_length(part, rows.ravel()).sum()
        shifts.append(min(costs, key=costs.__getitem__))
    return replace(quantizer, shifts=tuple(shifts))
