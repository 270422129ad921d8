"""Pictures moved along a field of block vectors: what an encoder and a decoder both do with a reference picture."""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 16
"""Samples along each side of the square that one vector stands for."""
PRECISION = 4
"""Vectors are integers in units of 1 / PRECISION samples."""
POSITIONS = 32
"""Between two samples a picture is interpolated at this many positions."""


def motion_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (2, blocks down, blocks across), the shape of the motion of a picture of `shape` (H, W).

    The two components are dy and dx.
    """
    height, width = shape
    return 2, -(-height // BLOCK), -(-width // BLOCK)


def moved(pictures: Tensor, motion: Tensor) -> Tensor:
    """Return the pictures at p + flow(p) for every sample p.

    The flow is the vectors interpolated bilinearly between the centres of their blocks and constant beyond the
    outermost, rounded to multiples of 1 / POSITIONS; the pictures are interpolated by cubic convolution (Keys 1981,
    a = -3/4), their edges repeated. Every value is computed by the same single operations on every machine; see
    `inrcodec.models.exact`. Without motion the very same values return.

    pictures: [B, C, H, W]. motion: [B, *motion_shape((H, W))], integers in units of 1 / PRECISION samples, of any
        floating type. Returns [B, C, H, W].
    """
    if not bool(motion.any()):
        return pictures
    batch, channels, *shape = pictures.shape
    flow = _flow(motion.to(pictures), shape)
    taps = [_taps(along, axis, size) for axis, (along, size) in enumerate(zip(flow.unbind(1), shape, strict=True))]
    samples = pictures.movedim(1, 3).reshape(-1, channels)
    first = (torch.arange(batch, device=pictures.device) * (shape[0] * shape[1])).reshape(-1, 1, 1)
    (rows, down), (columns, across) = taps
    total: Tensor | None = None
    for row, vertical in zip(rows, down, strict=True):
        line: Tensor | None = None
        for column, horizontal in zip(columns, across, strict=True):
            part = samples.index_select(0, (first + row * shape[1] + column).flatten())
            part.mul_(horizontal.reshape(-1, 1))
            line = part if line is None else line.add_(part)
        assert line is not None
        line.mul_(vertical.reshape(-1, 1))
        total = line if total is None else total.add_(line)
    assert total is not None
    return total.reshape(batch, *shape, channels).movedim(3, 1).contiguous()


def _flow(motion: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate block vectors to a flow [B, 2, H, W], integers in units of 1 / POSITIONS samples."""
    flow = motion
    for axis, size in enumerate(shape):
        # Between the centres of two blocks there are 2 BLOCK halves of a sample.
        last = motion.shape[axis + 2] - 1
        halves = (2 * torch.arange(size, device=motion.device) + 1 - BLOCK).clamp(0, 2 * BLOCK * last)
        block, weight = halves // (2 * BLOCK), halves % (2 * BLOCK)
        after = (block + 1).clamp(max=last)
        weight = weight.to(flow).reshape(-1, *[1] * (1 - axis))
        # Integers below 2^24.
        flow = flow.index_select(axis + 2, block) * (2 * BLOCK - weight) + flow.index_select(axis + 2, after) * weight
    return torch.floor(flow * (POSITIONS / (PRECISION * (2 * BLOCK) ** 2)) + 0.5)


def _taps(flow: Tensor, axis: int, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the four samples along an axis that a flow [B, H, W] reads, int64 [B, H, W], and their weights."""
    place = torch.arange(size, device=flow.device).reshape(-1, *[1] * (1 - axis))
    whole = torch.div(flow, POSITIONS, rounding_mode="floor")
    phase = (flow - whole * POSITIONS).long()
    start = whole.long() + place
    weights = _WEIGHTS.to(flow)
    return (
        [(start + tap).clamp(0, size - 1) for tap in range(-1, 3)],
        [weights[:, tap].index_select(0, phase.flatten()).reshape(phase.shape) for tap in range(4)],
    )


def _cubic(distance: float) -> float:
    """Evaluate Keys' kernel with a = -3/4; at multiples of 1 / POSITIONS nothing is rounded."""
    x = abs(distance)
    if x <= 1:
        return (1.25 * x - 2.25) * x * x + 1
    return -0.75 * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0


_WEIGHTS = torch.tensor([[_cubic(phase / POSITIONS - tap) for tap in range(-1, 3)] for phase in range(POSITIONS)])
