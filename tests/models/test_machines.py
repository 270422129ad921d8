"""All machines decode the same bytes: with other instructions, libraries, threads and layouts."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import exact_decodes
import pytest
import torch
from torch import Tensor

from inrcodec.models import Parameters, exact

MACHINES: dict[str, dict[str, str]] = {
    "plain": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "two threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
}
"""Libraries read these as they start. A machine without an instruction set leaves the variable be."""


@cache
def digests() -> dict[str, str]:
    return exact_decodes.digests()


@pytest.fixture(scope="module")
def others() -> Iterator[dict[str, Any]]:
    """Decode in processes that take other instructions, all at once."""
    started = {
        name: subprocess.Popen(
            [sys.executable, exact_decodes.__file__],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | settings,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, settings in MACHINES.items()
    }
    found = {}
    for name, process in started.items():
        printed, _ = process.communicate()
        assert process.returncode == 0
        found[name] = json.loads(printed)
    yield found


@pytest.mark.parametrize("name", MACHINES)
def test_other_instructions_decode_the_same(name: str, others: dict[str, Any]) -> None:
    found = others[name]
    instructions = found.pop("instructions")
    if name == "plain":
        assert instructions in ("DEFAULT", "NO AVX")
    assert found == digests()


def test_without_onednn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself sets what it warns of
        with torch.backends.mkldnn.flags(enabled=False):
            assert exact_decodes.digests() == digests()


def test_by_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""

    def by_products(
        values: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...], stride: int
    ) -> Tensor:
        return exact._by_products(values, weight, bias, padding, stride)

    monkeypatch.setattr(exact, "_CONVOLUTIONS", dict.fromkeys((1, 2, 3), by_products))
    assert exact_decodes.digests() == digests()


def test_in_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_LAYOUTS", {})
    assert exact_decodes.digests() == digests()


def test_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training decodes what encoders and decoders do."""
    decodes = exact_decodes.pyramids, exact_decodes.clip
    plain, draw = [list(decode()) for decode in decodes], exact_decodes.large_weights

    def learned(*arguments: Any) -> Parameters:
        return {name: value.requires_grad_() for name, value in draw(*arguments).items()}

    monkeypatch.setattr(exact_decodes, "large_weights", learned)
    for decode, expected in zip(decodes, plain, strict=True):
        assert all(torch.equal(*pair) for pair in zip(decode(), expected, strict=True))
