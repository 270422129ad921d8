"""Experiments that train variants and compare what they reach on held-out patches."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor

from experiments import perception
from experiments.laboratory import Curve, Laboratory, Learned, means
from experiments.perception import Distance
from experiments.result import Panel, Result, Row
from inrcodec.errors import Diverged, UsageError
from inrcodec.meta.config import TrainingConfig
from inrcodec.settings import AdaptationConfig
from inrcodec.signals import find_files, read
from inrcodec.signals.signal import Signal
from inrcodec.weights.context_set import ContextSet

PSNR = "PSNR, mean, dB"

MOST_FILES = 100
"""Read of a folder with other signals."""

LONGER = 8
"""Times K that first-order methods, which need little memory, are also trained with (GradNCP table 8)."""


def without_bootstrap(training: TrainingConfig) -> TrainingConfig:
    return replace(training, bootstrap_steps=0)


def with_adaptation(training: TrainingConfig, **changes: Any) -> TrainingConfig:
    return replace(training, adaptation=replace(training.adaptation, **changes))


def learnit(training: TrainingConfig, steps: int) -> TrainingConfig:
    """Second-order MAML on the full context (Tancik et al. 2021)."""
    return replace(without_bootstrap(training), adaptation=AdaptationConfig(steps, 1.0, "full"))


def against_learnit(training: TrainingConfig) -> dict[str, TrainingConfig]:
    """GradNCP's settings, last, and those of Learnit with the same memory or the same K."""
    steps, gamma = training.adaptation.steps, training.adaptation.gamma
    return {
        "Learnit, equal memory": learnit(training, max(1, round(steps * gamma))),
        "Learnit, equal K": learnit(training, steps),
        "GradNCP": training,
    }


def methods(laboratory: Laboratory, lpips: Distance | None = None) -> Result:
    """GradNCP, ECoP and what they are compared with (GradNCP tables 1 to 3 and 8)."""
    usual = laboratory.setting.training
    steps, gamma = usual.adaptation.steps, usual.adaptation.gamma
    equal, longer = learnit(usual, steps), learnit(usual, LONGER * steps)
    variants = {
        "FOMAML": replace(equal, method="fomaml"),
        f"FOMAML, {LONGER} K": replace(longer, method="fomaml"),
        "Reptile": replace(equal, method="reptile"),
        f"Reptile, {LONGER} K": replace(longer, method="reptile"),
        "LITE": replace(equal, backward_share=gamma),
        "Learnit, equal memory": learnit(usual, max(1, round(steps * gamma))),
        "Learnit, equal K": equal,
        "random pruning": with_adaptation(without_bootstrap(usual), score="random"),
        "gradient-norm pruning": without_bootstrap(usual),
        "ECoP": with_adaptation(usual, score="error"),
        "GradNCP": usual,
    }
    random = laboratory.random_curve(laboratory.setting.measured)
    return _compared(laboratory, variants, {"random initialization": random}, lpips)


def scores(laboratory: Laboratory) -> Result:
    """Which score ranks the context, at the same gamma and without bootstrap (GradNCP figure 3c and table 7)."""
    usual = without_bootstrap(laboratory.setting.training)
    names = ["random", "error", "spg", "tpg", "grad-norm"]
    if not laboratory.setting.model.linear_readout:
        names.remove("tpg")  # the square of all points in every inner step
    return _compared(laboratory, {name: with_adaptation(usual, score=name) for name in names})


def gamma(laboratory: Laboratory) -> Result:
    """The share of the context that is kept, and the memory it takes (GradNCP table 5)."""
    usual = laboratory.setting.training
    shares = (0.05, 0.1, 0.25, 0.5, 1.0)
    variants = {f"gamma = {share:g}": with_adaptation(usual, gamma=share) for share in shares}
    return _compared(laboratory, variants, reference=f"gamma = {usual.adaptation.gamma:g}")


