"""The end of a service and the beginning of the next: rolling restarts, a stop signal, a parent that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from app.runtime.processes.metrics_folder import PREFIX
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service
from benchmarks.faults.workers import WORKERS
from benchmarks.process import open_files

RESTARTS = 5
RESTART_S = 30.0
GRACE_S, DRAIN_S = 3.0, 1.0


class RetryingClients(threading.Thread):
    """A few keep-alive clients that send one request after the other, each again once if it gets no answer."""

    CLIENTS = 4

    def __init__(self, service: Service, body: bytes) -> None:
        super().__init__(daemon=True)
        self._service, self._body = service, body
        self._over = threading.Event()
        self.answered = self.retried = self.failed = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        clients = [threading.Thread(target=self._send, daemon=True) for _ in range(self.CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def stop(self) -> None:
        self._over.set()
        self.join(30)

    def _send(self) -> None:
        with httpx.Client(base_url=self._service.url, headers=self._service.headers, timeout=5) as client:
            while not self._over.wait(0.002):
                tries = [self._try(client)]
                if not tries[-1]:
                    tries.append(self._try(client))
                with self._lock:
                    self.answered += tries[-1]
                    self.failed += not tries[-1]
                    self.retried += len(tries) - 1

    def _try(self, client: httpx.Client) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return client.post("/rank", content=self._body).status_code == 200
        return False


def _rolling_restarts(bed: FaultBed) -> Sequence[Check]:
    times = bed.count(RESTARTS, 1)
    with bed.service("rolling", options=WORKERS, both_cores=True) as service:
        service.wait_for_workers(2)
        clients = RetryingClients(service, bed.testbed.bodies(100)[0])
        clients.start()
        took_s = []
        try:
            for _ in range(times):
                before, began = set(service.workers()), time.monotonic()
                os.kill(service.process.pid, signal.SIGHUP)
                while time.monotonic() - began < RESTART_S:
                    now = set(service.workers())
                    if len(now) >= 2 and not now & before:
                        break
                    time.sleep(0.05)
                took_s.append(time.monotonic() - began)
                time.sleep(1.0)
        finally:
            clients.stop()
        alive = service.process.exit_code(0) is None
    late = sum(one >= RESTART_S for one in took_s)
    return [
        Check("the service lives on" if alive else "SIGHUP ended the service", alive),
        Check(
            f"{times} restarts took at most {max(took_s):.1f} s, {late} were not done in {RESTART_S:.0f} s", late == 0
        ),
        Check(
            f"{clients.failed} of {clients.answered + clients.failed:,} requests failed for clients that retry once "
            f"({clients.retried} did)",
            clients.failed == 0 and clients.answered > 0,
        ),
    ]


def _drain(bed: FaultBed) -> Sequence[Check]:
    """Stop a service under load, with an upload that is stuck."""
    settings = {"CTR_SHUTDOWN_GRACE_S": f"{GRACE_S:g}", "CTR_DRAIN_S": f"{DRAIN_S:g}"}
    checks = []
    for options in ((), WORKERS):
        with bed.service(
            f"drain-{len(options)}", options=options, both_cores=bool(options), settings=settings
        ) as service:
            if options:
                service.wait_for_workers(2)
            pids = service.process.pids
            folders = _metric_folders(pids)
            checks += [
                Check(f"{'2 workers' if options else '1 process'}: {check.seen}", check.ok, check.timed)
                for check in [*_stop(bed, service), *_left_behind(pids, folders)]
            ]
    return checks


def _stop(bed: FaultBed, service: Service) -> list[Check]:
    with socket.create_connection(("127.0.0.1", service.port)) as stuck, bed.load(service, share=0.1) as load:
        head = f"POST /rank HTTP/1.1\r\nHost: a\r\nX-API-Key: {bed.secrets.key}\r\nContent-Length: 100\r\n\r\n{{"
        stuck.sendall(head.encode())
        time.sleep(1.0)
        began = time.perf_counter()
        os.kill(service.process.pid, signal.SIGTERM)
        ready = _ready_while_draining(service, DRAIN_S)
        code = service.process.exit_code(GRACE_S + DRAIN_S + 10)
        took_s = time.perf_counter() - began
    draining = load.timeline.between(began, began + 0.8 * DRAIN_S)
    return [
        Check(
            f"exit {code} after {took_s:.1f} s (at most {DRAIN_S:g} s of draining, {GRACE_S:g} s of grace and 1)",
            code == 0 and took_s <= DRAIN_S + GRACE_S + 1,
        ),
        Check(f"/health/ready while draining: {ready or 'no answer'}", bool(ready) and set(ready) == {503}),
        Check(
            f"{draining.failed} of {len(draining)} requests failed while draining",
            draining.failed == 0 and len(draining) > 0,
        ),
    ]


def _ready_while_draining(service: Service, seconds: float) -> list[int]:
    """Return the answers that new connections get in this time; 0 for none."""
    answers, until = [], time.monotonic() + 0.8 * seconds
    time.sleep(0.15 * seconds)
    while time.monotonic() < until:
        try:
            answers.append(service.get("/health/ready", timeout=2).status_code)
        except httpx.HTTPError:
            answers.append(0)
        time.sleep(0.05)
    return answers


def _killed_parent(bed: FaultBed) -> Sequence[Check]:
    """Kill the parent alone: its workers and its files have to go too."""
    with bed.service("orphans", options=WORKERS, both_cores=True) as service:
        service.wait_for_workers(2)
        pids = service.process.pids
        folders = _metric_folders(pids)
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.exit_code(5)
        return _left_behind(pids, folders, within_s=3.0)


def _left_behind(pids: list[int], folders: set[Path], within_s: float = 1.0) -> list[Check]:
    until = time.monotonic() + within_s
    while (alive := [pid for pid in pids if _runs(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    left = [folder.name for folder in folders if folder.exists()]
    return [
        Check(f"{len(alive)} of {len(pids)} processes live on {within_s:g} s later", not alive),
        Check(f"{len(left)} of {len(folders)} folders of metrics left", bool(folders) and not left),
    ]


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _metric_folders(pids: list[int]) -> set[Path]:
    """Return the folders of metrics that these processes have open; other services have theirs beside them."""
    paths = [Path(name) for pid in pids for name in open_files(pid)]
    return {path for path in paths if path.name.startswith(PREFIX)}


ROWS = (
    Row(
        "drain",
        "SIGTERM under load with a stuck upload",
        "ready says 503 while still accepting for the drain time; exit within that, grace and 1 s; nothing left behind",
        _drain,
        "found",
    ),
    Row("orphans", "the parent of two workers killed", "nothing left behind", _killed_parent, "found"),
    Row(
        "rolling-restarts",
        "5 rolling restarts under load",
        "0 failed for a client that retries once",
        _rolling_restarts,
    ),
)
