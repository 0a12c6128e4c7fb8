"""Small applications for workers: no torch, so that a service of them starts in a moment."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from app.errors import ConfigError, RequestError
from app.runtime.connections import ConnectionLimits, Connections
from app.runtime.server_config import Answer
from app.settings import Settings

MAX_CONNECTIONS = 3000


class Application:
    """Answers a path with the process id, after doing what the path names."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.data_dir
        self.draining = False
        self.connections = Connections(
            ConnectionLimits(total=MAX_CONNECTIONS, per_address=100, header_timeout_s=60, keep_alive_s=60)
        )

    def ready(self) -> bool:
        return not self.draining and not (self.folder / "not-ready").exists()

    def drain(self) -> None:
        self.draining = True

    def shed(self, data: bytes) -> bytes | None:
        return None

    def answer_to(self, error: RequestError) -> Answer:
        return [], str(error).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        await self._act(scope["path"], receive)
        told = {"/ready": self.ready, "/collecting": gc.isenabled}.get(scope["path"], os.getpid)
        body = b"%d" % told()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        while (self.folder / "starting").exists():  # noqa: ASYNC110  # the test's own process removes it
            await asyncio.sleep(0.01)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _act(self, path: str, receive: Receive) -> None:
        if path == "/slow":
            (self.folder / "slow").touch()
            await asyncio.sleep(0.5)
        elif path == "/block":
            time.sleep(60)  # noqa: ASYNC251  # what a worker is killed for
        elif path == "/upload":
            (self.folder / "upload").touch()
            message: Any = {"more_body": True}
            while message.get("more_body"):
                try:
                    message = await receive()
                except asyncio.CancelledError:  # an application that does not let go
                    continue


def create(settings: Settings) -> Application:
    return Application(settings)


def create_twice_dying(settings: Settings) -> Application:
    """Make the application, unless this is one of the first two processes that try."""
    tries = settings.data_dir / "tries"
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Application(settings)


def create_unless_broken(settings: Settings) -> Application:
    if (Path(settings.data_dir) / "broken").exists():
        raise ConfigError("it is broken")
    return Application(settings)


def refuse(settings: Settings) -> Application:
    """Stands for `app.main.create_app` with settings that no service can be built from."""
    raise ConfigError("CTR_DEVICE=cuda, but there is none")
