"""What each part of ECoP brings to latent fields: the objective after some adaptation steps, held out.

python benchmarks/ablation.py --data FOLDER --start image-pyramid --outer-steps 300

Every variant is trained for the same number of outer steps from the same start on the same patches: first order;
learned step sizes with networks that stay; second order; and second order with a bootstrap target. A table goes to
standard output: J = D / lambda + R relative to the start's after its first decisions, in percent, mean of logarithms
over held-out patches, at several quantization steps. Below zero is better. `--init` compares finished initializations
instead.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import report
import sources
import torch
from experiments.memory import peak_memory
from torch import Tensor

from inrcodec.cli.console import ProgressLine
from inrcodec.device import pick_device
from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.latents.adaptation import best_variant, first_state, next_state
from inrcodec.latents.model import LatentModel, field_of, prior_of
from inrcodec.latents.objective import Task, trade_off_of_step_index
from inrcodec.meta.checkpoint import checkpoint_of
from inrcodec.meta.config import changed
from inrcodec.meta.data import PatchSampler, TrainingData, load_data
from inrcodec.meta.presets import LATENT_CROPS, Preset, preset
from inrcodec.meta.run import TrainingProgress, meta_train
from inrcodec.meta.trainers import trainer_of
from inrcodec.models import Grid
from inrcodec.registry import named_initialization

MARKS = (0, 1, 2, 8, 16, 32, 100)
"""Adaptation steps after which the objective is reported."""

SECOND_ORDER: dict[str, Any] = {"step_sizes": "tensor-step", "second_order": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "first order": {"inner_steps": 1},
    "learned step sizes": SECOND_ORDER | {"outer_step_size": 1e-12},
    "second order": SECOND_ORDER,
    "bootstrap": SECOND_ORDER | {"bootstrap_steps": 3},
}
"""Options of meta-training beside those of all variants."""


STEP_INDICES = 6
"""Step indices that are measured at, evenly over the range that was learned."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Patches [B, C, *grid.shape] in [0, 1] that are measured on at one step index, with one variant of the field."""

    values: Tensor
    grid: Grid
    step_index: int
    variant: int


@dataclass(frozen=True, eq=False)
class Compared:
    """A row of the table compares this. memory: peak of an outer step in MiB."""

    initialization: Initialization
    memory: float | None = None


def objectives(initialization: Initialization, held_out: Sequence[HeldOut], marks: Sequence[int]) -> dict[int, Tensor]:
    """Return the bits of distortion and rate of every patch, of the best latents by each number of steps."""
    reached: dict[int, list[Tensor]] = {mark: [] for mark in marks}
    for part in held_out:
        model = LatentModel.of(initialization, part.values.device, part.step_index, part.variant)
        task = Task.of(model, part.values, part.grid)
        state = first_state(model, task)
        best = state.objective
        for index in range(max(marks) + 1):
            best = torch.minimum(best, state.objective)
            if index in reached:
                reached[index].append(best)
            if index < max(marks):
                state = next_state(model, task, state, index)
    return {mark: torch.cat(parts) for mark, parts in reached.items()}


def settings_of(arguments: argparse.Namespace, start: Initialization, variant: str) -> Preset:
    """Return what a variant is trained with. Raises: UsageError if an option is out of its range."""
    usual = preset(start.modality, start.field.name)
    common = {
        "inner_steps": arguments.inner_steps,
        "outer_steps": arguments.outer_steps,
        "outer_step_size": arguments.outer_step_size,
        "step_size_rate": arguments.step_size_rate,
        "bootstrap_weight": arguments.bootstrap_weight,
        "batch": arguments.batch,
    }
    return replace(
        usual,
        field=start.field,
        patches=start.patches,
        training=changed(usual.training, common | VARIANTS[variant]),
        crop=(arguments.crop,) * len(LATENT_CROPS[start.modality]) if arguments.crop else usual.crop,
        hidden=prior_of(start).entropy_model.hidden,
    )


def trained(
    arguments: argparse.Namespace,
    start: Initialization,
    data: TrainingData,
    device: torch.device,
    progress: ProgressLine,
) -> dict[str, Compared]:
    """Train every variant; return them after the start."""
    results = {"start": Compared(start)}
    for variant in arguments.variants:
        target = arguments.output / f"ablation_{variant.replace(' ', '_')}.safetensors"
        settings = settings_of(arguments, start, variant)
        resume = arguments.resume and checkpoint_of(target).exists()

        def show(done: TrainingProgress, variant: str = variant) -> None:
            progress.update(variant, done.step, done.steps, f"{done.psnr:.2f} dB")

        initialization = meta_train(
            settings,
            data,
            target,
            source=str(arguments.data),
            start=start,
            resume=resume,
            device=device,
            on_progress=show,
        )
        results[variant] = Compared(initialization, step_memory(start, settings, data, device))
    return results


