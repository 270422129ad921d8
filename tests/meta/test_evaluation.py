"""The evaluation that an initialization's provenance holds."""

from typing import Any

import pytest

from inrcodec.meta.evaluation import Evaluation

RIGHT = {"title": "of patches", "summary": "30 dB", "columns": ["steps", "PSNR"], "rows": [[8, 30.5]]}
NOTHING = Evaluation("", "", [], [])


def test_an_evaluation_is_found_in_a_provenance() -> None:
    found = Evaluation.of({"evaluation": RIGHT})
    assert found.to_json() == RIGHT and found.shown_rows() == [("8", "30.5")]
    assert Evaluation.of({}) == NOTHING


@pytest.mark.parametrize(
    "strange",
    [
        None,
        "30 dB",
        [],
        {},
        {"title": "of patches"},
        RIGHT | {"author": "a stranger"},
        RIGHT | {"title": 3},
        RIGHT | {"summary": None},
        RIGHT | {"columns": "ab"},
        RIGHT | {"columns": ["steps", 3]},
        RIGHT | {"rows": 3},
        RIGHT | {"rows": [8, 30.5]},
        RIGHT | {"rows": [[8]]},
        RIGHT | {"rows": [[8, "many"]]},
        RIGHT | {"rows": [[8, True]]},
    ],
)
def test_a_strangers_evaluation_is_none(strange: Any) -> None:
    assert Evaluation.of({"evaluation": strange}) == NOTHING
