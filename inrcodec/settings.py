"""The settings of adaptation: how theta_0 is adapted, in meta-training and at test time.

This module imports nothing heavy, so that the command line knows them at once.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

ScoreName = Literal["grad-norm", "error", "spg", "tpg", "random", "full"]
SCORES: tuple[str, ...] = get_args(ScoreName)

Rescaling = Literal["exact", "loss-ratio", "none"]
StepSizeKind = Literal["none", "scalar", "tensor", "tensor-step", "element"]


@dataclass(frozen=True)
class AdaptationConfig:
    """How theta_0 is adapted; belongs to the initialization, which was trained for exactly this.

    steps: K of meta-training; adaptation may go on for longer, with the last step's sizes.
    gamma: share of the context set kept by pruning.
    score: what ranks the context points.

    Latents have no context set: theirs are `unpruned`.
    """

    steps: int = 16
    gamma: float = 0.25
    score: ScoreName = "grad-norm"

    def __post_init__(self) -> None:
        """Raises: ValueError for settings out of range; they come from files of strangers too."""
        if type(self.steps) is not int or not 1 <= self.steps <= 1 << 16:
            raise ValueError(f"the number of adaptation steps is {self.steps!r:.80}")
        if type(self.gamma) not in (int, float) or not 0 < self.gamma <= 1:
            raise ValueError(f"the share of the context set is {self.gamma!r:.80}, not in (0, 1]")
        if self.score not in SCORES:
            raise ValueError(f"no score is called {self.score!r:.80}")

    @classmethod
    def unpruned(cls, steps: int) -> Self:
        """Return the settings of an adaptation to all there is."""
        return cls(steps, gamma=1.0, score="full")

    @property
    def prunes_by_score(self) -> bool:
        """Whether training sees the points with the highest scores only: test time then rescales its gradients."""
        return self.score not in ("full", "random") and self.gamma < 1
