"""How many cores this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path

_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files that say how many microseconds of each period a container may use, by version of control groups."""


def usable_cores(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores this process may use: those it is bound to, no more than its container is given."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(bound, _quota(groups)))


def processes_of_a_file(files: int, jobs: int | None) -> int:
    """Return how many processes share the work on each file: of several files, each process has one to itself.

    jobs: the most processes at a time; None is as many as there are cores.
    """
    if files > 1:
        return 1
    return usable_cores() if jobs is None else jobs


def _quota(groups: Path) -> float:
    """Return how many cores the container is given, infinity if there is no limit."""
    for names in _QUOTAS:
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            quota, period = map(int, " ".join((groups / name).read_text() for name in names).split())
            if quota > 0:  # -1 is no limit
                return quota / period
    return math.inf
