"""The options of the encoder, and what it says while it works."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from inrcodec.coding.header import LARGEST_BOUND, SMALLEST_BOUND
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
    max_error: largest absolute error of any decoded value, in the unit of the values, at the original resolution; for
        all signals of the main one's modality, or by the names of some. The file is as small as it gets.
    rescaling: how the gradient on the full context set of weight fields is rescaled; None: "exact".
    device: "auto", "cpu" or "cuda[:n]".
    processes: that code the patches of latent fields, where the CPU does.
    """

    quality: float | None = None
    effort: Effort = "default"
    steps: int | None = None
    bits_per_sample: float | None = None
    psnr: float | None = None
    max_error: float | Mapping[str, float] | None = None
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
        if self.quality is not None and (self.target is not None or self.max_error is not None):
            raise UsageError("a quality leaves no choice of a rate, a PSNR or a largest error: give one of them")
        for name, target in (("bits per sample", self.bits_per_sample), ("PSNR", self.psnr)):
            if target is not None and not 0 < target < math.inf:
                raise UsageError(f"the target of {target} {name} is not a positive number")
        if self.max_error is None:
            return
        if self.bits_per_sample is not None or self.psnr is not None:
            raise UsageError("a largest error leaves no choice of a rate or a PSNR: give one of them")
        for bound in self.max_error.values() if isinstance(self.max_error, Mapping) else [self.max_error]:
            if not SMALLEST_BOUND <= bound <= LARGEST_BOUND:
                raise UsageError(f"the largest error of {bound} is not a positive number")

    @property
    def target(self) -> Target | None:
        """The rate or PSNR to aim for instead of a quality, if any."""
        if self.bits_per_sample is None and self.psnr is None:
            return None
        return Target(self.bits_per_sample, self.psnr)

    @property
    def leaves_open(self) -> bool:
        """Whether nothing is said of how near or how large the result shall be."""
        return self.quality is None and self.max_error is None and self.target is None

    def bounds(self, signals: Sequence[AnySignal]) -> list[float | None]:
        """Return the largest error of each signal of a file, None for those that may have any.

        Raises: UsageError if a name is of no signal.
        """
        if self.max_error is None:
            return [None] * len(signals)
        if not isinstance(self.max_error, Mapping):
            bound = float(self.max_error)
            return [bound if signal.modality == signals[0].modality else None for signal in signals]
        names = [signal.name for signal in signals]
        unknown = [name for name in self.max_error if name not in names]
        if unknown:
            raise UsageError(
                f"a largest error is given for {', '.join(map(repr, unknown))}, but the signals are called "
                f"{', '.join(map(repr, names))}"
            )
        return [float(self.max_error[name]) if name in self.max_error else None for name in names]

    @property
    def trade_off(self) -> float:
        """lambda of D + lambda R, in squared error of values in [0, 1] per bit per sample."""
        return trade_off_of_quality(DEFAULT_QUALITY if self.quality is None else self.quality)


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
