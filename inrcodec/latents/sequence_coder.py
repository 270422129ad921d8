"""The coder of sequences: stage by stage, each what its references need and then the latents of its members."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from inrcodec.coding import entropy
from inrcodec.coding.varint import read_varint, write_varint
from inrcodec.errors import CorruptFile, TruncatedFile
from inrcodec.latents.adaptation import adapt_latents
from inrcodec.latents.coder import MAX_STEP_INDEX, MIN_STEP_INDEX, AdaptationPlan, LatentCoder
from inrcodec.latents.model import LatentModel, field_of
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import Grid, LatentPyramid, LatentSequence, Positions
from inrcodec.models.latent import STEPS_PER_OCTAVE
from inrcodec.models.pyramid import resample, samples_read
from inrcodec.models.sequence import INTRA, MAX_MEMBERS, Stage

APART_SAMPLES = 1 << 17
"""Samples of a member from which on every stage is a stream of its own, where symbols depend on references."""


class SequenceCoder(LatentCoder):
    """The coder of latent sequences.

    The symbols of a chunk are, for one stage after the other, the means and the latents of every pass,
    [B, members, ...]; before them come those that `_read_side` reads, if any.
    """

    SIDE: ClassVar[int] = 0
    """How many tensors `_read_side` returns for a stage with references."""

    @property
    def size(self) -> int:
        return self.grid.shape[0] * self._member_size

    @property
    def at_once(self) -> int:
        return max(len(stage.members) for stage in self._stages) * self._member_size

    @property
    def is_small(self) -> bool:
        return self.grid.shape[0] <= MAX_MEMBERS and super().is_small

    @abstractmethod
    def _shown(
        self, members: Tensor, references: Sequence[Tensor], step_index: int
    ) -> tuple[list[Tensor], list[entropy.Batch]]:
        """Return the references [B * members, C, H, W] as networks see them, and what is coded of how they do."""

    @abstractmethod
    def _read_side(self, decoder: entropy.Decoder, count: int, stage: Stage) -> list[Tensor]:
        """Decode what `_shown` had coded: symbols [count, references, members, ...]."""

    @abstractmethod
    def _shown_by(self, references: Sequence[Tensor], side: Sequence[Tensor]) -> list[Tensor]:
        """Return the references as networks see them. side: symbols of `_read_side`, [references, members, ...]."""

    def encode(self, values: Tensor, plan: AdaptationPlan) -> tuple[bytes, Tensor]:
        coded: list[bytes] = []
        batches: list[entropy.Batch] = []
        decoded: dict[int, Tensor] = {}
        for stage in self._stages:
            step_index = self._step_index(stage)
            members = _members(stage.members, values.unbind(2))
            shown: list[Tensor] = []
            side: list[entropy.Batch] = []
            if stage.references:
                shown, side = self._shown(members, _references(stage, decoded), step_index)
            model = self._model(stage, shown)
            # Each stage trades at its own step index, so that references are finer than members that are none.
            trade_off = plan.trade_off * 4 ** ((step_index - self.step_index) / STEPS_PER_OCTAVE)
            found = adapt_latents(model, members, self._member, steps=plan.steps, trade_off=trade_off, bound=plan.bound)
            batches += [*side, *SymbolCoder(model, self._member).batches(found.symbols, found.outputs)]
            if self._apart:  # at once, as the symbols of many large members take more memory than all else
                stream = entropy.encode_batches(batches)
                coded.append(write_varint(len(stream)) + stream)
                batches.clear()
            with torch.no_grad():
                decoded |= _by_number(stage, model.values(found.linear, self._member))
        values = torch.stack([decoded.pop(number) for number in sorted(decoded)], 2).clamp_(0, 1)
        return b"".join(coded) if self._apart else entropy.encode_batches(batches), values

    def symbols(self, chunk: bytes, count: int) -> list[Tensor]:
        everything = set(range(self.grid.shape[0]))
        return [each for symbols, _ in self._read(chunk, count, everything, self._hinted) for each in symbols]

    def decode(self, chunk: bytes, count: int, positions: Sequence[Positions]) -> Iterator[Tensor]:
        if not self._hinted:
            yield from super().decode(chunk, count, positions)
            return
        asked = [samples_read(along, self.grid.shape[0]) for along, *_ in positions]
        decoded: dict[int, Tensor] = {}
        for _, values in self._read(chunk, count, self._read_for(set().union(*asked)), True):
            decoded |= values
        for patch, (numbers, places) in enumerate(zip(asked, positions, strict=True)):
            yield self._resampled({number: decoded[number][patch : patch + 1] for number in numbers}, places)

    def values_at(self, symbols: Sequence[Tensor], positions: Iterator[Positions]) -> Iterator[Tensor]:
        with torch.no_grad():
            for patch in range(len(symbols[0])):
                yield self._patch_values([each[patch] for each in symbols], next(positions))

    def _read(
        self, chunk: bytes, count: int, needed: set[int], decodes: bool
    ) -> Iterator[tuple[list[Tensor], dict[int, Tensor]]]:
        """Decode the stages that have a needed member: yield their symbols, and where asked for, the values of members.

        Raises: CorruptFile.
        """
        decoded: dict[int, Tensor] = {}
        for stage, decoder in zip(self._stages, self._decoders(chunk), strict=True):
            if needed.isdisjoint(stage.members):
                continue
            side = self._read_side(decoder, count, stage) if stage.references else []
            model = self._model_alone(stage)
            if self._hinted and stage.references:
                of_all = [each.transpose(0, 1).flatten(1, 2) for each in side]
                model = self._model(stage, self._shown_by(_references(stage, decoded), of_all))
            found = SymbolCoder(model, self._member).read(decoder, count * len(stage.members))
            if self._apart or stage is self._stages[-1]:
                decoder.finish()
            values: dict[int, Tensor] = {}
            if decodes:
                with torch.no_grad():
                    values = _by_number(stage, model.values(model.linear(found, self._member), self._member))
                decoded |= values
            yield [*side, *(each.unflatten(0, (count, len(stage.members))) for each in found)], values

    def _read_for(self, numbers: set[int]) -> set[int]:
        """Return members whose stages must be read for some members, where the entropy model sees references."""
        if not self._apart:
            last = max(
                (index for index, stage in enumerate(self._stages) if not numbers.isdisjoint(stage.members)), default=-1
            )
            return {number for stage in self._stages[: last + 1] for number in stage.members}
        needed = set(numbers)
        for stage in reversed(self._stages):
            if not needed.isdisjoint(stage.members):
                needed.update(number for references in stage.references for number in references)
        return needed

    def _decoders(self, chunk: bytes) -> Iterator[entropy.Decoder]:
        """Yield a decoder for every stage. Raises: CorruptFile."""
        if not self._apart:
            decoder = entropy.Decoder(chunk)
            yield from (decoder for _ in self._stages)
            return
        end = 0
        for _ in self._stages:
            try:
                length, begin = read_varint(chunk, end)
            except TruncatedFile as error:
                raise CorruptFile(f"a chunk of {len(chunk)} bytes has too few stages: obtain the file again") from error
            end = begin + length
            if end > len(chunk):
                raise CorruptFile(f"a stage of {length} bytes is beyond the end of its chunk: obtain the file again")
            yield entropy.Decoder(chunk[begin:end])
        if end < len(chunk):
            raise CorruptFile(f"a chunk has {len(chunk) - end} bytes after its last stage: obtain the file again")

    @property
    def _apart(self) -> bool:
        """Whether every stage is a stream of its own, so that a large member is decoded with its references only."""
        return self._hinted and math.prod(self._member.shape) >= APART_SAMPLES

    def _patch_values(self, symbols: Sequence[Tensor], positions: Positions) -> Tensor:
        """Return the values of one patch, whose symbols have no batch dimension."""
        asked = samples_read(positions[0], self.grid.shape[0])
        needed = _with_references(asked, self._stages)
        left = iter(symbols)
        decoded: dict[int, Tensor] = {}
        for every in self._stages:
            stage, which = _only(every, needed)
            side = [next(left)[:, which] for _ in range(self.SIDE if every.references else 0)]
            field = self._model_alone(every).field
            found = [next(left)[which] for _ in range(1 + len(field.places(self._member)))]
            if not which:
                continue
            references = self._shown_by(_references(stage, decoded), side) if stage.references else []
            model = self._model(stage, references)
            decoded |= _by_number(stage, model.values(model.linear(found, self._member), self._member))
        return self._resampled({number: decoded[number] for number in asked}, positions)

    def _resampled(self, members: dict[int, Tensor], positions: Positions) -> Tensor:
        """Return the values of a patch at some positions, [C, ...], from the members [1, C, H, W] that they need."""
        if isinstance(positions, np.ndarray):
            return self._resampled_at_points(members, positions)
        along, *places = positions
        shown = {
            number: resample(values, places, self._member.periodic).clamp(0, 1) for number, values in members.items()
        }
        # There are patches of which no member is asked.
        nothing = torch.zeros(1, self.initialization.field.out_features, *map(len, places), device=self.device)
        stack = torch.stack([shown.get(number, nothing) for number in range(self.grid.shape[0])], 2)
        return resample(stack, [along, *(np.arange(len(each)) for each in places)], (False,) * len(positions))[0]

    def _resampled_at_points(self, members: dict[int, Tensor], points: np.ndarray) -> Tensor:
        """Return the values [C, n] of a patch at points [axes, n] of some of its members."""
        values = torch.zeros(self.initialization.field.out_features, points.shape[1], device=self.device)
        for number, member in members.items():
            own = np.flatnonzero(points[0] == number)
            values[:, own] = resample(member, points[1:, own], self._member.periodic)[0].clamp(0, 1)
        return values

    @cached_property
    def _stages(self) -> Sequence[Stage]:
        return self._sequence.stages(self.grid, self.variant)

    @property
    def _sequence(self) -> LatentSequence:
        return cast(LatentSequence, field_of(self.initialization))

    @property
    def _hinted(self) -> bool:
        """Whether the entropy model must be shown what was decoded before."""
        return bool(self._sequence.hinted_kinds)

    @property
    def _member(self) -> Grid:
        """The grid of a member."""
        return Grid(self.grid.shape[1:], self.grid.periodic[1:])

    @cached_property
    def _member_size(self) -> int:
        """Latents of a member."""
        return self._sequence.transform(self.variant, INTRA).size(self._member)

    @cached_property
    def _models(self) -> dict[tuple[str, int], LatentModel]:
        return {}

    def _step_index(self, stage: Stage) -> int:
        return min(max(self.step_index + stage.offset, MIN_STEP_INDEX), MAX_STEP_INDEX)

    def _model_alone(self, stage: Stage) -> LatentModel:
        """Return the model of a stage's members, which sees no references yet."""
        key = stage.kind, self._step_index(stage)
        if key not in self._models:
            kind, step_index = key
            self._models[key] = LatentModel.of(self.initialization, self.device, step_index, self.variant, kind)
        return self._models[key]

    def _model(self, stage: Stage, shown: Sequence[Tensor]) -> LatentModel:
        """Return the model of a stage's members, which sees their references."""
        model = self._model_alone(stage)
        if not shown:
            return model
        return replace(model, field=cast(LatentPyramid, model.field).with_references(shown, self._member))


