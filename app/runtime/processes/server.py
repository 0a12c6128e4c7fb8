"""`Server`: uvicorn's server as a worker runs it. It listens once it can answer, and stops without losing requests."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, Protocol, cast

import uvicorn

from app.errors import RequestError
from app.runtime import descriptors
from app.runtime.acceptor import Acceptor
from app.runtime.connections import Connections
from app.runtime.http_protocol import HttpProtocol
from app.runtime.processes.supervisor_link import SupervisorLink
from app.runtime.server_config import Answer, ServerConfig
from app.settings import Settings

IDLE_GRACE_S = 1.0
"""How long a connection without a request stays open once the server stops: a request may be on its way, and over a
closed connection it would be lost."""
POLL_S = 0.05


class ServedApplication(Protocol):
    """An ASGI application that knows whether it is ready, and prepares for the end of its process."""

    @property
    def connections(self) -> Connections:
        """The table of the process's connections."""

    @property
    def shed(self) -> Callable[[bytes], bytes | None]:
        """Return what answers a request of an overloaded process from its bytes, and None for all others."""

    def __call__(self, scope: Any, receive: Any, send: Any, /) -> Awaitable[None]: ...

    def ready(self) -> bool:
        """Return whether it wants traffic; called twice a second."""

    def drain(self) -> None:
        """Stop asking for traffic; called as soon as the process is told that it will stop."""

    def answer_to(self, error: RequestError) -> Answer:
        """Make the answer to something that is not a request, so that it does not reach the application."""


class Server(uvicorn.Server):
    """Runs the lifespan's start-up first and listens then; told to stop, it accepts no more and serves what it has."""

    config: ServerConfig

    def __init__(self, config: ServerConfig, application: ServedApplication, link: SupervisorLink) -> None:
        super().__init__(config)
        self._application = application
        self._link = link

    def drain(self) -> None:
        """Say that no more traffic is wanted, and end connections after their next answer; go on accepting."""
        self._application.drain()
        self.config.draining = True
        for connection in list(cast("set[HttpProtocol]", self.server_state.connections)):
            connection.end_after_answer()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ignore a signal that was sent to all processes of the service: only the supervisor follows it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._link.start(ready=self._application.ready, on_drain=self.drain, on_stop=self._stop)
        await super().startup(sockets=[])
        config, connections = self.config, self.config.connections
        connections.total = min(connections.limits.total, descriptors.connections_that_fit())
        descriptors.make_room(connections.total)

        def create_protocol() -> HttpProtocol:
            return HttpProtocol(config, self.server_state, self.lifespan.state)

        acceptors = [Acceptor(listener, connections, create_protocol) for listener in sockets or ()]
        self.servers = cast("list[Any]", acceptors)  # uvicorn calls close() and wait_closed()
        self._link.report_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        due = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        self.drain()
        for server in self.servers:
            server.close()
        await self._serve_what_is_on_its_way(min(due, time.monotonic() + IDLE_GRACE_S))
        self.config.timeout_graceful_shutdown = cast("int", max(0.0, due - time.monotonic()))
        await super().shutdown(sockets)

    def _stop(self) -> None:
        self.should_exit = True

    async def _serve_what_is_on_its_way(self, due: float) -> None:
        while self.server_state.connections and time.monotonic() < due:  # noqa: ASYNC110  # a set of uvicorn's
            await asyncio.sleep(POLL_S)


def server_config(settings: Settings, application: ServedApplication) -> ServerConfig:
    """Return uvicorn's configuration: HTTP/1.1 alone, and nothing on the path of a request that it can do without."""
    config = ServerConfig(
        application,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # no code reads the clients' addresses
        server_header=False,
        date_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=cast("int", settings.shutdown_grace_s),  # asyncio.wait_for takes fractions too
    )
    config.connections = application.connections
    config.max_header_bytes = settings.max_header_bytes
    config.answer_to = application.answer_to
    config.shed = application.shed
    return config
