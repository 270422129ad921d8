"""Peak memory of a computation."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """Return the MiB that the tensors which `work` makes take at their peak; what was there before does not count.

    On the GPU as torch's allocator counts them; elsewhere operation by operation, where what an operation needs for
    itself is not seen. The resident set of a process would tell more of the allocator than of the tensors.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with _Living() as living:
        work()
    return living.peak / 2**20


class _Living(TorchDispatchMode):
    """Counts the bytes of the storages that operations make and that are still in use: now, and at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {id(storage) for storage in _storages((args, kwargs))}
        for storage in _storages(found):
            if id(storage) not in given and id(storage) not in self._known:
                self._add(storage)
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        name, size = id(storage), storage.nbytes()
        self._known.add(name)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

        def freed() -> None:
            self._known.discard(name)
            self.bytes -= size

        weakref.finalize(storage, freed)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
