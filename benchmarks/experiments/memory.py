"""Peak memory of a computation."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """MiB that `work` needs at its peak beyond what the process has before it.

    On the GPU what torch allocates; on Linux the resident set; elsewhere None.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed and kept would hide what is needed again
        _CLEAR.write_text("5")  # the peak begins anew
    except (OSError, AttributeError):
        return None
    before = _resident("VmRSS")
    work()
    return (_resident("VmHWM") - before) / 2**10


def _resident(key: str) -> int:
    """KiB."""
    found = re.search(rf"{key}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1])
