"""Who needs how many bytes for the same bound on the error: Markdown of what `rate_distortion.py` measured."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from typing import Any

import report

Points = Sequence[Mapping[str, Any]]
"""Signals through codecs at settings, as `rate_distortion.point` describes them."""


def speed(point: Mapping[str, Any], key: str) -> float:
    """Return the megabytes (10^6) of float32 values a second that a codec encodes or decodes; key: which."""
    return 4e-6 * point["samples"] / max(point[f"{key}_seconds"], 1e-9)


def rmse_at(points: Points, ratio: float) -> float | None:
    """Interpolate the root mean square of one codec's errors at a compression ratio; None beyond its points.

    The logarithm of the error is linear in that of the ratio between neighbours.
    """
    curve = sorted((point["ratio"], point["rmse"]) for point in points)
    for (low, first), (high, second) in pairwise(curve):
        if low <= ratio <= high and first > 0:
            share = math.log(ratio / low) / math.log(high / low) if high > low else 0.0
            return first * (second / first) ** share
    return None


def markdown(points: Points, bounds: Sequence[str], ours: Set[str], ratio: float | None) -> str:
    """Return a table for every signal, and one of our best against the best rival for all signals.

    bounds: the settings that are compared, from the tightest. ours: which codecs are ours. ratio: to compare errors at.
    """
    signals = list(dict.fromkeys(point["signal"] for point in points))
    parts = [f"## {signal}\n\n{_of_signal(_where(points, signal=signal), bounds, ratio)}" for signal in signals]
    verdict = [
        [signal, *(_verdict(_where(points, signal=signal, setting=bound), ours) for bound in bounds)]
        for signal in signals
    ]
    table = _table(["signal", *bounds], verdict)
    return "\n\n".join([*parts, f"## Bytes of the best rival over ours\n\n{table}\n"])


def _of_signal(points: Points, bounds: Sequence[str], ratio: float | None) -> str:
    """Return the ratios at all bounds, the speed at the middle one, and the error at one ratio, for every codec."""
    middle = bounds[len(bounds) // 2]
    rows = []
    for codec in dict.fromkeys(point["codec"] for point in points):
        own = _where(points, codec=codec)
        at = {point["setting"]: point for point in own}
        timed = at.get(middle, own[len(own) // 2])
        cells = [report.significant(at[bound]["ratio"]) if bound in at else "" for bound in bounds]
        if not any(cells) and len(own) == 1:
            cells = [report.significant(own[0]["ratio"]), *[""] * (len(bounds) - 1)]
        speeds = [report.significant(speed(timed, key)) for key in ("encode", "decode")]
        error = None if ratio is None else rmse_at(own, ratio)
        rows.append([codec, *cells, *speeds, *([] if ratio is None else ["" if error is None else f"{error:.3g}"])])
    last = [] if ratio is None else [f"RMSE at ratio {ratio:g}"]
    return _table(["codec", *bounds, "encode MB/s", "decode MB/s", *last], rows)


def _verdict(points: Points, ours: Set[str]) -> str:
    """Return our best ratio, the best rival's and its name, and ours over the rival's."""
    mine = max((point["ratio"] for point in points if point["codec"] in ours), default=None)
    other = max(
        (point for point in points if point["codec"] not in ours), key=lambda point: point["ratio"], default=None
    )
    if mine is None or other is None:
        return ""
    return f"{mine:.3g} : {other['ratio']:.3g} {other['codec']}, {mine / other['ratio']:.2f}"


def _where(points: Points, **wanted: str) -> Points:
    return [point for point in points if all(point[key] == value for key, value in wanted.items())]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
