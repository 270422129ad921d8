"""Coordinates on the sphere: regions of the globe as a field sees them, undistorted wherever they lie."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

_SMALLEST_RADIUS = 1e-6
_EQUATOR = 0.5
"""Degrees from the equator within which the middle of a belt all around counts as on it."""


@dataclass(frozen=True)
class Region:
    """A region of the globe, turned so that its middle is (1, 0, 0) and scaled to fill [-1, 1].

    A region that is the whole globe gets plain unit vectors, turned in longitude; a small one gets nearly flat,
    undistorted coordinates wherever it lies, at the poles too.

    middle: latitude and longitude in degrees. radius: largest angle from the middle to one of its samples.
    """

    middle: tuple[float, float]
    radius: float

    @classmethod
    def of(cls, latitudes: np.ndarray, longitudes: np.ndarray, *, around: bool) -> Self:
        """Return the region of a grid. around: the grid goes all around the globe."""
        middle = (latitudes[0] + latitudes[-1]) / 2, (longitudes[0] + longitudes[-1]) / 2
        if around:
            # All around the globe: about the axis, seen from the equator if it is as far north as south, else the pole.
            middle = (0.0 if abs(middle[0]) < _EQUATOR else math.copysign(90.0, middle[0]), middle[1])
        nearest = unit_vectors(latitudes[:, np.newaxis], longitudes[np.newaxis], middle)[..., 0].min()
        radius = max(math.acos(float(np.clip(nearest, -1, 1))), _SMALLEST_RADIUS)
        return cls(middle, math.pi if around and middle[0] == 0 else radius)

    def coordinates(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """Return the coordinates [len(latitudes) * len(longitudes), 3] at the product of places in degrees."""
        return self.coordinates_of(latitudes[:, np.newaxis], longitudes[np.newaxis]).reshape(-1, 3)

    def coordinates_of(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """Return the coordinates [..., 3] of places in degrees, whose arrays broadcast."""
        vectors = unit_vectors(latitudes, longitudes, self.middle)
        vectors[..., 0] -= (1 + math.cos(self.radius)) / 2
        return vectors / math.sin(min(self.radius, math.pi / 2))


def flat_coordinates(mesh: np.ndarray) -> np.ndarray:
    """Return a map without angles, [N, 2] in [-1, 1], as a small, hence flat region: x = 0, y east, z north."""
    rows, columns = mesh.T / math.sqrt(2)
    return np.stack([np.zeros_like(rows), columns, -rows], axis=-1)


def unit_vectors(latitudes: np.ndarray, longitudes: np.ndarray, middle: tuple[float, float]) -> np.ndarray:
    """Return unit vectors [..., 3] in the frame whose x axis points at `middle`.

    latitudes, longitudes, which broadcast, and middle (latitude, longitude): degrees. y points east and z north at
    `middle`.
    """
    lat = np.radians(latitudes)
    lon = np.radians(longitudes - middle[1])
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) + 0 * lon
    tilt = math.radians(middle[0])
    turned = (x * math.cos(tilt) + z * math.sin(tilt), y, z * math.cos(tilt) - x * math.sin(tilt))
    return np.stack(turned, axis=-1)
