"""Connects the ranking core to the metrics: observers count each request, exporters add what other parts have counted.

Exporters run when the metrics are read, so they cost a request nothing.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import replace

import numpy as np

from app.errors import DeadlinePassed, NoModel, Overloaded, RequestError
from app.events.event_log import EventLog
from app.events.outcome_counts import Outcomes
from app.events.records import CLICK
from app.features.cache_counts import CacheCounts
from app.header_keys import KnownKeys
from app.observability.metrics import SCORE_BOUNDS, Metrics
from app.ranking.calibration_buckets import BUCKET_NAMES, BucketTotals, CalibrationBuckets
from app.ranking.click_rates import ClickInterval
from app.ranking.field_drift import FieldDrift
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import STABLE
from app.ranking.score_histogram import SUBDIVISIONS, ScoreStats
from app.ranking.shadow_stats import ShadowComparison, ShadowOutcome

REJECTION_REASONS: dict[type[RequestError], str] = {
    Overloaded: "overloaded",
    NoModel: "no_model",
    DeadlinePassed: "deadline_passed",
}
"""Errors that `ctr_rejected_total` counts, by the value of its label."""


class RankingMetrics:
    """Counts why rankings are degraded, which requests were refused, and the outcomes of the shadow."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Count why a ranking is degraded and what the store did not know; this is a `RankObserver`."""
        metrics = self._metrics
        if ranking.degraded:
            for reason in ranking.degraded:
                metrics.degraded[reason].inc()
            for field in ranking.invalid_fields:
                metrics.features_invalid.labels("user", field).inc()
        if ranking.missing_user:
            metrics.features_missing["guest" if request.user_id is None else "user"].inc()
        if ranking.missing_items:
            metrics.features_missing["item"].inc(len(ranking.missing_items))

    def on_refused(self, error: RequestError) -> None:
        """Count a request that the service could not take; errors of the request itself are not counted here."""
        reason = REJECTION_REASONS.get(type(error))
        if reason is not None:
            self._metrics.rejected[reason].inc()

    def on_shadow_outcome(self, outcome: ShadowOutcome, comparison: ShadowComparison | None) -> None:
        """Count a request that was drawn for the shadow."""
        self._metrics.shadow_requests[outcome].inc()
        if comparison is not None:
            if comparison.ratio is not None:
                self._metrics.shadow_score_ratio.observe(comparison.ratio)
            if comparison.correlation is not None:
                self._metrics.shadow_rank_correlation.observe(comparison.correlation)


class MonitorExporter:
    """Adds to the metrics what a monitor has counted since the last export. One per process; from any thread."""

    def __init__(self, monitor: ModelMonitor, metrics: Metrics) -> None:
        self._monitor = monitor
        self._metrics = metrics
        self._lock = threading.Lock()
        self._exported: dict[tuple[str, int], tuple[ScoreStats, ScoreStats]] = {}
        """The monitor's own object for each label and version, and a copy of it as it was exported."""
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            exported = {}
            for (label, version), stats in self._monitor.stats().items():
                now, before = stats.copy(), self._exported.get((label, version))
                exported[label, version] = stats, now
                # The monitor evicts and begins again at zero: that is another object.
                self._add(label, version, now.since(before[1]) if before is not None and before[0] is stats else now)
            self._exported = exported

    def _add(self, label: str, version: int, new: ScoreStats) -> None:
        if new.errors:
            self._metrics.model_errors[str(version)].inc(new.errors)
        if new.non_finite:
            self._metrics.model_non_finite[str(version)].inc(new.non_finite)
        if new.sampled:
            starts = range(0, SUBDIVISIONS * len(SCORE_BOUNDS), SUBDIVISIONS)
            counts = [sum(new.counts[start : start + SUBDIVISIONS]) for start in starts]
            self._metrics.add_scores(label, [*counts, new.counts[-1]], new.total)


def export_click_interval(interval: ClickInterval | None, metrics: Metrics) -> None:
    """Show how a canary's clicks differ from stable's; not a number while nothing can be said."""
    low, middle, high = (
        (math.nan, math.nan, math.nan) if interval is None else (interval.low, interval.difference, interval.high)
    )
    for bound, value in (("low", low), ("estimate", middle), ("high", high)):
        metrics.canary_clicks.labels(bound).set(value)


