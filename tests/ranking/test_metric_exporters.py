"""Tests that what the ranking core counts reaches the metrics once."""

from __future__ import annotations

import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.errors import DeadlinePassed, NoModel, NotJson, Overloaded
from app.events.outcome_counts import OutcomeCounts
from app.features.cache_counts import CacheCounts
from app.observability.metrics import Metrics
from app.ranking.metric_exporters import CacheExporter, EventsExporter, MonitorExporter, RankingMetrics
from app.ranking.monitor import MAX_COUNTED, ModelMonitor
from app.ranking.request import RankRequest
from app.ranking.shadow_stats import ShadowComparison
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.events.records import blocks, impression


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_what_the_monitor_counted_is_exported_once(metrics: Metrics) -> None:
    monitor = ModelMonitor(LiveSnapshot)
    exporter = MonitorExporter(monitor, metrics)
    for _ in range(3):
        monitor.record_answer("canary", 2, np.array([0.995, 0.45, 0.4, 0.0], np.float32))
    monitor.record_answer("canary", 2, np.zeros(4, np.float32), finite=False)
    monitor.record_failure("canary", 2)
    for _ in range(2):
        text = metrics.render()[0].decode()
        assert 'ctr_scores_count{label="canary"} 12.0' in text
        assert 'ctr_scores_bucket{label="canary",le="0.001"} 3.0' in text
        assert 'ctr_scores_bucket{label="canary",le="0.4"} 3.0' in text, "0.4 in float32 is more than 0.4"
        assert 'ctr_scores_bucket{label="canary",le="0.5"} 9.0' in text
        assert 'ctr_model_errors_total{version="2"} 1.0' in text
        assert 'ctr_model_non_finite_total{version="2"} 1.0' in text
    total = float(re.findall(r'ctr_scores_sum\{label="canary"\} (\S+)', text)[0])
    assert total == pytest.approx(3 * (0.995 + 0.45 + 0.4))
    for version in range(3, 3 + MAX_COUNTED):  # evicts the canary, which is no longer live
        monitor.record_failure("stable", version)
    monitor.record_answer("canary", 2, np.array([0.5], np.float32))
    exporter.export()
    assert 'ctr_scores_count{label="canary"} 13.0' in metrics.render()[0].decode()


def test_what_the_cache_counted_is_exported_once(metrics: Metrics) -> None:
    counts = CacheCounts(hits=5)
    CacheExporter(counts, metrics)
    counts.misses += 7
    for _ in range(2):
        text = metrics.render()[0].decode()
        assert "ctr_item_cache_hits_total 5.0" in text
        assert "ctr_item_cache_misses_total 7.0" in text
        assert "ctr_features_invalid_total{" not in text
    counts.hits, counts.invalidations = 6, 2
    counts.invalid_values.update(year=3, genres=1)
    text = metrics.render()[0].decode()
    assert "ctr_item_cache_hits_total 6.0" in text
    assert "ctr_item_cache_invalidations_total 2.0" in text
    assert 'ctr_features_invalid_total{entity="item",field="year"} 3.0' in text
    counts.invalid_values["year"] += 1
    text = metrics.render()[0].decode()
    assert 'ctr_features_invalid_total{entity="item",field="year"} 4.0' in text
    assert 'ctr_features_invalid_total{entity="item",field="genres"} 1.0' in text


def test_comparisons_with_the_shadow_are_exported(metrics: Metrics) -> None:
    exported = RankingMetrics(metrics)
    for comparison in ((0.2, 0.3, 0.9), (0.4, 0.2, -0.7), (0.0, 0.0, None)):
        exported.on_shadow_outcome("compared", ShadowComparison(*comparison))
    exported.on_shadow_outcome("skipped", None)
    text = metrics.render()[0].decode()
    assert 'ctr_shadow_requests_total{outcome="compared"} 3.0' in text
    assert 'ctr_shadow_requests_total{outcome="skipped"} 1.0' in text
    assert "ctr_shadow_score_shift_ratio_count 2.0" in text
    assert float(re.findall(r"ctr_shadow_score_shift_ratio_sum (\S+)", text)[0]) == pytest.approx(2.0)
    assert "ctr_shadow_rank_correlation_count 2.0" in text
    assert 'ctr_shadow_rank_correlation_bucket{le="-0.5"} 1.0' in text


def test_requests_that_the_service_could_not_take_are_counted_by_reason(metrics: Metrics) -> None:
    exported = RankingMetrics(metrics)
    for error in (Overloaded(), Overloaded(), NoModel(), DeadlinePassed(), NotJson()):
        exported.on_refused(error)
    text = metrics.render()[0].decode()
    counts = re.findall(r'ctr_rejected_total\{reason="(\w+)"\} (\S+)', text)
    assert sorted(counts) == [("deadline_passed", "1.0"), ("no_model", "1.0"), ("overloaded", "2.0")]


def test_guests_are_counted_apart_from_unknown_users(metrics: Metrics) -> None:
    ranking: Any = SimpleNamespace(degraded=[], missing_user=True, missing_items=[])
    observer = RankingMetrics(metrics)
    for user_id in ("nobody", None, None):
        observer.on_ranked(RankRequest(user_id, ["1"]), ranking)
    text = metrics.render()[0].decode()
    found = dict(re.findall(r'ctr_features_missing_total\{entity="(\w+)"\} (\S+)', text))
    assert found == {"user": "1.0", "item": "0.0", "guest": "2.0"}


def test_what_the_event_log_counted_is_exported_once_and_begins_at_nothing(metrics: Metrics) -> None:
    counted = OutcomeCounts()
    log: Any = SimpleNamespace(
        written=Counter, lost=Counter, deliveries=Counter, spool_bytes=int, outcomes=counted.totals
    )
    EventsExporter(log, metrics)
    text = metrics.render()[0].decode()
    assert 'ctr_expected_clicks_total{label="stable",version=""} 0.0' in text
    assert 'ctr_feedback_total{label="stable",type="click",version=""} 0.0' in text
    counted.add(blocks([impression(1, items=3), impression(2, items=3)]))
    for _ in range(2):
        text = metrics.render()[0].decode()
        assert 'ctr_impressions_total{label="stable",version="7"} 6.0' in text
        assert 'ctr_expected_clicks_total{label="stable",version="7"} 3.0' in text
