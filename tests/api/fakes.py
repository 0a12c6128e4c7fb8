"""A service for the routes, whose every answer the test sets; real versions come from `tests.factories`."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api import health, metrics, models, page
from app.api.openapi import complete_openapi, serve_openapi
from app.api.problems import install_problem_handlers
from app.api.service_state import FeatureStatus
from app.observability.metrics import Metrics
from app.ranking.monitor import ModelMonitor
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.shadow import Shadow
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LifecycleStatus, LiveSnapshot
from app.registry.store.model_store import ModelStore


@dataclass
class FakeLifecycle:
    live: LiveSnapshot = field(default_factory=LiveSnapshot)
    problems: tuple = ()
    damages: dict[int, str] = field(default_factory=dict)

    def status(self) -> LifecycleStatus:
        versions = {label: artifact.version for label, artifact in self.live.labels().items()}
        live = self.live
        return LifecycleStatus("deepfm", versions, live.canary_share, live.fallback, 1.5e9, self.problems, self.damages)


class NoRanker:
    """Fails the test that ranks something."""

    async def rank(self, request: RankRequest, due: float) -> Ranking:
        raise AssertionError


@dataclass
class FakeService:
    model_store: ModelStore
    lifecycle: FakeLifecycle = field(default_factory=FakeLifecycle)
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False
    connected: bool = True
    readable: bool = True
    problems_of_events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.monitor = ModelMonitor(lambda: self.lifecycle.live)
        self.shadow = Shadow(NoRanker(), lambda: self.lifecycle.live, self.monitor, share=1.0, idle=lambda: True)

    def event_problems(self) -> list[str]:
        return self.problems_of_events

    def feature_status(self) -> FeatureStatus:
        return FeatureStatus(self.connected, "127.0.0.1:6379", 12, self.readable)


def application(service: FakeService, *, keys: bool = False) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.service = service
    install_problem_handlers(app)
    for router in (health.router, metrics.router(), models.router(), page.router()):
        app.include_router(router)
    complete_openapi(app, keys=keys)
    serve_openapi(app)
    return app


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


def live(**labels: Artifact) -> LiveSnapshot:
    return LiveSnapshot(**labels)
