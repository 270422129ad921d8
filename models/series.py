"""The latent series: fields along a leading dimension (time, level, member) that see each other.

They see each other where they are: nothing is moved along, as in the atmosphere most of what changes does so in place.
The entropy model is shown how far the references are from each other: there the fields between them are hard to tell.
A signal whose fields have little in common can do without references.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inrcodec.models.latent import Grid, quantization_step
from inrcodec.models.pyramid import LatentPyramid
from inrcodec.models.sequence import INTER, INTRA, Hierarchy, LatentSequence, Stage

STAGE_SAMPLES = 1 << 21
"""Samples of a stage, at most, but that of one field: its networks take some 100 bytes for each."""

UNRELATED = 1
"""The variant of fields without references."""

_TYPICAL_DISTANCE = 2

_OFFSETS = (0, 2, 3, 4, 5)
_ALONE = 5


@dataclass(frozen=True)
class LatentSeries(LatentSequence):
    """Configuration of a latent series; see `LatentSequence`. Its members are the fields of a group."""

    name: ClassVar[str] = "series"

    def stages(self, grid: Grid, variant: int = 0) -> Sequence[Stage]:
        count = grid.shape[0]
        at_once = max(1, STAGE_SAMPLES // math.prod(grid.shape[1:]))
        if variant == UNRELATED:
            return [
                Stage(tuple(range(start, min(start + at_once, count))), (), 0) for start in range(0, count, at_once)
            ]
        return Hierarchy(_OFFSETS, _ALONE, at_once).stages(count)

    def transform(self, variant: int = 0, kind: str = INTRA) -> LatentPyramid:
        return super().transform(0, kind)

    @property
    def variants(self) -> int:
        """Two: fields with references, and `UNRELATED` ones."""
        return 2

    def candidates(self, values: Tensor, step_index: int) -> Iterator[int]:
        """Yield the one variant whose details are smaller, by what they take at about a bit for every doubling."""
        count = values.shape[2]
        distance = min(_TYPICAL_DISTANCE, (count - 1) // 2)
        if not distance:
            yield (
                0
                if count < 2
                or self._bits(values[:, :, 1] - values[:, :, 0], step_index)
                < self._bits(values[:, :, 1] - 0.5, step_index)
                else UNRELATED
            )
            return
        own = values[:, :, distance : count - distance]
        mean = 0.5 * (values[:, :, : count - 2 * distance] + values[:, :, 2 * distance :])
        own, mean = (each.transpose(1, 2).flatten(0, 1) for each in (own, mean))
        yield 0 if self._bits(own - mean, step_index) < self._bits(own, step_index) else UNRELATED

    def _bits(self, members: Tensor, step_index: int) -> float:
        _, *details = self.transform().analyse(members, Grid.open(members.shape[2:]))
        step = quantization_step(step_index)
        return sum(float(torch.log2(1 + each.abs() / step).sum()) for each in details)

    @property
    def hinted_kinds(self) -> tuple[str, ...]:
        return (INTER,)
