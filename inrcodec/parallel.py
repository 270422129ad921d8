"""Processes that share the work on one file: this one and some helpers, which live until this one ends."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from inrcodec.errors import InrcodecError

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 8
"""Results that are kept while one before them is waited for: helpers take seconds to start."""

LEAST = 2
"""Tasks that there must be for every process."""


def shared(
    function: Callable[[Task], Result],
    remote: Callable[[Task], Result],
    tasks: Iterable[Task],
    count: int,
    processes: int,
    ahead: int = AHEAD,
) -> Iterator[Result]:
    """Yield what a function returns for each of `count` tasks, in their order, computed by so many processes at most.

    function: does a task here. remote: does it in a helper; it, tasks and results can be pickled. Tasks are taken one
    by one, so that few are in memory: some for every process, and `ahead` more. Programs that ask for more than one
    process guard their main module, as `multiprocessing` says.
    Raises: InrcodecError if a helper is lost.
    """
    wanted, processes = processes, min(processes, count // LEAST)
    if processes <= 1:
        yield from map(function, tasks)
        return
    helpers = _helpers(wanted - 1)
    results: deque[Future[Result]] = deque()
    sent: set[Future[Result]] = set()
    each = 1
    try:
        for left, task in zip(range(count, 0, -1), tasks, strict=True):
            waiting = {result for result in sent if not result.done()}
            if len(waiting) < len(sent) and left > processes:
                each = 2  # helpers that have begun shall have a task when they are done with one
            sent = waiting
            if len(sent) < each * (processes - 1):
                results.append(helpers.submit(remote, task))
                sent.add(results[-1])
            else:
                results.append(_done(function(task)))
            while results and (results[0].done() or len(results) > ahead + processes):
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
    except BrokenProcessPool as error:
        end_helpers()
        raise InrcodecError(
            "a process that took part ended too early, as it does when memory runs out: use one process (--jobs 1)"
        ) from error
    finally:
        for result in results:  # where nobody wants the rest
            result.cancel()


def _done(value: Result) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(value)
    return future


_POOLS: dict[int, ProcessPoolExecutor] = {}
"""The helpers there are, of one pool, by their number."""


def _helpers(count: int) -> ProcessPoolExecutor:
    """Return so many helpers, which start when there is something to do."""
    if count not in _POOLS:
        end_helpers()
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        _POOLS[count] = ProcessPoolExecutor(count, context, initializer=_begin)
    return _POOLS[count]


def end_helpers() -> None:
    """End all helpers, whatever they do: a program that ends does not wait for them."""
    while _POOLS:
        _, pool = _POOLS.popitem()
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def _begin() -> None:
    """Prepare a helper: it ends with the process that started it, not by what the terminal sends to both."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    follow_parent()
    import torch

    torch.set_num_threads(1)


def follow_parent() -> None:
    """See to it that this process ends when the one that started it has ended, whatever ended that."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
