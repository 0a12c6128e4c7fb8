"""Tests of what is exported, with one process and with several."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.observability.metrics import CANDIDATE_BOUNDS, SCORE_BOUNDS, SECOND_BOUNDS, STAGES, Metrics

CONTRACT = {
    "ctr_rank_requests_total": {"status", "version"},
    "ctr_rank_duration_seconds": set(),
    "ctr_stage_duration_seconds": {"stage"},
    "ctr_candidates": set(),
    "ctr_features_missing_total": {"entity"},
    "ctr_features_invalid_total": {"entity", "field"},
    "ctr_degraded_total": {"reason"},
    "ctr_item_cache_hits_total": set(),
    "ctr_item_cache_misses_total": set(),
    "ctr_item_cache_invalidations_total": set(),
    "ctr_model_info": {"version", "sha256"},
    "ctr_model_swaps_total": {"outcome"},
    "ctr_model_errors_total": {"version"},
    "ctr_model_non_finite_total": {"version"},
    "ctr_scores": {"label"},
    "ctr_canary_withdrawn_total": {"reason"},
    "ctr_shadow_requests_total": {"outcome"},
    "ctr_shadow_score_shift_ratio": set(),
    "ctr_shadow_rank_correlation": set(),
    "ctr_events_written_total": {"kind"},
    "ctr_events_lost_total": {"kind"},
    "ctr_events_deliveries_total": {"outcome"},
    "ctr_events_spool_bytes": set(),
    "ctr_impressions_total": {"version", "label"},
    "ctr_expected_clicks_total": {"version", "label"},
    "ctr_feedback_total": {"version", "label", "type"},
    "ctr_key_requests_total": {"key"},
    "ctr_admin_actions_total": {"action", "outcome"},
    "ctr_admin_keys_refused_total": set(),
    "ctr_inflight_requests": set(),
    "ctr_rejected_total": {"reason"},
    "ctr_connections": set(),
    "ctr_connections_refused_total": {"reason"},
}
STAGES_S = (0.0001, 0.0005, 0.00051, 0.002, 7.0)


def samples(metrics: Metrics | bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    body = metrics if isinstance(metrics, bytes) else metrics.render()[0]
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics | bytes, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def use_everything(metrics: Metrics) -> None:
    metrics.observe_request(STAGES_S, 0.0123, 500, 7)
    metrics.features_missing["user"].inc()
    metrics.features_invalid.labels("item", "year").inc()
    metrics.degraded["stale_item_features"].inc()
    metrics.item_cache_hits.inc(490)
    metrics.item_cache_misses.inc(10)
    metrics.item_cache_invalidations.inc()
    metrics.set_models([(7, "ab")])
    metrics.model_swaps["live"].inc()
    metrics.model_errors["7"].inc()
    metrics.admin_actions.labels("promote", "done").inc()
    metrics.key_requests["shop"].inc()
    metrics.model_non_finite["7"].inc()
    metrics.add_scores("canary", [0] * len(SCORE_BOUNDS) + [1], 0.995)
    metrics.impressions.labels("7", "stable").inc(50)
    metrics.expected_clicks.labels("7", "stable").inc(3.5)
    metrics.feedback.labels("7", "stable", "click").inc()
    metrics.rejected["overloaded"].inc()
    metrics.connections_refused["full"].inc()


def test_exports_the_names_and_labels_of_the_contract_and_no_others() -> None:
    metrics = Metrics()
    use_everything(metrics)
    found: dict[str, set[str]] = {}
    for name, labels in samples(metrics):
        base = name
        for suffix in ("_bucket", "_sum", "_count"):
            base = base.removesuffix(suffix)
        found.setdefault(base, set()).update(label for label, _ in labels if label != "le")
    assert found == CONTRACT


def test_a_request_lands_in_the_right_buckets() -> None:
    metrics = Metrics()
    metrics.observe_request(STAGES_S, 0.0005, 500, 7)
    metrics.observe_request(STAGES_S, math.nextafter(0.0005, 1), 501, 7)
    found = samples(metrics)

    def buckets(name: str, **labels: str) -> list[float]:
        """Return how many observations each bucket adds to the one before."""
        bounds = [*(SECOND_BOUNDS if "seconds" in name else CANDIDATE_BOUNDS), math.inf]
        cumulative = {
            float(dict(key_labels)["le"]): count
            for (key, key_labels), count in found.items()
            if key == name + "_bucket" and labels.items() <= dict(key_labels).items()
        }
        counts = [cumulative[bound] for bound in bounds]
        return [after - before for before, after in zip([0.0, *counts], counts, strict=False)]

    assert min(SECOND_BOUNDS) == 0.0005
    duration = buckets("ctr_rank_duration_seconds")
    assert (duration[0], duration[1], sum(duration)) == (1, 1, 2), "a bound belongs to its own bucket"
    ranked = buckets("ctr_candidates")
    assert ranked[CANDIDATE_BOUNDS.index(500)] == 1
    assert ranked[CANDIDATE_BOUNDS.index(1000)] == 1
    for stage, index in zip(STAGES, (0, 0, 1, SECOND_BOUNDS.index(0.002), len(SECOND_BOUNDS)), strict=True):
        counts = buckets("ctr_stage_duration_seconds", stage=stage)
        assert (counts[index], sum(counts)) == (2, 2), stage
    assert found["ctr_stage_duration_seconds_sum", frozenset({("stage", "respond")})] == pytest.approx(14.0)
    assert found["ctr_rank_duration_seconds_count", frozenset()] == 2


def test_nothing_is_counted_twice_by_two_scrapes() -> None:
    metrics = Metrics()
    use_everything(metrics)
    assert samples(metrics) == samples(metrics)
    metrics.observe_request(STAGES_S, 0.1, 5, 7)
    assert value(metrics, "ctr_rank_requests_total", status="200", version="7") == 2


def test_every_request_is_counted_however_many_there_are_between_two_scrapes() -> None:
    metrics = Metrics()
    for number in range(1, 1001):
        metrics.observe_request(STAGES_S, 0.001 * number, number, number % 2)
        if number in (1, 63, 64, 65, 500, 1000):
            assert value(metrics, "ctr_rank_duration_seconds_count") == number
            assert value(metrics, "ctr_candidates_sum") == number * (number + 1) / 2
            assert value(metrics, "ctr_stage_duration_seconds_count", stage="respond") == number
    assert value(metrics, "ctr_rank_requests_total", status="200", version="1") == 500
    assert value(metrics, "ctr_rank_duration_seconds_sum") == pytest.approx(500.5)


def test_a_refused_request_has_no_version_and_no_duration() -> None:
    metrics = Metrics()
    metrics.count_answer(422)
    assert value(metrics, "ctr_rank_requests_total", status="422", version="") == 1
    assert value(metrics, "ctr_rank_duration_seconds_count") == 0


def test_a_version_that_is_no_longer_live_is_0() -> None:
    metrics = Metrics()
    metrics.set_models([(7, "ab"), (8, "cd")])
    metrics.set_models([(8, "cd"), (9, "ef")])
    live = [value(metrics, "ctr_model_info", version=v, sha256=s) for v, s in (("7", "ab"), ("8", "cd"), ("9", "ef"))]
    assert live == [0, 1, 1]


def test_sources_are_asked_before_each_export() -> None:
    metrics = Metrics()
    inflight = [3, 5]
    metrics.sources.append(lambda: metrics.inflight_requests.set(inflight.pop(0)))
    assert value(metrics, "ctr_inflight_requests") == 3
    assert value(metrics, "ctr_inflight_requests") == 5


def test_a_known_entity_is_exported_as_0_before_its_first_event() -> None:
    assert value(Metrics(), "ctr_features_missing_total", entity="item") == 0


def test_two_sets_of_metrics_are_independent() -> None:
    first, second = Metrics(), Metrics()
    use_everything(first)
    assert value(second, "ctr_item_cache_hits_total") == 0


def test_nothing_is_lost_between_threads() -> None:
    metrics = Metrics()
    stop = threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            metrics.render()

    def rank() -> None:
        for _ in range(2000):
            metrics.observe_request(STAGES_S, 0.001, 10, 1)

    scraper = threading.Thread(target=scrape)
    rankers = [threading.Thread(target=rank) for _ in range(3)]
    for thread in (scraper, *rankers):
        thread.start()
    for thread in rankers:
        thread.join()
    stop.set()
    scraper.join()
    assert value(metrics, "ctr_candidates_sum") == 60_000
    assert value(metrics, "ctr_rank_requests_total", status="200", version="1") == 6000


WORKER = """
import asyncio, sys
from app.observability.metrics import Metrics
metrics = Metrics()
assert metrics.multiprocess
for _ in range(int(sys.argv[1])):
    metrics.observe_request((0.001,) * 5, 0.005, 100, 7)
