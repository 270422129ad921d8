"""The clip: pyramids that see each other.

It follows "Clip" of docs/FORMAT.md.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from second_decoder import pyramid
from second_decoder.arrays import ceil_div, cubic_convolution
from second_decoder.entropy import EntropyDecoder
from second_decoder.entropy_model import EntropyModel
from second_decoder.latent_fields import LatentField
from second_decoder.latent_grids import LatentGrids
from second_decoder.motion import moved, read_motion
from second_decoder.prediction import Reference
from second_decoder.reading import require

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization

KINDS = ("intra.", "inter.")
REFERENCES = {"intra.": 0, "inter.": 2}
FIRST_OFFSET = 8
OFFSETS = (0, 1, 2, 4, 5, 6)
"""How much the step index is lowered: for picture 0, and from the last layer to the first."""


def grids_of(field: Mapping[str, Any], grid: tuple[int, ...] = ()) -> LatentGrids:
    """Return the grids of a picture's latents."""
    return pyramid.grids_of(field, grid)


def shared_tensors(field: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of `theta_0`."""
    return {
        f"{kind}{name}": shape
        for kind in KINDS
        for name, shape in pyramid.shared_tensors(field, REFERENCES[kind]).items()
    }


@dataclass(frozen=True)
class Stage:
    """Pictures that are coded at once. references: of each picture. lowered: o, taken from the step index."""

    pictures: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    lowered: int

    @property
    def kind(self) -> str:
        """The kind of its pictures."""
        return "inter." if self.references else "intra."


def stages_of(
    pictures: int, first: int = FIRST_OFFSET, offsets: Sequence[int] = OFFSETS, largest: int = 4
) -> list[Stage]:
    """Return the stages of a patch in coding order.

    first, offsets: o of picture 0, and of the layers from the last to the first. largest: how many pictures of a layer
    are a stage at most.
    """
    if pictures == 1:
        return [Stage((0,), (), 0)]
    layers = []
    known = sorted({0, pictures - 1})
    while gaps := [(a, b) for a, b in itertools.pairwise(known) if b - a > 1]:
        layers.append([((a + b) // 2, (a, b)) for a, b in gaps])
        known = sorted(known + [picture for picture, _ in layers[-1]])
    # Seen from the last layer, they are number 0, 1, …; picture T - 1 is a layer before all of them.
    numbered = [[(pictures - 1, (0,))], *layers]
    stages = [Stage((0,), (), first)]
    for number, layer in zip(reversed(range(len(numbered))), numbered, strict=True):
        lowered = offsets[min(number, len(offsets) - 1)]
        for begin in range(0, len(layer), largest):
            some = layer[begin : begin + largest]
            stages.append(Stage(tuple(picture for picture, _ in some), tuple(seen for _, seen in some), lowered))
    return stages


@dataclass(frozen=True)
class CodedStage:
    """What is coded of a stage. motion: [patches, references, pictures, 2, blocks down, blocks across], or None.

    symbols: [patches, pictures, ...] each, of the means and of every pass.
    """

    stage: Stage
    motion: np.ndarray | None
    symbols: list[np.ndarray]


class ClipField(LatentField):
    """The clips of a stream. symbols: of each stage of each chunk the motion, if any, the means and every pass."""

    def _prepare(self, initialization: "Initialization", parameters: tuple[int, ...]) -> None:
        hue, bare = pyramid.hue_and_bare(self.field, parameters)
        self._prepare_stages(initialization, stages_of(self.grid[0]), hue, bare)
        self._patches: list[tuple[int, list[CodedStage]]] = []

    def _prepare_stages(self, initialization: "Initialization", stages: list[Stage], hue: int, bare: int) -> None:
        pictures, *picture = self.grid
        require(pictures <= 1 << 10, "a patch of a clip or series has at most 2^10 pictures or fields")
        self._hue, self._stages = hue, stages
        self._grids = replace(grids_of(self.field, tuple(picture)), bare=bare)
        self.latents = pictures * self._grids.latents
        self.latents_at_once = max(len(stage.pictures) for stage in stages) * self._grids.latents
        require(self.latents <= 1 << 26, "a patch of a clip or series has at most 2^26 latents")
        self._weights, self._tensors = initialization.named("entropy_model"), initialization.named("theta_0")
        self._model, self._pyramid = cache(self._new_model), cache(self._new_pyramid)

    def _new_model(self, kind: str, step_index: int) -> EntropyModel:
        return EntropyModel(self._grids, of_kind(self._weights, kind), step_index)

    def _new_pyramid(self, kind: str, step_index: int) -> pyramid.Pyramid:
        return pyramid.Pyramid(self._grids, of_kind(self._tensors, kind), self.around[1:], step_index, self._hue)

    def _step_index_of(self, stage: Stage) -> int:
        return min(max(self.step_index - stage.lowered, -120), 24)

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        decoder = EntropyDecoder(chunk)
        blocks = [ceil_div(size, 16) for size in self.grid[1:]]
        coded = []
        for stage in self._stages:
            count, motion = len(stage.pictures), None
            if stage.references:
                references = len(stage.references[0])
                motion = read_motion(decoder, references * patches * count, *blocks)
                motion = motion.reshape(references, patches, count, 2, *blocks).swapaxes(0, 1)
                self.symbols.append(motion)
            symbols = self._model(stage.kind, self._step_index_of(stage)).read(decoder, patches * count)
            symbols = [each.reshape(patches, count, *each.shape[1:]) for each in symbols]
            self.symbols += symbols
            coded.append(CodedStage(stage, motion, symbols))
        decoder.finish()
        self._patches += [(patch, coded) for patch in range(patches)]

    def _value(self, patch: int, positions: Sequence[np.ndarray]) -> np.ndarray:
        times, *places = positions
        in_chunk, coded = self._patches[patch]
        decoded: dict[int, np.ndarray] = {}
        shown: dict[int, np.ndarray] = {}
        for each in coded:
            networks = self._pyramid(each.stage.kind, self._step_index_of(each.stage))
            references = self._references(each, in_chunk, decoded, networks)
            values = networks.values([symbols[in_chunk] for symbols in each.symbols], references)
            at_positions = pyramid.interpolated(values, places, self.around[1:])
            for target, pictures in ((decoded, values), (shown, at_positions)):
                clipped = pictures.clip(0, 1)
                target.update({picture: clipped[n : n + 1] for n, picture in enumerate(each.stage.pictures)})
        video = np.stack([shown[picture] for picture in range(self.grid[0])], 2)
        return cubic_convolution(video, 2, times, closed=False)

    def _references(
        self, coded: CodedStage, patch: int, decoded: Mapping[int, np.ndarray], networks: pyramid.Pyramid
    ) -> list[Reference]:
        """Return what the pictures of a stage see: two references, or none."""
        if coded.motion is None:
            return []
        references = []
        for number, vectors in enumerate(coded.motion[patch]):
            seen = np.concatenate([decoded[reference[number]] for reference in coded.stage.references])
            references.append(networks.reference(moved(seen, vectors)))
        return [references[0], references[-1]]  # one reference is seen twice


def of_kind(tensors: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Return the tensors of a kind of pictures, by their names without it."""
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}
