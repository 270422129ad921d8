"""The symbols of latents: to bytes and back, for grids of any shape."""

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from damage import with_flipped_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.latents.model import LatentModel
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import EntropyModel, Grid, LatentPyramid, Parameters
from inrcodec.models.layers import WEIGHT_UNIT, integer_weights
from inrcodec.models.order import Place

FIELDS = [
    LatentPyramid(1, 1, (3,)),
    LatentPyramid(1, 2, (2,)),
    LatentPyramid(2, 1, (2, 3)),
    LatentPyramid(2, 3, (2, 2)),
    LatentPyramid(3, 3, (1, 2, 2)),
    LatentPyramid(2, 3, (2, 3), divided=2),
    LatentPyramid(3, 1, (1, 2, 2), divided=3),
]
COLOURS = FIELDS[3]
GRID = Grid.open((13, 18))
STEP_INDEX = -19


def entropy_model_of(field: LatentPyramid) -> EntropyModel:
    return EntropyModel.of(field, hidden=3)


def float_weights(field: LatentPyramid) -> Parameters:
    generator = torch.Generator().manual_seed(1)
    initial = entropy_model_of(field).initialize(generator)
    return {name: value + 0.4 * torch.randn(value.shape, generator=generator) for name, value in initial.items()}


def random_symbols(field: LatentPyramid, grid: Grid, batch: int, size: float, seed: int = 0) -> list[np.ndarray]:
    """Return zeros mostly; the others are up to some 3 * 10 ** size, but to 2^30 at most.

    Differences of means are symbols too.
    """
    random = np.random.default_rng(seed)
    symbols = []
    for shape in [(batch, *latents) for latents in field.latent_shapes(grid)]:
        values = np.trunc(random.standard_normal(shape) * 10 ** random.uniform(-1, size, shape))
        symbols.append(values.clip(-(2**30), 2**30).astype(np.int64))
    return symbols


def coder_of(field: LatentPyramid, grid: Grid, weights: Parameters | None = None) -> SymbolCoder:
    """Return the coder of a grid. weights: those of `float_weights` unless given, int32."""
    weights = weights or integer_weights(float_weights(field))
    return SymbolCoder(field, grid, entropy_model_of(field), weights)


def pack(symbols: list[np.ndarray], field: LatentPyramid, grid: Grid, step_index: int = STEP_INDEX) -> bytes:
    return entropy.encode_batches(coder_of(field, grid).batches(symbols, step_index))


def unpack(data: bytes, batch: int, field: LatentPyramid, grid: Grid, step_index: int = STEP_INDEX) -> list[np.ndarray]:
    decoder = entropy.Decoder(data)
    symbols = coder_of(field, grid).read(decoder, batch, step_index)
    decoder.finish()
    return symbols


def passes_of(
    field: LatentPyramid, grid: Grid, symbols: list[np.ndarray]
) -> Iterator[tuple[Place, np.ndarray, np.ndarray]]:
    """Yield the passes with the rows of their flags and magnitudes, clipped to the tables."""
    exact = {name: value.double() for name, value in integer_weights(float_weights(field)).items()}
    magnitudes = [torch.from_numpy(np.abs(level)).double() for level in symbols[:-1]]
    condition = torch.tensor([32.0 * STEP_INDEX + 768], dtype=torch.float64)
    for place, flags, scales in entropy_model_of(field).passes(exact, magnitudes, field.levels_of(grid), condition):
        flag_rows = (flags.flatten().long().numpy() + entropy.EVEN_FLAG).clip(0, entropy.FLAG_ROWS - 1)
        scale_rows = (scales.flatten().long().numpy() + entropy.UNIT_MAGNITUDE).clip(0, entropy.MAGNITUDE_ROWS - 1)
        yield place, entropy.FLAG_ROW + flag_rows, entropy.MAGNITUDE_ROW + scale_rows


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for level, other in zip(found, wanted, strict=True):
        assert level.dtype == np.int64
        np.testing.assert_array_equal(level, other)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_chunks_round_trip(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(FIELDS))
    largest = {1: 40, 2: 14, 3: 7}[field.in_features]
    shape = tuple(data.draw(st.integers(1, largest)) for _ in range(field.in_features))
    grid = Grid(shape, tuple(data.draw(st.booleans()) for _ in shape))
    batch = data.draw(st.integers(1, 3))
    step_index = data.draw(st.integers(-120, 24))
    symbols = random_symbols(field, grid, batch, data.draw(st.sampled_from([0.0, 1.0, 4.0, 9.0])), seed=batch)
    assert_same(unpack(pack(symbols, field, grid, step_index), batch, field, grid, step_index), symbols)


