"""`Shadow` has a version that answers nobody score a sample of the requests again, and compares the scores.

The sample is scored on the event loop, like everything that reads item states, but only when no request is at work, one
at a time, and for a bounded share of the time that requests leave. A request that cannot be scored then is skipped and
never queued.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import random

import numpy as np
import numpy.typing as npt
import structlog

from app.errors import RequestError
from app.features.request_ids import RequestIds
from app.ranking.degraded import NOT_FINITE
from app.ranking.fallback import SupportsRank
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import SHADOW
from app.ranking.shadow_stats import ShadowComparison, ShadowOutcome, ShadowStats, compare
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.runtime.loop_pacer import nothing_to_do

log = structlog.get_logger(__name__)

TIMEOUT_S = 1.0
LOG_EVERY_S = 1.0


@dataclass(frozen=True)
class ShadowBudget:
    """How much of the event loop's time the shadow may take."""

    busy_share: float = 0.05
    """Share of the time that requests leave: whatever holds a loop that is mostly busy delays a long queue."""
    min_idle_share: float = 0.1
    """Requests are taken to leave at least this share of the time, so that a busy service still compares a little."""
    sample_size: int = 100
    """Most items of an answer that are scored again: five hundred would hold the event loop for a millisecond."""


class Shadow:
    """Draws requests, scores them with the shadow, and keeps the totals in `stats()`."""

    def __init__(
        self,
        ranker: SupportsRank,
        live: Callable[[], LiveSnapshot],
        monitor: ModelMonitor,
        *,
        share: float,
        idle: Callable[[], bool],
        worked_s: Callable[[], float] = time.thread_time,
        loop_is_idle: Callable[[], Awaitable[bool]] = nothing_to_do,
        budget: ShadowBudget | None = None,
        on_outcome: Callable[[ShadowOutcome, ShadowComparison | None], None] = lambda outcome, comparison: None,
    ) -> None:
        """
        Args:
            share: share of the requests to draw, in [0, 1].
            idle: returns whether no request is at work.
            worked_s: returns this thread's processor time, as for the loop's pacer.
            loop_is_idle: returns whether a turn of the event loop finds no request to go on with.
            on_outcome: called for each drawn request.
        """
        self._ranker = ranker
        self._live = live
        self._monitor = monitor
        self._share = share
        self._idle = idle
        self._loop_is_idle = loop_is_idle
        self._budget = budget or ShadowBudget()
        self._on_outcome = on_outcome
        self._stats: ShadowStats | None = None
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._worked_s = worked_s
        self._measured_at = self._worked_before_s = 0.0

    def stats(self) -> ShadowStats | None:
        """Return the live shadow's totals; None where no shadow is live, or it has not seen a request yet."""
        shadow, stats = self._live().shadow, self._stats
        return stats if shadow is not None and stats is not None and stats.version == shadow.version else None

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Perhaps have the shadow score an answered request too; this is a `RankObserver`."""
        shadow = self._live().shadow
        if shadow is None or random() >= self._share or shadow is ranking.artifact or NOT_FINITE in ranking.degraded:
            return
        stats = self._stats
        if stats is None or stats.version != shadow.version:
            stats = self._stats = ShadowStats(shadow.version)
        if self._task is not None or time.perf_counter() < self._not_before or not self._idle():
            self._count(stats, "skipped")
            return
        self._task = asyncio.create_task(self._compare(stats, request, ranking), name="shadow")

    async def stop(self) -> None:
        """Cancel the comparison at work, if there is one."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _compare(self, stats: ShadowStats, request: RankRequest, answer: Ranking) -> None:
        comparison: ShadowComparison | None = None
        outcome: ShadowOutcome = "failed"
        try:
            # A request may have come in before it was this task's turn, or come in now: it would wait for the shadow.
            if not (self._idle() and await self._loop_is_idle() and self._idle()):
                outcome = "skipped"
                return
            shadow = self._live().shadow
            if shadow is None or shadow.version != stats.version:  # nothing is awaited until the ranker has chosen it
                outcome = "skipped"
                return
            began = time.perf_counter()
            item_ids, answer_N = self._sample(answer)
            sampled = request.replace(model=SHADOW, item_ids=item_ids, top_k=None, explain=False)
            sampling_s = time.perf_counter() - began
            ranking = await self._ranker.rank(sampled, began + TIMEOUT_S)
            began = time.perf_counter()
            finite = NOT_FINITE not in ranking.degraded
            self._monitor.record_answer(SHADOW, ranking.artifact.version, ranking.scores, finite=finite)
            if ranking.artifact.version != stats.version:
                outcome = "skipped"
            elif finite:
                comparison, outcome = compare(answer_N, ranking), "compared"
            self._rest_after(sampling_s + ranking.encode_s + ranking.score_s + time.perf_counter() - began)
        except RequestError as error:  # the shadow was withdrawn, the store is slow, or the schemas differ
            outcome = "failed" if error.status == 422 and self._live().shadow is not None else "skipped"
        except Exception as error:
            self._monitor.record_failure(SHADOW, stats.version)
            log.error("shadow_failed", version=stats.version, exc_info=error)
            self._not_before = time.perf_counter() + LOG_EVERY_S
        finally:
            self._task = None
            self._count(stats, outcome, comparison)

    def _rest_after(self, held_s: float) -> None:
        """Postpone the next comparison so that the loop is held for no more than the budget's share."""
        share = self._budget.busy_share * self._idle_share()
        self._not_before = time.perf_counter() + held_s * (1 / share - 1)

    def _idle_share(self) -> float:
        """Return the share of the time since the last call in which this thread had nothing to do."""
        now, worked_s = time.perf_counter(), self._worked_s()
        busy_share = (worked_s - self._worked_before_s) / (now - self._measured_at)
        self._measured_at, self._worked_before_s = now, worked_s
        return min(1.0, max(self._budget.min_idle_share, 1.0 - busy_share))

    def _count(self, stats: ShadowStats, outcome: ShadowOutcome, comparison: ShadowComparison | None = None) -> None:
        stats.add(outcome, comparison)
        self._on_outcome(outcome, comparison)

    def _sample(self, answer: Ranking) -> tuple[RequestIds, npt.NDArray[np.float32]]:
        """Return ids of items spread evenly over the answer's order, from a random first one, and their scores."""
        step = -(-len(answer.scores) // self._budget.sample_size)
        chosen = slice(int(random() * step), None, step)
        ids = answer.candidates.at(answer.order[chosen].tolist())
        return RequestIds.from_strings(ids), answer.scores[chosen]
