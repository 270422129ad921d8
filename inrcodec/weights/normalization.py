"""Patches at unit contrast: the shift and scale that one initialization for all signals needs, as small integers.

A patch x in [0, 1] is shown to the field as y = 1/2 + (x - m 2^e / 16) / 2^e, with the exponent e and the indices
m (one per channel) coded in the file.
"""

from dataclasses import dataclass

import numpy as np

MEAN_STEPS = 16
"""Quantization of the means, per unit of the patch's scale."""

MIN_EXPONENT, MAX_EXPONENT = -24, 1


@dataclass(frozen=True, eq=False)
class Normalization:
    """Shift and scale of P patches.

    exponents: int64 [P], log2 of the scale, MIN_EXPONENT..MAX_EXPONENT.
    means: int64 [P, C], in units of the scale / MEAN_STEPS.
    """

    exponents: np.ndarray
    means: np.ndarray

    @classmethod
    def none(cls, patches: int, channels: int) -> "Normalization":
        """Return the normalization that changes nothing."""
        return cls(np.zeros(patches, np.int64), np.full((patches, channels), MEAN_STEPS // 2, np.int64))

    @classmethod
    def measure(cls, values: np.ndarray, finest: int = MIN_EXPONENT) -> "Normalization":
        """Measure the shift and scale that bring patches [P, N, C] to mean 1/2 and a standard deviation of about 1/4.

        finest: smallest exponent; a flat patch need not be coded more finely than its type is.
        """
        values = values.astype(np.float64)
        deviation = np.sqrt(values.var(axis=1).mean(axis=-1))
        exponents = np.rint(np.log2(np.maximum(4 * deviation, 2.0 ** (MIN_EXPONENT - 1))))
        exponents = exponents.clip(finest, MAX_EXPONENT).astype(np.int64)
        means = np.rint(values.mean(axis=1) / _unit(exponents)).astype(np.int64)
        return cls(exponents, means)

    def __getitem__(self, patches: slice | list[int]) -> "Normalization":
        return Normalization(self.exponents[patches], self.means[patches])

    @property
    def scales(self) -> np.ndarray:
        """Scale of every patch, [P] float64: an error of y times this is an error of x."""
        return np.exp2(self.exponents.astype(np.float64))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Turn x [P, N, C] into y, float32."""
        shifted = values - (self.means * _unit(self.exponents))[:, None]
        return (0.5 + shifted / self.scales[:, None, None]).astype(np.float32)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Turn y [P, N, C] into x, float64."""
        shift = (self.means * _unit(self.exponents))[:, None]
        return (values.astype(np.float64) - 0.5) * self.scales[:, None, None] + shift


def _unit(exponents: np.ndarray) -> np.ndarray:
    return np.exp2(exponents.astype(np.float64))[:, None] / MEAN_STEPS
