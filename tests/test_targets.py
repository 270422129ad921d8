"""The search for a rate or a PSNR, on coders whose curves are known."""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from inrcodec.errors import UsageError
from inrcodec.targets import PSNR_TOLERANCE, RATE_TOLERANCE, TRIALS, Target, search


@dataclass(frozen=True)
class Result:
    rate: float
    psnr: float


@dataclass(frozen=True)
class Coarseness:
    """Stand in for the quantization of a signal coded with tensors of these step indices, an eighth octave apart."""

    step_indices: tuple[int, ...]

    @property
    def tensors(self) -> int:
        return len(self.step_indices)

    def moved(self, tensor: int, direction: int) -> "Coarseness":
        step_indices = list(self.step_indices)
        step_indices[tensor] += direction
        return replace(self, step_indices=tuple(step_indices))

    def held_at(self, trade_off: float) -> "Coarseness":
        return self


@dataclass(frozen=True)
class Continuous:
    trade_off: float
    tensors: int = 0

    def moved(self, tensor: int, direction: int) -> "Continuous":
        raise IndexError(tensor)

    def held_at(self, trade_off: float) -> "Continuous":
        return Continuous(trade_off)


@dataclass(frozen=True)
class Jumping:
    """Stand in for the quantization of latents: the rate jumps with the step, and is continuous in lambda between."""

    step_index: int
    trade_off: float
    tensors: int = 0

    def moved(self, tensor: int, direction: int) -> "Jumping":
        raise IndexError(tensor)

    def held_at(self, trade_off: float) -> "Jumping":
        return replace(self, trade_off=trade_off)


def smooth(slope: float) -> Callable[[tuple[Continuous, ...]], Result]:
    """Return a coder whose rate is a power of lambda, and every bit worth 6 dB."""
    return lambda parts: Result(
        rate := sum(0.02 * part.trade_off**slope for part in parts) / len(parts), 20 + 6.02 * rate
    )


def stepped(parts: tuple[Coarseness, ...]) -> Result:
    rate = sum(sum(2 ** (-index / 8) for index in part.step_indices) / part.tensors for part in parts) / len(parts)
    return Result(rate, 20 + 6.02 * rate)


def test_only_two_results_are_kept():
    """A file of a clip is large."""
    coded, most = weakref.WeakSet(), 0

    @dataclass(frozen=True, eq=False)
    class File(Result):
        pass

    def code(parts):
        nonlocal most
        plain = stepped(parts)
        result = File(plain.rate, plain.psnr)
        coded.add(result)
        most = max(most, len(coded))
        return result

    def choose(trade_off, start):
        return (Coarseness((round(-8 * math.log2(0.02 / math.sqrt(trade_off))),) * 8),)

    trials = []
    for wanted in (0.3, 1.1, 2.3, 3.7):
        search(Target(psnr=20 + 6.02 * wanted), choose, code, lambda number, result: trials.append(number))
    assert max(trials) > 5 and most <= 4  # two, that of the trial, and one on the way out


def ignore(number: int, result: Result) -> None:
    pass


@pytest.mark.parametrize("slope", [-0.3, -0.5, -0.8])
@pytest.mark.parametrize("target", [Target(rate=0.03), Target(rate=0.5), Target(rate=4.0), Target(psnr=27.0)])
def test_smooth_curves_are_hit_in_a_few_trials(slope, target):
    trials = []
    result, _ = search(
        target, lambda trade_off, start: (Continuous(trade_off),), smooth(slope), lambda *trial: trials.append(trial)
    )
    assert target.met(result) and target.near(result)
    assert len(trials) <= TRIALS


@pytest.mark.parametrize("wanted", [0.3, 1.1, 3.7])
def test_gaps_between_trade_offs_are_filled(wanted):
    """Neighbouring trade-offs lie 9 % apart; one tensor of eight moves the rate by about 1 %."""

    def choose(trade_off, start):
        return (Coarseness((round(-8 * math.log2(0.02 / math.sqrt(trade_off))),) * 8),)

    result, _ = search(Target(rate=wanted), choose, stepped, ignore)
    assert wanted * (1 - 2 * RATE_TOLERANCE) <= result.rate <= wanted
    result, _ = search(Target(psnr=20 + 6.02 * wanted), choose, stepped, ignore)
    assert wanted <= result.rate <= 1.02 * wanted


@pytest.mark.parametrize("wanted", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("jump", [0.03, 0.3])
def test_jumps_of_the_step_are_bridged(wanted, jump):
    def choose(trade_off, start):
        return (Jumping(round(4 * math.log2(trade_off)), trade_off),)

    def code(parts):
        (part,) = parts
        rate = 0.02 * part.trade_off**-0.2 * 2 ** (-jump * part.step_index)
        return Result(rate, 20 + 6.02 * rate)

    target = Target(rate=wanted)
    assert target.near(search(target, choose, code, ignore)[0])


def test_several_signals_share_a_target():
    result, _ = search(
        Target(psnr=23.0),
        lambda trade_off, start: (Continuous(trade_off), Continuous(2 * trade_off)),
        smooth(-0.5),
        ignore,
    )
    assert 23.0 <= result.psnr <= 23.0 + PSNR_TOLERANCE


@pytest.mark.parametrize("target", [Target(rate=1e-4), Target(psnr=1e6)])
def test_out_of_reach(target):
    with pytest.raises(UsageError, match="out of reach"):
        search(target, lambda trade_off, start: (Continuous(trade_off),), smooth(-0.5), ignore)
