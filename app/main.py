"""`create_app`: the ASGI application of one process, its lifespan and its routes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import torch
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.api import admin, catalogue, feedback, health, metrics, models, page
from app.api.feedback import FeedbackIntake
from app.api.headers import request_id_of
from app.api.key_rates import KeyRates
from app.api.load_shedder import LoadShedder
from app.api.middleware import OPEN_PATHS, Edge
from app.api.openapi import complete_openapi, serve_openapi
from app.api.plain_requests import as_get, plain_path
from app.api.problems import install_problem_handlers, problem_response
from app.api.rank import RankEndpoint
from app.api.request_log import RequestLog
from app.api.spaced_answers import SpacedAnswers
from app.errors import NotFound, RequestError
from app.features.catalogue import Catalogue
from app.features.store import FeatureStore
from app.header_keys import KnownKeys
from app.ranking.metric_exporters import KeyUseExporter
from app.runtime.connections import Connections
from app.runtime.server_config import Answer
from app.service import Service, build_service
from app.settings import Settings, load_settings

SWITCH_INTERVAL_S = 0.0005
"""Python's default of 5 ms is what a request waits for the interpreter, again and again, while a version loads on a
thread."""
PROBES = {"/health/live", "/health/ready"}
"""Paths whose answers decide whether the process is restarted, or sent requests at all."""
READ_METHODS = {"GET", "HEAD"}
"""Methods of what may be asked for again and again."""
READ_GAP_S, HEALTH_GAP_S = 0.016, 0.002
"""From the beginning of one answer to a read to that of the next: of what is open to all, of what asks for a key, and
of `/health`, which is looked at when the process is overloaded. None of them waits for another kind."""
EXPOSED_HEADERS = ["X-Request-ID", "X-Model-Version", "Server-Timing", "Retry-After", "WWW-Authenticate"]
"""What a page of an origin in CTR_CORS_ORIGINS may read of an answer's headers."""


