"""Networks that predict a field's weights from the signal, and the same test-time adaptation after them.

TransINR (Chen & Wang 2022) predicts all weights, one vector for a group of units; Instance Pattern Composers (Kim et
al. 2023) the low-rank weights of one layer. They have the outer steps of the fields beside them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments.curves import Curve, best_of, decibels, joined, means, slices
from experiments.laboratory import Laboratory
from experiments.result import Panel, Result, Row
from experiments.settings import Scale
from inrcodec.adaptation import SHARED
from inrcodec.device import without_denormals
from inrcodec.errors import UsageError
from inrcodec.meta.evaluation import RANDOM_STEP_SIZES
from inrcodec.models import Parameters, PointField
from inrcodec.weights.adaptation import descend, gradients, signal_losses


@dataclass(frozen=True)
class Size:
    """The size of both networks at a scale.

    width, depth, heads, hidden: of the transformer, the last one of its feed-forward layers. tokens: for a signal,
    about. step_size: of AdamW. groups: TransINR's tokens of a layer, each for as many of its units. rank: of what
    Instance Pattern Composers change, rows of the low-rank factor.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    tokens: int
    groups: int
    rank: int
    step_size: float

    def piece(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the samples of a token along the axes of a signal."""
        along_axis = round(self.tokens ** (1 / len(shape)))
        return tuple(math.ceil(size / along_axis) for size in shape)


SIZES: dict[Scale, Size] = {
    "small": Size(width=64, depth=3, heads=4, hidden=128, tokens=64, groups=8, rank=16, step_size=1e-3),
    "paper": Size(width=768, depth=6, heads=12, hidden=3072, tokens=400, groups=64, rank=256, step_size=1e-4),
}


class SignalEncoder(nn.Module):
    """A transformer that sees a signal in pieces, and as many learned tokens as are read from it.

    shape: of the signal's grid. queries: how many tokens are read.
    """

    def __init__(self, size: Size, shape: tuple[int, ...], channels: int, queries: int) -> None:
        super().__init__()
        self.shape, self.piece, width = shape, size.piece(shape), size.width
        tokens = math.prod(-(-whole // part) for whole, part in zip(shape, self.piece, strict=True))
        self.embed = nn.Linear(math.prod(self.piece) * channels, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        layer = nn.TransformerEncoderLayer(width, size.heads, size.hidden, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, size.depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, values: Tensor) -> Tensor:
        """Map values [B, N, C] in [0, 1] to [B, queries, width]."""
        tokens = self.embed(pieces(values - 0.5, self.shape, self.piece)) + self.positions
        queries = self.queries.expand(len(values), -1, -1)
        return self.layers(torch.cat((tokens, queries), 1))[:, tokens.shape[1] :]


def pieces(values: Tensor, shape: tuple[int, ...], piece: tuple[int, ...]) -> Tensor:
    """Cut values [B, N, C] on a grid into [B, tokens, samples of a token x C]; zeros fill the last pieces."""
    counts = [-(-size // part) for size, part in zip(shape, piece, strict=True)]
    filled = [0, 0]
    for size, part in zip(reversed(shape), reversed(piece), strict=True):
        filled += [0, -size % part]
    split = [number for pair in zip(counts, piece, strict=True) for number in pair]
    axes = len(shape)
    whole = nn.functional.pad(values.reshape(len(values), *shape, -1), filled)
    grid = whole.reshape(len(values), *split, values.shape[-1])
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    return grid.permute(order).reshape(len(values), math.prod(counts), -1)


class WeightPredictor(nn.Module):
    """A field's parameters as shared weights, of which subclasses change some for a signal."""

    def __init__(self, field: PointField, seed: int) -> None:
        super().__init__()
        start = field.initialize(torch.Generator().manual_seed(seed))
        self.constants = sorted(field.constants)
        for name in self.constants:
            self.register_buffer(_key(name), start[name])
        self.names = [name for name in start if name not in field.constants]
        self.shared = nn.ParameterDict({_key(name): nn.Parameter(start[name]) for name in self.names})

    def repeated(self, batch: int) -> Parameters:
        """Return the shared parameters for so many signals, [B, ...], and the constants."""
        shared = {name: self.shared[_key(name)] for name in self.names}
        constants = {name: self.get_buffer(_key(name)) for name in self.constants}
        return constants | {name: value.expand(batch, *value.shape) for name, value in shared.items()}

    @property
    def matrices(self) -> list[str]:
        """Names of the layers' weights, from the first to the readout's."""
        return [name for name in self.names if name.endswith(".weight")]


class TransINR(WeightPredictor):
    """Weights of all layers: every row is a shared one times the predicted vector of its group.

    A row keeps the length it has in the shared weights, where the original makes it 1, which a SIREN's rows are far
    from. Biases are shared.
    """

    def __init__(self, field: PointField, size: Size, shape: tuple[int, ...], seed: int) -> None:
        super().__init__(field, seed)
        sizes = [field.shapes()[name] for name in self.matrices]
        self.groups = [min(size.groups, rows) for rows, _ in sizes]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size.width), nn.Linear(size.width, columns)) for _, columns in sizes
        )
        self.encoder = SignalEncoder(size, shape, field.out_features, sum(self.groups))

    def forward(self, values: Tensor) -> Parameters:
        """Values [B, N, C] to the field's parameters [B, ...]."""
        parameters = self.repeated(len(values))
        found = self.encoder(values).split(self.groups, 1)
        for name, head, tokens in zip(self.matrices, self.heads, found, strict=True):
            rows = parameters[name]
            repeats = math.ceil(rows.shape[1] / tokens.shape[1])
            weights = rows * (1 + head(tokens)).repeat_interleave(repeats, 1)[:, : rows.shape[1]]
            lengths = rows.norm(dim=2, keepdim=True) / weights.norm(dim=2, keepdim=True).clamp_min(1e-8)
            parameters[name] = weights * lengths
        return parameters


