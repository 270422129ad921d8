"""The outer loop of latent clips: references are moved along before they are seen."""

from collections.abc import Sequence

from torch import Tensor

from inrcodec.latents.motion_search import find_motion
from inrcodec.meta.sequence_trainer import SequenceTrainer
from inrcodec.models.motion import moved


class ClipTrainer(SequenceTrainer):
    """The trainer of latent clips."""

    MARGIN = 16  # motion brings in what lies beyond the edges
    ALONE = 4
    FINER = (4,)
    START = "image"

    def _shown(self, member: Tensor, references: Sequence[Tensor], step: float) -> list[Tensor]:
        return [moved(each, find_motion(member, each, step)) for each in references]
