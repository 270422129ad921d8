"""Networks that predict a field's weights from the signal, and the same test-time adaptation after them.

TransINR (Chen & Wang 2022) predicts all weights, one vector for a group of units; Instance Pattern Composers (Kim et
al. 2023) the low-rank weights of one layer. Small versions, with the outer steps of the fields beside them.
"""

import math
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from experiments.laboratory import Laboratory, mean_decibels
from experiments.result import Panel, Result, Row
from inrcodec.errors import UsageError
from inrcodec.meta.adaptation import SHARED, descend, gradients, signal_losses
from inrcodec.meta.context import Context
from inrcodec.meta.evaluation import RANDOM_STEP_SIZES
from inrcodec.models import Field, Parameters

GROUPS = 8
"""TransINR: tokens of a layer, each for as many of its units."""

RANK = 16
"""Instance Pattern Composers: patterns that a signal chooses, rows of the low-rank factor."""


class SignalEncoder(nn.Module):
    """A transformer that sees a signal in pieces, and as many learned tokens as are read from it.

    shape: of the signal's grid; piece: samples of a token along every axis.
    """

    def __init__(
        self, shape: tuple[int, ...], piece: tuple[int, ...], channels: int, queries: int, width: int, depth: int
    ) -> None:
        super().__init__()
        self.shape, self.piece = shape, piece
        tokens = math.prod(size // part for size, part in zip(shape, piece, strict=True))
        self.embed = nn.Linear(math.prod(piece) * channels, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, values: Tensor) -> Tensor:
        """Values [B, N, C] in [0, 1] to [B, queries, width]."""
        tokens = self.embed(pieces(values - 0.5, self.shape, self.piece)) + self.positions
        queries = self.queries.expand(len(values), -1, -1)
        return self.layers(torch.cat((tokens, queries), 1))[:, tokens.shape[1] :]


def pieces(values: Tensor, shape: tuple[int, ...], piece: tuple[int, ...]) -> Tensor:
    """Values [B, N, C] on a grid to [B, tokens, samples of a token x C]."""
    counts = [size // part for size, part in zip(shape, piece, strict=True)]
    split = [number for pair in zip(counts, piece, strict=True) for number in pair]
    axes = len(shape)
    grid = values.reshape(len(values), *split, values.shape[-1])
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    return grid.permute(order).reshape(len(values), math.prod(counts), -1)


class TransINR(nn.Module):
    """Weights of all layers: every row the product of its group's predicted vector and a shared one, of norm 1."""

    def __init__(
        self, model: Field, encoder_width: int, depth: int, shape: tuple[int, ...], piece: tuple[int, ...]
    ) -> None:
        super().__init__()
        start = model.initialize(torch.Generator().manual_seed(0))
        self.constants = {name: start[name] for name in model.constants}
        self.layers = [name.removesuffix(".weight") for name in start if name.endswith(".weight")]
        self.groups = [min(GROUPS, len(start[f"{layer}.weight"])) for layer in self.layers]
        self.shared = nn.ParameterDict()
        self.heads = nn.ModuleDict()
        for layer in self.layers:
            rows = torch.cat((start[f"{layer}.weight"], start[f"{layer}.bias"][:, None]), 1)
            key = layer.replace(".", "_")
            self.shared[key] = nn.Parameter(rows)
            self.heads[key] = nn.Sequential(nn.LayerNorm(encoder_width), nn.Linear(encoder_width, rows.shape[1]))
        self.encoder = SignalEncoder(shape, piece, model.out_features, sum(self.groups), encoder_width, depth)

    def forward(self, values: Tensor) -> Parameters:
        """Values [B, N, C] to the field's parameters [B, ...]."""
        parameters: Parameters = dict(self.constants)
        found = self.encoder(values).split(self.groups, 1)
        for layer, tokens in zip(self.layers, found, strict=True):
            key = layer.replace(".", "_")
            rows = self.shared[key]
            vectors = 1 + self.heads[key](tokens)
            repeats = math.ceil(len(rows) / tokens.shape[1])
            weights = rows * vectors.repeat_interleave(repeats, 1)[:, : len(rows)]
            # The length of a row is what it is in the shared weights: a signal chooses its direction.
            weights = weights * (rows.norm(dim=1, keepdim=True) / weights.norm(dim=2, keepdim=True).clamp_min(1e-8))
            parameters[f"{layer}.weight"] = weights[..., :-1]
            parameters[f"{layer}.bias"] = weights[..., -1]
        return parameters


class InstancePatternComposers(nn.Module):
    """Shared weights, but for the second layer: there a shared matrix times `RANK` predicted rows."""

    def __init__(
        self, model: Field, encoder_width: int, depth: int, shape: tuple[int, ...], piece: tuple[int, ...]
    ) -> None:
        super().__init__()
        start = model.initialize(torch.Generator().manual_seed(0))
        self.constants = {name: start[name] for name in model.constants}
        self.shared = nn.ParameterDict(
            {
                name.replace(".", "_"): nn.Parameter(value)
                for name, value in start.items()
                if name not in model.constants
            }
        )
        self.names = [name for name in start if name not in model.constants]
        weights = [name for name in self.names if name.endswith(".weight")]
        self.composed = weights[1]
        rows, columns = start[self.composed].shape
        self.combine = nn.Parameter(torch.randn(rows, RANK) / math.sqrt(RANK))
        self.head = nn.Sequential(nn.LayerNorm(encoder_width), nn.Linear(encoder_width, columns))
        with torch.no_grad():
            self.head[1].weight.mul_(float(start[self.composed].std()))
        self.encoder = SignalEncoder(shape, piece, model.out_features, RANK, encoder_width, depth)

    def forward(self, values: Tensor) -> Parameters:
        """Values [B, N, C] to the field's parameters [B, ...]."""
        shared = {name: self.shared[name.replace(".", "_")] for name in self.names}
        parameters = {name: value.expand(len(values), *value.shape) for name, value in shared.items()}
        composed = parameters[self.composed] + self.combine @ self.head(self.encoder(values))
        return {**self.constants, **parameters, self.composed: composed}


def amortized(laboratory: Laboratory) -> Result:
    """TransINR and Instance Pattern Composers, and adaptation after them (GradNCP tables 1 and 11)."""
    setting = laboratory.setting
    shape = setting.patches.shape
    if setting.patches.sphere or setting.field == "nerv":
        raise UsageError("weights are predicted from regular grids for fields of linear layers: choose another")
    width, depth = (768, 6) if setting.scale == "paper" else (64, 3)
    piece = tuple(max(part for part in range(1, 10) if size % part == 0) for size in shape)
    marks = (0, *setting.measured)
    curves = {"GradNCP": laboratory.curve(laboratory.learn("GradNCP", setting.training), marks)}
    rows: dict[str, Row] = {}
    for name, kind in (("TransINR", TransINR), ("Instance Pattern Composers", InstancePatternComposers)):
        torch.manual_seed(setting.training.seed)
        network = kind(setting.model, width, depth, shape, piece).to(laboratory.device)
        seconds = _train(name, network, laboratory)
        with torch.no_grad():
            predicted = network(laboratory.held_out.values)
        trials = [_adapted(setting.model, predicted, laboratory.held_out, size, marks) for size in RANDOM_STEP_SIZES]
        curves[name] = {mark: max(trial[mark] for trial in trials) for mark in marks}
        rows[name] = {"s per outer step": seconds / setting.training.outer_steps}
        rows[name]["weights of the encoder"] = float(sum(value.numel() for value in network.parameters()))
    for name, curve in curves.items():
        rows[name] = {f"{mark} steps": psnr for mark, psnr in curve.items()} | rows.get(name, {})
    note = "after TransINR and Instance Pattern Composers the best of the step sizes " + ", ".join(
        f"{size:g}" for size in RANDOM_STEP_SIZES
    )
    return Result("PSNR of held-out patches, mean, dB", rows, [Panel(curves, "adaptation steps", "PSNR, dB")], [note])


def _train(name: str, network: nn.Module, laboratory: Laboratory) -> float:
    """Seconds it took."""
    training = laboratory.setting.training
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3 if laboratory.setting.scale == "small" else 1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.outer_steps)
    began = time.monotonic()
    for step in range(training.outer_steps):
        context = laboratory.batch(step)
        losses = signal_losses(laboratory.setting.model, network(context.values), context)
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        laboratory.progress.update(name, step + 1, training.outer_steps, f"{mean_decibels(losses):.2f} dB")
    return time.monotonic() - began


def _adapted(
    model: Field, start: Parameters, context: Context, step_size: float, marks: Iterable[int]
) -> dict[int, float]:
    sizes = {SHARED: torch.tensor([step_size], device=context.values.device).log()}
    theta, wanted = start, set(marks)
    reached: dict[int, float] = {}
    for step in range(max(wanted) + 1):
        slopes, losses = gradients(model, theta, context)
        if step in wanted:
            reached[step] = mean_decibels(losses)
        theta = descend(theta, slopes, sizes, step)
    return reached
