"""Powers of two and their logarithms, the same numbers on every machine.

Libraries round these differently. Here they are sums and products of float64, each of which is rounded as IEEE 754
says, in a fixed order; of series that end where the rest is below 2^-53 of the result.
"""

import numpy as np

_LN_2 = 0.6931471805599453
_ROOT_OF_HALF = 0.7071067811865476
_LOG_TERMS = 10  # (t^2)^10 / 21 < 2^-53 for t = (m - 1) / (m + 1), m^2 in 1/2..2
_EXP_TERMS = 15  # (ln 2 / 2)^15 / 15! < 2^-60


def log2(values: np.ndarray) -> np.ndarray:
    """Return the logarithms to the base 2 of positive finite numbers, float64."""
    mantissas, exponents = np.frexp(np.asarray(values, np.float64))
    small = mantissas < _ROOT_OF_HALF
    mantissas, exponents = np.where(small, 2 * mantissas, mantissas), exponents - small
    t = (mantissas - 1) / (mantissas + 1)
    square = t * t
    total = np.full_like(t, 1 / (2 * _LOG_TERMS + 1))
    for term in range(_LOG_TERMS - 1, -1, -1):
        total = total * square + 1 / (2 * term + 1)
    return total * t * (2 / _LN_2) + exponents


def exp2(values: np.ndarray) -> np.ndarray:
    """Return 2 to the power of numbers, float64; infinite or 0 where that is no float64."""
    values = np.asarray(values, np.float64)
    whole = np.rint(values)
    u = (values - whole) * _LN_2
    total = np.ones_like(u)
    for term in range(_EXP_TERMS, 0, -1):
        total = total * u / term + 1
    with np.errstate(over="ignore"):
        return np.ldexp(total, whole.clip(-5000, 5000).astype(np.int32))
