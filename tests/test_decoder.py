"""What the decoder makes of files that ask for much, and of networks that give no numbers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from headers import IMAGE

from inrcodec.decoder import check_work
from inrcodec.errors import UsageError
from inrcodec.field_values import native_values
from inrcodec.patches import PatchConfig


def wanting(shape: int, overlap: int) -> Any:
    """Return all of an initialization that counts here: how it wants 512x768 pixels cut."""
    return SimpleNamespace(patches=PatchConfig((shape, shape), (overlap, overlap)))


def test_work_of_patches_that_overlap_by_half_is_that_of_the_samples() -> None:
    check_work([IMAGE], [wanting(128, 64)], 512 * 768)


@pytest.mark.parametrize("initialization", [wanting(128, 120), wanting(8, 0)])
def test_work_beyond_the_samples_is_refused(initialization: Any) -> None:
    with pytest.raises(UsageError, match=r"work of \d+ samples, more than 393216: .*--max-samples"):
        check_work([IMAGE], [initialization], 512 * 768)


@pytest.mark.parametrize(("dtype", "expected"), [("u1", [128, 0, 255]), ("f4", [127.5, -np.inf, np.inf])])
def test_values_that_are_no_numbers_are_in_the_middle(dtype: str, expected: list[float]) -> None:
    values = np.array([[np.nan, -np.inf, np.inf]])
    assert native_values(values, np.array([0.0, 255.0]), np.dtype(dtype)).ravel().tolist() == expected
