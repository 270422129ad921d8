"""The public interface: what `inrcodec` exports, and the examples of its docstring."""

import ast
import doctest
from pathlib import Path

import inrcodec
from inrcodec import datasets

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


def test_the_examples_run(tmp_path: Path) -> None:
    given = {"photo": SAMPLES / "photo.png", "output": tmp_path / "photo.inr"}
    results = doctest.testmod(inrcodec, extraglobs=given, optionflags=doctest.ELLIPSIS)
    assert results.attempted >= 8 and not results.failed
    results = doctest.testmod(datasets, extraglobs={"output": tmp_path / "t.inr"})
    assert results.attempted >= 4 and not results.failed


def test_type_checkers_see_the_names_that_there_are() -> None:
    """The names stand in the source twice: for type checkers, which run nothing, and for the imports on first use."""
    tree = ast.parse(Path(inrcodec.__file__).read_text(encoding="utf-8"))
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    seen = {
        alias.asname: each.module for each in block.body if isinstance(each, ast.ImportFrom) for alias in each.names
    }
    assert seen == inrcodec._HOMES
    assert sorted(inrcodec.__all__) == sorted(seen)
    for name in inrcodec.__all__:
        assert getattr(inrcodec, name).__name__ == name
