"""The latents of some patches: integer symbols to what the entropy coder is given, and back.

First the coarsest means, as differences of neighbours, each group of channels under the Laplace model of a row that is
coded before them; then the passes of the context model, of each the flags that say which symbols are not zero, and for
those the signs and the magnitudes less one.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.coding.context_model import ACTIVATION_UNIT, ContextModel
from inrcodec.models import Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, LatentTransform
from inrcodec.models.order import Place

_ROW_ROW = entropy.ZERO_ROW + 16
"""The Laplace model under which the rows of the means are coded."""

_SIGN_ROW = entropy.FLAG_ROW + entropy.EVEN_FLAG


def pack_latents(
    symbols: Sequence[np.ndarray],
    index: int,
    field: LatentTransform,
    grid: Grid,
    contexts: ContextModel,
    weights: Parameters,
) -> list[entropy.Part]:
    """What is coded for the symbols of some patches of one grid.

    symbols: int64 [B, C * bands, *half] per level, finest first, and the means [B, C, *coarsest].
    index: of the quantization step. weights: the context model's, int32.
    """
    parts: list[entropy.Part] = []
    for means in _groups(symbols[-1], field):
        differences = _differences(means).ravel()
        row = _best_row(differences)
        parts.append((np.array([row - entropy.ZERO_ROW]), np.array([_ROW_ROW])))
        parts.append((differences, np.full(len(differences), row)))
    magnitudes = [torch.from_numpy(np.abs(level).astype(np.float64)) for level in symbols[:-1]]
    for place, flags, scales in _passes(magnitudes, index, field, grid, contexts, weights):
        coded = symbols[place.level][place.index].ravel()
        nonzero = coded != 0
        kept = coded[nonzero]
        parts.append((nonzero.astype(np.int64), _rows(flags, entropy.FLAG_ROW)))
        parts.append(((kept < 0).astype(np.int64), np.full(len(kept), _SIGN_ROW)))
        parts.append((np.abs(kept) - 1, _rows(scales, entropy.MAGNITUDE_ROW)[nonzero]))
    return parts


def unpack_latents(
    decoder: entropy.Decoder,
    batch: int,
    index: int,
    field: LatentTransform,
    grid: Grid,
    contexts: ContextModel,
    weights: Parameters,
) -> list[np.ndarray]:
    """The symbols that `pack_latents` was given for `batch` patches. Raises: CorruptFile."""
    *shapes, coarsest = [(batch, *shape) for shape in field.latent_shapes(grid)]
    means = np.zeros(coarsest, np.int64)
    for group in _groups(means, field):
        row = int(decoder.decode(np.array([_ROW_ROW]))[0]) + entropy.ZERO_ROW
        rows = np.full(group.size, min(max(row, 0), entropy.ROWS - 1))
        group[...] = _sums(decoder.decode(rows).reshape(group.shape))
    symbols = [np.zeros(shape, np.int64) for shape in shapes]
    magnitudes = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    for place, flags, scales in _passes(magnitudes, index, field, grid, contexts, weights):
        nonzero = decoder.decode(_rows(flags, entropy.FLAG_ROW)) == 1
        count = int(nonzero.sum())
        signs = decoder.decode(np.full(count, _SIGN_ROW))
        decoded = np.zeros(len(nonzero), np.int64)
        decoded[nonzero] = (1 - 2 * signs) * (1 + decoder.decode(_rows(scales, entropy.MAGNITUDE_ROW)[nonzero]))
        symbols[place.level][place.index] = decoded.reshape(flags.shape)
        magnitudes[place.level][place.index] = torch.from_numpy(np.abs(decoded)).reshape(flags.shape).double()
    return [*symbols, means]


def _passes(
    magnitudes: list[Tensor],
    index: int,
    field: LatentTransform,
    grid: Grid,
    contexts: ContextModel,
    weights: Parameters,
) -> Iterator[tuple[Place, Tensor, Tensor]]:
    """The passes with rows of the tables, in exact arithmetic."""
    condition = (index * ACTIVATION_UNIT) // STEPS_PER_OCTAVE + 3 * ACTIVATION_UNIT
    exact = {name: value.to("cpu", torch.float64) for name, value in weights.items()}
    levels = field.levels_of(grid)
    batch = magnitudes[0].shape[0]
    return contexts.passes(exact, magnitudes, levels, torch.full((batch,), float(condition), dtype=torch.float64))


def _rows(rows: Tensor, first: int) -> np.ndarray:
    return rows.reshape(-1).numpy().astype(np.int64) + first


def _groups(means: np.ndarray, field: LatentTransform) -> list[np.ndarray]:
    """Views of the channels of every group."""
    ends = np.cumsum(field.groups)
    return [means[:, end - size : end] for end, size in zip(ends, field.groups, strict=True)]


def _differences(values: np.ndarray) -> np.ndarray:
    """Along the last axis; the first ones along the axis before, and so on up to the channels."""
    result = values.copy()
    for axis in range(values.ndim - 1, 1, -1):
        first = (slice(None),) * axis + (slice(None),) + (0,) * (values.ndim - 1 - axis)
        part = values[first]
        result[first][..., 1:] = np.diff(part, axis=axis)
    return result


def _sums(differences: np.ndarray) -> np.ndarray:
    """Inverse of `_differences`."""
    result = differences.copy()
    for axis in range(2, differences.ndim):
        first = (slice(None),) * axis + (slice(None),) + (0,) * (differences.ndim - 1 - axis)
        result[first] = np.cumsum(result[first], axis=axis)
    return result


def _best_row(symbols: np.ndarray) -> int:
    """The Laplace row under which the symbols are shortest."""
    lengths = [entropy.code_length(symbols, np.full(len(symbols), row)).sum() for row in range(entropy.ROWS)]
    return int(np.argmin(lengths))
