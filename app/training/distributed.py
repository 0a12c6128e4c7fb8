"""Several processes that train one model: what they are to each other, and what they add up.

Every process holds the whole model and sees which rows a batch has, computes its own part of each batch, and adds its
gradients to the others' (Li et al. 2020). As all make the same step from the same sum, their weights stay the same.
`torchrun` starts the processes and says by environment variables which one this is.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from app.errors import ConfigError, CtrError, DataError

if TYPE_CHECKING:  # reading and encoding a file takes no torch, which would be half of its memory
    from torch import Tensor

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others before it gives up: for one with a packed file, which cannot be cut."""


@dataclass(frozen=True)
class World:
    """This process among all; alone, every sum is its own number."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """torch's, of some of the processes; None is all of them."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's share of so many rows, in order; the shares differ by one row at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def add(self, *tensors: Tensor) -> None:
        """Replace each, in place and everywhere, by the sum over the processes; one message for all."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        if len(tensors) == 1 and tensors[0].is_contiguous():
            dist.all_reduce(tensors[0], group=self.group)
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(message, group=self.group)
        for tensor, total in zip(tensors, torch.split(message, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def gathered(self, own: T) -> list[T]:
        """What every process hands in, in the order of ranks; tensors arrive on the processor."""
        if self.size == 1:
            return [own]
        import torch.distributed as dist

        found: list[T] = [own] * self.size
        dist.all_gather_object(found, own, group=self.group)
        return found

    def agreed(self, act: Callable[[], T]) -> T:
        """Do it in every process. Where one of them raises a ConfigError or DataError, all raise the first such."""
        result: T | None = None
        error: CtrError | None = None
        try:
            result = act()
        except (ConfigError, DataError) as raised:
            error = raised
        for failed in self.gathered(error):
            if failed is not None:
                raise failed
        return result  # type: ignore[return-value]  # act returned it

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier(group=self.group)

    def machine(self) -> World:
        """The processes of this machine, which share its files. All processes have to ask, and to ask as often."""
        if self.size == 1:
            return self
        import torch.distributed as dist

        # torchrun numbers its agents, one a machine; other launchers may not.
        names = self.gathered(os.environ.get("GROUP_RANK") or socket.gethostname())
        if len(set(names)) == 1:
            return self
        mine = World()
        for name in dict.fromkeys(names):
            ranks = [rank for rank, other in enumerate(names) if other == name]
            group = dist.new_group(ranks, timeout=TIMEOUT)
            if self.rank in ranks:
                mine = World(ranks.index(self.rank), len(ranks), group)
        return mine


ALONE = World()


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def speaks() -> bool:
    """Whether this process is the one that people and programs hear, which is known before the processes have met."""
    return not started_by_torchrun() or os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """The world this process belongs to: of one, unless `torchrun` started it. gloo on processors, nccl on GPUs.

    Raises:
        ConfigError: the other processes cannot be reached, or one of them has ended.
    """
    if not started_by_torchrun():
        yield World()
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
        yield World(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConfigError("torchrun: another process of this training ended before its time") from error
    finally:
        dist.destroy_process_group()
