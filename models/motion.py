"""Pictures moved along a field of block vectors: what an encoder and a decoder both do with a reference picture."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 16
"""Samples along each side of the square that one vector stands for."""
PRECISION = 4
"""Vectors are integers in units of 1 / PRECISION samples."""


def motion_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (2, blocks down, blocks across), the shape of the motion of a picture of `shape` (H, W).

    The two components are dy and dx.
    """
    height, width = shape
    return 2, -(-height // BLOCK), -(-width // BLOCK)


def moved(pictures: Tensor, motion: Tensor) -> Tensor:
    """Return the pictures at p + flow(p) for every sample p.

    The flow is the vectors interpolated bilinearly between the centres of their blocks and constant beyond the
    outermost; the pictures are interpolated by cubic convolution (torch's, a = -3/4), their edges repeated. Without
    motion the very same values return.

    pictures: [B, C, H, W]. motion: [B, *motion_shape((H, W))], integers in units of 1 / PRECISION samples, of any
        floating type. Returns [B, C, H, W].
    """
    shape = pictures.shape[2:]
    # On a grid of a power of two, positions come through the normalization below without rounding, on any device.
    bottom, right = (_power_of_two(size) - size for size in shape)
    grid = functional.pad(pictures, (0, right, 0, bottom), mode="replicate")
    positions = [
        (2 * (torch.arange(size, device=flow.device).reshape(place) + flow) + 1) / _power_of_two(size) - 1
        for size, flow, place in zip(
            shape, _flow(motion.to(pictures), shape).unbind(1), [(-1, 1), (1, -1)], strict=True
        )
    ]
    return functional.grid_sample(
        grid, torch.stack(positions[::-1], -1), mode="bicubic", padding_mode="border", align_corners=False
    )


def _flow(motion: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate block vectors to a flow [B, 2, H, W] in samples."""
    height, width = shape
    size = [BLOCK * blocks for blocks in motion.shape[2:]]
    flow = functional.interpolate(motion, size, mode="bilinear", align_corners=False)
    return flow[:, :, :height, :width] / PRECISION


def _power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()
