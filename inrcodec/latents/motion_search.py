"""The search for motion: where the blocks of a picture were in a reference, as far as that pays for the bits it takes.

Smaller pictures with larger blocks come first and the picture itself last. At every stage vectors change where that
lowers

    sum |picture - moved reference| / (_EXCHANGE scale) + bits(vectors)

on one of four interleaved lattices of blocks at a time: vectors two blocks apart take part in the flow of different
samples, so all those of a lattice are decided at once, by the samples that they do move.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inrcodec.models.motion import BLOCK, PRECISION

_EXCHANGE = 0.75
"""Mean of the channels' absolute differences, in quantization steps, that is worth a bit."""
_REACH = 4
"""Samples of the smallest picture that are searched in every direction."""
_MIN_BLOCK = 8
"""Samples along each side of a block of a smaller picture: fewer do not tell motion from noise."""
_LATTICES = ((0, 0), (1, 1), (0, 1), (1, 0))
_CHANGES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))
_QUARTERS = ((0, 256, 0, 0), (-27, 225, 67, -9), (-24, 152, 152, -24), (-9, 67, 225, -27))
"""256 times the weights, at -1, 0, 1 and 2, of cubic convolution (a = -3/4) for every quarter of a sample."""


@dataclass(frozen=True)
class _Plan:
    """How one stage of the search compares pictures and changes vectors.

    size: of a sample, in those of the picture. stride: every how many samples one is compared, down and across.
    unit: of changes of the vectors. changes: how many of _CHANGES are tried. copies: whether vectors of neighbours and
    none are tried.
    """

    size: int
    stride: int
    unit: int
    changes: int
    copies: bool = True


_PLANS = (
    _Plan(16, 1, 64, 9),
    _Plan(8, 1, 32, 9),
    _Plan(4, 1, 16, 9),
    _Plan(2, 1, 8, 5),
    _Plan(2, 1, 4, 5),
    _Plan(1, 2, 2, 5),
    _Plan(1, 1, 1, 5, copies=False),
)


@dataclass(frozen=True, eq=False)
class _Stage:
    """The comparison that a plan makes, of [h, w] places and [gh, gw] blocks.

    picture: [B, h, w]. reference: [B, 1, H, W], at quarters of samples.
    down [h, gh], across [2 gw, 2 w]: weights of the blocks' vectors (dx, dy) in the places' positions (x, y) in the
        reference as grid_sample counts them. still: [h, 2 w], the positions without motion.
    rows [gh, h], columns [w, gw]: 1 where a vector takes part in a place's flow, else 0.
    price: bits for an absolute difference of 1.
    """

    picture: Tensor
    reference: Tensor
    down: Tensor
    across: Tensor
    still: Tensor
    rows: Tensor
    columns: Tensor
    price: float

    def cost(self, motion: Tensor) -> Tensor:
        """Return bits for what the reference leaves around each block: vectors [B, 2, gh, gw] to bits [B, gh, gw]."""
        vectors = motion.flip(1).permute(0, 2, 3, 1).flatten(2)
        positions = (self.down @ vectors @ self.across).add_(self.still).unflatten(2, (-1, 2))
        samples = functional.grid_sample(
            self.reference, positions, mode="nearest", padding_mode="border", align_corners=False
        )
        left = (samples[:, 0] - self.picture).abs_()
        return self.rows @ left @ self.columns * self.price


def find_motion(pictures: Tensor, references: Tensor, scale: float) -> Tensor:
    """Find vectors with which `inrcodec.models.motion.moved` makes the references resemble the pictures.

    pictures, references: [B, C, H, W] in [0, 1]. scale: the quantization step of the orthonormal transform in
        which the pictures will be coded. Returns [B, *motion_shape((H, W))], integers in units of 1 / PRECISION
        samples.
    """
    price = 1 / (_EXCHANGE * scale)
    picture, reference = pictures.mean(1), references.mean(1)
    sizes = {1: (picture, _quartered(reference))}
    for size in (2, 4, 8, 16):
        picture, reference = (functional.avg_pool2d(each, 2, ceil_mode=True) for each in (picture, reference))
        sizes[size] = (picture, _quartered(reference))
    motion = None
    for plan in _PLANS:
        stage = _stage(*sizes[plan.size], price, plan)
        blocks = stage.rows.shape[0], stage.columns.shape[1]
        motion = _searched(stage, plan, blocks) if motion is None else _enlarged(motion, blocks)
        motion = _swept(stage, plan, _smoothed(stage, motion))
    assert motion is not None
    return motion


def _quartered(pictures: Tensor) -> Tensor:
    """Interpolate [B, H, W] at quarters of samples: [B, 1, PRECISION H, PRECISION W]."""
    taps = pictures.new_tensor(_QUARTERS) / 256
    kernel = torch.einsum("ai,bj->abij", taps, taps).flatten(0, 1)[:, None]
    wide = functional.pad(pictures[:, None], (1, 2, 1, 2), mode="replicate")
    return functional.pixel_shuffle(functional.conv2d(wide, kernel), PRECISION)


