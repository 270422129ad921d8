"""Masks of missing values: round trips, what they cost, and damage."""

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.missing import MissingReader, MissingWriter
from inrcodec.errors import CorruptFile


def pack_missing(mask: np.ndarray, *cuts: int) -> bytes:
    writer = MissingWriter()
    for part in np.split(mask, cuts):
        writer.add(part)
    return writer.finish()


def unpack_missing(data: bytes, shape: tuple[int, ...], *cuts: int) -> np.ndarray:
    reader = MissingReader(data, shape)
    return np.concatenate([reader.take(end - begin) for begin, end in pairwise((0, *cuts, shape[0]))])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_masks_round_trip(shape: list[int], seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.3
    again = unpack_missing(pack_missing(mask), mask.shape)
    assert again.dtype == bool and np.array_equal(again, mask)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 9), st.integers(1, 9), st.data())
def test_masks_round_trip_in_parts(rows: int, columns: int, data: st.DataObject) -> None:
    mask = np.random.default_rng(rows).random((rows, columns)) < 0.3
    written, read = (sorted(data.draw(st.sets(st.integers(1, rows - 1)))) for _ in range(2))
    assert pack_missing(mask, *written) == pack_missing(mask)
    np.testing.assert_array_equal(unpack_missing(pack_missing(mask), mask.shape, *read), mask)


def test_a_constant_coast_costs_one_slice() -> None:
    coast = np.random.default_rng(0).random((60, 120)) < 0.5
    slices = np.broadcast_to(coast, (50, 60, 120))
    assert len(pack_missing(slices)) < 1.3 * len(pack_missing(slices[:1]))


def test_damaged_masks_are_corrupt() -> None:
    mask = np.zeros((3, 7), bool)
    mask[1, 2:] = True
    data = pack_missing(mask)
    for damaged in (b"", data[:-1], data + b"x", b"x" + data, pack_missing(np.zeros((4, 7), bool))):
        with pytest.raises(CorruptFile):
            unpack_missing(damaged, mask.shape)
    for shape in ((4, 8), (2, 7)):
        with pytest.raises(CorruptFile):
            unpack_missing(data, shape)
    with pytest.raises(CorruptFile):
        unpack_missing(zlib.compress(b"\0\0\1"), mask.shape)  # a padding bit
    with pytest.raises(CorruptFile):
        unpack_missing(zlib.compress(bytes(2**26), 9), mask.shape)
