"""A Dask cluster whose workers do the tasks of one command. Needs the extra `inrcodec[dask]`."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any

from inrcodec.cli import console
from inrcodec.cli.batch import Outcome, Task, attempt
from inrcodec.cli.worker import Finished, portable
from inrcodec.errors import InrcodecError, UsageError

try:
    import distributed
    from distributed.comm import resolve_address
except ImportError as error:
    raise UsageError("--dask needs Dask: pip install 'inrcodec[dask]'") from error

PATIENCE = 10.0
"""Seconds that a scheduler has for its answer."""


class ClusterFailed(InrcodecError):
    """A cluster cannot be reached, is gone, or cannot do a task."""


class Cluster:
    """The workers of a Dask cluster. What they have not begun when the block ends is not done.

    Dask gives tasks to workers, and tasks of lost workers to others. A worker does one at a time, whatever its threads:
    libraries that read files are not made for more.

    address: of the scheduler, as "tcp://host:8786". prepare: what one worker calls first, to find what is wrong with
    the options.
    Raises: ClusterFailed if no scheduler answers.
    """

    def __init__(self, address: str, prepare: Callable[[], bool], *, line: console.ProgressLine, debug: bool) -> None:
        if not debug:  # what went wrong is said once, by us
            for name in ("distributed", "distributed.client"):  # the two that Dask gives a level
                logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address = address
        self._prepare = prepare
        self._line = line
        try:
            resolve_address(address)  # a client that never gets this far would complain when it is forgotten
            self._client = distributed.Client(address, timeout=PATIENCE)
        except Exception as error:
            raise ClusterFailed(
                f"no Dask scheduler answers at {address} ({_reason(error)}): give the address it shows at its start"
            ) from error

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.close()  # which forgets the tasks that are left

    def outcomes(self, tasks: Iterable[Task | Outcome], labels: Sequence[str]) -> Iterator[Finished]:
        """Do tasks, and yield in their order what became of each. labels: name the tasks.

        Raises: what is wrong with the options; ClusterFailed.
        """
        finished: dict[int, Finished] = {}
        sent: dict[distributed.Future, int] = {}
        for number, task in enumerate(tasks):
            if isinstance(task, Outcome):
                finished[number] = Finished(task)
            else:
                if not sent:
                    self._check()
                sent[self._client.submit(_do, task, pure=False)] = number
        done = iter(distributed.as_completed(sent))
        for shown in range(len(labels)):
            while shown not in finished:
                self._line.update("files", shown + len(finished), len(labels))
                future = next(done)
                finished[sent[future]] = self._result(future)
                future.release()
            yield finished.pop(shown)

    def _check(self) -> None:
        """Wait for a worker. Raises: what is wrong with the options, or with the workers."""
        self._line.update("wait for a worker", 0, None)
        try:
            ready = self._answer(self._client.submit(_prepared, self._prepare, pure=False))
        except ClusterFailed:
            raise
        except Exception as error:
            raise ClusterFailed(
                f"a worker of {self._address} cannot begin ({_reason(error)}): install the same inrcodec there"
            ) from error
        if isinstance(ready, Exception):
            raise ready

    def _result(self, future: distributed.Future) -> Finished:
        """Return what became of a task. Raises: ClusterFailed if nobody can say that any more."""
        try:
            return self._answer(future)
        except ClusterFailed:
            raise
        except distributed.KilledWorker:
            lost = "its workers ended too early, as they do when memory runs out: give them more, or encode it here"
            return Finished(ClusterFailed(lost))
        except Exception as error:
            return Finished(error)

    def _answer(self, future: distributed.Future) -> Any:
        """Return what a worker returned. Raises: ClusterFailed if the scheduler is gone; what the worker raised."""
        try:
            return future.result()
        except CancelledError as error:
            raise ClusterFailed(
                f"the Dask scheduler at {self._address} has ended: go on with --skip-existing when there is one again"
            ) from error


_ALONE = threading.Lock()
"""Held by the thread of a worker that does a task."""


def _prepared(prepare: Callable[[], bool]) -> bool | Exception:
    """Return what a worker is told when it begins, or the error; the worker itself would complain of one raised."""
    ready = attempt(prepare)
    return portable(ready) if isinstance(ready, Exception) else ready


def _do(task: Task) -> Finished:
    """Do a task, in a worker."""
    warnings: list[str] = []
    with _ALONE, console.shown_warnings(lambda: False, warnings.append):
        outcome = attempt(task, lambda *_: None)
    return Finished(portable(outcome) if isinstance(outcome, Exception) else outcome, tuple(warnings))


def _reason(error: BaseException) -> str:
    """Return what an error says, in a few words."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
