"""Fill values that a file does not declare: what lies far outside all other values."""

import numpy as np

FILL_DISTANCE = 10.0
"""How many ranges of the other values an undeclared fill value is away from them."""

FAR_DISTANCE = 100.0
"""The same of a value that no convention uses, but which occurs more than once."""

HUGE = 1e15
"""From here on, values far outside the others are fill values, whatever their digits."""

_EXTREMES = 4


class Extremes:
    """The few smallest and largest of many finite values, found part by part.

    count: of all values. lowest, highest: the distinct ones from the outside in, and how often each is there.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lowest: dict[float, int] = {}
        self.highest: dict[float, int] = {}

    def add(self, values: np.ndarray) -> None:
        """Take finite values [N] into account."""
        if not values.size:
            return
        self.count += values.size
        bound = list(self.lowest)[-1] if len(self.lowest) == _EXTREMES else None
        self.lowest = _merged(self.lowest, values if bound is None else values[values <= bound], -1)
        bound = list(self.highest)[-1] if len(self.highest) == _EXTREMES else None
        self.highest = _merged(self.highest, values if bound is None else values[values >= bound], 1)

    def range(self, without: float | None = None) -> tuple[float, float] | None:
        """Return the smallest and the largest value, those that are not `without`; None if there is none."""
        low = next((value for value in self.lowest if value != without), None)
        high = next((value for value in self.highest if value != without), None)
        return None if low is None or high is None else (low, high)

    def fills(self) -> list[tuple[float, int]]:
        """Return the values that stand for missing ones without being declared, and how often each is there.

        They lie far outside all others and are huge, or written in nines, or a type's limit, or there repeatedly.
        """
        if self.count < 2:
            return []
        counts = self.lowest | self.highest
        lows, highs = list(self.lowest), list(self.highest)
        best: list[float] = []
        for below in range(len(lows)):
            for above in range(len(highs)):
                low, high = lows[below], highs[above]
                if not low <= high or below + above <= len(best):
                    continue
                outside = lows[:below] + highs[:above]
                if outside and all(_is_far(value, low, high, counts[value]) for value in outside):
                    best = outside
        return [(value, counts[value]) for value in best]


def _merged(found: dict[float, int], values: np.ndarray, sign: int) -> dict[float, int]:
    """Return the few outermost of the values found and of `values`, of which those further inside may be left out."""
    merged = dict(found)
    for _ in range(_EXTREMES):
        if not values.size:
            break
        edge = values.max() if sign > 0 else values.min()
        others = values[values != edge]
        merged[float(edge)] = merged.get(float(edge), 0) + values.size - others.size
        values = others
    return {value: merged[value] for value in sorted(merged, reverse=sign > 0)[:_EXTREMES]}


def _is_far(value: float, low: float, high: float, count: int) -> bool:
    distance = low - value if value < low else value - high
    spread = high - low
    if distance > FILL_DISTANCE * spread and _is_conventional(value):
        return True
    return bool(spread and distance > FAR_DISTANCE * spread and count > 1)


def _is_conventional(value: float) -> bool:
    """Say whether a value looks like a fill value: huge, the limit of an integer type, or nines (or eights)."""
    size = abs(value)
    if size >= HUGE or any(abs(size - 2.0**bits) <= 1 for bits in (15, 16, 31, 32, 63, 64)):
        return True
    digits = f"{size:.7g}".replace(".", "")
    return size >= 99 and len(set(digits)) == 1 and digits[0] in "98"
