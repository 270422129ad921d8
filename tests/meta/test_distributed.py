"""Several processes that train together learn what one does, and end together."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from command_line import TINY, photo
from together import BATCH, TRAININGS, learn, learn_together, run

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.meta.distributed import ALONE, Processes
from inrcodec.weights.pruning import generators_of

# The same steps, shared


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what two processes have learned together, and of a run that one has begun."""
    folder = tmp_path_factory.mktemp("together")
    run(folder / "mine.safetensors", cut=3)
    learn_together(folder)
    return folder


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_learn_what_one_learns(two: Path, name: str) -> None:
    """Parameters, Adam's moments and losses, from batches that two cannot share evenly."""
    expected = learn(name)
    first, second = (safetensors.torch.load_file(two / f"{name} {rank}") for rank in range(2))
    assert first.keys() == second.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(first[key], second[key]), key
        largest = float(value.abs().max())
        torch.testing.assert_close(first[key], value, rtol=0, atol=1e-4 * largest, msg=lambda text, key=key: key + text)


def test_a_run_goes_on_in_another_number_of_processes(two: Path, tmp_path: Path) -> None:
    assert not (two / "theirs.safetensors").exists()
    run(two / "theirs.safetensors", resume=True)
    run(tmp_path / "whole.safetensors")
    expected = learned(tmp_path / "whole.safetensors")
    for resumed in ("mine", "theirs"):
        found = learned(two / f"{resumed}.safetensors")
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-4 * float(value.abs().max()))


def learned(path: Path) -> dict[str, torch.Tensor]:
    """Return what is learned of an initialization; its prior is then measured with it, and rounded."""
    initialization = Initialization.load(path)
    named = {"theta_0": initialization.theta_0, "step_sizes": initialization.log_step_sizes}
    return {f"{group}/{name}": value for group, tensors in named.items() for name, value in tensors.items()}


def test_what_the_first_process_reads_all_have(two: Path) -> None:
    assert (two / "heard 0").read_text() == "read by 0"
    assert (two / "heard 1").read_text().startswith("read by 0; process 1 has other signals than process 0")


def test_shares_are_all_of_a_batch() -> None:
    for count in range(1, 6):
        team = [Processes(rank, count) for rank in range(count)]
        for size in range(count, 12):
            shares = [range(size)[each.share] for each in team]
            assert sorted(number for share in shares for number in share) == list(range(size))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            assert [each.numbers(len(share)) for each, share in zip(team, shares, strict=True)] == shares
            for each in team:
                each.check_batch(size)
        with pytest.raises(UsageError, match=f"--batch {count}"):
            team[0].check_batch(count - 1)


def test_what_is_drawn_for_a_signal_does_not_depend_on_the_others() -> None:
    def drawn(signals: range) -> list[float]:
        generators = generators_of(torch.Generator().manual_seed(5), signals)
        return [float(torch.rand((), generator=each)) for each in generators]

    whole = drawn(range(7))
    assert len(set(whole)) == 7
    for count in (2, 3):
        for rank in range(count):
            assert drawn(range(7)[rank::count]) == whole[rank::count]


def test_each_process_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    third = Processes(6, 8)
    assert third.device("cuda") == "cuda"  # which is then refused, where there is none
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (third.device("auto"), third.device("cuda"), third.device("cpu")) == ("cuda:2", "cuda:2", "cpu")
    with pytest.raises(UsageError, match="--device is cuda:1"):
        third.device("cuda:1")
    assert ALONE.device("cuda:1") == "cuda:1"


# Runs


TRAIN = ["meta-train", *TINY, "--data", "data", "--batch", str(BATCH), "-o"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a current folder with pictures to learn from."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        photo(tmp_path / "data" / f"{seed}.png", seed)
    return tmp_path


def started(*argv: object) -> "subprocess.Popen[bytes]":
    """Start the program in two processes, in a process group as a shell does; `errors` shows what they say."""
    stoppable = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--redirects", "3"]
    command = [sys.executable, "-c", stoppable, sys.executable, *torchrun, "--log-dir", "logs", "-m", "inrcodec"]
    return subprocess.Popen([*command, *map(str, argv)], stderr=subprocess.DEVNULL, start_new_session=True)


def errors(rank: int) -> str:
    """Return what a process of the run has said."""
    (path,) = Path("logs").glob(f"*/attempt_0/{rank}/stderr.log")
    return path.read_text()


def ranks(process: "subprocess.Popen[bytes]") -> dict[int, int]:
    """Return the processes of a run by their numbers."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if rank := re.search(rb"\0RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_bytes()):
            found[int(rank[1])] = int(child)
    return found


def test_a_run_writes_and_says_everything_once(folder: Path) -> None:
    with started(*TRAIN, "two.safetensors", "--outer-steps", 6) as process:
        assert process.wait(300) == 0
    assert "6 outer steps" in errors(0) and errors(1) == ""
    assert {path.name for path in folder.glob("two*")} == {"two.safetensors", "two.safetensors.checkpoint", "two.md"}
    assert "1 threads in each of 2 processes" in Path("two.md").read_text()


STOPS: dict[str, tuple[Callable[["subprocess.Popen[bytes]"], None], str]] = {
    "Ctrl-C": (lambda process: os.killpg(process.pid, signal.SIGINT), "stopped; .*checkpoint stays.*--resume.*"),
    "kill -9 of one": (
        lambda process: os.kill(ranks(process)[0], signal.SIGKILL),
        # torchrun may be faster
        "inrcodec: error: (another process .* ended too early: .*--resume|stopped by SIGTERM)",
    ),
}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell the children of a process")
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_ends_all_with_one_line(folder: Path, stop: str) -> None:
    end, line = STOPS[stop]
    checkpoint = Path("a.safetensors.checkpoint")
    with started(*TRAIN, "a.safetensors", "--outer-steps", 1_000_000) as process:
        until = time.monotonic() + 120
        while not (checkpoint.exists() and "Ctrl-C" in errors(0)):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        time.sleep(1)
        end(process)
        assert process.wait(120) != 0
    said = [each for rank in range(2) for each in errors(rank).splitlines() if "outer steps; Ctrl-C" not in each]
    # torch's threads that wait for the other process may say so when theirs ends.
    said = [each for each in said if each != "terminate called without an active exception"]
    assert len(said) == 1 and re.fullmatch(line, said[0]), said
    assert {path.name for path in folder.iterdir()} == {"data", "logs", checkpoint.name}


def test_an_error_is_one_line(folder: Path) -> None:
    Path("a.safetensors").touch()
    with started(*TRAIN, "a.safetensors", "--outer-steps", 2) as process:
        assert process.wait(300) != 0
    said = "".join(errors(rank) for rank in range(2))
    assert said.startswith("inrcodec: error: a.safetensors is there already") and said.count("\n") == 1
