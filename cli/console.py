"""What the commands show: data on standard output, everything else on standard error."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from inrcodec.errors import InrcodecError, InrcodecWarning

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

REPORT_SECONDS = 60.0
"""Time between the lines of a long run's progress where standard error is a log and not a terminal."""


def data(text: str) -> None:
    """Print to standard output what the command was asked for."""
    typer.echo("\n".join(map(escaped, text.split("\n"))))


def escaped(text: str) -> str:
    """Return a text with all that is not printable escaped, so that no name in a file can steer the terminal."""
    # Names of files need not be valid text either.
    valid = text.encode(errors="backslashreplace").decode()
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in valid)


def json_data(content: dict[str, Any] | list[Any]) -> None:
    """Print one line of JSON to standard output."""
    typer.echo(json.dumps(content, allow_nan=False))


def say(text: str) -> None:
    """Print a line for the user to standard error."""
    typer.echo(escaped(text), err=True)


def error(message: str) -> None:
    """Print a failure, in one line whatever the message is."""
    say(f"inrcodec: error: {' '.join(message.split())}")


@contextmanager
def shown_warnings(debug: Callable[[], bool], show: Callable[[str], object] = say) -> Iterator[None]:
    """Show our own warnings in a line each, and those of libraries only when debugging."""

    def take(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, InrcodecWarning) or debug():
            show(f"inrcodec: warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = take
        yield


def message_of(failure: Exception) -> str:
    """Return what to tell a user of a failure."""
    if isinstance(failure, InrcodecError):
        return str(failure)
    if isinstance(failure, MemoryError):
        return f"not enough memory ({failure}): ask for a smaller resolution or encode smaller pieces"
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename or 'standard output'}: {failure.strerror}"
    return f"unexpected {type(failure).__name__} ({failure}): --debug before the command shows where"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, to_stderr: bool = False) -> None:
    """Print a table, as wide as it needs to be where nobody looks at it in a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=to_stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 1 << 12
    shown = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(*map(escaped, row))
    console.print(shown)


class ProgressLine:
    """A live line on standard error where that is a terminal: stage, bar, details, time left; else nothing.

    It has a row for each thing that goes on at once, most often one. live: whether anything is shown live.
    quiet: never show anything. reports: where standard error is no terminal, print a line now and then.
    """

    def __init__(self, *, quiet: bool, reports: bool = False) -> None:
        self.live = not quiet and sys.stderr.isatty()
        self._reports = not quiet and not self.live and reports
        self._progress: Progress | None = None
        self._rows: dict[int, tuple[str, TaskID]] = {}
        self._began = self._reported = time.monotonic()

    def __enter__(self) -> "ProgressLine":
        if self.live:
            from rich.console import Console, RenderableType
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            class Rows(Progress):
                def get_renderables(self) -> Iterable[RenderableType]:
                    yield self.make_tasks_table(sorted(self.tasks, key=lambda task: task.fields["row"]))

            self._progress = Rows(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # else what belongs into a file would go to the terminal
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, stage: str, done: float, total: float | None, detail: str = "", *, row: int = 0) -> None:
        """Show that `done` of `total` of a stage is done; None where nobody knows how much there is to do."""
        if self._progress is not None:
            if self._rows.get(row, ("",))[0] != stage:
                # A task of its own: Rich cannot take back a total once it has one, nor the speed.
                self.remove(row)
                self._rows[row] = stage, self._progress.add_task(stage, total=total, detail=detail, row=row)
            self._progress.update(self._rows[row][1], completed=done, detail=detail)
        elif self._reports and total and time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            say(f"{stage} {done:g} of {total:g}, {detail}, {self._reported - self._began:.0f} s")

    def remove(self, row: int) -> None:
        """Take a row away."""
        if self._progress is not None and row in self._rows:
            self._progress.remove_task(self._rows.pop(row)[1])

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for lines that stay."""
        if self._progress is not None:
            self._progress.stop()
        yield
        if self._progress is not None:
            self._progress.start()
