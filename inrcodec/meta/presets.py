"""Configurations of meta-training: the codec's own, small enough that a delta is worth sending, and the papers'."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from inrcodec.errors import UsageError
from inrcodec.meta.config import TrainingConfig, changed, flag
from inrcodec.models import (
    FIELDS,
    Field,
    FourierFeatureNetwork,
    LatentClip,
    LatentField,
    LatentPyramid,
    LatentSeries,
    LatentSpectrum,
    NeRV,
    Siren,
)
from inrcodec.patches import PatchConfig
from inrcodec.registry import check_modality
from inrcodec.settings import AdaptationConfig

Scale = Literal["codec", "paper"]


@dataclass(frozen=True)
class Preset:
    """The settings of a meta-training run, all but its data.

    crop: shape of the patches that are learned from, where those of the codec are larger.
    hidden: width of the entropy model of a latent field.
    smaller: whether signals smaller than a training patch are learned from, too.
    """

    modality: str
    field: Field
    patches: PatchConfig
    training: TrainingConfig
    crop: tuple[int, ...] | None = None
    hidden: int = 32
    smaller: bool = False

    @property
    def training_patches(self) -> PatchConfig:
        """The patches that are learned from."""
        if self.crop is None:
            return self.patches
        return replace(self.patches, shape=self.crop, overlap=(0,) * len(self.crop))


CODEC_PATCHES = {
    "image": PatchConfig((32, 32), (2, 2)),
    "video": PatchConfig((8, 24, 24), (1, 2, 2)),
    "audio": PatchConfig((256,), (16,), extent=2.0),
    "climate": PatchConfig((32, 32), (2, 2), sphere=True),
}

PAPER_PATCHES = {
    "image": PatchConfig((178, 178), (0, 0), normalize=False),
    "video": PatchConfig((16, 128, 128), (0, 0, 0), normalize=False),
    "audio": PatchConfig((16_000,), (0,), extent=50.0, normalize=False),
    "climate": PatchConfig((181, 360), (0, 0), normalize=False, sphere=True),
}

LATENT_PATCHES = {
    "image": PatchConfig((768, 768), (16, 16), normalize=False),
    "video": PatchConfig((32, 384, 384), (0, 16, 16), normalize=False),
    "audio": PatchConfig((1 << 16,), (256,), normalize=False),
    "climate": PatchConfig((32, 1024, 1536), (0, 16, 16), normalize=False),
}

LATENT_CROPS = {"image": (128, 128), "video": (9, 160, 160), "audio": (1 << 14,), "climate": (33, 64, 96)}

LATENT_FIELDS: dict[str, LatentField] = {
    "image": LatentPyramid(2, 3, (6, 6), divided=2),
    "video": LatentClip(3, 3, (6, 6)),
    "audio": LatentSpectrum(1, 1, (4, 6)),
    "climate": LatentSeries(3, 1, (6, 6), divided=2),
}

LATENT_QUANTIZATION = {"image": (-56, -4), "video": (-56, -4), "audio": (-96, -32), "climate": (-88, -20)}

OUTPUTS = {"image": 3, "video": 3, "audio": 1, "climate": 1}

CODEC_WIDTH = {"image": 16, "video": 20, "audio": 16, "climate": 16}


def preset(modality: str, field: str = "siren", scale: Scale = "codec") -> Preset:
    """Return the configuration for a modality and field.

    scale: "codec" for networks whose delta is a sensible file; "paper" for GradNCP's (appendix A.2).
    Raises: UsageError if the field does not exist for the modality.
    """
    check_modality(modality)
    if field in FIELDS and FIELDS[field].family == "latents":
        return _latent(modality, field)
    patches = (CODEC_PATCHES if scale == "codec" else PAPER_PATCHES)[modality]
    inputs, outputs = patches.dimensions, OUTPUTS[modality]
    if field == "nerv" and modality != "video":
        raise UsageError(f"the field 'nerv' is for video, not for {modality}: choose siren or ffn")
    if scale == "codec":
        return Preset(modality, _codec_field(modality, field, inputs, outputs), patches, _codec_training(field))
    return Preset(modality, _paper_field(modality, field, inputs, outputs), patches, _paper_training(modality, field))


def _latent(modality: str, field: str) -> Preset:
    if field != LATENT_FIELDS[modality].name:
        raise UsageError(f"the latent field for {modality} is not {field!r}: choose {LATENT_FIELDS[modality].name}")
    return Preset(
        modality=modality,
        field=LATENT_FIELDS[modality],
        patches=LATENT_PATCHES[modality],
        training=TrainingConfig(
            adaptation=AdaptationConfig.unpruned(steps=1),
            bootstrap_steps=0,
            bootstrap_weight=1.0,  # the distance is in quantization steps
            outer_step_size=3e-3,
            schedule="cosine",
            clip=0.5,
            batch={"climate": 12, "video": 4}.get(modality, 6),
            outer_steps=12_000,
            quantization=LATENT_QUANTIZATION[modality],
        ),
        crop=LATENT_CROPS[modality],
        smaller=modality == "climate",
    )


def _codec_field(modality: str, field: str, inputs: int, outputs: int) -> Field:
    width = CODEC_WIDTH[modality]
    match field:
        case "siren":
            return Siren(inputs, outputs, width=width, depth=4)
        case "ffn":
            return FourierFeatureNetwork(inputs, outputs, width=width, depth=4, frequencies=width, scale=2.0)
        case "nerv":
            return NeRV(inputs, outputs, octaves=3, stem=16, base=(4, 4), channels=(12, 8, 8, 8))
    raise _unknown(field)


def _unknown(field: str) -> UsageError:
    """Return what to raise for a field that has no presets."""
    return UsageError(f"no field is called {field!r}: choose from {', '.join(FIELDS)}")


def _codec_training(field: str) -> TrainingConfig:
    return TrainingConfig(
        adaptation=AdaptationConfig(steps=8, gamma=0.25),
        inner_step_size=1e-1 if field == "nerv" else 1e-2,
        step_sizes="tensor-step",
        bootstrap_weight=0.05,
        bootstrap_step_ratio=1.0,
        outer_step_size=3e-4,
        step_size_rate=5e-3,
        schedule="cosine",
        batch=8,
        outer_steps=8_000,
    )


def _paper_field(modality: str, field: str, inputs: int, outputs: int) -> Field:
    depth = 7 if modality == "video" else 5
    match field:
        case "siren":
            return Siren(inputs, outputs, depth=depth, w0=50.0 if modality == "climate" else 30.0)
        case "ffn":
            return FourierFeatureNetwork(inputs, outputs, depth=depth)
        case "nerv":  # four blocks for 128x128 frames
            return NeRV(inputs, outputs, octaves=8, stem=256, base=(8, 8), channels=(96, 96, 96, 96, 96))
    raise _unknown(field)


def _paper_training(modality: str, field: str) -> TrainingConfig:
    if field == "nerv":
        return TrainingConfig(
            adaptation=AdaptationConfig(steps=40, gamma=0.5), inner_step_size=1e-1, outer_step_size=1e-4
        )
    gamma = 0.5 if modality in ("audio", "climate") else 0.25
    return TrainingConfig(
        # Learnit's K = 4 made longer by 1 / gamma, which takes the same memory.
        adaptation=AdaptationConfig(steps=round(4 / gamma), gamma=gamma),
        outer_step_size=3e-6 if modality == "audio" else 1e-5,
    )


_NOT_OF_LATENTS = {
    "gamma",
    "score",
    "inner_step_size",
    "bootstrap_step_ratio",
    "bootstrap_context",
    "method",
    "backward_share",
}
_NOT_OF_REPTILE = {
    "bootstrap_steps",
    "bootstrap_weight",
    "bootstrap_step_ratio",
    "bootstrap_context",
    "step_sizes",
    "step_size_rate",
}
_OF_SECOND_ORDER = {"inner_steps", "step_sizes", "step_size_rate", "bootstrap_steps", "bootstrap_weight"}
_THROUGH_ADAPTATION = {"inner_steps": 8, "step_sizes": "tensor-step"}
"""Settings of latents that are learned through their adaptation, where no others are given."""


def configured(
    modality: str,
    field: str,
    scale: str,
    changes: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
    patch: str | None = None,
) -> Preset:
    """Return a preset with some settings changed.

    changes: by the names of the options in `inrcodec.meta.config`. sizes: of the field's configuration. patch: as
    "32x32". Raises: UsageError if one is out of its range, or would change nothing.
    """
    if scale not in get_args(Scale):
        raise UsageError(f"--preset is {scale!r}, give one of {', '.join(get_args(Scale))}")
    chosen = preset(modality, field, "paper" if scale == "paper" else "codec")
    sizes = dict(sizes or {})
    missing = sorted(sizes.keys() - {each.name for each in fields(chosen.field)})
    if missing:
        raise UsageError(f"the field {field!r} has no {flag(missing[0])}: leave it out")
    _check_used(chosen, changes)
    if chosen.field.family == "latents" and changes.get("second_order"):
        changes = _THROUGH_ADAPTATION | dict(changes)
    training = changed(chosen.training, changes)
    return replace(
        chosen,
        field=replace(chosen.field, **sizes),
        patches=_resized(chosen.patches, patch) if chosen.crop is None else chosen.patches,
        crop=None if chosen.crop is None else _resized(chosen.training_patches, patch).shape,
        training=training,
    )


def _check_used(chosen: Preset, changes: Mapping[str, Any]) -> None:
    """Raises: UsageError for an option that would change nothing."""
    field = chosen.field
    if field.family == "weights":
        if "second_order" in changes:
            raise UsageError("--second-order is for latent fields: others are always learned through their adaptation")
        method = changes.get("method", chosen.training.method)
        unused = (_NOT_OF_REPTILE if method == "reptile" else set()) & changes.keys()
        if unused:
            raise UsageError(f"reptile has no bootstrap and learns no step sizes: leave out {flag(min(unused))}")
        if method != "second-order" and "backward_share" in changes:
            raise UsageError(f"--backward-share is of the second-order gradient, which {method} has not: leave it out")
        return
    for name in sorted(_NOT_OF_LATENTS & changes.keys()):
        raise UsageError(f"the field {field.name!r} has no {flag(name)}: leave it out")
    if not changes.get("second_order", chosen.training.second_order):
        for name in sorted(_OF_SECOND_ORDER & changes.keys()):
            raise UsageError(f"latents learn nothing from {flag(name)} without --second-order: give a share")


def _resized(patches: PatchConfig, text: str | None) -> PatchConfig:
    """Return patches of a size as "32x32". Raises: UsageError if it is none."""
    if text is None:
        return patches
    parts = text.lower().split("x")
    axes, smallest = len(patches.shape), max(patches.overlap) + 1
    if len(parts) != axes or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        example = "x".join(map(str, patches.shape))
        raise UsageError(f"--patch is {text!r}, give {axes} numbers of samples as {example}")
    shape = tuple(map(int, parts))
    if min(shape) < smallest:
        raise UsageError(f"--patch is {text!r}, give at least {smallest} samples along each axis")
    return replace(patches, shape=shape)
