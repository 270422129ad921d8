"""Signals within an error bound: a field, and the residual that corrects it where it is too far off.

Which field is best, only trying tells: a finely coded one leaves little to correct, a coarse one takes little itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from inrcodec import metrics, signals
from inrcodec.coding.header import SMALLEST_BOUND
from inrcodec.errors import UsageError
from inrcodec.residual.section import apply_slab, pack_residual, pack_slab
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.signal import Signal
from inrcodec.targets import LAMBDAS

CODINGS = 6
"""How many fields are tried at most."""

START = 1.5
"""lambda of D + lambda R, in units of the squared bound, from which the search begins."""

MACHINE_MARGIN = 2.0**-18
"""How far apart, as a share of the value range, fields of two machines may be for the bound to hold on both."""


class Coded(Protocol):
    """A coded signal. size: what the search makes small, in bytes."""

    @property
    def size(self) -> int: ...


Result = TypeVar("Result", bound=Coded)


def best_trade_off(code: Callable[[float], Result], start: float) -> tuple[float, Result]:
    """Find the lambda whose result, field and residual together, is smallest; return it and that result.

    Up or down from `start` by factors of 4 while that helps, then once by 2: the size has one flat minimum.
    """
    coded: dict[int, Result] = {}

    def trade_off(position: int) -> float:
        return start * 2.0**position

    def size(position: int) -> int:
        if position not in coded:
            coded[position] = code(trade_off(position))
        return coded[position].size

    best = 0
    direction = 2 if size(2) < size(0) else -2
    while len(coded) < CODINGS and size(best + direction) < size(best):
        best += direction
    # Towards the better one of the neighbours.
    beside = [position for position in (best - 2, best + 2) if position in coded]
    half = (min(beside, key=size) + best) // 2
    if len(coded) < CODINGS and size(half) < size(best):
        best = half
    return trade_off(best), coded[best]


def start_trade_off(signal: AnySignal, max_error: float) -> float:
    """Return where to begin the search for the best lambda."""
    low, high = signal.value_range
    smallest, largest = LAMBDAS
    # By logarithms: the square need not be a number.
    exponent = math.log(START) + 2 * (math.log(max_error) - math.log(high - low))
    return math.exp(min(max(exponent, math.log(smallest)), math.log(largest)))


def corrected_slab(
    original: Signal, decoded: Signal, exact: Callable[[np.ndarray], np.ndarray], max_error: float
) -> tuple[bytes, Signal]:
    """Return the residual that brings a slab within `max_error` of the original one, and the slab that it leads to.

    decoded: as it decodes without one. exact: what is applied to corrected values.
    The bound also holds for what a file of the decoded signal gives when it is read again.
    Raises: UsageError if that is impossible.
    """
    for bound in _working_bounds(original, max_error):
        values = original.values.astype(decoded.dtype, copy=False)
        try:
            payload = pack_residual(values, decoded.values, bound, original.missing)
        except ValueError as error:
            raise UsageError(f"{_label(original)} cannot have an error bound: {error}") from error
        residual = pack_slab(payload, bound)
        corrected = replace(decoded, values=exact(apply_slab(decoded.values, residual, max_error)))
        if _is_within(original, corrected, max_error):
            return residual, corrected
    raise UsageError(
        f"{_label(original)} cannot be within {max_error:g} in the file that the decoder writes, "
        "whose numbers are too coarse: give a larger bound"
    )


def check_finite(part: Signal) -> None:
    """Raises: UsageError if there are values without an error: what is not a number must be missing."""
    values = part.values if part.missing is None else part.values[~part.missing]
    others = values.size - np.count_nonzero(np.isfinite(values))
    if others:
        raise UsageError(f"{_label(part)} has {others} values that are not finite: mark them as missing")


def check_bound(original: AnySignal, error: float, max_error: float) -> None:
    """Raises: UsageError if the largest error of what the decoder returns is not within the bound."""
    if not error <= max_error:
        raise UsageError(
            f"{_label(original)} decodes with an error of {error:g}, beyond {max_error:g}, as this device computes "
            "otherwise from time to time: use another --device"
        )


def _working_bounds(signal: Signal, max_error: float) -> Iterator[float]:
    """Yield what the residual is made for, in turn until `max_error` holds in every respect."""
    bound, spacing = max_error, 0.0
    if signal.values.dtype.kind == "f":
        low, high = signal.value_range
        spacing = float(np.spacing(np.abs(signal.values).max()))
        bound -= min((high - low) * MACHINE_MARGIN + spacing, max_error / 4)
    step = signals.stored_step(signal)
    if not step:
        yield max(bound, SMALLEST_BOUND)
        # No errors: then no value can become one that stands for a missing one.
        yield SMALLEST_BOUND if spacing else min(bound, 0.5)
        return
    # Stored numbers are whole steps; rounding to one must not lead further away than the bound has whole steps.
    steps = max(0, math.floor((max_error - spacing) / step))
    yield max(min(bound, (steps + 0.5) * step - spacing), SMALLEST_BOUND)
    # The signal's own need not be: sound of a lossy file.
    yield max(min(bound, max_error - step / 2 - spacing), SMALLEST_BOUND)
    yield max(min(bound, step / 2 - spacing), SMALLEST_BOUND)


def _is_within(original: Signal, decoded: Signal, max_error: float) -> bool:
    if not metrics.max_error(original, decoded) <= max_error:
        return False
    stored = replace(decoded, values=signals.read_back(decoded))
    return metrics.max_error(original, stored) <= max_error


def _label(signal: AnySignal) -> str:
    return f"the signal {signal.name!r}" if signal.name else f"the {signal.modality}"
