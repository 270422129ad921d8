"""The latent clip: a video whose pictures are latent pyramids that see each other.

The first picture stands alone. The last one sees the first, the one in the middle both, and so on between any two that
are decoded: those are its references, moved along by vectors of motion, from which its latents are predicted. Pictures
with references have networks of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inrcodec.models.field import Parameters
from inrcodec.models.latent import LatentField
from inrcodec.models.order import Order
from inrcodec.models.pyramid import LatentPyramid

INTRA, INTER = "intra", "inter"
"""The kinds of pictures: those that stand alone, and those that have references."""

REFERENCES = 2
"""How many references a picture has; where there is only one it is shown twice."""

STAGE_PICTURES = 4
"""How many pictures are coded at once, at most."""

_OFFSETS = (0, 1, 2, 4, 5, 6)
"""How much lower a picture's step index is than that of pictures that are no references, by how often the pictures
between it and its neighbours are halved."""

_INTRA_OFFSET = 8

MAX_PICTURES = 1 << 10
"""Pictures of a patch: they are decoded one after the other, so their number bounds the time that takes."""


@dataclass(frozen=True)
class Stage:
    """Pictures that are coded at once.

    pictures: their numbers. references: the numbers of each one's references, one or two; empty for the first stage.
    offset: of their step index.
    """

    pictures: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    offset: int

    @property
    def kind(self) -> str:
        return INTER if self.references else INTRA


def stages_of(count: int) -> list[Stage]:
    """Return the stages of a clip of `count` pictures, in coding order."""
    if count == 1:
        return [Stage((0,), (), 0)]
    stages = [Stage((0,), (), -_INTRA_OFFSET)]
    gaps = [(0, count - 1)]
    layers: list[list[tuple[int, int, int]]] = []
    while gaps:
        middles = [(low, (low + high) // 2, high) for low, high in gaps if high - low > 1]
        if middles:
            layers.append(middles)
        gaps = [half for low, middle, high in middles for half in ((low, middle), (middle, high))]
    stages.append(Stage((count - 1,), ((0,),), -_offset(len(layers))))
    for index, layer in enumerate(layers):
        for start in range(0, len(layer), STAGE_PICTURES):
            some = layer[start : start + STAGE_PICTURES]
            stages.append(
                Stage(
                    tuple(middle for _, middle, _ in some),
                    tuple((low, high) for low, _, high in some),
                    -_offset(len(layers) - 1 - index),
                )
            )
    return stages


def _offset(finer: int) -> int:
    return _OFFSETS[min(finer, len(_OFFSETS) - 1)]


@dataclass(frozen=True)
class LatentClip(LatentField):
    """Configuration of a latent clip.

    levels: how often height and width are halved, six times unless given.
    prediction, divided: of its pictures; see `LatentPyramid`.
    """

    prediction: int = 32
    divided: int = 0

    name: ClassVar[str] = "clip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_features != 3:
            raise ValueError(f"a clip has three axes, not {self.in_features}")
        object.__setattr__(self, "levels", self.transform().levels)

    def transform(self, variant: int = 0, kind: str = INTRA) -> LatentPyramid:
        """Return the field of a picture of a kind."""
        references = REFERENCES if kind == INTER else 0
        picture = LatentPyramid(2, self.out_features, self.levels, self.prediction, references, self.divided)
        return picture.transform(variant)

    @property
    def variants(self) -> int:
        """How many there are of every picture; all of a clip have the same."""
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
