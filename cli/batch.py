"""The files of one command: done one after another, by processes or by a cluster; shown in their order, counted."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from inrcodec.cli import console
from inrcodec.cli.cores import usable_cores
from inrcodec.cli.interruption import load_torch
from inrcodec.cli.places import Input, Outputs
from inrcodec.errors import InrcodecError

if TYPE_CHECKING:
    from inrcodec.cli.worker import Finished

Show = Callable[[str, float, float | None, str], None]
"""Shows a stage, how much of it is done, of how much (None: nobody knows), and details."""


@dataclass(frozen=True)
class Done:
    """What became of a file.

    line, content: say so, to people and as JSON. read, written: bytes of the input and of the output, if any.
    """

    line: str
    content: dict[str, Any]
    read: int = 0
    written: int = 0
    skipped: bool = False


Task = Callable[[Show], Done]
"""What is to be done with a file. It can be pickled, so that another process does it."""

Outcome = Done | Exception

T = TypeVar("T")


class Batch:
    """Does what a command asks for with each of its inputs. One that fails does not stop the others.

    verb: what is done with them, as "encoded".
    several: whether to go on after a failure; a command's only input has its error raised.
    jobs: the most processes at a time; None is as many as there are cores, but one where a GPU computes.
    device, init: what computes, and the initializations that are given, as the user names them.
    dask: the address of the scheduler of a Dask cluster that does it all; None for this machine.
    """

    def __init__(
        self,
        context: typer.Context,
        verb: str,
        *,
        several: bool,
        jobs: int | None,
        device: str,
        init: Sequence[str],
        json: bool,
        quiet: bool,
        dask: str | None = None,
    ) -> None:
        self._debug: bool = context.obj.debug
        self._verb = verb
        self._several = several
        self._jobs = jobs
        self._device = device
        self._init = tuple(init)
        self._dask = dask
        self._json = json
        self._quiet = quiet
        self._failed = 0
        self._done: list[Done] = []

    def run(self, inputs: Sequence[Input], plan: Callable[[Input], Task | Done]) -> None:
        """Do all inputs, show in their order what became of each, and at the end how many were done.

        plan: returns what is to be done with an input, when its turn comes.
        Raises: UsageError, InitializationError for what all inputs need; the error of an only input; typer.Exit of
            code 1 if any of several failed.
        """
        jobs = min(self._wanted_jobs(), len(inputs))
        labels = [each.source.name for each in inputs]
        if self._several:
            labels = [f"{number}/{len(inputs)} {name}" for number, name in enumerate(labels, 1)]
        tasks = (attempt(plan, each) for each in inputs)
        if self._dask is not None:
            outcomes = self._on_cluster(tasks, labels, self._dask)
        else:
            outcomes = self._pooled(tasks, labels, jobs) if jobs > 1 else self._alone(tasks, labels)
        with closing(outcomes):
            for each, outcome in zip(inputs, outcomes, strict=True):
                with self._item(each.source):
                    self._show(outcome)
        self._finish()

    def _wanted_jobs(self) -> int:
        if self._jobs is None:
            return 1 if self._device.startswith("cuda") else usable_cores()
        return self._jobs

    def _alone(self, tasks: Iterable[Task | Outcome], labels: Sequence[str]) -> Generator[Outcome, None, None]:
        """Do tasks in this process."""
        prepared = False
        for task, label in zip(tasks, labels, strict=True):
            if isinstance(task, Outcome):
                yield task
                continue
            if not prepared:
                load_torch()
                prepare(self._device, self._init)
                prepared = True
            with console.ProgressLine(quiet=self._quiet) as line:
                outcome = attempt(task, labelled(label, line.update))
            yield outcome

    def _pooled(
        self, tasks: Iterable[Task | Outcome], labels: Sequence[str], jobs: int
    ) -> Generator[Outcome, None, None]:
        """Do tasks in several processes."""
        from inrcodec.cli.pool import Pool

        with (
            console.ProgressLine(quiet=self._quiet) as line,
            Pool(
                partial(prepare, self._device, self._init),
                jobs,
                jobs_on_gpu=self._jobs or 1,
                line=line,
                debug=self._debug,
            ) as pool,
        ):
            yield from self._shown(pool.outcomes(tasks, labels), line)

    def _on_cluster(
        self, tasks: Iterable[Task | Outcome], labels: Sequence[str], address: str
    ) -> Generator[Outcome, None, None]:
        """Have a Dask cluster do tasks."""
        from inrcodec.cli.cluster import Cluster

        with (
            console.ProgressLine(quiet=self._quiet) as line,
            Cluster(address, partial(prepare, self._device, self._init), line=line, debug=self._debug) as cluster,
        ):
            yield from self._shown(cluster.outcomes(tasks, labels), line)

    def _shown(self, results: "Iterable[Finished]", line: console.ProgressLine) -> Generator[Outcome, None, None]:
        """Yield what became of tasks elsewhere, after what was warned of there."""
        for finished in results:
            with line.aside():
                for warning in finished.warnings:
                    console.say(warning)
                yield finished.outcome

    @contextmanager
    def _item(self, source: Path) -> Iterator[None]:
        """Show an error of the block in one line that names the input, and count it."""
        try:
            yield
        except Exception as error:
            if not self._several or (self._debug and not isinstance(error, InrcodecError)):
                raise
            self._failed += 1
            name, message = str(source), console.message_of(error)
            console.error(message if name in message else f"{name}: {message}")

    def _show(self, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        if self._json:
            console.json_data(outcome.content)
        if not self._quiet:
            console.say(outcome.line)
        self._done.append(outcome)

    def _finish(self) -> None:
        """Say how many were done. Raises: typer.Exit of code 1 if any failed."""
        if len(self._done) + self._failed > 1 and not self._quiet:
            console.say(self._summary())
        if self._failed:
            raise typer.Exit(1)

    def _summary(self) -> str:
        skips = sum(each.skipped for each in self._done)
        counts = {self._verb: len(self._done) - skips, "skipped": skips, "failed": self._failed}
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == self._verb)
        read, written = (sum(getattr(each, name) for each in self._done) for name in ("read", "written"))
        size = f"; {read:,} -> {written:,} bytes" if written else f"; {read:,} bytes" if read else ""
        return f"{sum(counts.values())} files: {shown}{size}"


def planned(outputs: Outputs, each: Input, work: Callable[[Path, Path, Show], Done]) -> Task | Done:
    """Return what is to be done with an input: `work` with the files to read and to write, or nothing.

    Raises: UsageError if the output cannot be written.
    """
    source, target = each.source, outputs.claim(each.source, each.name)
    if outputs.keeps(target):
        content = {"input": str(source), "output": str(target), "skipped": "exists"}
        return Done(f"{source} -> {target}: skipped: exists", content, skipped=True)
    return partial(work, source, target)


def prepare(device: str, init: Sequence[str]) -> bool:
    """Check what all files need, and say whether a GPU computes. Raises: UsageError, InitializationError."""
    from inrcodec.device import pick_device
    from inrcodec.registry import named_initialization

    chosen = pick_device(device)
    for name in init:
        named_initialization(name)
    return chosen.type != "cpu"


def attempt(call: Callable[..., T], *arguments: object) -> T | Exception:
    """Return what a call returns, or the error that it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return error


def labelled(label: str, show: Show) -> Show:
    """Return what shows the progress of the file that a label names."""
    return lambda stage, done, total, detail: show(f"{label}: {stage}", done, total, detail)
