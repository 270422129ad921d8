"""`inrcodec encode --dask`: files that the workers of a Dask cluster encode."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, is_one_error, photo
from tiny_tasks import die, die_once, fail, fail_as_nobody_expected, ready, refuse, say, say_after, say_and_touch, warn

from inrcodec.cli.batch import Done, Outcome, Task
from inrcodec.cli.console import ProgressLine
from inrcodec.errors import UsageError

distributed = pytest.importorskip("distributed", reason="Dask is not installed")

TINY = ["--steps", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the scheduler of a cluster of two workers, which tries a task twice where workers are lost."""
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=2, dashboard_address=":0", silence_logs=50
        ) as cluster,
    ):
        yield cluster.scheduler_address


def outcomes(address: str, tasks: Sequence[Task | Outcome], prepare: Any = ready) -> list[tuple[str, tuple[str, ...]]]:
    """Have a cluster do tasks; return what became of them, and what they warned of."""
    from inrcodec.cli.cluster import Cluster

    with Cluster(address, prepare, line=ProgressLine(quiet=True), debug=False) as cluster:
        labels = [str(number) for number in range(len(tasks))]
        finished = list(cluster.outcomes(tasks, labels))
    return [
        (each.outcome.line if isinstance(each.outcome, Done) else str(each.outcome), each.warnings) for each in finished
    ]


def test_a_cluster_encodes_what_this_machine_does(
    run: Run, folder: Path, tiny_initializations: Path, address: str
) -> None:
    """In another folder than that of the workers."""
    for seed, name in enumerate("abcd", 1):
        photo(Path("in", f"{name}.png"), seed)
    Path("in", "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Path("init.safetensors").write_bytes((tiny_initializations / "tiny-image.safetensors").read_bytes())
    command = ["encode", "in", "--json", *TINY, "--init", "./init.safetensors"]
    local = run(*command, "-o", "local", "--jobs", 1)
    code, out, err = run(*command, "-o", "out", "--dask", address)
    assert code == local[0] == 1
    assert [json.loads(line)["output"] for line in out.splitlines()] == [str(Path("out", f"{n}.inr")) for n in "acd"]
    lines = err.splitlines()
    assert [line.split(" -> ")[0] for line in (lines[0], *lines[2:4])] == [str(Path("in", f"{n}.png")) for n in "acd"]
    assert lines[1].startswith("inrcodec: error: ") and str(Path("in", "b.png")) in lines[1]
    assert lines[4:] == local[2].splitlines()[4:] and "4 files: 3 encoded, 1 failed" in lines[4]
    files = {path.name: path.read_bytes() for path in Path("local").iterdir()}
    assert len(files) == 3 and files == {path.name: path.read_bytes() for path in Path("out").iterdir()}

    Path("out", "c.inr").unlink()
    code, _, err = run(*command, "-o", "out", "--dask", address, "--skip-existing")
    assert code == 1 and "4 files: 1 encoded, 2 skipped, 1 failed" in err and Path("out", "c.inr").exists()


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (["--device", "abacus"], 2, ["abacus"]),
        (["--init", "nobody"], 1, ["nobody"]),
        (["--jobs", "2"], 2, ["--jobs", "--dask"]),
        (["-o", "-"], 2, ["standard input", "--dask"]),
    ],
)
def test_wrong_options_are_one_error(
    run: Run, folder: Path, address: str, options: list[str], code: int, parts: list[str]
) -> None:
    photo(Path("a.png"))
    found, out, err = run("encode", "a.png", "-o", "a.inr", "--dask", address, *options)
    assert (found, out) == (code, "") and is_one_error(err, *parts) and not Path("a.inr").exists()


@pytest.mark.parametrize("nowhere", ["tcp://127.0.0.1:1", "nonsense", "ftp://127.0.0.1:1"])
def test_an_address_without_a_scheduler_is_one_error(
    run: Run, folder: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inrcodec.cli import cluster

    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    photo(Path("a.png"))
    code, out, err = run("encode", "a.png", "--dask", nowhere)
    assert (code, out) == (1, "") and is_one_error(err, nowhere, "no Dask scheduler")


def test_without_dask_the_error_says_what_to_install(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "inrcodec.cli.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    photo(Path("a.png"))
    code, _, err = run("encode", "a.png", "--dask", "tcp://127.0.0.1:1")
    assert code == 2 and is_one_error(err, "pip install 'inrcodec[dask]'")


def test_outcomes_come_in_order(address: str, tmp_path: Path) -> None:
    """The first task waits for the second; others fail, or were done before."""
    marker = tmp_path / "marker"
    tasks = [
        partial(say_after, "a", marker),
        partial(say_and_touch, "b", marker),
        fail,
        Done("there", {}),
        UsageError("in the way"),
        fail_as_nobody_expected,
        partial(warn, "odd"),
    ]
    found = outcomes(address, tasks)
    assert [text for text, _ in found] == [
        *("a", "b", "as it should", "there", "in the way", "Unsendable: a defect", "odd")
    ]
    assert [each for _, each in found] == [()] * 6 + [("inrcodec: warning: odd",)]


def test_what_is_wrong_for_all_ends_all(address: str) -> None:
    with pytest.raises(UsageError, match="no such device"):
        outcomes(address, [partial(say, "a")], refuse)


def test_the_end_of_the_scheduler_is_one_error() -> None:
    from inrcodec.cli.cluster import Cluster, ClusterFailed

    nobody = distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50)
    with nobody, Cluster(nobody.scheduler_address, ready, line=ProgressLine(quiet=True), debug=False) as cluster:
        end = threading.Timer(1, nobody.close)
        end.start()
        with pytest.raises(ClusterFailed, match=r"has ended: .*--skip-existing"):
            list(cluster.outcomes([partial(say, "a")], ["a"]))
        end.join()


def test_the_file_of_a_lost_worker_is_tried_again(address: str, tmp_path: Path) -> None:
    found = outcomes(address, [partial(die_once, "a", tmp_path / "marker"), partial(say, "b")])
    assert [text for text, _ in found] == ["a", "b"]
    ((text, _),) = outcomes(address, [die])
    assert "its workers ended too early" in text


def test_what_is_not_begun_when_a_run_ends_is_not_done(address: str, tmp_path: Path) -> None:
    """There are more tasks that wait than the workers begin at once."""
    from inrcodec.cli.cluster import Cluster

    marker, late = tmp_path / "marker", tmp_path / "late"
    tasks = [partial(say, "a"), *[partial(say_after, "b", marker)] * 12, partial(say_and_touch, "c", late)]
    with (
        pytest.raises(KeyboardInterrupt),
        Cluster(address, ready, line=ProgressLine(quiet=True), debug=False) as cluster,
    ):
        for _ in cluster.outcomes(tasks, ["b"] * len(tasks)):
            raise KeyboardInterrupt
    with distributed.Client(address) as client:
        until = time.monotonic() + 60
        while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            assert time.monotonic() < until
    marker.touch()
    assert outcomes(address, [partial(say, "d"), partial(say, "e")]) == [("d", ()), ("e", ())]
    assert not late.exists()
