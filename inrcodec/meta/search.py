"""Points with high scores on a grid too large to score all of it: from coarse to fine (GradNCP section 4)."""

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

PointScores = Callable[[Tensor], Tensor]
"""Scores of points given by their indices into the flattened grid: [B, n] -> [B, n], on the CPU."""


def search(
    scores: PointScores,
    shape: Sequence[int],
    keep: int,
    *,
    batch: int = 1,
    stride: int = 8,
    breadth: float = 2.0,
    at_once: int = 1 << 16,
) -> Tensor:
    """Find about the `keep` points with the highest scores of every signal, without scoring the others.

    One point in the middle of each cell of `stride` samples along every axis stands for it. The cells with the highest
    scores are halved along every axis, and so on down to single points; so many go on that the last ones are `breadth`
    times as many as are kept. With a breadth that keeps all cells the result is exact.

    shape: samples of the grid along every axis, multiples of the stride, a power of two.
    at_once: points scored at once per signal at most, the bound on memory.
    Returns [B, keep] indices into the flattened grid, in no order.
    Raises: ValueError if the stride does not divide the shape, or there are fewer points than `keep`.
    """
    if stride < 1 or stride & (stride - 1) or any(size % stride for size in shape):
        raise ValueError(f"a stride of {stride} samples does not divide a grid of {tuple(shape)} into halves")
    if not 0 < keep <= math.prod(shape):
        raise ValueError(f"{keep} of {math.prod(shape)} points cannot be kept")
    if breadth < 1 or at_once < 1:
        raise ValueError(f"a breadth of {breadth} with {at_once} points at once does not get anywhere")
    axes = [torch.arange(size // stride) for size in shape]
    cells = torch.cartesian_prod(*axes).reshape(1, -1, len(shape)).expand(batch, -1, -1)
    halves = torch.tensor(list(product((0, 1), repeat=len(shape))))
    while True:
        found = _in_parts(scores, _flat(cells * stride + stride // 2, shape), at_once)
        if stride == 1:
            return _flat(_best(cells, found, keep), shape)
        wanted = math.ceil(breadth * keep / len(halves))
        # Of each cell all points could be needed to have enough in the end.
        smallest = math.ceil(keep / stride ** len(shape))
        cells = _best(cells, found, min(cells.shape[1], max(wanted, smallest)))
        cells = (2 * cells.unsqueeze(2) + halves).flatten(1, 2)
        stride //= 2


def _best(cells: Tensor, scores: Tensor, keep: int) -> Tensor:
    chosen = scores.topk(keep, dim=1, sorted=False).indices
    return cells.gather(1, chosen.unsqueeze(-1).expand(-1, -1, cells.shape[-1]))


def _flat(points: Tensor, shape: Sequence[int]) -> Tensor:
    """Turn [B, n, d] positions into [B, n] indices."""
    index = points[..., 0]
    for axis, size in enumerate(shape[1:], 1):
        index = index * size + points[..., axis]
    return index


def _in_parts(scores: PointScores, points: Tensor, at_once: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([scores(part) for part in points.split(at_once, dim=1)], 1)