class InstancePatternComposers(WeightPredictor):
    """Shared weights, but for the second layer: to it a shared matrix times some predicted rows is added.

    The original has the product alone; the sum begins as the field's usual initialization, which a SIREN needs.
    """

    def __init__(self, field: PointField, size: Size, shape: tuple[int, ...], seed: int) -> None:
        super().__init__(field, seed)
        self.composed = self.matrices[1]
        start = self.shared[_key(self.composed)]
        self.combine = nn.Parameter(torch.randn(len(start), size.rank) / math.sqrt(size.rank))
        readout = nn.Linear(size.width, start.shape[1])
        with torch.no_grad():
            readout.weight.mul_(start.std())
            readout.bias.zero_()
        self.head = nn.Sequential(nn.LayerNorm(size.width), readout)
        self.encoder = SignalEncoder(size, shape, field.out_features, size.rank)

    def forward(self, values: Tensor) -> Parameters:
        """Values [B, N, C] to the field's parameters [B, ...]."""
        parameters = self.repeated(len(values))
        parameters[self.composed] = parameters[self.composed] + self.combine @ self.head(self.encoder(values))
        return parameters


def _key(name: str) -> str:
    """Return a name that a module may have."""
    return name.replace(".", "_")


def amortized(laboratory: Laboratory) -> Result:
    """Predict weights by TransINR and Instance Pattern Composers, then adapt (GradNCP tables 1 and 11)."""
    setting = laboratory.setting
    shape = setting.patches.shape
    if setting.patches.sphere or setting.field.name == "nerv":
        raise UsageError("weights are predicted from regular grids for fields of linear layers: choose another")
    size = SIZES[setting.scale]
    marks = (0, *setting.measured)
    gradncp = laboratory.learn("GradNCP", setting.training)
    curves = {"random initialization": means(laboratory.random_curve(marks))}
    curves["GradNCP"] = means(laboratory.curve(gradncp, marks))
    weights: dict[str, str] = {}
    for name, kind in (("TransINR", TransINR), ("Instance Pattern Composers", InstancePatternComposers)):
        torch.manual_seed(setting.training.seed)
        network = kind(setting.field, size, shape, setting.training.seed).to(laboratory.device)
        with without_denormals():
            _train(name, network, laboratory, size.step_size)
        trials = [_curve(network, laboratory, each, marks) for each in RANDOM_STEP_SIZES]
        curves[name] = means(best_of(trials))
        weights[name] = str(sum(value.numel() for value in network.parameters()))
    rows: dict[str, Row] = {
        name: {f"{mark} steps": psnr for mark, psnr in curve.items()} | {"weights": weights.get(name)}
        for name, curve in curves.items()
    }
    sizes = ", ".join(f"{each:g}" for each in RANDOM_STEP_SIZES)
    notes = [f"after all but GradNCP the best of the step sizes {sizes}"]
    panel = Panel(curves, "adaptation steps", "PSNR, dB")
    title = f"PSNR, mean, dB, of {laboratory.described}"
    return Result(title, rows, [panel], notes, {"GradNCP": setting.training})


def _train(name: str, network: nn.Module, laboratory: Laboratory, step_size: float) -> None:
    training = laboratory.setting.training
    optimizer = torch.optim.AdamW(network.parameters(), step_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.outer_steps)
    for step in range(training.outer_steps):
        context_set = laboratory.batch(step)
        losses = signal_losses(laboratory.setting.field, network(context_set.values), context_set)
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        laboratory.progress.update(name, step + 1, training.outer_steps, f"{float(decibels(losses).mean()):.2f} dB")


def _curve(network: nn.Module, laboratory: Laboratory, step_size: float, marks: Iterable[int]) -> Curve:
    """Descend plainly from the predicted weights, and measure."""
    sizes = {SHARED: torch.tensor([step_size], device=laboratory.device).log()}
    wanted = set(marks)
    parts = []
    for context_set in slices(laboratory.held_out):
        with torch.no_grad():
            theta = network(context_set.values)
        reached: Curve = {}
        for step in range(max(wanted) + 1):
            slopes, losses = gradients(laboratory.setting.field, theta, context_set)
            if step in wanted:
                reached[step] = decibels(losses)
            theta = descend(theta, slopes, sizes, step)
        parts.append(reached)
    return joined(parts)
