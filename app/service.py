"""The composition root: builds the parts of one process, ties them together and owns their lives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from app.api.admin_actions import Admin
from app.api.load_shedder import LoadShedder
from app.api.service_state import FeatureStatus
from app.events.event_log import EventLog
from app.events.item_references import ItemReferences
from app.features.cache_refresher import CacheRefresher
from app.features.item_cache import ItemCache
from app.features.item_rows import UNKNOWN_DIVISOR
from app.features.item_tables import STATE_DTYPES
from app.features.store import FeatureStore
from app.observability.metrics import Metrics
from app.publishing.isolated_actions import IsolatedActions
from app.ranking.admission import Admission
from app.ranking.batcher import Batcher
from app.ranking.exploration import Explorer
from app.ranking.fallback import Fallback
from app.ranking.metric_exporters import CacheExporter, EventsExporter, RankingMetrics
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranker
from app.ranking.service import RankObserver, RankService
from app.ranking.shadow import Shadow
from app.ranking.warmup import Warmup
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.store.model_store import ModelStore
from app.runtime.busy_poll import BusyPoll
from app.runtime.connections import Connections
from app.runtime.loop_pacer import SliceTurns
from app.service_parts import (
    build_calibration_buckets,
    build_click_trial,
    build_connections,
    build_field_drift,
    build_impression_log,
    build_lifecycle,
    build_load_shedder,
    build_monitor,
    build_redis_store,
    build_withdrawal,
    choose_device,
)
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
    turns: SliceTurns
    """Of what may wait for usual requests: slices of heavy ones, and other routes."""
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
            self.cache.before_change()  # has what was noted recorded
            await asyncio.to_thread(self.events.stop)

    def event_problems(self) -> list[str]:
        if self.events is None:
            return []
        problems = {"events_not_written": self.events.problem, "events_not_delivered": self.events.delivery_problem}
        return [word for word, problem in problems.items() if problem]

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
    device = choose_device(settings)
    metrics = Metrics()
    store = build_redis_store(settings) if store is None else store
    # At least the candidates of two requests fit in; in a smaller cache nearly every request would read its items.
    least = 2 * settings.max_candidates
    cache = ItemCache(
        max(settings.item_cache_size, least),
        unknown_capacity=max(settings.item_cache_size // UNKNOWN_DIVISOR, least),
        device=device,
        dtype=STATE_DTYPES[settings.precision],
        aged=settings.item_max_age_s is not None,
    )
    CacheExporter(cache.counts, metrics)
    refresher = CacheRefresher(
        store, cache, fill=settings.item_cache_warm, max_age_s=settings.item_max_age_s or TRACKED_MAX_AGE_S
    )
    poll = BusyPoll(settings.busy_poll_us / 1e6)
    warmup = Warmup(store, cache, refresher, max_candidates=settings.max_candidates, worked_s=poll.worked_s)
    model_store = ModelStore.from_settings(settings)
    lifecycle = build_lifecycle(settings, model_store, warmup, metrics, device)
    batcher = Batcher(settings.batch_max_rows, settings.batch_max_wait_us) if settings.batch_max_rows else None
    turns = SliceTurns()
    events = EventLog.from_settings(settings) if settings.events else None

    def build_ranker(references: ItemReferences | None = None, explorer: Explorer | None = None) -> Ranker:
        return Ranker(
            store,
            cache,
            lambda: lifecycle.live,
            store_timeout_s=settings.redis_timeout_ms / 1000,
            turns=turns,
            batcher=batcher,
            references=references,
            references_top=settings.events_top,
            explorer=explorer,
        )

    references = None if events is None else ItemReferences(cache, events.queue)
    explorer = Explorer(settings.explore, settings.explore_share, settings.events_top) if settings.explore else None
    ranker = build_ranker(references, explorer)
    admission = Admission(settings.max_inflight, settings.max_wait_ms / 1000, poll.worked_s)
    metrics.sources.append(lambda: metrics.inflight_requests.set(admission.inflight))
    withdraw = build_withdrawal(lifecycle, metrics)
    monitor = build_monitor(settings, lifecycle, metrics, withdraw)
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
    of_events: list[RankObserver] = []
    if events is not None and references is not None:
        of_events.append(build_impression_log(settings, events, references, cache).on_ranked)
        of_events.append(build_field_drift(settings, events, lifecycle, cache, metrics).on_ranked)
        of_events.append(build_calibration_buckets(settings, events, metrics).on_ranked)
        if settings.canary_click_error:
            of_events.append(build_click_trial(settings, events, lifecycle, metrics, withdraw).on_ranked)
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
            *of_events,
        ),
        on_refused=ranking_metrics.on_refused,
    )
    connections = build_connections(settings, metrics)
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
        build_load_shedder(admission, metrics, ranking_metrics),
        connections,
        turns,
        events,
    )
    if events is not None:
        EventsExporter(events, metrics)
    admin_key = settings.admin_key.get_secret_value() if settings.admin_key else ""
    if admin_key:
        service.isolated_actions = IsolatedActions(settings)
        service.admin = Admin(admin_key, model_store, service.isolated_actions, metrics)
    return service
