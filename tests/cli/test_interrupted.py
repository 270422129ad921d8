"""Runs that are killed, or whose disk is full: nothing is lost, and nothing is left behind.

More kills than the suite's: INRCODEC_KILLS=200 in the environment; with pytest's -rP it shows how the runs ended.
"""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from command_line import FAST, TINY, photo
from safetensors import safe_open

from .nursery import Ended, Nursery

KILLS = int(os.environ.get("INRCODEC_KILLS", "8"))
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
OLD = b"what was there before"


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@dataclass
class Killed:
    """Kills at random moments of runs. seconds: that a whole run works. counts: of signals and exit codes."""

    random: Random
    seconds: float
    counts: Counter[tuple[str, int]]

    def draw(self) -> tuple[float, signal.Signals]:
        """Return a random moment, and a signal."""
        return self.random.uniform(0, self.seconds), self.random.choice(SIGNALS)

    def check(self, number: signal.Signals, ended: Ended, folders: list[Path], there: set[str]) -> None:
        """Check how a killed run ended, and what is in its folders. there: what may be."""
        self.counts[number.name, ended.code] += 1
        codes = {signal.SIGTERM: (-15, 143), signal.SIGINT: (-2, 130), signal.SIGKILL: (-9,)}[number]
        assert ended.code in (0, *codes), ended
        if ended.code > 0:  # else it was stopped before or after the program's own part
            assert "Traceback" not in ended.errors and ended.errors.count("\n") <= 1, ended
        left = {path.name for folder in folders for path in folder.iterdir()} - there
        if number == signal.SIGKILL:
            left = {name for name in left if not name.startswith((".inrcodec-", "inrcodec-"))}
        assert not left, (number.name, ended)


def clean(*folders: Path) -> None:
    """Remove what runs leave that are killed without a warning."""
    for folder in folders:
        for path in folder.iterdir():
            if path.name.startswith((".inrcodec-", "inrcodec-")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_initializations: Path, nursery: Nursery) -> Path:
    """Return a folder with a picture and its `.inr` file."""
    folder = tmp_path_factory.mktemp("work")
    photo(folder / "photo.png")
    shutil.copy(tiny_initializations / "tiny-image.safetensors", folder / "init.safetensors")
    ended = nursery.run("encode", "photo.png", "-o", "photo.inr", *ENCODE[3:], folder=folder)
    assert ended.code == 0, ended
    return folder


