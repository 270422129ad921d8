"""The papers' tables and figures, measured again: one experiment a command.

python benchmarks/lab.py gamma --modality image --data photos

Writes a table to standard output, and JSON and a plot to `--output`. Trained variants are kept in a folder `lab` there
and used again by other experiments.
"""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path

import report
from experiments import amortized, classification, comparisons, gradients, searching, views
from experiments.laboratory import Laboratory
from experiments.perception import lpips_distance
from experiments.result import Result
from experiments.settings import setting

import inrcodec.assets
from inrcodec.cli.console import ProgressLine
from inrcodec.device import pick_device
from inrcodec.meta.run import load_data
from inrcodec.signals import MODALITIES

EXPERIMENTS: dict[str, Callable[[Laboratory], Result]] = {
    each.__name__: each
    for each in (
        comparisons.methods,
        comparisons.scores,
        comparisons.gamma,
        comparisons.horizon,
        comparisons.bootstrap,
        comparisons.myopia,
        comparisons.clock,
        comparisons.rescaling,
        comparisons.memory,
        comparisons.domains,
        gradients.norms,
        gradients.correlation,
        gradients.distribution,
        searching.search,
        amortized.amortized,
        views.unseen_views,
        classification.many_shot,
    )
}


def main() -> None:
    arguments = parse()
    scale = setting(arguments.modality, arguments.field, arguments.scale)
    if arguments.outer_steps is not None:
        scale = scale.shortened(arguments.outer_steps)
    output = report.output_folder(arguments.output)
    device = pick_device(arguments.device)
    folder = arguments.data or Path(next(iter(inrcodec.assets.__path__))) / "samples" / arguments.modality
    data = load_data(folder, arguments.modality, arguments.validation)
    lpips = lpips_distance(arguments.lpips_backbone)
    with ProgressLine(quiet=False, reports=True) as progress:
        source = f"{folder.resolve()}, held out {arguments.validation or 'every tenth'}"
        laboratory = Laboratory(scale, data, source, output / "lab", device, progress, arguments.others, lpips)
        result = EXPERIMENTS[arguments.experiment](laboratory)
    result.show()
    path = output / f"lab_{arguments.experiment}_{scale.name}.json"
    settings = {"experiment": arguments.experiment, "data": source, "setting": str(scale), "machine": report.machine()}
    report.write_json(settings | result.content(), path)
    result.draw(path.with_suffix(".png"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_argument_group("experiments")
    described = "; ".join(f"{name}: {_first_line(each)}" for name, each in EXPERIMENTS.items())
    commands.add_argument("experiment", choices=EXPERIMENTS, metavar="EXPERIMENT", help=described)
    parser.add_argument("--modality", default="image", choices=MODALITIES, help="of the signals [default: image]")
    parser.add_argument("--field", default="siren", choices=("siren", "ffn", "nerv"), help="[default: siren]")
    parser.add_argument("--scale", default="small", choices=("small", "paper"), help="of fields and trainings")
    parser.add_argument("--data", type=Path, help="folder of signals [default: the shipped samples]")
    parser.add_argument("--validation", type=Path, help="folder of signals to measure on [default: every tenth]")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of other signals, for domains")
    parser.add_argument("--lpips-backbone", type=Path, help="weights of torchvision's AlexNet, safetensors, for LPIPS")
    parser.add_argument("--outer-steps", type=int, help="length of every training [default: the scale's]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder")
    return parser.parse_args()


def _first_line(experiment: Callable[[Laboratory], Result]) -> str:
    return (inspect.getdoc(experiment) or "").splitlines()[0]


if __name__ == "__main__":
    report.run(main)
