"""Fuzz for as long as wanted; `test_fuzz.py` does the same for some seconds.

    python tests/fuzz_long.py --minutes 60 --seed 1 --folder faults

Every changed file is tried in a process whose memory is limited. A file that breaks something stays in the folder, its
kind of fault beside it (`.txt`). The numbers of files by their first change and outcome are printed at the end.
"""

import argparse
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

MEMORY = 3 << 30
"""Bytes of address space beyond those of a process that has decoded all specimens."""

MAX_SAMPLES = 1 << 22
SECONDS = 60.0
"""Of the process, for each call on a file."""

PATIENCE = 600.0
"""Seconds until a process that says nothing is stopped."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; the next ones count on")
    parser.add_argument("--folder", type=Path, default=Path("faults"), help="for files that break something")
    parser.add_argument("--max-samples", type=int, default=MAX_SAMPLES)
    parser.add_argument("--kind", help="only changes of this kind, as residual")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.worker:
        work(options)
    else:
        direct(options)


def direct(options: argparse.Namespace) -> None:
    """Start processes that try files until the time is over, and count what they say."""
    end = time.monotonic() + 60 * options.minutes
    counts: Counter[tuple[str, str]] = Counter()
    faults: Counter[str] = Counter()
    slow: list[tuple[float, int, str, str]] = []
    seed, largest = options.seed, 0
    while time.monotonic() < end:
        begun, last = False, None
        for said in worker(options, seed, end):
            begun = True
            if "done" not in said:
                last = said
                continue
            last, seed = None, said["seed"] + 1
            counts[said["kind"], said["done"]] += 1
            largest = max(largest, said["memory"])
            slow = sorted([*slow, (said["seconds"], said["seed"], said["specimen"], said["kind"])])[-5:]
            if "fault" in said:
                faults[said["fault"]] += 1
                print(f"seed {said['seed']}: {said['specimen']}, {said['kind']}: {said['fault']}", flush=True)
        if not begun and time.monotonic() < end:
            sys.exit("the process that tries files cannot start")
        if last is not None and time.monotonic() < end:
            seed = last["seed"] + 1
            counts[last["kind"], "fault"] += 1
            faults["the process died or said nothing"] += 1
            current = options.folder / "current.inr"
            current.rename(options.folder / f"{last['seed']}-died.inr")
            print(f"seed {last['seed']}: {last['specimen']}, {last['kind']}: the process died", flush=True)
    for kind in sorted({kind for kind, _ in counts}):
        outcomes = {outcome: counts[kind, outcome] for outcome in ("taken", "refused", "fault")}
        print(f"{kind}: {outcomes}")
    print("slowest files", *slow, sep="\n  ")
    print(f"files {sum(counts.values())}, taken {sum(n for (_, each), n in counts.items() if each == 'taken')}")
    print(f"next seed {seed}, largest memory {largest >> 20} MiB")
    print(f"faults {sum(faults.values())}: {dict(faults)}")
    (options.folder / "current.inr").unlink(missing_ok=True)


def worker(options: argparse.Namespace, seed: int, end: float) -> Iterator[dict[str, Any]]:
    """Yield what a process says, until it ends, the time is over or it says nothing for long."""
    command = [sys.executable, "-P", __file__, "--worker", "--seed", str(seed), "--folder", str(options.folder)]
    command += ["--max-samples", str(options.max_samples), *(["--kind", options.kind] if options.kind else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(min(PATIENCE, max(0.0, end - time.monotonic()))):
            line = process.stdout.readline()
            if not line.endswith(b"\n"):
                break
            yield json.loads(line)
        process.kill()


def work(options: argparse.Namespace) -> None:
    """Try one file after the other and say so in lines of JSON: what is tried, and what became of it."""
    from fuzz_judge import Fault, judge
    from fuzz_specimens import chosen, specimens
    from fuzzing import changed_file

    known = specimens()
    seed = options.seed
    with tempfile.TemporaryDirectory() as scratch:
        for data in known.values():
            assert judge(data, Path(scratch), options.max_samples, SECONDS) == "taken"
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        while True:
            random = Random(seed)
            specimen = chosen(known, random)
            kind, data = changed_file(known[specimen], random, options.kind)
            (options.folder / "current.inr").write_bytes(data)
            about = {"seed": seed, "specimen": specimen, "kind": kind}
            print(json.dumps(about), flush=True)
            began = time.process_time()
            try:
                outcome = {"done": judge(data, Path(scratch), options.max_samples, SECONDS)}
            except Fault as fault:
                outcome = {"done": "fault", "fault": fault.kind}
                (options.folder / f"{seed}.inr").write_bytes(data)
                (options.folder / f"{seed}.txt").write_text(f"{specimen}, {kind}\n{fault}\n")
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            outcome |= {"seconds": round(time.process_time() - began, 2), "memory": memory}
            print(json.dumps(about | outcome), flush=True)
            seed += 1


if __name__ == "__main__":
    main()
