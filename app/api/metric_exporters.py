"""What the ranking core counts for itself, handed to the metrics when they are read: nothing on a request's path."""

from __future__ import annotations

import threading
from dataclasses import replace

from app.features.item_cache import CacheCounts
from app.observability.metrics import SCORES, Metrics
from app.ranking.monitor import PARTS, Figures, Watch
from app.ranking.shadow import Comparison, Outcome


class WatchExport:
    """Adds to the metrics what a `Watch` has seen since the last time. One per process; called from any thread."""

    def __init__(self, watch: Watch, metrics: Metrics) -> None:
        self._watch = watch
        self._metrics = metrics
        self._lock = threading.Lock()
        self._exported: dict[tuple[str, int], tuple[Figures, Figures]] = {}
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            exported = {}
            for (label, version), figures in self._watch.figures().items():
                now, before = figures.copy(), self._exported.get((label, version))
                exported[label, version] = figures, now
                # Figures that were dropped and begun again begin at nothing.
                new = now.since(before[1]) if before is not None and before[0] is figures else now
                self._add(label, version, new)
            self._exported = exported

    def _add(self, label: str, version: int, new: Figures) -> None:
        if new.errors:
            self._metrics.model_errors[str(version)].inc(new.errors)
        if new.non_finite:
            self._metrics.model_non_finite[str(version)].inc(new.non_finite)
        if new.sampled:
            counts = [sum(new.counts[first : first + PARTS]) for first in range(0, PARTS * len(SCORES), PARTS)]
            self._metrics.add_scores(label, [*counts, new.counts[-1]], new.total)


class CacheExport:
    """Adds to the metrics what an item cache has counted since the last time. One per process; from any thread."""

    def __init__(self, counts: CacheCounts, metrics: Metrics) -> None:
        self._counts = counts
        self._lock = threading.Lock()
        self._exported = CacheCounts()
        self._counters = {
            "hits": metrics.item_cache_hits,
            "misses": metrics.item_cache_misses,
            "invalidations": metrics.item_cache_invalidations,
            "invalid_values": metrics.features_invalid["item"],
        }
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            now, before = replace(self._counts), self._exported
            self._exported = now
            for name, counter in self._counters.items():
                counter.inc(getattr(now, name) - getattr(before, name))


def count_shadow(metrics: Metrics, outcome: Outcome, comparison: Comparison | None) -> None:
    metrics.shadow_requests[outcome].inc()
    if comparison is not None:
        if comparison.ratio is not None:
            metrics.shadow_score_ratio.observe(comparison.ratio)
        if comparison.correlation is not None:
            metrics.shadow_rank_correlation.observe(comparison.correlation)
