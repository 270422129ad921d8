"""What is meta-learned in the experiments: the papers' fields and settings, and small ones of the same shape."""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from inrcodec.errors import UsageError
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.presets import OUTPUTS, preset
from inrcodec.models import FourierFeatureNetwork, NeRV, PointField, Siren
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig

Scale = Literal["small", "paper"]

SMALL_PATCHES = {
    "image": PatchConfig((32, 32), (0, 0), normalize=False),
    "video": PatchConfig((4, 16, 16), (0, 0, 0), normalize=False),
    "audio": PatchConfig((512,), (0,), extent=4.0, normalize=False),
    "climate": PatchConfig((32, 32), (0, 0), sphere=True, normalize=False),
}


@dataclass(frozen=True)
class Setting:
    """What all variants of an experiment share.

    training: GradNCP's; variants differ from it.
    measured: adaptation steps after which variants are compared, K_test.
    held_out: patches they are compared on.
    """

    modality: str
    scale: Scale
    field: PointField
    patches: PatchConfig
    training: TrainingConfig
    measured: tuple[int, ...]
    held_out: int

    @property
    def name(self) -> str:
        """What files are named after."""
        return f"{self.modality}-{self.field.name}-{self.scale}"

    def changed(self, **changes: Any) -> "Setting":
        """Return the same with other settings of all trainings."""
        return replace(self, training=replace(self.training, **changes))


def setting(modality: str, name: str, scale: Scale) -> Setting:
    """Return the setting of a modality, the field of a name and a scale.

    Raises: UsageError if the field does not exist for the modality or is a latent one.
    """
    papers = preset(modality, name, "paper")
    if papers.field.family == "latents":
        raise UsageError(f"the experiments are on weight-coded fields, {name!r} has latents: choose siren or ffn")
    field = cast(PointField, papers.field)
    if scale == "paper":
        training = papers.training
        marks = _marks(training.adaptation.steps)
        return Setting(modality, scale, field, papers.patches, training, marks, held_out=64)
    training = replace(
        papers.training,
        adaptation=AdaptationConfig(steps=16, gamma=papers.training.adaptation.gamma),
        bootstrap_weight=SMALL_BOOTSTRAP_WEIGHT,
        outer_step_size=SMALL_OUTER_STEP_SIZE,
        schedule="cosine",
        batch=4,
        outer_steps=300 if name == "nerv" else 600,  # a NeRV's take three times as long
    )
    if modality == "climate":
        training = replace(training, inner_step_size=SMALL_CLIMATE_INNER_STEP_SIZE)
    if name == "ffn":
        training = replace(
            training, inner_step_size=SMALL_FFN_INNER_STEP_SIZE, outer_step_size=SMALL_FFN_OUTER_STEP_SIZE
        )
    patches = SMALL_PATCHES[modality]
    small = _small_field(field, patches.dimensions, OUTPUTS[modality])
    return Setting(modality, scale, small, patches, training, _marks(16), held_out=32)


SMALL_OUTER_STEP_SIZE = 1e-3
"""A hundred times the papers' for SIREN, whose trainings have 150,000 outer steps. With 2e-3 GradNCP and Learnit both
gain a decibel on photos, but with 3e-3 a training now and then breaks down."""

SMALL_CLIMATE_INNER_STEP_SIZE = 3e-3
"""With the papers' 1e-2 so small a SIREN of w0 = 50 breaks down where few points are kept."""

SMALL_FFN_INNER_STEP_SIZE = 0.3
SMALL_FFN_OUTER_STEP_SIZE = 3e-3
"""With the papers' inner step size of 1e-2 so small a network of ReLUs learns next to nothing in K steps."""

SMALL_BOOTSTRAP_WEIGHT = 0.01
"""With it the distance's meta-gradient is a tenth (photos) to a half (sound) of the loss's. With the papers' 100 there
is nothing beside it: on photos that is as good, but on sound K steps end nearly two decibels lower than without."""


def _small_field(papers: PointField, inputs: int, outputs: int) -> PointField:
    """Return a small field of the papers' kind."""
    match papers:
        case Siren():
            return Siren(inputs, outputs, width=32, depth=4, w0=papers.w0)
        case FourierFeatureNetwork():
            return FourierFeatureNetwork(inputs, outputs, width=32, depth=4, frequencies=32, scale=2.0)
        case NeRV():
            return NeRV(inputs, outputs, octaves=3, stem=16, base=(4, 4), channels=(12, 8, 8))
    raise AssertionError(f"no small {papers}")


def _marks(steps: int) -> tuple[int, ...]:
    """Return the numbers of steps to measure after, for K of them in meta-training."""
    return (steps // 4, steps, 4 * steps, 8 * steps)
