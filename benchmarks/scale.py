"""Memory and time by the size of a signal: what one more megapixel, minute, slice or frame takes.

python benchmarks/scale.py --data FOLDER
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import report
import sources
from timing.arguments import add_job_arguments
from timing.inputs import Inputs, mosaic

from inrcodec.cli import console
from inrcodec.errors import UsageError
from inrcodec.signals import write
from inrcodec.signals.lazy import ForwardReader, LazySignal, Rows
from inrcodec.signals.signal import Axis, Signal

LIMIT = 2048
"""No process shall take more MiB."""

EXPONENT, TOLERANCE = 1.0, 0.05
"""Time shall grow as this power of the size, give or take the tolerance."""

COLUMNS = ("job", "size", "seconds", "MiB", "s an item", "MiB more an item", "exponent of time")

KIBI = 1024


@dataclass(frozen=True)
class Job:
    """A kind of signal to grow.

    item: what sizes count. sizes: ascending. extension: of its file. make: writes one of a size. options: of the
    encoder.
    """

    item: str
    sizes: tuple[int, ...]
    extension: str
    make: Callable[[Inputs, int, Path], None]
    options: tuple[str, ...] = ("--effort", "instant")


def picture(inputs: Inputs, size: int, path: Path) -> None:
    """Write a mosaic of so many megapixels."""
    values = mosaic([source.signal.values for source in inputs.pictures], size * 1_000_000)
    axes = tuple(Axis(along) for along in values.shape[:-1])
    write([Signal("image", values, axes, (0.0, 255.0))], path)


def sound(inputs: Inputs, size: int, path: Path) -> None:
    """Write so many minutes of a sound again and again, each time a little louder or softer."""
    once = inputs.signal("sound").signal
    rate = once.axes[0].rate or Fraction(1)
    count = int(size * 60 * rate)

    def blocks() -> Any:
        random = np.random.default_rng(0)
        for _ in range(0, count, len(once.values)):
            yield (once.values * random.uniform(0.5, 1)).astype(np.float32), None

    axes = (replace(once.axes[0], size=count), once.axes[1])
    write([LazySignal("audio", np.dtype(np.float32), axes, 1, once.value_range, ForwardReader(blocks))], path)


def clip(inputs: Inputs, size: int, path: Path) -> None:
    """Write so many frames of 320x180, a window that moves over a picture, there and back."""
    shown = inputs.signal("picture").signal.values
    room = shown.shape[1] - 320

    def read(begin: int, end: int) -> Rows:
        places = [abs((2 * frame) % (2 * room) - room) for frame in range(begin, end)]
        return np.stack([shown[100:280, place : place + 320] for place in places]), None

    axes = (Axis(size, "start", rate=Fraction(25)), Axis(180), Axis(320))
    write([LazySignal("video", np.dtype(np.uint8), axes, 3, (0.0, 255.0), read)], path)


def fields(inputs: Inputs, size: int, path: Path) -> None:
    """Write so many fields, each the one before with some smooth noise."""
    signal = inputs.signal("field").signal
    field = signal.values[0, ..., 0]
    height, width = field.shape
    random = np.random.default_rng(0)
    with netCDF4.Dataset(os.fspath(path), "w") as file:
        for name, along in (("latitude", signal.axes[1]), ("longitude", signal.axes[2])):
            file.createDimension(name, along.size)
            coordinate = file.createVariable(name, "f8", (name,))
            coordinate.units = "degrees_north" if name == "latitude" else "degrees_east"
            coordinate[:] = along.points
        file.createDimension("time", size)
        variable = file.createVariable("t2m", "f4", ("time", "latitude", "longitude"), chunksizes=(1, height, width))
        for step in range(size):
            variable[step] = field
            coarse = random.normal(size=(height // 40 + 2, width // 40 + 2)).astype(np.float32)
            rows, columns = np.linspace(0, len(coarse) - 1.001, height), np.linspace(0, len(coarse[0]) - 1.001, width)
            field = field + 0.2 * interpolated(coarse, rows, columns)


def interpolated(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return values [H, W] at fractional rows and columns, linearly."""
    for axis, places in enumerate((rows, columns)):
        low = places.astype(int)
        weight = np.expand_dims((places - low).astype(values.dtype), 1 - axis)
        values = values.take(low, axis) * (1 - weight) + values.take(low + 1, axis) * weight
    return values


