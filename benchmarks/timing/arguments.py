"""The options that programs with jobs have in common."""

import argparse
from collections.abc import Collection
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"


def add_job_arguments(parser: argparse.ArgumentParser, jobs: Collection[str], described: str, output: str) -> None:
    """Add --data, --only, --work and --output. described: says what the jobs are. output: name of the JSON file."""
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], help="folders to take signals from [default: the shipped samples]"
    )
    parser.add_argument("--only", nargs="+", choices=list(jobs), default=list(jobs), metavar="NAME", help=described)
    parser.add_argument("--work", type=Path, help="folder to keep files in, for later runs [default: none]")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=RESULTS / output,
        help=f"JSON file to write [default: benchmarks/results/{output}]",
    )
