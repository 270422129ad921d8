"""What all trainers have in common."""

import pytest
import torch

from inrcodec.errors import UsageError
from inrcodec.meta.trainer import load_tensors, save_tensors


def test_a_checkpoint_of_another_field_is_refused_by_its_shapes() -> None:
    own = {"theta": {"weight": torch.zeros(3, 200)}}
    optimizer = torch.optim.Adam([own["theta"]["weight"]])
    others = [
        (save_tensors({"theta": {"weight": torch.ones(2, 200)}}, optimizer), r"of shape \(2, 200\)"),
        ({}, "not there"),
    ]
    for saved, found in others:
        words = rf"^the checkpoint does not fit .*: theta weight is {found}, the field's is of shape \(3, 200\); resume"
        with pytest.raises(UsageError, match=words) as refused:
            load_tensors(saved, own, optimizer)
        assert "\n" not in str(refused.value)
