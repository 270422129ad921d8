"""The search for a file of a certain size, or a reconstruction of a certain PSNR."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from inrcodec.errors import UsageError

RATE_TOLERANCE = 0.01
"""How far below a target rate is near enough, as a share of it."""

PSNR_TOLERANCE = 0.02
"""How far above a target PSNR is near enough, in dB."""

FAR_RATE, FAR_PSNR = 0.1, 0.5
"""How far from a target a result is told as such: a share of the rate, and dB."""

LAMBDAS = (1e-9, 10.0)
"""Trade-offs between which the search goes on, from best to smallest."""

FIRST_LAMBDA = 1e-3

TRIALS = 12
"""Trials of either search over lambda."""

FILLINGS = 2
"""How often every tensor may be moved to fill a gap."""

LEAST_MOVE, LARGEST_MOVE = 0.4, 4.0
"""Moves of log lambda from one trial to the next; below the least one, steps change by one or two, and results jump."""


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
        """Say whether a result that meets the target hardly does."""
        if self.rate is not None:
            return result.rate >= self.rate * (1 - RATE_TOLERANCE)
        return result.psnr <= self._psnr + PSNR_TOLERANCE

    def excess(self, result: "Coded") -> float:
        """Return how far above the middle of what is near a result is: of the rate its logarithm, of the PSNR in dB."""
        if self.rate is not None:
            return math.log(result.rate / (self.rate * (1 - RATE_TOLERANCE / 2)))
        return min(result.psnr, 200.0) - (self._psnr + PSNR_TOLERANCE / 2)

    def far(self, result: "Coded") -> bool:
        """Say whether a result that meets the target meets it by so much that a user should know."""
        if self.rate is not None:
            return result.rate < self.rate * (1 - FAR_RATE)
        return result.psnr > self._psnr + FAR_PSNR

    def not_near(self, result: "Coded") -> str:
        """Say that a result meets the target by far: nothing nearer was found."""
        if self.rate is not None:
            return f"no file nearer to {self.rate:g} bits per sample was found than one of {result.rate:.4g}"
        return f"no file nearer to {self._psnr:g} dB was found than one of {result.psnr:.2f} dB"

    def missed(self, nearest: "Coded") -> str:
        """Say how near the nearest result comes to a target that no result meets."""
        if self.rate is not None:
            return (
                f"the target of {self.rate:g} bits per sample is out of reach: the smallest file found has "
                f"{nearest.rate:.4g}; give a higher one, or a smaller picture"
            )
        return (
            f"the target of {self._psnr:g} dB is out of reach: the best reconstruction found has "
            f"{nearest.psnr:.2f} dB; give a lower one, more --steps or another --init"
        )

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
    """How finely a signal is coded: with a step for each of its `tensors`, and decisions for a trade-off.

    moved: one tensor a little finer (-1) or coarser (1). held_at: the same steps with decisions for another lambda, or
    itself where these do not depend on it.
    """

    @property
    def tensors(self) -> int: ...
    def moved(self, tensor: int, direction: int) -> "Quantization": ...
    def held_at(self, trade_off: float) -> "Quantization": ...


Quantizations = tuple[Quantization, ...]
"""A quantization for every signal of a file."""


class _Trials(Generic[Result]):
    """The candidates that have been coded, and how far each is from the target.

    best: the result nearest to the target among those that meet it. miss: the nearest among the others. No other result
    is kept, as files may be large.
    """

    def __init__(
        self, target: Target, code: Callable[[Quantizations], Result], on_trial: Callable[[int, Result], None]
    ) -> None:
        self.target = target
        self.best: Result | None = None
        self.miss: Result | None = None
        self._code = code
        self._on_trial = on_trial
        self._excesses: dict[Quantizations, float] = {}
        self._met: set[Quantizations] = set()

    def excess(self, candidate: Quantizations) -> float:
        """Return how far above the target a candidate is, coding it if need be."""
        if candidate not in self._excesses:
            self._try(candidate)
        return self._excesses[candidate]

    def _try(self, candidate: Quantizations) -> None:
        result = self._code(candidate)
        excess, met = self.target.excess(result), self.target.met(result)
        nearest = self.nearest(met)
        if nearest is None or abs(excess) < abs(self._excesses[nearest]):
            if met:
                self.best = result
            else:
                self.miss = result
        self._excesses[candidate] = excess
        if met:
            self._met.add(candidate)
        self._on_trial(len(self._excesses), result)

    def met(self, candidate: Quantizations) -> bool:
        return candidate in self._met

    def nearest(self, met: bool) -> Quantizations | None:
        """Return the nearest of those that meet the target, or of those that do not."""
        found = [candidate for candidate in self._excesses if self.met(candidate) == met]
        return min(found, key=lambda candidate: abs(self._excesses[candidate]), default=None)

    @property
    def done(self) -> bool:
        return self.best is not None and self.target.near(self.best)


def search(
    target: Target,
    choose: Callable[[float, Quantizations | None], Quantizations],
    code: Callable[[Quantizations], Result],
    on_trial: Callable[[int, Result], None],
    first: float = FIRST_LAMBDA,
) -> tuple[Result, float]:
    """Find the result nearest to the target among those that meet it; return it and the lambda of one near it.

    First over lambda; but steps are whole numbers, so the results of neighbouring lambdas may lie apart. Then with the
    steps of the nearest trial over the lambda of the decisions alone; and last by single steps of single tensors, from
    both sides.

    choose: the quantizations for a trade-off, from a start. on_trial: called with the number of every trial.
    first: the lambda to begin with.
    Raises: UsageError if nothing meets the target.
    """
    trials = _Trials(target, code, on_trial)
    chosen: Quantizations | None = None

    def choose_next(trade_off: float) -> Quantizations:
        nonlocal chosen
        chosen = choose(trade_off, chosen)
        return chosen

    place = _follow(trials, choose_next, math.log(first), least_move=LEAST_MOVE)
    held = min(filter(None, map(trials.nearest, (True, False))), key=lambda each: abs(trials.excess(each)))

    def hold(trade_off: float) -> Quantizations:
        same = tuple(part.held_at(trade_off) for part in held)
        return choose_next(trade_off) if same == held else same

    _follow(trials, hold, place)
    for met in (True, False):
        begin = trials.nearest(met)
        if begin is not None and not trials.done:
            _fill(trials, begin)
    if trials.best is None:
        assert trials.miss is not None  # something was tried
        raise UsageError(target.missed(trials.miss))
    return trials.best, math.exp(place)


def _follow(
    trials: _Trials[Result], propose: Callable[[float], Quantizations], place: float, least_move: float = 0.0
) -> float:
    """Propose for one lambda after another, by secants of the excess over log lambda; returns the nearest log lambda.

    Ends near the target, after `TRIALS`, or where moves are less than `least_move` or proposals stay the same.
    """
    least, most = (math.log(trade_off) for trade_off in LAMBDAS)
    slope = trials.target.slope
    visited: list[tuple[float, float]] = []
    before: Quantizations | None = None
    while len(visited) < TRIALS and not trials.done:
        candidate = propose(math.exp(place))
        if candidate == before:
            break
        before = candidate
        excess = trials.excess(candidate)
        if visited and visited[-1][0] != place:
            measured = (excess - visited[-1][1]) / (place - visited[-1][0])
            slope = min(max(measured, 3 * trials.target.slope), trials.target.slope / 3)
        visited.append((place, excess))
        move = min(max(-excess / slope, -LARGEST_MOVE), LARGEST_MOVE)
        place = min(max(place + move, least), most)
        if abs(move) < least_move:
            break
    return min(visited, key=lambda visit: abs(visit[1]))[0] if visited else place


def _fill(trials: _Trials[Result], begin: Quantizations) -> None:
    """Take single steps of single tensors, one after the other, towards the target and as little as possible beyond."""
    meets = trials.met(begin)
    # To a higher rate where that is met, to a lower PSNR likewise.
    direction = -1 if meets == (trials.target.rate is not None) else 1
    current = begin
    places = [(number, tensor) for number, part in enumerate(begin) for tensor in range(part.tensors)]
    for number, tensor in places * FILLINGS:
        moved = (*current[:number], current[number].moved(tensor, direction), *current[number + 1 :])
        trials.excess(moved)
        if trials.done or (trials.met(moved) and not meets):
            return
        if trials.met(moved) == meets:
            current = moved
