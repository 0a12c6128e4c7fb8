"""A version that answers nobody scores a sample of the requests behind the answers' backs, and is compared with them.

The sample is scored on the event loop, like everything that reads item states, but only in a lull, one at a time, and
for a bounded share of the time that requests leave. What is not scored is skipped, never queued.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import random
from typing import Literal

import numpy as np
import numpy.typing as npt
import structlog

from app.errors import RequestError
from app.features.request_ids import WireIds
from app.ranking.fallback import Ranks
from app.ranking.monitor import Watch
from app.ranking.ranker import NOT_FINITE, Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import SHADOW
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.runtime.loop_pacer import nothing_to_do
from app.stats import spearman

log = structlog.get_logger(__name__)

BUSY_SHARE = 0.05
"""Of the time that requests leave, for which it may hold the event loop: the busier that is, the longer is the queue
behind whatever holds it."""
LEAST_IDLE = 0.1
"""Share of the time that requests are taken to leave at the least, so that a busy service compares a little still."""
SAMPLED = 100
"""Items of an answer scored again at the most: five hundred would hold the event loop for a millisecond."""
TIMEOUT_S = 1.0
LOG_EVERY_S = 1.0

Outcome = Literal["compared", "skipped", "failed"]


@dataclass(frozen=True)
class Comparison:
    """Of one request's scores, over items that were answered, spread evenly over the answer's order."""

    answered: float
    """Mean score of the answer."""
    shadowed: float
    """Of the shadow."""
    correlation: float | None
    """Of the two orders (Spearman); None where one side has nothing but ties."""

    @property
    def ratio(self) -> float | None:
        return self.shadowed / self.answered if self.answered else None


@dataclass(slots=True)
class ShadowFigures:
    """Of the shadow that is live, since it went live."""

    version: int
    compared: int = 0
    skipped: int = 0
    """Drawn, but the process was busy, or the shadow had just changed."""
    failed: int = 0
    """It raised an error, or gave scores that are not finite."""
    answered_total: float = 0.0
    shadowed_total: float = 0.0
    """Sums of the two means of a comparison."""
    correlated: int = 0
    correlation_total: float = 0.0

    @property
    def shift(self) -> float | None:
        """Mean score of the shadow less that of the answers."""
        return (self.shadowed_total - self.answered_total) / self.compared if self.compared else None

    @property
    def ratio(self) -> float | None:
        return self.shadowed_total / self.answered_total if self.answered_total else None

    @property
    def correlation(self) -> float | None:
        return self.correlation_total / self.correlated if self.correlated else None


class Shadow:
    def __init__(
        self,
        ranker: Ranks,
        live: Callable[[], LiveSnapshot],
        watch: Watch,
        *,
        share: float,
        idle: Callable[[], bool],
        worked_s: Callable[[], float] = time.thread_time,
        on_outcome: Callable[[Outcome, Comparison | None], None] = lambda outcome, comparison: None,
    ) -> None:
        """
        Args:
            share: of the requests to score again, in [0, 1].
            idle: whether no request is at work.
            worked_s: as of `Pace`.
        """
        self._ranker = ranker
        self._live = live
        self._watch = watch
        self._share = share
        self._idle = idle
        self._on_outcome = on_outcome
        self._figures: ShadowFigures | None = None
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._worked_s = worked_s
        self._looked_at = self._had_worked_s = 0.0
        self._logged_at = -LOG_EVERY_S

    def figures(self) -> ShadowFigures | None:
        """None where no shadow is live, or it has seen nothing yet."""
        shadow, figures = self._live().shadow, self._figures
        return figures if shadow is not None and figures is not None and figures.version == shadow.version else None

    def answered(self, request: RankRequest, answer: Ranking) -> None:
        """An answer was sent: perhaps have the shadow score the request too."""
        shadow = self._live().shadow
        if shadow is None or random() >= self._share or shadow is answer.artifact or NOT_FINITE in answer.degraded:
            return
        figures = self._figures
        if figures is None or figures.version != shadow.version:
            figures = self._figures = ShadowFigures(shadow.version)
        if self._task is not None or time.perf_counter() < self._not_before or not self._idle():
            self._end(figures, "skipped")
            return
        self._task = asyncio.create_task(self._compare(figures, request, answer), name="shadow")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _compare(self, figures: ShadowFigures, request: RankRequest, answer: Ranking) -> None:
        comparison, outcome = None, "failed"
        try:
            if not await self._lull():
                outcome = "skipped"
                return
            began = time.perf_counter()
            sample, answered_N = _sample(answer)
            asked = request.replace(model=SHADOW, item_ids=sample, top_k=None, explain=False)
            sampled_s = time.perf_counter() - began
            ranking = await self._ranker.rank(asked, began + TIMEOUT_S)
            began = time.perf_counter()
            finite = NOT_FINITE not in ranking.degraded
            self._watch.answered(SHADOW, ranking.artifact.version, ranking.scores, finite=finite)
            if ranking.artifact.version != figures.version:
                outcome = "skipped"
            elif finite:
                comparison, outcome = compared(answered_N, ranking), "compared"
            held_s = sampled_s + ranking.encode_s + ranking.score_s + time.perf_counter() - began
            self._not_before = time.perf_counter() + held_s * (1 / (BUSY_SHARE * self._idle_share()) - 1)
        except RequestError as error:  # the shadow went, or the store is slow, or the schemas differ
            outcome = "failed" if error.status == 422 and self._live().shadow is not None else "skipped"
        except Exception as error:
            self._watch.failed(SHADOW, figures.version)
            log.error("shadow_failed", version=figures.version, exc_info=error)
            self._not_before = time.perf_counter() + LOG_EVERY_S
        finally:
            self._task = None
            self._end(figures, outcome, comparison)  # type: ignore[arg-type]

    async def _lull(self) -> bool:
        """Whether no request is at work or about to be: it would wait for the comparison."""
        # One may have come in before it was this task's turn, or come in now.
        return self._idle() and await nothing_to_do() and self._idle()

    def _idle_share(self) -> float:
        """Of the time since it was last asked, that this thread had nothing to do."""
        now, worked_s = time.perf_counter(), self._worked_s()
        busy = (worked_s - self._had_worked_s) / (now - self._looked_at)
        self._looked_at, self._had_worked_s = now, worked_s
        return min(1.0, max(LEAST_IDLE, 1.0 - busy))

    def _end(self, figures: ShadowFigures, outcome: Outcome, comparison: Comparison | None = None) -> None:
        setattr(figures, outcome, getattr(figures, outcome) + 1)
        if comparison is not None:
            figures.answered_total += comparison.answered
            figures.shadowed_total += comparison.shadowed
            if comparison.correlation is not None:
                figures.correlated += 1
                figures.correlation_total += comparison.correlation
        self._on_outcome(outcome, comparison)


def _sample(answer: Ranking) -> tuple[WireIds, npt.NDArray[np.float32]]:
    """Ids of items of the answer, and its scores of them; which ones is left to chance."""
    step = -(-len(answer.scores) // SAMPLED)
    chosen = slice(int(random() * step), None, step)
    ids = answer.candidates.listed()
    return WireIds.of([ids[index] for index in answer.order[chosen].tolist()]), answer.scores[chosen]


def compared(answered_N: npt.NDArray[np.float32], shadow: Ranking) -> Comparison:
    """The scores that items were answered with, and the shadow's ranking of the same items."""
    answer_N, shadow_N = answered_N.astype(np.float64), np.empty(len(answered_N))
    shadow_N[shadow.order] = shadow.scores
    tied = np.ptp(answer_N) == 0 or np.ptp(shadow_N) == 0
    return Comparison(float(answer_N.mean()), float(shadow_N.mean()), None if tied else spearman(shadow_N, answer_N))
