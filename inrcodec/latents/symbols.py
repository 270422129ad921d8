"""The latents of some patches: integer symbols to what the entropy coder is given, and back.

First the coarsest means, as differences of neighbours, each group of channels under the Laplace model of a row that is
coded before them; then the passes of the entropy model, each with the flags that say which symbols are not zero, and
for those the signs and the magnitudes less one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.coding.flagged import flagged_batches, read_flagged
from inrcodec.models import EntropyModel, Grid, LatentTransform, Parameters
from inrcodec.models.latent import STEPS_PER_OCTAVE
from inrcodec.models.layers import ACTIVATION_UNIT
from inrcodec.models.order import Place

_ROW_ROW = entropy.ZERO_ROW + 16
"""The Laplace model under which the rows of the means are coded."""


@dataclass(frozen=True, eq=False)
class SymbolCoder:
    """Codes the symbols of patches of one grid.

    weights: the entropy model's, int32, of one kind.
    """

    field: LatentTransform
    grid: Grid
    entropy_model: EntropyModel
    weights: Parameters

    def batches(self, symbols: Sequence[np.ndarray], step_index: int) -> list[entropy.Batch]:
        """Return what is coded for the symbols of some patches.

        symbols: int64 [B, C * bands, *half] per level, finest first, and the means [B, C, *coarsest].
        """
        batches: list[entropy.Batch] = []
        for means in self._groups(symbols[-1]):
            differences = _differences(means).ravel()
            row = _best_row(differences)
            batches.append((np.array([row - entropy.ZERO_ROW]), np.array([_ROW_ROW])))
            batches.append((differences, np.full(len(differences), row)))
        magnitudes = [torch.from_numpy(np.abs(level).astype(np.float64)) for level in symbols[:-1]]
        for place, flag_rows, magnitude_rows, _ in self._passes(magnitudes, step_index):
            batches += flagged_batches(symbols[place.level][place.index].ravel(), flag_rows, magnitude_rows)
        return batches

    def read(self, decoder: entropy.Decoder, batch: int, step_index: int) -> list[np.ndarray]:
        """Decode the symbols that `batches` was given for `batch` patches. Raises: CorruptFile."""
        *shapes, coarsest = [(batch, *shape) for shape in self.field.latent_shapes(self.grid)]
        means = np.zeros(coarsest, np.int64)
        for group in self._groups(means):
            row = int(decoder.decode(np.array([_ROW_ROW]))[0]) + entropy.ZERO_ROW
            rows = np.full(group.size, min(max(row, 0), entropy.ROWS - 1))
            group[...] = _sums(decoder.decode(rows).reshape(group.shape))
        symbols = [np.zeros(shape, np.int64) for shape in shapes]
        magnitudes = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        for place, flag_rows, magnitude_rows, shape in self._passes(magnitudes, step_index):
            decoded = read_flagged(decoder, flag_rows, magnitude_rows).reshape(shape)
            symbols[place.level][place.index] = decoded
            magnitudes[place.level][place.index] = torch.from_numpy(np.abs(decoded)).double()
        return [*symbols, means]

    def _passes(
        self, magnitudes: list[Tensor], step_index: int
    ) -> Iterator[tuple[Place, np.ndarray, np.ndarray, torch.Size]]:
        """Yield the passes with the rows of their flags and magnitudes, and their shape, in exact arithmetic."""
        condition = (step_index * ACTIVATION_UNIT) // STEPS_PER_OCTAVE + 3 * ACTIVATION_UNIT
        exact = {name: value.to("cpu", torch.float64) for name, value in self.weights.items()}
        conditions = torch.full((magnitudes[0].shape[0],), float(condition), dtype=torch.float64)
        for place, flags, scales in self.entropy_model.passes(
            exact, magnitudes, self.field.levels_of(self.grid), conditions
        ):
            flag_rows = _rows(flags, entropy.FLAG_ROW, entropy.EVEN_FLAG, entropy.FLAG_ROWS)
            scale_rows = _rows(scales, entropy.MAGNITUDE_ROW, entropy.UNIT_MAGNITUDE, entropy.MAGNITUDE_ROWS)
            yield place, flag_rows, scale_rows, flags.shape

    def _groups(self, means: np.ndarray) -> list[np.ndarray]:
        """Return views of the channels of every group."""
        ends = np.cumsum(self.field.groups)
        return [means[:, end - size : end] for end, size in zip(ends, self.field.groups, strict=True)]


def _rows(outputs: Tensor, first: int, middle: int, count: int) -> np.ndarray:
    """Return the rows of a table of `count` rows from `first` on, in which outputs of 0 mean the row `middle`."""
    return first + (outputs.reshape(-1).numpy().astype(np.int64) + middle).clip(0, count - 1)


def _differences(values: np.ndarray) -> np.ndarray:
    """Take differences along the last axis; of the first ones along the axis before, and so on up to the channels."""
    result = values.copy()
    for axis in range(values.ndim - 1, 1, -1):
        first = (slice(None),) * axis + (slice(None),) + (0,) * (values.ndim - 1 - axis)
        part = values[first]
        result[first][..., 1:] = np.diff(part, axis=axis)
    return result


def _sums(differences: np.ndarray) -> np.ndarray:
    """Undo `_differences`."""
    result = differences.copy()
    for axis in range(2, differences.ndim):
        first = (slice(None),) * axis + (slice(None),) + (0,) * (differences.ndim - 1 - axis)
        result[first] = np.cumsum(result[first], axis=axis)
    return result


def _best_row(symbols: np.ndarray) -> int:
    """Return the Laplace row under which the symbols are shortest."""
    lengths = [entropy.code_length(symbols, np.full(len(symbols), row)).sum() for row in range(entropy.ROWS)]
    return int(np.argmin(lengths))