ENCODE = ["encode", "photo.png", "-o", "--init", "./init.safetensors", "--embed", "--force", "--quiet", *FAST]
COMMANDS = {
    "encode": (["encode", "photo.png", "-o", "out/new.inr", *ENCODE[3:]], None),
    "encode standard input": (["encode", "-", "--format", "png", "-o", "out/new.inr", *ENCODE[3:]], "photo.png"),
    "decode": (["decode", "photo.inr", "-o", "out/new.png", "--force", "--quiet"], None),
    "decode standard input": (["decode", "-", "-o", "out/new.png", "--force", "--quiet"], "photo.inr"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_runs_leave_the_old_file_or_the_new_one(command: str, work: Path, nursery: Nursery) -> None:
    argv, given = COMMANDS[command]
    source = None if given is None else work / given
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    target = out / Path(argv[argv.index("-o") + 1]).name
    whole = nursery.run(*argv, folder=work, source=source)
    assert whole.code == 0 and whole.seconds, whole
    new = target.read_bytes()
    kills = Killed(Random(command), whole.seconds, Counter())
    for _ in range(max(1, KILLS // len(COMMANDS))):
        target.write_bytes(OLD)
        slow = kills.random.random() < 0.5
        stop = kills.draw()
        ended = nursery.run(*argv, folder=work, stop=stop, source=source, slow=slow)
        kills.check(stop[1], ended, [out, nursery.temporary], {target.name})
        assert target.read_bytes() == new if ended.code == 0 else target.read_bytes() in (OLD, new)
        if stop[1] == signal.SIGKILL:
            again = nursery.run(*argv, folder=work, source=source)
            assert again.code == 0 and not again.errors and target.read_bytes() == new
            clean(out, nursery.temporary)
    print(dict(kills.counts))


TRAIN = ["meta-train", *TINY, "--data", "data", "--outer-steps", "4", "--quiet", "-o"]


def identifier_of(path: Path) -> str:
    with safe_open(path, "numpy") as file:
        return str(json.loads(file.metadata()["inrcodec"])["identifier"])


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> tuple[Path, float]:
    """Return a folder with pictures and what an uncut run learns from them, and the seconds that takes."""
    folder = tmp_path_factory.mktemp("training")
    for seed in range(3):
        photo(folder / "data" / f"{seed}.png", seed)
    ended = nursery.run(*TRAIN, "uncut.safetensors", folder=folder)
    assert ended.code == 0 and ended.seconds, ended
    return folder, ended.seconds


def test_a_training_that_is_killed_again_and_again_learns_the_same(
    training: tuple[Path, float], nursery: Nursery
) -> None:
    folder, seconds = training
    kills = Killed(Random(1), seconds, Counter())
    out = folder / "out"
    out.mkdir()
    target, checkpoint = out / "cut.safetensors", out / "cut.safetensors.checkpoint"
    there = {target.name, checkpoint.name, "cut.md"}
    left = max(2, KILLS // 4)
    while left:
        for path in out.iterdir():
            path.unlink()
        # Three kills at most of a training, each in what the last one has left to do.
        for _ in range(min(left, kills.random.randrange(1, 4))):
            left -= 1
            stop = kills.draw()
            resume = ["--resume"] if checkpoint.exists() else []
            ended = nursery.run(*TRAIN, target, *resume, folder=folder, stop=stop, slow=kills.random.random() < 0.5)
            kills.check(stop[1], ended, [out, nursery.temporary], there)
        resume = ["--resume"] if checkpoint.exists() else []
        ended = nursery.run(*TRAIN, target, *resume, folder=folder)
        assert ended.code == 0 and not ended.errors, ended
        assert identifier_of(target) == identifier_of(folder / "uncut.safetensors")
        assert {path.name for path in out.iterdir() if not path.name.startswith(".inrcodec-")} == there
        clean(out, nursery.temporary)
    print(dict(kills.counts))


# A disk that is full


SIZE = 128 << 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of `SIZE` bytes in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "inrcodec-tests", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no program mount")
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def leave_free(disk: Path, free: int) -> None:
    """Fill a disk but for so many bytes, or the whole of it."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    state = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - free)))


def is_one_line(ended: Ended) -> bool:
    return ended.errors.startswith("inrcodec: error: ") and ended.errors.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_loses_nothing(command: str, work: Path, nursery: Nursery, small_disk: Path) -> None:
    argv, given = COMMANDS[command]
    source = None if given is None else work / given
    target = small_disk / Path(argv[argv.index("-o") + 1]).name
    argv = [str(target) if argument.startswith("out/") else argument for argument in argv]
    temporary = small_disk / "temporary"
    temporary.mkdir()
    whole = nursery.run(*argv, folder=work, source=source)
    assert whole.code == 0, whole
    new = target.read_bytes()
    random = Random(command)
    page = os.statvfs(small_disk).f_frsize
    counts: Counter[int] = Counter()
    for _ in range(max(1, KILLS // len(COMMANDS))):
        target.write_bytes(OLD)
        leave_free(small_disk, random.randrange(0, 3 * len(new) // page + 3) * page)
        ended = nursery.run(*argv, folder=work, source=source, temporary=temporary)
        counts[ended.code] += 1
        assert ended.code in (0, 1), ended
        assert is_one_line(ended) if ended.code else not ended.errors, ended
        assert target.read_bytes() == (OLD if ended.code else new)
        assert {path.name for path in small_disk.iterdir()} == {target.name, "temporary", "filler"}
        assert not list(temporary.iterdir())
    print(dict(counts))


def test_a_training_whose_disk_is_full_goes_on_when_there_is_room(
    training: tuple[Path, float], nursery: Nursery, small_disk: Path
) -> None:
    folder, _ = training
    target, checkpoint = small_disk / "cut.safetensors", small_disk / "cut.safetensors.checkpoint"
    random = Random(2)
    page = os.statvfs(small_disk).f_frsize
    counts: Counter[int] = Counter()
    for _ in range(max(1, KILLS // 8)):
        for path in small_disk.iterdir():
            path.unlink()
        leave_free(small_disk, random.randrange(0, 24) * page)
        ended = nursery.run(*TRAIN, target, folder=folder)
        counts[ended.code] += 1
        assert ended.code in (0, 1), ended
        assert is_one_line(ended) if ended.code else not ended.errors, ended
        assert not [path.name for path in small_disk.iterdir() if path.name.startswith(".")]
        (small_disk / "filler").unlink()
        resume = ["--resume"] if checkpoint.exists() else []
        again = nursery.run(*TRAIN, target, *resume, folder=folder)
        assert again.code == 0 and not again.errors, again
        assert identifier_of(target) == identifier_of(folder / "uncut.safetensors")
    print(dict(counts))
