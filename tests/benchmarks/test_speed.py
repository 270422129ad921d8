"""The parts of benchmarks/speed.py that do no work: statistics, comparison, table, layout, inputs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speed
from PIL import Image
from timing import revisions
from timing.inputs import Inputs, mosaic
from timing.jobs import JOBS, REFERENCE
from timing.processes import Worker, WorkFailed
from timing.revisions import Revision
from timing.statistics import Spread, compare, ratio

from inrcodec.errors import UsageError

PICTURE = [{"name": "a.png", "shape": [2, 3], "type": "uint8"}]


def result(
    before: list[float] | None, now: list[float], *, against: str = REFERENCE, processor: str = "one", **job: Any
) -> dict[str, Any]:
    """Make a result with one job, image-fast."""

    def side(samples: list[float]) -> dict[str, Any]:
        return {
            "label": "",
            "cpu": samples,
            "wall": [10 * each for each in samples],
            "bits_per_sample": 0.51239,
            "psnr_db": 33.333,
            "max_error": 0.49994,
            "peak_mib": 512.4,
        }

    measured = {
        "what": JOBS["image-fast"].what,
        "clock": "cpu",
        "target": 5,
        "setting": None,
        "input": PICTURE,
        "before": None if before is None else side(before),
        "now": side(now),
    }
    return {
        "benchmark": "speed",
        "machine": {"processor": processor},
        "against": None if before is None else {"hash": against},
        "present": {"hash": "1" * 40, "changed": False},
        "skipped": {},
        "jobs": {"image-fast": measured | job},
    }


def test_a_spread_is_median_and_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2, 1, 3)
    assert Spread.of([1.0, 4.0]) == Spread(2.5, 1, 4)
    assert str(Spread.of([0.123456, 10.0, 1234.5])) == "10 (0.123..1.23e+03)"


def test_ratios_are_of_neighbours() -> None:
    # Everything takes three times as long while the second pair is measured, which changes no ratio.
    assert ratio([10.0, 30.0, 11.0], [5.0, 15.0, 5.0]) == Spread(2, 2, 2.2)
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("before", "now", "slower"),
    [
        ([10.0, 10.1, 10.2, 10.1, 10.0], [5.0, 5.0, 5.1, 5.0, 5.0], False),
        ([20.0, 20.2, 20.4, 20.2, 20.0], [10.0, 10.1, 10.2, 10.1, 10.0], False),  # all twice as slow
        ([10.0, 10.1, 10.2, 10.1, 10.0], [6.0, 6.1, 6.0, 6.1, 6.0], True),
        ([10.0, 10.1, 10.2, 10.1, 10.0], [5.4, 5.4, 5.5, 5.4, 5.4], False),  # apart, but less than the tolerance
        ([10.0, 10.1, 10.2, 10.1, 10.0], [4.9, 6.1, 6.1, 6.1, 6.1], False),  # slower in the median, but spread
        ([10.0, 10.1, 10.2, 10.1, 10.0], [2.0, 2.0, 2.0, 2.0, 2.0], False),
    ],
)
def test_beside_the_same_code_it_is_ratios_that_are_compared(
    before: list[float], now: list[float], slower: bool
) -> None:
    old = result([10.0] * 5, [5.0] * 5, processor="another")
    (finding,) = compare(old, result(before, now))
    assert finding.slower is slower
    assert "times faster" in finding.text
    assert ("SLOWER" in finding.text) is slower


@pytest.mark.parametrize(("now", "slower"), [([5.0, 5.1], False), ([5.9, 6.0], False), ([6.4, 6.5], True)])
@pytest.mark.parametrize("reference", [None, "2" * 40])
def test_beside_other_code_it_is_seconds(now: list[float], slower: bool, reference: str | None) -> None:
    old = result(None, [5.0, 5.1, 5.2, 5.1, 5.0])
    new = result(None if reference is None else [99.0] * 6, now * 3, against=reference or "")
    (finding,) = compare(old, new)
    assert finding.slower is slower
    assert "cpu s: was 5.1 (5..5.2)" in finding.text


def test_settings_are_compared_whatever_the_reference() -> None:
    job = {"setting": "one core", "clock": "wall"}
    old = result([4.0] * 5, [2.0] * 5, **job)
    for seconds, slower in ((2.1, False), (3.0, True)):
        new = result([4.0] * 5, [seconds] * 5, against="2" * 40, processor="another", **job)
        assert compare(old, new)[0].slower is slower


@pytest.mark.parametrize("other", [{"processor": "another"}, {"input": [PICTURE[0] | {"name": "b.png"}]}])
def test_what_cannot_be_compared_is_not_slower(other: dict[str, Any]) -> None:
    (finding,) = compare(result(None, [1.0] * 5), result(None, [9.0] * 5, **other))
    assert finding.slower is None
    assert "not compared" in finding.text


@pytest.mark.parametrize(("was", "now"), [(4, 5), (5, 4), (1, 1)])
def test_few_samples_are_not_compared(was: int, now: int) -> None:
    (finding,) = compare(result([10.0] * was, [1.0] * was), result([10.0] * now, [9.0] * now))
    assert finding.slower is None
    assert f"{min(was, now)} samples are too few" in finding.text


def test_only_jobs_of_both_are_compared() -> None:
    empty = result(None, [1.0]) | {"jobs": {}}
    assert compare(empty, result(None, [1.0])) == []
    assert compare(result(None, [1.0]), empty) == []


def test_a_row_has_times_of_both_and_what_they_are_worth() -> None:
    found = result([10.0, 11.0, 12.0], [2.0, 2.2, 2.0])
    assert speed.row("image-fast", found["jobs"]["image-fast"], found["against"]) == [
        "image-fast",
        "CPU",
        "11 (10..12)",
        "2 (2..2.2)",
        "5 (5..6)",
        "5",
        *("0.5124", "0.5124"),
        *("33.33", "33.33"),
        *("512", "512"),
    ]


def test_targets_are_those_of_one_revision() -> None:
    found = result([10.0], [2.0], against="2" * 40)["jobs"]["image-fast"]
    assert speed.row("image-fast", found, {"hash": "2" * 40})[5] == "-"
    cores = found | {"setting": "one core", "clock": "wall", "target": 1.8}
    assert speed.row("two-cores-picture", cores, None)[1:6] == [
        "wall, one core before",
        "100 (100..100)",
        "20 (20..20)",
        "5 (5..5)",
        "1.8",
    ]


def test_a_bound_is_shown_as_the_largest_error() -> None:
    found = result(None, [2.0])["jobs"]["image-fast"]
    row = speed.row("climate-max-error", found, None)
    assert row[2:6] == ["-", "2 (2..2)", "-", "-"]
    assert row[6:10] == ["-", "0.5124", "-", "0.4999 off"]


def test_every_row_has_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    found = result([10.0], [2.0])
    assert len(speed.row("image-fast", found["jobs"]["image-fast"], None)) == len(speed.COLUMNS)
    speed.show(found)
    shown = capsys.readouterr().out
    assert "now: 1111111; before: f6d3c52" in shown
    assert "5 (5..5)" in shown


@pytest.mark.parametrize(("seconds", "code"), [(2.0, None), (3.0, 1)])
def test_what_became_slower_is_the_exit_code(
    seconds: float, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(result([10.0] * 5, [2.0] * 5)))
    monkeypatch.setattr(speed, "measure", lambda *_: result([10.0] * 5, [seconds] * 5))
    monkeypatch.setattr(sys, "argv", ["speed.py", "--compare", str(old), "-o", str(tmp_path / "new.json")])
    if code is None:
        speed.main()
    else:
        with pytest.raises(SystemExit) as stop:
            speed.main()
        assert stop.value.code == code


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"benchmark": "lab"}'])
def test_other_files_are_no_result_to_compare_with(content: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="cannot compare"):
        speed.read(path)


def test_a_checkout_is_laid_out_as_it_installs(tmp_path: Path) -> None:
    source, tree = tmp_path / "source", tmp_path / "tree"
    for name in ("inrcodec/__init__.py", "inrcodec/__pycache__/old.py", "models/__init__.py", "tests/__init__.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    (source / "pyproject.toml").write_text(
        '[tool.setuptools.package-dir]\n"inrcodec.models" = "models"\n"inrcodec" = "inrcodec"\n'
    )
    revisions.lay_out(source, tree)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*.py")) == [
        "inrcodec/__init__.py",
        "inrcodec/models/__init__.py",
    ]


def test_a_revision_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="git rev-parse failed"):
        revisions.earlier("no-such-revision", tmp_path)


def test_a_worker_says_what_failed(tmp_path: Path) -> None:
    (tmp_path / "inrcodec").mkdir()
    (tmp_path / "inrcodec" / "__init__.py").write_text("print('a library prints')\n")
    with Worker(Revision("old", "", False, tmp_path, False)) as worker:
        with pytest.raises(WorkFailed, match=r"old: FileNotFoundError: .*nothing\.inr"):
            worker.ask("decode", path=str(tmp_path / "nothing.inr"))
        # An editable install would give it the modules of another tree, which is an ImportError too.
        with pytest.raises(WorkFailed, match=r"old: \w+Error: .*inrcodec\.\w+"):
            worker.ask("efforts")


def test_a_worker_that_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inrcodec").mkdir()
    (tmp_path / "inrcodec" / "__init__.py").write_text("import no_such_library\n")
    with (
        Worker(Revision("old", "", False, tmp_path, False)) as worker,
        pytest.raises(WorkFailed, match="old: its process ended with code 1 while it was to decode"),
    ):
        worker.ask("decode", path="")
    assert "no_such_library" in capfd.readouterr().err


def test_a_mosaic_has_enough_pixels_and_repeats_its_tiles() -> None:
    tiles = [np.full((2, 3, 1), number, np.uint8) for number in range(3)]
    found = mosaic(tiles, 30)
    assert found.shape == (6, 6, 1)
    assert found[::2, ::3, 0].tolist() == [[0, 1], [2, 0], [1, 2]]


def test_inputs_pass_over_what_does_not_fit_or_cannot_be_read(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "folder"
    folder.mkdir()
    data.mkdir()
    (data / "a.png").write_bytes(b"damaged")
    Image.new("RGB", (30, 20)).save(data / "b.png")
    inputs = Inputs([data], folder)
    assert inputs.signal("picture").name == "b.png"  # the first one, as none is as wanted
    for number in range(2):
        Image.new("RGB", (768, 512), (number,) * 3).save(data / f"c{number}.png")
    inputs = Inputs([data], folder)
    assert inputs.signal("picture").name == "c0.png"
    assert [source.name for source in inputs.pictures] == ["c0.png", "c1.png"]
    assert [path.name for path in sorted(inputs.folder.iterdir())] == ["0.png", "1.png", "2.png", "3.png"]
    assert inputs.signal("large picture").signal.shape == (1536, 1536)
    with pytest.raises(UsageError, match="no file of climate"):
        inputs.signal("field")
