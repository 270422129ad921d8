"""Processes that do tasks at the same time."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_tasks import (
    die,
    fail,
    fail_as_nobody_expected,
    ready,
    ready_once,
    refuse,
    say,
    say_after,
    say_and_touch,
    warn,
    work_for_ever,
)

from inrcodec.cli import pool as pool_module
from inrcodec.cli.batch import Done, Outcome, Task
from inrcodec.cli.console import ProgressLine
from inrcodec.cli.pool import Pool, WorkerLost
from inrcodec.cli.worker import Finished
from inrcodec.errors import UsageError


def made(prepare: Callable[[], bool] = ready, jobs: int = 2, jobs_on_gpu: int = 2) -> Pool:
    return Pool(prepare, jobs, jobs_on_gpu=jobs_on_gpu, line=ProgressLine(quiet=True), debug=False)


def finished(tasks: Sequence[Task | Outcome], **settings: Any) -> list[Finished]:
    """Do tasks and return what became of them; no process may be left."""
    with made(**settings) as pool:
        result = list(pool.outcomes(tasks, [str(number) for number in range(len(tasks))]))
    assert not multiprocessing.active_children()
    return result


def shown(results: Iterable[Finished]) -> list[str]:
    return [each.outcome.line if isinstance(each.outcome, Done) else str(each.outcome) for each in results]


def said(result: Finished) -> dict[str, Any]:
    assert isinstance(result.outcome, Done)
    return result.outcome.content


def test_outcomes_come_in_order(tmp_path: Path) -> None:
    """The first task waits for the second, and the third fails."""
    marker = tmp_path / "marker"
    tasks: list[Task] = [partial(say_after, "a", marker), partial(say_and_touch, "b", marker), fail, partial(say, "d")]
    results = finished(tasks)
    assert shown(results) == ["a", "b", "as it should", "d"]
    assert isinstance(results[2].outcome, UsageError)
    assert len({said(result)["process"] for result in results if isinstance(result.outcome, Done)}) == 2


def test_what_needs_no_process_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "_start", lambda _: pytest.fail("started"))
    assert shown(finished([Done("there", {}), UsageError("in the way")])) == ["there", "in the way"]


def test_a_process_that_dies_takes_one_task_with_it() -> None:
    results = finished([partial(say, "a"), die, die, die, partial(say, "e")])
    assert [type(result.outcome) for result in results] == [Done, WorkerLost, WorkerLost, WorkerLost, Done]
    assert "SIGKILL" in str(results[1].outcome) and "--jobs 1" in str(results[1].outcome)


def test_the_first_process_dies() -> None:
    assert [type(result.outcome) for result in finished([die, partial(say, "b")])] == [WorkerLost, Done]


def test_errors_that_cannot_be_sent_say_what_they_were() -> None:
    error = finished([fail_as_nobody_expected, fail])[0].outcome
    assert isinstance(error, RuntimeError) and str(error) == "Unsendable: a defect"
    assert "in fail_as_nobody_expected" in error.__notes__[0]  # what --debug shows


def test_warnings_come_with_their_task() -> None:
    results = finished([partial(warn, "odd"), partial(say, "b"), partial(warn, "strange")])
    lines = [("inrcodec: warning: odd",), (), ("inrcodec: warning: strange",)]
    assert [result.warnings for result in results] == lines


def test_what_is_wrong_for_all_ends_all() -> None:
    with pytest.raises(UsageError, match="no such device"):
        finished([partial(say, "a"), partial(say, "b")], prepare=refuse)
    assert not multiprocessing.active_children()


def test_another_does_the_task_of_a_process_that_cannot_begin(tmp_path: Path) -> None:
    results = finished([partial(say, name) for name in "abc"], prepare=partial(ready_once, tmp_path / "marker"))
    assert shown(results) == list("abc")
    assert len({said(result)["process"] for result in results}) == 1


def test_a_process_fewer_after_a_loss() -> None:
    """So that memory suffices for those that go on."""
    results = finished([partial(say, "a"), die, *(partial(say, name) for name in "cdef")])
    assert len({said(result)["process"] for result in results[2:]}) == 1


def test_a_gpu_is_for_one_process() -> None:
    results = finished([partial(say, name) for name in "abc"], prepare=partial(ready, True), jobs_on_gpu=1)
    assert len({said(result)["process"] for result in results}) == 1


@pytest.mark.parametrize(("cores", "given", "expected"), [(8, None, "4"), (1, None, "1"), (8, "3", "3")])
def test_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, given: str | None, expected: str
) -> None:
    monkeypatch.setattr(pool_module, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert said(finished([partial(say, "a")])[0])["threads"] == expected


def test_leaving_ends_tasks_and_lets_them_clean_up(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    with pytest.raises(KeyboardInterrupt), made() as pool:
        outcomes = pool.outcomes([partial(say, "-"), *(partial(work_for_ever, path) for path in paths)], "-abc")
        next(outcomes)
        while not paths[0].exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    assert not list(tmp_path.iterdir())
