"""`Batcher` scores several requests' candidates in one call, for a GPU: starting an operator costs more there than its
work.

A request that has its item states waits until `max_rows` candidates have gathered, or until `max_wait_us` after the
first. Each version has a batch of its own. On a CPU there is nothing to gain (docs/adr/0005), so it is off there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.registry.artifact.artifact import Artifact


@dataclass(slots=True)
class _Waiter:
    user_D: Tensor
    items_ND: Tensor
    done: asyncio.Future[Tensor]


@dataclass(slots=True)
class _Batch:
    """Requests of one version that are scored together."""

    artifact: Artifact
    due: float
    """`time.perf_counter()` at which it is flushed, however few they are."""
    waiters: list[_Waiter] = field(default_factory=list)
    rows: int = 0


class Batcher:
    """Gathers requests on one event loop and scores them together."""

    def __init__(self, max_rows: int, max_wait_us: float) -> None:
        self.calls = 0
        self.requests = 0
        """Running totals, like `calls`: requests over calls is the mean size of a batch."""
        self._max_rows = max_rows
        self._max_wait_s = max_wait_us / 1e6
        self._batches: dict[int, _Batch] = {}

    async def probabilities(self, artifact: Artifact, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Return the probabilities [N], on the CPU, of one request's item states [N, D].

        Raises what scoring this request alone raises; an error of another request in the batch does not matter here.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(user_D, items_ND, loop.create_future())
        batch = self._batches.get(id(artifact))
        if batch is not None and batch.rows + len(items_ND) > self._max_rows:
            self._flush(batch)
            batch = None
        if batch is None:
            batch = self._batches[id(artifact)] = _Batch(artifact, time.perf_counter() + self._max_wait_s)
            loop.call_soon(self._flush_if_due, batch, loop)
        batch.waiters.append(waiter)
        batch.rows += len(items_ND)
        if batch.rows >= self._max_rows:
            self._flush(batch)
        return await waiter.done

    def _flush_if_due(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        """Check again at each turn of the event loop, whose timers know nothing shorter than a millisecond."""
        if self._batches.get(id(batch.artifact)) is not batch:
            return
        if time.perf_counter() < batch.due:
            loop.call_soon(self._flush_if_due, batch, loop)
        else:
            self._flush(batch)

    def _flush(self, batch: _Batch) -> None:
        del self._batches[id(batch.artifact)]
        waiters = [waiter for waiter in batch.waiters if not waiter.done.done()]  # those of cancelled requests are
        if not waiters:
            return
        self.calls += 1
        self.requests += len(waiters)
        try:
            scores = _score(batch.artifact, waiters)
        except Exception:
            self._score_one_by_one(batch.artifact, waiters)
            return
        for waiter, scores_N in zip(waiters, scores, strict=True):
            waiter.done.set_result(scores_N)

    @staticmethod
    def _score_one_by_one(artifact: Artifact, waiters: list[_Waiter]) -> None:
        """Give each request its own result or error, after one of them made the common call fail."""
        for waiter in waiters:
            try:
                waiter.done.set_result(_score(artifact, [waiter])[0])
            except Exception as error:
                waiter.done.set_exception(error)


@torch.inference_mode()
def _score(artifact: Artifact, waiters: list[_Waiter]) -> list[Tensor]:
    counts = [len(waiter.items_ND) for waiter in waiters]
    # `cat` copies, so a call that fails half-way leaves the waiters' states as they were.
    users_UD = torch.stack([waiter.user_D for waiter in waiters])
    items_PD = torch.cat([waiter.items_ND for waiter in waiters])
    return list(torch.split_with_sizes(artifact.score_users(users_UD, items_PD, counts).cpu(), counts))
