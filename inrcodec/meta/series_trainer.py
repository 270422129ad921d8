"""The outer loop of latent series: references are seen where they are."""

from collections.abc import Sequence

from torch import Tensor

from inrcodec.initialization import Initialization
from inrcodec.meta.sequence_trainer import SequenceTrainer
from inrcodec.models.pyramid import LatentPyramid
from inrcodec.models.sequence import INTER


class SeriesTrainer(SequenceTrainer):
    """The trainer of latent series."""

    ALONE = 8  # beside the signals that are one field only
    FINER = (0, 1, 2, 3, 4)
    START = "climate"

    def _shown(self, member: Tensor, references: Sequence[Tensor], step: float) -> list[Tensor]:
        return list(references)

    def start_from(self, start: Initialization) -> None:
        """See `SequenceTrainer`. Members with references begin with the references' mean as their prediction."""
        super().start_from(start)
        if start.field.name == LatentPyramid.name:
            for name, value in self.theta_0.items():
                if name.startswith(INTER) and name.endswith("head.weight"):
                    value.data.zero_()
