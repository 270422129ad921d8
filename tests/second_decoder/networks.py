"""The values of weight fields.

It follows "Which value does a weight field have?" of docs/FORMAT.md.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from second_decoder.arrays import bias, convolution, gelu

Tensors = Mapping[str, np.ndarray]


def value(field: Mapping[str, Any], tensors: Tensors, x: np.ndarray) -> np.ndarray:
    """Return the outputs y [points, C] at coordinates x [points, d]."""
    return {"siren": _siren, "ffn": _ffn, "nerv": _nerv}[field["name"]](field, tensors, x)


def _linear(tensors: Tensors, name: str, h: np.ndarray) -> np.ndarray:
    """Return W h + b for every point, [points, outputs]."""
    return h @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _siren(field: Mapping[str, Any], tensors: Tensors, x: np.ndarray) -> np.ndarray:
    h = x
    for k in range(field["depth"] - 1):
        h = np.sin(field["w0"] * _linear(tensors, f"layer{k}", h))
    return _linear(tensors, "head", h) + 0.5


def _ffn(field: Mapping[str, Any], tensors: Tensors, x: np.ndarray) -> np.ndarray:
    phase = 2 * math.pi * x @ tensors["frequencies"].T
    h = np.concatenate([np.cos(phase), np.sin(phase)], 1)
    for k in range(field["depth"] - 1):
        h = np.maximum(0, _linear(tensors, f"layer{k}", h))
    return _linear(tensors, "head", h) + 0.5


def _nerv(field: Mapping[str, Any], tensors: Tensors, x: np.ndarray) -> np.ndarray:
    y = np.empty((len(x), field["out_features"]))
    for t in np.unique(x[:, 0]):
        here = x[:, 0] == t
        h = _bilinear(_nerv_map(field, tensors, t), x[here, 1], x[here, 2])
        y[here] = 1 / (1 + np.exp(-_linear(tensors, "head", h)))
    return y


def _nerv_map(field: Mapping[str, Any], tensors: Tensors, t: float) -> np.ndarray:
    """Return the map of one time, [channels, H, W]."""
    phase = math.pi * 2.0 ** np.arange(field["octaves"]) * t
    h = np.concatenate([np.sin(phase), np.cos(phase)])
    for stem in ("stem0", "stem1"):
        h = gelu(_linear(tensors, stem, h))
    values = h.reshape(1, field["channels"][0], *field["base"])
    for k in range(len(field["channels"]) - 1):
        values = convolution(values, tensors[f"block{k}.weight"])
        values = gelu(_pixel_shuffle(values + bias(tensors[f"block{k}.bias"], values), field["upscale"]))
    return values[0]


def _pixel_shuffle(values: np.ndarray, r: int) -> np.ndarray:
    """Return output channel c at (r i + y, r j + x) from channel c r² + r y + x at (i, j)."""
    n, channels, height, width = values.shape
    apart = values.reshape(n, channels // r**2, r, r, height, width)
    return apart.transpose(0, 1, 4, 2, 5, 3).reshape(n, channels // r**2, height * r, width * r)


def _bilinear(values: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Interpolate a map [channels, H, W] at local coordinates; returns [points, channels]."""
    _, height, width = values.shape
    row = ((v + 1) * height / 2 - 0.5).clip(0, height - 1)
    column = ((u + 1) * width / 2 - 0.5).clip(0, width - 1)
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = row - top, column - left
    upper = values[:, top, left] * (1 - across) + values[:, top, right] * across
    lower = values[:, bottom, left] * (1 - across) + values[:, bottom, right] * across
    return (upper * (1 - down) + lower * down).T
