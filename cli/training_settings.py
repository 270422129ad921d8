"""The settings of `inrcodec meta-train`: what its options may be, and a preset with some of them changed."""

import math
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from inrcodec.errors import UsageError

if TYPE_CHECKING:
    from inrcodec.meta.presets import Preset
    from inrcodec.patches import PatchConfig


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low`, or above it, to `high`."""

    low: float
    high: float = math.inf
    above: bool = False


_POSITIVE = Range(0, above=True)
RANGES = {
    "inner_steps": Range(1),
    "gamma": Range(0, 1, above=True),
    "bootstrap_steps": Range(0),
    "bootstrap_weight": Range(0),
    "bootstrap_step_ratio": _POSITIVE,
    "inner_step_size": _POSITIVE,
    "outer_step_size": _POSITIVE,
    "step_size_rate": _POSITIVE,
    "batch": Range(1),
    "outer_steps": Range(1),
    "second_order": Range(0, 1),
    "backward_share": Range(0, 1, above=True),
    "clip": _POSITIVE,
    "seed": Range(0, 2**63 - 1),
    "width": Range(1),
    "depth": Range(2),
    "threads": Range(1),
}
"""What the options with numbers may be."""


# Option -> what it sets.
_ADAPTATION = {"inner_steps": "steps", "gamma": "gamma", "score": "score"}
_FIELD = {"width": "width", "depth": "depth"}
_TRAINING = {
    "bootstrap_steps": "bootstrap_steps",
    "bootstrap_weight": "bootstrap_weight",
    "bootstrap_step_ratio": "bootstrap_step_ratio",
    "bootstrap_context": "bootstrap_context",
    "method": "method",
    "backward_share": "backward_share",
    "inner_step_size": "inner_step_size",
    "step_sizes": "learned_step_sizes",
    "step_size_rate": "step_size_rate",
    "outer_steps": "outer_steps",
    "outer_step_size": "outer_step_size",
    "schedule": "schedule",
    "batch": "batch",
    "clip": "clip",
    "seed": "seed",
    "second_order": "second_order",
}
_NOT_OF_LATENTS = {"inner_step_size", "bootstrap_step_ratio", "bootstrap_context", "method", "backward_share"}
_NOT_OF_REPTILE = {
    "bootstrap_steps",
    "bootstrap_weight",
    "bootstrap_step_ratio",
    "bootstrap_context",
    "step_sizes",
    "step_size_rate",
}
_OF_SECOND_ORDER = {"gamma", "score", "bootstrap_steps", "bootstrap_weight", "step_size_rate"}
SETTINGS = frozenset({*_ADAPTATION, *_FIELD, *_TRAINING, "patch"})
"""Options that change a preset."""


def configure(modality: str, field: str, scale: str, changes: dict[str, Any]) -> "Preset":
    """A preset with some settings changed.

    changes: by the names of `SETTINGS`; the patch as "32x32".
    Raises: UsageError if one is out of its range, or the field has no such setting.
    """
    from inrcodec.meta.presets import Scale, preset

    _check_choice("preset", scale, get_args(Scale))
    for name in RANGES.keys() & changes.keys():
        check_range(name, changes[name])
    for name, choices in _choices().items():
        if name in changes:
            _check_choice(name, changes[name], choices)
    chosen = preset(modality, field, "paper" if scale == "paper" else "codec")
    missing = _part(_FIELD, changes).keys() - {each.name for each in fields(chosen.model)}
    if missing:
        raise UsageError(f"the field {field!r} has no --{sorted(missing)[0]}: leave it out")
    _check_used(chosen, changes)
    adaptation = replace(chosen.training.adaptation, **_part(_ADAPTATION, changes))
    training = _part(_TRAINING, changes)
    if changes.get("method") == "reptile":
        training |= {"bootstrap_steps": 0, "learned_step_sizes": "none"}
    return replace(
        chosen,
        model=replace(chosen.model, **_part(_FIELD, changes)),
        patches=_patches(chosen.patches, changes.get("patch")) if chosen.crop is None else chosen.patches,
        crop=_patches(chosen.training_patches, changes.get("patch")).shape if chosen.crop is not None else None,
        training=replace(chosen.training, adaptation=adaptation, **training),
    )


def _check_used(chosen: "Preset", changes: dict[str, Any]) -> None:
    """Raises: UsageError for an option that would change nothing."""
    from inrcodec.meta.context import GAINS
    from inrcodec.models import LatentField

    if not isinstance(chosen.model, LatentField):
        if "second_order" in changes:
            raise UsageError("--second-order is for latent fields: others are always learned through their adaptation")
        method = changes.get("method", chosen.training.method)
        unused = (_NOT_OF_REPTILE if method == "reptile" else set()) & changes.keys()
        if unused:
            raise UsageError(f"reptile has no bootstrap and learns no step sizes: leave out {_option(min(unused))}")
        if method != "second-order" and "backward_share" in changes:
            raise UsageError(f"--backward-share is of the second-order gradient, which {method} has not: leave it out")
        return
    if changes.get("score") in GAINS:
        raise UsageError(
            f"--score is {changes['score']!r}, which latents have not: give grad-norm, error, random or full"
        )
    for name in sorted(_NOT_OF_LATENTS & changes.keys()):
        raise UsageError(f"the field {chosen.model.name!r} has no {_option(name)}: leave it out")
    if not changes.get("second_order", chosen.training.second_order):
        for name in sorted(_OF_SECOND_ORDER & changes.keys()):
            raise UsageError(f"latents learn nothing from {_option(name)} without --second-order: give a share")


def check_range(name: str, value: float) -> None:
    """Raises: UsageError if an option of `RANGES` is out of its range."""
    allowed = RANGES[name]
    fits = allowed.low < value if allowed.above else allowed.low <= value
    if not (fits and value <= allowed.high and math.isfinite(value)):
        lower = f"{'above' if allowed.above else 'from'} {allowed.low:g}"
        upper = f" to {allowed.high:g}" if allowed.high < math.inf else ""
        raise UsageError(f"{_option(name)} is {value}, give a number {lower}{upper}")


def _choices() -> dict[str, tuple[str, ...]]:
    from inrcodec.meta.adaptation import StepSizeKind
    from inrcodec.meta.context import ScoreName
    from inrcodec.meta.training import BootstrapContext, Method, TrainingConfig

    schedule = next(each.type for each in fields(TrainingConfig) if each.name == "schedule")
    return {
        "score": get_args(ScoreName),
        "step_sizes": get_args(StepSizeKind),
        "schedule": get_args(schedule),
        "bootstrap_context": get_args(BootstrapContext),
        "method": get_args(Method),
    }


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _part(names: dict[str, str], changes: dict[str, Any]) -> dict[str, Any]:
    return {attribute: changes[option] for option, attribute in names.items() if option in changes}


def _patches(patches: "PatchConfig", text: str | None) -> "PatchConfig":
    return patches if text is None else replace(patches, shape=_parse_patch(text, patches))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{_option(name)} is {value!r}, give one of {', '.join(choices)}")


def _parse_patch(text: str, patches: "PatchConfig") -> tuple[int, ...]:
    sizes = text.lower().split("x")
    axes, smallest = len(patches.shape), max(patches.overlap) + 1
    if len(sizes) != axes or not all(re.fullmatch("[0-9]{1,9}", size) for size in sizes):
        example = "x".join(map(str, patches.shape))
        raise UsageError(f"--patch is {text!r}, give {axes} numbers of samples as {example}")
    shape = tuple(map(int, sizes))
    if min(shape) < smallest:
        raise UsageError(f"--patch is {text!r}, give at least {smallest} samples along each axis")
    return shape
