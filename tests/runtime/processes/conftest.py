"""A service in processes of its own, of one of the small applications."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import waiting
from tests.processes import children_of, has_ended

PATIENCE_S = 120.0
until = functools.partial(waiting.until, seconds=PATIENCE_S)


class Service:
    """A running service, its log, and the processes that it has."""

    def __init__(self, folder: Path, factory: str, **settings: Any) -> None:
        self._log = folder / "log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        settings = {"data_dir": str(folder), "workers": 2, "drain_s": 0, "shutdown_grace_s": 5, **settings}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.run_service", factory, json.dumps(settings)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.temporary)},
                text=True,
            )

    def wait_for_address(self) -> None:
        assert self.process.stdout is not None
        address = self.process.stdout.readline()
        assert address, self.log()
        self.port = int(address.rsplit(":", 1)[1])

    def log(self) -> str:
        return self._log.read_text()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def get(self, path: str = "/") -> str:
        """Return the answer to a request over a connection of its own; the process id for most paths."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def children(self) -> dict[int, str]:
        """Return the process ids and names of its processes, without the supervisor's."""
        return children_of(self.process.pid)

    def listening(self) -> set[int]:
        """Return the process ids of the workers that listen and have not ended, as the log has them."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        said = {line["pid"] for line in lines if line["event"] == "worker_listening"}
        return said & {pid for pid, name in self.children().items() if name.startswith("ctr-worker")}

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a service, by default two workers of the application that `create` makes, and wait until all listen."""
    services: list[Service] = []

    def start(factory: str = "create", *, wait: bool = True, **settings: Any) -> Service:
        service = Service(tmp_path, factory, **settings)
        services.append(service)
        if wait:
            service.wait_for_address()
            until(lambda: len(service.listening()) == settings.get("workers", 2))
        return service

    yield start
    for service in services:
        children = service.children()
        service.process.kill()
        service.process.wait()
        assert service.process.stdout is not None
        service.process.stdout.close()
        for child in children:
            until(lambda child=child: has_ended(child))
