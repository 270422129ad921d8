"""The tables of bounds against curves whose answers are known."""

from typing import Any

import pytest
import verdicts


def points(codec: str, ratios: dict[str, float], error: float = 1.0) -> list[dict[str, Any]]:
    """Make points whose error is `error` times the square root of the ratio, of 1000 samples in 2 and 0.5 seconds."""
    return [
        {
            "signal": "a.nc:t",
            "codec": codec,
            "setting": setting,
            "ratio": ratio,
            "rmse": error * ratio**0.5,
            "samples": 1000,
            "encode_seconds": 2.0,
            "decode_seconds": 0.5,
        }
        for setting, ratio in ratios.items()
    ]


def test_errors_are_interpolated_in_logarithms() -> None:
    curve = points("ours", {"bound 2": 400.0, "bound 0.1": 10.0, "bound 1": 50.0}, error=0.3)
    assert verdicts.rmse_at(curve, 100) == pytest.approx(3.0)
    assert verdicts.rmse_at(curve, 400) == pytest.approx(6.0)
    assert verdicts.rmse_at(curve, 9) is None
    assert verdicts.rmse_at(curve, 401) is None
    assert verdicts.rmse_at([], 100) is None


def test_tables_say_who_is_ahead_and_by_how_much() -> None:
    bounds = ["bound 0.1", "bound 1"]
    measured = [
        *points("ours", {"bound 0.1": 30.0, "bound 1": 150.0}),
        *points("SZ3", {"bound 0.1": 20.0, "bound 1": 120.0}, error=2.0),
        *points("SPERR", {"bound 1": 200.0}),
        *points("PCO", {"lossless, level 12": 3.0}, error=0.0),
    ]
    text = verdicts.markdown(measured, bounds, {"ours"}, 100)
    lines = text.splitlines()
    assert "| codec | bound 0.1 | bound 1 | encode MB/s | decode MB/s | RMSE at ratio 100 |" in lines
    assert "| ours | 30 | 150 | 0.002 | 0.008 | 10 |" in lines
    assert "| SZ3 | 20 | 120 | 0.002 | 0.008 | 20 |" in lines
    assert "| SPERR |  | 200 | 0.002 | 0.008 |  |" in lines
    assert "| PCO | 3 |  | 0.002 | 0.008 |  |" in lines
    assert "| a.nc:t | 30 : 20 SZ3, 1.50 | 150 : 200 SPERR, 0.75 |" in lines


def test_what_was_not_measured_is_left_blank() -> None:
    text = verdicts.markdown(points("ours", {"bound 1": 5.0}), ["bound 1", "bound 2"], {"ours"}, None)
    assert "RMSE" not in text
    assert text.endswith("| a.nc:t |  |  |\n")
