"""The latent clip: a video whose pictures are latent pyramids that see each other.

The first picture stands alone. The last one sees the first, the one in the middle both, and so on between any two that
are known: what a picture sees was decoded before, is moved along by vectors of motion, and is what its latents are
expected from. Pictures that see others have networks of their own.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from inrcodec.models.field import Parameters
from inrcodec.models.latent import LatentField
from inrcodec.models.order import Order
from inrcodec.models.pyramid import LatentPyramid

INTRA, INTER = "intra", "inter"
"""The kinds of pictures: those that stand alone, and those that see others."""

REFERENCES = 2
"""How many pictures another one sees; where only one is known it is seen twice."""

STAGE_PICTURES = 4
"""How many pictures are coded at once, at most."""

_OFFSETS = (0, 1, 2, 4, 5, 6)
"""How much finer a picture is quantized than those that nobody sees, in indices of the step, by how often pictures
between it and its neighbours are halved."""

_INTRA_OFFSET = 8

MAX_PICTURES = 1 << 10
"""Pictures of a patch: they are decoded one after the other, so their number bounds the time that takes."""


@dataclass(frozen=True)
class Stage:
    """Pictures that are coded at once.

    pictures: their numbers. references: the numbers of those that each of them sees, one or two; empty for the first.
    offset: of the index of their quantization step.
    """

    pictures: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    offset: int

    @property
    def kind(self) -> str:
        return INTER if self.references else INTRA


def stages_of(count: int) -> list[Stage]:
    """The stages of a clip of `count` pictures, in coding order."""
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
    width, prediction, divided: of its pictures; see `LatentPyramid`.
    """

    width: int = 16
    prediction: int = 32
    divided: int = 0

    name: ClassVar[str] = "clip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_features != 3:
            raise ValueError(f"a clip has three axes, not {self.in_features}")
        object.__setattr__(self, "levels", self.picture(INTRA).levels)

    def picture(self, kind: str) -> LatentPyramid:
        """The field of a picture."""
        references = REFERENCES if kind == INTER else 0
        return LatentPyramid(2, self.out_features, self.levels, self.width, self.prediction, references, self.divided)

    @property
    def kinds(self) -> tuple[str, ...]:
        return (INTRA, INTER)

    @property
    def groups(self) -> tuple[int, ...]:
        return self.picture(INTRA).groups

    @property
    def order(self) -> Order:
        return self.picture(INTRA).order

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{kind}.{name}": shape for kind in self.kinds for name, shape in self.picture(kind).shapes().items()}

    def initialize(self, generator: torch.Generator) -> Parameters:
        return {
            f"{kind}.{name}": value
            for kind in self.kinds
            for name, value in self.picture(kind).initialize(generator).items()
        }
