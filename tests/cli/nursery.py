"""Runs of the program that can be killed: forks of a process that has imported all, so that a run begins with its work.

As a program it takes a line of JSON for each run: {"argv", "folder", "temporary", "input", "slow", "stop"}. It answers
with the run's exit code when it has ended.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

SLOW_DISK = 0.03
"""Seconds that every step of writing takes in a slow run, so that moments of writing are hit."""


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    code: the exit code, or less the number of the signal that ended it. seconds: until the program returned it; None if
    it did not. Python itself takes a while to end after that.
    """

    code: int
    seconds: float | None
    errors: str


class Nursery:
    """Where runs are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "temporary"
        self._errors = folder / "errors"
        self._done = folder / "done"
        self.temporary.mkdir(parents=True)

    def __enter__(self) -> "Nursery":
        command = [sys.executable, "-P", __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ERRORS": str(self._errors), "DONE": str(self._done)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def run(
        self,
        *argv: object,
        folder: Path,
        stop: tuple[float, int] | None = None,
        source: Path | None = None,
        temporary: Path | None = None,
        slow: bool = False,
    ) -> Ended:
        """Run the program until it has ended. stop: after how many seconds it is sent which signal."""
        asked: dict[str, Any] = {"argv": [str(each) for each in argv], "folder": str(folder), "slow": slow}
        asked |= {"temporary": str(temporary or self.temporary), "input": str(source or os.devnull), "stop": stop}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._done.unlink(missing_ok=True)
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        seconds = float(self._done.read_text() or 0) if self._done.exists() else None
        return Ended(code, seconds, self._errors.read_text())


def serve() -> int:
    """Make the runs that are asked for. A run itself returns its exit code from here, as a program does."""
    import tempfile

    import PIL.PngImagePlugin  # noqa: F401

    import inrcodec.files
    import inrcodec.latents.codec
    import inrcodec.weights.codec  # noqa: F401
    from inrcodec.cli import main
    from inrcodec.meta import evaluation, run, weight_trainer

    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background do not have it
    run.CHECKPOINT_SECONDS = 0.0
    weight_trainer.PRIOR_PATCHES = 8
    evaluation.WEIGHT_PATCHES = 2
    for line in iter(sys.stdin.readline, ""):  # one line at a time: nothing of the next is taken by a run
        asked = json.loads(line)
        process = os.fork()
        if process:
            if asked["stop"] is not None:
                seconds, number = asked["stop"]
                time.sleep(seconds)
                os.kill(process, number)  # one that has ended is a zombie until it is waited for
            print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
            continue
        errors = os.open(os.environ["ERRORS"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(asked["input"], os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        os.chdir(asked["folder"])
        os.environ["TMPDIR"] = asked["temporary"]
        tempfile.tempdir = None
        if asked["slow"]:
            os.fsync, os.replace = _slow(os.fsync), _slow(os.replace)
        began = time.monotonic()
        code = main(asked["argv"])
        Path(os.environ["DONE"]).write_text(str(time.monotonic() - began))
        return code
    return 0


def _slow(call: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(SLOW_DISK)
        result = call(*arguments, **options)
        time.sleep(SLOW_DISK)
        return result

    return slow


if __name__ == "__main__":
    sys.exit(serve())
