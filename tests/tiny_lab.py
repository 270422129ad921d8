"""A setting of the lab that is learned at once, for its tests."""

from pathlib import Path

import torch
from experiments.laboratory import Laboratory
from experiments.settings import Setting

import inrcodec.assets
from inrcodec.cli.console import ProgressLine
from inrcodec.meta.config import TrainingConfig
from inrcodec.meta.data import TrainingData, load_data
from inrcodec.models import Siren
from inrcodec.patches import PatchConfig
from inrcodec.settings import AdaptationConfig

SAMPLES = Path(next(iter(inrcodec.assets.__path__))) / "samples"

TINY = Setting(
    modality="image",
    scale="small",
    field=Siren(2, 3, width=8, depth=3),
    patches=PatchConfig((16, 16), (0, 0), normalize=False),
    training=TrainingConfig(
        adaptation=AdaptationConfig(steps=4, gamma=0.25),
        bootstrap_steps=1,
        bootstrap_weight=0.1,
        outer_step_size=1e-3,
        batch=2,
        outer_steps=3,
    ),
    measured=(1, 4),
    held_out=3,
)


def tiny_data() -> TrainingData:
    """Load the sample images."""
    return load_data(SAMPLES / "image", "image")


def tiny_laboratory(data: TrainingData, folder: Path, setting: Setting = TINY, source: str = "samples") -> Laboratory:
    """Make a laboratory that keeps its variants in a folder."""
    return Laboratory(setting, data, source, folder, torch.device("cpu"), ProgressLine(quiet=True))
