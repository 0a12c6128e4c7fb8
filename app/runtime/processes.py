"""Processes of `ctr serve`: one server per worker, each with its own listening socket, and a parent that watches them.

Sockets share the port by SO_REUSEPORT, so the kernel spreads connections; on one shared socket a single worker can end
up with nearly all keep-alive connections. A worker that dies is started again; one whose parent died stops.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import structlog
import uvicorn

from app.errors import ConfigError
from app.settings import Settings

log = structlog.get_logger(__name__)

RESTART_AT_MOST_EVERY_S = 1.0


class Server(uvicorn.Server):
    """Says `draining` as soon as it is told to stop, so that /health/ready turns before connections close."""

    def __init__(self, config: uvicorn.Config, service: Any) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.draining = True
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # uvicorn would raise it again, and end the process before it has cleaned up


def listen(settings: Settings, *, shared: bool) -> socket.socket:
    """A listening socket. Raises ConfigError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from error
    listener.setblocking(False)
    return listener


def run_worker(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve in this process until told to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_stop_with, args=(parent,), daemon=True, name="parent-watch").start()
    from app.main import create_app
    from app.observability.logs import configure_logging
    from app.runtime.http_protocol import HttpProtocol

    configure_logging(settings.log_level)
    application = create_app(settings)
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,  # addresses of clients are not looked at
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = Server(config, application.service)
    server.run(sockets=[listener or listen(settings, shared=True)])


def _stop_with(parent: BaseProcess) -> None:
    """Where the parent is killed, nobody is left to stop its workers."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def run_workers(settings: Settings) -> None:
    """Run `settings.workers` processes until SIGINT or SIGTERM; restart those that die."""
    folder = tempfile.mkdtemp(prefix="ctr-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read by the workers when they import prometheus_client
    from app.observability.logs import configure_logging
    from app.observability.metrics import drop_worker

    configure_logging(settings.log_level)
    context = multiprocessing.get_context("spawn")
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    workers: dict[int, tuple[BaseProcess, float]] = {}

    def start(number: int) -> None:
        process = context.Process(target=run_worker, args=(settings,), name=f"ctr-worker-{number}", daemon=False)
        process.start()
        workers[number] = (process, time.monotonic())

    try:
        for number in range(settings.workers):
            start(number)
        while not stopping:
            time.sleep(0.1)
            for number, (process, started) in list(workers.items()):
                if process.is_alive() or stopping:
                    continue
                log.error("worker_died", worker=number, exit_code=process.exitcode)
                drop_worker(process.pid or 0)
                if time.monotonic() - started < RESTART_AT_MOST_EVERY_S:
                    time.sleep(RESTART_AT_MOST_EVERY_S)
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


def serve(settings: Settings, announce: Callable[[str], None] = lambda url: None) -> None:
    """Serve until told to stop, in this process or in several.

    Args:
        announce: told the address once it is listened on; with port 0 nobody else knows it.

    Raises ConfigError where the address cannot be had.
    """
    listener = listen(settings, shared=settings.workers > 1)
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce(f"http://{host}:{port}")
    if settings.workers == 1:
        run_worker(settings, listener)
        return
    listener.close()  # the workers have one each; this one only found out whether, and where, they can
    run_workers(settings.model_copy(update={"port": port}))
