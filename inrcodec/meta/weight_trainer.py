"""The outer loop of weight-coded fields: theta_0 learned by differentiating through the adaptation of many signals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrcodec.errors import UsageError
from inrcodec.initialization import Initialization
from inrcodec.meta.config import BootstrapContextSet, TrainingConfig
from inrcodec.meta.data import PatchSampler
from inrcodec.meta.presets import Preset
from inrcodec.meta.trainer import LearnedGroup, OuterLoss, Trainer, take_over
from inrcodec.models import Parameters, PointField
from inrcodec.options import EncodeOptions
from inrcodec.priors import DeltaPrior
from inrcodec.settings import ScoreName
from inrcodec.weights.adaptation import (
    adapt_for_training,
    batch_parameters,
    descend,
    gradients,
    initial_step_sizes,
    signal_losses,
)
from inrcodec.weights.codec import STEPS, adapt_patches
from inrcodec.weights.context_set import ContextSet
from inrcodec.weights.model import WeightModel
from inrcodec.weights.pruning import generators_of, prune
from inrcodec.weights.quantizer_search import LARGEST_STEP_INDEX, choose_quantizer

PRIOR_PATCHES = 512
"""Training patches whose deltas the prior is fitted to."""


def bootstrap_target(
    field: PointField,
    theta_k: Parameters,
    log_step_sizes: Parameters,
    context_set: ContextSet,
    config: TrainingConfig,
    generators: Sequence[torch.Generator] | None = None,
) -> Parameters:
    """Return theta after L further steps, without graph (GradNCP 2.3). generators: one for each signal."""
    adaptation = config.adaptation
    scores: dict[BootstrapContextSet, ScoreName] = {"full": "full", "pruned": adaptation.score, "random": "random"}
    theta = {name: value.detach() for name, value in theta_k.items()}
    for _ in range(config.bootstrap_steps):
        score = scores[config.bootstrap_context]
        pruned = prune(field, theta, context_set, score=score, gamma=adaptation.gamma, generators=generators)
        slopes, _ = gradients(field, theta, pruned)
        slopes = {name: config.bootstrap_step_ratio * slope for name, slope in slopes.items()}
        theta = {
            name: value.detach() for name, value in descend(theta, slopes, log_step_sizes, adaptation.steps).items()
        }
    return theta


def parameter_distance(theta: Parameters, target: Parameters, constants: frozenset[str]) -> Tensor:
    """Return mu, the L2 distance over all adapted tensors, not squared, per signal: [B]."""
    squares = [
        (value - target[name]).square().flatten(1).sum(1) for name, value in theta.items() if name not in constants
    ]
    # The tiny offset keeps the square root's gradient finite where nothing was learned in the L steps.
    return (torch.stack(squares).sum(0) + 1e-12).sqrt()


def outer_loss(
    field: PointField,
    theta_0: Parameters,
    log_step_sizes: Parameters,
    context_set: ContextSet,
    config: TrainingConfig,
    generators: Sequence[torch.Generator] | None = None,
) -> OuterLoss:
    """Return L_total = L_MSE(theta_K; C_full) + lambda mu(theta_K, theta_boot), GradNCP eq. 3.

    It is differentiable in theta_0 and the step sizes.

    With Reptile the total is that whose gradient leads from theta_0 to theta_K, half the squared distance.
    """
    reptile = config.method == "reptile"
    theta_k = adapt_for_training(
        field,
        theta_0,
        log_step_sizes,
        context_set,
        config.adaptation,
        generators,
        second_order=config.method == "second-order",
        backward_share=config.backward_share,
    )
    if reptile:
        theta_k = {name: value.detach() for name, value in theta_k.items()}
    reconstruction = signal_losses(field, theta_k, context_set).mean()
    nothing = torch.zeros_like(reconstruction)
    if reptile:
        start = batch_parameters(field, theta_0, len(context_set.values))
        way = parameter_distance(start, theta_k, field.constants)
        return OuterLoss(way.square().mean() / 2, reconstruction, nothing)
    if config.bootstrap_steps == 0 or config.bootstrap_weight == 0:
        return OuterLoss(reconstruction, reconstruction, nothing)
    target = bootstrap_target(field, theta_k, log_step_sizes, context_set, config, generators)
    distance = parameter_distance(theta_k, target, field.constants).mean()
    return OuterLoss(reconstruction + config.bootstrap_weight * distance, reconstruction, distance)


class WeightTrainer(Trainer):
    """The trainer of weight-coded fields: theta_0 and the step sizes."""

    REMEDY = "use a smaller --inner-step-size or --outer-step-size"

    field: PointField

    def __init__(self, field: PointField, config: TrainingConfig, device: torch.device) -> None:
        theta_0 = field.initialize(torch.Generator().manual_seed(config.seed))
        adapted = {name: theta_0[name] for name in field.adapted_shapes()}
        sizes = initial_step_sizes(
            adapted, kind=config.step_sizes, alpha=config.inner_step_size, steps=config.adaptation.steps
        )
        learn_sizes = config.step_sizes != "none"
        self.theta_0 = {name: value.to(device).requires_grad_(name in adapted) for name, value in theta_0.items()}
        self.log_step_sizes = {name: value.to(device).requires_grad_(learn_sizes) for name, value in sizes.items()}
        groups = [LearnedGroup([self.theta_0[name] for name in adapted], config.outer_step_size)]
        if learn_sizes:
            groups.append(LearnedGroup(list(self.log_step_sizes.values()), config.step_size_rate))
        super().__init__(field, config, {"theta_0": self.theta_0, "step_sizes": self.log_step_sizes}, groups)

    def loss(self, context_set: ContextSet, generator: torch.Generator) -> OuterLoss:
        generators = generators_of(generator, self.processes.numbers(len(context_set.values)))
        return outer_loss(self.field, self.theta_0, self.log_step_sizes, context_set, self.config, generators)

    def start_from(self, start: Initialization) -> None:
        pairs = [(self.theta_0, start.theta_0)]
        if self.config.step_sizes != "none":
            pairs.append((self.log_step_sizes, start.log_step_sizes))
        if start.field.name != self.field.name or not take_over(pairs):
            raise UsageError(f"no tensor of the initialization to start from, a {start.field.name}, fits the field")

    def initialization(
        self, preset: Preset, sampler: PatchSampler, provenance: dict[str, Any], device: torch.device
    ) -> Initialization:
        """Return the initialization, with the prior fitted to deltas of training patches."""
        theta_0 = {name: value.detach().cpu() for name, value in self.theta_0.items()}
        shapes = self.field.adapted_shapes()
        initialization = Initialization(
            modality=preset.modality,
            field=self.field,
            patches=preset.patches,
            adaptation=self.config.adaptation,
            theta_0=theta_0,
            log_step_sizes={name: value.detach().cpu() for name, value in self.log_step_sizes.items()},
            prior=DeltaPrior(
                {name: torch.zeros(shape, dtype=torch.int16) for name, shape in shapes.items()}, (0,) * len(shapes)
            ),
            provenance=provenance,
        )
        # A step number no training step has: patches that were not seen, from the same files.
        context_sets = sampler.batch(1 << 40, PRIOR_PATCHES)
        model = WeightModel.of(initialization)
        deltas = adapt_patches(context_sets, model, device, steps=STEPS[EncodeOptions().effort])
        scales = np.rint(4 * np.log2(np.abs(deltas).mean(axis=0).clip(1e-12))).astype(np.int16)
        parts = torch.from_numpy(scales).split(model.sizes)
        named = {name: part.reshape(shapes[name]).clone() for name, part in zip(shapes, parts, strict=True)}
        begin = (round(float(scale.float().mean())) for scale in named.values())
        start = tuple(max(-LARGEST_STEP_INDEX, min(LARGEST_STEP_INDEX, index)) for index in begin)
        quantizer = choose_quantizer(
            deltas,
            context_sets,
            replace(model, prior=DeltaPrior(named, start)),
            trade_off=EncodeOptions().trade_off,
            device=device,
            sample=64,
            moves=(8, 4, 2, 1),
        )
        return replace(initialization, prior=DeltaPrior(named, quantizer.step_indices))
