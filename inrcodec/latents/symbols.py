"""The latents of some patches: integer symbols to what the entropy coder is given, and back.

First the coarsest means, as differences of neighbours, each group of channels under the Laplace model of a row that is
coded before them; then the passes of the entropy model, each with the flags that say which symbols are not zero, and
for those the signs and the magnitudes less one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.coding.flagged import flagged_batches, read_flagged
from inrcodec.latents.model import LatentModel
from inrcodec.models import Grid
from inrcodec.models.exact import ACTIVATION_UNIT

ROWS_PER_UNIT = 4
"""Rows of the tables stand for quarters of a logit, or of an octave."""

_ROW_ROW = entropy.ZERO_ROW + 16
"""The Laplace model under which the rows of the means are coded."""


@dataclass(frozen=True, eq=False)
class SymbolCoder:
    """Codes the symbols of patches of one grid."""

    model: LatentModel
    grid: Grid

    def batches(self, symbols: Sequence[Tensor], outputs: Sequence[tuple[Tensor, Tensor]]) -> list[entropy.Batch]:
        """Return what is coded for the symbols of some patches.

        symbols: integers, of the means [B, C, *coarsest] and of every pass. outputs: of the entropy model for those.
        """
        means, *details = symbols
        batches: list[entropy.Batch] = []
        for group in self._groups(means.detach().cpu().numpy().astype(np.int64)):
            differences = _differences(group).ravel()
            row = _best_row(differences)
            batches.append((np.array([row - entropy.ZERO_ROW]), np.array([_ROW_ROW])))
            batches.append((differences, np.full(len(differences), row)))
        for coded, (flags, scales) in zip(details, outputs, strict=True):
            batches += flagged_batches(_integers(coded).ravel(), *_rows(flags, scales))
        return batches

    def read(self, decoder: entropy.Decoder, batch: int) -> list[Tensor]:
        """Decode the symbols that `batches` was given for `batch` patches: float32, on the device of the model.

        Raises: CorruptFile.
        """
        device = next(iter(self.model.weights.values())).device
        means = np.zeros((batch, *self.model.field.means_shape(self.grid)), np.int64)
        for group in self._groups(means):
            row = int(decoder.decode(np.array([_ROW_ROW]))[0]) + entropy.ZERO_ROW
            rows = np.full(group.size, min(max(row, 0), entropy.ROWS - 1))
            group[...] = _sums(decoder.decode(rows).reshape(group.shape))
        symbols = [torch.from_numpy(means).float().to(device)]
        with torch.no_grad():
            for _, flags, scales in self.model.passes(self.grid, lambda: symbols[-1].abs(), symbols[0]):
                decoded = read_flagged(decoder, *_rows(flags, scales))
                symbols.append(_as_pass(decoded, flags))
        return symbols

    def _groups(self, means: np.ndarray) -> list[np.ndarray]:
        """Return views of the channels of every group."""
        groups = self.model.field.groups
        ends = np.cumsum(groups)
        return [means[:, end - size : end] for end, size in zip(ends, groups, strict=True)]


def _rows(flags: Tensor, scales: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of flags and of magnitudes, of the tables in which outputs of 0 mean the middle row."""
    return (
        _table_rows(flags, entropy.FLAG_ROW, entropy.EVEN_FLAG, entropy.FLAG_ROWS),
        _table_rows(scales, entropy.MAGNITUDE_ROW, entropy.UNIT_MAGNITUDE, entropy.MAGNITUDE_ROWS),
    )


def _table_rows(outputs: Tensor, first: int, middle: int, count: int) -> np.ndarray:
    rows = torch.floor(outputs.detach() * (ROWS_PER_UNIT / ACTIVATION_UNIT) + 0.5) + middle
    flat = rows.clamp_(0, count - 1).add_(first).permute(0, *range(2, rows.dim()), 1).reshape(-1)
    return flat.to("cpu", torch.int64).numpy()


def _integers(symbols: Tensor) -> np.ndarray:
    """Return symbols [B, n, *shape] as int64 [B, *shape, n], on the CPU: the order in which they are coded."""
    integers: np.ndarray = symbols.detach().movedim(1, -1).contiguous().to("cpu", torch.int64).numpy()
    return integers


def _as_pass(symbols: np.ndarray, like: Tensor) -> Tensor:
    """Undo `_integers`, flattened, for the pass with outputs `like`, in their layout."""
    shape = (like.shape[0], *like.shape[2:], like.shape[1])
    return torch.from_numpy(symbols.astype(np.float32)).reshape(shape).to(like.device).movedim(-1, 1)


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
