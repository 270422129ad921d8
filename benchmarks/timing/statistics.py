"""Times of two sides that were taken in turn: medians, spreads, how many times faster, and what became slower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

SAMPLES = 5
"""Samples of each time at least: with two, code that is the same is called slower in one of six comparisons."""

RATIO_TOLERANCE = 0.1
"""Share by which a median of ratios must have become worse before it counts, whatever the spreads say."""

SECONDS_TOLERANCE = 0.2
"""The same of seconds, which differ more from run to run as nothing cancels."""


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Return the spread of one sample or more."""
        return cls(median(samples), min(samples), max(samples))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}..{self.high:.3g})"


def ratio(before: Sequence[float], now: Sequence[float]) -> Spread:
    """Return how many times faster `now` is.

    The samples were taken in turn, so each is compared with its neighbour: what slows down both cancels.
    """
    return Spread.of([one / other for one, other in zip(before, now, strict=True)])


@dataclass(frozen=True)
class Finding:
    """This is said of a job that two results have in common. slower: None where the two cannot be compared."""

    job: str
    text: str
    slower: bool | None


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    """Compare the jobs that two results of `speed.py` have in common.

    Where both were measured beside the same code, how many times faster they are than that is compared, which does not
    depend on the machine; else their seconds, if the processor is the same. Slower means: the spreads of `SAMPLES` or
    more do not overlap, and the medians differ by more than a tolerance.
    """
    return [_finding(name, old, new) for name in new["jobs"] if name in old["jobs"]]


def _finding(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Finding:
    was, now = old["jobs"][name], new["jobs"][name]
    if was["input"] != now["input"]:
        return Finding(name, "not compared: the inputs differ", None)
    fewest = min(len(was["now"][was["clock"]]), len(now["now"][now["clock"]]))
    if fewest < SAMPLES:
        return Finding(name, f"not compared: {fewest} samples are too few, take {SAMPLES} with --repeats", None)
    if _reference(old, was) == _reference(new, now) is not None:
        return _judged(name, "times faster", _ratio(was), _ratio(now), more_is_better=True)
    if old["machine"]["processor"] != new["machine"]["processor"]:
        return Finding(name, "not compared: neither the reference nor the processor is the same", None)
    samples = was["now"][was["clock"]], now["now"][now["clock"]]
    return _judged(name, f"{now['clock']} s", *map(Spread.of, samples), more_is_better=False)


def _reference(result: Mapping[str, Any], job: Mapping[str, Any]) -> str | None:
    """Return what a job was measured beside: a revision, other settings of the same code, or nothing."""
    if job["before"] is None:
        return None
    revision: str | None = result["against"] and result["against"]["hash"]
    return str(job["setting"] or revision)


def _ratio(job: Mapping[str, Any]) -> Spread:
    return ratio(job["before"][job["clock"]], job["now"][job["clock"]])


def _judged(name: str, what: str, was: Spread, now: Spread, *, more_is_better: bool) -> Finding:
    if more_is_better:
        slower = now.high < was.low and now.median < was.median / (1 + RATIO_TOLERANCE)
    else:
        slower = now.low > was.high and now.median > was.median * (1 + SECONDS_TOLERANCE)
    verdict = "SLOWER" if slower else "not seen to be slower"
    return Finding(name, f"{what}: was {was}, is {now}: {verdict}", slower)
