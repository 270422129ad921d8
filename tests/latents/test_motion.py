"""Motion: fields of vectors to parts of the entropy coder and back."""

import math
import tracemalloc

import numpy as np
import pytest
from damage import with_flipped_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.latents.motion import LARGEST_MOTION, motion_batches, read_motion

# Those of the format, by class.
FLAG_ROWS = [76, 86, 89, 91, 92, 93, 94, 95, 96, 83, 88]
MAGNITUDE_ROWS = [136, 136, 138, 142, 146, 150, 154, 158, 162, 136, 154]
CLASSES = len(FLAG_ROWS)
SIGN_ROW = 89
ROW_ROW = 24

Lines = list[tuple[list[int], list[int]]]


def pack(motion: np.ndarray) -> bytes:
    return entropy.encode_batches(motion_batches(motion))


def unpack(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    decoder = entropy.Decoder(data)
    motion = read_motion(decoder, shape)
    decoder.finish()
    return motion


def bits(motion: np.ndarray) -> float:
    return sum(float(entropy.code_length(*part).sum()) for part in motion_batches(motion))


def order_0_bits(symbols: np.ndarray) -> float:
    """Return what symbols cost at least if each is coded alone, under the very distribution they have."""
    _, counts = np.unique(symbols, return_counts=True)
    return float(-(counts * np.log2(counts / symbols.size)).sum())


def moving_scene(count: int, down: int, across: int, seed: int = 0) -> np.ndarray:
    """Return a slow zoom, and before it some rectangles that move on their own, all a little uncertain."""
    random = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, down), np.linspace(-1, 1, across), indexing="ij")
    motion = np.zeros((count, 2, down, across), np.int64)
    for field in motion:
        field[...] = np.rint(random.normal(0, 5, (2, 1, 1)) + random.normal(0, 8) * np.stack([y, x]))
        for _ in range(3):
            top, left = random.integers(0, down - 3), random.integers(0, across - 3)
            field[:, top : top + down // 3, left : left + across // 3] = random.integers(-40, 41, (2, 1, 1))
    return motion + (random.random(motion.shape) < 0.05) * random.integers(-2, 3, motion.shape)


def naive_parts(motion: np.ndarray, flag_rows: list[int], magnitude_rows: list[int]) -> Lines:
    """Return the parts after the rows, block by block as docs/FORMAT.md has it."""
    count, _, down, across = motion.shape
    stride = 1
    while stride < max(down, across):
        stride *= 2
    lattices: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]] = [([(0, 0)][: down * across], [])]
    while stride > 1:
        half = stride // 2
        diagonal = [(-half, -half), (-half, half), (half, -half), (half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for y0, x0, around in ((half, half, diagonal), (0, half, straight), (half, 0, straight)):
            blocks = [(y, x) for y in range(y0, down, stride) for x in range(x0, across, stride)]
            lattices.append((blocks, around))
        stride = half
    parts: Lines = []
    for blocks, around in lattices:
        flags, signs, magnitudes = [], [], []
        for n in range(count):
            for component in range(2):
                field = motion[n, component]
                for y, x in blocks:
                    near = [(y + dy, x + dx) for dy, dx in around]
                    near = [place for place in near if 0 <= place[0] < down and 0 <= place[1] < across]
                    known = sorted(int(field[place]) for place in near)
                    prediction, kind = 0, 10
                    if known:
                        middle = (known[(len(known) - 1) // 2], known[len(known) // 2])
                        prediction = min(middle, key=abs)
                        spread = sum(abs(value - prediction) for value in known)
                        kind = 9 if spread == 0 and prediction else min(len(f"{spread:b}") if spread else 0, 8)
                    error = int(field[y, x]) - prediction
                    flags.append((int(error != 0), flag_rows[kind]))
                    if error:
                        signs.append((int(error < 0), SIGN_ROW))
                        magnitudes.append((abs(error) - 1, magnitude_rows[kind]))
        for line in (flags, signs, magnitudes):
            parts.append(([symbol for symbol, _ in line], [row for _, row in line]))
    return parts


shapes = st.tuples(st.integers(0, 3), st.just(2), st.integers(1, 12), st.integers(1, 12))
limits = st.sampled_from([0, 1, 3, 40, LARGEST_MOTION])
fields = st.tuples(shapes, limits).flatmap(
    lambda drawn: arrays(np.int64, drawn[0], elements=st.integers(-drawn[1], drawn[1]))
)


@settings(deadline=None, max_examples=80)
@given(motion=fields)
def test_motion_comes_back(motion: np.ndarray) -> None:
    found = unpack(pack(motion), motion.shape)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, motion)


@pytest.mark.parametrize("blocks", [(1, 1), (1, 2), (1, 65), (33, 1), (2, 2), (17, 31), (16, 16), (68, 120)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_motion_of_any_shape_comes_back(count: int, blocks: tuple[int, int]) -> None:
    motion = np.random.default_rng(0).integers(-30, 31, (count, 2, *blocks))
    np.testing.assert_array_equal(unpack(pack(motion), motion.shape), motion)


@settings(deadline=None, max_examples=30)
@given(motion=fields)
def test_parts_are_those_of_the_format(motion: np.ndarray) -> None:
    (differences, rows), *parts = motion_batches(motion)
    assert rows.tolist() == [ROW_ROW] * 2 * CLASSES
    flag_rows = [int(row + change) for row, change in zip(FLAG_ROWS, differences[:CLASSES], strict=True)]
    magnitude_rows = [int(row + change) for row, change in zip(MAGNITUDE_ROWS, differences[CLASSES:], strict=True)]
    assert set(flag_rows) <= set(range(49, 130)) and set(magnitude_rows) <= set(range(130, 194))
    found = [(symbols.tolist(), rows.tolist()) for symbols, rows in parts]
    assert found == naive_parts(motion, flag_rows, magnitude_rows)


def test_an_example_by_hand() -> None:
    """An edge between 8 and 2, and one block that is like neither; no motion across."""
    motion = np.zeros((1, 2, 3, 3), np.int64)
    motion[0, 0] = [[8, 8, 2], [8, 8, 2], [8, 3, 2]]
    # Rows are those of classes: 10 has no neighbours, 9 equal ones, 3 and 4 some that differ by 6 or 12 in all.
    by_hand: Lines = [
        ([0] * 22, [ROW_ROW] * 22),
        *[([1, 0], [88, 88]), ([0], [SIGN_ROW]), ([7], [154])],  # (0, 0)
        *[([1, 0], [83, 76]), ([1], [SIGN_ROW]), ([5], [136])],  # (2, 2): 2, not 8
        *[([0, 0], [91, 76]), ([], []), ([], [])],  # (0, 2): of 8 and 2 the smaller
        *[([1, 0], [91, 76]), ([0], [SIGN_ROW]), ([5], [142])],  # (2, 0): 8, not 2
        *[([1, 0], [92, 76]), ([0], [SIGN_ROW]), ([5], [146])],  # (1, 1): 8, but 2 of 2, 2, 8, 8
        *[([0, 1, 0, 0], [91, 91, 76, 76]), ([1], [SIGN_ROW]), ([4], [142])],  # (0, 1) and (2, 1): 3, not 8
        *[([0, 0, 0, 0], [83, 91, 76, 76]), ([], []), ([], [])],  # (1, 0) and (1, 2)
    ]
    data = entropy.encode_batches([(np.array(symbols, int), np.array(rows, int)) for symbols, rows in by_hand])
    np.testing.assert_array_equal(unpack(data, motion.shape), motion)


def test_extremes_come_back_and_more_is_refused() -> None:
    motion = np.full((1, 2, 5, 5), LARGEST_MOTION)
    motion[:, :, ::2] *= -1
    np.testing.assert_array_equal(unpack(pack(motion), motion.shape), motion)
    motion[0, 1, 2, 3] -= 1
    with pytest.raises(ValueError, match=f"{LARGEST_MOTION + 1}"):
        motion_batches(motion)


# Size


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 2, 20, 20), (8, 2, 68, 120)])
def test_no_motion_costs_next_to_nothing(shape: tuple[int, ...]) -> None:
    """At most as many bytes as there are classes, for any number of blocks."""
    motion = np.zeros(shape, np.int64)
    assert bits(motion) < 8 * CLASSES
    np.testing.assert_array_equal(unpack(pack(motion), shape), motion)


def test_constant_motion_costs_its_vectors() -> None:
    vectors = np.random.default_rng(0).integers(-100, 101, (8, 2, 1, 1))
    assert bits(np.tile(vectors, (1, 1, 68, 120))) < bits(np.zeros((8, 2, 68, 120), np.int64)) + 16 * 9 + 24


def test_scenes_cost_less_than_their_differences() -> None:
    motion = moving_scene(4, 24, 40)
    along = np.diff(motion, axis=3, prepend=0)
    assert bits(motion) < 0.85 * order_0_bits(along)


def test_noise_costs_its_entropy() -> None:
    motion = np.random.default_rng(0).integers(-40, 41, (4, 2, 24, 40))
    assert bits(motion) == pytest.approx(motion.size * np.log2(81), rel=0.15)
    assert bits(moving_scene(4, 24, 40)) < 0.3 * bits(motion)


def test_a_rectangle_costs_its_outline() -> None:
    sizes = []
    for side in (32, 64, 128):
        motion = np.zeros((1, 2, side, side), np.int64)
        motion[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = np.array([12, -7])[:, None, None]
        sizes.append(bits(motion))
    assert sizes[1] < 2.2 * sizes[0]
    assert sizes[2] < 2.2 * sizes[1]


# Damage


@settings(deadline=None, max_examples=60)
@given(content=st.binary(max_size=200), shape=shapes)
def test_anything_else_is_motion_or_corrupt(content: bytes, shape: tuple[int, ...]) -> None:
    try:
        motion = unpack(content, shape)
    except CorruptFile:
        return
    assert motion.shape == shape
    assert np.abs(motion).max(initial=0) <= LARGEST_MOTION


def test_damage_is_noticed_or_other_motion() -> None:
    motion = moving_scene(2, 12, 20)
    data = pack(motion)
    random = np.random.default_rng(1)
    damaged = [data[:-1], data[:-4], data[4:], data[::-1], data + b"\1", data + b"\xff" * 3000]
    damaged += with_flipped_bits(data, random, 20)
    noticed = 0
    for content in damaged:
        try:
            found = unpack(content, motion.shape)
        except CorruptFile:
            noticed += 1
        else:
            assert np.abs(found).max() <= LARGEST_MOTION
            assert (found != motion).any()
    assert noticed > len(damaged) / 2


@pytest.mark.parametrize("sign", [0, 1])
def test_motion_beyond_the_limit_is_noticed(sign: int) -> None:
    rows = (np.zeros(2 * CLASSES, np.int64), np.full(2 * CLASSES, ROW_ROW))
    for magnitude, fits in ((LARGEST_MOTION, True), (LARGEST_MOTION + 1, False), ((1 << 31) - 1, False)):
        data = entropy.encode_batches(
            [
                rows,
                (np.array([1, 0]), np.full(2, FLAG_ROWS[10])),
                (np.array([sign]), np.array([SIGN_ROW])),
                (np.array([magnitude - 1]), np.array([MAGNITUDE_ROWS[10]])),
            ]
        )
        if fits:
            assert unpack(data, (1, 2, 1, 1)).ravel().tolist() == [(1 - 2 * sign) * magnitude, 0]
        else:
            with pytest.raises(CorruptFile, match=f"{magnitude}"):
                unpack(data, (1, 2, 1, 1))


@pytest.mark.parametrize("change", [-(1 << 31) + 1, -200, 200, (1 << 31) - 1])
def test_rows_are_clipped_to_the_tables(change: int) -> None:
    """A file can ask for any row."""
    flag_row, magnitude_row = (49, 130) if change < 0 else (129, 193)
    parts = [
        (np.full(2 * CLASSES, change), np.full(2 * CLASSES, ROW_ROW)),
        (np.array([1, 0]), np.full(2, flag_row)),
        (np.array([1]), np.array([SIGN_ROW])),
        (np.array([5]), np.array([magnitude_row])),
    ]
    assert unpack(entropy.encode_batches(parts), (1, 2, 1, 1)).ravel().tolist() == [-6, 0]


def test_memory_is_bounded_by_the_number_of_blocks() -> None:
    content = b"\xff" * 100_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile):
            unpack(content, (2, 2, 30, 30))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_what_follows_is_left_to_the_caller() -> None:
    """Motion is part of a longer run."""
    motion = moving_scene(1, 8, 8)
    after = (np.array([3, -2]), np.array([30, 30]))
    decoder = entropy.Decoder(entropy.encode_batches([after, *motion_batches(motion), after]))
    assert decoder.decode(after[1]).tolist() == [3, -2]
    np.testing.assert_array_equal(read_motion(decoder, motion.shape), motion)
    assert decoder.decode(after[1]).tolist() == [3, -2]
    decoder.finish()


def test_memory_follows_the_blocks_however_flat_the_field() -> None:
    shape = (1, 2, 1, 1 << 14)
    tracemalloc.start()
    try:
        read_motion(entropy.Decoder(b""), shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400 * math.prod(shape)
