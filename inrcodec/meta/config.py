"""The settings of a meta-training, which presets, checkpoints and the command line share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from inrcodec.errors import UsageError
from inrcodec.settings import SCORES, AdaptationConfig, StepSizeKind

Method = Literal["second-order", "fomaml", "reptile"]
BootstrapContextSet = Literal["full", "pruned", "random"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Option:
    """A setting: what it means, and what it may be.

    Numbers are from `low`, or above it if `above`, to `high`, and integers if `whole`; choices are one of `choices`.
    """

    help: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raises: UsageError if a setting cannot have a value."""
        if self.choices:
            if value not in self.choices:
                raise UsageError(f"{flag(name)} is {value!r}, give one of {', '.join(self.choices)}")
            return
        if not self._fits(value):
            kind = "a whole number" if self.whole else "a number"
            lower = f"{'above' if self.above else 'from'} {self.low:.16g}"
            upper = f" to {self.high:.16g}" if self.high < math.inf else ""
            raise UsageError(f"{flag(name)} is {value!r}, give {kind} {lower}{upper}")

    def _fits(self, value: Any) -> bool:
        """Say whether a value is a number of the right type and in the range."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        fits = self.low < value if self.above else self.low <= value
        return fits and value <= self.high and (isinstance(value, int) or math.isfinite(value))


def flag(name: str) -> str:
    """Return the name of an option on the command line."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the outer loop; the defaults are GradNCP's for SIREN (appendix A.2), but for `clip`.

    adaptation: the inner loop, K, gamma and score.
    inner_step_size: alpha, the inner step size or where its learning starts.
    step_sizes: which step sizes are meta-learned along with theta_0.
    bootstrap_steps: L, steps on the full context set beyond theta_K that make the bootstrap target; 0 for none.
    bootstrap_weight: lambda of the distance to the target.
    bootstrap_step_ratio: step size of the L steps relative to the adaptation's last (the reference implementation
        uses 5e-2 against 1e-2).
    bootstrap_context: what the L steps see: the full context set, or in every step the share gamma of the highest
        scores or of random points.
    method: how theta_0 learns from the adaptation: by differentiating through it (MAML, Learnit, GradNCP), with slopes
        taken as constants (FOMAML), or towards where it ends (Reptile: no bootstrap, no learned step sizes).
    backward_share: share of the points that the second-order gradient goes through (LITE); 1: all of them.
    outer_step_size: beta, of Adam on theta_0.
    step_size_rate: Adam's step size on the logarithms of learned step sizes.
    schedule: of both outer step sizes over the run; for step sizes of latent fields over the share `second_order` of
        it, where alone they are learned.
    clip: bound on the norm of the meta-gradient. That of the loss is some 0.03 for pictures, and through many steps now
        and then a hundred times as much, after which Adam, left alone, hardly moves for a thousand steps. With a bound
        below the usual norm all outer steps count alike.
    batch: signals per outer step.
    outer_steps: length of the run.
    seed: of the random initialization and of every random choice.
    second_order: share of a run, at its end, in which what latents share is learned through their adaptation; before,
        and at 0, at latents that stay. Other fields are always learned through their adaptation.
    quantization: lowest and highest step index that a latent field learns to live with.
    """

    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    inner_step_size: Annotated[float, Option("alpha, or where its learning starts.", 0, above=True)] = 1e-2
    step_sizes: Annotated[
        StepSizeKind, Option("Which inner step sizes are learned.", choices=get_args(StepSizeKind))
    ] = "none"
    bootstrap_steps: Annotated[int, Option("Steps L to the bootstrap target.", 0, whole=True)] = 5
    bootstrap_weight: Annotated[float, Option("lambda of the distance to it.", 0)] = 100.0
    bootstrap_step_ratio: Annotated[float, Option("Step size of the L steps over the inner one.", 0, above=True)] = 5.0
    bootstrap_context: Annotated[
        BootstrapContextSet, Option("What the L steps see.", choices=get_args(BootstrapContextSet))
    ] = "full"
    method: Annotated[Method, Option("How theta_0 learns from the adaptation.", choices=get_args(Method))] = (
        "second-order"
    )
    backward_share: Annotated[
        float, Option("Share of the points that the second-order gradient goes through (LITE).", 0, 1, above=True)
    ] = 1.0
    outer_step_size: Annotated[float, Option("beta, of Adam.", 0, above=True)] = 1e-5
    step_size_rate: Annotated[float, Option("Adam's step size on learned step sizes.", 0, above=True)] = 1e-2
    schedule: Annotated[Schedule, Option("Schedule of the outer step sizes.", choices=get_args(Schedule))] = "constant"
    clip: Annotated[float, Option("Bound on the meta-gradient's norm.", 0, above=True)] = 0.01
    batch: Annotated[int, Option("Signals per outer step.", 1, whole=True)] = 4
    outer_steps: Annotated[int, Option("Outer steps, the length of the run.", 1, whole=True)] = 150_000
    seed: Annotated[int, Option("Seed of all random choices.", 0, 2**53 - 1, whole=True)] = 0
    second_order: Annotated[
        float,
        Option("Share of the outer steps, the last, in which latents are learned through their adaptation.", 0, 1),
    ] = 0.0
    quantization: tuple[int, int] = (-56, -4)

    def __post_init__(self) -> None:
        """Raises: ValueError for what a method does not have."""
        if self.method == "reptile" and (self.bootstrap_steps or self.step_sizes != "none"):
            raise ValueError("Reptile has no bootstrap and learns no step sizes")


ADAPTATION_OPTIONS = {
    "inner_steps": Option("Adaptation steps K.", 1, 1 << 16, whole=True),
    "gamma": Option("Share of the context set kept.", 0, 1, above=True),
    "score": Option("What ranks the context set.", choices=SCORES),
}
"""Options that set `TrainingConfig.adaptation`."""

TRAINING_OPTIONS: dict[str, Option] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(TrainingConfig, include_extras=True).items()
    if get_origin(hint) is Annotated
}
"""Options that set the field of their name in `TrainingConfig`."""


def changed(config: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return a configuration with some settings changed, by the names of the options above.

    Reptile leaves out what it does not have. Raises: UsageError if a value is out of its range.
    """
    for name, option in (ADAPTATION_OPTIONS | TRAINING_OPTIONS).items():
        if name in changes:
            option.check(name, changes[name])
    adaptation = {name.removeprefix("inner_"): changes[name] for name in ADAPTATION_OPTIONS if name in changes}
    training = {name: changes[name] for name in TRAINING_OPTIONS if name in changes}
    if training.get("method") == "reptile":
        training |= {"bootstrap_steps": 0, "step_sizes": "none"}
    return replace(config, adaptation=replace(config.adaptation, **adaptation), **training)
