"""Processes that do the tasks of one command at the same time."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType

from inrcodec.cli.batch import Outcome, Task
from inrcodec.cli.console import ProgressLine
from inrcodec.cli.cores import usable_cores
from inrcodec.cli.worker import Finished, Message, Order, Ready, Refused, Step, serve
from inrcodec.errors import InrcodecError
from inrcodec.interruption import held_back

PATIENCE = 10.0
"""Seconds that a process has for cleaning up before it is killed."""


class WorkerLost(InrcodecError):
    """A process ended before its task did, as the system ends processes when memory runs out."""


@dataclass(eq=False)
class _Worker:
    """A process. ready: whether it is prepared. doing: its task with its number, None if it has none."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    doing: tuple[int, Task] | None = None


class Pool:
    """Processes that do tasks, each with its share of the cores. They end with the block.

    The first begins alone: it finds what is wrong with the options, and whether a GPU computes. The others start when
    there are tasks for them. When one is lost, there may not be enough memory for all, so there is one fewer from then
    on.

    prepare: what each process calls before its first task; says whether a GPU computes.
    jobs: the most processes at a time. jobs_on_gpu: the same where a GPU computes.
    """

    def __init__(
        self, prepare: Callable[[], bool], jobs: int, *, jobs_on_gpu: int, line: ProgressLine, debug: bool
    ) -> None:
        self._prepare = prepare
        self._jobs = jobs
        self._jobs_on_gpu = jobs_on_gpu
        self._line = line
        self._debug = debug
        self._allowed = 1
        self._any_ready = False
        self._workers: list[_Worker] = []
        self._returned: list[tuple[int, Task]] = []
        self._finished: dict[int, Finished] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with held_back():  # a second Ctrl-C does not keep the processes from being ended
            for worker in self._workers:
                worker.connection.close()
                worker.process.terminate()
            until = time.monotonic() + PATIENCE
            for worker in self._workers:
                _join(worker.process, until)

    def outcomes(self, tasks: Iterable[Task | Outcome], labels: Sequence[str]) -> Iterator[Finished]:
        """Do tasks, and yield in their order what became of each.

        tasks: the next one is taken when a process can do it; one that has an outcome already keeps that.
        labels: name the tasks in their progress.
        """
        numbered = enumerate(tasks)
        shown = 0
        while shown < len(labels):
            self._line.update("files", shown + len(self._finished), len(labels), row=len(labels))
            if shown in self._finished:
                yield self._finished.pop(shown)
                shown += 1
            elif self._busy() < self._allowed and (following := self._next(numbered)):
                number, task = following
                if isinstance(task, Outcome):
                    self._finished[number] = Finished(task)
                else:
                    self._begin(number, task, labels[number])
            else:
                self._listen()

    def _busy(self) -> int:
        return sum(worker.doing is not None for worker in self._workers)

    def _next(self, numbered: Iterator[tuple[int, Task | Outcome]]) -> tuple[int, Task | Outcome] | None:
        return self._returned.pop() if self._returned else next(numbered, None)

    def _begin(self, number: int, task: Task, label: str) -> None:
        """Give a task to a process that has none."""
        idle = (worker for worker in self._workers if worker.doing is None)
        worker = next(idle, None) or self._start()
        worker.doing = number, task
        with suppress(OSError):  # that it has ended is heard of later
            worker.connection.send(Order(task, label))

    def _start(self) -> _Worker:
        """Start a process."""
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        own, others = context.Pipe()
        threads = max(1, usable_cores() // self._jobs)
        arguments = (others, self._prepare, threads, self._line.live, self._debug)
        worker = _Worker(context.Process(target=serve, args=arguments, daemon=True), own)
        with _deaf_to_the_terminal():
            worker.process.start()
            self._workers.append(worker)
        others.close()  # that the process has it no more is the end of the connection
        return worker

    def _listen(self) -> None:
        """Wait until a process has something to say, and hear it."""
        busy = [worker for worker in self._workers if worker.doing is not None]
        talking = wait([worker.connection for worker in busy])
        for worker in [worker for worker in busy if worker.connection in talking]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._lose(worker, None)
            else:
                self._hear(worker, message)

    def _hear(self, worker: _Worker, message: Message) -> None:
        """Take what a process says. Raises: what is wrong with the options."""
        assert worker.doing is not None
        match message:
            case Ready(on_gpu):
                worker.ready = True
                if not self._any_ready:
                    self._any_ready = True
                    self._allowed = min(self._jobs, self._jobs_on_gpu) if on_gpu else self._jobs
            case Refused(error):
                if not self._any_ready:
                    raise error
                self._lose(worker, error)
            case Step(shown):
                self._line.update(*shown, row=worker.doing[0])
            case Finished():
                self._end(worker, message)

    def _end(self, worker: _Worker, finished: Finished) -> None:
        """Note what became of the task of a process."""
        assert worker.doing is not None
        number, _ = worker.doing
        self._line.remove(number)
        self._finished[number] = finished
        worker.doing = None

    def _lose(self, worker: _Worker, error: Exception | None) -> None:
        """Go on without a process. error: why it could not be prepared, None if it ended without a word."""
        assert worker.doing is not None
        _join(worker.process, time.monotonic() + PATIENCE)
        self._workers.remove(worker)
        self._allowed = max(1, self._allowed - 1)
        if self._workers and not worker.ready:  # its task is not to blame
            self._returned.append(worker.doing)
        else:
            self._end(worker, Finished(error or _lost(worker.process)))


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Keep Ctrl-C and a closed terminal from processes started in the block: this one ends them as it should be."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which else lets signals through when it starts
    with held_back():  # another thread may take what this one is deaf to
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(process: SpawnProcess, until: float) -> None:
    """Wait for the end of a process, and make one that takes too long."""
    process.join(max(0.0, until - time.monotonic()))
    process.kill()
    process.join()


def _lost(process: SpawnProcess) -> WorkerLost:
    """Return what to say of a process that has ended."""
    code = process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return WorkerLost(f"its process ended too early ({how}), as it does when memory runs out: try it with --jobs 1")
