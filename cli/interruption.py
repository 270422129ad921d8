"""Signals that end the program: what was begun is cleaned up before it goes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(BaseException):
    """The program was asked to end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def terminations() -> Iterator[None]:
    """Raise `Terminated` where a signal would end the process at once, so that temporary files do not stay.

    A signal that is ignored stays so: nohup has a run go on when its terminal is closed.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    # None is a handler that Python did not set and could not set again.
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    replaced = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in replaced:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals that end the program wait for the end of a few lines that must not be cut in two."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
