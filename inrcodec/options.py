"""The options of the encoder, and what it says while it works."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from inrcodec.bounds import LARGEST_BOUND, SMALLEST_BOUND, SMALLEST_SHARE
from inrcodec.errors import UsageError
from inrcodec.settings import Rescaling
from inrcodec.signals.lazy import AnySignal
from inrcodec.targets import Target

Effort = Literal["instant", "fast", "default", "high"]

DEFAULT_QUALITY = 40.0


@dataclass(frozen=True)
class EncodeOptions:
    """Everything a user can ask of the encoder.

    quality: 1..100, sets the trade-off of rate against distortion; None: 40, unless a target or a bound is given.
    effort: how long to adapt: "instant" (for latents not at all), "fast", "default" or "high".
    steps: K_test, adaptation steps on the full context set, instead of those of an effort.
    bits_per_sample: size of the file to aim for, in bits per sample of the signal.
    psnr: reconstruction to aim for, in dB, at the lowest rate.
    max_error: largest absolute error of any decoded value at the original resolution: a number in the unit of the
        values, or as "0.1%" a share of the range of their slice (of all values, where there are no slices); for all
        signals of the main one's modality, or by the names of some. The file is as small as it gets.
    max_error_rel: largest error as a share of each value, less than 1; likewise. Zeros and signs are exact then; where
        there is a `max_error`, too, each value is within one of both.
    rescaling: how the gradient on the full context set of weight fields is rescaled; None: "exact".
    device: "auto", "cpu" or "cuda[:n]".
    processes: that code the patches of latent fields, where the CPU does.
    """

    quality: float | None = None
    effort: Effort = "default"
    steps: int | None = None
    bits_per_sample: float | None = None
    psnr: float | None = None
    max_error: float | str | Mapping[str, float | str] | None = None
    max_error_rel: float | Mapping[str, float] | None = None
    rescaling: Rescaling | None = None
    device: str = "auto"
    processes: int = 1

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality}, give 1 (smallest) to 100 (best)")
        if self.effort not in get_args(Effort):
            raise UsageError(f"no effort is called {self.effort!r}: choose from {', '.join(get_args(Effort))}")
        if self.rescaling is not None and self.rescaling not in get_args(Rescaling):
            raise UsageError(f"no rescaling is called {self.rescaling!r}: choose from {', '.join(get_args(Rescaling))}")
        if self.processes < 1:
            raise UsageError(f"{self.processes} processes: give 1 or more")
        if self.steps is not None and self.steps < 0:
            raise UsageError(f"{self.steps} adaptation steps: give 0 or more")
        if self.bits_per_sample is not None and self.psnr is not None:
            raise UsageError("a rate and a PSNR cannot both be targets: give one of them")
        bounded = self.max_error is not None or self.max_error_rel is not None
        if self.quality is not None and (self.target is not None or bounded):
            raise UsageError("a quality leaves no choice of a rate, a PSNR or a largest error: give one of them")
        for what, target in (("bits per sample", self.bits_per_sample), ("PSNR", self.psnr)):
            if target is not None and not 0 < target < math.inf:
                raise UsageError(f"the target of {target} {what} is not a positive number")
        if bounded and self.target is not None:
            raise UsageError("a largest error leaves no choice of a rate or a PSNR: give one of them")
        absolute, relative = _by_name(self.max_error), _by_name(self.max_error_rel)
        for name in absolute.keys() | relative.keys():
            Tolerance.of_texts(absolute.get(name), relative.get(name))

    @property
    def target(self) -> Target | None:
        """The rate or PSNR to aim for instead of a quality, if any."""
        if self.bits_per_sample is None and self.psnr is None:
            return None
        return Target(self.bits_per_sample, self.psnr)

    @property
    def leaves_open(self) -> bool:
        """Whether nothing is said of how near or how large the result shall be."""
        return self.quality is None and self.max_error is None and self.max_error_rel is None and self.target is None

    def tolerances(self, signals: Sequence[AnySignal]) -> list["Tolerance | None"]:
        """Return how far the values of each signal of a file may be off, None for those that may be anywhere.

        Raises: UsageError if a name is of no signal.
        """
        absolute, relative = _by_name(self.max_error), _by_name(self.max_error_rel)
        names = [signal.name for signal in signals]
        unknown = sorted((absolute.keys() | relative.keys()) - {None, *names}, key=str)
        if unknown:
            raise UsageError(
                f"a largest error is given for {', '.join(map(repr, unknown))}, but the signals are called "
                f"{', '.join(map(repr, names))}"
            )
        found: list[Tolerance | None] = []
        for signal in signals:
            main = signal.modality == signals[0].modality
            error, share = (each.get(signal.name, each.get(None) if main else None) for each in (absolute, relative))
            found.append(None if error is None and share is None else Tolerance.of_texts(error, share))
        return found

    @property
    def trade_off(self) -> float:
        """lambda of D + lambda R, in squared error of values in [0, 1] per bit per sample."""
        return trade_off_of_quality(DEFAULT_QUALITY if self.quality is None else self.quality)


def _by_name(given: Any) -> dict[str | None, Any]:
    """Return what is given for signals by their names, and for all others by None."""
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else {None: given}


@dataclass(frozen=True)
class Tolerance:
    """How far values may be off.

    largest: the error. of: what it is in, the unit of the values, or a share of the range of a slice or of each value.
    floor: an absolute error that is allowed everywhere, beside a share of each value.
    """

    largest: float
    of: Literal["unit", "range", "value"] = "unit"
    floor: float | None = None

    @classmethod
    def of_texts(cls, error: float | str | None, share: float | None) -> "Tolerance":
        """Return what a `max_error` and a `max_error_rel` mean together. Raises: UsageError."""
        largest = None if error is None else cls._parsed(error)
        if share is None:
            assert largest is not None  # one of the two is given
            return largest
        if not SMALLEST_SHARE <= share < 1:
            raise UsageError(f"the largest error of {share} of each value is not a share between 1e-9 and 1")
        if largest is not None and largest.of == "range":
            raise UsageError(f"a share of the range ({error}) and one of each value ({share}) do not go together")
        return cls(share, "value", None if largest is None else largest.largest)

    @classmethod
    def _parsed(cls, error: float | str) -> "Tolerance":
        text = str(error).strip()
        percent = text.endswith("%")
        try:
            largest = float(text.removesuffix("%")) / (100 if percent else 1)
        except ValueError as failure:
            raise UsageError(f"the largest error of {error!r} is no number, nor one in percent as 0.1%") from failure
        if not SMALLEST_BOUND <= largest <= (1 if percent else LARGEST_BOUND):
            raise UsageError(f"the largest error of {error} is not a positive number{' up to 100%' * percent}")
        return cls(largest, "range" if percent else "unit")


def trade_off_of_quality(quality: float) -> float:
    """Map qualities 1 to 100 to lambda, five decades apart, evenly in its logarithm."""
    return 10 ** (-1 - 5 * quality / 100)


@dataclass(frozen=True)
class Progress:
    """Where the encoding of a signal is.

    stage: "adapt", or "search" for a target.
    step: adaptation steps done of `steps` (all batches of patches together), or trials of nobody knows how many.
    psnr: in dB, of the patches not yet quantized or of the trial; rate: of the trial, in bits per sample.
    """

    stage: str
    step: int
    steps: int | None
    psnr: float | None
    rate: float | None = None


ProgressCallback = Callable[[Progress], None]
