"""The axes of a stream header as plain values and back; docs/FORMAT.md specifies them."""

from fractions import Fraction
from math import isfinite
from typing import Any, get_args

import numpy as np

from inrcodec.signals.signal import Axis, AxisKind

AXIS_KINDS: tuple[AxisKind, ...] = get_args(AxisKind)
assert AXIS_KINDS == ("cell", "start", "node", "periodic", "slice"), "the order is part of the format"

MAX_AXIS_SIZE = 1 << 31
MAX_AXIS_POINTS = 1 << 20


def listed(choices: tuple[Any, ...], index: Any, what: str) -> Any:
    """Return `choices[index]`. Raises: ValueError if there is no such choice."""
    if type(index) is not int or not 0 <= index < len(choices):
        raise ValueError(f"{what} {index!r:.80} (0 to {len(choices) - 1} are known)")
    return choices[index]


def compact(value: float) -> int | float:
    """Return a number as an integer where that is exact and shorter in CBOR; -0.0 remains what it is."""
    return int(value) if value.is_integer() and abs(value) < 1 << 32 and str(value) != "-0.0" else value


def number(value: Any) -> float:
    """Return a stored number as a float. Raises: ValueError if it is none."""
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(f"{value!r:.80} where a finite number belongs")
    return float(value)


def pack_axis(axis: Axis) -> int | list[Any]:
    """Return the size alone for pixels, else [size, kind, rate?, points?]."""
    if axis.kind == "cell" and axis.points is None:
        return axis.size
    packed: list[Any] = [axis.size, AXIS_KINDS.index(axis.kind)]
    if axis.rate is not None:
        packed += [axis.rate.numerator, axis.rate.denominator]
    if axis.points is not None:
        packed.append(pack_points(axis.points))
    return packed


def unpack_axis(packed: Any) -> Axis:
    """Return the axis. Raises: ValueError where `packed` cannot be understood; `check_axis` does the ranges."""
    if type(packed) is int:
        return Axis(packed)
    if type(packed) is not list or not 2 <= len(packed) <= 5 or type(packed[0]) is not int:
        raise ValueError(f"axis {packed!r:.80}")
    size, kind, *rest = packed
    kind = listed(AXIS_KINDS, kind, "axis kind")
    rate = points = None
    if kind == "start":
        if len(rest) < 2 or not all(type(value) is int and 0 < value < 1 << 63 for value in rest[:2]):
            raise ValueError(f"sample rate {rest[:2]!r:.80}")
        rate, rest = Fraction(rest[0], rest[1]), rest[2:]
    if len(rest) == 1:
        points, rest = unpack_points(rest[0], size), []
    if rest:
        raise ValueError(f"axis {packed!r:.80}")
    return Axis(size, kind, rate, points)


def _linear(size: int, first: float, last: float) -> np.ndarray:
    """Return equally spaced points; not NumPy's linspace, as the format fixes each rounding."""
    points = np.arange(size) * ((last - first) / max(size - 1, 1)) + first
    points[-1] = last
    return points


_POINT_RULES = (
    _linear,
    lambda size, first, step: np.arange(size) * step + first,
    lambda size, first, last: _linear(size, first, last).astype(np.float32).astype(np.float64),
)


def pack_points(points: np.ndarray) -> list[Any] | bytes:
    """Return [n] float64 as [rule, a, b] where a rule gives exactly these numbers, else as bytes of all of them."""
    first, second, last = float(points[0]), float(points[min(1, len(points) - 1)]), float(points[-1])
    candidates = [(first, last), (first, second - first), (_decimal(first), _decimal(last))]
    for rule, (a, b) in enumerate(candidates):
        packed = [rule, compact(a), compact(b)]
        if isfinite(a) and isfinite(b) and unpack_points(packed, len(points)).tobytes() == points.tobytes():
            return packed
    with np.errstate(over="ignore"):
        single = points.astype("<f4")
    return single.tobytes() if np.array_equal(single, points) else points.astype("<f8").tobytes()


def _decimal(value: float) -> float:
    """Return the shortest decimal number that float32 rounds to the same, which is likely what was meant."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def unpack_points(packed: Any, size: int) -> np.ndarray:
    """Return [size] float64. Raises: ValueError if `packed` is not what `pack_points` gives for `size` points."""
    if not 1 <= size <= MAX_AXIS_POINTS:
        raise ValueError(f"an axis of {size} points (1 to {MAX_AXIS_POINTS} allowed)")
    if type(packed) is bytes and len(packed) in (4 * size, 8 * size):
        return np.frombuffer(packed, "<f4" if len(packed) == 4 * size else "<f8").astype(np.float64)
    if type(packed) is not list or len(packed) != 3:
        raise ValueError(f"axis points {packed!r:.80} for size {size}")
    rule = listed(_POINT_RULES, packed[0], "rule for axis points")
    with np.errstate(all="ignore"):  # what overflows is found by the check of the result
        points: np.ndarray = rule(size, number(packed[1]), number(packed[2]))
    return points


def check_axis(axis: Axis) -> None:
    """Raises: ValueError for what the format does not allow."""
    if type(axis.size) is not int or not 1 <= axis.size <= MAX_AXIS_SIZE:
        raise ValueError(f"axis size {axis.size!r:.80} (1 to {MAX_AXIS_SIZE} allowed)")
    if axis.kind not in AXIS_KINDS:
        raise ValueError(f"axis kind {axis.kind!r}")
    if (axis.rate is not None) != (axis.kind == "start"):
        raise ValueError(f"sample rate {axis.rate!r} on an axis of kind {axis.kind!r}")
    if axis.rate is not None and not (0 < axis.rate.numerator < 1 << 63 and axis.rate.denominator < 1 << 63):
        raise ValueError(f"sample rate {axis.rate!r:.80}")
    if axis.points is not None:
        if axis.points.dtype != np.float64 or axis.points.shape != (axis.size,):
            raise ValueError(f"axis points {axis.points.dtype}{axis.points.shape} for size {axis.size}")
        if axis.size > MAX_AXIS_POINTS:
            raise ValueError(f"an axis of {axis.size} points (at most {MAX_AXIS_POINTS} allowed)")
        if not np.isfinite(axis.points).all():
            raise ValueError("axis points that are not finite")
        low, high = axis.points[:-1], axis.points[1:]
        if not ((low < high).all() or (low > high).all()):
            raise ValueError("axis points that are not strictly monotonic")
