"""The symbols of latents: to bytes and back, for grids of any shape."""

import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from damage import with_flipped_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from random_latents import random_entropy_model, random_parameters
from torch import Tensor

from inrcodec.adaptation import SHARED
from inrcodec.coding import entropy
from inrcodec.errors import CorruptFile
from inrcodec.latents.costs import Costs
from inrcodec.latents.model import LatentModel
from inrcodec.latents.symbols import SymbolCoder
from inrcodec.models import EntropyModel, Grid, LatentPyramid, LatentSpectrum, LatentTransform
from inrcodec.models.exact import ACTIVATION_UNIT

FIELDS: list[LatentTransform] = [
    LatentPyramid(1, 1, (3,), prediction=2),
    LatentPyramid(1, 2, (2,), prediction=2),
    LatentPyramid(2, 1, (2, 3), prediction=2),
    LatentPyramid(2, 3, (2, 2), prediction=2),
    LatentPyramid(3, 3, (1, 2, 2), prediction=2),
    LatentPyramid(2, 3, (2, 3), prediction=2, divided=2),
    LatentPyramid(3, 1, (1, 2, 2), prediction=2, divided=3),
    LatentPyramid(2, 3, (3, 3), prediction=2, divided=2).transform(3 * 9 + 2),
    LatentSpectrum(1, 1, (2, 3), hop=4),
]
COLOURS = FIELDS[3]
GRID = Grid.open((13, 18))
STEP_INDEX = -19


@cache
def model_of(field: LatentTransform, step_index: int = STEP_INDEX) -> LatentModel:
    """Return a model of random networks."""
    networks = random_entropy_model(field, gain=1.5, hidden=3)
    return LatentModel.made(field, random_parameters(field), *networks, step_index, {SHARED: torch.zeros(1)})


def shapes_of(field: LatentTransform, grid: Grid, batch: int) -> list[tuple[int, ...]]:
    """Return the shapes of the means and of every pass."""
    passes = [(place.channels, *place.shape) for place in field.places(grid)]
    return [(batch, *shape) for shape in (field.means_shape(grid), *passes)]


def random_symbols(field: LatentTransform, grid: Grid, batch: int, size: float, seed: int = 0) -> list[Tensor]:
    """Return zeros mostly; the others are up to some 3 * 10 ** size, but to 2^30 at most.

    Differences of means are symbols too.
    """
    random = np.random.default_rng(seed)
    symbols = []
    for shape in shapes_of(field, grid, batch):
        values = np.trunc(random.standard_normal(shape) * 10 ** random.uniform(-1, size, shape))
        symbols.append(torch.from_numpy(values.clip(-(2**30), 2**30)).float())
    return symbols


