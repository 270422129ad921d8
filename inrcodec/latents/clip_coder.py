"""The coder of clips: stage by stage, each the motion of its pictures and then their latents."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.initialization import Initialization
from inrcodec.latents.coder import MAX_STEP_INDEX, MIN_STEP_INDEX, AdaptationPlan, LatentCoder, adapted, integers
from inrcodec.latents.model import LatentModel, field_of, prior_of
from inrcodec.latents.motion import motion_batches, read_motion
from inrcodec.latents.motion_search import find_motion
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import Grid, LatentPyramid
from inrcodec.models.clip import INTER, INTRA, MAX_PICTURES, Stage, stages_of
from inrcodec.models.latent import STEPS_PER_OCTAVE, of_kind, quantization_step
from inrcodec.models.motion import motion_shape, moved
from inrcodec.models.pyramid import resample, samples_read


class ClipCoder(LatentCoder):
    """The coder of latent clips.

    The symbols of a chunk are, for one stage after the other, where there are references the vectors
    [B, references, pictures, 2, *blocks], and then the latents of every level and the means, [B, pictures, ...].
    """

    STEPS: ClassVar = {"fast": 0, "default": 2, "high": 10}
    """Clips have many pictures, and most of them little to say."""

    @property
    def size(self) -> int:
        return self.grid.shape[0] * self._picture_size

    @property
    def at_once(self) -> int:
        return max(len(stage.pictures) for stage in self._stages) * self._picture_size

    @property
    def is_small(self) -> bool:
        return self.grid.shape[0] <= MAX_PICTURES and super().is_small

    def encode(self, values: Tensor, plan: AdaptationPlan) -> bytes:
        batches: list[entropy.Batch] = []
        decoded: dict[int, Tensor] = {}
        for stage in self._stages:
            step_index = self._step_index(stage)
            pictures = _pictures(stage.pictures, values.unbind(2))
            references = _references(stage, decoded)
            step_indices = torch.full((len(pictures),), float(step_index), device=self.device)
            motion = [find_motion(pictures, each, quantization_step(step_indices)) for each in references]
            if motion:
                batches += motion_batches(integers(torch.cat(motion)))
            model = self._model(stage, references, motion)
            # Each stage trades at its own step index, so that references are finer than pictures that are none.
            trade_off = plan.trade_off * 4 ** ((step_index - self.step_index) / STEPS_PER_OCTAVE)
            symbols = adapted(model, pictures, self._picture, step_index, replace(plan, trade_off=trade_off))
            batches += self._symbol_coders[stage.kind].batches([integers(level) for level in symbols], step_index)
            with torch.no_grad():
                shown = model.values(symbols, self._picture, step_indices)
            decoded |= _by_number(stage, shown)
        return entropy.encode_batches(batches)

    def symbols(self, chunk: bytes, count: int) -> list[np.ndarray]:
        decoder = entropy.Decoder(chunk)
        blocks = motion_shape(self._picture.shape)
        result = []
        for stage in self._stages:
            pictures = len(stage.pictures)
            if stage.references:
                references = len(stage.references[0])
                motion = read_motion(decoder, (references * count * pictures, *blocks))
                result.append(motion.reshape(references, count, pictures, *blocks).swapaxes(0, 1))
            coder = self._symbol_coders[stage.kind]
            latents = coder.read(decoder, count * pictures, self._step_index(stage))
            result += [level.reshape(count, pictures, *level.shape[1:]) for level in latents]
        decoder.finish()
        return result

    def values_at(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        times, *places = positions
        count = self.grid.shape[0]
        asked = samples_read(times, count)
        needed = _with_references(asked, self._stages)
        as_coded = all(
            np.array_equal(along, np.arange(size)) for along, size in zip(places, self._picture.shape, strict=True)
        )
        channels = self.initialization.field.out_features
        shown = torch.zeros(1, channels, count, *map(len, places), device=self.device)
        left = iter(symbols)
        decoded: dict[int, Tensor] = {}
        for whole in self._stages:
            stage, which = _only(whole, needed)
            motion = list(next(left)[0][:, which]) if whole.references else []
            field = self._models[whole.kind].field
            latents = [next(left)[0][which] for _ in field.latent_shapes(self._picture)]
            if not which:
                continue
            model = self._model(stage, _references(stage, decoded), motion)
            field, shared = model.field, model.shared
            step_index = torch.full((len(which),), float(self._step_index(stage)), device=self.device)
            latents = field.decoded(shared, latents, self._picture, step_index)
            maps = field.maps(shared, latents, self._picture, step_index)
            decoded |= _by_number(stage, field.values(shared, maps, self._picture, step_index))
            for index, number in enumerate(stage.pictures):
                if number in asked:
                    one = slice(index, index + 1)
                    shown[:, :, number] = (
                        decoded[number]
                        if as_coded
                        else field.values_at(shared, maps[one], places, self._picture, step_index[one]).clamp(0, 1)
                    )
        return resample(shown, [times, *(np.arange(len(along)) for along in places)], (False,) * len(positions))

    @cached_property
    def _stages(self) -> list[Stage]:
        return stages_of(self.grid.shape[0])

    @property
    def _picture(self) -> Grid:
        """The grid of a picture."""
        return Grid(self.grid.shape[1:], self.grid.periodic[1:])

    @cached_property
    def _picture_size(self) -> int:
        """Latents of a picture."""
        field = field_of(self.initialization).transform(kind=INTRA)
        return sum(math.prod(shape) for shape in field.latent_shapes(self._picture))

    @cached_property
    def _models(self) -> dict[str, LatentModel]:
        return {kind: LatentModel.of(self.initialization, self.device, kind=kind) for kind in (INTRA, INTER)}

    @cached_property
    def _symbol_coders(self) -> dict[str, SymbolCoder]:
        return {kind: _symbol_coder(self.initialization, self._picture, kind) for kind in (INTRA, INTER)}

    def _step_index(self, stage: Stage) -> int:
        return min(max(self.step_index + stage.offset, MIN_STEP_INDEX), MAX_STEP_INDEX)

    def _model(self, stage: Stage, references: Sequence[Tensor], motion: Sequence[Tensor]) -> LatentModel:
        """Return the field of a stage's pictures, which sees their references moved along."""
        model = self._models[stage.kind]
        if not references:
            return model
        shown = [moved(each, vectors) for each, vectors in zip(references, motion, strict=True)]
        return replace(model, field=cast(LatentPyramid, model.field).with_references(shown, self._picture))


