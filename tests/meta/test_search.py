"""Coarse-to-fine search for points with high scores, against sorting all of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inrcodec.meta.search import search


def looked_up(scores, evaluated=None):
    """Return scores [B, N] as a function of points."""

    def of(points):
        if evaluated is not None:
            evaluated.append(points.shape[1])
        return scores.gather(1, points)

    return of


@given(
    shape=st.lists(st.sampled_from([4, 8, 12]), min_size=1, max_size=3),
    batch=st.integers(1, 3),
    stride=st.sampled_from([1, 2, 4]),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
def test_search_of_all_cells_is_exact(shape, batch, stride, share, seed):
    points = math.prod(shape)
    keep = max(1, round(share * points))
    scores = torch.rand((batch, points), generator=torch.Generator().manual_seed(seed))
    found = search(looked_up(scores), shape, keep, batch=batch, stride=stride, breadth=float(points))
    expected = scores.argsort(1, descending=True)[:, :keep]
    assert torch.equal(found.sort(1).values, expected.sort(1).values)


@given(keep=st.integers(1, 256), stride=st.sampled_from([1, 2, 4, 8]), breadth=st.floats(1, 4))
def test_search_keeps_as_many_different_points_as_asked(keep, stride, breadth):
    scores = torch.rand((2, 256), generator=torch.Generator().manual_seed(keep))
    found = search(looked_up(scores), (16, 16), keep, batch=2, stride=stride, breadth=breadth)
    assert found.shape == (2, keep)
    assert all(len(set(row.tolist())) == keep for row in found)
    assert found.min() >= 0
    assert found.max() < 256


def test_a_smooth_hill_is_found_with_few_evaluations():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    scores = -((y - 40) ** 2 + (x - 21) ** 2).reshape(1, -1)
    evaluated = []
    found = search(looked_up(scores, evaluated), (64, 64), 100, breadth=3)
    expected = set(scores[0].argsort(descending=True)[:100].tolist())
    assert len(expected & set(found[0].tolist())) >= 95
    assert sum(evaluated) < 64 * 64 / 4


def test_no_more_points_are_scored_at_once_than_allowed():
    evaluated = []
    scores = torch.rand((1, 4096))
    search(looked_up(scores, evaluated), (64, 64), 1000, at_once=100)
    assert max(evaluated) == 100


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((12, 16), {"keep": 1}, "stride"),
        ((16, 16), {"keep": 1, "stride": 6}, "stride"),
        ((16, 16), {"keep": 257}, "257"),
        ((16, 16), {"keep": 0}, "0 of 256"),
        ((16, 16), {"keep": 4, "breadth": 0.5}, "breadth"),
    ],
)
def test_search_refuses_what_it_cannot_do(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        search(looked_up(torch.rand((1, 256))), shape, **settings)
