"""What is shown while something goes on."""

import io
import re
import sys

import pytest

from inrcodec.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def made_standard_error(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal that is standard error. (A fixture would come before pytest's own replacement.)"""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def lines(terminal: Terminal) -> list[str]:
    """Return what was written, line by line, without what steers the terminal; what was written before is forgotten."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "")
    terminal.seek(0)
    terminal.truncate()
    return [line.strip() for line in text.split("\n") if line.strip()]


def test_rows_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = made_standard_error(monkeypatch)
    with console.ProgressLine(quiet=False) as line:
        assert line.live
        line.update("files", 1, 3, row=3)
        line.update("1/3 a: adapt", 4, 8, "30 dB", row=0)
        line.update("2/3 b: adapt", 2, 8, row=1)
        line.update("1/3 a: code", 0, None, row=0)
        line.update("2/3 b: adapt", 5, 8, row=1)
        lines(terminal)
        with line.aside():
            console.say("in between")
            *rows, last = lines(terminal)
        shown = [re.findall(r"^(.+?) +[━╸╺]+ +(\S+)", row)[0] for row in rows[-3:]]
        assert shown == [("1/3 a: code", "0/?"), ("2/3 b: adapt", "5/8"), ("files", "1/3")]
        assert last == "in between"
        line.remove(0)
        line.remove(0)
        lines(terminal)
    assert not any("a:" in row for row in lines(terminal))


def test_data_goes_where_it_is_sent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """To a file, for one, although the terminal shows a live line."""
    terminal = made_standard_error(monkeypatch)
    with console.ProgressLine(quiet=False) as line:
        assert line.live
        line.update("adapt", 1, 2)
        console.json_data({"bytes": 1})
    assert capsys.readouterr().out == '{"bytes": 1}\n'
    assert "bytes" not in terminal.getvalue()


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_live_in_a_log(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with console.ProgressLine(quiet=quiet) as line, line.aside():
        assert not line.live
        line.update("adapt", 1, 2)
        line.remove(0)
    assert log.getvalue() == ""