class SeriesCoder(SequenceCoder):
    """The coder of latent series, whose references are seen where they are."""

    STEPS: ClassVar = {"instant": 0, "fast": 0, "default": 1, "high": 4}
    """More make a file hardly smaller, and each takes longer than all the rest."""

    def _shown(
        self, members: Tensor, references: Sequence[Tensor], step_index: int
    ) -> tuple[list[Tensor], list[entropy.Batch]]:
        return list(references), []

    def _read_side(self, decoder: entropy.Decoder, count: int, stage: Stage) -> list[Tensor]:
        return []

    def _shown_by(self, references: Sequence[Tensor], side: Sequence[Tensor]) -> list[Tensor]:
        return list(references)


def _references(stage: Stage, decoded: dict[int, Tensor]) -> list[Tensor]:
    """Return the first reference of each member of a stage, and then the second: [B * members, C, H, W] in [0, 1]."""
    return [_members(numbers, decoded).clamp(0, 1) for numbers in zip(*stage.references, strict=True)]


def _members(numbers: Sequence[int], members: dict[int, Tensor] | Sequence[Tensor]) -> Tensor:
    """Return [B * len(numbers), C, H, W] from members [B, C, H, W]."""
    return torch.stack([members[number] for number in numbers], 1).flatten(0, 1)


def _with_references(numbers: set[int], stages: Sequence[Stage]) -> set[int]:
    """Return members and all that must be decoded before them."""
    needed = set(numbers)
    for stage in reversed(stages):
        for number, references in zip(stage.members, stage.references, strict=False):
            needed.update(references if number in needed else ())
    return needed


def _only(stage: Stage, numbers: set[int]) -> tuple[Stage, list[int]]:
    """Return a stage with some of its members, and which of them these are."""
    which = [index for index, number in enumerate(stage.members) if number in numbers]
    references = tuple(stage.references[index] for index in which) if stage.references else ()
    return replace(stage, members=tuple(stage.members[index] for index in which), references=references), which


def _by_number(stage: Stage, shown: Tensor) -> dict[int, Tensor]:
    """Undo `_members`."""
    parts = shown.unflatten(0, (-1, len(stage.members))).unbind(1)
    return dict(zip(stage.members, parts, strict=True))
