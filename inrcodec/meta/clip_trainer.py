"""The outer loop of latent clips: pictures that have references, and every so often one that stands alone.

A batch of patches gives one picture each and its references, the same distance before and after it, decoded by the
networks of pictures that stand alone. What is descended is the objective of that picture, as for any latent pyramid.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import first_state
from inrcodec.latents.model import LatentModel
from inrcodec.latents.motion_search import find_motion
from inrcodec.latents.objective import Task
from inrcodec.meta.latent_trainer import LatentTrainer
from inrcodec.models import Grid, LatentClip, LatentPyramid, Parameters
from inrcodec.models.clip import INTER, INTRA
from inrcodec.models.latent import quantization_step
from inrcodec.models.motion import moved

MARGIN = 16
"""Samples around a picture that is learned from: motion brings in what lies beyond its edges."""

ALONE = 4
"""Every so many outer steps the pictures stand alone."""

FINER = 4
"""How much lower the step index of references is."""


class ClipTrainer(LatentTrainer):
    """The trainer of latent clips; the networks of both kinds of pictures are learned."""

    field: LatentClip

    def task(self, values: Tensor, step_index: int, generator: torch.Generator) -> tuple[LatentModel, Task]:
        count = values.shape[2]
        (variant,) = self.field.candidates(values[:1], step_index)
        if self.step % ALONE == 0 or count == 1:
            model = self.model(step_index, variant, INTRA)
            return model, Task.of(model, *_middle(values[:, :, count // 2]))
        picture, references = _neighbours(values, generator)
        scale = quantization_step(step_index)
        with torch.no_grad():
            alone = self.model(step_index - FINER, variant, INTRA)
            decoded = [_decoded(alone, each) for each in references]
            shown = [_middle(moved(each, find_motion(picture, each, scale)))[0] for each in decoded]
        middle, grid = _middle(picture)
        model = self.model(step_index, variant, INTER)
        model = replace(model, field=cast(LatentPyramid, model.field).with_references(shown, grid))
        return model, Task.of(model, middle, grid)

    def start_from(self, start: Initialization) -> None:
        """Take over the tensors of a clip, or those of a pyramid for images as those of all pictures."""
        if (start.modality, start.field.name) != ("image", LatentPyramid.name):
            return super().start_from(start)

        def of_all_kinds(found: Parameters) -> Parameters:
            return {f"{kind}.{name}": value for kind in self.field.kinds for name, value in found.items()}

        if not self._take_over(start, of_all_kinds(start.theta_0), of_all_kinds(start.prior.tensors)):
            raise UsageError("no tensor of the pyramid to start from fits the pictures of this clip")
        return None


def _decoded(model: LatentModel, pictures: Tensor) -> Tensor:
    """Return what a decoder has of pictures that stand alone."""
    grid = _grid(pictures)
    state = first_state(model, Task.of(model, pictures, grid))
    return model.values(state.linear, grid).clamp(0, 1)


def _neighbours(values: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """Return a picture [B, C, H, W] of a batch of clips [B, C, T, H, W] and its one or two references.

    The distance is a power of two, each as likely; for every distance but the longest there is one more case, that
    there is only one reference, twice as far.
    """
    middle = values.shape[2] // 2
    distances = [1 << power for power in range(max(1, middle.bit_length())) if 1 << power <= middle]
    distance = distances[int(torch.randint(len(distances), (), generator=generator))]
    low, high = middle - distance, middle + distance
    if high >= values.shape[2] or int(torch.randint(6, (), generator=generator)) == 0:
        return values[:, :, min(high, values.shape[2] - 1)], [values[:, :, low]]
    return values[:, :, middle], [values[:, :, low], values[:, :, high]]


def _middle(pictures: Tensor) -> tuple[Tensor, Grid]:
    """Return pictures without the margin, where there is room for it, and their grid."""
    height, width = pictures.shape[2:]
    margins = [MARGIN if size > 2 * MARGIN else 0 for size in (height, width)]
    middle = pictures[:, :, margins[0] : height - margins[0], margins[1] : width - margins[1]]
    return middle, _grid(middle)


def _grid(pictures: Tensor) -> Grid:
    return Grid.open(pictures.shape[2:])
