"""The contenders, which are the service and its peers, and how each is started."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import redis

from app.features.loading.valkey_server import free_port
from benchmarks.process import Process, running
from benchmarks.testbed import Testbed

OURS, AFTERNOON, WEEK, FLOOR = "ctr", "afternoon", "week", "floor"
NEEDS = {WEEK: ("onnxruntime", "onnx"), "mosec": ("mosec",), "litserve": ("litserve",)}
ALL = (OURS, AFTERNOON, WEEK, FLOOR, "mosec", "litserve")


@dataclass
class Contender:
    """A service under test, with its process and its URL."""

    name: str
    process: Process
    url: str

    @property
    def ranks(self) -> bool:
        """Return whether it ranks; the floor does not."""
        return self.name != FLOOR


def missing_packages(name: str) -> list[str]:
    """Return the packages that this contender needs and that are not installed."""
    return [package for package in NEEDS.get(name, ()) if find_spec(package) is None]


@contextlib.contextmanager
def start_contender(testbed: Testbed, name: str) -> Iterator[Contender]:
    """Start a contender and yield it once it answers."""
    if name == OURS:
        with testbed.service() as (process, url):
            yield Contender(name, process, url)
        return
    if name == WEEK:
        from benchmarks.peers.week import prepare

        catalogue = testbed.catalogue
        with redis.Redis.from_url(testbed.redis_url) as client:
            users = catalogue.values("user", 0, catalogue.users)
            items = catalogue.values("item", 0, catalogue.items)
            prepare(client, testbed.versions["bench"], catalogue.cardinality, users, items)
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.peers.{name}", "--port", str(port), "--redis", testbed.redis_url]
    command += ["--version", str(testbed.versions["bench"]), "--cardinality", str(testbed.catalogue.cardinality)]

    def ready() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    with running(Process(command, testbed.folder / f"{name}.log", core=testbed.service_core)) as process:
        process.wait_until(ready)
        yield Contender(name, process, f"http://127.0.0.1:{port}")
