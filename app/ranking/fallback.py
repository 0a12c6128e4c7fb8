"""A version that fails to score a request does not fail the request: stable answers it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import structlog

from app.errors import EncodingError, RequestError
from app.ranking.monitor import Watch
from app.ranking.ranker import MODEL_FALLBACK, Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import STABLE, route
from app.registry.lifecycle.snapshot import LiveSnapshot

log = structlog.get_logger(__name__)

LOG_EVERY_S = 1.0


class Ranks(Protocol):
    """`app.ranking.ranker.Ranker` is one."""

    async def rank(self, request: RankRequest, due: float) -> Ranking: ...


class Rescue:
    def __init__(self, ranker: Ranks, live: Callable[[], LiveSnapshot], watch: Watch) -> None:
        self._ranker = ranker
        self._live = live
        self._watch = watch
        self._logged_at = -LOG_EVERY_S

    async def rank(self, request: RankRequest, due: float, error: Exception) -> Ranking:
        """The answer of stable to a request over which `error` was raised; `degraded` says so.

        Raises `error` where that is no help: stable fails as well, or the fault is the request's.
        """
        live = self._live()
        try:
            chosen = route(live, request.user_id, request.model)
        except RequestError:
            raise error from None
        blamed = chosen.artifact is not live.stable
        if isinstance(error, RequestError) and not (blamed and isinstance(error, EncodingError)):
            raise error  # only what does not fit this version's schema may fit another's
        try:
            ranking = await self._ranker.rank(request.replace(model=STABLE), due)
        except Exception:
            if not isinstance(error, RequestError):
                self._failed(chosen.label, chosen.artifact.version, request, error)
            raise error from None
        # Where stable is named but answers now, the version that failed was taken out while the request was at work.
        if blamed:
            self._failed(chosen.label, chosen.artifact.version, request, error)
        ranking.degraded.append(MODEL_FALLBACK)
        return ranking

    def _failed(self, label: str, version: int, request: RankRequest, error: Exception) -> None:
        self._watch.failed(label, version, pinned=request.model is not None)
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:  # a version that fails at all may fail at every request
            self._logged_at = now
            log.error("scoring_failed", label=label, version=version, exc_info=error)
