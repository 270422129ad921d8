"""What each part of ECoP brings to latent fields: the objective after some adaptation steps, held out.

python benchmarks/ablation.py --data FOLDER --start image-pyramid --outer-steps 300

Every variant is trained for the same number of outer steps from the same start on the same patches: first order, which
gets the step sizes that learning starts from; learned step sizes with networks that stay; second order; second order on
a pruned context; with a bootstrap target; and the pruned one without rescaling at test time. A table goes to standard
output: J = D / lambda + R relative to the start's after its first decisions, in percent, mean of logarithms over
held-out patches and quantization steps. Below zero is better. `--init` compares finished initializations instead.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from experiments.memory import peak_memory
from torch import Tensor

from inrcodec.cli.console import ProgressLine
from inrcodec.errors import InrcodecError
from inrcodec.initialization import Initialization, LatentPrior
from inrcodec.latents.adaptation import first_state, next_state
from inrcodec.latents.model import LatentModel
from inrcodec.latents.objective import Task, objective
from inrcodec.latents.step_sizes import initial_latent_step_sizes
from inrcodec.meta.checkpoint import checkpoint_of
from inrcodec.meta.data import PatchSampler, TrainingData, load_data
from inrcodec.meta.presets import LATENT_CROPS, Preset, preset
from inrcodec.meta.run import TrainingProgress, meta_train
from inrcodec.meta.trainers import trainer_of
from inrcodec.models.latent import Grid, LatentField
from inrcodec.registry import named_initialization
from inrcodec.settings import AdaptationConfig, Rescaling

MARKS = (0, 1, 2, 8, 16, 32, 100)
"""Adaptation steps after which the objective is reported."""

FULL = AdaptationConfig(steps=3, gamma=1.0, score="full")
VARIANTS: dict[str, dict[str, Any]] = {
    "first order": {"adaptation": replace(FULL, steps=1)},
    "learned step sizes": {"outer_step_size": 1e-12, "step_sizes": "tensor-step", "second_order": 1.0},
    "second order": {"step_sizes": "tensor-step", "second_order": 1.0},
    "pruning": {"step_sizes": "tensor-step", "second_order": 1.0},
    "bootstrap": {"step_sizes": "tensor-step", "second_order": 1.0, "bootstrap_steps": 3},
}
"""Training settings beside those of all variants."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Patches [B, C, *grid.shape] in [0, 1] and the index of the quantization step of each, [B]."""

    values: Tensor
    grid: Grid
    step: Tensor


@dataclass(frozen=True, eq=False)
class Compared:
    """What a row of the table is about.

    rescaling: at test time. memory: peak of an outer step in MiB.
    """

    initialization: Initialization
    rescaling: Rescaling = "exact"
    memory: float | None = None


def objectives(
    initialization: Initialization, held_out: HeldOut, marks: Sequence[int], rescaling: Rescaling = "exact"
) -> dict[int, Tensor]:
    """Bits of distortion and rate of every patch, [B], of the best latents by each number of steps."""
    pyramid = LatentModel.of(initialization, held_out.values.device)
    task = Task.of(pyramid, held_out.values, held_out.grid, held_out.step)
    state = first_state(pyramid, task)
    best = torch.full_like(held_out.step, torch.inf)
    reached = {}
    for index in range(max(marks) + 1):
        best = torch.minimum(best, objective(pyramid, task, state.symbols))
        if index in marks:
            reached[index] = best
        if index < max(marks):
            state, _ = next_state(pyramid, task, state, index, rescaling=rescaling)
    return reached


def settings_of(arguments: argparse.Namespace, start: Initialization, variant: str) -> Preset:
    """What a variant is trained with."""
    assert isinstance(start.model, LatentField) and isinstance(start.prior, LatentPrior)
    usual = preset(start.modality, start.model.name)
    common = {
        "adaptation": replace(FULL, steps=arguments.steps),
        "outer_steps": arguments.outer_steps,
        "outer_step_size": arguments.outer_step_size,
        "step_size_rate": arguments.step_size_rate,
        "bootstrap_weight": arguments.bootstrap_weight,
        "batch": arguments.batch,
    }
    if variant == "pruning":
        common["adaptation"] = AdaptationConfig(arguments.steps, arguments.gamma, "error")
    return replace(
        usual,
        model=start.model,
        patches=start.patches,
        training=replace(usual.training, **(common | VARIANTS[variant])),
        crop=(arguments.crop,) * len(LATENT_CROPS[start.modality]) if arguments.crop else usual.crop,
        hidden=start.prior.contexts.hidden,
    )


