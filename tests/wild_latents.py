"""Initializations of latent fields with large random weights: their networks reach every corner of the arithmetic."""

import torch

from inrcodec.initialization import Initialization
from inrcodec.models import EntropyModel, LatentField, Parameters
from inrcodec.models.exact import ACTIVATION_UNIT, LARGEST_ACTIVATION, LARGEST_INPUT, LARGEST_SUM, WEIGHT_UNIT
from inrcodec.patches import PatchConfig
from inrcodec.priors import LatentPrior
from inrcodec.settings import AdaptationConfig

SHARES = {"head": 1e-3, "share": 1e-3, "flags": 1e-2, "scales": 4e-3}
"""How much of the largest sum the weights of some layers take; others up to `LARGEST_SHARE`."""

LARGEST_SHARE = 0.4
"""So that two layers whose sums are added stay below the largest sum together."""


def wild_initialization(
    modality: str, field: LatentField, shape: tuple[int, ...], overlap: tuple[int, ...], seed: int = 0
) -> Initialization:
    """Return an initialization of a field. shape, overlap: of its patches."""
    generator = torch.Generator().manual_seed(seed)
    model = EntropyModel.of(field, 5)
    return Initialization(
        modality=modality,
        field=field,
        patches=PatchConfig(shape, overlap, normalize=False),
        adaptation=AdaptationConfig(steps=2, gamma=1.0, score="full"),
        theta_0=_wild(field.shapes(), generator),
        log_step_sizes={"shared": torch.zeros(1)},
        prior=LatentPrior(model, _wild(model.shapes(), generator)),
    )


def _wild(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> Parameters:
    return {name: _weight(name, shape, generator) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Draw a tensor: every output has weights of another size, some nearly as large as they may be."""
    *_, layer, kind = name.split(".")
    values = torch.randn(shape, generator=generator)
    share = SHARES.get(layer)
    if kind == "bias":
        largest = 0.1 * (share or LARGEST_SHARE) * LARGEST_SUM / (WEIGHT_UNIT * ACTIVATION_UNIT)
        values = largest * values.clamp(-2, 2) / 2
        if len(shape) == 2 and layer != "share":
            # Coefficients of log2 of the step and of its square, which are up to 12 and 144.
            values[-2:] /= torch.tensor([[36.0], [432.0]])
        return values
    sees_details = "prediction." in name and layer.startswith(("means", "details", "reference", "part"))
    inputs = LARGEST_INPUT if sees_details else LARGEST_ACTIVATION
    if share is None:
        share = LARGEST_SHARE * torch.rand(shape[0], generator=generator) ** 4
    sums = values.abs().flatten(1).sum(1) * inputs * WEIGHT_UNIT / LARGEST_SUM
    return values * (share / sums).reshape(-1, *[1] * (len(shape) - 1))
