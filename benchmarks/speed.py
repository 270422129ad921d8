"""Times of the present code beside those of an earlier revision, taken in turn, with the rate and fidelity of each.

python benchmarks/speed.py --against REVISION --data FOLDER
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report
import sources
from timing import revisions
from timing.arguments import add_job_arguments
from timing.bench import Bench
from timing.inputs import Inputs
from timing.jobs import JOBS, REFERENCE
from timing.processes import WorkFailed
from timing.statistics import Spread, compare, ratio

from inrcodec.cli import console
from inrcodec.errors import UsageError

COLUMNS = (
    *("job", "clock", "s before", "s now", "times faster", "target"),
    *("rate before", "now", "fidelity before", "now", "MiB before", "now"),
)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION", help="of git; without it the present code is measured alone")
    add_job_arguments(parser, JOBS, names(), "speed.json")
    parser.add_argument("--repeats", type=sources.positive, default=5, help="samples of every time [default: 5]")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="fail if something is slower than it was there"
    )
    return parser.parse_args()


def names() -> str:
    """Describe the jobs."""
    return "jobs to run [default: all]: " + "; ".join(f"{name} ({job.what})" for name, job in JOBS.items())


def main() -> None:
    """Measure, print and write; compare with an older result."""
    arguments = parse()
    old = None if arguments.compare is None else read(arguments.compare)
    report.output_folder(arguments.output.parent)
    with tempfile.TemporaryDirectory(prefix="inrcodec-") as folder:
        result = measure(arguments, Path(folder))
    show(result)
    for name, reason in result["skipped"].items():
        report.say(f"skipped: {name}: {reason}")
    if old is not None and not no_slower(old, result):
        sys.exit(1)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the jobs. What was measured is written after each, as all of them take long."""
    now = revisions.working_tree(folder)
    work = folder if arguments.work is None else report.output_folder(arguments.work)
    before = None if arguments.against is None else revisions.earlier(arguments.against, work)
    bench = Bench(Inputs(arguments.data, folder), folder, now, before)
    result: dict[str, Any] = {
        "benchmark": "speed",
        "machine": report.machine() | {"torch_threads": 1},
        "present": {"hash": now.hash, "changed": now.changed},
        "against": None if before is None else {"hash": before.hash},
        "repeats": arguments.repeats,
        "skipped": {},
        "jobs": {},
    }
    for name in arguments.only:
        report.say(f"{name}: {JOBS[name].what}")
        try:
            result["jobs"][name] = bench.run(JOBS[name], arguments.repeats)
        except (WorkFailed, UsageError) as error:
            result["skipped"][name] = str(error)
        report.write_json(result, arguments.output)
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print a line for every job."""
    against = result["against"]["hash"][:7] if result["against"] else "nothing"
    changed = ", changed" if result["present"]["changed"] else ""
    print(f"\nnow: {result['present']['hash'][:7]}{changed}; before: {against}, or what the job says")
    print("median (smallest..largest); rate in bits per sample; fidelity: PSNR in dB, or the largest error\n")
    console.table(COLUMNS, (row(name, job, result["against"]) for name, job in result["jobs"].items()))


def row(name: str, job: Mapping[str, Any], against: Mapping[str, Any] | None) -> list[str]:
    """Return the cells of a job."""
    before, now, clock = job["before"], job["now"], job["clock"]
    sides = [before or {}, now]
    faster = str(ratio(before[clock], now[clock])) if before else "-"
    meant = job["setting"] is not None or (against is not None and against["hash"] == REFERENCE)
    return [
        name,
        {"cpu": "CPU", "wall": "wall"}[clock] + (f", {job['setting']} before" if job["setting"] else ""),
        str(Spread.of(before[clock])) if before else "-",
        str(Spread.of(now[clock])),
        faster,
        f"{job['target']:g}" if job["target"] and meant else "-",
        *(report.number(side.get("bits_per_sample"), 4) for side in sides),
        *(fidelity(name, side) for side in sides),
        *(report.number(side.get("peak_mib"), 0) for side in sides),
    ]


def fidelity(name: str, side: Mapping[str, Any]) -> str:
    """Return the cell for what a decoder returns: of a bound, how far the worst value is off."""
    if JOBS[name].options.get("max_error") is not None and "max_error" in side:
        return f"{side['max_error']:.4g} off"
    return report.number(side.get("psnr_db"))


def no_slower(old: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Print how the jobs compare with an older result; say whether none is slower."""
    findings = compare(old, json.loads(json.dumps(result)))
    print()
    console.table(("compared", ""), ([finding.job, finding.text] for finding in findings))
    return not any(finding.slower for finding in findings)


def read(path: Path) -> dict[str, Any]:
    """Read a result of this program. Raises: UsageError if it is none."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        if result["benchmark"] == "speed":
            return result
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"cannot compare with {path}: {error}") from error
    raise UsageError(f"cannot compare with {path}: it is of {result['benchmark']}")


if __name__ == "__main__":
    report.run(main)
