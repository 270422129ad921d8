"""The outer loop: meta-learning theta_0 by differentiating through the adaptation of many signals."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from inrcodec.errors import Diverged, UsageError
from inrcodec.meta.adaptation import (
    AdaptationConfig,
    StepSizeKind,
    adapt_for_training,
    batch_parameters,
    descend,
    gradients,
    initial_step_sizes,
    signal_losses,
)
from inrcodec.meta.context import Context, ScoreName, prune
from inrcodec.models import Field, Parameters

Method = Literal["second-order", "fomaml", "reptile"]
BootstrapContext = Literal["full", "pruned", "random"]

MAX_DIVERGED = 20
"""Outer steps in a row without a finite meta-gradient that end a run."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the outer loop; the defaults are GradNCP's for SIREN (appendix A.2), but for `clip`.

    adaptation: the inner loop, K, gamma and score.
    inner_step_size: alpha, the inner step size or where its learning starts.
    learned_step_sizes: which step sizes are meta-learned along with theta_0.
    bootstrap_steps: L, full-context steps beyond theta_K that make the bootstrap target; 0 for none.
    bootstrap_weight: lambda of the distance to the target.
    bootstrap_step_ratio: step size of the L steps relative to the adaptation's last (the reference implementation
        uses 5e-2 against 1e-2).
    bootstrap_context: what the L steps see: the full context, or in every step the share gamma of the highest scores
        or of random points.
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
    quantization: finest and coarsest index of the quantization steps that a latent pyramid learns to live with.
    """

    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    inner_step_size: float = 1e-2
    learned_step_sizes: StepSizeKind = "none"
    bootstrap_steps: int = 5
    bootstrap_weight: float = 100.0
    bootstrap_step_ratio: float = 5.0
    bootstrap_context: BootstrapContext = "full"
    method: Method = "second-order"
    backward_share: float = 1.0
    outer_step_size: float = 1e-5
    step_size_rate: float = 1e-2
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float = 0.01
    batch: int = 4
    outer_steps: int = 150_000
    seed: int = 0
    second_order: float = 0.0
    quantization: tuple[int, int] = (-56, -4)

    def __post_init__(self) -> None:
        """Raises: ValueError for what a method does not have."""
        if isinstance(self.adaptation, dict):  # as it comes back from JSON
            object.__setattr__(self, "adaptation", AdaptationConfig(**self.adaptation))
        if self.method == "reptile" and (self.bootstrap_steps or self.learned_step_sizes != "none"):
            raise ValueError("Reptile has no bootstrap and learns no step sizes")
        object.__setattr__(self, "quantization", tuple(self.quantization))


def bootstrap_target(
    model: Field,
    theta_k: Parameters,
    log_step_sizes: Parameters,
    context: Context,
    config: TrainingConfig,
    generator: torch.Generator | None = None,
) -> Parameters:
    """theta after L further steps, without graph (GradNCP 2.3)."""
    adaptation = config.adaptation
    scores: dict[BootstrapContext, ScoreName] = {"full": "full", "pruned": adaptation.score, "random": "random"}
    theta = {name: value.detach() for name, value in theta_k.items()}
    for _ in range(config.bootstrap_steps):
        seen = prune(
            model, theta, context, score=scores[config.bootstrap_context], gamma=adaptation.gamma, generator=generator
        )
        slopes, _ = gradients(model, theta, seen)
        slopes = {name: config.bootstrap_step_ratio * slope for name, slope in slopes.items()}
        theta = {
            name: value.detach() for name, value in descend(theta, slopes, log_step_sizes, adaptation.steps).items()
        }
    return theta


def parameter_distance(theta: Parameters, target: Parameters, constants: frozenset[str]) -> Tensor:
    """mu: L2 distance over all adapted tensors, not squared, per signal: [B]."""
    squares = [
        (value - target[name]).square().flatten(1).sum(1) for name, value in theta.items() if name not in constants
    ]
    # The tiny offset keeps the square root's gradient finite where nothing was learned in the L steps.
    return (torch.stack(squares).sum(0) + 1e-12).sqrt()


@dataclass(frozen=True, eq=False)
class OuterLoss:
    """Means over the batch: the meta-objective (eq. 3) and its two parts."""

    total: Tensor
    reconstruction: Tensor
    bootstrap: Tensor


def outer_loss(
    model: Field,
    theta_0: Parameters,
    log_step_sizes: Parameters,
    context: Context,
    config: TrainingConfig,
    generator: torch.Generator | None = None,
) -> OuterLoss:
    """L_total = L_MSE(theta_K; C_full) + lambda mu(theta_K, theta_boot), differentiable in theta_0 and step sizes.

    With Reptile the total is that whose gradient leads from theta_0 to theta_K, half the squared distance.
    """
    reptile = config.method == "reptile"
    theta_k = adapt_for_training(
        model,
        theta_0,
        log_step_sizes,
        context,
        config.adaptation,
        generator,
        second_order=config.method == "second-order",
        backward_share=config.backward_share,
    )
    if reptile:
        theta_k = {name: value.detach() for name, value in theta_k.items()}
    reconstruction = signal_losses(model, theta_k, context).mean()
    nothing = torch.zeros_like(reconstruction)
    if reptile:
        start = batch_parameters(model, theta_0, len(context.values))
        way = parameter_distance(start, theta_k, model.constants)
        return OuterLoss(way.square().mean() / 2, reconstruction, nothing)
    if config.bootstrap_steps == 0 or config.bootstrap_weight == 0:
        return OuterLoss(reconstruction, reconstruction, nothing)
    target = bootstrap_target(model, theta_k, log_step_sizes, context, config, generator)
    distance = parameter_distance(theta_k, target, model.constants).mean()
    return OuterLoss(reconstruction + config.bootstrap_weight * distance, reconstruction, distance)


class MetaTrainer:
    """State of a run: theta_0, the step sizes, Adam's moments and the number of outer steps done.

    All randomness of step n comes from (seed, n), so a run resumed from `state` goes on as if it had not stopped.
    """

    def __init__(self, model: Field, config: TrainingConfig, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        theta_0 = model.initialize(generator)
        adapted = {name: value for name, value in theta_0.items() if name not in model.constants}
        sizes = initial_step_sizes(
            adapted,
            kind=config.learned_step_sizes,
            alpha=config.inner_step_size,
            steps=config.adaptation.steps,
        )
        self.model = model
        self.config = config
        self.step = 0
        self.diverged = 0
        self.theta_0 = {
            name: value.to(device).requires_grad_(name not in model.constants) for name, value in theta_0.items()
        }
        learn_sizes = config.learned_step_sizes != "none"
        self.log_step_sizes = {name: value.to(device).requires_grad_(learn_sizes) for name, value in sizes.items()}
        learned = [value for value in self.theta_0.values() if value.requires_grad]
        groups = [{"params": learned, "lr": config.outer_step_size}]
        if learn_sizes:
            groups.append({"params": list(self.log_step_sizes.values()), "lr": config.step_size_rate})
        self.optimizer = torch.optim.Adam(groups)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    def train_step(self, context: Context) -> OuterLoss:
        """One outer step on a batch.

        A batch on which the adaptation diverges (the meta-gradient is not finite) changes nothing.
        Raises: Diverged after `MAX_DIVERGED` such batches in a row.
        """
        factor = scheduled(self.config, self.step)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        generator = torch.Generator().manual_seed((self.config.seed * 1_000_003 + self.step) % 2**63)
        loss = outer_loss(self.model, self.theta_0, self.log_step_sizes, context, self.config, generator)
        learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.optimizer.zero_grad()
        loss.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(learned, self.config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.diverged = 0
        else:
            self.diverged += 1
            if self.diverged == MAX_DIVERGED:
                raise Diverged(
                    f"meta-training diverged at outer step {self.step} (meta-gradient {float(norm)}): "
                    "use a smaller --inner-step-size or --outer-step-size"
                )
        self.step += 1
        return OuterLoss(loss.total.detach(), loss.reconstruction.detach(), loss.bootstrap.detach())

    def state(self) -> dict[str, Tensor]:
        """Everything a later `load_state` needs, as named tensors on the CPU."""
        counts = {"step": torch.tensor([self.step]), "diverged": torch.tensor([self.diverged])}
        return counts | save_tensors(self._groups, self.optimizer)

    @property
    def _groups(self) -> dict[str, Parameters]:
        return {"theta_0": self.theta_0, "step_sizes": self.log_step_sizes}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up a `state`. Raises: UsageError if it is another field's."""
        self.step = int(tensors["step"])
        self.diverged = int(tensors["diverged"])
        load_tensors(tensors, self._groups, self.optimizer)


