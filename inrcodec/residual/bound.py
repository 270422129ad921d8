"""Signals within an error bound: a field, and the residual that corrects it where it is too far off.

Which field is best, only trying tells: a finely coded one leaves little to correct, a coarse one takes little itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from inrcodec import metrics, signals
from inrcodec.bounds import SMALLEST_BOUND, Bound, ShareBound, SliceBounds, smallest_magnitude
from inrcodec.errors import UsageError
from inrcodec.options import Tolerance
from inrcodec.residual.section import apply_slab, pack_residual, pack_slab
from inrcodec.signals.lazy import AnySignal, Window, lazy_like, slabs_of
from inrcodec.signals.signal import Signal
from inrcodec.targets import LAMBDAS

CODINGS = 6
"""How many fields are tried at most."""

START = 1.5
"""lambda of D + lambda R, in units of the squared bound, from which the search begins."""

SCALE_ROUNDING = 2.0**-40
"""What numbers on the scale of shares may be off, at most."""

SMALLEST_SPAN = 2.0**-16
"""The range of a slice counts as no less than this share of the range of all."""


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


def bound_of(signal: AnySignal, tolerance: Tolerance) -> Bound:
    """Return the bound that a tolerance means for a signal, which is looked through if need be.

    Raises: UsageError if the type of its values cannot keep it.
    """
    if tolerance.of == "unit":
        return Bound(tolerance.largest)
    if tolerance.of == "value":
        return _share_bound(signal, tolerance)
    low, high = signal.value_range
    if signal.axes[0].kind != "slice":
        return Bound(tolerance.largest * (high - low))
    spans = []
    for _, part in slabs_of(signal):
        for number, values in enumerate(part.values):
            present = values if part.missing is None else values[~part.missing[number]]
            spans.append(float(present.max()) - float(present.min()) if present.size else high - low)
    # What is the same everywhere has no range to have a share of.
    return SliceBounds.within(tolerance.largest * np.maximum(spans, (high - low) * SMALLEST_SPAN))


def _share_bound(signal: AnySignal, tolerance: Tolerance) -> ShareBound:
    if signal.dtype.kind == "f" and tolerance.largest < 4 * float(np.finfo(signal.dtype).eps):
        raise UsageError(
            f"{_label(signal)} has {signal.dtype} values, which are no nearer to others than "
            f"{float(np.finfo(signal.dtype).eps):.1g} of them: give a larger share than {tolerance.largest:g}"
        )
    if tolerance.floor is not None:
        return ShareBound(tolerance.largest, tolerance.floor / tolerance.largest, linear=True)
    smallest = math.inf
    for _, part in slabs_of(signal):
        present = part.values if part.missing is None else part.values[~part.missing]
        smallest = min(smallest, smallest_magnitude(present))
    return ShareBound(tolerance.largest, smallest if math.isfinite(smallest) else 1.0)


def on_scale(signal: AnySignal, bound: Bound, rows: Window | None = None) -> AnySignal:
    """Return what fields show of a signal: its values, or these on the scale of the bound. rows: where to read it."""
    if not bound.shown_on_scale:
        return signal

    def read(begin: int, end: int) -> tuple[np.ndarray, np.ndarray | None]:
        part = (rows or signal).part(begin, end)
        return bound.scaled(part.values, begin), part.missing

    shown = replace(
        lazy_like(signal, read), dtype=np.dtype(np.float64), value_range=bound.shown_range(*signal.value_range)
    )
    return shown.loaded() if isinstance(signal, Signal) else shown


def shown_bound(signal: AnySignal, bound: Bound) -> float:
    """Return the bound in the values from 0 to 1 that become those of a signal, which is as fields show it."""
    low, high = signal.value_range
    span = high - low if signal.slice_ranges is None else float(np.median(np.ptp(signal.slice_ranges, 1)))
    # By logarithms: a quotient need not be a number.
    return math.exp(min(max(math.log(bound.shown) - math.log(span), -300.0), 300.0))


def start_trade_off(signal: AnySignal, bound: Bound) -> float:
    """Return where to begin the search for the best lambda. signal: as fields show it."""
    smallest, largest = LAMBDAS
    return min(max(START * shown_bound(signal, bound) ** 2, smallest), largest)


def corrected_slab(
    original: Signal,
    decoded: Signal,
    exact: Callable[[np.ndarray], np.ndarray],
    bound: Bound,
    begin: int,
    margin: float,
) -> tuple[bytes, Signal]:
    """Return the residual that brings a slab within a bound of the original one, and the slab that it leads to.

    decoded: as it decodes without one. exact: what is applied to corrected values. begin: the slab's first index.
    margin: how far apart two machines may decode values, as a share of their range; 0 if they decode the same.
    The bound also holds for what a file of the decoded signal gives when it is read again.
    Raises: UsageError if that is impossible.
    """
    values = bound.scaled(original.values.astype(decoded.dtype, copy=False), begin)
    known = bound.scaled(decoded.values, begin)
    for working in _working_bounds(original, bound, begin, margin):
        try:
            payload = pack_residual(values, known, working, original.missing)
        except ValueError as error:
            raise UsageError(f"{_label(original)} cannot have an error bound: {error}") from error
        residual = pack_slab(payload, working)
        scaled = apply_slab(known, residual, bound.on_scale)
        corrected = replace(decoded, values=exact(bound.unscaled(scaled, begin, decoded.dtype)))
        if _is_within(original, corrected, bound, begin):
            return residual, corrected
    raise UsageError(
        f"{_label(original)} cannot be within {bound} in the file that the decoder writes, "
        "whose numbers are too coarse: give a larger bound"
    )


def check_finite(part: Signal) -> None:
    """Raises: UsageError if there are values without an error: what is not a number must be missing."""
    values = part.values if part.missing is None else part.values[~part.missing]
    others = values.size - np.count_nonzero(np.isfinite(values))
    if others:
        raise UsageError(f"{_label(part)} has {others} values that are not finite: mark them as missing")


def check_bound(original: AnySignal, fidelity: metrics.Fidelity) -> None:
    """Raises: UsageError if the largest error of what the decoder returns is not within its bound."""
    bound = fidelity.bound
    if bound is not None and not fidelity.worst <= bound.limit:
        raise UsageError(
            f"{_label(original)} decodes with an error of {fidelity.max_error:g}, beyond {bound}, as this device "
            "computes otherwise from time to time: use another --device"
        )


def _working_bounds(signal: Signal, bound: Bound, begin: int, margin: float) -> Iterator[float]:
    """Yield what the residual of a slab is made for, in turn until its bound holds in every respect."""
    if isinstance(bound, SliceBounds | ShareBound):
        yield from _scaled_bounds(signal, bound, begin, margin)
        return
    max_error = working = bound.error
    spacing = 0.0
    if signal.values.dtype.kind == "f":
        low, high = signal.value_range
        spacing = float(np.spacing(np.abs(signal.values).max()))
        working -= min((high - low) * margin + spacing, max_error / 4) if margin else 0.0
    step = signals.stored_step(signal)
    if not step:
        yield max(working, SMALLEST_BOUND)
        # No errors: then no value can become one that stands for a missing one.
        yield SMALLEST_BOUND if spacing else min(working, 0.5)
        return
    # Stored numbers are whole steps; rounding to one must not lead further away than the bound has whole steps.
    steps = max(0, math.floor((max_error - spacing) / step))
    yield max(min(working, (steps + 0.5) * step - spacing), SMALLEST_BOUND)
    # The signal's own need not be: sound of a lossy file.
    yield max(min(working, max_error - step / 2 - spacing), SMALLEST_BOUND)
    yield max(min(working, step / 2 - spacing), SMALLEST_BOUND)


def _scaled_bounds(signal: Signal, bound: SliceBounds | ShareBound, begin: int, margin: float) -> Iterator[float]:
    """Yield the same on a scale."""
    largest, step = bound.on_scale, signals.stored_step(signal)
    floats = signal.values.dtype.kind == "f"
    if isinstance(bound, ShareBound):
        low, high = bound.shown_range(*signal.value_range)
        margin = (high - low) * margin + SCALE_ROUNDING
        margin += 4 * float(np.finfo(signal.values.dtype).eps) if floats else 0.0
        finest = step / 4 / max(float(np.abs(signal.values).max()), bound.knee)
    else:
        errors = bound.errors[begin : begin + len(signal.values)]
        ranges = np.array(signal.value_range) if signal.slice_ranges is None else signal.slice_ranges
        spans = ranges[..., 1] - ranges[..., 0]
        spacing = float(np.spacing(np.abs(signal.values).max())) if floats else 0.0
        margin = float(((spans * margin + spacing) / errors).max())
        finest = step / 4 / float(errors.max())
    yield largest - min(margin, largest / 4)
    # Rounding to whole steps, or to integers, leads no further away from here.
    yield largest / 2
    yield min(largest / 2, finest or SMALLEST_BOUND)


def _is_within(original: Signal, decoded: Signal, bound: Bound, begin: int) -> bool:
    if not metrics.within(bound, original, decoded, begin):
        return False
    stored = replace(decoded, values=signals.read_back(decoded))
    return metrics.within(bound, original, stored, begin)


def _label(signal: AnySignal) -> str:
    return f"the signal {signal.name!r}" if signal.name else f"the {signal.modality}"
