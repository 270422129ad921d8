"""Processes that run a revision: workers that stay alive, and commands from the shell."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from inrcodec.errors import InrcodecError
from timing.revisions import Revision

WORKER = Path(__file__).parent / "worker.py"


class WorkFailed(InrcodecError):
    """A revision could not do what was to be measured."""


class Worker:
    """A process of a revision that does one thing after the other, on one thread."""

    def __init__(self, revision: Revision) -> None:
        self.revision = revision
        reading, writing = os.pipe()  # not standard output, as libraries print
        # Safe path (-P): else the folder of the program is searched before that of the revision.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(revision.tree), str(writing)],
            env=environment(revision, threads=1),
            stdin=subprocess.PIPE,
            stdout=sys.__stderr__,
            text=True,
            pass_fds=(writing,),
        )
        os.close(writing)
        self._answers = os.fdopen(reading)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()
        self._answers.close()

    def ask(self, work: str, **request: Any) -> dict[str, Any]:
        """Have something done, see `worker.WORK`, and return the answer. Raises: WorkFailed."""
        with suppress(BrokenPipeError):  # it says nothing then, either
            print(json.dumps({"work": work, **request}), file=self._process.stdin, flush=True)
        line = self._answers.readline()
        if not line:
            code = self._process.wait()  # -n is signal n
            raise WorkFailed(f"{self.revision.label}: its process ended with code {code} while it was to {work}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkFailed(f"{self.revision.label}: {answer['error']}")
        return answer


def environment(revision: Revision, threads: int | None) -> dict[str, str]:
    """Return the environment of a revision's processes, without a GPU.

    threads: None is as many as the library takes.
    """
    dropped = {"PYTHONPATH", "OMP_NUM_THREADS", "INRCODEC_INITIALIZATIONS"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    threaded = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return kept | threaded | {"PYTHONPATH": str(revision.tree), "CUDA_VISIBLE_DEVICES": ""}


def command(revision: Revision, arguments: Sequence[str], cores: int | None = None) -> tuple[dict[str, float], str]:
    """Run `inrcodec` from the shell; return the seconds beyond those that Python with torch takes to start, and output.

    cores: that the process may use, with the library's own number of threads; None is one thread. Raises: WorkFailed.
    """
    env = environment(revision, threads=1 if cores is None else None)
    with _on(cores):
        start, _ = _run(["-c", "import torch"], env)
        whole, output = _run(["-m", "inrcodec", *arguments], env)
    return {clock: whole[clock] - start[clock] for clock in whole}, output


def usable_cores() -> int:
    """Return how many cores this process may use, or 1 where the system does not let a process choose."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@contextmanager
def _on(cores: int | None) -> Iterator[None]:
    """Let the processes that are begun meanwhile use some cores only."""
    if cores is None:
        yield
        return
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def _run(arguments: Sequence[str], env: dict[str, str]) -> tuple[dict[str, float], str]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-P", *arguments], env=env, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise WorkFailed(f"{' '.join(arguments[:3])}: {lines[-1]}")
    return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall": wall}, done.stdout
