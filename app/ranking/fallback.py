"""A version that fails to score a request does not fail the request: stable answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from app.errors import EncodingError, RequestError
from app.observability.logs import LogThrottle
from app.ranking.degraded import MODEL_FALLBACK
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import STABLE, route_request
from app.registry.lifecycle.snapshot import LiveSnapshot

log = structlog.get_logger(__name__)


class SupportsRank(Protocol):
    """Something that ranks one request, as `app.ranking.ranker.Ranker` does."""

    async def rank(self, request: RankRequest, due: float) -> Ranking: ...


class Fallback:
    """Answers from stable what another version failed to score, and counts the failure against that version."""

    def __init__(self, ranker: SupportsRank, live: Callable[[], LiveSnapshot], monitor: ModelMonitor) -> None:
        self._ranker = ranker
        self._live = live
        self._monitor = monitor
        self._log_throttle = LogThrottle()

    def snapshot(self) -> LiveSnapshot:
        """Return what is live now, which `rank` compares with what is live once a request has failed."""
        return self._live()

    async def rank(self, request: RankRequest, due: float, error: Exception, began_with: LiveSnapshot) -> Ranking:
        """Rank with stable a request over which `error` was raised, and add `model_fallback` to `degraded`.

        Args:
            began_with: what was live when the request began. A version that has taken the place of the failing one
                since is not blamed.

        Raises `error` itself if stable cannot help: it fails as well, or the request is at fault and not the version.
        """
        live = self._live()
        try:
            chosen = route_request(live, request)
            at_fault = route_request(began_with, request).artifact is chosen.artifact
        except RequestError:
            raise error from None
        version_failed = chosen.artifact is not live.stable
        if isinstance(error, RequestError) and not (version_failed and isinstance(error, EncodingError)):
            raise error  # stable can only help with a value that does not fit this version's schema
        try:
            ranking = await self._ranker.rank(request.replace(model=STABLE), due)
        except Exception:
            if at_fault and not isinstance(error, RequestError):
                self._record(chosen.label, chosen.artifact.version, request, error)
            raise error from None
        # Where routing names stable but stable answers now, the failing version was withdrawn in the meantime.
        if at_fault and version_failed:
            self._record(chosen.label, chosen.artifact.version, request, error)
        ranking.degraded.append(MODEL_FALLBACK)
        return ranking

    def _record(self, label: str, version: int, request: RankRequest, error: Exception) -> None:
        self._monitor.record_failure(label, version, pinned=request.model is not None)
        if self._log_throttle.admits():
            log.error("scoring_failed", label=label, version=version, exc_info=error)
