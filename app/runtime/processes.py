"""The processes of `ctr serve`: one server per worker, each with its own listening socket, and a parent over them.

The sockets share the port by SO_REUSEPORT, so the kernel spreads connections; on one shared socket a single worker can
end up with nearly all keep-alive connections. The parent starts a worker again if it dies, and a worker stops if its
parent dies. The parent never imports the application, which would cost it the memory of torch.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from types import FrameType
from typing import Any, Protocol

import structlog
import uvicorn
from uvicorn.importer import import_from_string

from app.errors import ConfigError, RequestError
from app.runtime import descriptors
from app.runtime.acceptor import Acceptor
from app.runtime.connections import Connections
from app.runtime.http_protocol import HttpProtocol
from app.runtime.server_config import Answer, ServerConfig
from app.settings import Settings
from app.url_host import url_host

log = structlog.get_logger(__name__)

REFUSED = 78
"""Exit status of a worker that found the settings wrong: EX_CONFIG of sysexits.h."""
MIN_RESTART_INTERVAL_S = 1.0
POLL_S = 0.1


class ServedApplication(Protocol):
    """An ASGI application that prepares for the end of its process."""

    @property
    def connections(self) -> Connections:
        """The table of the process's connections."""

    def __call__(self, scope: Any, receive: Any, send: Any, /) -> Awaitable[None]: ...

    def drain(self) -> None:
        """Stop asking for traffic; called as soon as the process is told to stop."""

    def refusal(self, error: RequestError) -> Answer:
        """Make the answer to something that is not a request, so that it does not reach the application."""


class Server(uvicorn.Server):
    """Takes connections by `Acceptor`, and drains the application as soon as a stop signal arrives."""

    config: ServerConfig

    def __init__(self, config: ServerConfig, application: ServedApplication) -> None:
        super().__init__(config)
        self._application = application

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then take connections from the sockets, as many as fit beside what it has open."""
        await super().startup(sockets=[])
        config, connections = self.config, self.config.connections
        connections.total = min(connections.limits.total, descriptors.connections_that_fit())

        def create_protocol() -> HttpProtocol:
            return HttpProtocol(config, self.server_state, self.lifespan.state)

        self.servers = [
            Acceptor(listener, connections, create_protocol)  # type: ignore[misc]
            for listener in sockets or ()
        ]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._application.drain()
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # uvicorn would raise it again, and end the process before it has cleaned up


def serve(settings: Settings, factory: str, announce: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGINT or SIGTERM, in this process or in several.

    Args:
        factory: `module:function` that makes the `ServedApplication` from the settings, imported by the workers alone.
        announce: called with the address once it is bound; with port 0 the caller learns the port by it.

    Raises:
        ConfigError: the address cannot be bound.
    """
    descriptors.raise_limit()
    listener = listen(settings, shared=settings.workers > 1)
    port = listener.getsockname()[1]
    announce(f"http://{url_host(settings.host)}:{port}{settings.root_path}")
    if settings.workers == 1:
        with listener:
            run_worker(settings, factory, listener)
        return
    listener.close()  # each worker binds its own; this one found the port out, and that it is free
    run_workers(settings.model_copy(update={"port": port}), factory)


def listen(settings: Settings, *, shared: bool) -> socket.socket:
    """Return a listening socket. Raises ConfigError if the address cannot be bound.

    Args:
        shared: let other processes listen on the same port.
    """
    name = f"{url_host(settings.host)}:{settings.port}"
    try:
        addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {name}: {settings.host} is no address; choose another with --host"
        ) from error
    # `localhost` is both, and 127.0.0.1 to most clients.
    family, kind, _, _, address = min(addresses, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {name}: {error.strerror}; choose another with --host or --port") from error
    listener.setblocking(False)
    return listener


def run_worker(settings: Settings, factory: str, listener: socket.socket | None = None) -> None:
    """Serve in this process until it is told to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_stop_when_ended, args=(parent,), daemon=True, name="parent-watch").start()
    from app.observability.logs import configure_logging

    configure_logging(settings.log_level)
    application: ServedApplication = import_from_string(factory)(settings)
    server = Server(server_config(settings, application), application)
    server.run(sockets=[listener or listen(settings, shared=True)])


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
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )
    config.connections = application.connections
    config.max_header_bytes = settings.max_header_bytes
    config.refusal = application.refusal
    return config


def _run_reporting(settings: Settings, factory: str, refusals: SimpleQueue[str]) -> None:
    """Serve in a process of its own, and tell the parent what is wrong with the settings, if that ends it."""
    try:
        run_worker(settings, factory)
    except ConfigError as error:
        refusals.put(str(error))
        sys.exit(REFUSED)


def _stop_when_ended(parent: BaseProcess) -> None:
    """Stop this worker when its parent has ended: a parent that was killed cannot stop its workers."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def run_workers(settings: Settings, factory: str) -> None:
    """Run `settings.workers` processes until SIGINT or SIGTERM, and start those again that die.

    Raises ConfigError if the first worker to end finds the settings wrong: so would all that are started after it.
    """
    folder = tempfile.mkdtemp(prefix="ctr-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # prometheus_client reads it when a worker first imports it
    from app.observability.all_processes import drop_worker
    from app.observability.logs import configure_logging

    configure_logging(settings.log_level)
    context = multiprocessing.get_context("spawn")
    stopping = restarted = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, stop)
    refusals: SimpleQueue[str] = context.SimpleQueue()
    workers: dict[int, tuple[BaseProcess, float]] = {}
    """Worker number to its process and when that started."""

    def start(number: int) -> None:
        process = context.Process(
            target=_run_reporting, args=(settings, factory, refusals), name=f"ctr-worker-{number}", daemon=False
        )
        process.start()
        workers[number] = (process, time.monotonic())

    try:
        for number in range(settings.workers):
            start(number)
        while not stopping:
            time.sleep(POLL_S)
            for number, (process, started) in list(workers.items()):
                if process.is_alive() or stopping:
                    continue
                if process.exitcode == REFUSED and not restarted and not refusals.empty():
                    raise ConfigError(refusals.get())
                restarted = True
                log.error("worker_died", worker=number, exit_code=process.exitcode)
                drop_worker(process.pid or 0)
                if time.monotonic() - started < MIN_RESTART_INTERVAL_S:
                    time.sleep(MIN_RESTART_INTERVAL_S)
                start(number)
    finally:
        for process, _ in workers.values():
            process.terminate()
        due = time.monotonic() + settings.shutdown_grace_s + 2
        for process, _ in workers.values():
            process.join(max(0.0, due - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        shutil.rmtree(folder, ignore_errors=True)
