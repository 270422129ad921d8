"""Clips to bytes and back: stage by stage, each the motion of its pictures and then their latents."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.coding.latents import pack_latents, unpack_latents
from inrcodec.coding.motion import pack_motion, unpack_motion
from inrcodec.latent_coders import (
    MAX_STEP,
    MIN_STEP,
    Adaptation,
    LatentCoder,
    adapted,
    integers,
    latent_parts,
    pyramid_on,
)
from inrcodec.meta.latent_objective import Pyramid
from inrcodec.models import Parameters
from inrcodec.models.clip import INTER, INTRA, LatentClip, Stage, stages_of
from inrcodec.models.latent import STEPS_PER_OCTAVE, Grid, of_kind
from inrcodec.models.motion import motion_shape, moved
from inrcodec.models.pyramid import LatentPyramid, resample, samples_read
from inrcodec.motion_search import find_motion


class ClipCoder(LatentCoder):
    """Of latent clips.

    The symbols of a chunk are, for one stage after the other, where there are references the vectors
    [B, references, pictures, 2, *blocks], and then the latents of every level and the means, [B, pictures, ...].
    """

    @property
    def size(self) -> int:
        return self.grid.shape[0] * self._picture_size

    @property
    def at_once(self) -> int:
        return max(len(stage.pictures) for stage in self._stages) * self._picture_size

    def encode(self, values: Tensor, adaptation: Adaptation) -> bytes:
        parts: list[entropy.Part] = []
        known: dict[int, Tensor] = {}
        for stage in self._stages:
            step = self._step(stage)
            pictures = _pictures(stage.pictures, values.unbind(2))
            references = _references(stage, known)
            scale = torch.full((len(pictures),), 2 ** (step / STEPS_PER_OCTAVE), device=self.device)
            motion = [find_motion(pictures, each, scale) for each in references]
            if motion:
                parts += pack_motion(integers(torch.cat(motion)))
            pyramid = self._pyramid(stage, references, motion)
            # Each stage trades at its own step, so that what others see is finer than what nobody does.
            trade_off = adaptation.trade_off * 4 ** ((step - self.step) / STEPS_PER_OCTAVE)
            symbols = adapted(pyramid, pictures, self._picture, step, replace(adaptation, trade_off=trade_off))
            coded = [integers(level) for level in symbols]
            parts += pack_latents(coded, step, pyramid.field, self._picture, pyramid.contexts, self._weights(stage))
            with torch.no_grad():
                shown = pyramid.values(symbols, self._picture, torch.full_like(scale, step))
            known |= _by_number(stage, shown)
        return entropy.encode_parts(parts)

    def symbols(self, chunk: bytes, count: int) -> list[np.ndarray]:
        decoder = entropy.Decoder(chunk)
        blocks = motion_shape(self._picture.shape)
        result = []
        for stage in self._stages:
            pictures = len(stage.pictures)
            if stage.references:
                seen = len(stage.references[0])
                motion = unpack_motion(decoder, (seen * count * pictures, *blocks))
                result.append(motion.reshape(seen, count, pictures, *blocks).swapaxes(0, 1))
            pyramid, weights, step = self._networks[stage.kind], self._weights(stage), self._step(stage)
            latents = unpack_latents(
                decoder, count * pictures, step, pyramid.field, self._picture, pyramid.contexts, weights
            )
            result += [level.reshape(count, pictures, *level.shape[1:]) for level in latents]
        decoder.finish()
        return result

    def values_at(self, symbols: Sequence[Tensor], positions: Sequence[np.ndarray]) -> Tensor:
        times, *places = positions
        count = self.grid.shape[0]
        asked = samples_read(times, count)
        decoded = _with_those_they_see(asked, self._stages)
        as_coded = all(
            np.array_equal(along, np.arange(size)) for along, size in zip(places, self._picture.shape, strict=True)
        )
        shown = torch.zeros(1, self._clip.out_features, count, *map(len, places), device=self.device)
        left = iter(symbols)
        known: dict[int, Tensor] = {}
        for whole in self._stages:
            stage, which = _only(whole, decoded)
            motion = list(next(left)[0][:, which]) if whole.references else []
            latents = [next(left)[0][which] for _ in self._clip.picture(whole.kind).latent_shapes(self._picture)]
            if not which:
                continue
            pyramid = self._pyramid(stage, _references(stage, known), motion)
            field, shared = pyramid.field, pyramid.shared
            step = torch.full((len(which),), float(self._step(stage)), device=self.device)
            maps = field.maps(shared, field.decoded(shared, latents, self._picture, step), self._picture, step)
            known |= _by_number(stage, field.values(shared, maps, self._picture, step))
            for index, number in enumerate(stage.pictures):
                if number in asked:
                    one = slice(index, index + 1)
                    shown[:, :, number] = (
                        known[number]
                        if as_coded
                        else field.values_at(shared, maps[one], places, self._picture, step[one]).clamp(0, 1)
                    )
        return resample(shown, [times, *(np.arange(len(along)) for along in places)], (False,) * len(positions))

    @property
    def _clip(self) -> LatentClip:
        clip = latent_parts(self.initialization)[0]
        assert isinstance(clip, LatentClip)
        return clip

    @property
    def _stages(self) -> list[Stage]:
        return stages_of(self.grid.shape[0])

    @property
    def _picture(self) -> Grid:
        """The grid of a picture."""
        return Grid(self.grid.shape[1:], self.grid.periodic[1:])

    @property
    def _picture_size(self) -> int:
        """Latents of a picture."""
        return sum(math.prod(shape) for shape in self._clip.picture(INTRA).latent_shapes(self._picture))

    @cached_property
    def _networks(self) -> dict[str, Pyramid]:
        return {kind: pyramid_on(self.initialization, self.device, kind=kind) for kind in (INTRA, INTER)}

    def _weights(self, stage: Stage) -> Parameters:
        """The entropy model's, as it is coded with."""
        return of_kind(latent_parts(self.initialization)[1].weights, stage.kind)

    def _step(self, stage: Stage) -> int:
        return min(max(self.step + stage.offset, MIN_STEP), MAX_STEP)

    def _pyramid(self, stage: Stage, references: Sequence[Tensor], motion: Sequence[Tensor]) -> Pyramid:
        """The field of a stage's pictures, which see their references moved along."""
        pyramid = self._networks[stage.kind]
        if not references:
            return pyramid
        assert isinstance(pyramid.field, LatentPyramid)
        seen = [moved(each, vectors) for each, vectors in zip(references, motion, strict=True)]
        return replace(pyramid, field=pyramid.field.beside(seen, self._picture))