class FieldDriftExporter:
    """Shows how the fields of stable were in the last window. One per process; from any thread."""

    def __init__(self, drift: FieldDrift, metrics: Metrics) -> None:
        self._drift = drift
        self._metrics = metrics
        self._shown: set[str] = set()
        metrics.sources.append(self.export)

    def export(self) -> None:
        states = self._drift.states()
        self._shown |= states.keys()
        for name in tuple(self._shown):
            psi, missing = states.get(name, (math.nan, math.nan))  # where stable is another version
            self._metrics.field_psi.labels(name).set(psi)
            self._metrics.field_missing.labels(name).set(missing)


class KeyUseExporter:
    """Adds to the metrics how often callers' keys were used since the last export. One per process; from any thread."""

    def __init__(self, keys: KnownKeys, metrics: Metrics) -> None:
        self._keys, self._metrics = keys, metrics
        self._lock = threading.Lock()
        self._exported = dict.fromkeys(keys.requests, 0)
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            for name, count in self._keys.requests.items():
                self._metrics.key_requests[name].inc(count - self._exported[name])
                self._exported[name] = count


class EventsExporter:
    """Adds to the metrics what an event log has written, lost and delivered since the last export. One per process."""

    def __init__(self, events: EventLog, metrics: Metrics) -> None:
        self._events = events
        self._metrics = metrics
        self._lock = threading.Lock()
        self._written: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._deliveries: Counter[str] = Counter()
        self._outcomes = Outcomes()
        # Begin at 0, and not with the first answers and clicks: what comes before a first scrape is no difference.
        metrics.expected_clicks.labels("", STABLE)
        metrics.feedback.labels("", STABLE, CLICK)
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            written, lost = Counter(self._events.written()), Counter(self._events.lost())
            for kind, count in (written - self._written).items():
                self._metrics.events_written[kind].inc(count)
            for kind, count in (lost - self._lost).items():
                self._metrics.events_lost[kind].inc(count)
            deliveries = Counter(self._events.deliveries())
            for outcome, count in (deliveries - self._deliveries).items():
                self._metrics.events_deliveries[outcome].inc(count)
            self._metrics.events_spool_bytes.set(self._events.spool_bytes())
            self._written, self._lost, self._deliveries = written, lost, deliveries
            self._export_outcomes(self._events.outcomes())

    def _export_outcomes(self, now: Outcomes) -> None:
        before, metrics = self._outcomes, self._metrics
        for arm, count in now.impressions.items():
            metrics.impressions.labels(*arm).inc(count - before.impressions[arm])
            metrics.expected_clicks.labels(*arm).inc(max(0.0, now.expected[arm] - before.expected[arm]))
        for named, count in now.feedback.items():
            metrics.feedback.labels(*named).inc(count - before.feedback[named])
        self._outcomes = now


class CalibrationExporter:
    """Adds to the metrics what buckets of scores have counted since the last export. One per process."""

    def __init__(self, buckets: CalibrationBuckets, metrics: Metrics) -> None:
        self._buckets = buckets
        self._counters = metrics.calibration_impressions, metrics.calibration_expected, metrics.calibration_clicks
        self._lock = threading.Lock()
        self._exported: dict[str, BucketTotals] = {}
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            totals = self._buckets.totals()
            for label, parts in totals.items():
                before = self._exported.get(label)
                for number, (counter, part) in enumerate(zip(self._counters, parts, strict=True)):
                    new = part if before is None else part - before[number]
                    for bucket in np.flatnonzero(parts.impressions).tolist():
                        counter.labels(label, BUCKET_NAMES[bucket]).inc(new[bucket])
            self._exported = totals


class CacheExporter:
    """Adds to the metrics what an item cache has counted since the last export. One per process; from any thread."""

    def __init__(self, counts: CacheCounts, metrics: Metrics) -> None:
        self._counts = counts
        self._metrics = metrics
        self._lock = threading.Lock()
        self._exported = CacheCounts()
        metrics.sources.append(self.export)

    def export(self) -> None:
        with self._lock:
            metrics, before = self._metrics, self._exported
            now = replace(self._counts, invalid_values=self._counts.invalid_values.copy())
            self._exported = now
            metrics.item_cache_hits.inc(now.hits - before.hits)
            metrics.item_cache_misses.inc(now.misses - before.misses)
            metrics.item_cache_invalidations.inc(now.invalidations - before.invalidations)
            for field, count in (now.invalid_values - before.invalid_values).items():
                metrics.features_invalid.labels("item", field).inc(count)