def trained(
    arguments: argparse.Namespace,
    start: Initialization,
    data: TrainingData,
    device: torch.device,
    progress: ProgressLine,
) -> dict[str, Compared]:
    """The start and every variant."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    model, prior = start.model, start.prior
    assert isinstance(model, LatentField) and isinstance(prior, LatentPrior)
    schedule = initial_latent_step_sizes("tensor-step", steps=10, depth=model.order.depth)
    results = {"start": Compared(start)}
    for variant in arguments.variants:
        target = arguments.output / f"ablation_{variant.replace(' ', '_')}.safetensors"
        settings = settings_of(arguments, start, variant)
        resume = arguments.resume and checkpoint_of(target).exists()

        def show(done: TrainingProgress, variant: str = variant) -> None:
            progress.update(variant, done.step, done.steps, f"{done.psnr:.2f} dB")

        initialization = meta_train(
            start.modality,
            settings,
            data,
            target,
            source=str(arguments.data),
            start=start,
            resume=resume,
            device=device,
            on_progress=show,
        )
        if variant == "first order":
            initialization = replace(initialization, log_step_sizes=schedule)
        results[variant] = Compared(initialization, memory=step_memory(start, settings, data, device))
        if variant == "pruning":
            results["pruning, not rescaled"] = Compared(initialization, "none")
    return results


def step_memory(start: Initialization, settings: Preset, data: TrainingData, device: torch.device) -> float:
    """MiB that an outer step takes."""
    trainer = trainer_of(start.modality, settings, start, device)
    channels = settings.model.out_features
    sampler = PatchSampler(data.training, settings.training_patches, channels, settings.training.seed)
    batch = sampler.batch(0, settings.training.batch).context_set(device)
    trainer.train_step(batch)  # the first one makes Adam's moments
    trainer.step = settings.training.outer_steps - 1  # in the last ones latents are adapted, which takes most
    return peak_memory(lambda: trainer.train_step(batch), device)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--data", type=Path, required=True, help="folder of signals; every tenth is held out")
    result.add_argument("--validation", type=Path, help="folder of signals to measure on instead")
    result.add_argument("--start", default="image-pyramid", help="initialization of a latent field")
    result.add_argument("--init", nargs="*", default=[], help="compare these with the start; nothing is trained")
    result.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    result.add_argument("--resume", action="store_true", help="go on where a run of the same settings was cut")
    result.add_argument("--outer-steps", type=int, default=300)
    result.add_argument("--steps", type=int, default=3, help="K")
    result.add_argument("--gamma", type=float, default=0.25, help="of the pruned variant")
    result.add_argument("--bootstrap-weight", type=float, default=1.0)
    result.add_argument("--outer-step-size", type=float, default=3e-4)
    result.add_argument("--step-size-rate", type=float, default=3e-2)
    result.add_argument("--batch", type=int, default=4)
    result.add_argument("--crop", type=int, help="samples of a training patch along each axis")
    result.add_argument("--patches", type=int, default=24, help="held-out patches")
    result.add_argument("--marks", type=int, nargs="*", default=list(MARKS), help="adaptation steps reported")
    result.add_argument("--device", default="cpu")
    result.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return result


def main() -> None:
    arguments = parser().parse_args()
    device = torch.device(arguments.device)
    start = named_initialization(arguments.start)
    data = load_data(arguments.data, start.modality, arguments.validation)
    settings = settings_of(arguments, start, "first order")
    shape = settings.training_patches.shape
    sampler = PatchSampler(data.held_out, settings.training_patches, start.model.out_features, seed=1)
    values = sampler.batch(0, arguments.patches).context_set(device).values.transpose(1, 2).unflatten(2, shape)
    finest, coarsest = settings.training.quantization
    step = torch.linspace(finest, coarsest, len(values), device=device).round()
    held_out = HeldOut(values, Grid(shape, (False,) * len(shape)), step)
    if arguments.init:
        compared = {name: Compared(named_initialization(name)) for name in [arguments.start, *arguments.init]}
    else:
        with ProgressLine(quiet=False, reports=True) as progress:
            compared = trained(arguments, start, data, device, progress)
    base = objectives(start, held_out, [0])[0]
    report = {}
    print(f"{'log J, %':28}" + "".join(f"{mark:>8}" for mark in arguments.marks) + f"{'MiB':>8}")
    for name, each in compared.items():
        reached = objectives(each.initialization, held_out, arguments.marks, each.rescaling)
        row = {mark: 100 * float((value / base).log().mean()) for mark, value in reached.items()}
        report[name] = {
            "log_objective_percent": row,
            "peak_mib": each.memory,
            "step_sizes": {key: value.exp().tolist() for key, value in each.initialization.log_step_sizes.items()},
        }
        memory = "" if each.memory is None else f"{each.memory:8.0f}"
        print(f"{name:28}" + "".join(f"{value:8.2f}" for value in row.values()) + memory, flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    settings_used = {key: str(value) for key, value in vars(arguments).items()}
    document = {"settings": settings_used, "variants": report}
    (arguments.output / "ablation.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except InrcodecError as error:
        sys.exit(f"error: {error}")
