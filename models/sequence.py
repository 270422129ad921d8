"""The latent sequence: latent pyramids along a first axis that see each other, as pictures of a video do.

The first member stands alone. The last one sees the first, the one in the middle both, and so on between any two that
are decoded: those are its references, from which its latents are predicted. Members with references have networks of
their own.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrcodec.models.field import Parameters
from inrcodec.models.latent import Grid, LatentField
from inrcodec.models.order import Order
from inrcodec.models.pyramid import LatentPyramid

INTRA, INTER = "intra", "inter"
"""The kinds of members: those that stand alone, and those that have references."""

REFERENCES = 2
"""How many references a member has; where there is only one it is shown twice."""

MAX_MEMBERS = 1 << 10
"""Members of a patch: they are decoded one after the other, so their number bounds the time that takes."""


@dataclass(frozen=True)
class Stage:
    """Members that are coded at once.

    members: their numbers. references: the numbers of each one's references, one or two; empty for the first stage.
    offset: of their step index.
    """

    members: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    offset: int

    @property
    def kind(self) -> str:
        return INTER if self.references else INTRA


@dataclass(frozen=True)
class Hierarchy:
    """How a sequence is cut into stages.

    offsets: how much lower a member's step index is than that of members that are no references, by how often the
        members between it and its neighbours are halved; the last number holds for all that follow.
    alone: the same for the first member. at_once: members of a stage, at most.
    """

    offsets: tuple[int, ...]
    alone: int
    at_once: int

    def stages(self, count: int) -> list[Stage]:
        """Return the stages of a sequence of `count` members, in coding order."""
        if count == 1:
            return [Stage((0,), (), 0)]
        stages = [Stage((0,), (), -self.alone)]
        gaps = [(0, count - 1)]
        layers: list[list[tuple[int, int, int]]] = []
        while gaps:
            middles = [(low, (low + high) // 2, high) for low, high in gaps if high - low > 1]
            if middles:
                layers.append(middles)
            gaps = [half for low, middle, high in middles for half in ((low, middle), (middle, high))]
        stages.append(Stage((count - 1,), ((0,),), -self._offset(len(layers))))
        for index, layer in enumerate(layers):
            for start in range(0, len(layer), self.at_once):
                some = layer[start : start + self.at_once]
                stages.append(
                    Stage(
                        tuple(middle for _, middle, _ in some),
                        tuple((low, high) for low, _, high in some),
                        -self._offset(len(layers) - 1 - index),
                    )
                )
        return stages

    def _offset(self, finer: int) -> int:
        return self.offsets[min(finer, len(self.offsets) - 1)]


@dataclass(frozen=True)
class LatentSequence(LatentField):
    """Configuration of a latent sequence.

    levels: how often height and width are halved, six times unless given.
    prediction, divided: of its members; see `LatentPyramid`.
    """

    prediction: int = 32
    divided: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_features != 3:
            raise ValueError(f"a {self.name} has three axes, not {self.in_features}")
        object.__setattr__(self, "levels", self.transform().levels)

    @abstractmethod
    def stages(self, grid: Grid, variant: int = 0) -> Sequence[Stage]:
        """Return the stages of a patch, whose grid has the members along its first axis."""

    def transform(self, variant: int = 0, kind: str = INTRA) -> LatentPyramid:
        """Return the field of a member of a kind."""
        references = REFERENCES if kind == INTER else 0
        member = LatentPyramid(2, self.out_features, self.levels, self.prediction, references, self.divided)
        return member.transform(variant)

    @property
    def variants(self) -> int:
        """How many there are of every member; all of a sequence have the same."""
        return self.transform().variants

    def candidates(self, values: Tensor, step_index: int) -> Iterator[int]:
        return self.transform().candidates(values[:, :, values.shape[2] // 2], step_index)

    @property
    def kinds(self) -> tuple[str, ...]:
        return (INTRA, INTER)

    @property
    def groups(self) -> tuple[int, ...]:
        return self.transform().groups

    @property
    def order(self) -> Order:
        return self.transform().order

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            f"{kind}.{name}": shape for kind in self.kinds for name, shape in self.transform(kind=kind).shapes().items()
        }

    def initialize(self, generator: torch.Generator) -> Parameters:
        return {
            f"{kind}.{name}": value
            for kind in self.kinds
            for name, value in self.transform(kind=kind).initialize(generator).items()
        }
