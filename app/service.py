"""The composition root: builds the parts of one process, ties them together and owns their lives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
import torch

from app.api.admin_actions import Admin
from app.api.load_shedder import LoadShedder
from app.api.service_state import FeatureStatus
from app.errors import ConfigError, RequestError
from app.events.event_log import EventLog
from app.events.item_references import ItemReferences
from app.features.cache_refresher import CacheRefresher
from app.features.cluster_store import ClusterFeatureStore
from app.features.item_cache import ItemCache
from app.features.item_rows import UNKNOWN_DIVISOR
from app.features.redis_store import RedisFeatureStore
from app.features.store import FeatureStore
from app.observability.metrics import Metrics
from app.publishing.isolated_actions import IsolatedActions
from app.ranking.admission import Admission
from app.ranking.batcher import Batcher
from app.ranking.canary import CanaryFailure, CanaryLimits
from app.ranking.fallback import Fallback
from app.ranking.impressions import ImpressionLog
from app.ranking.metric_exporters import CacheExporter, EventsExporter, MonitorExporter, RankingMetrics
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranker
from app.ranking.service import RankService
from app.ranking.shadow import Shadow
from app.ranking.warmup import Warmup
from app.redis_url import parse_redis_url
from app.registry.gate.gate_report import WITHDRAWN, GateCheck
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.lifecycle.snapshot import SwapEvent
from app.registry.store.model_store import ModelStore
from app.runtime.busy_poll import BusyPoll
from app.runtime.connections import ConnectionLimits, Connections
from app.runtime.loop_pacer import SliceTurns
from app.settings import Settings

log = structlog.get_logger(__name__)

TRACKED_MAX_AGE_S = 600.0
"""Greatest age of a cached item, unless a setting says otherwise: a store that reports changes reports nearly all."""


@dataclass
class Service:
    """Everything one process runs; `app.state.service` of the FastAPI application."""

    settings: Settings
    metrics: Metrics
    model_store: ModelStore
    lifecycle: Lifecycle
    store: FeatureStore
    cache: ItemCache
    refresher: CacheRefresher
    ranking: RankService
    monitor: ModelMonitor
    shadow: Shadow
    load_shedder: LoadShedder
    connections: Connections
    events: EventLog | None = None
    """Records answers and feedback; None where CTR_EVENTS is empty."""
    isolated_actions: IsolatedActions | None = None
    """Carries out the admin's actions; None where no admin key is set, like `admin`."""
    admin: Admin | None = None
    draining: bool = False
    """Whether the process is about to stop, so that no more traffic should be sent to it."""

    async def start(self) -> None:
        """Start the store first, so that the first model is prepared with features. Neither has to be there."""
        if self.events is not None:
            self.events.start()
        await self.store.start(self.cache)
        await self.lifecycle.start()
        self.refresher.start()
        if self.lifecycle.live.stable is None:
            log.warning("no_model_live", folder=str(self.model_store.folder), hint="publish one: ctr train --publish")

    async def stop(self) -> None:
        if self.isolated_actions is not None:
            self.isolated_actions.stop()
        await self.shadow.stop()
        await self.refresher.stop()
        await self.lifecycle.stop()
        await self.store.stop()
        if self.events is not None:
            await asyncio.to_thread(self.events.stop)

    def feature_status(self) -> FeatureStatus:
        status = self.store.status()
        return FeatureStatus(status.connected, status.problem or status.detail, len(self.cache), not status.problem)


