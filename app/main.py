"""`create_app`: the one place that builds the parts of the service, ties them together and owns their lives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
import torch
from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.api import admin, health, metrics, models, page
from app.api.admin import Admin
from app.api.metric_exporters import CacheExport, WatchExport, count_shadow
from app.api.middleware import OPEN_PATHS, Edge
from app.api.openapi import document_rank
from app.api.problems import install_problem_handlers
from app.api.rank import RankEndpoint
from app.api.service_state import FeatureStatus
from app.errors import ConfigError
from app.features.cache_refresher import Refresher
from app.features.item_cache import ItemCache
from app.features.store import FeatureStore, RedisFeatureStore
from app.observability.metrics import Metrics
from app.publishing.store_commands import StoreCommands
from app.ranking.admission import Admission
from app.ranking.batcher import Batcher
from app.ranking.fallback import Rescue
from app.ranking.monitor import Fault, Limits, Watch
from app.ranking.ranker import Ranker
from app.ranking.shadow import Shadow
from app.ranking.warmup import Preparation
from app.registry.gate.gate_report import WITHDRAWN, GateCheck
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.lifecycle.snapshot import SwapEvent
from app.registry.store.model_store import ModelStore
from app.runtime.busy_poll import BusyPoll
from app.settings import Settings, load_settings

log = structlog.get_logger(__name__)

SWITCH_S = 0.0005
"""Python's 5 ms are what a request waits for the interpreter, again and again, while a version loads on its thread."""


class Features:
    """The store and the cache, as `/health` asks about them."""

    def __init__(self, store: FeatureStore, cache: ItemCache) -> None:
        self._store = store
        self._cache = cache

    def status(self) -> FeatureStatus:
        status = self._store.status()
        return FeatureStatus(status.connected, status.detail, len(self._cache))


@dataclass
class Service:
    """Everything one process runs; `app.state.service` of the FastAPI application."""

    settings: Settings
    metrics: Metrics
    model_store: ModelStore
    lifecycle: Lifecycle
    features: Features
    store: FeatureStore
    cache: ItemCache
    refresher: Refresher
    rank: RankEndpoint
    watch: Watch
    shadow: Shadow
    admin: Admin | None = None
    """Where there is a key."""
    stopping: list[Callable[[], None]] = field(default_factory=list)
    draining: bool = False

    async def start(self) -> None:
        """The store first, so that the first model is prepared with features; neither has to be there."""
        await self.store.start(self.cache)
        await self.lifecycle.start()
        self.refresher.start()
        if self.lifecycle.live.stable is None:
            log.warning("no_model_live", folder=str(self.model_store.folder), hint="publish one: ctr train --publish")

    async def stop(self) -> None:
        for stop in self.stopping:
            stop()
        await self.shadow.stop()
        await self.refresher.stop()
        await self.lifecycle.stop()
        await self.store.stop()


