"""`ModelMonitor` counts what each live version does, and reports a canary that should not stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from app.ranking.canary import CanaryFailure, CanaryLimits, CanaryWindow
from app.ranking.degraded import NOT_FINITE
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import CANARY, STABLE
from app.ranking.score_histogram import ScoreStats
from app.registry.lifecycle.snapshot import LiveSnapshot

PINNED = "pinned"
"""Label of requests whose caller chose the version: they are counted apart, because they are no random sample."""

CHECKS_PER_WINDOW = 16
"""How often a canary's scores are compared while a window fills: a comparison costs as much as ten answers."""
MAX_COUNTED = 16
"""Most (label, version) pairs whose counts are kept."""


class ModelMonitor:
    """Counts answers, errors and scores by label and version. Its methods run on the event loop's thread."""

    def __init__(
        self,
        live: Callable[[], LiveSnapshot],
        limits: CanaryLimits | None = None,
        on_failure: Callable[[int, CanaryFailure], None] = lambda version, failure: None,
    ) -> None:
        """
        Args:
            live: returns what is live now.
            limits: how far a canary may stray; None never reports one.
            on_failure: called once per canary that crosses a limit, with its version.
        """
        self._live = live
        self._limits = limits
        self._check_every = max(1, limits.min_requests // CHECKS_PER_WINDOW) if limits is not None else 1
        self._on_failure = on_failure
        self._stats: dict[tuple[str, int], ScoreStats] = {}
        self._window: CanaryWindow | None = None

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Count an answer; this is a `RankObserver`."""
        self.record_answer(
            ranking.label,
            ranking.artifact.version,
            ranking.best_scores,
            finite=NOT_FINITE not in ranking.degraded,
            pinned=request.model is not None,
        )

    def record_answer(
        self, label: str, version: int, scores_N: npt.NDArray[np.float32], *, finite: bool = True, pinned: bool = False
    ) -> None:
        """Count an answer with these scores, best first.

        Args:
            finite: whether all scores were numbers.
            pinned: whether the caller chose the version.
        """
        stats, is_canary = self._stats_for_request(label, version, pinned=pinned)
        stats.requests += 1
        if finite:
            stats.add_scores(scores_N)
        else:
            stats.non_finite += 1
        if is_canary and (not finite or stats.requests % self._check_every == 0):
            self._check_canary(version)

    def record_failure(self, label: str, version: int, *, pinned: bool = False) -> None:
        """Count a request that the version raised an error over, though it should have scored it."""
        stats, is_canary = self._stats_for_request(label, version, pinned=pinned)
        stats.errors += 1
        if is_canary:
            self._check_canary(version)

    def stats(self) -> dict[tuple[str, int], ScoreStats]:
        """Return the running totals by label and version; callable from any thread."""
        return dict(self._stats)

    def _stats_for_request(self, label: str, version: int, *, pinned: bool) -> tuple[ScoreStats, bool]:
        """Return the totals to count a request in, and whether it is the canary's; open a window for it if need be."""
        stats = self._stats_of(PINNED if pinned else label, version)
        is_canary = label == CANARY and not pinned
        if is_canary and self._limits is not None:
            self._open_window(version, stats)
        return stats, is_canary

    def _stats_of(self, label: str, version: int) -> ScoreStats:
        stats = self._stats.get((label, version))
        if stats is None:
            self._evict()
            stats = self._stats[label, version] = ScoreStats()
        return stats

    def _evict(self) -> None:
        """Make room for one more entry: the oldest of versions that are no longer live go first."""
        live_versions = {artifact.version for artifact in self._live().labels().values()}
        retired = [key for key in self._stats if key[1] not in live_versions]
        for key in retired[: max(0, len(self._stats) + 1 - MAX_COUNTED)]:
            del self._stats[key]

    def _open_window(self, version: int, canary: ScoreStats) -> None:
        """Open a new window where the canary or stable has changed, and close the window where the canary is gone."""
        live = self._live()
        if live.canary is None or live.stable is None or live.canary.version != version or live.canary is live.stable:
            self._window = None  # the request was at work when the canary was withdrawn
            return
        manifests = live.canary.manifest_sha256, live.stable.manifest_sha256
        if self._window is None or self._window.manifests != manifests:
            self._window = CanaryWindow(manifests, canary, self._stats_of(STABLE, live.stable.version))

    def _check_canary(self, version: int) -> None:
        window = self._window
        if window is None or window.closed or self._limits is None:
            return
        failure = window.check(self._limits)
        if failure is not None:
            window.closed = True
            self._on_failure(version, failure)