class Application:
    """The ASGI application: `Edge` around everything, POST /rank straight to its endpoint, all else through FastAPI."""

    def __init__(self, fastapi: FastAPI, rank: RankEndpoint, service: Service) -> None:
        settings = service.settings
        self._root_path = settings.root_path
        self._admin_port = settings.admin_port
        self.fastapi = fastapi
        self.service = service
        self._rank = rank
        self._spaced_health = SpacedAnswers(HEALTH_GAP_S)
        self._spaced_open, self._spaced_keyed = SpacedAnswers(READ_GAP_S), SpacedAnswers(READ_GAP_S)
        self._open_paths = _open_paths(service)
        api_keys = KnownKeys(key.get_secret_value() for key in settings.api_keys)
        KeyUseExporter(api_keys, service.metrics)
        self._edge: ASGIApp = Edge(
            self._route,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_s=settings.body_timeout_s,
            api_keys=api_keys,
            open_paths=self._open_paths,
        )
        if settings.log_requests:
            self._edge = RequestLog(self._edge)
        if settings.cors_origins:
            self._edge = CORSMiddleware(
                self._edge,  # inside, so that a preflight needs no key and a refusal can be read
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "HEAD", "POST"],
                allow_headers=["*"],
                expose_headers=EXPOSED_HEADERS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/rank":
            scope["path"] = plain_path(scope["path"], self._root_path)
        await self._edge(scope, receive, send)

    @property
    def connections(self) -> Connections:
        return self.service.connections

    def ready(self) -> bool:
        """Return whether this process wants traffic, as /health/ready says it."""
        return not health.not_ready_reasons(self.service)

    def drain(self) -> None:
        """Let /health/ready fail from now on: the process is about to stop."""
        self.service.draining = True

    def answer_to(self, error: RequestError) -> Answer:
        """Make the answer to something that is not a request, with an id of its own."""
        request_id = request_id_of({})
        response = problem_response(error, request_id)
        return [*response.raw_headers, (b"x-request-id", request_id.encode())], bytes(response.body)

    @property
    def shed(self) -> LoadShedder:
        """Return what answers requests of an overloaded process."""
        return self.service.load_shedder

    def _route(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            if self._admin_port is not None and _is_on_wrong_port(scope, self._admin_port):
                raise NotFound("this port does not serve it")  # answered by the edge
            if scope["path"] == "/rank" and scope["method"] == "POST":
                return self._rank(scope, receive, send)
            if scope["path"] not in PROBES:
                return self._answer_in_turn(scope, receive, send)
        return self._answer(scope, receive, send)

    async def _answer_in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer once usual requests rest: pages and metrics are asked for by many who are in no hurry.

        Raises Overloaded where too many of them wait.
        """
        if scope["method"] in READ_METHODS:
            await self._spaced(scope["path"]).next()
        await self.service.turns.next()
        await self._answer(scope, receive, send)

    def _spaced(self, path: str) -> SpacedAnswers:
        if path == "/health":
            return self._spaced_health
        return self._spaced_open if path in self._open_paths else self._spaced_keyed

    def _answer(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            return as_get(self.fastapi, scope, receive, send)
        return self.fastapi(scope, receive, send)


def _is_on_wrong_port(scope: Scope, admin_port: int) -> bool:
    """Return whether the admin's port is asked for what is not the admin's, or another port for what is."""
    server = scope.get("server")
    return (server is not None and server[1] == admin_port) != (scope["path"] in admin.PATHS)


def create_app(settings: Settings | None = None, *, store: FeatureStore | None = None) -> Application:
    """Build the application; nothing is connected, loaded or started before its lifespan begins.

    Args:
        settings: as `load_settings` reads them by default.
        store: source of features; by default the Redis or Valkey at `settings.redis_url`.

    Raises ConfigError for settings that no service can be built from.
    """
    settings = settings or load_settings()
    service = build_service(settings, store)
    rank = RankEndpoint(
        service.ranking,
        service.metrics,
        max_candidates=settings.max_candidates,
        max_body_bytes=settings.max_body_bytes,
        deadline_s=settings.deadline_ms / 1000,
        turns=service.turns,
        key_rates=KeyRates(settings.key_rate) if settings.key_rate and settings.api_keys else None,
    )
    fastapi = FastAPI(
        title="ctr-serving",
        version=__version__,
        description="Rank candidates by click probability.",
        lifespan=lambda _: _lifespan(service),
        redirect_slashes=False,  # `plain_path` has seen to them
        openapi_url=None,  # FastAPI encodes the document for each request
        docs_url=None,  # FastAPI's own pages fetch their scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # operations are what generated clients call
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    fastapi.state.service = service
    install_problem_handlers(fastapi, docs=settings.docs)
    pages = page.router(
        settings.root_path,
        docs=settings.docs,
        metrics=settings.metrics != "off",
        admin=service.admin is not None and settings.admin_port is None,
    )
    routers = [health.router, models.router(), pages]
    titles = Catalogue(Path(settings.catalogue)) if settings.catalogue else None
    routers.append(catalogue.router(titles, service.store, settings.redis_timeout_ms / 1000))
    intake = FeedbackIntake(service.events.queue, settings.feedback_types) if service.events else None
    routers.append(feedback.router(intake, settings.max_body_bytes))
    if settings.metrics != "off":
        routers.append(metrics.router())
    if service.admin is not None:
        routers.append(admin.router)
    for router in routers:
        fastapi.include_router(router)
    # POST /rank never comes this far; the route makes other methods a 405.
    fastapi.router.routes.append(Route("/rank", rank, methods=["POST"], include_in_schema=False))
    complete_openapi(fastapi, keys=bool(settings.api_keys), open_paths=_open_paths(service))
    if settings.docs:
        serve_openapi(fastapi)
    return Application(fastapi, rank, service)


def _open_paths(service: Service) -> frozenset[str]:
    """Return the paths that need none of the API keys."""
    paths = OPEN_PATHS | page.FILES.keys()
    if service.settings.metrics == "key":
        paths -= {"/metrics"}
    return paths | admin.PATHS if service.admin else paths  # those ask for a key of their own


@contextlib.asynccontextmanager
async def _lifespan(service: Service) -> AsyncIterator[None]:
    torch.set_num_threads(1)  # one core per worker; more threads would wait for each other on small products
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    await service.start()
    gc.collect()
    gc.freeze()  # a full collection in mid-request would walk half a million objects that stay anyway
    flushing = asyncio.create_task(service.metrics.keep_flushing(), name="metrics-flush")
    try:
        yield
    finally:
        gc.unfreeze()
        service.draining = True
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await service.stop()
