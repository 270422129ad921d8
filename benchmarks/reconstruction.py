"""Reconstructions after a few adaptation steps, from a meta-learned and from a random initialization."""

import argparse
import math
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import report
import sources
import strips
import torch
from adaptation_views import View, adaptation_views, random_initialization

from inrcodec.cli import console
from inrcodec.device import pick_device
from inrcodec.encoder import check_fit
from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.meta.evaluation import RANDOM_STEP_SIZES
from inrcodec.priors import DeltaPrior

STRIP_STEPS = (0, 4, 8, 16)

Row = dict[str, Any]
"""One signal after some steps, or the mean over signals: measures of both initializations."""


def main() -> None:
    arguments = parse()
    chosen = report.initializations(arguments.init, arguments.modality, "siren")
    output = report.output_folder(arguments.output)
    device = pick_device(arguments.device)
    for modality, initializations in chosen.items():
        results = []
        for name, initialization in initializations:
            if not isinstance(initialization.prior, DeltaPrior):
                raise UsageError(
                    f"{name} has latents, which are integers from the first step on: give weight-coded fields"
                )
            with tempfile.TemporaryDirectory(prefix="inrcodec-") as folder:
                found = sources.sources(
                    modality, arguments.data, arguments.limit, sources.cut_of(arguments), Path(folder)
                )
                rows, step_sizes = measure_all(name, initialization, found, arguments, device, output)
            show(name, modality, rows, step_sizes)
            results.append({**report.describe(name, initialization), "rows": rows, "random_step_sizes": step_sizes})
        content = {
            "benchmark": "reconstruction",
            "modality": modality,
            "psnr_peak": report.PSNR_PEAK[modality],
            "data": str(arguments.data or "shipped samples"),
            "cut": vars(sources.cut_of(arguments)),
            "machine": report.machine(),
            "initializations": results,
        }
        report.write_json(content, output / f"reconstruction_{modality}.json")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    sources.add_arguments(parser)
    parser.add_argument("--steps", nargs="+", type=int, default=[16, 64], help="adaptation steps [default: 16 64]")
    parser.add_argument("--strips", type=int, default=1, help="signals shown as a picture strip [default: 1]")
    parser.add_argument("--no-random", action="store_true", help="leave the random initialization out")
    arguments = parser.parse_args()
    if min(arguments.steps) < 0:
        parser.error(f"--steps has {min(arguments.steps)}, give 0 or more")
    return arguments


def measure_all(
    name: str,
    initialization: Initialization,
    found: Iterable[sources.Source],
    arguments: argparse.Namespace,
    device: torch.device,
    output: Path,
) -> tuple[list[Row], dict[str, float]]:
    """Measure every signal after every number of steps; return the rows, and the best random step size of each number.

    The best step size is that of the largest mean PSNR over all signals, as in meta-training's evaluation.
    """
    steps = sorted(set(arguments.steps))
    groups: dict[str, str] = {}
    ours: dict[str, dict[int, dict[str, float]]] = {}
    random: dict[float, dict[str, dict[int, dict[str, float]]]] = {}
    for number, source in enumerate(found):
        report.say(f"{source.name}: {'x'.join(map(str, source.signal.shape))}")
        check_fit(source.signal, initialization)
        groups[source.name] = source.group
        pictured = STRIP_STEPS if number < arguments.strips else ()
        views = adaptation_views(source.signal, initialization, device, {*steps, *pictured}, pictured)
        ours[source.name] = _measures(source, views, steps)
        if pictured:
            label = re.sub(r"[^\w.-]+", "-", source.name)
            path = output / f"reconstruction_{name}_{label}.png"
            strips.draw(source.signal, {step: views[step] for step in pictured}, path)
        for step_size in () if arguments.no_random else RANDOM_STEP_SIZES:
            views = adaptation_views(source.signal, random_initialization(initialization, step_size), device, steps)
            random.setdefault(step_size, {})[source.name] = _measures(source, views, steps)
    best = {step: max(random, key=lambda size: _mean_psnr(random[size], step)) for step in steps if random}
    rows = [
        {
            "signal": signal,
            "group": group,
            "steps": step,
            "initialization": ours[signal][step],
            "random": random[best[step]][signal][step] if random else None,
        }
        for step in steps
        for signal, group in groups.items()
    ]
    return rows, {str(step): size for step, size in best.items()}


def _measures(source: sources.Source, views: dict[int, View], steps: Sequence[int]) -> dict[int, dict[str, float]]:
    return {step: report.measure(source.signal, views[step].reconstruction) for step in steps}


def _mean_psnr(measured: dict[str, dict[int, dict[str, float]]], step: int) -> float:
    return math.fsum(each[step]["psnr_db"] for each in measured.values()) / len(measured)


def show(name: str, modality: str, rows: Sequence[Row], step_sizes: dict[str, float]) -> None:
    """Print a line for every signal and number of steps, and the means; units of RMSE are the variable's."""
    labels = {
        "psnr_db": "PSNR dB",
        "snr_db": "SNR dB",
        "ssim": "SSIM",
        "rmse": "RMSE",
        "max_error": "max error",
    }
    keys = [key for key in labels if key in rows[0]["initialization"]]
    who = ["initialization"] + (["random"] if rows[0]["random"] else [])
    marks = {"initialization": "", "random": " (random)"}

    def cells(members: Sequence[Row]) -> list[str]:
        result = []
        for each in who:
            for key in keys:
                values = [row[each][key] for row in members if key in row[each]]
                mixed = key in ("rmse", "max_error") and len({row["group"] for row in members}) > 1
                mean = math.fsum(values) / len(values) if values and not mixed else None
                digits = {"ssim": 4, "rmse": 4, "max_error": 3}.get(key, 2)
                result.append(report.number(mean, digits))
        return result

    print(f"\n{name}: after adaptation, not quantized; PSNR with peak {report.PSNR_PEAK[modality]}")
    for steps, step_size in step_sizes.items():
        print(f"random initialization at {steps} steps: best step size {step_size:g} of {RANDOM_STEP_SIZES}")
    print()
    table = [[row["signal"], str(row["steps"]), *cells([row])] for row in rows]
    for steps in dict.fromkeys(row["steps"] for row in rows):
        members = [row for row in rows if row["steps"] == steps]
        table.append([f"mean of {len(members)}", str(steps), *cells(members)])
    console.table(["signal", "steps"] + [labels[key] + marks[each] for each in who for key in keys], table)


if __name__ == "__main__":
    report.run(main)
