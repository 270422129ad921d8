"""A chunk: the patches of a part of the signal, coded so that they decode without any other chunk.

A chunk is one run of the entropy coder: of every patch first its normalization (exponent, channel means; left out
where the initialization does not normalize) and the shift of its prior, each predicted from the patch before, then
the symbols of its delta.
"""

from dataclasses import dataclass

import numpy as np

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.weights.model import WeightModel
from inrcodec.weights.normalization import MAX_EXPONENT, MEAN_STEPS, MIN_EXPONENT, Normalization
from inrcodec.weights.quantization import (
    QUARTERS,
    Quantizer,
    best_patch_shifts,
    dequantize,
    model_rows,
    quantize,
    symbol_step_indices,
)

EXPONENT_ROW = entropy.ZERO_ROW
SHIFT_ROW = entropy.ZERO_ROW + QUARTERS
MAX_SHIFT = 64
MAX_MEAN = 1 << 30


@dataclass(frozen=True, eq=False)
class PatchDeltas:
    """The content of a chunk of P patches: their normalization and their deltas [P, n]."""

    normalization: Normalization
    deltas: np.ndarray


def pack_chunk(patches: PatchDeltas, quantizer: Quantizer, model: WeightModel) -> bytes:
    """Quantize and code some patches."""
    exponents, means = patches.normalization.exponents, patches.normalization.means
    indices, scales = quantizer.columns(model)
    step_indices = symbol_step_indices(indices, exponents)
    symbols = quantize(patches.deltas, step_indices)
    shifts = best_patch_shifts(symbols, scales, step_indices)
    batches = []
    if model.normalize:
        residuals = [means[patch] - _predicted_mean(exponents, means, patch) for patch in range(len(means))]
        batches.append((np.diff(exponents, prepend=0), np.full(len(exponents), EXPONENT_ROW)))
        batches.append((np.concatenate(residuals), _mean_rows(exponents, means.shape[1])))
    batches.append((np.diff(shifts, prepend=0), np.full(len(shifts), SHIFT_ROW)))
    batches.append((symbols.ravel(), model_rows(scales, step_indices, shifts).ravel()))
    return entropy.encode_batches(batches)


def unpack_chunk(data: bytes, count: int, quantizer: Quantizer, model: WeightModel) -> PatchDeltas:
    """Decode the `count` patches of a chunk. Raises: CorruptFile."""
    normalization, symbols = read_symbols(data, count, quantizer, model)
    indices, _ = quantizer.columns(model)
    return PatchDeltas(normalization, dequantize(symbols, symbol_step_indices(indices, normalization.exponents)))


def read_symbols(data: bytes, count: int, quantizer: Quantizer, model: WeightModel) -> tuple[Normalization, np.ndarray]:
    """Decode the integers of a chunk, the same on every machine: normalization and symbols, int64 [count, n].

    Raises: CorruptFile.
    """
    decoder = entropy.Decoder(data)
    channels = model.field.out_features
    normalization = Normalization.none(count, channels)
    if model.normalize:
        exponents = np.cumsum(decoder.decode(np.full(count, EXPONENT_ROW)))
        _check(exponents, "exponent", MIN_EXPONENT, MAX_EXPONENT)
        means = decoder.decode(_mean_rows(exponents, channels)).reshape(count, channels)
        for patch in range(count):
            means[patch] += _predicted_mean(exponents, means, patch)
            _check(means[patch], "mean", -MAX_MEAN, MAX_MEAN)
        normalization = Normalization(exponents, means)
    shifts = np.cumsum(decoder.decode(np.full(count, SHIFT_ROW)))
    _check(shifts, "shift", -MAX_SHIFT, MAX_SHIFT)
    indices, scales = quantizer.columns(model)
    rows = model_rows(scales, symbol_step_indices(indices, normalization.exponents), shifts)
    symbols = decoder.decode(rows.ravel()).reshape(rows.shape)
    decoder.finish()
    return normalization, symbols


def _predicted_mean(exponents: np.ndarray, means: np.ndarray, patch: int) -> np.ndarray:
    """Predict means: the previous patch's in units of this one; mid-range (1/2) for the first. Integers only."""
    before = means[patch - 1] if patch else np.full(means.shape[1], MEAN_STEPS // 2)
    finer = int((exponents[patch - 1] if patch else 0) - exponents[patch])
    return before << finer if finer >= 0 else before >> -finer


def _mean_rows(exponents: np.ndarray, channels: int) -> np.ndarray:
    """Return the rows of the means' differences: neighbours differ by about a quarter of the signal's range."""
    return np.repeat((entropy.ZERO_ROW + QUARTERS * (1 - exponents)).clip(0, entropy.ROWS - 1), channels)


def _check(values: np.ndarray, what: str, low: int, high: int) -> None:
    if values.size and (values.min() < low or values.max() > high):
        raise CorruptFile(f"a patch's {what} is {values.min()}..{values.max()}, outside {low}..{high}")
