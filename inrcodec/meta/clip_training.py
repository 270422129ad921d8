"""The outer loop of latent clips: pictures that see their neighbours, and every so often one that stands alone.

A batch of patches gives one picture each and those that it sees, the same distance before and after it, decoded by the
networks of pictures that stand alone. What is descended is the objective of that picture, as for any latent pyramid.
"""

from dataclasses import replace

import torch
from torch import Tensor

from inrcodec.meta.latent_objective import Pyramid, Task
from inrcodec.meta.pyramid_adaptation import first_state
from inrcodec.meta.pyramid_training import PyramidTrainer
from inrcodec.models.clip import INTER, INTRA, LatentClip
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, of_kind
from inrcodec.models.motion import moved
from inrcodec.models.pyramid import LatentPyramid
from inrcodec.motion_search import find_motion

MARGIN = 16
"""Samples around a picture that is learned from: motion brings in what lies beyond its edges."""

ALONE = 4
"""Every so many outer steps the pictures stand alone."""

FINER = 4
"""How much finer what a picture sees is quantized, in indices of the step."""


class ClipTrainer(PyramidTrainer):
    """See `PyramidTrainer`; the networks of both kinds of pictures are learned."""

    model: LatentClip

    def _task(self, values: Tensor, steps: Tensor, generator: torch.Generator) -> tuple[Pyramid, Task]:
        count = values.shape[2]
        if self.step % ALONE == 0 or count == 1:
            pyramid = self._pyramid(INTRA)
            return pyramid, Task.of(pyramid, *_middle(values[:, :, count // 2]), steps)
        picture, references = _neighbours(values, generator)
        shown = [self._decoded(each, steps - FINER) for each in references]
        scale = torch.exp2(steps / STEPS_PER_OCTAVE)
        seen = [_middle(moved(each, find_motion(picture, each, scale)))[0] for each in shown]
        pyramid = self._pyramid(INTER)
        middle, grid = _middle(picture)
        assert isinstance(pyramid.field, LatentPyramid)
        pyramid = replace(pyramid, field=pyramid.field.beside(seen, grid))
        return pyramid, Task.of(pyramid, middle, grid, steps)

    def _pyramid(self, kind: str) -> Pyramid:
        return Pyramid(
            self.model.picture(kind),
            of_kind(self.theta_0, kind),
            self.contexts.of_one_kind,
            of_kind(self.weights, kind),
            self.log_step_sizes,
            self.config.adaptation,
        )

    def _decoded(self, pictures: Tensor, steps: Tensor) -> Tensor:
        """What a decoder has of pictures that stand alone."""
        pyramid = self._pyramid(INTRA)
        grid = _grid(pictures)
        with torch.no_grad():
            state = first_state(pyramid, Task.of(pyramid, pictures, grid, steps))
            return pyramid.values(state.symbols, grid, steps).clamp(0, 1)


def _neighbours(values: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """A picture [B, C, H, W] of a batch of clips [B, C, T, H, W] and the one or two that it sees.

    The distance is a power of two, each as likely; for every distance but the longest there is one more case, that
    only one picture is known, which is twice as far.
    """
    middle = values.shape[2] // 2
    distances = [1 << power for power in range(max(1, middle.bit_length())) if 1 << power <= middle]
    distance = distances[int(torch.randint(len(distances), (), generator=generator))]
    low, high = middle - distance, middle + distance
    if high >= values.shape[2] or int(torch.randint(6, (), generator=generator)) == 0:
        return values[:, :, min(high, values.shape[2] - 1)], [values[:, :, low]]
    return values[:, :, middle], [values[:, :, low], values[:, :, high]]


def _middle(pictures: Tensor) -> tuple[Tensor, Grid]:
    """Without the margin, where there is room for it."""
    height, width = pictures.shape[2:]
    margins = [MARGIN if size > 2 * MARGIN else 0 for size in (height, width)]
    middle = pictures[:, :, margins[0] : height - margins[0], margins[1] : width - margins[1]]
    return middle, _grid(middle)


def _grid(pictures: Tensor) -> Grid:
    return Grid(tuple(pictures.shape[2:]), (False, False))
