"""Who is measured: the service and its peers, each a name and how it is started."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import redis

from benchmarks.process import Process, free_port, running
from benchmarks.stage import Stage

OURS, AFTERNOON, WEEK, FLOOR = "ctr", "afternoon", "week", "floor"
NEEDS = {WEEK: ("onnxruntime", "onnx"), "mosec": ("mosec",), "litserve": ("litserve",)}
ALL = (OURS, AFTERNOON, WEEK, FLOOR, "mosec", "litserve")


@dataclass
class Contender:
    name: str
    process: Process
    url: str

    @property
    def ranks(self) -> bool:
        return self.name != FLOOR


def missing(name: str) -> list[str]:
    """Packages this contender needs that are not installed."""
    return [package for package in NEEDS.get(name, ()) if find_spec(package) is None]


@contextlib.contextmanager
def started(stage: Stage, name: str) -> Iterator[Contender]:
    """A contender that answers."""
    if name == OURS:
        with stage.service() as (process, url):
            yield Contender(name, process, url)
        return
    if name == WEEK:
        from benchmarks.peers.week import prepare

        catalogue = stage.catalogue
        with redis.Redis.from_url(stage.redis_url) as client:
            users = catalogue.values("user", 0, catalogue.users)
            items = catalogue.values("item", 0, catalogue.items)
            prepare(client, stage.versions["bench"], catalogue.cardinality, users, items)
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.peers.{name}", "--port", str(port), "--redis", stage.redis_url]
    command += ["--version", str(stage.versions["bench"]), "--cardinality", str(stage.catalogue.cardinality)]

    def ready() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    with running(Process(command, stage.folder / f"{name}.log", core=stage.service_core)) as process:
        process.wait_until(ready)
        yield Contender(name, process, f"http://127.0.0.1:{port}")
