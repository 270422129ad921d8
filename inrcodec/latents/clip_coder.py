"""The coder of clips: stage by stage, each the motion of its pictures and then their latents."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.coder import MAX_STEP_INDEX, MIN_STEP_INDEX, AdaptationPlan, LatentCoder
from inrcodec.latents.model import LatentModel, field_of
from inrcodec.latents.motion import motion_batches, read_motion
from inrcodec.latents.motion_search import find_motion
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import Grid, LatentPyramid
from inrcodec.models.clip import INTRA, MAX_PICTURES, Stage, stages_of
from inrcodec.models.latent import STEPS_PER_OCTAVE, quantization_step
from inrcodec.models.motion import motion_shape, moved
from inrcodec.models.pyramid import resample, samples_read


class ClipCoder(LatentCoder):
    """The coder of latent clips.

    The symbols of a chunk are, for one stage after the other, where there are references the vectors
    [B, references, pictures, 2, *blocks], and then the means and the latents of every pass, [B, pictures, ...].
    """

    STEPS: ClassVar = {"instant": 0, "fast": 0, "default": 2, "high": 10}
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

    def encode(self, values: Tensor, plan: AdaptationPlan) -> tuple[bytes, Tensor]:
        batches: list[entropy.Batch] = []
        decoded: dict[int, Tensor] = {}
        for stage in self._stages:
            step_index = self._step_index(stage)
            pictures = _pictures(stage.pictures, values.unbind(2))
            references = _references(stage, decoded)
            motion = [find_motion(pictures, each, quantization_step(step_index)) for each in references]
            if motion:
                batches += motion_batches(torch.cat(motion).cpu().numpy().astype(np.int64))
            model = self._model(stage, references, motion)
            # Each stage trades at its own step index, so that references are finer than pictures that are none.
            trade_off = plan.trade_off * 4 ** ((step_index - self.step_index) / STEPS_PER_OCTAVE)
            found = adapt_latents(model, pictures, self._picture, steps=plan.steps, trade_off=trade_off)
            batches += SymbolCoder(model, self._picture).batches(found.symbols, found.outputs)
            with torch.no_grad():
                decoded |= _by_number(stage, model.values(found.linear, self._picture))
        return entropy.encode_batches(batches), torch.stack([decoded[number] for number in sorted(decoded)], 2)

    def symbols(self, chunk: bytes, count: int) -> list[Tensor]:
        decoder = entropy.Decoder(chunk)
        blocks = motion_shape(self._picture.shape)
        result = []
        for stage in self._stages:
            pictures = len(stage.pictures)
            if stage.references:
                references = len(stage.references[0])
                motion = read_motion(decoder, (references * count * pictures, *blocks))
                ordered = motion.reshape(references, count, pictures, *blocks).swapaxes(0, 1)
                result.append(torch.from_numpy(ordered).float().to(self.device))
            coder = SymbolCoder(self._model_alone(stage), self._picture)
            result += [each.unflatten(0, (count, pictures)) for each in coder.read(decoder, count * pictures)]
        decoder.finish()
        return result

    def values_at(self, symbols: Sequence[Tensor], positions: Iterator[Sequence[np.ndarray]]) -> Iterator[Tensor]:
        with torch.no_grad():
            for patch in range(len(symbols[0])):
                yield self._patch_values([each[patch] for each in symbols], next(positions))

    def _patch_values(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        """Return the values of one patch, whose symbols have no batch dimension."""
        times, *places = positions
        count = self.grid.shape[0]
        asked = samples_read(times, count)
        needed = _with_references(asked, self._stages)
        shown: dict[int, Tensor] = {}
        left = iter(symbols)
        decoded: dict[int, Tensor] = {}
        for every in self._stages:
            stage, which = _only(every, needed)
            motion = list(next(left)[:, which]) if every.references else []
            field = self._model_alone(every).field
            found = [next(left)[which] for _ in range(1 + len(field.places(self._picture)))]
            if not which:
                continue
            model = self._model(stage, _references(stage, decoded), motion)
            values = model.values(model.linear(found, self._picture), self._picture)
            decoded |= _by_number(stage, values)
            for index, number in enumerate(stage.pictures):
                if number in asked:
                    shown[number] = resample(values[index : index + 1], places, self._picture.periodic).clamp(0, 1)
        # There are patches of which no time is asked.
        nothing = torch.zeros(1, self.initialization.field.out_features, *map(len, places), device=self.device)
        stack = torch.stack([shown.get(number, nothing) for number in range(count)], 2)
        return resample(stack, [times, *(np.arange(len(along)) for along in places)], (False,) * len(positions))[0]

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
        return field_of(self.initialization).transform(self.variant, INTRA).size(self._picture)

    @cached_property
    def _models(self) -> dict[tuple[str, int], LatentModel]:
        return {}

    def _step_index(self, stage: Stage) -> int:
        return min(max(self.step_index + stage.offset, MIN_STEP_INDEX), MAX_STEP_INDEX)

    def _model_alone(self, stage: Stage) -> LatentModel:
        """Return the model of a stage's pictures, which sees no references yet."""
        key = stage.kind, self._step_index(stage)
        if key not in self._models:
            kind, step_index = key
            self._models[key] = LatentModel.of(self.initialization, self.device, step_index, self.variant, kind)
        return self._models[key]

    def _model(self, stage: Stage, references: Sequence[Tensor], motion: Sequence[Tensor]) -> LatentModel:
        """Return the model of a stage's pictures, which sees their references moved along."""
        model = self._model_alone(stage)
        if not references:
            return model
        shown = [moved(each, vectors) for each, vectors in zip(references, motion, strict=True)]
        return replace(model, field=cast(LatentPyramid, model.field).with_references(shown, self._picture))


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
