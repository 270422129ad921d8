"""The latent series: fields along a leading dimension (time, level, member) that see each other.

They see each other where they are: nothing is moved along, as in the atmosphere most of what changes does so in place.
The entropy model is shown how far the references are from each other: there the fields between them are hard to tell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from inrcodec.models.latent import Grid
from inrcodec.models.sequence import INTER, Hierarchy, LatentSequence, Stage

STAGE_SAMPLES = 1 << 21
"""Samples of a stage, at most, but that of one field: its networks take some 100 bytes for each."""

_OFFSETS = (0, 2, 3, 4, 5)
_ALONE = 5


@dataclass(frozen=True)
class LatentSeries(LatentSequence):
    """Configuration of a latent series; see `LatentSequence`. Its members are the fields of a group."""

    name: ClassVar[str] = "series"

    def stages(self, grid: Grid) -> Sequence[Stage]:
        at_once = max(1, STAGE_SAMPLES // math.prod(grid.shape[1:]))
        return Hierarchy(_OFFSETS, _ALONE, at_once).stages(grid.shape[0])

    @property
    def hinted_kinds(self) -> tuple[str, ...]:
        return (INTER,)
