"""Processes that train together, as threads: what they hand each other is pickled, as it is on its way to a process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from app.training.distributed import World

T = TypeVar("T")


class Meeting:
    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=30)
        self.brought: list[bytes] = [b""] * size


@dataclass(frozen=True)
class ThreadWorld(World):
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gathered(self, own: T) -> list[T]:
        self.meeting.brought[self.rank] = pickle.dumps(own)
        self.meeting.barrier.wait()
        found = [pickle.loads(brought) for brought in self.meeting.brought]
        self.meeting.barrier.wait()
        return found

    def add(self, *tensors: torch.Tensor) -> None:
        for place, each in enumerate(zip(*self.gathered(tensors), strict=True)):
            tensors[place].copy_(torch.stack(each).sum(0))

    def wait(self) -> None:
        self.meeting.barrier.wait()

    def machine(self) -> World:
        return self


def together(size: int, act: Callable[[World], T]) -> list[T | BaseException]:
    """What each of so many processes returns or raises."""
    meeting = Meeting(size)

    def run(rank: int) -> T | BaseException:
        try:
            return act(ThreadWorld(rank, size, meeting=meeting))
        except BaseException as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