def scheduled(config: TrainingConfig, step: int, begin: int = 0) -> float:
    """What the outer step sizes are multiplied by at a step, of what is learned from step `begin` to the end."""
    if config.schedule == "constant":
        return 1.0
    done = (step - begin) / max(config.outer_steps - begin, 1)
    return 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def save_tensors(groups: dict[str, Parameters], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Named groups of parameters and their optimizer's moments, as named tensors on the CPU."""
    tensors = {}
    for kind, parameters in groups.items():
        for name, value in parameters.items():
            tensors[f"{kind}/{name}"] = value.detach().cpu().clone()
            for moment, tensor in optimizer.state.get(value, {}).items():
                tensors[f"{kind}/{name}/adam/{moment}"] = tensor.detach().cpu().clone()
    return tensors


def load_tensors(tensors: dict[str, Tensor], groups: dict[str, Parameters], optimizer: torch.optim.Optimizer) -> None:
    """Inverse of `save_tensors`, in place. Raises: UsageError if they do not fit."""
    for kind, parameters in groups.items():
        for name, value in parameters.items():
            saved = tensors.get(f"{kind}/{name}")
            if saved is None or saved.shape != value.shape:
                raise UsageError(f"the checkpoint does not fit this field: {kind} {name} is {saved}")
            value.data.copy_(saved)
            moments = {
                key.rsplit("/", 1)[1]: tensor.clone()
                for key, tensor in tensors.items()
                if key.startswith(f"{kind}/{name}/adam/")
            }
            if moments:
                optimizer.state[value] = {
                    moment: tensor if moment == "step" else tensor.to(value.device)
                    for moment, tensor in moments.items()
                }
