"""A process that does tasks: what `inrcodec.cli.pool` sends it, and what it answers."""

import copy
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from inrcodec.cli import console
from inrcodec.cli.batch import Outcome, Task, attempt, labelled
from inrcodec.cli.interruption import Terminated, terminations
from inrcodec.parallel import follow_parent


@dataclass(frozen=True)
class Order:
    """A task to be done. label: names it in its progress."""

    task: Task
    label: str


@dataclass(frozen=True)
class Ready:
    """The process is prepared. on_gpu: whether a GPU computes."""

    on_gpu: bool


@dataclass(frozen=True)
class Refused:
    """The process cannot be prepared."""

    error: Exception


@dataclass(frozen=True)
class Step:
    """A task has come so far: stage, how much of it is done, of how much, and details."""

    shown: tuple[str, float, float | None, str]


@dataclass(frozen=True)
class Finished:
    """A task is done or has failed, and has warned of something."""

    outcome: Outcome
    warnings: tuple[str, ...] = ()


Message = Ready | Refused | Step | Finished
"""What a process says to the one that started it."""


def serve(connection: Connection, prepare: Callable[[], bool], threads: int, live: bool, debug: bool) -> None:
    """Do tasks until the process that sends them closes the connection, ends this one or ends itself.

    threads: that compute, unless the environment says otherwise. live: whether anybody sees the steps.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torch, not yet imported, heeds this
    follow_parent()
    warnings: list[str] = []
    code = 0
    with console.shown_warnings(lambda: debug, warnings.append):
        # There is nothing to clean up yet, and torch's own code aborts on what a signal raises while it is imported.
        ready = attempt(prepare)
        try:
            with suppress(EOFError, OSError), terminations():  # a connection that is closed: nobody wants an answer
                _work(connection, ready, warnings, live)
        except Terminated as stop:
            code = 128 + stop.number
        except KeyboardInterrupt:  # where the terminal's signals cannot be kept away
            code = 130
    os._exit(code)  # all is closed, and torch would take a second to end


def _work(connection: Connection, ready: bool | Exception, warnings: list[str], live: bool) -> None:
    """Do tasks until the connection is closed. warnings: what was warned of is taken from there.

    Raises: EOFError, OSError at the end.
    """

    def show(*shown: Any) -> None:
        if live:
            connection.send(Step(shown))

    if isinstance(ready, Exception):
        connection.send(Refused(portable(ready)))
        return
    connection.send(Ready(ready))
    while True:
        order: Order = connection.recv()
        outcome = attempt(order.task, labelled(order.label, show))
        if isinstance(outcome, Exception):
            outcome = portable(outcome)
        connection.send(Finished(outcome, tuple(warnings)))
        warnings.clear()


def portable(error: Exception) -> Exception:
    """Return an error that can be sent, with the traceback that would be lost on the way as a note."""
    note = "".join(traceback.format_exception(error))
    with suppress(Exception):
        copy.deepcopy(error)  # which is made anew from its arguments, as at the other end
        error.add_note(note)
        return error
    substitute = RuntimeError(f"{type(error).__name__}: {error}")
    substitute.add_note(note)
    return substitute
