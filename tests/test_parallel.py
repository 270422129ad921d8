"""Work that several processes share."""

import multiprocessing
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from random_latents import random_initialization
from waves import tiny_image

from inrcodec import parallel
from inrcodec.decoder import decode
from inrcodec.encoder import encode
from inrcodec.errors import InrcodecError
from inrcodec.latents import codec
from inrcodec.models import LatentPyramid
from inrcodec.options import EncodeOptions
from inrcodec.parallel import shared
from inrcodec.patches import PatchConfig


@pytest.fixture(autouse=True)
def no_helpers_left() -> Iterator[None]:
    yield
    parallel.end_helpers()


def slowly(task: int) -> float:
    time.sleep(0.05)
    return float(task)


def test_results_come_in_order_from_here_and_there() -> None:
    found = list(shared(slowly, str, range(200), 200, 2))
    assert [int(result) for result in found] == list(range(200))
    assert {type(result) for result in found} == {float, str}


def test_one_process_is_this_one() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    results = shared(float, str, tasks(), 5, 1)
    assert next(results) == 0.0 and taken == [0]
    assert list(results) == [1.0, 2.0, 3.0, 4.0]
    assert not parallel._POOLS


def test_few_tasks_are_not_worth_a_helper() -> None:
    assert list(shared(float, str, range(3), 3, 2)) == [0.0, 1.0, 2.0]
    assert not parallel._POOLS


def test_an_error_in_a_helper() -> None:
    with pytest.raises(ValueError, match="'x'"):
        list(shared(float, int, ["x", "1", "1", "1"], 4, 2))


def test_a_helper_that_is_killed() -> None:
    with pytest.raises(InrcodecError, match=r"ended too early.*--jobs 1"):
        list(shared(slowly, os._exit, [9] * 4, 4, 2))
    assert next(shared(slowly, str, [1] * 4, 4, 2)) == "1"


def test_helpers_serve_others_when_nobody_wants_the_rest() -> None:
    results = shared(slowly, str, range(200), 200, 2)
    while type(next(results)) is float:
        pass
    results.close()
    (helper,) = [process for process in multiprocessing.active_children() if process.is_alive()]
    assert len(list(shared(slowly, str, range(4), 4, 2))) == 4
    parallel.end_helpers()
    helper.join(60)
    assert not helper.is_alive() and not parallel._POOLS


def test_there_is_one_pool() -> None:
    for count in (4, 6, 8):
        list(shared(slowly, str, range(count), count, 3))
    assert len(multiprocessing.active_children()) <= 2
    list(shared(slowly, str, range(8), 8, 2))
    assert list(parallel._POOLS) == [1]


def test_a_signal_of_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many processes there are, files and what they decode to are the same."""
    monkeypatch.setattr(codec, "CHUNK_POINTS", 1)
    field = LatentPyramid(2, 3, (2, 3), prediction=4, divided=2)
    initialization = random_initialization("image", field, PatchConfig((24, 32), (4, 4), normalize=False))
    picture = tiny_image(3, 100, 120)
    alone, shares = (
        encode([picture], [initialization], EncodeOptions(steps=1, device="cpu", processes=processes), embed=True)
        for processes in (1, 2)
    )
    assert alone[0] == shares[0]
    np.testing.assert_array_equal(alone[1][0].values, shares[1][0].values)
    (decoded,) = decode(shares[0], device="cpu", processes=2)
    np.testing.assert_array_equal(decoded.values, alone[1][0].values)
