"""The coder of clips: the motion of every stage's pictures comes before their latents."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.latents.motion import motion_batches, read_motion
from inrcodec.latents.motion_search import find_motion
from inrcodec.latents.sequence_coder import SequenceCoder
from inrcodec.models.latent import quantization_step
from inrcodec.models.motion import motion_shape, moved
from inrcodec.models.sequence import Stage


class ClipCoder(SequenceCoder):
    """The coder of latent clips.

    Where there are references, the symbols of a stage begin with vectors [B, references, pictures, 2, *blocks].
    """

    STEPS: ClassVar = {"instant": 0, "fast": 0, "default": 2, "high": 10}
    """Clips have many pictures, and most of them little to say."""

    SIDE = 1

    def _shown(
        self, members: Tensor, references: Sequence[Tensor], step_index: int
    ) -> tuple[list[Tensor], list[entropy.Batch]]:
        motion = [find_motion(members, each, quantization_step(step_index)) for each in references]
        batches = motion_batches(torch.cat(motion).cpu().numpy().astype(np.int64))
        return _moved(references, motion), batches

    def _read_side(self, decoder: entropy.Decoder, count: int, stage: Stage) -> list[Tensor]:
        pictures, references = len(stage.members), len(stage.references[0])
        blocks = motion_shape(self._member.shape)
        motion = read_motion(decoder, (references * count * pictures, *blocks))
        ordered = motion.reshape(references, count, pictures, *blocks).swapaxes(0, 1)
        return [torch.from_numpy(ordered).float().to(self.device)]

    def _shown_by(self, references: Sequence[Tensor], side: Sequence[Tensor]) -> list[Tensor]:
        (motion,) = side
        return _moved(references, motion.unbind(0))


def _moved(references: Sequence[Tensor], motion: Sequence[Tensor]) -> list[Tensor]:
    return [moved(each, vectors) for each, vectors in zip(references, motion, strict=True)]
