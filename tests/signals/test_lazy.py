"""Signals that are read part by part are the signals that are read whole."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.errors import SignalError
from inrcodec.signals import lazy
from inrcodec.signals.lazy import ForwardReader, LazySignal, Rows, Window, lazy_like, slab_count, slab_rows, slabs_of
from inrcodec.signals.signal import Axis, Signal

AXES = (Axis(23, "slice"), Axis(3), Axis(4))


def whole(masked: bool) -> Signal:
    """Return a signal whose values all differ, with a range for every slice."""
    values = np.arange(23 * 3 * 4 * 2, dtype=np.float32).reshape(23, 3, 4, 2)
    missing = values[..., 0] % 5 == 0
    missing[6:13] = False
    ranges = np.stack([np.arange(23), np.arange(23) + 1], 1).astype(float)
    return Signal("climate", values, AXES, (0.0, 1.0), missing=missing if masked else None, slice_ranges=ranges)


class Blocks:
    """Yields the rows of a signal in blocks of given sizes; counts how often that begins, and which rows it gives."""

    def __init__(self, signal: Signal, sizes: list[int]) -> None:
        self.signal, self.sizes = signal, sizes
        self.begun = 0

    def __call__(self) -> Iterator[Rows]:
        self.begun += 1
        place = 0
        for size in self.sizes:
            part = self.signal.part(place, min(place + size, 23))
            if len(part.values):
                # A block without missing values need not have a mask.
                some = part.missing is not None and part.missing.any()
                yield part.values, part.missing if some else None
            place += size


def lazily(signal: Signal, blocks: Blocks) -> LazySignal:
    return lazy_like(signal, ForwardReader(blocks))


def assert_equal(one: Signal, other: Signal) -> None:
    np.testing.assert_array_equal(one.values, other.values)
    assert (one.missing is None) == (other.missing is None)
    if one.missing is not None:
        np.testing.assert_array_equal(one.missing, other.missing)
    np.testing.assert_array_equal(one.slice_ranges, other.slice_ranges)
    assert [axis.size for axis in one.axes] == [axis.size for axis in other.axes]


SIZES = st.lists(st.integers(1, 9), min_size=23, max_size=23)
RANGES = st.lists(st.tuples(st.integers(0, 22), st.integers(1, 23)).map(sorted).filter(lambda pair: pair[0] < pair[1]))


@settings(deadline=None, max_examples=100)
@given(masked=st.booleans(), sizes=SIZES, ranges=RANGES)
def test_parts_in_any_order(masked: bool, sizes: list[int], ranges: list[list[int]]) -> None:
    signal = whole(masked)
    blocks = Blocks(signal, sizes)
    read = lazily(signal, blocks)
    for begin, end in ranges:
        assert_equal(read.part(begin, end), signal.part(begin, end))
    assert blocks.begun <= 1 + sum(one[0] > other[0] for one, other in pairwise(ranges))
    assert_equal(read.loaded(), signal)


@settings(deadline=None, max_examples=100)
@given(masked=st.booleans(), sizes=SIZES, height=st.integers(1, 9), step=st.integers(1, 9))
def test_a_window_reads_every_row_once(masked: bool, sizes: list[int], height: int, step: int) -> None:
    """As patches ask for rows, some again and again, while those before them are done with."""
    signal = whole(masked)
    blocks = Blocks(signal, sizes)
    window = Window(lazily(signal, blocks))
    begin = 0
    while begin < 23:
        end = min(begin + height + step, 23)
        for _ in range(2):
            assert_equal(window.part(begin, end), signal.part(begin, end))
        window.done(begin)
        begin += step
    assert blocks.begun == 1


def test_parts_of_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "SLAB_VALUES", 100)
    signal = whole(masked=True)
    assert slab_rows(signal.axes, 2) == 4 and slab_count(signal.axes, 2) == 6
    found = list(slabs_of(lazily(signal, Blocks(signal, [5] * 5))))
    assert [begin for begin, _ in found] == [0, 4, 8, 12, 16, 20]
    for begin, part in found:
        assert_equal(part, signal.part(begin, min(begin + 4, 23)))
    assert slab_rows((Axis(5), Axis(1000)), 3) == 1


def test_a_file_that_became_shorter() -> None:
    signal = whole(masked=False)
    with pytest.raises(SignalError, match="only 12 of 14 samples can be read: the file has changed"):
        lazily(signal, Blocks(signal, [6, 6])).part(3, 14)
