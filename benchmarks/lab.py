"""The papers' tables and figures, measured again: one experiment a command.

python benchmarks/lab.py gamma --modality image --data photos

Writes a table to standard output, and JSON and a plot to `--output`. Trained variants are kept in a folder `lab` there
and used again by other experiments.
"""

import argparse
import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import report
import torch
from experiments import amortized, classification, comparisons, gradients, searching, views
from experiments.laboratory import Laboratory
from experiments.perception import lpips_distance
from experiments.pruned import Bench
from experiments.result import Result
from experiments.settings import Setting, setting

import inrcodec.assets
from inrcodec.cli.console import ProgressLine
from inrcodec.device import pick_device
from inrcodec.meta.data import load_data
from inrcodec.signals import MODALITIES, find_files


def _named(*experiments: Callable[..., Result]) -> dict[str, Callable[..., Result]]:
    return {each.__name__: each for each in experiments}


EXPERIMENTS = _named(
    comparisons.methods,
    comparisons.scores,
    comparisons.gamma,
    comparisons.step_sizes,
    comparisons.horizon,
    comparisons.bootstrap,
    comparisons.myopia,
    comparisons.clock,
    comparisons.rescaling,
    comparisons.target,
    comparisons.memory,
    comparisons.domains,
    gradients.norms,
    gradients.correlation,
    gradients.distribution,
    searching.search,
    amortized.amortized,
)
"""Experiments on the signals of a modality."""

PROBLEMS = _named(views.unseen_views, classification.many_shot)
"""Experiments on data of their own."""


def main() -> None:
    arguments = parse()
    output = report.output_folder(arguments.output)
    chosen = setting(arguments.modality or "image", arguments.field or "siren", arguments.scale)
    changes = {name: getattr(arguments, name) for name in ("outer_steps", "inner_step_size", "seed")}
    changes = {name: value for name, value in changes.items() if value is not None}
    chosen = chosen.changed(**changes)
    device = pick_device(arguments.device)
    if arguments.experiment in PROBLEMS:
        name, record, result = of_problem(arguments, chosen, device)
    else:
        name, record, result = of_signals(arguments, chosen, device, output)
    result.show()
    changed = "".join(f"_{name}={value}" for name, value in changes.items())
    path = output / f"lab_{arguments.experiment}_{name}{changed}.json"
    record |= {"experiment": arguments.experiment, "device": str(device), "machine": report.machine()}
    report.write_json(record | result.content(), path)
    result.draw(path.with_suffix(".png"))


Outcome = tuple[str, dict[str, Any], Result]
"""Name of the files, what the JSON says of the setting, and what was found."""


def of_problem(arguments: argparse.Namespace, chosen: Setting, device: torch.device) -> Outcome:
    """Run an experiment on data of its own."""
    with ProgressLine(quiet=False, reports=True) as progress:
        bench = Bench(chosen.training, arguments.scale, device, progress)
        return arguments.scale, {"scale": arguments.scale}, PROBLEMS[arguments.experiment](bench)


def of_signals(arguments: argparse.Namespace, chosen: Setting, device: torch.device, output: Path) -> Outcome:
    """Run an experiment on the signals of a folder."""
    folder = arguments.data or Path(next(iter(inrcodec.assets.__path__))) / "samples" / chosen.modality
    data = load_data(folder, chosen.modality, arguments.validation)
    for path, reason in data.unreadable.items():
        report.say(f"{path} is left out: {reason}")
    experiment = EXPERIMENTS[arguments.experiment]
    if experiment is comparisons.domains:
        experiment = partial(experiment, others=arguments.others)
    if experiment is comparisons.methods:
        experiment = partial(experiment, lpips=lpips_distance(arguments.lpips_backbone))
    source = fingerprint([folder, *([arguments.validation] if arguments.validation else [])], chosen.modality)
    with ProgressLine(quiet=False, reports=True) as progress:
        laboratory = Laboratory(chosen, data, source, output / "lab", device, progress)
        result = experiment(laboratory)
    record = {
        "data": str(folder),
        "validation": str(arguments.validation or "every tenth file"),
        "setting": str(chosen),
    }
    return chosen.name, record, result


def fingerprint(folders: Sequence[Path], modality: str) -> str:
    """Return a hash of the names and contents of all files of a modality in some folders, wherever these are."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in find_files(folder, modality):
            for part in sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]:
                with part.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{part.relative_to(folder)} {content}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    experiments = EXPERIMENTS | PROBLEMS
    parser.epilog = "experiments:\n" + "\n".join(
        f"  {name:14}{_first_line(each)}" for name, each in experiments.items()
    )
    parser.add_argument("experiment", choices=experiments, metavar="EXPERIMENT", help="one of those below")
    parser.add_argument("--modality", choices=MODALITIES, help="of the signals [default: image]")
    parser.add_argument("--field", choices=("siren", "ffn", "nerv"), help="[default: siren]")
    parser.add_argument("--scale", default="small", choices=("small", "paper"), help="of fields and trainings")
    parser.add_argument("--data", type=Path, help="folder of signals [default: the shipped samples]")
    parser.add_argument("--validation", type=Path, help="folder of signals to measure on [default: every tenth file]")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of other signals, for domains")
    parser.add_argument(
        "--lpips-backbone", type=Path, help="weights of torchvision's AlexNet as safetensors, for LPIPS in methods"
    )
    parser.add_argument("--outer-steps", type=int, help="length of every training [default: the scale's]")
    parser.add_argument("--inner-step-size", type=float, help="of every training [default: the scale's]")
    parser.add_argument("--seed", type=int, help="of everything random in trainings [default: 0]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder")
    arguments = parser.parse_args()
    if arguments.outer_steps is not None and arguments.outer_steps < 1:
        parser.error(f"--outer-steps is {arguments.outer_steps}, give 1 or more")
    if arguments.inner_step_size is not None and not 0 < arguments.inner_step_size < math.inf:
        parser.error(f"--inner-step-size is {arguments.inner_step_size}, give a positive number")
    if arguments.seed is not None and arguments.seed < 0:
        parser.error(f"--seed is {arguments.seed}, give 0 or more")
    used: dict[str, tuple[str, ...]] = {"others": ("domains",), "lpips_backbone": ("methods",)}
    used |= dict.fromkeys(("modality", "field", "data", "validation", "inner_step_size"), tuple(EXPERIMENTS))
    for name, places in used.items():
        if getattr(arguments, name) and arguments.experiment not in places:
            parser.error(f"--{name.replace('_', '-')} means nothing for {arguments.experiment}")
    return arguments


def _first_line(experiment: Callable[..., Result]) -> str:
    return (inspect.getdoc(experiment) or "").splitlines()[0]


if __name__ == "__main__":
    report.run(main)