metrics.item_cache_hits.inc(10)
metrics.set_models([(7, "ab")])
metrics.inflight_requests.set(2)

async def serve():
    flushing = asyncio.create_task(metrics.keep_flushing())
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)

asyncio.run(serve())
print("ready", flush=True)
sys.stdin.read()
"""
SCRAPER = """
import sys
from app.observability.all_processes import drop_worker
from app.observability.metrics import Metrics
for pid in sys.argv[1:]:
    drop_worker(int(pid))
sys.stdout.buffer.write(Metrics().render()[0])
"""


def scraped(environment: dict[str, str], *dead: int) -> bytes:
    arguments = [sys.executable, "-c", SCRAPER, *map(str, dead)]
    return subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=600).stdout


def test_several_processes_are_summed_and_a_dead_one_keeps_its_counts_alone(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(requests)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for requests in (3, 4)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        both = scraped(environment)
        assert value(both, "ctr_rank_requests_total", status="200", version="7") == 7
        assert value(both, "ctr_stage_duration_seconds_count", stage="score") == 7
        assert value(both, "ctr_candidates_sum") == 700
        assert value(both, "ctr_item_cache_hits_total") == 20
        assert value(both, "ctr_inflight_requests") == 4
        assert value(both, "ctr_model_info", version="7", sha256="ab") == 1
        workers[0].communicate("")
        one = scraped(environment, workers[0].pid)
        assert value(one, "ctr_inflight_requests") == 2
        assert value(one, "ctr_rank_requests_total", status="200", version="7") == 7
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
