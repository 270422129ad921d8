"""The outer loop of latent sequences: members that have references, and every so often one that stands alone.

A batch of patches gives one member each and its references, the same distance before and after it, decoded by the
networks of members that stand alone. What is descended is the objective of that member, as for any latent pyramid.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import first_state
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task
from inrcodec.meta.latent_trainer import LatentTrainer
from inrcodec.models import Grid, LatentPyramid, LatentSequence, Parameters
from inrcodec.models.latent import quantization_step
from inrcodec.models.sequence import INTER, INTRA


class SequenceTrainer(LatentTrainer):
    """The trainer of latent sequences; the networks of both kinds of members are learned."""

    MARGIN: ClassVar[int] = 0
    """Samples around a member that is learned from, for what its references show there."""

    ALONE: ClassVar[int]
    """Every so many outer steps the members stand alone."""

    FINER: ClassVar[tuple[int, ...]]
    """How much lower the step index of references may be, each number as likely."""

    START: ClassVar[str]
    """The modality whose pyramids a run can start from."""

    field: LatentSequence

    @abstractmethod
    def _shown(self, member: Tensor, references: Sequence[Tensor], step: float) -> list[Tensor]:
        """Return the references [B, C, H, W] as the networks of a member see them, at a quantization step."""

    def task(self, values: Tensor, step_index: int, generator: torch.Generator) -> tuple[LatentModel, Task]:
        count = values.shape[2]
        (variant,) = self.field.candidates(values[:1], step_index)
        variant = self.processes.agreed(variant)
        if self.step % self.ALONE == 0 or count == 1:
            model = self.model(step_index, variant, INTRA)
            return model, Task.of(model, *self._middle(values[:, :, count // 2]))
        member, references = _neighbours(values, generator)
        finer = self.FINER[int(torch.randint(len(self.FINER), (), generator=generator))]
        with torch.no_grad():
            alone = self.model(step_index - finer, variant, INTRA)
            decoded = [_decoded(alone, each) for each in references]
            shown = self._shown(member, decoded, quantization_step(step_index))
        middle, grid = self._middle(member)
        model = self.model(step_index, variant, INTER)
        shown = [self._middle(each)[0] for each in shown]
        model = replace(model, field=cast(LatentPyramid, model.field).with_references(shown, grid))
        return model, Task.of(model, middle, grid)

    def start_from(self, start: Initialization) -> None:
        """Take over the tensors of such a sequence, or those of a pyramid as those of all members."""
        if (start.modality, start.field.name) != (self.START, LatentPyramid.name):
            return super().start_from(start)

        def of_all_kinds(found: Parameters) -> Parameters:
            return {f"{kind}.{name}": value for kind in self.field.kinds for name, value in found.items()}

        if not self._take_over(start, of_all_kinds(start.theta_0), of_all_kinds(start.prior.tensors)):
            raise UsageError(f"no tensor of the pyramid to start from fits the members of this {self.field.name}")
        return None

    def _middle(self, members: Tensor) -> tuple[Tensor, Grid]:
        """Return members without the margin, where there is room for it, and their grid."""
        height, width = members.shape[2:]
        margins = [self.MARGIN if size > 2 * self.MARGIN else 0 for size in (height, width)]
        middle = members[:, :, margins[0] : height - margins[0], margins[1] : width - margins[1]]
        return middle, Grid.open(middle.shape[2:])


def _decoded(model: LatentModel, members: Tensor) -> Tensor:
    """Return what a decoder has of members that stand alone."""
    grid = Grid.open(members.shape[2:])
    state = first_state(model, Task.of(model, members, grid))
    return model.values(state.linear, grid).clamp(0, 1)


def _neighbours(values: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """Return a member [B, C, H, W] of a batch of sequences [B, C, T, H, W] and its one or two references.

    The distance is a power of two, a shorter one likelier; for every distance but the longest there is one more case,
    that there is only one reference, twice as far.
    """
    middle = values.shape[2] // 2
    distances = [1 << power for power in range(max(1, middle.bit_length())) if 1 << power <= middle]
    distance = distances[int(torch.randint(len(distances), (2,), generator=generator).min())]
    low, high = middle - distance, middle + distance
    if high >= values.shape[2] or int(torch.randint(6, (), generator=generator)) == 0:
        return values[:, :, min(high, values.shape[2] - 1)], [values[:, :, low]]
    return values[:, :, middle], [values[:, :, low], values[:, :, high]]
