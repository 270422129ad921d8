"""Experiments that train variants and compare what they reach on held-out patches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments import perception
from experiments.laboratory import Laboratory, Learned
from experiments.result import Panel, Result, Row
from inrcodec.errors import UsageError
from inrcodec.meta.adaptation import AdaptationConfig
from inrcodec.meta.training import TrainingConfig
from inrcodec.signals import find_files, read
from inrcodec.signals.signal import Signal

PSNR = "PSNR of held-out patches, mean, dB"

MOST_FILES = 100
"""Read of a folder of `--others`."""


def without_bootstrap(training: TrainingConfig) -> TrainingConfig:
    return replace(training, bootstrap_steps=0)


def with_adaptation(training: TrainingConfig, **changes: object) -> TrainingConfig:
    return replace(training, adaptation=replace(training.adaptation, **changes))


def learnit(training: TrainingConfig, steps: int) -> TrainingConfig:
    """Second-order MAML on the full context (Tancik et al. 2021)."""
    return replace(without_bootstrap(training), adaptation=AdaptationConfig(steps, 1.0, "full"))


def methods(laboratory: Laboratory) -> Result:
    """GradNCP, ECoP and what they are compared with (GradNCP tables 1 to 3 and 8)."""
    usual = laboratory.setting.training
    steps, gamma = usual.adaptation.steps, usual.adaptation.gamma
    equal = learnit(usual, steps)
    variants = {
        "FOMAML": replace(equal, method="fomaml"),
        "Reptile": replace(equal, method="reptile"),
        "LITE": replace(equal, backward_share=gamma),
        "Learnit, equal memory": learnit(usual, max(1, round(steps * gamma))),
        "Learnit, equal K": equal,
        "random pruning": with_adaptation(without_bootstrap(usual), score="random"),
        "ECoP": with_adaptation(usual, score="error"),
        "GradNCP": usual,
    }
    marks = laboratory.setting.measured
    random = laboratory.random_curve(marks)
    rows: dict[str, Row] = {"random initialization": {f"{mark} steps": random[mark] for mark in marks}}
    return _compared(laboratory, variants, rows, {"random initialization": random})


def scores(laboratory: Laboratory) -> Result:
    """What ranks the context, at the same gamma (GradNCP figure 3c and table 7); no bootstrap."""
    usual = without_bootstrap(laboratory.setting.training)
    names = ("random", "error", "grad-norm", "spg", "tpg")
    return _compared(laboratory, {name: with_adaptation(usual, score=name) for name in names})


def gamma(laboratory: Laboratory) -> Result:
    """The share of the context that is kept, and the memory it takes (GradNCP table 5)."""
    usual = laboratory.setting.training
    shares = (0.05, 0.1, 0.25, 0.5, 1.0)
    return _compared(laboratory, {f"gamma = {share:g}": with_adaptation(usual, gamma=share) for share in shares})


def horizon(laboratory: Laboratory) -> Result:
    """Gamma against K where their product, and so the memory, is the same; no bootstrap."""
    usual = without_bootstrap(laboratory.setting.training)
    product = usual.adaptation.steps * usual.adaptation.gamma
    variants = {
        f"K = {round(product / share)}, gamma = {share:g}": with_adaptation(
            usual, steps=round(product / share), gamma=share
        )
        for share in (1.0, 0.5, 0.25, 0.125)
    }
    return _compared(laboratory, variants)


def bootstrap(laboratory: Laboratory) -> Result:
    """The steps L to the bootstrap target, and what they see (GradNCP tables 6 and 9, figure 5a)."""
    usual = laboratory.setting.training
    variants = {f"L = {steps}": replace(usual, bootstrap_steps=steps) for steps in (0, 1, 2, 5, 10)}
    for seen in ("random", "pruned"):
        variants[f"L = {usual.bootstrap_steps}, {seen} context"] = replace(usual, bootstrap_context=seen)
    return _compared(laboratory, variants)


def myopia(laboratory: Laboratory) -> Result:
    """Adaptation beyond the K of meta-training (GradNCP figure 5b)."""
    usual = laboratory.setting.training
    steps, share = usual.adaptation.steps, usual.adaptation.gamma
    variants = {
        "Learnit, equal memory": learnit(usual, max(1, round(steps * share))),
        "Learnit, equal K": learnit(usual, steps),
        "GradNCP without bootstrap": without_bootstrap(usual),
        "GradNCP": usual,
    }
    marks = [steps * factor // 4 for factor in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)]
    curves = {name: laboratory.curve(laboratory.learn(name, each), marks) for name, each in variants.items()}
    rows: dict[str, Row] = {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    panel = Panel(curves, f"adaptation steps (trained for K = {steps}, Learnit also for fewer)", PSNR, "log")
    return Result(PSNR, rows, [panel])


def clock(laboratory: Laboratory) -> Result:
    """What is reached in the same time of training (GradNCP figure 3b): every variant at several times of its own."""
    usual = laboratory.setting.training
    steps, share = usual.adaptation.steps, usual.adaptation.gamma
    variants = {
        "Learnit, equal memory": learnit(usual, max(1, round(steps * share))),
        "Learnit, equal K": learnit(usual, steps),
        "GradNCP": usual,
    }
    curves: dict[str, dict[float, float]] = {}
    rows: dict[str, Row] = {}
    for name, training in variants.items():
        history = laboratory.history(name, training)
        curves[name] = {learned.seconds: laboratory.curve(learned, [steps])[steps] for learned in history}
    shared = min(max(curve) for curve in curves.values())
    for name, curve in curves.items():
        rows[name] = {
            "s per outer step": max(curve) / laboratory.history(name, variants[name])[-1].step,
            f"dB after {shared:.0f} s": _interpolated(curve, shared),
            "s in all": max(curve),
            "dB at the end": curve[max(curve)],
        }
    return Result(PSNR, rows, [Panel(curves, "seconds of meta-training", f"{PSNR}, {steps} steps")])


def rescaling(laboratory: Laboratory) -> Result:
    """What the full gradient is multiplied by at test time (GradNCP figures 7 and 11); no bootstrap."""
    training = without_bootstrap(laboratory.setting.training)
    history = laboratory.history("GradNCP without bootstrap", training)
    learned, marks = history[-1], laboratory.setting.measured
    curves = {
        "full context, exact": laboratory.curve(learned, marks),
        "full context, loss ratio": laboratory.curve(learned, marks, rescaling="loss-ratio"),
        "full context, not rescaled": laboratory.curve(learned, marks, rescaling="none"),
        "pruned context": laboratory.pruned_curve(learned, marks),
    }
    rows: dict[str, Row] = {name: {f"{mark} steps": curve[mark] for mark in marks} for name, curve in curves.items()}
    steps = training.adaptation.steps
    during = {
        label: {float(each.step): laboratory.curve(each, [steps], rescaling=kind)[steps] for each in history}
        for label, kind in (("exact", "exact"), ("not rescaled", "none"))
    }
    return Result(
        PSNR,
        rows,
        [Panel(curves, "adaptation steps", PSNR, "log"), Panel(during, "outer steps", f"{PSNR}, {steps} steps")],
    )


def domains(laboratory: Laboratory) -> Result:
    """Adaptation to other kinds of signals, those of --others; of videos also to pictures (GradNCP table 10)."""
    if not laboratory.others:
        raise UsageError("give folders with other kinds of signals with --others")
    modality = laboratory.setting.modality
    contexts = {"held out": laboratory.held_out}
    for folder in laboratory.others:
        files = find_files(folder, modality)
        if files or modality != "video":
            contexts[folder.name] = laboratory.patches_of(_read(files, modality))
        else:
            contexts[folder.name] = laboratory.stills_of(_read(find_files(folder, "image"), "image"))
    usual = laboratory.setting.training
    steps, share = usual.adaptation.steps, usual.adaptation.gamma
    variants = {
        "Learnit, equal memory": learnit(usual, max(1, round(steps * share))),
        "Learnit, equal K": learnit(usual, steps),
        "GradNCP": usual,
    }
    rows: dict[str, Row] = {}
    for name, training in variants.items():
        learned = laboratory.learn(name, training)
        rows[name] = {
            kind: laboratory.curve(learned, [steps], held_out=context)[steps] for kind, context in contexts.items()
        }
    return Result(f"PSNR of patches after {steps} steps, mean, dB", rows)


def _read(files: Sequence[Path], modality: str) -> list[Signal]:
    return [signal for path in files[:MOST_FILES] for signal in read(path, modality) if signal.modality == modality]


def memory(laboratory: Laboratory) -> Result:
    """Of an outer step, against K (GradNCP figure 3a); nothing is trained."""
    usual = without_bootstrap(laboratory.setting.training)
    lengths = [factor * usual.adaptation.steps // 4 for factor in (1, 2, 4, 8)]
    shares = dict.fromkeys((1.0, 0.5, usual.adaptation.gamma))
    curves: dict[str, dict[float, float]] = {}
    for share in shares:
        curve = {steps: laboratory.peak_memory(with_adaptation(usual, steps=steps, gamma=share)) for steps in lengths}
        curves[f"gamma = {share:g}"] = {steps: mib for steps, mib in curve.items() if mib is not None}
    rows: dict[str, Row] = {
        name: {f"K = {steps}": curve.get(steps) for steps in lengths} for name, curve in curves.items()
    }
    return Result("peak memory of an outer step, MiB", rows, [Panel(curves, "K", "MiB")])


def _compared(
    laboratory: Laboratory,
    variants: dict[str, TrainingConfig],
    rows: dict[str, Row] | None = None,
    curves: dict[str, dict[int, float]] | None = None,
) -> Result:
    """All variants after the setting's numbers of steps, with the cost of an outer step; more rows go first."""
    marks = laboratory.setting.measured
    rows, curves = dict(rows or {}), dict(curves or {})
    for name, training in variants.items():
        memory = laboratory.peak_memory(training)
        learned = laboratory.learn(name, training)
        curves[name] = laboratory.curve(learned, marks)
        rows[name] = _row(laboratory, learned, curves[name], memory)
    return Result(PSNR, rows, [Panel(curves, "adaptation steps", PSNR, "log")])


def _row(laboratory: Laboratory, learned: Learned, curve: dict[int, float], memory: float | None) -> Row:
    """SSIM and LPIPS of pictures are those after the K steps of the setting."""
    row: Row = {f"{mark} steps": psnr for mark, psnr in curve.items()}
    steps, shape = laboratory.setting.training.adaptation.steps, laboratory.setting.patches.shape
    shown, values = laboratory.shown(learned, steps), laboratory.held_out.values
    pictures, originals = perception.planes(shown, shape), perception.planes(values, shape)
    if pictures is not None and originals is not None:
        row["SSIM"] = perception.similarity(pictures, originals)
        if laboratory.lpips is not None and pictures.shape[-1] == 3:
            row["LPIPS"] = laboratory.lpips(pictures, originals)
    return row | {"MiB": memory, "s per outer step": learned.seconds / learned.step}


def _interpolated(curve: dict[float, float], at: float) -> float:
    before = max((x for x in curve if x <= at), default=min(curve))
    after = min((x for x in curve if x >= at), default=max(curve))
    share = 0.0 if after == before else (at - before) / (after - before)
    return (1 - share) * curve[before] + share * curve[after]