def step_memory(start: Initialization, settings: Preset, data: TrainingData, device: torch.device) -> float:
    """Return the MiB that an outer step takes."""
    trainer = trainer_of(settings, start, device)
    channels = settings.field.out_features
    sampler = PatchSampler(data.training, settings.training_patches, channels, settings.training.seed)
    batch = sampler.batch(0, settings.training.batch).context_set(device)
    trainer.train_step(batch)  # the first one makes Adam's moments
    trainer.step = settings.training.outer_steps - 1  # in the last ones latents are adapted, which takes most
    return peak_memory(lambda: trainer.train_step(batch), device)


def parse() -> argparse.Namespace:
    """Read the command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--data", type=Path, required=True, help="folder of signals; every tenth is held out")
    result.add_argument("--validation", type=Path, help="folder of signals to measure on instead")
    result.add_argument("--start", default="image-pyramid", help="initialization of a latent field")
    result.add_argument("--init", nargs="*", default=[], help="compare these with the start; nothing is trained")
    result.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    result.add_argument("--resume", action="store_true", help="go on where a run of the same settings was cut")
    result.add_argument("--outer-steps", type=int, default=300)
    result.add_argument("--inner-steps", type=int, default=3, help="adaptation steps K")
    result.add_argument("--bootstrap-weight", type=float, default=1.0)
    result.add_argument("--outer-step-size", type=float, default=3e-4)
    result.add_argument("--step-size-rate", type=float, default=3e-2)
    result.add_argument("--batch", type=int, default=4)
    result.add_argument("--crop", type=sources.positive, help="samples of a training patch along each axis")
    result.add_argument("--patches", type=sources.positive, default=24, help="held-out patches")
    result.add_argument("--marks", type=int, nargs="*", default=list(MARKS), help="adaptation steps reported")
    result.add_argument("--device", default="cpu", help="auto, cpu or cuda[:n]")
    result.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = result.parse_args()
    if min(arguments.marks, default=-1) < 0:
        result.error(f"--marks are {arguments.marks}, give numbers of steps, 0 or more")
    arguments.marks = sorted(set(arguments.marks))
    return arguments


def latents(name: str) -> Initialization:
    """Load an initialization. Raises: UsageError unless its field is a latent one with one transform."""
    initialization = named_initialization(name)
    if initialization.field.family != "latents" or field_of(initialization).kinds:
        raise UsageError(
            f"the field of {name} is a {initialization.field.name}: give an initialization of a pyramid or a spectrum"
        )
    return initialization


def held_out_patches(
    start: Initialization, settings: Preset, data: TrainingData, count: int, device: torch.device
) -> list[HeldOut]:
    """Draw the patches to measure on, over the range of step indices that was learned.

    The start chooses the variants of the field, for all that is compared.
    """
    shape = settings.training_patches.shape
    sampler = PatchSampler(data.held_out, settings.training_patches, settings.field.out_features, seed=1)
    values = sampler.batch(0, count).context_set(device).values.transpose(1, 2).unflatten(2, shape)
    grid, channels = Grid.open(shape), values.shape[1]
    finest, coarsest = settings.training.quantization
    parts = values.tensor_split(min(count, STEP_INDICES))
    result = []
    for part, place in zip(parts, torch.linspace(finest, coarsest, len(parts)).round(), strict=True):
        step_index = int(place)

        def model_of(variant: int, step_index: int = step_index) -> LatentModel:
            return LatentModel.of(start, device, step_index, variant)

        candidates = list(field_of(start).candidates(part, step_index))
        variant = best_variant(model_of, candidates, part, grid, trade_off_of_step_index(step_index, channels))
        result.append(HeldOut(part, grid, step_index, variant))
    return result


def main() -> None:
    """Compare initializations or variants, and print and write the table."""
    arguments = parse()
    device = pick_device(arguments.device)
    start = latents(arguments.start)
    data = load_data(arguments.data, start.modality, arguments.validation)
    output = report.output_folder(arguments.output)
    settings = settings_of(arguments, start, "first order")
    held_out = held_out_patches(start, settings, data, arguments.patches, device)
    if arguments.init:
        compared = {name: Compared(latents(name)) for name in [arguments.start, *arguments.init]}
    else:
        with ProgressLine(quiet=False, reports=True) as progress:
            compared = trained(arguments, start, data, device, progress)
    base = objectives(start, held_out, [0])[0]
    variants = {}
    print(f"{'log J, %':28}" + "".join(f"{mark:>8}" for mark in arguments.marks) + f"{'MiB':>8}")
    for name, each in compared.items():
        reached = objectives(each.initialization, held_out, arguments.marks)
        row = {mark: 100 * float((value / base).log().mean()) for mark, value in reached.items()}
        variants[name] = {
            "log_objective_percent": row,
            "peak_mib": each.memory,
            "step_sizes": {key: value.exp().tolist() for key, value in each.initialization.log_step_sizes.items()},
        }
        memory = "" if each.memory is None else f"{each.memory:8.0f}"
        print(f"{name:28}" + "".join(f"{value:8.2f}" for value in row.values()) + memory, flush=True)
    options = {key: str(value) for key, value in vars(arguments).items()}
    report.write_json(
        {"settings": options, "machine": report.machine(), "variants": variants}, output / "ablation.json"
    )


if __name__ == "__main__":
    report.run(main)
