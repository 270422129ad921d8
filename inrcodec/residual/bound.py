"""Signals within an error bound: a field, and the residual that corrects it where it is too far off.

Which field is best, only trying tells: a finely coded one leaves little to correct, a coarse one takes little itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from inrcodec import metrics, signals
from inrcodec.coding.container import Stream
from inrcodec.coding.header import SMALLEST_BOUND
from inrcodec.errors import UsageError
from inrcodec.residual.section import apply_section, pack_residual, pack_section
from inrcodec.signals.signal import Signal
from inrcodec.targets import LAMBDAS

CODINGS = 6
"""How many fields are tried at most."""

SEARCH_VALUES = 1 << 22
"""Values that are looked at to find the best field, about; of a signal of more, some slices only."""

SEARCH_RUN = 32
"""Slices beside each other that are looked at."""

START = 1.5
"""lambda of D + lambda R, in units of the squared bound, from which the search begins."""

MACHINE_MARGIN = 2.0**-18
"""How far apart, as a share of the value range, fields of two machines may be for the bound to hold on both."""


def best_trade_off(code: Callable[[float], Stream], start: float) -> tuple[float, Stream]:
    """Find the lambda whose stream, field and residual together, is smallest; return it and that stream.

    Up or down from `start` by factors of 4 while that helps, then once by 2: the size has one flat minimum.
    """
    coded: dict[int, Stream] = {}

    def trade_off(position: int) -> float:
        return start * 2.0**position

    def size(position: int) -> int:
        if position not in coded:
            coded[position] = code(trade_off(position))
        return stream_bytes(coded[position])

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


def stream_bytes(stream: Stream) -> int:
    """Return what the search makes small."""
    return sum(map(len, stream.chunks)) + len(stream.residual or b"")


def start_trade_off(signal: Signal, max_error: float) -> float:
    """Return where to begin the search for the best lambda."""
    low, high = signal.value_range
    smallest, largest = LAMBDAS
    # By logarithms: the square need not be a number.
    exponent = math.log(START) + 2 * (math.log(max_error) - math.log(high - low))
    return math.exp(min(max(exponent, math.log(smallest)), math.log(largest)))


def searched_part(signal: Signal) -> Signal:
    """Return the signal, or some of its slices if it has too many values to try several codings.

    They come in runs, evenly spread, as slices can be predicted from their neighbours.
    """
    axis = signal.axes[0]
    count = max(1, SEARCH_VALUES * axis.size // signal.values.size)
    if axis.kind != "slice" or count >= axis.size:
        return signal
    run = min(count, SEARCH_RUN)
    begins = np.linspace(0, axis.size - run, count // run).round().astype(int)
    chosen = np.unique(begins[:, None] + np.arange(run))
    return replace(
        signal,
        values=signal.values[chosen],
        missing=None if signal.missing is None else signal.missing[chosen],
        axes=(replace(axis, size=len(chosen), points=None), *signal.axes[1:]),
    )


def with_residual(stream: Stream, original: Signal, base: Signal, max_error: float) -> Stream:
    """Return the stream with a residual that brings `base`, as which it decodes, within `max_error` of `original`.

    The bound also holds for what a file of the decoded signal gives when it is read again.
    Raises: UsageError if that is impossible.
    """
    header = replace(stream.header, max_error=max_error)
    for bound in _working_bounds(original, max_error):
        try:
            payload = pack_residual(original.values.astype(base.values.dtype), base.values, bound, original.missing)
        except ValueError as error:
            raise UsageError(f"{_label(original)} cannot have an error bound: {error}") from error
        section = pack_section(payload, bound)
        decoded = replace(base, values=apply_section(base.values, section, max_error))
        decoded = replace(decoded, values=signals.exact_values(decoded))
        if _is_within(original, decoded, max_error):
            return replace(stream, header=header, residual=section)
    raise UsageError(
        f"{_label(original)} cannot be within {max_error:g} in the file that the decoder writes, "
        "whose numbers are too coarse: give a larger bound"
    )


def check_finite(signal: Signal) -> None:
    """Raises: UsageError if there are values without an error: what is not a number must be missing."""
    values = signal.values if signal.missing is None else signal.values[~signal.missing]
    others = values.size - np.count_nonzero(np.isfinite(values))
    if others:
        raise UsageError(f"{_label(signal)} has {others} values that are not finite: mark them as missing")


def check_bound(original: Signal, decoded: Signal, max_error: float) -> None:
    """Raises: UsageError if a value of what the decoder returns is not within the bound."""
    error = metrics.max_error(original, decoded)
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


def _label(signal: Signal) -> str:
    return f"the signal {signal.name!r}" if signal.name else f"the {signal.modality}"
