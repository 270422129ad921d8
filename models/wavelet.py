"""The dyadic wavelet transform under the latent pyramid, for any number of axes.

Biorthogonal 9/7 wavelets (Cohen, Daubechies, Feauveau 1992) by lifting (Daubechies and Sweldens 1998), scaled so that
they are nearly orthonormal: the inverse J of the transform has J^T J close to the identity. Every level halves the
axes that still have levels left; an axis of odd length is continued by one sample first, so the sizes of all levels
follow from the size of the grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


def synthesise(latents: Sequence[Tensor], levels: Sequence[Level], periodic: Sequence[bool]) -> list[Tensor]:
    """Apply the inverse transform, linear in the latents that `analyse` returns.

    Returns the grids of all levels, finest first: [B, C, *grid]; the first is the signal's.
    """
    values = latents[-1]
    grids = []
    for level, details in zip(reversed(levels), reversed(latents[:-1]), strict=True):
        values = join(values, details, level, periodic)
        grids.append(values)
    return grids[::-1]


def join(means: Tensor, details: Tensor, level: Level, periodic: Sequence[bool]) -> Tensor:
    """Apply one level of the inverse: [B, C, *grid] from means [B, C, *half] and details [B, C, bands, *half]."""
    parts = [means, *details.unbind(2)]
    for axis in reversed(level.axes):
        size = level.grid[axis]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_join(low, high, axis + 2, size, periodic[axis]) for low, high in pairs]
    return parts[0]


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
    return even * _SCALE, odd / _SCALE


def _join(low: Tensor, high: Tensor, dim: int, size: int, periodic: bool) -> Tensor:
    """Undo `_split`."""
    closed = periodic and size % 2 == 0
    even, odd = low / _SCALE, high * _SCALE
    a, b, c, d = _LIFTING
    even = even - d * (odd + _before(odd, dim, closed))
    odd = odd - c * (even + _after(even, dim, closed))
    even = even - b * (odd + _before(odd, dim, closed))
    odd = odd - a * (even + _after(even, dim, closed))
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1).narrow(dim, 0, size)


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
