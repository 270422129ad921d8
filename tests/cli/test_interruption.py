"""What the program makes of signals that end it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import photo

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


STRUCK = """
import atexit, os, signal, sys

number, where, *argv = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background do not have it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nor do those under nohup

def strike():
    os.kill(os.getpid(), int(number))

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            sys.meta_path.remove(self)
            strike()

reached = []

def watch(frame, event, argument):
    if event == "c_call" and argument.__name__ == where:
        reached.append(where)
    elif event == "call" and reached:
        sys.setprofile(None)
        strike()

from inrcodec.cli import main
sys.argv[1:] = argv
if where == "end":
    atexit.register(strike)
elif where.startswith("_"):
    sys.setprofile(watch)
else:
    sys.meta_path.insert(0, Finder())
sys.exit(main())
"""
"""Runs the program, and sends it a signal: when a module is imported, when C code calls Python, or when Python ends."""

AT_THE_START = [
    *((signal.SIGINT, where) for where in ("inrcodec.cli.app", "torch", "torch.cuda", "_c10d_init", "inrcodec.files")),
    *((number, where) for number in ENDING for where in ("typer", "_c10d_init")),
]
ARGV = {
    "encode": ["photo.png", "--effort", "fast"],
    "decode": ["coded.inr"],
    "info": ["coded.inr"],
    "inits": [],
    "meta-train": ["--modality", "image"],
}
LINES = {signal.SIGINT: "", signal.SIGTERM: "inrcodec: error: stopped by SIGTERM\n"}
LINES[signal.SIGHUP] = LINES[signal.SIGTERM].replace("TERM", "HUP")


def struck(number: signal.Signals, where: str, *argv: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program, and send it a signal somewhere. It runs in an empty folder but for a picture and its file."""
    photo(folder / "photo.png")
    (folder / "coded.inr").write_bytes(b"not read so early")
    command = [sys.executable, "-P", "-c", STRUCK, str(int(number)), where, *map(str, argv)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    assert {path.name for path in folder.iterdir()} == {"photo.png", "coded.inr"}
    return ended


@pytest.mark.parametrize(("number", "where"), AT_THE_START)
def test_a_signal_at_the_start_ends_as_later_ones_do(number: signal.Signals, where: str, tmp_path: Path) -> None:
    ended = struck(number, where, "encode", *ARGV["encode"], folder=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", LINES[number])


@pytest.mark.parametrize("command", ["decode", "info", "inits", "meta-train"])
def test_ctrl_c_at_the_start_of_a_command(command: str, tmp_path: Path) -> None:
    where = "inrcodec.coding.container" if command in ("info", "decode") else "_c10d_init"
    ended = struck(signal.SIGINT, where, command, *ARGV[command], folder=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_ctrl_c_while_python_ends_shows_nothing(tmp_path: Path) -> None:
    ended = struck(signal.SIGINT, "end", "--version", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
