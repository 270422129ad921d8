"""The device that computes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from inrcodec.errors import UsageError


def pick_device(device: str | torch.device) -> torch.device:
    """Return the device to compute on; "auto" is the first GPU where there is one.

    Raises: UsageError if the device cannot be used.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise UsageError(f"device {str(device)!r} cannot be used: use auto, cpu or cuda[:n]")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda":
            # Convolutions at 10 bits of mantissa would decode to visibly other values than on a CPU.
            torch.backends.cudnn.allow_tf32 = False
            # And products of matrices would not be those of integers; see `inrcodec.models.exact`.
            torch.set_float32_matmul_precision("highest")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {str(device)!r} cannot be used ({reason}): use auto, cpu or cuda[:n]") from error
    return chosen


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take denormal numbers as zero: they make training many times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
