"""Tables of trained variants: what they reach, what they cost, and which of them failed."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import report
import similarity
import torch
from torch import Tensor

from experiments import perception
from experiments.curves import Curve, means
from experiments.laboratory import Laboratory
from experiments.learned import Learned
from experiments.perception import Distance
from experiments.result import Panel, Result, Row
from inrcodec.errors import Diverged
from inrcodec.meta.config import TrainingConfig

PSNR = "PSNR, mean, dB"


def table_of(
    laboratory: Laboratory,
    variants: Mapping[str, TrainingConfig],
    others: Mapping[str, Curve] | None = None,
    lpips: Distance | None = None,
    reference: str | None = None,
) -> Result:
    """Compare variants after the setting's numbers of steps, with the cost of an outer step; other curves go first.

    A variant that diverges or does not fit into memory has a row that says so.
    reference: what the others' differences are to, the last one without it.
    """
    setting = laboratory.setting
    steps = setting.training.adaptation.steps
    curves: dict[str, Curve] = dict(others or {})
    rows: dict[str, Row] = {name: {} for name in curves}
    learned, failed = trained(laboratory, variants)
    rows |= failed
    for name, history in learned.items():
        curves[name] = laboratory.curve(history[-1], setting.measured)
        rows[name] = _perceived(laboratory, history[-1], lpips)
        rows[name]["MiB"] = attempt(partial(laboratory.peak_memory, variants[name]))
    seconds = attempt(partial(laboratory.seconds_per_step, {name: variants[name] for name in learned}))
    if isinstance(seconds, str):
        report.say(f"no seconds of an outer step: {seconds}")
        seconds = {}
    reference = reference or list(variants)[-1]
    for name, curve in curves.items():
        row: Row = {f"{mark} steps": psnr for mark, psnr in means(curve).items()}
        if name != reference and reference in curves:
            row["±"] = standard_error(curve[steps] - curves[reference][steps])
        rows[name] = row | rows[name] | ({"s per outer step": seconds[name]} if name in seconds else {})
    panels = [Panel({name: means(curve) for name, curve in curves.items()}, "adaptation steps", PSNR, "log")]
    note = f"±: standard error over patches of the difference to {reference} after {steps} steps"
    notes = [note] if reference in curves else []
    rows = {name: rows[name] for name in (*(others or {}), *variants)}
    return Result(f"{PSNR}, of {laboratory.described}", rows, panels if curves else [], notes, variants)


def trained(
    laboratory: Laboratory, variants: Mapping[str, TrainingConfig]
) -> tuple[dict[str, list[Learned]], dict[str, Row]]:
    """Return the histories of variants, and rows for those that diverged or do not fit into memory."""
    learned: dict[str, list[Learned]] = {}
    failed: dict[str, Row] = {}
    for name, training in variants.items():
        history = attempt(partial(laboratory.history, name, training))
        if isinstance(history, str):
            failed[name] = {"training": history}
        else:
            learned[name] = history
    return learned, failed


def standard_error(differences: Tensor) -> float | None:
    """Return the standard error of the mean of [P] differences; None of a single one."""
    return float(differences.std() / math.sqrt(len(differences))) if len(differences) > 1 else None


def attempt(work: Callable[[], Any]) -> Any:
    """Return what the work gives, or in words why it gives nothing."""
    try:
        return work()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "out of memory"
    except Diverged:
        return "diverged"


def _perceived(laboratory: Laboratory, learned: Learned, lpips: Distance | None) -> Row:
    """Measure SSIM and LPIPS of pictures after the K steps of the setting."""
    steps, shape = laboratory.setting.training.adaptation.steps, laboratory.setting.patches.shape
    if not similarity.fits(shape):
        return {}
    pictures, originals = (
        perception.planes(values, shape) for values in (laboratory.shown(learned, steps), laboratory.held_out.values)
    )
    row: Row = {"SSIM": perception.mean_ssim(pictures, originals)}
    if lpips is not None:
        row["LPIPS"] = lpips(pictures, originals)
    return row


def interpolated(curve: Mapping[float, float], at: float) -> float:
    """Interpolate linearly between the two points of a curve that are next to it."""
    before = max((x for x in curve if x <= at), default=min(curve))
    after = min((x for x in curve if x >= at), default=max(curve))
    share = 0.0 if after == before else (at - before) / (after - before)
    return (1 - share) * curve[before] + share * curve[after]
