"""What the program makes of signals that end it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from inrcodec.cli.interruption import Terminated, terminations
from inrcodec.interruption import held_back

ENDING = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(params=ENDING)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """Return a signal whose handler may be set."""
    before = signal.getsignal(request.param)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_ends_the_block(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    with pytest.raises(Terminated, match=number.name) as stop, terminations():
        assert signal.getsignal(number) != signal.SIG_DFL
        os.kill(os.getpid(), number)
    assert stop.value.number == number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with terminations():
        assert signal.getsignal(number) == signal.SIG_IGN
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_handler_that_python_did_not_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("replaced"))
    with terminations():
        pass


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    script = (
        "import os, signal\n"
        "from inrcodec.cli.interruption import terminations\n"
        "with terminations():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('went on')"
    )
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-P", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went on\n", "")


def test_a_signal_waits_for_the_end_of_what_must_not_be_cut(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    done = []
    with pytest.raises(Terminated), terminations(), held_back():
        os.kill(os.getpid(), number)
        done.append("all")
    assert done == ["all"]
    assert signal.getsignal(number) == signal.SIG_DFL


@pytest.mark.parametrize("swallows", [True, False])
def test_a_library_does_not_lose_the_signal(number: signal.Signals, swallows: bool) -> None:
    signal.signal(number, signal.SIG_DFL)
    with pytest.raises(Terminated), terminations():
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            if not swallows:
                raise RuntimeError("of the library") from error
