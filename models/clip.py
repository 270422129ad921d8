"""The latent clip: a video whose pictures are latent pyramids that see each other, moved along by vectors of motion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from inrcodec.models.latent import Grid
from inrcodec.models.sequence import Hierarchy, LatentSequence, Stage

STAGE_PICTURES = 4
"""How many pictures are coded at once, at most."""

_HIERARCHY = Hierarchy(offsets=(0, 1, 2, 4, 5, 6), alone=8, at_once=STAGE_PICTURES)


def stages_of(count: int) -> list[Stage]:
    """Return the stages of a clip of `count` pictures, in coding order."""
    return _HIERARCHY.stages(count)


@dataclass(frozen=True)
class LatentClip(LatentSequence):
    """Configuration of a latent clip; see `LatentSequence`. Its members are the pictures of a video."""

    name: ClassVar[str] = "clip"

    def stages(self, grid: Grid, variant: int = 0) -> Sequence[Stage]:
        return stages_of(grid.shape[0])
