"""The coordinates that weight fields see.

It follows "Which coordinates does a weight field see?" of docs/FORMAT.md.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from second_decoder.header import Axis
from second_decoder.patches import AxisPatches, Layout, Patch


def coordinates(
    layout: Layout, settings: Mapping[str, Any], patch: Patch, positions: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the coordinates [points, d] at the product of positions along each axis.

    settings: `patches` of the initialization.
    """
    extent = settings["extent"]
    if settings["sphere"] and all(axis.axis.points is not None for axis in layout.axes[-2:]):
        return extent * _on_sphere(layout.axes[-2:], patch.starts[-2:], positions[-2:])
    local = [
        2 * (x - start + 0.5) / axis.size - 1
        for axis, start, x in zip(layout.axes, patch.starts, positions, strict=True)
        if axis.has_entry
    ]
    mesh = np.stack(np.meshgrid(*local, indexing="ij"), -1).reshape(-1, len(local))
    if settings["sphere"]:
        u, v = mesh.T
        mesh = np.stack([np.zeros_like(u), v, -u], -1) / math.sqrt(2)
    return extent * mesh


def _on_sphere(axes: Sequence[AxisPatches], starts: Sequence[int], positions: Sequence[np.ndarray]) -> np.ndarray:
    own = [
        _degrees(axis.axis, start + np.arange(axis.size, dtype=np.float64))
        for axis, start in zip(axes, starts, strict=True)
    ]
    latitude, longitude = ((points[0] + points[-1]) / 2 for points in own)
    around = axes[1].goes_all_around
    if around:
        latitude = 0.0 if abs(latitude) < 0.5 else math.copysign(90, latitude)
    cosine = _turned(own, latitude, longitude)[:, 0].min()
    radius = math.pi if around and latitude == 0 else max(math.acos(cosine.clip(-1, 1)), 1e-6)
    asked = [_degrees(axis.axis, along) for axis, along in zip(axes, positions, strict=True)]
    places = _turned(asked, latitude, longitude)
    places[:, 0] -= (1 + math.cos(radius)) / 2
    return places / math.sin(min(radius, math.pi / 2))


def _degrees(axis: Axis, positions: np.ndarray) -> np.ndarray:
    """Return the degrees at positions: linear between the points, and beyond them."""
    assert axis.points is not None
    if axis.size == 1:
        return np.full(len(positions), axis.points[0])
    low = np.floor(positions).astype(int).clip(0, axis.size - 2)
    return axis.points[low] + (positions - low) * (axis.points[low + 1] - axis.points[low])


def _turned(places: Sequence[np.ndarray], latitude: float, longitude: float) -> np.ndarray:
    """Return points of the sphere [n, 3] at the product of latitudes and longitudes, turned to a middle; degrees."""
    phi, lam = np.meshgrid(np.radians(places[0]), np.radians(places[1] - longitude), indexing="ij")
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    tilt = math.radians(latitude)
    turned = (x * math.cos(tilt) + z * math.sin(tilt), y, z * math.cos(tilt) - x * math.sin(tilt))
    return np.stack(turned, -1).reshape(-1, 3)