def step_sizes(laboratory: Laboratory) -> Result:
    """The inner step size, twice as large and learned (Meta-SGD, MAML++), with and without pruning."""
    usual = laboratory.setting.training
    whole = with_adaptation(usual, gamma=1.0)
    variants = {}
    for name, training in (("full context", whole), (f"gamma = {usual.adaptation.gamma:g}", usual)):
        alpha = training.inner_step_size
        variants |= {
            f"{name}, {alpha:g}": training,
            f"{name}, {2 * alpha:g}": replace(training, inner_step_size=2 * alpha),
            f"{name}, learned for each tensor": replace(training, step_sizes="tensor"),
            f"{name}, learned for each tensor and step": replace(training, step_sizes="tensor-step"),
        }
    return _compared(laboratory, variants, reference=f"gamma = {usual.adaptation.gamma:g}, {usual.inner_step_size:g}")


def horizon(laboratory: Laboratory) -> Result:
    """Gamma against K where their product, and so the memory, is the same; without bootstrap."""
    usual = without_bootstrap(laboratory.setting.training)
    product = usual.adaptation.steps * usual.adaptation.gamma
    variants = {}
    for share in (1.0, 0.5, 0.25, 0.125):
        steps = max(1, round(product / share))
        variants[f"K = {steps}, gamma = {share:g}"] = with_adaptation(usual, steps=steps, gamma=share)
    return _compared(laboratory, variants, reference=next(iter(variants)))


def bootstrap(laboratory: Laboratory) -> Result:
    """How many steps L there are to the bootstrap target, and what they see (GradNCP tables 6 and 9, figure 5a)."""
    usual = laboratory.setting.training
    variants: dict[str, TrainingConfig] = {}
    for seen in ("random", "pruned"):
        variants[f"L = {usual.bootstrap_steps}, {seen} context"] = replace(usual, bootstrap_context=seen)
    variants |= {f"L = {steps}": replace(usual, bootstrap_steps=steps) for steps in (0, 1, 2, 5, 10)}
    return _compared(laboratory, variants, reference="L = 0")


