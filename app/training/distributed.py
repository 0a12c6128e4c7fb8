"""Several processes that train one model: what they are to each other, and what they add up.

Every process holds the whole model and sees which rows a batch has, computes its own part of each batch, and adds its
gradients to the others' (Li et al. 2020). As all make the same step from the same sum, their weights stay the same.
`torchrun` starts the processes and says by environment variables which one this is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from app.errors import ConfigError

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others before it gives up: for the first, which encodes large files for all."""


@dataclass(frozen=True)
class World:
    """This process among all; alone, every sum is its own number."""

    rank: int = 0
    size: int = 1

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
        if len(tensors) == 1 and tensors[0].is_contiguous():
            dist.all_reduce(tensors[0])
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(message)
        for tensor, total in zip(tensors, torch.split(message, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Every process's tensor, on the processor whatever the others are on, in the order of ranks."""
        if self.size == 1:
            return [tensor]
        tensors = [tensor] * self.size
        dist.all_gather_object(tensors, tensor)
        return tensors

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """The world this process belongs to: of one, unless `torchrun` started it. gloo on processors, nccl on GPUs.

    Raises:
        ConfigError: the other processes cannot be reached.
    """
    if not started_by_torchrun():
        yield World()
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"torchrun: the processes cannot reach each other: {reason}") from None
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
