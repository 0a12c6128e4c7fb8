"""A process group of threads. The values that they exchange are pickled, as they are between processes."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from app.training.distributed import ProcessGroup

T = TypeVar("T")


class Exchange:
    """The memory through which the threads of a group exchange values."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=300)
        self.pickled: list[bytes] = [b""] * size


@dataclass(frozen=True)
class ThreadGroup(ProcessGroup):
    exchange: Exchange = field(default_factory=lambda: Exchange(1))

    def all_gather(self, value: T) -> list[T]:
        self.exchange.pickled[self.rank] = pickle.dumps(value)
        self.exchange.barrier.wait()
        values = [pickle.loads(pickled) for pickled in self.exchange.pickled]
        self.exchange.barrier.wait()
        return values

    def sum_in_place(self, *tensors: torch.Tensor) -> None:
        for index, each in enumerate(zip(*self.all_gather(tensors), strict=True)):
            tensors[index].copy_(torch.stack(each).sum(0))

    def barrier(self) -> None:
        self.exchange.barrier.wait()

    def on_this_machine(self) -> ProcessGroup:
        return self


def together(size: int, act: Callable[[ProcessGroup], T]) -> list[T | BaseException]:
    """Run `act` in each process of a group of this size; return what each returns or raises, in rank order."""
    exchange = Exchange(size)

    def run(rank: int) -> T | BaseException:
        try:
            return act(ThreadGroup(rank, size, exchange=exchange))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
