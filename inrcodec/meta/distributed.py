"""Several processes that meta-train together: each has its share of every outer step's signals.

Their meta-gradients are averaged by one plain all-reduce a step. DistributedDataParallel would wrap the one forward and
backward pass of a module; here what is learned are tensors without a module, and the gradient goes through gradients.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from inrcodec.errors import InrcodecError, UsageError


class ProcessLost(InrcodecError):
    """Another process of a training has ended, so this one cannot go on."""


@dataclass(frozen=True, eq=False)
class Processes:
    """The processes of a training, of which this is number `rank` of `count`.

    Signals are dealt out: signal i of a batch is that of process i modulo `count`. So no share has more than one signal
    more than another, and means over a batch weigh each signal the same.

    store: where the processes find each other; None for a process that is alone.
    """

    rank: int = 0
    count: int = 1
    store: Store | None = None

    @classmethod
    def of_torchrun(cls) -> "Processes":
        """Join the processes that `torchrun` started together with this one; without it, return this one alone.

        They talk through gloo, and through nccl where GPUs compute. Raises: UsageError if they cannot find each other.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return ALONE
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            store, rank, count = next(rendezvous("env://"))
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"the processes of this training do not find each other ({reason}): start them with torchrun"
            ) from error
        return cls(rank, count, store)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and says how far the training is."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """The signals of a batch that are this process's."""
        return slice(self.rank, None, self.count)

    def numbers(self, signals: int) -> range:
        """Return the numbers that a share of so many signals has in its batch."""
        return range(self.rank, self.rank + signals * self.count, self.count)

    def device(self, asked: str) -> str:
        """Return the name of the device of this process: each has a GPU of its own. Raises: UsageError."""
        if self.count == 1 or asked == "cpu" or not torch.cuda.is_available():
            return asked
        if asked not in ("auto", "cuda"):
            raise UsageError(f"--device is {asked}, but {self.count} processes need a GPU each: give --device cuda")
        return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"

    def check_batch(self, signals: int) -> None:
        """Raises: UsageError if a batch has no signal for some process."""
        if signals < self.count:
            raise UsageError(
                f"a batch of {signals} signals is too small for {self.count} processes: give --batch {self.count} or "
                "more, or start fewer processes"
            )

    def check_same(self, what: str, described: str) -> None:
        """Raises: UsageError if the description of something is not the same in all processes."""
        digest = int.from_bytes(sha256(described.encode()).digest()[:7])
        if self.agreed(digest) != digest:
            raise UsageError(f"process {self.rank} has other {what} than process 0: give all processes the same")

    def average(self, tensors: Sequence[Tensor], signals: int) -> None:
        """Replace tensors by their means over the signals of all processes, in place.

        tensors: means over the signals of this process, all of one type, on one device. signals: how many these are.
        """
        if self.count == 1:
            return
        parts = [tensor.detach().flatten() * signals for tensor in tensors]
        joined = torch.cat([*parts, parts[0].new_tensor([signals])])
        self._together(torch.distributed.all_reduce, joined)
        joined = joined / joined[-1]
        with torch.no_grad():
            for tensor, mean in zip(tensors, joined[:-1].split([part.numel() for part in parts]), strict=True):
                tensor.copy_(mean.reshape(tensor.shape))

    def agreed(self, number: int) -> int:
        """Return what this number is in the first process."""
        if self.count == 1:
            return number
        told = torch.tensor([number])
        self._together(torch.distributed.broadcast, told, src=0)
        return int(told)

    def content(self, read: Callable[[], bytes]) -> bytes:
        """Return what the first process reads; the others need not be able to."""
        if self.count == 1:
            return read()
        own = read() if self.first else b""
        told = torch.zeros(self.agreed(len(own)), dtype=torch.uint8)
        if self.first:
            told = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        self._together(torch.distributed.broadcast, told, src=0)
        return told.numpy().tobytes()

    def leave(self) -> None:
        """End the talk of the processes: from here on, none waits for another."""
        if self.count > 1:
            torch.distributed.destroy_process_group()

    def speaks(self) -> bool:
        """Say whether this process is the first to say why it ends. Of several, the others end without a word."""
        if self.store is None:
            return True
        try:
            return self.store.add("speaker", 1) == 1
        except RuntimeError:  # the process that keeps the store is gone
            return True

    def _together(self, operation: Callable[..., object], tensor: Tensor, **arguments: int) -> None:
        """Do what all processes do together. Raises: ProcessLost."""
        try:
            operation(tensor, **arguments)
        except RuntimeError as error:
            raise ProcessLost(
                "another process of this training has ended too early: start all of them again with --resume"
            ) from error


ALONE = Processes()
"""A process that trains by itself."""
