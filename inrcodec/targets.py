"""The search for a file of a certain size, or a reconstruction of a certain PSNR."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from inrcodec.errors import UsageError

RATE_TOLERANCE = 0.01
"""How far below a target rate is near enough, as a share of it."""

PSNR_TOLERANCE = 0.02
"""How far above a target PSNR is near enough, in dB."""

LAMBDAS = (1e-9, 10.0)
"""Trade-offs between which the search goes on, from best to smallest."""

FIRST_LAMBDA = 1e-3

TRIALS = 12

NARROW = 0.01

LARGEST_MOVE = 4.0
"""Of log lambda from one trial to the next."""


@dataclass(frozen=True)
class Target:
    """Bits per sample not to be exceeded, or else a PSNR in dB to be reached; one of them is given."""

    rate: float | None = None
    psnr: float | None = None

    def met(self, result: "Coded") -> bool:
        if self.rate is not None:
            return result.rate <= self.rate
        return result.psnr >= self._psnr

    def near(self, result: "Coded") -> bool:
        """Whether a result that meets the target hardly does."""
        if self.rate is not None:
            return result.rate >= self.rate * (1 - RATE_TOLERANCE)
        return result.psnr <= self._psnr + PSNR_TOLERANCE

    def excess(self, result: "Coded") -> float:
        """How far above the middle of what is near: of the rate its logarithm, of the PSNR in dB."""
        if self.rate is not None:
            return math.log(result.rate / (self.rate * (1 - RATE_TOLERANCE / 2)))
        return min(result.psnr, 200.0) - (self._psnr + PSNR_TOLERANCE / 2)

    @property
    def slope(self) -> float:
        """About what the excess changes by when log lambda grows by one."""
        return -0.5 if self.rate is not None else -2.5

    @property
    def _psnr(self) -> float:
        assert self.psnr is not None  # one of the two is given
        return self.psnr


class Coded(Protocol):
    """A coded signal: bits per sample of its file, PSNR in dB of what its decoder returns."""

    @property
    def rate(self) -> float: ...
    @property
    def psnr(self) -> float: ...


Result = TypeVar("Result", bound=Coded)


class Quantization(Protocol):
    """How finely a signal is coded. `tensors` can be made finer or coarser one by one, by a small step."""

    @property
    def tensors(self) -> int: ...
    def moved(self, tensor: int, direction: int) -> "Quantization": ...


Quantizations = tuple[Quantization, ...]
"""One for every signal of a file."""


def search(
    target: Target,
    choose: Callable[[float, Quantizations | None], Quantizations],
    code: Callable[[Quantizations], Result],
    on_trial: Callable[[int, Result], None],
) -> Result:
    """The result nearest to the target among those that meet it.

    The secant method over log lambda first, within the bracket that the trials make. Where the results of neighbouring
    lambdas lie apart, single steps of single tensors then fill the gap, from both sides.

    choose: the quantizations for a trade-off, from a start. on_trial: called with the number of every trial.
    Raises: UsageError if nothing meets the target.
    """
    quantizations: Quantizations | None = None
    tried: dict[Quantizations, Result] = {}
    best: tuple[Quantizations, Result] | None = None

    def attempt(candidate: Quantizations) -> Result:
        if candidate not in tried:
            tried[candidate] = code(candidate)
            on_trial(len(tried), tried[candidate])
        return tried[candidate]

    least, most = (math.log(trade_off) for trade_off in LAMBDAS)
    place, slope = math.log(FIRST_LAMBDA), target.slope
    before: tuple[float, float] | None = None
    low, high = -math.inf, math.inf
    for _ in range(TRIALS):
        quantizations = choose(math.exp(place), quantizations)
        result = attempt(quantizations)
        if target.met(result):
            if target.near(result):
                return result
            if best is None or abs(target.excess(result)) < abs(target.excess(best[1])):
                best = quantizations, result
        excess = target.excess(result)
        low, high = (place, high) if excess > 0 else (low, place)
        if high - low < NARROW:  # the quantizations of its ends were of different starts
            low, high = -math.inf, math.inf
        if before is not None and before[0] != place:
            measured = (excess - before[1]) / (place - before[0])
            slope = min(max(measured, 3 * target.slope), target.slope / 3)
        before = place, excess
        move = min(max(-excess / slope, -LARGEST_MOVE), LARGEST_MOVE)
        place = min(max(place + move, least), most)
        if not low < place < high:
            place = (max(low, least) + min(high, most)) / 2
    if best is None:
        raise UsageError(
            f"the target is out of reach of this initialization: its smallest file has "
            f"{min(result.rate for result in tried.values()):.3f} bits per sample, its best reconstruction "
            f"{max(result.psnr for result in tried.values()):.2f} dB; use more --steps or another --init or target"
        )
    missed = [quantizations for quantizations, result in tried.items() if not target.met(result)]
    for begin in (best[0], *sorted(missed, key=lambda missing: abs(target.excess(tried[missing])))[:1]):
        current = begin
        meets = target.met(tried[begin])
        # Towards the target: to a higher rate where that is met, to a lower PSNR likewise.
        direction = -1 if meets == (target.rate is not None) else 1
        for number, part in enumerate(begin):
            for tensor in range(part.tensors):
                moved = (*current[:number], current[number].moved(tensor, direction), *current[number + 1 :])
                result = attempt(moved)
                if target.met(result) and abs(target.excess(result)) < abs(target.excess(best[1])):
                    best = moved, result
                if target.met(result) == meets:
                    current = moved
    return best[1]
