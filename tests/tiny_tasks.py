"""Tasks for the processes of a pool, which import them from here."""

import os
import signal
import time
import warnings
from pathlib import Path

from inrcodec.cli.batch import Done, Show
from inrcodec.errors import InrcodecWarning, UsageError


class Unsendable(Exception):
    """An error that cannot be pickled and made again."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


def ready(on_gpu: bool = False) -> bool:
    return on_gpu


def refuse() -> bool:
    raise UsageError("no such device")


def ready_once(marker: Path) -> bool:
    """Be ready in the first process only."""
    marker.touch(exist_ok=False)
    return False


def say(line: str, show: Show) -> Done:
    """Do nothing; return the process and what its threads are told."""
    show("say", 1, 2, line)
    return Done(line, {"process": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")})


def say_after(line: str, path: Path, show: Show) -> Done:
    """Wait until another task has made a file."""
    while not path.exists():
        time.sleep(0.01)
    return say(line, show)


def say_and_touch(line: str, path: Path, show: Show) -> Done:
    path.touch()
    return say(line, show)


def warn(line: str, show: Show) -> Done:
    warnings.warn(line, InrcodecWarning, stacklevel=1)
    return say(line, show)


def fail(show: Show) -> Done:
    raise UsageError("as it should")


def fail_as_nobody_expected(show: Show) -> Done:
    raise Unsendable(reason="a defect")


def die(show: Show) -> Done:
    """End as when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_once(line: str, marker: Path, show: Show) -> Done:
    """End as when memory runs out, but not a second time."""
    if not marker.exists():
        marker.touch()
        die(show)
    return say(line, show)


def work_for_ever(path: Path, show: Show) -> Done:
    """Keep a file while at work."""
    path.touch()
    try:
        while True:
            time.sleep(0.01)
    finally:
        path.unlink()
