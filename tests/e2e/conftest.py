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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.features.loading.embedded_valkey import EmbeddedValkey
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.store.model_store import ModelStore
from tests import loopback
from tests.factories import MODEL_NAME, publish_tiny, raw_items, raw_users, redis_text
from tests.processes import children_of

START_S = 60.0
PATIENT = {"CTR_REDIS_TIMEOUT_MS": "5000", "CTR_DEADLINE_MS": "20000", "CTR_MAX_WAIT_MS": "20000"}
"""A busy machine holds a store up for longer than a service should wait for it; who tests the waiting sets his own."""
SHARED_USERS, SHARED_ITEMS = 200, 1000


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
                if match := re.search(r"serving \S+ on (http://\S+)", line):
                    self.url = match[1]
                    self._address.set()

    def wait_for_address(self) -> None:
        assert self._address.wait(START_S), "".join(self.log)

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = START_S) -> dict[str, Any]:
        """Poll /health until the condition holds."""
        due = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < due:
            with contextlib.suppress(httpx.HTTPError):
                last = loopback.get(f"{self.url}/health").json()
                if holds(last):
                    return last  # type: ignore[no-any-return]
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.05)
        raise AssertionError(f"/health stayed {last}\n" + "".join(self.log[-20:]))

    def rank(self, user: str = "4", items: list[str] | None = None, **extra: Any) -> httpx.Response:
        body = {"user_id": user, "item_ids": items or [str(n) for n in range(20)], **extra}
        return loopback.post(f"{self.url}/rank", json=body)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        code = self.process.wait(60)
        self._reader.join(30)
        return code


Serve = Callable[..., Running]


def workers_of(service: Running) -> list[int]:
    """Return the processes that answer; others of the service start and watch them."""
    return [pid for pid, name in children_of(service.process.pid).items() if name.startswith("ctr-worker")]


@contextmanager
def services(store: ModelStore, valkey_url: str, data_dir: Path) -> Iterator[Serve]:
    """Start services; options of `ctr serve` as arguments, settings as keywords (`POLL_S="0.1"`).

    `under` is a command that runs the service and becomes it, as `setpriv` does.
    """
    started: list[Running] = []

    def start(*options: str, wait: bool = True, under: Sequence[str] = (), **settings: str) -> Running:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
        environment |= {
            "CTR_REDIS_URL": valkey_url,
            "CTR_MODEL_STORE": str(store.folder.parent),
            "CTR_MODEL": store.name,
            "CTR_POLL_S": "0.1",
            "CTR_DATA_DIR": str(data_dir),
            "CTR_DRAIN_S": "0",
            "PYTHONUNBUFFERED": "1",
            **PATIENT,
            **{f"CTR_{name}": value for name, value in settings.items()},
        }
        process = subprocess.Popen(
            [*under, sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", "0", *options],
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

    try:
        yield start
    finally:
        for running in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.stop()
            if running.process.poll() is None:
                running.stop(signal.SIGKILL)


@pytest.fixture
def serve(store: ModelStore, valkey_url: str, tmp_path: Path) -> Iterator[Serve]:
    with services(store, valkey_url, tmp_path / "data") as start:
        yield start


def fill(client: redis.Redis, users: Mapping[str, dict[str, Any]], items: Mapping[str, dict[str, Any]]) -> None:
    with client.pipeline() as pipeline:
        for kind, entities in (("user", users), ("item", items)):
            for number, raw in entities.items():
                pipeline.hset(f"ctr:v1:{kind}:{number}", mapping=redis_text(raw))
        pipeline.execute()


@pytest.fixture
def loaded(redis_client: redis.Redis) -> redis.Redis:
    """Load the factories' users and items into Valkey."""
    fill(redis_client, raw_users(), raw_items())
    return redis_client


@dataclass(frozen=True)
class Shared:
    service: Running
    features: redis.Redis
    artifact: Artifact
    model_store: ModelStore


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """One service with a Valkey of its own, for the tests that only ask it: a start costs seconds.

    Who writes features takes ids that no other test asks for, or leaves them as they were. The first SHARED_USERS
    users and SHARED_ITEMS items are the factories'.
    """
    folder = tmp_path_factory.mktemp("shared")
    store = ModelStore(folder / "model_store", MODEL_NAME)
    publish_tiny(store)
    with (
        EmbeddedValkey(folder / "valkey") as valkey,
        redis.Redis.from_url(valkey.url, decode_responses=True) as features,
    ):
        fill(features, raw_users(SHARED_USERS), raw_items(SHARED_ITEMS))
        with services(store, valkey.url, folder / "data") as start:
            yield Shared(start(), features, load(store.path(1)), store)
