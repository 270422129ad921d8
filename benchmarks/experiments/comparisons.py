"""Experiments that train variants and compare what they reach on held-out patches."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import report

from experiments.curves import means
from experiments.laboratory import Laboratory
from experiments.perception import Distance
from experiments.result import Panel, Result, Row
from experiments.tables import PSNR, attempt, interpolated, table_of, trained
from experiments.variants import against_learnit, learnit, with_adaptation, without_bootstrap
from inrcodec.errors import UsageError
from inrcodec.meta.config import TrainingConfig
from inrcodec.signals import find_files, read
from inrcodec.signals.signal import Signal
from inrcodec.weights.context_set import ContextSet

MOST_FILES = 100
"""Files that are read of a folder with other signals."""

LONGER = 8
"""Times K that first-order methods, which need little memory, are also trained with (GradNCP table 8)."""


def methods(laboratory: Laboratory, lpips: Distance | None = None) -> Result:
    """Compare GradNCP and ECoP with other methods (GradNCP tables 1 to 3 and 8)."""
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
    return table_of(laboratory, variants, {"random initialization": random}, lpips)


def scores(laboratory: Laboratory) -> Result:
    """Compare scores that rank the context set, at one gamma, without bootstrap (GradNCP figure 3c and table 7)."""
    usual = without_bootstrap(laboratory.setting.training)
    names = ["random", "error", "spg", "tpg", "grad-norm"]
    if not laboratory.setting.field.linear_readout:
        names.remove("tpg")  # the square of all points in every inner step
    return table_of(laboratory, {name: with_adaptation(usual, score=name) for name in names})


def gamma(laboratory: Laboratory) -> Result:
    """Compare shares of the context set that are kept, and the memory they take (GradNCP table 5)."""
    usual = laboratory.setting.training
    shares = (0.05, 0.1, 0.25, 0.5, 1.0)
    variants = {f"gamma = {share:g}": with_adaptation(usual, gamma=share) for share in shares}
    return table_of(laboratory, variants, reference=f"gamma = {usual.adaptation.gamma:g}")


def step_sizes(laboratory: Laboratory) -> Result:
    """Make the inner step size twice as large, or learn it (Meta-SGD, MAML++), with and without pruning."""
    usual = laboratory.setting.training
    whole = with_adaptation(usual, gamma=1.0)
    variants: dict[str, TrainingConfig] = {}
    for name, training in (("full context", whole), (f"gamma = {usual.adaptation.gamma:g}", usual)):
        alpha = training.inner_step_size
        variants |= {
            f"{name}, {alpha:g}": training,
            f"{name}, {2 * alpha:g}": replace(training, inner_step_size=2 * alpha),
            f"{name}, learned for each tensor": replace(training, step_sizes="tensor"),
            f"{name}, learned for each tensor and step": replace(training, step_sizes="tensor-step"),
        }
    return table_of(laboratory, variants, reference=f"gamma = {usual.adaptation.gamma:g}, {usual.inner_step_size:g}")


def horizon(laboratory: Laboratory) -> Result:
    """Trade gamma for K where their product, and so the memory, is the same; without bootstrap."""
    usual = without_bootstrap(laboratory.setting.training)
    product = usual.adaptation.steps * usual.adaptation.gamma
    variants = {}
    for share in (1.0, 0.5, 0.25, 0.125):
        steps = max(1, round(product / share))
        variants[f"K = {steps}, gamma = {share:g}"] = with_adaptation(usual, steps=steps, gamma=share)
    return table_of(laboratory, variants, reference=next(iter(variants)))


def bootstrap(laboratory: Laboratory) -> Result:
    """Vary the steps L to the bootstrap target, and what they see (GradNCP tables 6 and 9, figure 5a)."""
    usual = laboratory.setting.training
    variants: dict[str, TrainingConfig] = {}
    for seen in ("random", "pruned"):
        variants[f"L = {usual.bootstrap_steps}, {seen} context"] = replace(usual, bootstrap_context=seen)
    variants |= {f"L = {steps}": replace(usual, bootstrap_steps=steps) for steps in (0, 1, 2, 5, 10)}
    return table_of(laboratory, variants, reference="L = 0")


def myopia(laboratory: Laboratory) -> Result:
    """Measure what adaptation still brings beyond the K of meta-training (GradNCP figure 5b)."""
    usual = laboratory.setting.training
    steps = usual.adaptation.steps
    variants = {"GradNCP without bootstrap": without_bootstrap(usual)} | against_learnit(usual)
    marks = sorted({max(1, steps * factor // 4) for factor in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)})
    learned, rows = trained(laboratory, variants)
    curves = {name: means(laboratory.curve(history[-1], marks)) for name, history in learned.items()}
    rows |= {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    panel = Panel(curves, f"adaptation steps (meta-trained for K = {steps}, Learnit also for fewer)", PSNR, "log")
    return Result(f"{PSNR}, of {laboratory.described}", rows, [panel], trainings=variants)


def clock(laboratory: Laboratory) -> Result:
    """Measure what the same time of training reaches, with constant outer step sizes (GradNCP figure 3b)."""
    usual = replace(laboratory.setting.training, schedule="constant")
    steps = usual.adaptation.steps
    variants = against_learnit(usual)
    learned, rows = trained(laboratory, variants)
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
    """Vary the factor of the full gradient at test time; without bootstrap (GradNCP figures 7 and 11)."""
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
    during: dict[str, dict[float, float]] = {
        "rescaled": {each.step: means(laboratory.curve(each, [steps]))[steps] for each in history},
        "not rescaled": {
            each.step: means(laboratory.curve(each, [steps], rescaling="none"))[steps] for each in history
        },
    }
    panels = [Panel(curves, "adaptation steps", PSNR, "log"), Panel(during, "outer steps", f"{PSNR}, {steps} steps")]
    return Result(f"{PSNR}, of {laboratory.described}", rows, panels, trainings={"all": training})


def target(laboratory: Laboratory) -> Result:
    """Measure how far the bootstrap target is ahead, also at the adaptation's step sizes (GradNCP figure 5c)."""
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
    """Measure how the peak memory of an outer step grows with K; nothing is trained (GradNCP figure 3a)."""
    usual = without_bootstrap(laboratory.setting.training)
    lengths = [max(1, factor * usual.adaptation.steps // 4) for factor in (1, 2, 4, 8)]
    shares = dict.fromkeys((1.0, 0.5, usual.adaptation.gamma))
    rows: dict[str, Row] = {}
    curves: dict[str, dict[float, float]] = {}
    for share in shares:
        row: Row = {}
        for steps in lengths:
            training = with_adaptation(usual, steps=steps, gamma=share)
            row[f"K = {steps}"] = attempt(partial(laboratory.peak_memory, training))
        name = f"gamma = {share:g}"
        rows[name] = row
        curves[name] = {steps: mib for steps, mib in zip(lengths, row.values(), strict=True) if isinstance(mib, float)}
    return Result("peak memory of an outer step, MiB", rows, [Panel(curves, "K", "MiB")])


def domains(laboratory: Laboratory, others: Sequence[Path]) -> Result:
    """Adapt to other kinds of signals, those of --others; fields of videos also to pictures (GradNCP table 10)."""
    if not others:
        raise UsageError("give folders with other kinds of signals with --others")
    context_sets = {"held out": laboratory.held_out}
    for folder in others:
        context_sets[str(folder)] = _context_set_of(laboratory, folder)
    marks, steps = laboratory.setting.measured, laboratory.setting.training.adaptation.steps
    variants = against_learnit(laboratory.setting.training)
    learned, failed = trained(laboratory, variants)
    rows: dict[str, Row] = {"random initialization": {}} | {name: failed.get(name, {}) for name in variants}
    panels = []
    for kind, context_set in context_sets.items():
        curves = {"random initialization": means(laboratory.random_curve(marks, context_set))}
        for name, history in learned.items():
            curves[name] = means(laboratory.curve(history[-1], marks, held_out=context_set))
        panels.append(Panel(curves, f"adaptation steps, {kind}", PSNR, "log"))
        for name, curve in curves.items():
            rows[name][kind] = curve[steps]
    return Result(f"PSNR of patches after {steps} steps, mean, dB", rows, panels, trainings=variants)


def _context_set_of(laboratory: Laboratory, folder: Path) -> ContextSet:
    """Draw patches of a folder's signals; of pictures for a field of videos, if there are no videos."""
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
