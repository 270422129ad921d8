"""Fixtures for meta-training: real pictures to learn from, and the floating-point mode that runs change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inrcodec.signals import Signal, read

SAMPLES = Path(__file__).parents[2] / "assets" / "samples" / "image"


@pytest.fixture(autouse=True)
def floating_point() -> Iterator[None]:
    """Use one thread, and leave denormals as they were, which a meta-training run flushes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def samples() -> Path:
    """Return the folder of sample pictures."""
    return SAMPLES


@pytest.fixture(scope="session")
def images() -> list[Signal]:
    """Return the sample pictures."""
    return [read(path)[0] for path in sorted(SAMPLES.glob("*.webp"))]
