"""Signals that end the program: what was begun is cleaned up before it goes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from inrcodec.interruption import held_back

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(BaseException):
    """The program was asked to end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def terminations() -> Iterator[None]:
    """Raise `Terminated`, or KeyboardInterrupt for Ctrl-C, where a signal would end the process at once.

    So temporary files do not stay. Libraries turn what a handler raises into errors of their own, or lose it; the block
    ends with the signal's exception all the same. A signal that is ignored stays so: nohup has a run go on when its
    terminal is closed.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise _exception_of(number)

    # None is a handler that Python did not set and could not set again.
    handlers = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGINT)}
    replaced = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in replaced:
            signal.signal(number, end)
        yield
    except BaseException as error:
        if received:
            raise _exception_of(received[0]) from error
        raise
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
    if received:
        raise _exception_of(received[0])


def load_torch() -> None:
    """Import torch, if it is not yet there. Signals wait: torch's own code aborts on what they raise meanwhile."""
    with held_back():
        import torch  # noqa: F401


def _exception_of(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
