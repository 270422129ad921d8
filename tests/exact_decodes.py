"""Decodes of networks with weights near the bound of exact sums: every machine must compute the very same bytes.

Run as a program, this prints what instructions torch takes and the hash of every decode, as JSON.
"""

import hashlib
import json
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from inrcodec.models import EntropyModel, Grid, LatentClip, LatentPyramid, LatentSpectrum, LatentTransform, Parameters
from inrcodec.models.latent import following, of_kind
from inrcodec.models.motion import motion_shape, moved

STEP_INDEX = -40

PREDICTION_SUMS = {"means": 22, "details": 26, "hidden": 60, "head": 62, "reference": 50, "share": 58, "part": 48}
ENTROPY_SUMS = {"input": 33, "part": 25, "hidden": 60, "flags": 28, "scales": 28}
"""Sums of the magnitudes of an output's weights, by the beginning of the layer's name."""


def large_weights(shapes: dict[str, tuple[int, ...]], sums: dict[str, int], seed: int) -> Parameters:
    """Draw weights with which sums are nearly too large, the same on every machine."""
    random, weights = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        layer = next(total for key, total in sums.items() if name.split(".")[-2].startswith(key))
        drawn = random.integers(-128, 129, shape).astype(np.float64)
        if name.endswith("weight"):
            flat = drawn.reshape(len(drawn), -1)
            drawn = (flat / np.maximum(np.abs(flat).sum(1, keepdims=True), 1) * layer * 0.98).reshape(shape)
        else:
            drawn /= 256
        weights[name] = torch.from_numpy(drawn.astype(np.float32))
    return weights


def random_symbols(field: LatentTransform, grid: Grid, batch: int, seed: int) -> list[Tensor]:
    """Draw the symbols of the means and of every pass: small ones mostly."""
    random = np.random.default_rng(seed)
    shapes = [field.means_shape(grid), *((place.channels, *place.shape) for place in field.places(grid))]
    return [torch.from_numpy(np.rint(random.standard_normal((batch, *each)) ** 3 * 3)).float() for each in shapes]


def decoded(field: LatentTransform, parameters: Parameters, grid: Grid, batch: int, seed: int) -> Tensor:
    symbols = random_symbols(field, grid, batch, seed)
    ready = field.ready(parameters, STEP_INDEX)
    return field.decode(ready, symbols[0], grid, STEP_INDEX, following(symbols[1:]))


def distributions(field: LatentTransform, model: EntropyModel, grid: Grid, batch: int) -> Iterator[Tensor]:
    symbols = random_symbols(field, grid, batch, 5)
    left = iter(symbols[1:])
    ready = model.ready(large_weights(model.shapes(), ENTROPY_SUMS, 3), STEP_INDEX)
    levels = field.levels_of(grid)
    for _, flags, scales in model.passes(ready, levels, field.order, lambda: next(left).abs(), symbols[0]):
        yield from (flags, scales)


def pyramids() -> Iterator[Tensor]:
    """Yield the fields of pictures, lines and boxes, between the samples too, and their distributions."""
    for field, grid, batch in (
        (LatentPyramid(2, 3, (4, 4), prediction=16, divided=2), Grid((41, 52), (False, True)), 1),
        (LatentPyramid(2, 3, (4, 4), prediction=16, divided=2).transform(40), Grid.open((18, 25)), 17),
        (LatentPyramid(1, 1, (5,), prediction=8, divided=1), Grid.open((333,)), 2),
        (LatentPyramid(3, 1, (1, 3, 3), prediction=6, divided=2), Grid.open((5, 18, 21)), 1),
    ):
        linear = decoded(field, large_weights(field.shapes(), PREDICTION_SUMS, 1), grid, batch, 2)
        yield field.values(linear, grid, STEP_INDEX)
        yield field.values_at(linear, [np.arange(2 * size) / 3 for size in grid.shape], grid, STEP_INDEX)
        yield from distributions(field, EntropyModel.of(field, 8), grid, batch)


def clip() -> Iterator[Tensor]:
    """Yield a picture, and others that see it moved along."""
    field, grid = LatentClip(3, 3, (3, 3), prediction=12, divided=1), Grid.open((37, 50))
    parameters = large_weights(field.shapes(), PREDICTION_SUMS, 4)
    alone, seeing = (field.transform(40, kind) for kind in ("intra", "inter"))
    first = alone.values(decoded(alone, of_kind(parameters, "intra"), grid, 2, 6), grid, STEP_INDEX)
    yield first
    random = np.random.default_rng(7)
    shape = (2, *motion_shape(grid.shape))
    references = [moved(first, torch.from_numpy(random.integers(-30, 31, shape)).float()) for _ in range(2)]
    yield from references
    picture = seeing.with_references(references, grid)
    yield picture.values(decoded(picture, of_kind(parameters, "inter"), grid, 2, 8), grid, STEP_INDEX)


def spectrum() -> Iterator[Tensor]:
    """Yield the field of a sound, at its samples, with short frames and long ones."""
    for variant in (0, 2):
        field, grid = LatentSpectrum(1, 2).transform(variant), Grid.open((5000,))
        yield field.values(decoded(field, {}, grid, 1, 9), grid, STEP_INDEX)
        if not variant:
            yield from distributions(field, EntropyModel.of(field, 8), grid, 1)


def digests() -> dict[str, str]:
    """Return a hash of every decode."""
    found = {}
    with torch.no_grad():
        for decode in (pyramids, clip, spectrum):
            total = hashlib.sha256()
            for tensor in decode():
                assert math.isfinite(float(tensor.abs().sum()))
                total.update(tensor.contiguous().numpy().tobytes())
            found[decode.__name__] = total.hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps({"instructions": torch.backends.cpu.get_cpu_capability(), **digests()}))
