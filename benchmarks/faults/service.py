"""`Service`: a running `ctr serve`, as its operator and the kernel see it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.faults.secrets import Secrets
from benchmarks.process import Process, open_files

ESTABLISHED, LISTENING = "01", "0A"
PATIENCE_S = 60.0


@dataclass
class Service:
    """A service under test."""

    process: Process
    url: str
    log: Path
    secrets: Secrets
    client: httpx.Client = field(default_factory=lambda: one_request_a_connection(), repr=False)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def headers(self) -> dict[str, str]:
        """What an honest client sends."""
        return {"X-API-Key": self.secrets.key}

    def get(self, path: str, *, timeout: float = 10) -> httpx.Response:
        """Ask over a connection of its own. Raises httpx.HTTPError."""
        answer = self.client.get(self.url + path, headers=self.headers, timeout=timeout)
        self.secrets.look(answer.content, path)
        return answer

    def rank(
        self, user: str, items: list[str], *, timeout_ms: float | None = None, timeout: float = 10, **extra: Any
    ) -> httpx.Response:
        """Send one request over a connection of its own. Raises httpx.HTTPError."""
        headers = self.headers | ({} if timeout_ms is None else {"X-Request-Timeout-Ms": str(timeout_ms)})
        body = {"user_id": user, "item_ids": items, **extra}
        answer = self.client.post(f"{self.url}/rank", json=body, headers=headers, timeout=timeout)
        self.secrets.look(answer.content, "/rank")
        return answer

    def health(self) -> dict[str, Any]:
        return dict(self.get("/health").json())

    def metrics(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return the samples of a metric, by their sorted labels."""
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name
        }

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples; 0 if there are none."""
        return sum(self.metrics(name).values())

    def holds_within(self, holds: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_S) -> float | None:
        """Return the seconds until /health is as it should be; None if it does not become so."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                if holds(self.health()):
                    return time.monotonic() - began
            time.sleep(0.05)
        return None

    def wait_for_workers(self, count: int, seconds: float = PATIENCE_S) -> None:
        """Wait until so many processes listen and 20 answers in a row are ok. Raises SystemExit if they do not."""
        due, in_a_row = time.monotonic() + seconds, 0
        while in_a_row < 20:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                ok = len(self.workers()) >= count and self.health()["status"] == "ok"
                in_a_row = in_a_row + 1 if ok else 0
            if time.monotonic() > due:
                raise SystemExit(f"error: {count} workers do not become ready")
            time.sleep(0.02)

    def workers(self) -> list[int]:
        """Return the ids of the processes that listen."""
        listening = {inode for inode, state in self._sockets() if state == LISTENING}
        return [pid for pid in self.process.pids if listening & sockets_of(pid)]

    def connections_of(self, pid: int) -> int:
        """Return how many connections a worker has, those included that it did not accept yet.

        Connections that wait to be accepted belong to no process: all that no other worker has count as this one's.
        """
        elsewhere = set[int]().union(*(sockets_of(other) for other in self.process.pids if other != pid))
        return sum(state == ESTABLISHED and inode not in elsewhere for inode, state in self._sockets())

    def connections(self) -> int:
        """Return how many connections clients have."""
        return sum(state == ESTABLISHED for _, state in self._sockets())

    def log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def _sockets(self) -> Iterator[tuple[int, str]]:
        """Yield inode and state of the sockets whose local port is the service's."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if int(words[1].rsplit(":", 1)[1], 16) == self.port:
                yield int(words[9]), words[3]


def one_request_a_connection() -> httpx.Client:
    """Return a client that opens a connection for each request; making a client costs more than its requests."""
    return httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), verify=False)  # loopback


def sockets_of(pid: int) -> set[int]:
    """Return the inodes of a process's sockets."""
    return {int(name[8:-1]) for name in open_files(pid) if name.startswith("socket:[")}