def outputs_of(model: LatentModel, grid: Grid, symbols: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return what the entropy model says of every pass when it is shown the symbols."""
    means, *details = symbols
    left = iter(details)
    return [(flags, scales) for _, flags, scales in model.passes(grid, lambda: next(left).abs(), means)]


def pack(symbols: list[Tensor], model: LatentModel, grid: Grid) -> bytes:
    return entropy.encode_batches(SymbolCoder(model, grid).batches(symbols, outputs_of(model, grid, symbols)))


def unpack(data: bytes, batch: int, model: LatentModel, grid: Grid) -> list[Tensor]:
    decoder = entropy.Decoder(data)
    symbols = SymbolCoder(model, grid).read(decoder, batch)
    decoder.finish()
    return symbols


def rows_of(model: LatentModel, grid: Grid, symbols: list[Tensor]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of every pass's flags and magnitudes: nearest quarters, clipped to the tables, channels last."""
    for flags, scales in outputs_of(model, grid, symbols):
        quarters = [np.floor(4 * each.numpy() / ACTIVATION_UNIT + 0.5).astype(np.int64) for each in (flags, scales)]
        flag_rows, scale_rows = (np.moveaxis(each, 1, -1).ravel() for each in quarters)
        flag_rows = (flag_rows + entropy.EVEN_FLAG).clip(0, entropy.FLAG_ROWS - 1)
        scale_rows = (scale_rows + entropy.UNIT_MAGNITUDE).clip(0, entropy.MAGNITUDE_ROWS - 1)
        yield entropy.FLAG_ROW + flag_rows, entropy.MAGNITUDE_ROW + scale_rows


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for level, other in zip(found, wanted, strict=True):
        assert level.dtype == torch.float32
        assert torch.equal(level, other)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_chunks_round_trip(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(FIELDS))
    largest = {1: 40, 2: 14, 3: 7}[field.in_features]
    shape = tuple(data.draw(st.integers(1, largest)) for _ in range(field.in_features))
    grid = Grid(shape, tuple(data.draw(st.booleans()) for _ in shape))
    batch = data.draw(st.integers(1, 3))
    model = model_of(field, data.draw(st.integers(-120, 24)))
    symbols = random_symbols(field, grid, batch, data.draw(st.sampled_from([0.0, 1.0, 4.0, 9.0])), seed=batch)
    assert_same(unpack(pack(symbols, model, grid), batch, model, grid), symbols)


@pytest.mark.parametrize("field", FIELDS)
def test_the_largest_symbols_round_trip(field: LatentTransform) -> None:
    """Up to the largest number of float32 below 2^31; differences of means are symbols, too."""
    grid, model = Grid.open((5,) * field.in_features), model_of(field)
    random = np.random.default_rng(2)
    means, *passes = shapes_of(field, grid, 2)
    limits = [2**30 - 2**7, *[2**31 - 2**7] * len(passes)]
    symbols = [
        torch.from_numpy(random.choice([-limit, 0, limit], shape)).float()
        for limit, shape in zip(limits, (means, *passes), strict=True)
    ]
    assert_same(unpack(pack(symbols, model, grid), 2, model, grid), symbols)


def test_blank_patches_are_nearly_free() -> None:
    symbols = [0 * level for level in random_symbols(COLOURS, GRID, 4, 0)]
    surely_zero = EntropyModel.of(COLOURS, 3).initialize(torch.Generator().manual_seed(0))
    for name, value in surely_zero.items():
        if name.endswith("flags.bias"):
            value[: max(COLOURS.levels)] = -20
    model = replace(model_of(COLOURS), weights=EntropyModel.of(COLOURS, 3).ready(surely_zero, STEP_INDEX))
    data = pack(symbols, model, GRID)
    count = sum(level.numel() for level in symbols)
    assert len(data) < count / 1000 + 8


def test_neighbouring_means_are_coded_as_differences() -> None:
    """A ramp costs hardly more than a constant, far from zero."""
    grid, model = Grid.open((60, 60)), model_of(COLOURS)
    means, *details = (0 * level for level in random_symbols(COLOURS, grid, 1, 0))
    rows, columns = torch.from_numpy(np.indices(means.shape[2:])).float()
    sizes = []
    for values in (0 * rows, 0 * rows + 1000, 1000 - 2 * rows, 1000 + columns - 2 * rows):
        sizes.append(len(pack([means + values, *details], model, grid)))
    count = means.numel()
    assert sizes[1] < sizes[0] + 40
    assert sizes[2] < sizes[1] + 90
    assert sizes[3] < sizes[1] + count * 3 / 8
    noise = torch.from_numpy(np.random.default_rng(0).integers(-1000, 1000, means.shape)).float()
    assert len(pack([noise, *details], model, grid)) > sizes[0] + count * 9 / 8


def test_details_cost_what_the_costs_say() -> None:
    """The rate that adaptation weighs is that of the file, up to the rounding of rows; large symbols are escaped."""
    grid = Grid.open((48, 48))
    model = model_of(COLOURS)
    means, *details = random_symbols(COLOURS, grid, 2, 0.3)
    symbols = [0 * means, *details]
    outputs = outputs_of(model, grid, symbols)
    bits = sum(float(Costs.of(*each)(coded.abs()).sum()) for each, coded in zip(outputs, details, strict=True))
    assert 8 * len(pack(symbols, model, grid)) == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize("field", FIELDS)
def test_size_is_the_sum_of_the_code_lengths(field: LatentTransform) -> None:
    """Rows taken from the passes, symbols from the places."""
    grid, model = Grid.open((13, 18, 5)[: field.in_features]), model_of(field)
    means, *details = random_symbols(field, grid, 1, 1.0)
    symbols = [0 * means, *details]
    bits = 0.0
    for (flag_rows, magnitude_rows), detail in zip(rows_of(model, grid, symbols), details, strict=True):
        coded = detail.movedim(1, -1).long().numpy().ravel()
        nonzero = coded != 0
        bits += entropy.code_length(nonzero.astype(np.int64), flag_rows).sum() + nonzero.sum()
        bits += entropy.code_length(np.abs(coded[nonzero]) - 1, magnitude_rows[nonzero]).sum()
    # The means are a row for each group and zeros.
    assert abs(len(pack(symbols, model, grid)) - bits / 8) < 8


def test_bare_levels_are_not_coded() -> None:
    field = LatentPyramid(2, 3, (3, 3), prediction=2)
    grid = Grid.open((24, 24))
    counts = [sum(place.size for place in field.transform(bare).places(grid)) for bare in range(3)]
    luma = 12 * 12 * 3
    assert counts == [3 * luma * 21 // 16, luma + 3 * luma * 5 // 16, luma * 5 // 4 + 3 * luma // 16]


# Damage


def test_damage_is_noticed_or_other_symbols() -> None:
    """The coder has no redundancy: a flipped bit may be another chunk's. Checksums are the container's."""
    model = model_of(COLOURS)
    symbols = random_symbols(COLOURS, GRID, 2, 1.0)
    data = pack(symbols, model, GRID)
    random = np.random.default_rng(3)
    damaged = [data[:-1], data[:-4], data[: len(data) // 2], data[4:], data[::-1]]
    damaged += with_flipped_bits(data, random, 20)
    noticed = 0
    for content in damaged:
        try:
            found = unpack(content, 2, model, GRID)
        except CorruptFile:
            noticed += 1
        else:
            assert any((level != other).any() for level, other in zip(found, symbols, strict=True))
            assert_same(unpack(pack(found, model, GRID), 2, model, GRID), found)
    assert noticed > len(damaged) / 2


@pytest.mark.parametrize("tail", [b"\1", b"\0", b"\xff" * 4, b"\xff" * 3000])
def test_data_beyond_the_last_symbol_is_noticed(tail: bytes) -> None:
    model = model_of(COLOURS)
    data = pack(random_symbols(COLOURS, GRID, 2, 1.0), model, GRID)
    for content in (data + tail, tail, data[:8] + tail):
        with pytest.raises(CorruptFile):
            unpack(content, 2, model, GRID)


def test_a_chunk_of_other_patches_is_noticed() -> None:
    data = pack(random_symbols(COLOURS, GRID, 2, 1.0), model_of(COLOURS), GRID)
    for batch, grid, step_index in (
        (1, GRID, STEP_INDEX),
        (3, GRID, STEP_INDEX),
        (2, Grid.open((13, 19)), STEP_INDEX),
        (2, GRID, STEP_INDEX + 30),
    ):
        with pytest.raises(CorruptFile):
            unpack(data, batch, model_of(COLOURS, step_index), grid)


@settings(deadline=None, max_examples=40)
@given(content=st.binary(max_size=120), place=st.integers(0, len(FIELDS) - 1))
def test_anything_else_is_symbols_or_corrupt(content: bytes, place: int) -> None:
    """No other error, no endless loop, and not more memory than the symbols take."""
    field = FIELDS[place]
    grid = Grid.open((4, 6, 3)[: field.in_features])
    try:
        symbols = unpack(content, 2, model_of(field), grid)
    except CorruptFile:
        return
    assert [tuple(level.shape) for level in symbols] == shapes_of(field, grid, 2)


def test_memory_is_bounded_by_the_size_of_the_patches() -> None:
    content, model = b"\xff" * 100_000, model_of(COLOURS)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile):
            unpack(content, 2, model, GRID)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("row", [-2000, -25, 25, 2000])
def test_rows_of_means_are_clipped_to_the_table(row: int) -> None:
    """A file can ask for any Laplace row."""
    field, grid = FIELDS[0], Grid.open((1,))
    model = model_of(field)
    clipped = min(max(row + entropy.ZERO_ROW, 0), entropy.ROWS - 1)
    parts = [
        (np.array([row]), np.array([40])),
        (np.array([5]), np.array([clipped])),
    ]
    zeros = [torch.zeros(shape) for shape in shapes_of(field, grid, 1)]
    for flag_rows, _ in rows_of(model, grid, zeros):
        parts.append((np.zeros(len(flag_rows), np.int64), flag_rows))
    means, *details = unpack(entropy.encode_batches(parts), 1, model, grid)
    assert means.tolist() == [[[5]]]
    assert not any(level.any() for level in details)


def test_batches_are_coded_patch_after_patch() -> None:
    """Every patch decodes to the same symbols, whatever is in the chunk with it."""
    model = model_of(COLOURS)
    symbols = random_symbols(COLOURS, GRID, 3, 1.0)
    for order in itertools.permutations(range(3)):
        shuffled = [level[list(order)] for level in symbols]
        assert_same(unpack(pack(shuffled, model, GRID), 3, model, GRID), shuffled)