def myopia(laboratory: Laboratory) -> Result:
    """What adaptation still brings beyond the K of meta-training (GradNCP figure 5b)."""
    usual = laboratory.setting.training
    steps = usual.adaptation.steps
    variants = {"GradNCP without bootstrap": without_bootstrap(usual)} | against_learnit(usual)
    marks = sorted({max(1, steps * factor // 4) for factor in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)})
    learned, rows = _learned(laboratory, variants)
    curves = {name: means(laboratory.curve(history[-1], marks)) for name, history in learned.items()}
    rows |= {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    panel = Panel(curves, f"adaptation steps (meta-trained for K = {steps}, Learnit also for fewer)", PSNR, "log")
    return Result(f"{PSNR}, of {laboratory.described}", rows, [panel], trainings=variants)


def clock(laboratory: Laboratory) -> Result:
    """What is reached in the same time of training, with constant outer step sizes (GradNCP figure 3b)."""
    usual = replace(laboratory.setting.training, schedule="constant")
    steps = usual.adaptation.steps
    variants = against_learnit(usual)
    learned, rows = _learned(laboratory, variants)
    seconds = laboratory.seconds_per_step({name: variants[name] for name in learned})
    curves: dict[str, dict[float, float]] = {}
    for name, history in learned.items():
        curves[name] = {seconds[name] * each.step: means(laboratory.curve(each, [steps]))[steps] for each in history}
    shared = min((max(curve) for curve in curves.values()), default=0.0)
    at = f"dB after {shared:.0f} s" if shared >= 100 else f"dB after {report.significant(shared)} s"
    rows |= {
        name: {
            "s per outer step": seconds[name],
            at: interpolated(curve, shared),
            "s in all": max(curve),
            "dB at the end": curve[max(curve)],
        }
        for name, curve in curves.items()
    }
    panel = Panel(curves, "seconds of meta-training", f"{PSNR}, after {steps} steps")
    return Result(f"{PSNR}, of {laboratory.described}", rows, [panel], trainings=variants)


def rescaling(laboratory: Laboratory) -> Result:
    """What the full gradient is multiplied by at test time; without bootstrap (GradNCP figures 7 and 11)."""
    training = without_bootstrap(laboratory.setting.training)
    history = laboratory.history("GradNCP without bootstrap", training)
    learned, marks, steps = history[-1], laboratory.setting.measured, training.adaptation.steps
    curves = {
        "full context, exact": means(laboratory.curve(learned, marks)),
        "full context, loss ratio": means(laboratory.curve(learned, marks, rescaling="loss-ratio")),
        "full context, not rescaled": means(laboratory.curve(learned, marks, rescaling="none")),
        "pruned context": means(laboratory.pruned_curve(learned, marks)),
    }
    rows: dict[str, Row] = {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    during = {
        "rescaled": {each.step: means(laboratory.curve(each, [steps]))[steps] for each in history},
        "not rescaled": {
            each.step: means(laboratory.curve(each, [steps], rescaling="none"))[steps] for each in history
        },
    }
    panels = [Panel(curves, "adaptation steps", PSNR, "log"), Panel(during, "outer steps", f"{PSNR}, {steps} steps")]
    return Result(f"{PSNR}, of {laboratory.described}", rows, panels, trainings={"all": training})


def target(laboratory: Laboratory) -> Result:
    """How far the bootstrap target is ahead of theta_K, also at the adaptation's step sizes (GradNCP figure 5c)."""
    usual = laboratory.setting.training
    curves: dict[str, dict[float, float]] = {}
    variants = {}
    for ratio in dict.fromkeys((usual.bootstrap_step_ratio, 1.0)):
        name = f"step ratio {ratio:g}"
        variants[name] = replace(usual, bootstrap_step_ratio=ratio)
        reached = curves[f"{name}, after K steps"] = {}
        aimed = curves[f"{name}, bootstrap target"] = {}
        for learned in laboratory.history(f"GradNCP, {name}", variants[name]):
            reached[learned.step], aimed[learned.step] = laboratory.bootstrapped(learned)
    rows: dict[str, Row] = {
        name: {f"{step:g} outer steps": psnr for step, psnr in curve.items()} for name, curve in curves.items()
    }
    panel = Panel(curves, "outer steps", PSNR)
    return Result(f"{PSNR}, of {laboratory.described}", rows, [panel], trainings=variants)


def memory(laboratory: Laboratory) -> Result:
    """How the peak memory of an outer step grows with K; nothing is trained (GradNCP figure 3a)."""
    usual = without_bootstrap(laboratory.setting.training)
    lengths = [max(1, factor * usual.adaptation.steps // 4) for factor in (1, 2, 4, 8)]
    shares = dict.fromkeys((1.0, 0.5, usual.adaptation.gamma))
    rows: dict[str, Row] = {}
    curves: dict[str, dict[float, float]] = {}
    for share in shares:
        row: Row = {}
        for steps in lengths:
            training = with_adaptation(usual, steps=steps, gamma=share)
            row[f"K = {steps}"] = attempt(lambda training=training: laboratory.peak_memory(training))
        name = f"gamma = {share:g}"
        rows[name] = row
        curves[name] = {steps: mib for steps, mib in zip(lengths, row.values(), strict=True) if isinstance(mib, float)}
    return Result("peak memory of an outer step, MiB", rows, [Panel(curves, "K", "MiB")])


def domains(laboratory: Laboratory, others: Sequence[Path]) -> Result:
    """Adaptation to other kinds of signals, those of --others; of videos also to pictures (GradNCP table 10)."""
    if not others:
        raise UsageError("give folders with other kinds of signals with --others")
    contexts = {"held out": laboratory.held_out}
    for folder in others:
        contexts[str(folder)] = _context_of(laboratory, folder)
    marks, steps = laboratory.setting.measured, laboratory.setting.training.adaptation.steps
    variants = against_learnit(laboratory.setting.training)
    learned, failed = _learned(laboratory, variants)
    rows: dict[str, Row] = {"random initialization": {}} | {name: failed.get(name, {}) for name in variants}
    panels = []
    for kind, context in contexts.items():
        curves = {"random initialization": means(laboratory.random_curve(marks, context))}
        for name, history in learned.items():
            curves[name] = means(laboratory.curve(history[-1], marks, held_out=context))
        panels.append(Panel(curves, f"adaptation steps, {kind}", PSNR, "log"))
        for name, curve in curves.items():
            rows[name][kind] = curve[steps]
    return Result(f"PSNR of patches after {steps} steps, mean, dB", rows, panels, trainings=variants)


def _context_of(laboratory: Laboratory, folder: Path) -> ContextSet:
    """Patches of a folder's signals; of pictures for a field of videos, if there are no videos."""
    modality = laboratory.setting.modality
    pictures = find_files(folder, "image") if modality == "video" else []
    # A folder of pictures counts as a video elsewhere; the folder itself is not meant as one here.
    files = [path for path in find_files(folder, modality) if path != folder]
    if files:
        return laboratory.patches_of(_read(files, modality))
    if not pictures:
        raise UsageError(f"{folder} has no files of {modality}: give other folders with --others")
    return laboratory.stills_of(_read(pictures, "image"))


def _read(files: Sequence[Path], modality: str) -> list[Signal]:
    return [signal for path in files[:MOST_FILES] for signal in read(path, modality) if signal.modality == modality]


def _compared(
    laboratory: Laboratory,
    variants: Mapping[str, TrainingConfig],
    others: Mapping[str, Curve] | None = None,
    lpips: Distance | None = None,
    reference: str | None = None,
) -> Result:
    """All variants after the setting's numbers of steps, with the cost of an outer step; other curves go first.

    A variant that diverges or does not fit into memory has a row that says so.
    reference: what the others' differences are to, the last one without it.
    """
    setting = laboratory.setting
    steps = setting.training.adaptation.steps
    curves: dict[str, Curve] = dict(others or {})
    rows: dict[str, Row] = {name: {} for name in curves}
    learned, failed = _learned(laboratory, variants)
    rows |= failed
    for name, history in learned.items():
        curves[name] = laboratory.curve(history[-1], setting.measured)
        rows[name] = _perceived(laboratory, history[-1], lpips)
        rows[name]["MiB"] = attempt(lambda name=name: laboratory.peak_memory(variants[name]))
    seconds = attempt(lambda: laboratory.seconds_per_step({name: variants[name] for name in learned}))
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


def _learned(
    laboratory: Laboratory, variants: Mapping[str, TrainingConfig]
) -> tuple[dict[str, list[Learned]], dict[str, Row]]:
    """The histories of variants, and rows for those that have none: they diverged or do not fit into memory."""
    learned: dict[str, list[Learned]] = {}
    failed: dict[str, Row] = {}
    for name, training in variants.items():
        history = attempt(lambda name=name, training=training: laboratory.history(name, training))
        if isinstance(history, str):
            failed[name] = {"training": history}
        else:
            learned[name] = history
    return learned, failed


def standard_error(differences: Tensor) -> float | None:
    """Of the mean of [P] differences."""
    return float(differences.std() / math.sqrt(len(differences))) if len(differences) > 1 else None


def attempt(work: Callable[[], Any]) -> Any:
    """What the work gives, or in words why it gives nothing."""
    try:
        return work()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "out of memory"
    except Diverged:
        return "diverged"


def _perceived(laboratory: Laboratory, learned: Learned, lpips: Distance | None) -> Row:
    """SSIM and LPIPS of pictures after the K steps of the setting."""
    steps, shape = laboratory.setting.training.adaptation.steps, laboratory.setting.patches.shape
    if not perception.are_pictures(shape):
        return {}
    pictures, originals = (
        perception.planes(values, shape) for values in (laboratory.shown(learned, steps), laboratory.held_out.values)
    )
    row: Row = {"SSIM": perception.similarity(pictures, originals)}
    if lpips is not None:
        row["LPIPS"] = lpips(pictures, originals)
    return row


def interpolated(curve: Mapping[float, float], at: float) -> float:
    """Between the two points of a curve that are next to it, linearly."""
    before = max((x for x in curve if x <= at), default=min(curve))
    after = min((x for x in curve if x >= at), default=max(curve))
    share = 0.0 if after == before else (at - before) / (after - before)
    return (1 - share) * curve[before] + share * curve[after]
