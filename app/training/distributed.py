"""Let several processes train one model together: they know their ranks and exchange data.

Every process holds the whole model and knows which rows a batch has, computes its own slice of each batch, and adds
its gradients to those of the others (Li et al. 2020). All make the same step from the same sum, so their weights stay
the same. `torchrun` starts the processes and tells each its rank by environment variables.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from app.errors import ConfigError, CtrError, DataError

if TYPE_CHECKING:  # reading and encoding a file needs no torch, which would be half of its memory
    import torch.distributed as dist
    from torch import Tensor

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""A process waits this long for the others: one of them may have to read a gzipped file, which cannot be split."""


@dataclass(frozen=True)
class ProcessGroup:
    """Represents this process among those that work together. A group of one exchanges nothing and needs no torch."""

    rank: int = 0
    size: int = 1
    torch_group: dist.ProcessGroup | None = None
    """Names the subgroup for torch; None stands for all processes."""

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that writes files and reports to people."""
        return self.rank == 0

    def own_slice(self, count: int) -> slice:
        """Return this process's slice of `count` rows; slices are in rank order and differ by one row at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum_in_place(self, *tensors: Tensor) -> None:
        """Replace each tensor, in every process, by its sum over the processes; all travel in one message."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        if len(tensors) == 1 and tensors[0].is_contiguous():
            dist.all_reduce(tensors[0], group=self.torch_group)
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(message, group=self.torch_group)
        for tensor, total in zip(tensors, torch.split(message, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def all_gather(self, value: T) -> list[T]:
        """Return every process's value in rank order. Values are pickled; tensors arrive in main memory."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value, group=self.torch_group)
        return values

    def run_all_or_raise(self, action: Callable[[], T]) -> T:
        """Run the action in every process and return its result, or raise in all of them.

        Raises:
            ConfigError, DataError: the action raised it in some process; all processes raise that of the lowest rank.
        """
        results: list[T] = []
        error: CtrError | None = None
        try:
            results.append(action())
        except (ConfigError, DataError) as raised:
            error = raised
        for failure in self.all_gather(error):
            if failure is not None:
                raise failure
        return results[0]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier(group=self.torch_group)

    def on_this_machine(self) -> ProcessGroup:
        """Return the subgroup of the processes on this machine, which share its files.

        It is a collective call: all processes have to make it, equally often.
        """
        if self.size == 1:
            return self
        import torch.distributed as dist

        # torchrun numbers its agents, one a machine; other launchers may not.
        machines = self.all_gather(os.environ.get("GROUP_RANK") or socket.gethostname())
        if len(set(machines)) == 1:
            return self
        own_subgroup = ProcessGroup()
        for name in dict.fromkeys(machines):
            ranks = [rank for rank, machine in enumerate(machines) if machine == name]
            torch_group = dist.new_group(ranks, timeout=TIMEOUT)
            if self.rank in ranks:
                own_subgroup = ProcessGroup(ranks.index(self.rank), len(ranks), torch_group)
        return own_subgroup


SINGLE_PROCESS = ProcessGroup()


def started_by_torchrun() -> bool:
    """Tell whether the environment names a rank, as `torchrun` sets it for each process that it starts."""
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def is_main_process() -> bool:
    """Tell whether this process writes to standard output and error; it is known before the group is joined."""
    return not started_by_torchrun() or os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def join_process_group(device: str = "cpu") -> Iterator[ProcessGroup]:
    """Join the group that `torchrun` started, over gloo on CPUs and nccl on GPUs, or yield a group of one.

    Raises:
        ConfigError: the other processes cannot be reached, or one of them ended early.
    """
    if not started_by_torchrun():
        yield SINGLE_PROCESS
        return
    import torch
    import torch.distributed as dist

    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"torchrun: the processes cannot reach each other: {reason}") from None
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConfigError("torchrun: another process of this training ended before its time") from error
    finally:
        dist.destroy_process_group()
