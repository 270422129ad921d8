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

BISECTIONS = 10


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

    Bisection over log lambda first. The results of neighbouring lambdas lie apart; single steps of single tensors
    then fill the gap.

    choose: the quantizations for a trade-off, from a start. on_trial: called with the number of every trial.
    Raises: UsageError if nothing meets the target.
    """
    low, high = (math.log(trade_off) for trade_off in LAMBDAS)
    quantizations: Quantizations | None = None
    tried: dict[Quantizations, Result] = {}
    best: tuple[Quantizations, Result] | None = None

    def attempt(candidate: Quantizations) -> Result:
        if candidate not in tried:
            tried[candidate] = code(candidate)
            on_trial(len(tried), tried[candidate])
        return tried[candidate]

    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        quantizations = choose(math.exp(middle), quantizations)
        result = attempt(quantizations)
        met = target.met(result)
        if met:
            best = quantizations, result
            if target.near(result):
                return result
        # A rate asks for the smallest lambda that meets it, a PSNR for the largest.
        if met == (target.rate is not None):
            high = middle
        else:
            low = middle
    if best is None:
        raise UsageError(
            f"the target is out of reach of this initialization: its smallest file has "
            f"{min(result.rate for result in tried.values()):.3f} bits per sample, its best reconstruction "
            f"{max(result.psnr for result in tried.values()):.2f} dB; use more --steps or another --init or target"
        )
    direction = -1 if target.rate is not None else 1
    places = [(number, tensor) for number, part in enumerate(best[0]) for tensor in range(part.tensors)]
    for number, tensor in places:
        parts = list(best[0])
        parts[number] = parts[number].moved(tensor, direction)
        result = attempt(tuple(parts))
        if target.met(result):
            best = tuple(parts), result
            if target.near(result):
                break
    return best[1]
