"""An initialization as the codec of weight-coded fields sees it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self, cast

import numpy as np
import torch

from inrcodec.initialization import Initialization
from inrcodec.models import Parameters, PointField
from inrcodec.priors import DeltaPrior
from inrcodec.settings import AdaptationConfig


@dataclass(frozen=True, eq=False)
class WeightModel:
    """A field with theta_0, its step sizes and its prior; see `Initialization`.

    normalize: whether patches are normalized before they are fitted; see `PatchConfig`.
    """

    field: PointField
    theta_0: Parameters
    log_step_sizes: Parameters
    adaptation: AdaptationConfig
    prior: DeltaPrior
    normalize: bool

    @classmethod
    def of(cls, initialization: Initialization) -> Self:
        """Return the model of an initialization of a weight-coded field."""
        return cls(
            field=cast(PointField, initialization.field),
            theta_0=initialization.theta_0,
            log_step_sizes=initialization.log_step_sizes,
            adaptation=initialization.adaptation,
            prior=cast(DeltaPrior, initialization.prior),
            normalize=initialization.patches.normalize,
        )

    @cached_property
    def adapted(self) -> list[str]:
        """Names of the tensors a delta has, in coding order."""
        return list(self.field.adapted_shapes())

    @cached_property
    def sizes(self) -> list[int]:
        """Elements of each adapted tensor."""
        return [self.theta_0[name].numel() for name in self.adapted]

    @property
    def delta_size(self) -> int:
        """Parameters coded per patch, n."""
        return sum(self.sizes)

    @cached_property
    def prior_scales(self) -> np.ndarray:
        """Prior scale of every coded parameter, int64 [n]."""
        return torch.cat([self.prior.scales[name].flatten() for name in self.adapted]).numpy().astype(np.int64)

    def deltas(self, parameters: Parameters) -> np.ndarray:
        """Return the change of adapted parameters [B, ...] from theta_0 as one float32 matrix [B, n]."""
        deltas = [(parameters[name].cpu() - self.theta_0[name]).flatten(1) for name in self.adapted]
        return torch.cat(deltas, dim=1).numpy()

    def parameters(self, deltas: np.ndarray, device: torch.device) -> Parameters:
        """Return theta_0 plus deltas [B, n] as the field takes it: [B, ...], and the constants."""
        parts = torch.from_numpy(deltas.astype(np.float32)).split(self.sizes, dim=1)
        parameters = {name: self.theta_0[name].to(device) for name in self.field.constants}
        for name, part in zip(self.adapted, parts, strict=True):
            theta_0 = self.theta_0[name]
            parameters[name] = (theta_0 + part.reshape(-1, *theta_0.shape)).to(device)
        return parameters
