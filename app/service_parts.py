"""Builds the parts of a process that take some lines to build, for `app.service` to tie together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import torch

from app.api.load_shedder import LoadShedder
from app.errors import ConfigError, RequestError
from app.events.event_log import EventLog
from app.events.hashed_id import hashed_id
from app.events.item_references import ItemReferences
from app.features.cluster_store import ClusterFeatureStore
from app.features.item_cache import ItemCache
from app.features.redis_store import RedisFeatureStore
from app.features.store import FeatureStore
from app.observability.metrics import Metrics
from app.ranking.admission import Admission
from app.ranking.calibration_buckets import MAX_TOP, CalibrationBuckets
from app.ranking.canary import CanaryFailure, CanaryLimits
from app.ranking.click_trial import ClickTrial
from app.ranking.field_drift import FieldDrift
from app.ranking.impressions import ImpressionLog
from app.ranking.metric_exporters import (
    CalibrationExporter,
    FieldDriftExporter,
    MonitorExporter,
    RankingMetrics,
    export_click_interval,
)
from app.ranking.monitor import ModelMonitor
from app.ranking.shared_click_rates import FOLDER, SharedClickRates
from app.ranking.warmup import Warmup
from app.redis_url import parse_redis_url
from app.registry.gate.gate_report import WITHDRAWN, GateCheck
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.lifecycle.snapshot import SwapEvent
from app.registry.store.model_store import ModelStore
from app.runtime.connections import ConnectionLimits, Connections
from app.settings import Settings


def build_connections(settings: Settings, metrics: Metrics) -> Connections:
    """Build what bounds connections, whose refusals are counted."""
    limits = ConnectionLimits(
        total=settings.max_connections,
        per_address=settings.max_connections_per_address,
        header_timeout_s=settings.header_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        trusted_proxies=settings.trusted_proxies,
    )
    connections = Connections(limits, on_refused=lambda reason: metrics.connections_refused[reason].inc())
    metrics.sources.append(lambda: metrics.connections.set(len(connections)))
    return connections


def choose_device(settings: Settings) -> torch.device:
    """Return the device to score on. Raises ConfigError if it is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CTR_DEVICE=cuda, but torch sees no CUDA device; install a CUDA build of torch or use cpu")
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


def build_redis_store(settings: Settings) -> FeatureStore:
    """Build the source of features that CTR_REDIS_URL names. Raises ConfigError if it names none."""
    if not settings.redis_url:
        raise ConfigError("CTR_REDIS_URL is empty: set it, or start with `ctr serve`, which brings its own Valkey")
    of_cluster = bool(parse_redis_url(settings.redis_url).cluster_nodes)
    return (ClusterFeatureStore if of_cluster else RedisFeatureStore)(
        settings.redis_url,
        settings.user_key,
        settings.item_key,
        timeout_s=settings.redis_timeout_ms / 1000,
        item_max_age_s=settings.item_max_age_s,
    )


def build_load_shedder(admission: Admission, metrics: Metrics, ranking_metrics: RankingMetrics) -> LoadShedder:
    """Build the load shedder, whose refusals are counted as the application's are."""

    def on_refused(error: RequestError) -> None:
        ranking_metrics.on_refused(error)
        metrics.count_answer(error.status)

    return LoadShedder(admission, on_refused)


def build_lifecycle(
    settings: Settings, model_store: ModelStore, warmup: Warmup, metrics: Metrics, device: torch.device
) -> Lifecycle:
    """Build the lifecycle, which warms versions up and exports what it does."""

    def export(event: SwapEvent) -> None:
        metrics.model_swaps[event.outcome].inc()
        metrics.set_models((artifact.version, artifact.program_sha256) for artifact in lifecycle.live.labels().values())

    lifecycle = Lifecycle(
        model_store,
        prepare=warmup.prepare,
        retire=warmup.retire,
        on_event=export,
        device=str(device),
        poll_s=settings.poll_s,
    )
    return lifecycle


def build_withdrawal(lifecycle: Lifecycle, metrics: Metrics) -> Callable[[int, CanaryFailure], None]:
    """Build what has the lifecycle withdraw a canary, to be called with its version on the event loop's thread."""
    withdrawals: set[asyncio.Task[None]] = set()

    def withdraw(version: int, failure: CanaryFailure) -> None:
        metrics.canary_withdrawn[failure.reason].inc()
        check = GateCheck(WITHDRAWN, False, failure.reason, failure.detail, failure.figures, comparison=True)
        task = asyncio.create_task(lifecycle.withdraw(version, check), name="canary-withdrawal")
        withdrawals.add(task)  # the event loop itself holds tasks weakly
        task.add_done_callback(withdrawals.discard)

    return withdraw


def build_monitor(
    settings: Settings, lifecycle: Lifecycle, metrics: Metrics, withdraw: Callable[[int, CanaryFailure], None]
) -> ModelMonitor:
    """Build the monitor, which has a canary withdrawn that crosses a limit."""
    limits = CanaryLimits(
        min_requests=settings.canary_min_requests,
        error_rate=settings.canary_error_rate,
        non_finite_rate=settings.canary_non_finite_rate,
        ctr_ratio=settings.canary_ctr_ratio,
        drift=settings.canary_drift,
    )
    monitor = ModelMonitor(lambda: lifecycle.live, limits if settings.canary_guard else None, withdraw)
    MonitorExporter(monitor, metrics)
    return monitor


def build_click_trial(
    settings: Settings,
    events: EventLog,
    lifecycle: Lifecycle,
    metrics: Metrics,
    withdraw: Callable[[int, CanaryFailure], None],
) -> ClickTrial:
    """Build what has a canary withdrawn that gets fewer clicks than stable, by what all workers here have counted."""
    trial = ClickTrial(
        lambda: lifecycle.live,
        settings.canary_click_error,
        withdraw if settings.canary_guard else lambda version, failure: None,
        SharedClickRates(events.folder / FOLDER),
    )
    events.observe(trial.add)
    metrics.sources.append(lambda: export_click_interval(trial.interval(), metrics))
    return trial


def build_calibration_buckets(settings: Settings, events: EventLog, metrics: Metrics) -> CalibrationBuckets:
    """Build what counts answers and clicks by score; `events` tells it of what is written."""
    buckets = CalibrationBuckets(min(settings.events_top, MAX_TOP))
    events.observe(buckets.add)
    CalibrationExporter(buckets, metrics)
    return buckets


def build_field_drift(
    settings: Settings, events: EventLog, lifecycle: Lifecycle, cache: ItemCache, metrics: Metrics
) -> FieldDrift:
    """Build what compares the fields that are scored with those of training."""
    drift = FieldDrift(lambda: lifecycle.live, cache, settings.events_top)
    events.observe(drift.add)
    FieldDriftExporter(drift, metrics)
    return drift


def build_impression_log(
    settings: Settings, events: EventLog, references: ItemReferences, cache: ItemCache
) -> ImpressionLog:
    """Build what records rankings, which looks at rows of the item cache before they change."""
    key = settings.events_id_key.get_secret_value() if settings.events_id_key else ""
    impressions = ImpressionLog(
        events.queue,
        references,
        settings.events_top,
        events.put_schema,
        (lambda user_id: hashed_id(user_id, key)) if key else str,
    )
    cache.before_change = impressions.record_noted
    return impressions
