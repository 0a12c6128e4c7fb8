"""Real processes: `ctr serve` as a user starts it, a real Valkey, files on disk."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.registry.model_store import ModelStore
from tests.factories import raw_items, raw_users, redis_text

START_S = 60.0


class Running:
    """One `ctr serve`, its log, and a client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self._address = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if found := re.search(r"serving \S+ on (http://\S+)", line):
                    self.url = found[1]
                    self._address.set()

    def wait_for_address(self) -> None:
        assert self._address.wait(START_S), "".join(self.log)

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = START_S) -> dict[str, Any]:
        """Poll /health until it says what is wanted."""
        due = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < due:
            with contextlib.suppress(httpx.HTTPError):
                last = httpx.get(f"{self.url}/health", timeout=5).json()
                if holds(last):
                    return last  # type: ignore[no-any-return]
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.05)
        raise AssertionError(f"/health stayed {last}\n" + "".join(self.log[-20:]))

    def rank(self, user: str = "4", items: list[str] | None = None, **extra: Any) -> httpx.Response:
        body = {"user_id": user, "item_ids": items or [str(n) for n in range(20)], **extra}
        return httpx.post(f"{self.url}/rank", json=body, timeout=10)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        code = self.process.wait(30)
        self._reader.join(10)
        return code


Serve = Callable[..., Running]


@pytest.fixture
def serve(store: ModelStore, valkey_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Start services; options of `ctr serve` as arguments, settings as keywords (`POLL_S="0.1"`)."""
    started: list[Running] = []

    def start(*options: str, wait: bool = True, **settings: str) -> Running:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
        environment |= {
            "CTR_REDIS_URL": valkey_url,
            "CTR_MODEL_STORE": str(store.folder.parent),
            "CTR_MODEL": store.name,
            "CTR_POLL_S": "0.1",
            "CTR_REDIS_TIMEOUT_MS": "200",
            "CTR_DATA_DIR": str(tmp_path / "data"),
            "PYTHONUNBUFFERED": "1",
            **{f"CTR_{name}": value for name, value in settings.items()},
        }
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", "0", *options],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        running = Running(process)
        started.append(running)
        running.wait_for_address()
        if wait:
            running.wait_until(lambda health: health["status"] == "ok")
        return running

    yield start
    for running in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.stop()
        if running.process.poll() is None:
            running.stop(signal.SIGKILL)


@pytest.fixture
def loaded(redis_client: redis.Redis) -> redis.Redis:
    """The factories' users and items, in Valkey."""
    for number, raw in raw_users().items():
        redis_client.hset(f"ctr:v1:user:{number}", mapping=redis_text(raw))
    for number, raw in raw_items().items():
        redis_client.hset(f"ctr:v1:item:{number}", mapping=redis_text(raw))
    return redis_client
