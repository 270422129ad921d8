"""Commands that take several files: in several processes, in order, and on after a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Run, is_one_error, photo, program

from inrcodec.cli import batch, pool

TWO = ["--steps", "1", "--device", "cpu", "--init", "tiny-image", "--jobs", "2"]
ENDLESS = [*TWO, "--steps", "1000000"]


@pytest.fixture
def pictures(folder: Path) -> list[Path]:
    """Return pictures in the folder `in`, all different."""
    return [photo(Path("in", f"{name}.png"), seed) for seed, name in enumerate("abcd", 1)]


def test_many_at_once_are_what_one_after_another_is(run: Run, pictures: list[Path]) -> None:
    pictures[1].write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    code, out, err = run("encode", "in", "-o", "out", "--json", *TWO)
    assert code == 1
    names = [str(Path("in", f"{name}.png")) for name in "acd"]
    assert [json.loads(line)["input"] for line in out.splitlines()] == names
    shown = err.splitlines()
    assert [line.split(" -> ")[0] for line in (shown[0], *shown[2:4])] == names
    assert shown[1].startswith("inrcodec: error: ") and "b.png" in shown[1]
    assert shown[4].startswith("4 files: 3 encoded, 1 failed; ") and len(shown) == 5

    assert run("encode", "in", "-o", "single", *TWO, "--jobs", 1)[0] == 1
    assert contents("out") == contents("single") and len(contents("out")) == 3

    code, _, err = run("decode", "out", "-o", "decoded", "--jobs", 2)
    assert code == 0 and err.splitlines()[-1].startswith("3 files: 3 decoded; ")
    assert run("decode", "out", "-o", "decoded-single", "--jobs", 1)[0] == 0
    assert contents("decoded") == contents("decoded-single") and set(contents("decoded")) == {"a.png", "c.png", "d.png"}
    code, _, err = run("verify", "out", "--jobs", 2)
    assert code == 0 and [line.split(":")[0] for line in err.splitlines()[:3]] == [
        str(Path("out", f"{name}.inr")) for name in "acd"
    ]


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_what_exists_is_skipped(run: Run, pictures: list[Path]) -> None:
    Path("out").mkdir()
    there = Path("out", "b.inr")
    there.write_bytes(b"there")
    command = ["encode", *pictures[:3], "-o", "out", *TWO, "--jobs", 1]
    code, _, err = run(*command)
    assert code == 1 and f"{there} is there already" in err
    Path("out", "a.inr").unlink()
    code, out, err = run(*command, "--skip-existing", "--json")
    line = f"{pictures[1]} -> {there}: skipped: exists"
    assert code == 0 and err.splitlines()[1:3] == [line, f"{pictures[2]} -> {Path('out', 'c.inr')}: skipped: exists"]
    skipped = {"input": str(pictures[1]), "output": str(there), "skipped": "exists"}
    assert json.loads(out.splitlines()[1]) == skipped
    assert err.splitlines()[-1].startswith("3 files: 1 encoded, 2 skipped; ")
    assert there.read_bytes() == b"there"

    there.unlink()
    assert run("decode", "out", "-o", "decoded", "--jobs", 1)[0] == 0
    Path("decoded", "a.png").unlink()
    code, _, err = run("decode", "out", "-o", "decoded", "--jobs", 1, "--skip-existing")
    assert code == 0 and err.splitlines()[-1].startswith("2 files: 1 decoded, 1 skipped; ")


def test_one_file_can_be_skipped_too(run: Run, pictures: list[Path]) -> None:
    Path("a.inr").write_bytes(b"there")
    line = f"{pictures[0]} -> a.inr: skipped: exists\n"
    assert run("encode", pictures[0], "-o", "a.inr", "--skip-existing", *TWO) == (0, "", line)
    code, _, err = run("encode", pictures[0], "-o", "a.inr", "--skip-existing", "--force", *TWO)
    assert code == 2 and is_one_error(err, "--force", "--skip-existing")
    assert Path("a.inr").read_bytes() == b"there"


def test_inputs_of_one_name_are_told_apart_from_a_stop(run: Run, pictures: list[Path]) -> None:
    """The second is an error also where the first one's output makes it look done."""
    files = [pictures[0], photo(Path("in", "deep", "a.png"), 9)]
    for _ in range(2):
        code, _, err = run("encode", *files, "-o", "out", "--skip-existing", *TWO, "--jobs", 1)
        assert code == 1 and f"{Path('out', 'a.inr')} is the output of another input too" in err


def test_skipping_all_is_quick(pictures: list[Path]) -> None:
    Path("out").mkdir()
    for path in pictures:
        Path("out", f"{path.stem}.inr").touch()
    for jobs in "12":
        script = (
            "import sys; from inrcodec.cli import main\n"
            f"code = main(['encode', 'in', '-o', 'out', '--skip-existing', '--jobs', '{jobs}'])\n"
            "sys.exit(code or 'torch' in sys.modules)"
        )
        shown = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, timeout=60, check=False)
        assert shown.returncode == 0 and shown.stderr.endswith(b"4 files: 0 encoded, 4 skipped\n")


