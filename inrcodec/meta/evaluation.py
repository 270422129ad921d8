"""What an initialization brings on held-out patches; its model card shows it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrcodec.clip_coder import ClipCoder
from inrcodec.coding.quantization import unflatten
from inrcodec.latent_coders import Adaptation, pyramid_on
from inrcodec.meta.adaptation import SHARED, signal_losses
from inrcodec.meta.data import PatchContexts, PatchSampler
from inrcodec.meta.initialization import Initialization
from inrcodec.meta.latent_objective import step_of_trade_off
from inrcodec.meta.pyramid_adaptation import adapt_latents, best_variant
from inrcodec.models import LatentClip, LatentField
from inrcodec.models.latent import Grid
from inrcodec.options import EncodeOptions, trade_off_of_quality
from inrcodec.weight_fields import adapt_patches

WEIGHT_PATCHES = 128
LATENT_PATCHES = 24
CLIP_PATCHES = 6
"""Held-out patches that fields of each kind are measured on."""

QUALITIES = (20, 40, 60)

RANDOM_STEP_SIZES = (1e-3, 1e-2, 1e-1, 1.0)
"""Inner step sizes tried for the random initialization, so that it is compared at its best."""


def evaluate(initialization: Initialization, held_out: PatchSampler, device: torch.device) -> dict[str, Any]:
    """Means over held-out patches, values in [0, 1], as plain JSON values.

    Of latent fields: {quality: {adaptation steps: {"bits" per sample, "psnr" in dB}}}. Of others: {"initialization" or
    "random": {adaptation steps: PSNR in dB}}, where "initialization" has K and 4 K steps with gradient rescaling, and
    "random" is the same field from a random initialization, plain gradient descent at the best of `RANDOM_STEP_SIZES`.
    """
    match initialization.model:
        case LatentClip():
            return _of_clips(initialization, held_out, device)
        case LatentField():
            return _of_latents(initialization, held_out, device)
    return _of_weights(initialization, held_out, device)


def _of_latents(
    initialization: Initialization, held_out: PatchSampler, device: torch.device
) -> dict[str, dict[str, dict[str, float]]]:
    """Bits are the entropy model's."""
    values, grid = _patches(held_out, LATENT_PATCHES, device)
    networks = pyramid_on(initialization, device)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for quality in QUALITIES:
        trade_off = trade_off_of_quality(quality)
        step = torch.full((len(values),), float(step_of_trade_off(trade_off, values.shape[1])), device=device)
        results[str(quality)] = {}
        variant = best_variant(networks, values, grid, step, torch.full_like(step, trade_off))
        pyramid = replace(networks, field=networks.field.variant(variant))
        for steps in (0, 1, 4):
            symbols = adapt_latents(pyramid, values, grid, step, steps=steps)
            with torch.no_grad():
                error = (pyramid.values(symbols, grid, step) - values).square().flatten(1).mean(1)
                bits = pyramid.bits(symbols, grid, step, [level.abs() for level in symbols]) / values[0, 0].numel()
            psnr = float((-10 * torch.log10(error.clamp_min(1e-12))).mean())
            results[str(quality)][str(steps)] = {"bits": round(float(bits.mean()), 4), "psnr": round(psnr, 2)}
    return results


def _of_clips(
    initialization: Initialization, held_out: PatchSampler, device: torch.device
) -> dict[str, dict[str, dict[str, float]]]:
    """Every clip is coded and decoded; bits are those of the chunk, with its motion."""
    values, grid = _patches(held_out, CLIP_PATCHES, device)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for quality in QUALITIES:
        trade_off = trade_off_of_quality(quality)
        coder = ClipCoder(initialization, grid, step_of_trade_off(trade_off, values.shape[1]), 0, device)
        results[str(quality)] = {}
        for steps in (0, 2):
            bits, psnr = 0.0, 0.0
            for clip in values.split(1):
                chunk = coder.encode(clip, Adaptation(trade_off, steps))
                symbols = [torch.from_numpy(level).float().to(device) for level in coder.symbols(chunk, 1)]
                with torch.no_grad():
                    shown = coder.values_at(symbols, [np.arange(size) for size in grid.shape])
                bits += 8 * len(chunk) / math.prod(grid.shape) / len(values)
                psnr -= 10 * math.log10(max(float((shown - clip).square().mean()), 1e-12)) / len(values)
            results[str(quality)][str(steps)] = {"bits": round(bits, 4), "psnr": round(psnr, 2)}
    return results


def _patches(held_out: PatchSampler, count: int, device: torch.device) -> tuple[Tensor, Grid]:
    """Patches [B, C, *grid.shape] and their grid."""
    shape = held_out.config.shape
    values = held_out.batch(0, count).context(device).values.transpose(1, 2).unflatten(2, shape)
    return values, Grid(shape, (False,) * len(shape))


def _of_weights(
    initialization: Initialization, held_out: PatchSampler, device: torch.device
) -> dict[str, dict[str, float]]:
    contexts = held_out.batch(0, WEIGHT_PATCHES)
    theta_0 = initialization.model.initialize(torch.Generator().manual_seed(1))
    results: dict[str, dict[str, float]] = {"initialization": {}, "random": {}}
    for steps in (initialization.adaptation.steps, 4 * initialization.adaptation.steps):
        results["initialization"][str(steps)] = _psnr(initialization, contexts, steps, device)
        trials = [
            replace(
                initialization,
                theta_0=theta_0,
                log_step_sizes={SHARED: torch.tensor([step_size]).log()},
                adaptation=replace(initialization.adaptation, score="full"),
            )
            for step_size in RANDOM_STEP_SIZES
        ]
        results["random"][str(steps)] = max(_psnr(trial, contexts, steps, device) for trial in trials)
    return results


def _psnr(initialization: Initialization, contexts: PatchContexts, steps: int, device: torch.device) -> float:
    deltas = adapt_patches(contexts, initialization, EncodeOptions(steps=steps, device=str(device)), device)
    with torch.no_grad():
        parameters = unflatten(deltas, initialization, device)
        losses = signal_losses(initialization.model, parameters, contexts.context(device)).cpu().numpy()
    errors = losses * contexts.normalization.scales**2
    return round(float(np.mean(-10 * np.log10(np.nan_to_num(errors, nan=1.0).clip(1e-12, 1.0)))), 2)