class Application:
    """The ASGI application: POST /rank goes straight to its endpoint, all else through FastAPI, the Edge around."""

    def __init__(self, fastapi: FastAPI, service: Service) -> None:
        settings = service.settings
        self.fastapi = fastapi
        self.service = service
        self._rank = service.rank
        self._edge: ASGIApp = Edge(
            self._inside,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.body_timeout_s,
            api_keys=[key.get_secret_value().encode() for key in settings.api_keys],
            open_paths=OPEN_PATHS | admin.PATHS if service.admin else OPEN_PATHS,  # which ask for a key of their own
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._edge(scope, receive, send)

    def _inside(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"] == "/rank" and scope["method"] == "POST":
            return self._rank(scope, receive, send)
        return self.fastapi(scope, receive, send)


def create_app(settings: Settings | None = None, *, store: FeatureStore | None = None) -> Application:
    """Build the service; nothing is connected, loaded or started before its lifespan begins.

    Args:
        settings: as `load_settings` reads them by default.
        store: where features come from; by default the Redis or Valkey at `settings.redis_url`.

    Raises ConfigError.
    """
    settings = settings or load_settings()
    service = build_service(settings, store)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        torch.set_num_threads(1)  # one core per worker; more threads would wait for each other on small products
        sys.setswitchinterval(SWITCH_S)
        await service.start()
        gc.collect()
        gc.freeze()  # what is here now stays: a full collection would walk half a million objects in mid-request
        flushing = asyncio.create_task(service.metrics.keep_flushing(), name="metrics-flush")
        try:
            yield
        finally:
            gc.unfreeze()
            service.draining = True
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
            await service.stop()

    fastapi = FastAPI(
        title="ctr-serving",
        version=__version__,
        description="Rank candidates by click probability.",
        lifespan=lifespan,
    )
    fastapi.state.service = service
    install_problem_handlers(fastapi)
    for router in (health.router, metrics.router, models.router, page.router):
        fastapi.include_router(router)
    if service.admin is not None:
        fastapi.include_router(admin.router)
    # Never called for POST, which does not come this far; other methods find out that they are not allowed.
    fastapi.router.routes.append(Route("/rank", service.rank, methods=["POST"], include_in_schema=False))
    document_rank(fastapi)
    return Application(fastapi, service)


def build_service(settings: Settings, store: FeatureStore | None = None) -> Service:
    """Every part of one process, tied together and not yet started. Raises ConfigError."""
    device = _device(settings)
    exported = Metrics()
    if store is None:
        if not settings.redis_url:
            raise ConfigError("CTR_REDIS_URL is empty: set it, or start with `ctr serve`, which brings its own Valkey")
        store = RedisFeatureStore(
            settings.redis_url, settings.user_key, settings.item_key, timeout_s=settings.redis_timeout_ms / 1000
        )
    # Room for the candidates of two requests at the least, so that a request cannot evict its own items.
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    cache = ItemCache(max(settings.item_cache_size, 2 * settings.max_candidates), device=device, dtype=dtype)
    CacheExport(cache.counts, exported)
    refresher = Refresher(store, cache, fill=settings.item_cache_warm)
    poll = BusyPoll(settings.busy_poll_us / 1e6)
    preparation = Preparation(cache, refresher, max_candidates=settings.max_candidates, worked_s=poll.worked_s)
    model_store = ModelStore.open(settings.model_store, settings.model, settings.signing_key, settings.trusted_keys)

    def swapped(event: SwapEvent) -> None:
        exported.model_swaps[event.outcome].inc()
        exported.set_models((a.version, a.sha256) for a in lifecycle.live.labels().values())

    lifecycle = Lifecycle(
        model_store,
        prepare=preparation.prepare,
        retire=preparation.retire,
        on_event=swapped,
        device=str(device),
        poll_s=settings.poll_s,
    )
    batcher = Batcher(settings.batch_max_rows, settings.batch_max_wait_us) if settings.batch_max_rows else None
    ranker = Ranker(
        store,
        cache,
        lambda: lifecycle.live,
        store_timeout_s=settings.redis_timeout_ms / 1000,
        batcher=batcher,
    )
    admission = Admission(settings.max_inflight)
    exported.sources.append(lambda: exported.inflight_requests.set(admission.inflight))
    watch = _watch(settings, lifecycle, exported)
    shadow = Shadow(
        ranker,
        lambda: lifecycle.live,
        watch,
        share=settings.shadow_share,
        idle=lambda: admission.inflight == 0,
        worked_s=poll.worked_s,
        on_outcome=partial(count_shadow, exported),
    )
    rank = RankEndpoint(
        ranker,
        admission,
        exported,
        watch,
        Rescue(ranker, lambda: lifecycle.live, watch),
        shadow,
        poll,
        max_candidates=settings.max_candidates,
        deadline_s=settings.deadline_ms / 1000,
    )
    features = Features(store, cache)
    service = Service(
        settings, exported, model_store, lifecycle, features, store, cache, refresher, rank, watch, shadow
    )
    key = settings.admin_key.get_secret_value() if settings.admin_key else ""
    if key:
        commands = StoreCommands(settings)
        service.admin = Admin(key, model_store, commands, exported)
        service.stopping.append(commands.stop)
    return service


def _watch(settings: Settings, lifecycle: Lifecycle, exported: Metrics) -> Watch:
    """Counts what versions do, and has the lifecycle take out a canary that does what it should not."""
    withdrawing: set[asyncio.Task[None]] = set()

    def take_out(version: int, found: Fault) -> None:
        exported.canary_withdrawn[found.reason].inc()
        check = GateCheck(WITHDRAWN, False, found.reason, found.detail, found.figures, comparison=True)
        task = asyncio.create_task(lifecycle.withdraw(version, check), name="canary-withdrawal")
        withdrawing.add(task)
        task.add_done_callback(withdrawing.discard)

    limits = Limits(
        settings.canary_min_requests,
        settings.canary_error_rate,
        settings.canary_non_finite_rate,
        settings.canary_ctr_ratio,
        settings.canary_drift,
    )
    watch = Watch(lambda: lifecycle.live, limits if settings.canary_guard else None, take_out)
    WatchExport(watch, exported)
    return watch


def _device(settings: Settings) -> torch.device:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("CTR_DEVICE=cuda, but torch sees no CUDA device; install a CUDA build of torch or use cpu")
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")
