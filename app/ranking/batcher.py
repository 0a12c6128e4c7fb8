"""Several requests' candidates scored in one call: for a GPU, where starting an operator costs more than its work.

A request that has its item states waits until `max_rows` candidates are together, or `max_wait_us` after the first.
Each version has a batch of its own. Measured on a CPU there is nothing to gain (docs/adr/0005), so it is off there.
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
    """Requests of one version that wait together."""

    artifact: Artifact
    due: float
    """`time.perf_counter()` of the flush."""
    waiters: list[_Waiter] = field(default_factory=list)
    rows: int = 0


class Batcher:
    def __init__(self, max_rows: int, max_wait_us: float) -> None:
        self.calls = 0
        self.requests = 0
        """Running totals: requests over calls is the mean size of a batch."""
        self._max_rows = max_rows
        self._max_wait_s = max_wait_us / 1e6
        self._batches: dict[int, _Batch] = {}

    async def probabilities(self, artifact: Artifact, user_D: Tensor, items_ND: Tensor) -> Tensor:
        """Probabilities [N], on the CPU, of one request's item states.

        Raises what scoring this request alone raises; the others in its batch do not.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(user_D, items_ND, loop.create_future())
        batch = self._batches.get(id(artifact))
        if batch is not None and batch.rows + len(items_ND) > self._max_rows:
            self._flush(batch)
            batch = None
        if batch is None:
            batch = self._batches[id(artifact)] = _Batch(artifact, time.perf_counter() + self._max_wait_s)
            loop.call_soon(self._look, batch, loop)
        batch.waiters.append(waiter)
        batch.rows += len(items_ND)
        if batch.rows >= self._max_rows:
            self._flush(batch)
        return await waiter.done

    def _look(self, batch: _Batch, loop: asyncio.AbstractEventLoop) -> None:
        """Asked again at each turn of the loop: its timers know no less than a millisecond."""
        if self._batches.get(id(batch.artifact)) is not batch:
            return
        if time.perf_counter() < batch.due:
            loop.call_soon(self._look, batch, loop)
        else:
            self._flush(batch)

    def _flush(self, batch: _Batch) -> None:
        del self._batches[id(batch.artifact)]
        waiters = [waiter for waiter in batch.waiters if not waiter.done.done()]  # the others were cancelled
        if not waiters:
            return
        self.calls += 1
        self.requests += len(waiters)
        try:
            scores = _scored(batch.artifact, waiters)
        except Exception:
            self._alone(batch.artifact, waiters)
            return
        for waiter, scores_N in zip(waiters, scores, strict=True):
            waiter.done.set_result(scores_N)

    @staticmethod
    def _alone(artifact: Artifact, waiters: list[_Waiter]) -> None:
        """One of them is the reason that all failed."""
        for waiter in waiters:
            try:
                waiter.done.set_result(_scored(artifact, [waiter])[0])
            except Exception as error:
                waiter.done.set_exception(error)


@torch.inference_mode()
def _scored(artifact: Artifact, waiters: list[_Waiter]) -> list[Tensor]:
    counts = [len(waiter.items_ND) for waiter in waiters]
    # `cat` copies, so that a call that fails half-way leaves the waiters' states as they were.
    users_UD = torch.stack([waiter.user_D for waiter in waiters])
    items_PD = torch.cat([waiter.items_ND for waiter in waiters])
    return list(torch.split_with_sizes(artifact.score_users(users_UD, items_PD, counts).cpu(), counts))
