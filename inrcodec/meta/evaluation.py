"""The evaluation of an initialization on held-out patches; its model card shows it."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import best_variant
from inrcodec.latents.chunks import coder_class
from inrcodec.latents.codec import MAX_CHUNK_LATENTS
from inrcodec.latents.coder import AdaptationPlan, LatentCoder
from inrcodec.latents.model import LatentModel, field_of
from inrcodec.latents.objective import step_index_of_trade_off
from inrcodec.meta.data import PatchSampler
from inrcodec.models import Grid
from inrcodec.options import trade_off_of_quality
from inrcodec.weights.adaptation import signal_losses
from inrcodec.weights.codec import adapt_patches
from inrcodec.weights.context_set import PatchContextSets
from inrcodec.weights.model import WeightModel

WEIGHT_PATCHES = 128
LATENT_PATCHES = 24
LATENT_SAMPLES = 1 << 19
"""Held-out patches that fields of each family are measured on; of latents fewer where patches have more samples."""

QUALITIES = (20, 40, 60)
LATENT_STEPS = (0, 2)

RANDOM_STEP_SIZES = (1e-3, 1e-2, 1e-1, 1.0)
"""Inner step sizes tried for the random initialization, so that it is compared at its best."""


@dataclass(frozen=True)
class Evaluation:
    """A table of measurements, and what it says in a few words."""

    title: str
    summary: str
    columns: list[str]
    rows: list[list[float]]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, provenance: dict[str, Any]) -> "Evaluation":
        """Return the evaluation in an initialization's provenance; an empty one if it has none, or no such table."""
        match provenance.get("evaluation"):
            case {"title": str(title), "summary": str(summary), "columns": list(columns), "rows": list(rows), **rest}:
                texts = all(isinstance(column, str) for column in columns)
                if not rest and texts and all(_is_row(row, len(columns)) for row in rows):
                    return cls(title, summary, columns, rows)
        return cls("", "", [], [])

    def shown_rows(self) -> list[tuple[str, ...]]:
        """Return the rows as texts."""
        return [tuple(f"{number:g}" for number in row) for row in self.rows]


def _is_row(row: Any, columns: int) -> bool:
    """Say whether this is one number for each column."""
    return isinstance(row, list) and len(row) == columns and all(type(number) in (int, float) for number in row)


def evaluate(initialization: Initialization, held_out: PatchSampler, device: torch.device) -> Evaluation:
    """Measure an initialization on held-out patches; values are in [0, 1].

    Latents are coded and decoded at several qualities and numbers of adaptation steps. Weight fields are adapted for K
    and 4 K steps with gradient rescaling, beside the same field from a random initialization, by plain gradient descent
    at the best of `RANDOM_STEP_SIZES`.
    """
    measure = _of_weights if initialization.field.family == "weights" else _of_latents
    return measure(initialization, held_out, device)


def _of_latents(initialization: Initialization, held_out: PatchSampler, device: torch.device) -> Evaluation:
    count = max(1, min(LATENT_PATCHES, LATENT_SAMPLES // math.prod(held_out.config.shape)))
    context_set = held_out.batch(0, count).context_set(device)
    shape = context_set.shape
    values = context_set.values.transpose(1, 2).unflatten(2, shape)
    grid = Grid.open(shape)
    rows = []
    for quality in QUALITIES:
        trade_off = trade_off_of_quality(quality)
        step_index = step_index_of_trade_off(trade_off, values.shape[1])
        field = field_of(initialization)

        def model_of(variant: int, step_index: int = step_index) -> LatentModel:
            return LatentModel.of(initialization, device, step_index, variant)

        variant = best_variant(model_of, list(field.candidates(values, step_index)), values, grid, trade_off)
        coder = coder_class(initialization)(initialization, grid, step_index, variant, device)
        for steps in LATENT_STEPS:
            bits, psnr = _coded(coder, values, AdaptationPlan(trade_off, steps))
            rows.append([quality, steps, round(bits, 4), round(psnr, 2)])
    at_40 = next(row for row in rows if row[:2] == [40, LATENT_STEPS[-1]])
    return Evaluation(
        title=f"{count} held-out patches: means of the coded bits per sample and of PSNR in dB",
        summary=f"{at_40[3]:.2f} dB at {at_40[2]:.3f} bits",
        columns=["quality", "steps", "bits", "PSNR"],
        rows=rows,
    )


def _coded(coder: LatentCoder, values: Tensor, plan: AdaptationPlan) -> tuple[float, float]:
    """Return bits per sample and mean PSNR of patches that are coded and decoded, as many at once as a chunk takes."""
    bits = psnr = 0.0
    for part in values.split(max(1, MAX_CHUNK_LATENTS // coder.size)):
        chunk, _ = coder.encode(part, plan)
        bits += 8 * len(chunk) / math.prod(coder.grid.shape) / len(values)
        positions = [np.arange(size) for size in coder.grid.shape]
        shown = coder.values_at(coder.symbols(chunk, len(part)), iter([positions] * len(part)))
        for values_of_patch, patch in zip(shown, part, strict=True):
            psnr -= 10 * math.log10(max(float((values_of_patch - patch).square().mean()), 1e-12)) / len(values)
    return bits, psnr


def _of_weights(initialization: Initialization, held_out: PatchSampler, device: torch.device) -> Evaluation:
    context_sets = held_out.batch(0, WEIGHT_PATCHES)
    model = WeightModel.of(initialization)
    theta_0 = model.field.initialize(torch.Generator().manual_seed(1))
    trials = [
        replace(
            model,
            theta_0=theta_0,
            log_step_sizes={SHARED: torch.tensor([step_size]).log()},
            adaptation=replace(model.adaptation, score="full"),
        )
        for step_size in RANDOM_STEP_SIZES
    ]
    rows = []
    for steps in (model.adaptation.steps, 4 * model.adaptation.steps):
        random = max(_psnr(trial, context_sets, steps, device) for trial in trials)
        rows.append([steps, _psnr(model, context_sets, steps, device), random])
    return Evaluation(
        title=f"{WEIGHT_PATCHES} held-out patches: mean PSNR in dB, beside the same field from a random initialization "
        "at its best step size",
        summary=" / ".join(f"{psnr:.2f} dB after {steps}" for steps, psnr, _ in rows),
        columns=["steps", "this initialization", "random initialization"],
        rows=rows,
    )


def _psnr(model: WeightModel, context_sets: PatchContextSets, steps: int, device: torch.device) -> float:
    deltas = adapt_patches(context_sets, model, device, steps=steps)
    with torch.no_grad():
        parameters = model.parameters(deltas, device)
        losses = signal_losses(model.field, parameters, context_sets.context_set(device)).cpu().numpy()
    errors = losses * context_sets.normalization.scales**2
    return round(float(np.mean(-10 * np.log10(np.nan_to_num(errors, nan=1.0).clip(1e-12, 1.0)))), 2)
