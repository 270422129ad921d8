"""The order of latents against an enumeration of every single one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latent_oracles import every_pass
from torch import Tensor

from inrcodec.models.order import Order, cropped, interleave, padded, phase_corners
from inrcodec.models.wavelet import Level, levels_of

Grids = tuple[Order, tuple[Level, ...]]


@st.composite
def grids(draw: st.DrawFn) -> Grids:
    dimensions = draw(st.integers(1, 3))
    splits = tuple(draw(st.integers(1, 5)) for _ in range(dimensions))
    shape = tuple(draw(st.integers(1, (70, 20, 9)[dimensions - 1])) for _ in range(dimensions))
    groups = draw(st.sampled_from([(1,), (2,), (1, 2), (2, 1, 1)]))
    order = Order(groups, splits, divided=draw(st.integers(0, 8)), bare=draw(st.integers(0, 3)))
    return order, levels_of(shape, splits)


def numbered(order: Order, levels: Sequence[Level], batch: int = 2) -> list[Tensor]:
    """Return details of every level, every one of them another number."""
    details, first = [], 1
    for level in levels:
        shape = (batch, sum(order.groups) * level.bands, *level.half)
        details.append(torch.arange(first, first + math.prod(shape)).reshape(shape).float())
        first += math.prod(shape)
    return details


@settings(deadline=None, max_examples=40)
@given(grids())
def test_passes_are_all_latents_one_after_the_other(drawn: Grids) -> None:
    order, levels = drawn
    details = numbered(order, levels)
    passes, places = order.split(details), order.places(levels)
    for coded, place, (numbers, latents) in zip(passes, places, every_pass(order, levels), strict=True):
        assert (place.level, place.phase, place.group, place.part) == numbers
        assert coded.shape == (2, place.channels, *place.shape) and place.size == len(latents)
        for signal in range(2):
            expected = [float(details[place.level][(signal, *latent)]) for latent in latents]
            assert coded[signal].flatten().tolist() == expected


@settings(deadline=None, max_examples=80)
@given(grids())
def test_merging_undoes_splitting(drawn: Grids) -> None:
    order, levels = drawn
    details = numbered(order, levels)
    merged = order.merge(order.split(details), levels)
    for index, (found, whole) in enumerate(zip(merged, details, strict=True)):
        luma = order.groups[0] * levels[index].bands
        known = luma if index < order.bare else whole.shape[1]
        assert torch.equal(found[:, :known], whole[:, :known])
        assert found.shape == whole.shape and not found[:, known:].any()


@settings(deadline=None, max_examples=30)
@given(grids())
def test_every_latent_belongs_to_one_network(drawn: Grids) -> None:
    """Those of a pass have its level's bands and phases, and all passes of a name are of one shape of network."""
    order, levels = drawn
    networks = {name: (level, phase, group) for name, level, phase, group in order.networks()}
    for place in order.places(levels):
        level, phase, group = networks[order.name(place.level, place.phase, place.group)]
        assert (phase, group) == (place.phase, place.group) and level <= place.level
        assert order.bands(level) == order.bands(place.level) == levels[place.level].bands
        assert order.phases(level) == order.phases(place.level)
        assert place.part < order.parts(level, phase, group)
        assert order.members(group).stop - order.members(group).start == order.groups[group]
        assert order.axes(place.level) == levels[place.level].axes


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_phase_and_the_next_are_opposite_corners(axes: int) -> None:
    corners = phase_corners(axes)
    assert sorted(corners) == list(itertools.product((0, 1), repeat=axes))
    for one, other in zip(corners[::2], corners[1::2], strict=True):
        assert all(a + b == 1 for a, b in zip(one, other, strict=True))


def test_only_luma_of_the_three_finest_levels_is_divided() -> None:
    order = Order((1, 2), (6, 6), divided=4)
    parts = [[order.parts(level, 0, group) for group in range(2)] for level in range(6)]
    assert parts == [[4, 1]] * 3 + [[1, 1]] * 3
    assert [order.parts(0, phase, 0) for phase in range(4)] == [4] * 4
    assert [replace(order, divided=1).parts(0, phase, 0) for phase in range(4)] == [4, 1, 1, 1]


def test_bare_levels_have_latents_of_the_first_group_only() -> None:
    order, levels = Order((1, 2), (4, 4), bare=2), levels_of((32, 32), (4, 4))
    with_chroma = {place.level for place in order.places(levels) if place.group == 1}
    assert with_chroma == {2, 3}
    assert {place.level for place in order.places(levels) if place.group == 0} == {0, 1, 2, 3}


# Interleaving


@st.composite
def parts_of_a_grid(draw: st.DrawFn) -> tuple[list[Tensor | None], list[tuple[slice, ...]], tuple[int, ...]]:
    """Draw interleaved parts of which all but one can be missing."""
    dimensions = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 5)) for _ in range(dimensions))
    axes = draw(st.lists(st.integers(0, dimensions - 1), min_size=1, max_size=dimensions, unique=True))
    slices = Order((1,), tuple(2 if axis in axes else 1 for axis in range(dimensions))).phase_slices(0)
    parts: list[Tensor | None] = []
    for number, within in enumerate(slices):
        sizes = [len(range(size)[along]) for size, along in zip(shape, within, strict=True)]
        known = number == 0 or draw(st.booleans())
        parts.append(torch.rand(2, 3, *sizes, dtype=torch.float64) if known else None)
    return parts, slices, shape


@settings(deadline=None, max_examples=60)
@given(parts_of_a_grid())
def test_parts_stand_at_their_places(drawn) -> None:
    parts, slices, shape = drawn
    found = interleave(parts, slices, shape)
    assert found.shape == (2, 3, *shape)
    for place in itertools.product(*map(range, shape)):
        owners = [
            (part, [range(size)[along].index(p) for p, size, along in zip(place, shape, within, strict=True)])
            for part, within in zip(parts, slices, strict=True)
            if all(p in range(size)[along] for p, size, along in zip(place, shape, within, strict=True))
        ]
        ((part, cell),) = owners
        here = found[(..., *place)]
        assert torch.equal(here, torch.zeros_like(here) if part is None else part[(..., *cell)])


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 2)])
def test_gradients_of_interleaving_are_finite_differences(shape: tuple[int, ...]) -> None:
    slices = Order((1,), (2,) * len(shape)).phase_slices(0)
    whole = torch.rand(1, 2, *shape, dtype=torch.float64)
    parts = [whole[(..., *within)].clone().requires_grad_() for within in slices[1:]]

    def interleaved(*known: Tensor) -> Tensor:
        return interleave([None, *known], slices, shape)

    assert torch.autograd.gradcheck(interleaved, parts)
    assert torch.autograd.gradgradcheck(lambda *known: interleaved(*known).square(), parts)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=3))
def test_cropping_undoes_padding(sizes: list[tuple[int, int]]) -> None:
    shape = [size for size, _ in sizes]
    grid = [size + more for size, more in sizes]
    values = torch.rand(2, 1, *shape) + 1
    wide = padded(values, grid)
    assert wide.shape == (2, 1, *grid)
    assert torch.equal(cropped(wide, shape), values)
    assert float(wide.sum()) == pytest.approx(float(values.sum()))