def build_service(settings: Settings, store: FeatureStore | None = None) -> Service:
    """Build every part of one process; nothing is connected, loaded or started yet.

    Args:
        store: source of features; by default the Redis or Valkey at `settings.redis_url`.

    Raises:
        ConfigError: the settings name no store, a device that is not there, or keys that cannot be read.
    """
    device = _device(settings)
    metrics = Metrics()
    store = _redis_store(settings) if store is None else store
    # At least the candidates of two requests fit in; in a smaller cache nearly every request would read its items.
    least = 2 * settings.max_candidates
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    cache = ItemCache(
        max(settings.item_cache_size, least),
        unknown_capacity=max(settings.item_cache_size // UNKNOWN_DIVISOR, least),
        device=device,
        dtype=dtype,
        aged=settings.item_max_age_s is not None,
    )
    CacheExporter(cache.counts, metrics)
    refresher = CacheRefresher(
        store, cache, fill=settings.item_cache_warm, max_age_s=settings.item_max_age_s or TRACKED_MAX_AGE_S
    )
    poll = BusyPoll(settings.busy_poll_us / 1e6)
    warmup = Warmup(store, cache, refresher, max_candidates=settings.max_candidates, worked_s=poll.worked_s)
    model_store = ModelStore.from_settings(settings)
    lifecycle = _lifecycle(settings, model_store, warmup, metrics, device)
    batcher = Batcher(settings.batch_max_rows, settings.batch_max_wait_us) if settings.batch_max_rows else None
    turns = SliceTurns()
    events = EventLog.from_settings(settings) if settings.events else None

    def build_ranker(references: ItemReferences | None = None) -> Ranker:
        return Ranker(
            store,
            cache,
            lambda: lifecycle.live,
            store_timeout_s=settings.redis_timeout_ms / 1000,
            turns=turns,
            batcher=batcher,
            references=references,
            references_top=settings.events_top,
        )

    ranker = build_ranker(None if events is None else ItemReferences(cache, events.queue))
    admission = Admission(settings.max_inflight, settings.max_wait_ms / 1000, poll.worked_s)
    metrics.sources.append(lambda: metrics.inflight_requests.set(admission.inflight))
    monitor = _monitor(settings, lifecycle, metrics)
    ranking_metrics = RankingMetrics(metrics)
    shadow = Shadow(
        build_ranker(),  # what it scores is shown to nobody
        lambda: lifecycle.live,
        monitor,
        share=settings.shadow_share,
        idle=lambda: admission.inflight == 0,
        worked_s=poll.worked_s,
        on_outcome=ranking_metrics.on_shadow_outcome,
    )
    impressions = None if events is None else ImpressionLog(events.queue, settings.events_top, events.put_schema)
    ranking = RankService(
        ranker,
        admission,
        Fallback(ranker, lambda: lifecycle.live, monitor),
        turns=turns,
        observers=(
            ranking_metrics.on_ranked,
            monitor.on_ranked,
            shadow.on_ranked,
            lambda request, ranking: poll.on_answer(),
            *([] if impressions is None else [impressions.on_ranked]),
        ),
        on_refused=ranking_metrics.on_refused,
    )
    connections = _connections(settings, metrics)
    service = Service(
        settings,
        metrics,
        model_store,
        lifecycle,
        store,
        cache,
        refresher,
        ranking,
        monitor,
        shadow,
        _load_shedder(admission, metrics, ranking_metrics),
        connections,
        events,
    )
    if events is not None:
        EventsExporter(events, metrics)
    admin_key = settings.admin_key.get_secret_value() if settings.admin_key else ""
    if admin_key:
        service.isolated_actions = IsolatedActions(settings)
        service.admin = Admin(admin_key, model_store, service.isolated_actions, metrics)
    return service


def _connections(settings: Settings, metrics: Metrics) -> Connections:
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


def _device(settings: Settings) -> torch.device:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CTR_DEVICE=cuda, but torch sees no CUDA device; install a CUDA build of torch or use cpu")
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


def _redis_store(settings: Settings) -> FeatureStore:
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


def _load_shedder(admission: Admission, metrics: Metrics, ranking_metrics: RankingMetrics) -> LoadShedder:
    """Build the load shedder, whose refusals are counted as the application's are."""

    def on_refused(error: RequestError) -> None:
        ranking_metrics.on_refused(error)
        metrics.count_answer(error.status)

    return LoadShedder(admission, on_refused)


def _lifecycle(
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


def _monitor(settings: Settings, lifecycle: Lifecycle, metrics: Metrics) -> ModelMonitor:
    """Build the monitor, which has the lifecycle withdraw a canary that crosses a limit."""
    withdrawals: set[asyncio.Task[None]] = set()

    def withdraw(version: int, failure: CanaryFailure) -> None:
        metrics.canary_withdrawn[failure.reason].inc()
        check = GateCheck(WITHDRAWN, False, failure.reason, failure.detail, failure.figures, comparison=True)
        task = asyncio.create_task(lifecycle.withdraw(version, check), name="canary-withdrawal")
        withdrawals.add(task)  # the event loop itself holds tasks weakly
        task.add_done_callback(withdrawals.discard)

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