def _references(stage: Stage, known: dict[int, Tensor]) -> list[Tensor]:
    """What the pictures of a stage see, the first reference of each and then the second: [B * pictures, C, H, W]."""
    return [_pictures(numbers, known) for numbers in zip(*stage.references, strict=True)]


def _pictures(numbers: Sequence[int], pictures: dict[int, Tensor] | Sequence[Tensor]) -> Tensor:
    """[B * len(numbers), C, H, W] from pictures [B, C, H, W]."""
    return torch.stack([pictures[number] for number in numbers], 1).flatten(0, 1)


def _with_those_they_see(numbers: set[int], stages: Sequence[Stage]) -> set[int]:
    """Pictures and all that must be decoded before them."""
    decoded = set(numbers)
    for stage in reversed(stages):
        for number, seen in zip(stage.pictures, stage.references, strict=False):
            decoded.update(seen if number in decoded else ())
    return decoded


def _only(stage: Stage, numbers: set[int]) -> tuple[Stage, list[int]]:
    """A stage with some of its pictures, and which of them these are."""
    which = [index for index, number in enumerate(stage.pictures) if number in numbers]
    references = tuple(stage.references[index] for index in which) if stage.references else ()
    return replace(stage, pictures=tuple(stage.pictures[index] for index in which), references=references), which


def _by_number(stage: Stage, shown: Tensor) -> dict[int, Tensor]:
    """Inverse of `_pictures`, each within [0, 1]."""
    parts = shown.clamp(0, 1).unflatten(0, (-1, len(stage.pictures))).unbind(1)
    return dict(zip(stage.pictures, parts, strict=True))