def _stage(picture: Tensor, reference: Tensor, price: float, plan: _Plan) -> _Stage:
    """Return what a plan compares.

    picture: [B, H, W] of the plan's size. price: of a difference of 1 at a sample of size 1.
    """
    shape = picture.shape[1:]
    down, across = (_weights(size, plan).to(picture) for size in shape)
    y, x = (
        (2 * PRECISION * torch.arange(0, size, plan.stride).to(picture) + 1) / (PRECISION * size) - 1 for size in shape
    )
    unit = 2 / (PRECISION * plan.size * picture.new_tensor(shape[::-1]))
    return _Stage(
        picture[:, :: plan.stride, :: plan.stride],
        reference,
        down,
        torch.einsum("wg,cd->gcwd", across, unit.diag()).flatten(2).flatten(0, 1),
        torch.stack(torch.broadcast_tensors(x, y[:, None]), -1).flatten(1),
        (down > 0).to(picture).T,
        (across > 0).to(picture),
        price * (plan.size * plan.stride) ** 2,
    )


def _weights(size: int, plan: _Plan) -> Tensor:
    """Return the weights of the blocks along one axis in the flow at its places, [places, blocks].

    They are those of `moved` where the size is 1.
    """
    block = max(_MIN_BLOCK, BLOCK // plan.size)
    blocks = -(-size // block)
    weights = functional.interpolate(torch.eye(blocks)[None], blocks * block, mode="linear", align_corners=False)[0]
    return weights[:, : size : plan.stride].T


def _searched(stage: _Stage, plan: _Plan, blocks: Sequence[int]) -> Tensor:
    """Return the best motion that is the same everywhere around each block."""
    reach = range(-_REACH, _REACH + 1)
    offsets = plan.unit * stage.picture.new_tensor([(y, x) for y in reach for x in reach])
    candidates = offsets[:, None, :, None, None].expand(-1, len(stage.picture), -1, *blocks)
    return _best(stage, candidates, _bits(candidates) / 2)


def _enlarged(motion: Tensor, blocks: Sequence[int]) -> Tensor:
    """Return the motion for blocks of half the size, if there are more of them."""
    if motion.shape[2:] == blocks:
        return motion
    fine = functional.interpolate(motion, scale_factor=2, mode="bilinear", align_corners=False).round()
    return fine[:, :, : blocks[0], : blocks[1]]


def _smoothed(stage: _Stage, motion: Tensor) -> Tensor:
    """Take around every block the motion as it is, smoothed or the median of all, whichever is best.

    One by one vectors would not get there where they make up for errors of each other.
    """
    around, known = _neighbours(motion), _neighbours(torch.ones_like(motion))
    mean = ((around.sum(0) + motion) / (known.sum(0) + 1)).round()
    median = motion.flatten(2).median(2).values[:, :, None, None].expand_as(motion)
    candidates = torch.stack([motion, mean, median])
    return _best(stage, candidates, _unlike(candidates, _neighbours(candidates), known))


def _swept(stage: _Stage, plan: _Plan, motion: Tensor) -> Tensor:
    """Replace every vector by the best of those nearby and those of its neighbours, lattice after lattice."""
    rows, columns = (torch.arange(blocks, device=motion.device) % 2 for blocks in motion.shape[2:])
    offsets = plan.unit * motion.new_tensor(_CHANGES[: plan.changes])[:, None, :, None, None]
    known = _neighbours(torch.ones_like(motion))
    for row, column in _LATTICES:
        own = (rows == row)[:, None] & (columns == column)
        if not own.any():
            continue
        around = _neighbours(motion)
        mean = (around.sum(0) / known.sum(0).clamp(min=1)).round()
        candidates = [motion + offsets, mean[None]]
        if plan.copies:
            candidates += [around, torch.zeros_like(mean)[None]]
        tried = torch.where(own, torch.cat(candidates), motion)
        motion = _best(stage, tried, _bits(tried - mean) + _unlike(tried, around[:, None], known))
    return motion


def _neighbours(values: Tensor) -> Tensor:
    """Return the values above, below, to the left and to the right, [4, *values.shape]; 0 beyond the edges."""
    wide = functional.pad(values, (1, 1, 1, 1))
    rows, columns = wide[..., 1:-1], wide[..., 1:-1, :]
    return torch.stack([rows[..., :-2, :], rows[..., 2:, :], columns[..., :-2], columns[..., 2:]])


def _unlike(motion: Tensor, around: Tensor, known: Tensor) -> Tensor:
    """Return bits, [K, B, gh, gw], for what sets vectors [K, B, 2, gh, gw] apart from `known` ones around them."""
    return (_bits(motion - around) * known[:, None, :, 0]).sum(0)


def _bits(difference: Tensor) -> Tensor:
    """Return about what a difference [..., 2, gh, gw] from a prediction costs, [..., gh, gw]."""
    return difference.abs().add(1).log2().sum(-3)


def _best(stage: _Stage, candidates: Tensor, bits: Tensor) -> Tensor:
    """Return per block the cheapest of candidates [K, B, 2, gh, gw] with bits [K, B, gh, gw]: [B, 2, gh, gw]."""
    cost = bits + torch.stack([stage.cost(candidate) for candidate in candidates])
    return candidates.gather(0, cost.argmin(0)[None, :, None].expand_as(candidates[:1]))[0]
