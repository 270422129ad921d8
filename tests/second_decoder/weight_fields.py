"""Weight fields: what a chunk has, and the parameters that it gives.

It follows "Weight fields" of docs/FORMAT.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from second_decoder import networks
from second_decoder.coordinates import coordinates
from second_decoder.entropy import EntropyDecoder
from second_decoder.header import Header
from second_decoder.patches import Layout, Patch
from second_decoder.reading import require

if TYPE_CHECKING:
    from second_decoder.initialization import Initialization

NAMES = ("siren", "ffn", "nerv")

Shapes = dict[str, tuple[int, ...]]


def coded_tensors(field: Mapping[str, Any]) -> Shapes:
    """Return the shapes of the tensors that are coded, in coding order."""
    d, outputs = field["in_features"], field["out_features"]
    weights: Shapes = {}
    if field["name"] == "nerv":
        channels = field["channels"]
        weights["stem0"] = (field["stem"], 2 * field["octaves"])
        weights["stem1"] = (channels[0] * math.prod(field["base"]), field["stem"])
        for k in range(len(channels) - 1):
            weights[f"block{k}"] = (channels[k + 1] * field["upscale"] ** 2, channels[k], 3, 3)
        weights["head"] = (outputs, channels[-1])
    else:
        inputs = d if field["name"] == "siren" else 2 * field["frequencies"]
        for k in range(field["depth"] - 1):
            weights[f"layer{k}"] = (field["width"], inputs)
            inputs = field["width"]
        weights["head"] = (outputs, inputs)
    shapes: Shapes = {}
    for name, shape in weights.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def other_tensors(field: Mapping[str, Any]) -> Shapes:
    """Return the shapes of the tensors that are not coded."""
    return {"frequencies": (field["frequencies"], field["in_features"])} if field["name"] == "ffn" else {}


class WeightField:
    """The weight fields of a stream. symbols: of each chunk in turn exponents, channel means and deltas."""

    def __init__(self, header: Header, initialization: "Initialization", layout: Layout) -> None:
        self.layout = layout
        self.settings = initialization.patches
        self.field = initialization.field
        self.theta_0 = initialization.named("theta_0")
        self.shapes = coded_tensors(self.field)
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        coding, count = header.coding_parameters, len(self.shapes)
        require(len(coding) in (count, 2 * count), "there is a step index, and perhaps a shift, for every tensor")
        scales = initialization.named("scales")
        shifts = np.repeat(coding[count:] or (0,) * count, sizes)
        self.step_indices = np.repeat(coding[:count], sizes)
        self.prior = np.concatenate([scales[name].ravel() for name in self.shapes]) + shifts
        samples = math.prod(axis.size for axis in layout.axes)
        together = min(layout.count, header.patches_per_chunk)
        require(together * (samples + sum(sizes)) <= 1 << 26, "a chunk has at most 2^26 samples and parameters")
        self.symbols: list[np.ndarray] = []
        self._patches: list[tuple[int, np.ndarray, np.ndarray]] = []

    def read_chunk(self, chunk: bytes, patches: int) -> None:
        """Decode a chunk of some patches."""
        decoder = EntropyDecoder(chunk)
        exponents = np.zeros(patches, np.int64)
        means = np.full((patches, self.field["out_features"]), 8)
        if self.settings["normalize"]:
            exponents = np.cumsum(decoder.batch(np.full(patches, 24)))
            require(bool(((exponents >= -24) & (exponents <= 1)).all()), "exponents are -24..1")
            rows = (24 + 4 * (1 - exponents)).clip(0, 48)
            means = _means(exponents, decoder.batch(np.repeat(rows[:, None], means.shape[1], 1)))
        shifts = np.cumsum(decoder.batch(np.full(patches, 28)))
        require(bool((np.abs(shifts) <= 64).all()), "shifts are -64..64")
        step_indices = self.step_indices - 4 * exponents[:, None]
        symbols = decoder.batch((24 + self.prior + shifts[:, None] - step_indices).clip(0, 48))
        decoder.finish()
        self.symbols += [exponents, means, symbols]
        deltas = (symbols * 2.0 ** (step_indices / 4)).astype(np.float32)
        self._patches += [(int(e), m, delta) for e, m, delta in zip(exponents, means, deltas, strict=True)]

    def value(self, patch: Patch, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Return the values of a patch, float32 [points, C], at the product of positions along each axis."""
        exponent, means, deltas = self._patches[patch.number]
        x = coordinates(self.layout, self.settings, patch, positions)
        y = networks.value(self.field, self._parameters(deltas), x)
        return ((y - 0.5) * 2.0**exponent + means * 2.0**exponent / 16).astype(np.float32)

    def _parameters(self, deltas: np.ndarray) -> dict[str, np.ndarray]:
        parameters = dict(self.theta_0)
        begin = 0
        for name, shape in self.shapes.items():
            end = begin + math.prod(shape)
            whole = self.theta_0[name].astype(np.float32) + deltas[begin:end].reshape(shape)
            parameters[name] = whole.astype(np.float64)
            begin = end
        return parameters


def _means(exponents: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Return the channel means [patches, C] of some patches, from what is coded of them."""
    exponent, before = 0, np.full(differences.shape[1], 8)
    means = []
    for own, difference in zip(exponents.tolist(), differences, strict=True):
        finer = exponent - own
        before = difference + (before << finer if finer >= 0 else before >> -finer)
        require(bool((np.abs(before) <= 1 << 30).all()), "channel means are -2^30..2^30")
        means.append(before)
        exponent = own
    return np.stack(means)