def _symbol_coder(initialization: Initialization, picture: Grid, kind: str) -> SymbolCoder:
    prior = prior_of(initialization)
    field = field_of(initialization).transform(kind=kind)
    return SymbolCoder(field, picture, prior.entropy_model.of_one_kind, of_kind(prior.weights, kind))


def _references(stage: Stage, decoded: dict[int, Tensor]) -> list[Tensor]:
    """Return the first reference of each picture of a stage, and then the second: [B * pictures, C, H, W]."""
    return [_pictures(numbers, decoded) for numbers in zip(*stage.references, strict=True)]


def _pictures(numbers: Sequence[int], pictures: dict[int, Tensor] | Sequence[Tensor]) -> Tensor:
    """Return [B * len(numbers), C, H, W] from pictures [B, C, H, W]."""
    return torch.stack([pictures[number] for number in numbers], 1).flatten(0, 1)


def _with_references(numbers: set[int], stages: Sequence[Stage]) -> set[int]:
    """Return pictures and all that must be decoded before them."""
    needed = set(numbers)
    for stage in reversed(stages):
        for number, references in zip(stage.pictures, stage.references, strict=False):
            needed.update(references if number in needed else ())
    return needed


def _only(stage: Stage, numbers: set[int]) -> tuple[Stage, list[int]]:
    """Return a stage with some of its pictures, and which of them these are."""
    which = [index for index, number in enumerate(stage.pictures) if number in numbers]
    references = tuple(stage.references[index] for index in which) if stage.references else ()
    return replace(stage, pictures=tuple(stage.pictures[index] for index in which), references=references), which


def _by_number(stage: Stage, shown: Tensor) -> dict[int, Tensor]:
    """Undo `_pictures`, and clip each picture to [0, 1]."""
    parts = shown.clamp(0, 1).unflatten(0, (-1, len(stage.pictures))).unbind(1)
    return dict(zip(stage.pictures, parts, strict=True))