@pytest.mark.parametrize("field", FIELDS)
def test_the_largest_symbols_round_trip(field: LatentPyramid) -> None:
    grid = Grid.open((5,) * field.in_features)
    random = np.random.default_rng(2)
    limits = [2**31 - 1] * max(field.levels) + [2**30 - 1]
    symbols = [
        random.choice([-limit, 0, limit], (2, *shape))
        for limit, shape in zip(limits, field.latent_shapes(grid), strict=True)
    ]
    assert_same(unpack(pack(symbols, field, grid), 2, field, grid), symbols)


def test_blank_patches_are_nearly_free() -> None:
    symbols = [0 * level for level in random_symbols(COLOURS, GRID, 4, 0)]
    surely_zero = entropy_model_of(COLOURS).initialize(torch.Generator().manual_seed(0))
    for name, value in surely_zero.items():
        if name.endswith("head_bias"):
            value[: max(COLOURS.levels)] = -20
    coder = coder_of(COLOURS, GRID, integer_weights(surely_zero))
    data = entropy.encode_batches(coder.batches(symbols, STEP_INDEX))
    count = sum(level.size for level in symbols)
    assert len(data) < count / 1000 + 8


def test_neighbouring_means_are_coded_as_differences() -> None:
    """A ramp costs hardly more than a constant, far from zero."""
    symbols = [0 * level for level in random_symbols(COLOURS, Grid.open((60, 60)), 1, 0)]
    grid = Grid.open((60, 60))
    rows, columns = np.indices(symbols[-1].shape[2:])
    sizes = []
    for means in (0 * rows, 0 * rows + 1000, 1000 - 2 * rows, 1000 + columns - 2 * rows):
        sizes.append(len(pack([*symbols[:-1], symbols[-1] + means], COLOURS, grid)))
    count = symbols[-1].size
    assert sizes[1] < sizes[0] + 40
    assert sizes[2] < sizes[1] + 90
    assert sizes[3] < sizes[1] + count * 3 / 8
    noise = np.random.default_rng(0).integers(-1000, 1000, symbols[-1].shape)
    assert len(pack([*symbols[:-1], noise], COLOURS, grid)) > sizes[0] + count * 9 / 8


def test_details_cost_what_the_float_model_says() -> None:
    """The rate that adaptation weighs is that of the file, up to the rounding of rows; large symbols are escaped."""
    grid = Grid.open((48, 48))
    symbols = random_symbols(COLOURS, grid, 2, 0.3)
    symbols[-1][...] = 0
    weights = {name: value / WEIGHT_UNIT for name, value in integer_weights(float_weights(COLOURS)).items()}
    model = LatentModel(COLOURS, {}, entropy_model_of(COLOURS), weights)
    latents = [torch.from_numpy(level).float() for level in symbols]
    step_indices = torch.full((2,), float(STEP_INDEX))
    bits = model.bits(latents, grid, step_indices, [level.abs() for level in latents])
    assert bits.shape == (2,)
    assert 8 * len(pack(symbols, COLOURS, grid)) == pytest.approx(float(bits.sum()), rel=0.005)


def test_size_is_the_sum_of_the_code_lengths() -> None:
    """Rows taken from the passes, symbols from the places."""
    symbols = random_symbols(COLOURS, GRID, 1, 1.0)
    symbols[-1][...] = 0
    bits = 0.0
    for place, flag_rows, magnitude_rows in passes_of(COLOURS, GRID, symbols):
        coded = symbols[place.level][place.index].ravel()
        nonzero = coded != 0
        bits += entropy.code_length(nonzero.astype(np.int64), flag_rows).sum() + nonzero.sum()
        bits += entropy.code_length(np.abs(coded[nonzero]) - 1, magnitude_rows[nonzero]).sum()
    # The means are two rows and zeros.
    assert abs(len(pack(symbols, COLOURS, GRID)) - bits / 8) < 8