@pytest.mark.parametrize("option", [("--device", "abacus"), ("--init", "nobody"), ("--jobs", "0")])
def test_wrong_options_are_one_error(run: Run, pictures: list[Path], option: tuple[str, str]) -> None:
    code, out, err = run("encode", *pictures, "-o", "out", *TWO, *option)
    assert code in (1, 2) and out == "" and is_one_error(err) and (option[1] in err or option[0] in err)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("cores", "files", "options"),
    [(1, "in", ()), (8, Path("in", "a.png"), ()), (8, "in", ("--jobs", 1)), (8, "in", ("--device", "cuda"))],
    ids=str,
)
def test_one_at_a_time_needs_no_other_process(
    run: Run,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    files: object,
    options: tuple[object, ...],
) -> None:
    monkeypatch.setattr(batch, "usable_cores", lambda: cores)
    monkeypatch.setattr(pool.Pool, "__init__", lambda *_, **__: pytest.fail("a pool"))
    code, _, err = run("encode", files, "-o", "out/", "--steps", 0, "--init", "tiny-image", *options)
    assert code == 0 or "device 'cuda' cannot be used" in err


def test_several_files_to_decode_need_a_folder(run: Run, folder: Path) -> None:
    for name in "ab":
        Path(f"{name}.inr").write_bytes(b"no codec")
    for output in ([], ["-o", "-"], ["-o", "a.inr"]):
        code, out, err = run("decode", "a.inr", "b.inr", *output)
        assert (code, out) == (2, "") and is_one_error(err, "folder"), err
    code, _, err = run("decode", "-", "a.inr", "-o", "out/")
    assert code == 2 and is_one_error(err, "standard input")
    Path("empty").mkdir()
    code, _, err = run("decode", "empty", "-o", "out/")
    assert code == 2 and is_one_error(err, "empty")


# Runs that are stopped


def started(*argv: object) -> "subprocess.Popen[str]":
    """Start the program as a shell does: in a process group of its own, and to be stopped by the closed terminal."""
    # What ignores a signal hands that down, as nohup and background jobs do; then there would be nothing to wait for.
    stoppable = (
        "import os, signal, sys; [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)]; "
        "os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-c", stoppable, sys.executable, "-m", "inrcodec", *map(str, argv)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def workers(process: "subprocess.Popen[str]") -> set[int]:
    """Return the processes that do the tasks."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}
    except FileNotFoundError:
        if not Path("/proc/self/task").exists():
            pytest.skip("the system does not tell the children of a process")
        return set()


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_gone(process: int) -> bool:
    """Say whether a process has ended, whether or not anybody has asked for its exit code."""
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


STOPS = {
    "Ctrl-C": (os.killpg, "SIGINT", 130),
    "Ctrl-C twice": (lambda process, number: [os.killpg(process, number) for _ in range(2)], "SIGINT", 130),
    "a closed terminal": (os.killpg, "SIGHUP", 129),
    "kill": (os.kill, "SIGTERM", 143),
    "kill -9": (os.kill, "SIGKILL", -9),
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_ends_all_processes(tiny_installed: Path, pictures: list[Path], stop: str) -> None:
    send, name, code = STOPS[stop]
    with started("encode", "in", "-o", "out", *ENDLESS) as process:
        wait_until(lambda: len(workers(process)) == 2)
        busy = workers(process)
        send(process.pid, getattr(signal, name))
        _, err = process.communicate(timeout=120)
    assert process.returncode == code
    if name != "SIGKILL":  # a helper that is just starting then, Python itself has say that it lost its parent
        assert err == ("" if name == "SIGINT" else f"inrcodec: error: stopped by {name}\n")
    wait_until(lambda: all(map(is_gone, busy)))
    assert contents("out") == {}


def test_a_killed_process_fails_its_file_only(tiny_installed: Path, pictures: list[Path]) -> None:
    with started("encode", *pictures[:2], "-o", "out", *ENDLESS) as process:
        while process.poll() is None:
            for worker in workers(process):
                os.kill(worker, signal.SIGKILL)
            time.sleep(0.1)
        _, err = process.communicate(timeout=120)
    first, second, summary = err.splitlines()
    assert process.returncode == 1 and summary == "2 files: 0 encoded, 2 failed"
    for line, path in ((first, pictures[0]), (second, pictures[1])):
        assert is_one_error(line + "\n", f"{path}: its process ended", "SIGKILL", "--jobs 1")


def test_a_stopped_run_goes_on(tiny_installed: Path, pictures: list[Path]) -> None:
    command = ["encode", "in", "-o", "out", *TWO]
    assert program(*command, "-o", "whole").returncode == 0
    with started(*command) as process:
        wait_until(lambda: process.poll() is not None or any(Path("out").glob("*.inr")))
        process.terminate()
        process.communicate(timeout=120)
    assert process.returncode in (143, 0)
    before = contents("out")
    assert before.items() <= contents("whole").items()
    again = program(*command, "--skip-existing")
    assert again.returncode == 0 and again.stderr.count(b": skipped: exists\n") == len(before)
    assert contents("out") == contents("whole")