JOBS = {
    "picture": Job("megapixel", (16, 32, 64), ".png", picture),
    "picture-bpp": Job("megapixel", (16, 32, 64), ".png", picture, ("--effort", "instant", "--bpp", "0.5")),
    "sound": Job("minute", (15, 30, 60), ".flac", sound, ("--effort", "fast")),
    "clip": Job("frame", (500, 1000, 2000), ".mkv", clip),
    "climate": Job("slice", (125, 250, 500), ".nc", fields, ("--effort", "instant", "--quality", "40")),
    "climate-max-error": Job("slice", (125, 250, 500), ".nc", fields, ("--effort", "instant", "--max-error", "0.5")),
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job_arguments(parser, JOBS, f"jobs to run [default: all]: {', '.join(JOBS)}", "scale.json")
    parser.add_argument("--part", type=sources.positive, default=1, help="divide all sizes by this [default: 1]")
    parser.add_argument("--largest", action="store_true", help="leave out all sizes but the largest")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    arguments = parse()
    report.output_folder(arguments.output.parent)
    result: dict[str, Any] = {"benchmark": "scale", "machine": report.machine(), "part": arguments.part, "jobs": {}}
    with tempfile.TemporaryDirectory(prefix="inrcodec-") as temporary:
        folder = Path(temporary) if arguments.work is None else report.output_folder(arguments.work)
        inputs = Inputs(arguments.data, folder)
        for name in arguments.only:
            job = JOBS[name]
            sizes = [max(1, size // arguments.part) for size in job.sizes[-1 if arguments.largest else 0 :]]
            result["jobs"][name] = measure(name, job, sizes, inputs, folder)
            report.write_json(result, arguments.output)
    show(result["jobs"])


def measure(name: str, job: Job, sizes: list[int], inputs: Inputs, folder: Path) -> dict[str, Any]:
    """Encode and decode a file of each size: {"item", "encode", "decode"}, lists of {"size", "seconds", "mib"}."""
    found: dict[str, Any] = {"item": job.item, "options": list(job.options), "encode": [], "decode": []}
    for size in sizes:
        report.say(f"{name}: {size} times a {job.item}")
        original, coded, decoded = (
            folder / f"{name}-{size}{end}" for end in (job.extension, ".inr", f"-again{job.extension}")
        )
        job.make(inputs, size, original)
        more = ("--max-samples", str(1 << 40))
        found["encode"].append(run(size, "encode", original, coded, *job.options))
        found["encode"][-1]["bytes"] = coded.stat().st_size
        found["decode"].append(run(size, "decode", coded, decoded, *more))
        for path in (original, coded, decoded):
            path.unlink()
    return found


def run(size: int, command: str, source: Path, target: Path, *options: str) -> dict[str, float]:
    """Run the program, and return what it took: {"size", "seconds" of the CPU, "wall", "mib" at most at a time}."""
    call = [sys.executable, "-m", "inrcodec", command, str(source), "-o", str(target), "--force", "--quiet", *options]
    began = time.perf_counter()
    process = subprocess.Popen(call)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UsageError(f"{' '.join(call)} ended with exit code {process.returncode}")
    return {
        "size": size,
        "seconds": usage.ru_utime + usage.ru_stime,
        "wall": time.perf_counter() - began,
        "mib": usage.ru_maxrss / KIBI,
    }


def show(jobs: dict[str, Any]) -> None:
    """Print a line for every job, command and size, and what grows how."""
    lines = []
    for name, job in jobs.items():
        for command in ("encode", "decode"):
            runs = job[command]
            for count, each in enumerate(runs, 1):
                lines.append([f"{command} {name}", f"{each['size']} {job['item']}s", *growth(runs[:count])])
    console.table(COLUMNS, lines)
    worst = max(run["mib"] for job in jobs.values() for command in ("encode", "decode") for run in job[command])
    print(f"\nlargest: {worst:.0f} MiB (wanted: below {LIMIT}); wanted exponent {EXPONENT} within {TOLERANCE}")


def growth(runs: list[dict[str, float]]) -> list[str]:
    """Return the cells of the last of some runs of growing size.

    The exponent is that of what is added to the time by what is added to the size, so that starting does not count.
    """
    cells = [f"{runs[-1]['seconds']:.1f}", f"{runs[-1]['mib']:.0f}"]
    steps = [
        [after[key] - before[key] for key in ("size", "seconds", "mib")]
        for before, after in pairwise(runs)
        if after["size"] > before["size"]
    ]
    if not steps:
        return [*cells, "", "", ""]
    size, seconds, mib = steps[-1]
    cells += [f"{seconds / size:.3f}", f"{mib / size:.2f}"]
    if len(steps) < 2 or min(seconds, steps[-2][1]) <= 0:
        return [*cells, ""]
    return [*cells, f"{math.log(seconds / steps[-2][1]) / math.log(size / steps[-2][0]):.3f}"]


if __name__ == "__main__":
    report.run(main)