# Damage


def test_damage_is_noticed_or_other_symbols() -> None:
    """The coder has no redundancy: a flipped bit may be another chunk's. Checksums are the container's."""
    symbols = random_symbols(COLOURS, GRID, 2, 1.0)
    data = pack(symbols, COLOURS, GRID)
    random = np.random.default_rng(3)
    damaged = [data[:-1], data[:-4], data[: len(data) // 2], data[4:], data[::-1]]
    damaged += with_flipped_bits(data, random, 20)
    noticed = 0
    for content in damaged:
        try:
            found = unpack(content, 2, COLOURS, GRID)
        except CorruptFile:
            noticed += 1
        else:
            assert any((level != other).any() for level, other in zip(found, symbols, strict=True))
            assert_same(unpack(pack(found, COLOURS, GRID), 2, COLOURS, GRID), found)
    assert noticed > len(damaged) / 2


@pytest.mark.parametrize("tail", [b"\1", b"\0", b"\xff" * 4, b"\xff" * 3000])
def test_data_beyond_the_last_symbol_is_noticed(tail: bytes) -> None:
    data = pack(random_symbols(COLOURS, GRID, 2, 1.0), COLOURS, GRID)
    for content in (data + tail, tail, data[:8] + tail):
        with pytest.raises(CorruptFile):
            unpack(content, 2, COLOURS, GRID)


def test_a_chunk_of_other_patches_is_noticed() -> None:
    data = pack(random_symbols(COLOURS, GRID, 2, 1.0), COLOURS, GRID)
    for batch, grid, step_index in (
        (1, GRID, STEP_INDEX),
        (3, GRID, STEP_INDEX),
        (2, Grid.open((13, 19)), STEP_INDEX),
        (2, GRID, STEP_INDEX + 30),
    ):
        with pytest.raises(CorruptFile):
            unpack(data, batch, COLOURS, grid, step_index)


@settings(deadline=None, max_examples=40)
@given(content=st.binary(max_size=120), place=st.integers(0, len(FIELDS) - 1))
def test_anything_else_is_symbols_or_corrupt(content: bytes, place: int) -> None:
    """No other error, no endless loop, and not more memory than the symbols take."""
    field = FIELDS[place]
    grid = Grid.open((4, 6, 3)[: field.in_features])
    try:
        symbols = unpack(content, 2, field, grid)
    except CorruptFile:
        return
    assert [level.shape for level in symbols] == [(2, *shape) for shape in field.latent_shapes(grid)]


def test_memory_is_bounded_by_the_size_of_the_patches() -> None:
    content = b"\xff" * 100_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile):
            unpack(content, 2, COLOURS, GRID)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("row", [-2000, -25, 25, 2000])
def test_rows_of_means_are_clipped_to_the_table(row: int) -> None:
    """A file can ask for any Laplace row."""
    field, grid = FIELDS[0], Grid.open((1,))
    clipped = min(max(row + entropy.ZERO_ROW, 0), entropy.ROWS - 1)
    parts = [
        (np.array([row]), np.array([40])),
        (np.array([5]), np.array([clipped])),
    ]
    zeros = [np.zeros((1, *shape), np.int64) for shape in field.latent_shapes(grid)]
    for _, flag_rows, _ in passes_of(field, grid, zeros):
        parts.append((np.zeros(len(flag_rows), np.int64), flag_rows))
    *details, means = unpack(entropy.encode_batches(parts), 1, field, grid)
    assert means.tolist() == [[[5]]]
    assert not any(level.any() for level in details)


def test_batches_are_coded_patch_after_patch() -> None:
    """Every patch decodes to the same symbols, whatever is in the chunk with it."""
    symbols = random_symbols(COLOURS, GRID, 3, 1.0)
    for order in itertools.permutations(range(3)):
        shuffled = [level[list(order)] for level in symbols]
        assert_same(unpack(pack(shuffled, COLOURS, GRID), 3, COLOURS, GRID), shuffled)
