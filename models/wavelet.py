"""The dyadic wavelet transform under the latent pyramid, for any number of axes.

Biorthogonal 9/7 wavelets (Cohen, Daubechies, Feauveau 1992) by lifting (Daubechies and Sweldens 1998), scaled so that
they are nearly orthonormal: the inverse J of the transform has J^T J close to the identity. Every level halves the
axes that still have levels left; an axis of odd length is continued by one sample first, so the sizes of all levels
follow from the size of the grid.
"""

import enum
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inrcodec.models.exact import applied

_LIFTING = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
_SCALE = math.sqrt(2) / 1.230174104914001


@dataclass(frozen=True)
class Level:
    """One level of a transform.

    grid: shape of the grid that is split; half: shape of its bands.
    axes: the axes that are split, counted from the first grid axis.
    """

    grid: tuple[int, ...]
    half: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def bands(self) -> int:
        """The number of detail bands: every combination of low and high pass but all-low."""
        return 2 ** len(self.axes) - 1


def levels_of(shape: Sequence[int], levels: Sequence[int]) -> tuple[Level, ...]:
    """Return the levels of a transform of a grid, finest first.

    shape: samples along each axis. levels: how often each axis is split, whatever its size, so that all signals have
        the same bands.
    """
    grid = tuple(shape)
    result = []
    for level in range(max(levels)):
        axes = tuple(axis for axis in range(len(grid)) if level < levels[axis])
        half = tuple(-(-size // 2) if axis in axes else size for axis, size in enumerate(grid))
        result.append(Level(grid, half, axes))
        grid = half
    return tuple(result)


def analyse(values: Tensor, levels: Sequence[Level], periodic: Sequence[bool]) -> list[Tensor]:
    """Apply the forward transform.

    values: [B, C, *grid]. periodic: which grid axes are closed; those of odd length are treated as open.
    Returns the detail bands [B, C, bands, *half] of every level, finest first, then the coarsest means [B, C, *half].
    """
    result = []
    for level in levels:
        parts = [values]
        for axis in level.axes:
            parts = [half for part in parts for half in _split(part, axis + 2, periodic[axis])]
        values = parts[0]
        result.append(torch.stack(parts[1:], 2))
    return [*result, values]


def join(means: Tensor, details: Tensor | None, level: Level, periodic: Sequence[bool]) -> Tensor:
    """Apply one level of the inverse, linear in what `analyse` returns.

    means: [B, C, *half]. details: [B, C * bands, *half]; None: all zero.
    Returns the polyphase components of the level's grid, [*(2,) * n, B, C, *half], of which `whole` makes that grid:
    first those at even places along the first of the n axes, then those at odd ones, and so on. Every value is
    computed by the same single operations on every machine; see `inrcodec.models.exact`.
    """
    if details is None:
        details = means.new_zeros(means.shape[0], means.shape[1] * level.bands, *level.half)
    return applied(_Join, means, details, level, tuple(periodic))


def whole(phases: Tensor, level: Level) -> Tensor:
    """Return the grid [B, C, *grid] of what `join` returned."""
    count = len(level.axes)
    order = [count, count + 1]
    for axis in range(len(level.grid)):
        order.append(count + 2 + axis)
        if axis in level.axes:
            order.append(level.axes.index(axis))
    shape = [half * 2 if axis in level.axes else half for axis, half in enumerate(level.half)]
    joined = phases.permute(order).reshape(*phases.shape[count : count + 2], *shape)
    return joined[(slice(None), slice(None), *(slice(0, size) for size in level.grid))]


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, details: Tensor, level: Level, periodic: tuple[bool, ...]) -> Tensor:
        ctx.level, ctx.periodic = level, periodic
        count = len(level.axes)
        phases = means.new_empty((2,) * count + means.shape)
        for band, corner in enumerate(itertools.product((0, 1), repeat=count)):
            part = details[:, band - 1 :: level.bands] if band else means
            torch.mul(part, _gain(corner), out=phases[corner])
        for number, axis in reversed(list(enumerate(level.axes))):
            even, odd = phases.select(number, 0), phases.select(number, 1)
            closed = _is_closed(level, axis, periodic)
            a, b, c, d = _LIFTING
            dim = axis + 1 + count
            _lift(even, _sum_with(odd, dim, _Side.BEFORE, closed), d)
            _lift(odd, _sum_with(even, dim, _Side.AFTER, closed), c)
            _lift(even, _sum_with(odd, dim, _Side.BEFORE, closed), b)
            _lift(odd, _sum_with(even, dim, _Side.AFTER, closed), a)
        return phases

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *applied(_JoinTransposed, gradients[0], ctx.level, ctx.periodic), None, None


class _JoinTransposed(torch.autograd.Function):
    """The transpose of `_Join`, which is linear: its gradient, and in turn differentiable."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, level: Level, periodic: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
        ctx.level, ctx.periodic = level, periodic
        phases = gradient.clone(memory_format=torch.contiguous_format)
        count = len(level.axes)
        for number, axis in enumerate(level.axes):
            even, odd = phases.select(number, 0), phases.select(number, 1)
            closed = _is_closed(level, axis, periodic)
            a, b, c, d = _LIFTING
            dim = axis + 1 + count
            _lift(even, _sum_with(odd, dim, _Side.AFTER, closed, transposed=True), a)
            _lift(odd, _sum_with(even, dim, _Side.BEFORE, closed, transposed=True), b)
            _lift(even, _sum_with(odd, dim, _Side.AFTER, closed, transposed=True), c)
            _lift(odd, _sum_with(even, dim, _Side.BEFORE, closed, transposed=True), d)
        channels = phases.shape[count + 1]
        details = phases.new_empty(phases.shape[count], channels * level.bands, *level.half)
        for band, corner in enumerate(itertools.product((0, 1), repeat=count)):
            if band:
                torch.mul(phases[corner], _gain(corner), out=details[:, band - 1 :: level.bands])
        return phases[(0,) * count] * _gain((0,) * count), details

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return applied(_Join, *gradients, ctx.level, ctx.periodic), None, None


class _Side(enum.Enum):
    BEFORE = -1
    AFTER = 1


def _gain(corner: Sequence[int]) -> float:
    """Return what a band is multiplied with: low ones are divided by the scale once per axis, high ones multiplied."""
    return math.prod(_SCALE if high else 1 / _SCALE for high in corner)


def _is_closed(level: Level, axis: int, periodic: Sequence[bool]) -> bool:
    return periodic[axis] and level.grid[axis] % 2 == 0


def _lift(values: Tensor, sums: Tensor, coefficient: float) -> None:
    """Subtract sums times a coefficient: two operations, so that no machine fuses them."""
    values.sub_(sums.mul_(coefficient))


def _sum_with(values: Tensor, dim: int, side: _Side, closed: bool, transposed: bool = False) -> Tensor:
    """Return values plus their neighbours on one side along `dim`; an open end is continued symmetrically.

    transposed: the transpose of that linear map.
    """
    count = values.shape[dim]
    step = side.value * (-1 if transposed else 1)
    near = slice(0, count - 1) if step > 0 else slice(1, count)
    far = slice(1, count) if step > 0 else slice(0, count - 1)
    index = (slice(None),) * dim
    result = torch.empty_like(values, memory_format=torch.contiguous_format)
    torch.add(values[(*index, near)], values[(*index, far)], out=result[(*index, near)])
    last = slice(count - 1, count) if step > 0 else slice(0, 1)
    first = slice(0, 1) if step > 0 else slice(count - 1, count)
    if closed:
        torch.add(values[(*index, last)], values[(*index, first)], out=result[(*index, last)])
    elif not transposed:
        torch.add(values[(*index, last)], values[(*index, last)], out=result[(*index, last)])
    else:
        # The end's own mirror image comes back to it; the far end has no neighbour that looks at it.
        result[(*index, last)] = values[(*index, last)]
        result[(*index, first)] += values[(*index, first)]
    return result


def _split(values: Tensor, dim: int, periodic: bool) -> tuple[Tensor, Tensor]:
    """Return the low and the high band along `dim`, each half as long, rounded up."""
    size = values.shape[dim]
    closed = periodic and size % 2 == 0
    if size % 2:
        values = torch.cat([values, values.narrow(dim, size - 1, 1)], dim)
    even, odd = values.unflatten(dim, (-1, 2)).unbind(dim + 1)
    a, b, c, d = _LIFTING
    odd = odd + a * (even + _after(even, dim, closed))
    even = even + b * (odd + _before(odd, dim, closed))
    odd = odd + c * (even + _after(even, dim, closed))
    even = even + d * (odd + _before(odd, dim, closed))
    return even * _SCALE, odd * (1 / _SCALE)  # no quotient: a GPU makes it a product, a CPU does not


def _after(values: Tensor, dim: int, closed: bool) -> Tensor:
    """Return the next sample of each; an open end is continued symmetrically."""
    count = values.shape[dim]
    end = values.narrow(dim, 0 if closed else count - 1, 1)
    return torch.cat([values.narrow(dim, 1, count - 1), end], dim)


def _before(values: Tensor, dim: int, closed: bool) -> Tensor:
    """Return the previous sample of each; an open end is continued symmetrically."""
    count = values.shape[dim]
    end = values.narrow(dim, count - 1 if closed else 0, 1)
    return torch.cat([end, values.narrow(dim, 0, count - 1)], dim)
