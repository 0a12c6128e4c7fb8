"""`Metrics`: every Prometheus metric of one process.

No method is called per item. What every request adds is queued, counted some requests at a time in plain Python
numbers (`HistogramBuffer`), and handed to prometheus_client on a scrape, or each second where several processes share
their metrics through files. Measured per request with five stages on one core: 1.1 us, against 12 us (21 us through
files) with `Histogram.observe` and `Counter.labels().inc()`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter as Count
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)

from app.observability.all_processes import render_all_processes
from app.observability.buffers import HistogramBuffer, LabelledCounter, add_observations

STAGES = ("decode", "features", "encode", "score", "respond")
"""The stages of a request: each name is a metric label, a `Server-Timing` entry and a row of the load test."""

SECOND_BOUNDS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SCORE_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
RATIO_BOUNDS = (0.25, 0.5, 0.67, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0)
CORRELATION_BOUNDS = (-0.5, 0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
CANDIDATE_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
FLUSH_EVERY_S = 1.0
MAX_PENDING = 64
"""Requests counted together; with more of them, the request that has them counted would be delayed noticeably."""


class Metrics:
    """Every metric of one process: one object, built at its start, safe to use from any thread.

    The hot path calls `observe_request` and `count_answer`. All other metrics are prometheus_client objects to use
    directly, those with one label by `[label]`.

    With several processes, PROMETHEUS_MULTIPROC_DIR must name an empty folder before prometheus_client is first
    imported. Each process then runs `keep_flushing`, any of them can render the sum of all, and their parent calls
    `drop_worker` (`app.observability.all_processes`) for one that ended.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.multiprocess = values.ValueClass is not values.MutexValue

        self.rank_requests = self._counter("ctr_rank_requests", "Answers of POST /rank", "status", "version")
        self.rank_duration = self._histogram(
            "ctr_rank_duration_seconds", "Time to answer /rank with 200", SECOND_BOUNDS
        )
        self.stage_duration = self._histogram("ctr_stage_duration_seconds", "The same by stage", SECOND_BOUNDS, "stage")
        self.candidates = self._histogram("ctr_candidates", "Candidates ranked in a request", CANDIDATE_BOUNDS)
        self.features_missing = LabelledCounter(
            self._counter("ctr_features_missing", "Users and items without stored features, and guests", "entity"),
            ("user", "item", "guest"),
        )
        self.features_invalid = self._counter(
            "ctr_features_invalid",
            "Stored values that no slot can hold, or too large, read as missing",
            "entity",
            "field",
        )
        self.degraded = LabelledCounter(self._counter("ctr_degraded", "Answers less than full, by reason", "reason"))
        self.item_cache_hits = self._counter("ctr_item_cache_hits", "Candidates found in the item cache")
        self.item_cache_misses = self._counter("ctr_item_cache_misses", "Candidates read from the store")
        self.item_cache_invalidations = self._counter(
            "ctr_item_cache_invalidations", "Cached items the store reported as changed"
        )
        self.model_info = Gauge(
            "ctr_model_info",
            "1 for each version that is live, 0 for those that were",
            ("version", "sha256"),
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self.model_swaps = LabelledCounter(
            self._counter("ctr_model_swaps", "Changes of what is live, by outcome", "outcome")
        )
        self.inflight_requests = Gauge(
            "ctr_inflight_requests", "Requests at work", registry=self._registry, multiprocess_mode="livesum"
        )
        self.rejected = LabelledCounter(
            self._counter("ctr_rejected", "Requests refused before any work, by reason", "reason")
        )
        self.connections = Gauge(
            "ctr_connections", "Open connections", registry=self._registry, multiprocess_mode="livesum"
        )
        self.connections_refused = LabelledCounter(
            self._counter("ctr_connections_refused", "Connections ended before a request could be read", "reason"),
            ("not_http", "head_too_large", "head_too_slow", "silent", "evicted", "full", "address"),
        )

        self.model_errors = LabelledCounter(
            self._counter("ctr_model_errors", "Requests a version failed to score; stable answered them", "version")
        )
        self.model_non_finite = LabelledCounter(
            self._counter("ctr_model_non_finite", "Answers in which a score was not a number", "version")
        )
        # By label, of which there are four: by version, each one that was ever live would cost 14 KB (measured).
        self.scores = self._histogram("ctr_scores", "Scores sampled of the answers", SCORE_BOUNDS, "label")
        self.canary_withdrawn = LabelledCounter(
            self._counter("ctr_canary_withdrawn", "Canaries taken out for what they did, by reason", "reason"),
            ("errors", "finite", "shift", "drift", "clicks"),
        )
        self.canary_clicks = Gauge(
            "ctr_canary_click_difference_ratio",
            "A canary's clicks per request less stable's, over those of both: estimate, and bounds of the interval",
            ("bound",),
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )
        self.shadow_requests = LabelledCounter(
            self._counter("ctr_shadow_requests", "Requests drawn for the shadow, by outcome", "outcome"),
            ("compared", "skipped", "failed"),
        )
        # A ratio and no difference: with negative observations the sum could fall, and no rate be taken of it.
        self.shadow_score_ratio = self._histogram(
            "ctr_shadow_score_shift_ratio", "Mean score of the shadow over that of the answer", RATIO_BOUNDS
        )
        self.shadow_rank_correlation = self._histogram(
            "ctr_shadow_rank_correlation",
            "Agreement of the shadow's order with the answer's (Spearman)",
            CORRELATION_BOUNDS,
        )

        self.events_written = LabelledCounter(
            self._counter("ctr_events_written", "Records of the event log that were written, by kind", "kind"),
            ("items", "impressions", "feedback"),
        )
        self.events_lost = LabelledCounter(
            self._counter("ctr_events_lost", "Records of the event log that there was no room for, by kind", "kind"),
            ("items", "impressions", "feedback"),
        )

        self.events_deliveries = LabelledCounter(
            self._counter(
                "ctr_events_deliveries",
                "Files of the event log delivered to its bucket or stream, by outcome",
                "outcome",
            ),
            ("delivered", "failed"),
        )
        self.events_spool_bytes = Gauge(
            "ctr_events_spool_bytes",
            "Size of what waits to be delivered",
            registry=self._registry,
            multiprocess_mode="livemax",
        )

        self.impressions = self._counter(
            "ctr_impressions", "Items of recorded answers, by version and label", "version", "label"
        )
        self.expected_clicks = self._counter(
            "ctr_expected_clicks", "The sum of their click probabilities", "version", "label"
        )
        self.feedback = self._counter(
            "ctr_feedback", "Feedback by the version and label that it is on, and its type", "version", "label", "type"
        )

        by_score = "label", "bucket"
        self.calibration_impressions = self._counter(
            "ctr_calibration_impressions", "Items of a sample of the answers, by the logit of their score", *by_score
        )
        self.calibration_expected = self._counter(
            "ctr_calibration_expected_clicks", "The sum of their click probabilities", *by_score
        )
        self.calibration_clicks = self._counter(
            "ctr_calibration_clicks", "Clicks on them that came to the process which gave the answer", *by_score
        )

        self.field_psi = self._field_gauge(
            "ctr_field_psi", "How far a field's values are from those of training: population stability index"
        )
        self.field_missing = self._field_gauge("ctr_field_missing_ratio", "Share of a field's values that are missing")

        self.key_requests = LabelledCounter(
            self._counter("ctr_key_requests", "Requests by the name of their API key", "key")
        )
        self.admin_actions = self._counter("ctr_admin_actions", "Admin actions over HTTP", "action", "outcome")
        self.admin_keys_refused = self._counter("ctr_admin_keys_refused", "Admin requests without the right key")

        self.sources: list[Callable[[], None]] = []
        """Called before each export, on any thread, so that others can hand over what they counted themselves."""
        self._lock = threading.Lock()
        self._answers: Count[tuple[int, int | None]] = Count()
        self._pending: deque[tuple[tuple[int, int | None], float, int, Sequence[float]]] = deque()
        self._durations = HistogramBuffer(self.rank_duration, SECOND_BOUNDS)
        self._candidates = HistogramBuffer(self.candidates, CANDIDATE_BOUNDS)
        self._stages = [HistogramBuffer(self.stage_duration.labels(stage), SECOND_BOUNDS) for stage in STAGES]
        self._models: set[tuple[str, str]] = set()

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self._registry)

    def _field_gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, ("field",), registry=self._registry, multiprocess_mode="livemax")

    def _histogram(self, name: str, help_text: str, bounds: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=bounds, registry=self._registry)

    def observe_request(
        self, stages_s: Sequence[float], total_s: float, candidates: int, version: int | None, status: int = 200
    ) -> None:
        """Count one ranked request.

        Args:
            stages_s: seconds per stage, in the order of `STAGES`.
            total_s: seconds from the body's last byte read to the answer's last byte handed over.
            candidates: distinct items ranked.
            version: number of the version that answered.
        """
        self._pending.append(((status, version), total_s, candidates, stages_s))
        if len(self._pending) >= MAX_PENDING:
            with self._lock:
                self._count_pending()

    def _count_pending(self) -> None:
        """Count the pending requests. The caller holds the lock; other threads may go on appending."""
        pending = [self._pending.popleft() for _ in range(len(self._pending))]
        if pending:
            answers, totals, candidates, stages = zip(*pending, strict=True)
            self._answers.update(answers)
            self._durations.add(totals)
            self._candidates.add(candidates)
            for buffer, seconds in zip(self._stages, zip(*stages, strict=True), strict=True):
                buffer.add(seconds)

    def count_answer(self, status: int, version: int | None = None) -> None:
        """Count a request that was not ranked; its duration would say nothing about ranking, so none is observed."""
        with self._lock:
            self._answers[status, version] += 1

    def set_models(self, live: Iterable[tuple[int, str]]) -> None:
        """Export the (version, SHA-256) pairs that are live in this process."""
        now = {(str(version), sha256) for version, sha256 in live}
        for retired in self._models - now:
            self.model_info.labels(*retired).set(0)
        for model in now:
            self.model_info.labels(*model).set(1)
        self._models |= now

    def add_scores(self, label: str, counts: Sequence[int], total: float) -> None:
        """Add sampled scores of one label.

        Args:
            counts: scores by bucket of `SCORE_BOUNDS`, and one more count for those above.
            total: their sum.
        """
        add_observations(self.scores.labels(label), counts, total)

    def flush(self) -> None:
        """Hand everything that was counted to prometheus_client; takes about 0.1 ms."""
        for source in self.sources:
            source()
        with self._lock:
            self._count_pending()
            for (status, version), count in self._answers.items():
                self.rank_requests.labels(str(status), "" if version is None else str(version)).inc(count)
            self._answers.clear()
            for buffer in (self._durations, self._candidates, *self._stages):
                buffer.flush()

    async def keep_flushing(self) -> None:
        """Flush each second until cancelled, and once more then. Return at once if there is only one process."""
        if not self.multiprocess:
            return
        try:
            while True:
                await asyncio.sleep(FLUSH_EVERY_S)
                self.flush()
        finally:
            self.flush()

    def render(self) -> tuple[bytes, str]:
        """Return the body and the content type of `GET /metrics`, for all processes.

        What other processes counted may be a second old. With several processes it takes milliseconds: call it on a
        thread.
        """
        self.flush()
        if not self.multiprocess:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        return render_all_processes(), CONTENT_TYPE_LATEST
