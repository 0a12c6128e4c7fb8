"""`Supervisor`: keeps the workers of a service running, replaces them on SIGHUP and stops them.

It never imports the application, which would cost it the memory of torch: a fork server does that once, and forks a
worker in no time whenever one is wanted. All decisions are made in one loop, by comparing the workers that there are
with those that there should be.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from app.errors import ConfigError, CtrError
from app.observability.all_processes import drop_worker
from app.runtime.processes.fork_server import ForkServer
from app.runtime.processes.kernel import adopt_orphans
from app.runtime.processes.orphans import OrphanReaper
from app.runtime.processes.stop_signals import StopSignals
from app.runtime.processes.worker_process import WorkerProcess
from app.settings import Settings

log = structlog.get_logger(__name__)

POLL_S = 0.1
START_TIMEOUT_S = 60.0
"""How long a worker may be silent before it listens: importing and building an application can take the whole of its
event loop, or come before there is one."""
KILL_AFTER_GRACE_S = 0.25
"""How long after the grace a worker that has not ended is killed."""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 1.0, 30.0
"""How long the next start waits after a worker that ended before it listened; doubled each time."""


class Supervisor:
    """The parent of the workers."""

    def __init__(self, settings: Settings, factory: str) -> None:
        self._settings, self._factory = settings, factory
        self._fork_server: ForkServer | None = None
        self._workers: list[WorkerProcess] = []
        self._generation = 0
        self._has_listened = False
        self._on_listening: Callable[[], None] = lambda: None
        self._start_after, self._backoff_s = 0.0, FIRST_BACKOFF_S
        self._ticked_at = time.monotonic()
        self._orphans = OrphanReaper()

    def run(self, on_listening: Callable[[], None]) -> None:
        """Run until SIGINT or SIGTERM; then drain the workers and return once they have ended.

        Raises:
            ConfigError: the first workers find the settings wrong.
            CtrError: the application cannot be imported.
        """
        self._on_listening = on_listening
        adopt_orphans()
        with StopSignals() as signals:
            try:
                while not signals.stop:
                    if signals.take_restart():
                        self._generation += 1
                        log.info("rolling_restart", workers=len(self._workers))
                    self._tick()
                    self._replace_fork_server()
                    self._start_missing()
                    self._retire_old()
                self._drain(signals)
            finally:
                self._stop(signals)

    def _tick(self) -> None:
        """Wait for a moment, hear what the workers say, and see to those that hang or have ended."""
        time.sleep(POLL_S)
        now = time.monotonic()
        # What this process has not lived through, stopped or starved itself, cannot be held against a worker.
        passed, self._ticked_at = min(now - self._ticked_at, 2 * POLL_S), now
        for worker in list(self._workers):
            was_listening = worker.listening
            worker.silent_s += passed
            worker.receive()
            if worker.listening and not was_listening:
                self._on_worker_listening(worker)
            if worker.ended:
                self._on_worker_ended(worker)
            elif worker.kill_at is not None:
                if now > worker.kill_at and not worker.killed:
                    log.warning("worker_not_stopped", worker=worker.number, pid=worker.pid, action="killed")
                    worker.kill()
            elif worker.silent_s > self._allowed_silence_s(worker) and not worker.killed:
                self._kill_silent(worker)
        self._orphans.reap(self._own_children())

    def _allowed_silence_s(self, worker: WorkerProcess) -> float:
        timeout_s = self._settings.worker_timeout_s
        return timeout_s if worker.listening else max(timeout_s, START_TIMEOUT_S)

    def _kill_silent(self, worker: WorkerProcess) -> None:
        seconds = round(worker.silent_s, 1)
        if worker.pid is None:
            log.error("fork_server_hung", silent_s=seconds)
            if self._fork_server is not None:
                self._fork_server.kill()
                self._fork_server = None
            return
        log.error("worker_hung", worker=worker.number, pid=worker.pid, silent_s=seconds, action="killed and replaced")
        worker.kill()

    def _on_worker_listening(self, worker: WorkerProcess) -> None:
        self._backoff_s = FIRST_BACKOFF_S
        log.info("worker_listening", worker=worker.number, pid=worker.pid, ready=worker.ready)
        if not self._has_listened:
            self._has_listened = True
            self._on_listening()
        if not worker.ready and any(old.ready for old in self._old()):
            self._keep_old("the new worker is not ready, and the old ones are")
            worker.stop(self._stop_timeout_s)

    def _on_worker_ended(self, worker: WorkerProcess) -> None:
        """Forget a worker, and say why it ended if it was not told to."""
        self._workers.remove(worker)
        worker.channel.close()
        drop_worker(worker.number)
        if worker.stopping:
            return
        if worker.refusal is not None and not self._has_listened:
            raise ConfigError(worker.refusal)
        if worker.refusal is not None or not worker.killed:
            log.error(
                "worker_died",
                worker=worker.number,
                pid=worker.pid,
                exit_code=worker.exit_code,
                problem=worker.refusal,
            )
        if not worker.listening:
            self._start_after = time.monotonic() + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)
            if worker.generation == self._generation and self._old():
                self._keep_old("the new worker ended before it listened")

    def _active(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if not worker.stopping]

    def _old(self) -> list[WorkerProcess]:
        """Return the workers that a rolling restart has still to replace."""
        return [worker for worker in self._active() if worker.generation < self._generation]

    def _keep_old(self, reason: str) -> None:
        """Give a rolling restart up."""
        log.error("rolling_restart_stopped", reason=reason, kept=len(self._old()))
        for worker in self._old():
            worker.generation = self._generation

    def _start_missing(self) -> None:
        """Start what is missing, and in a rolling restart one more, unless the one before is still stopping."""
        active, old = self._active(), self._old()
        wanted = self._settings.workers + bool(old and len(active) == len(self._workers))
        if self._fork_server is None or time.monotonic() < self._start_after:
            return
        for _ in range(wanted - len(active)):
            taken = {worker.number for worker in self._workers}
            number = next(n for n in range(1, len(taken) + 2) if n not in taken)
            self._workers.append(WorkerProcess(number, self._fork_server.fork_worker(number), self._generation))

    def _retire_old(self) -> None:
        """Stop a worker once there is one more than there should be, and all of them listen."""
        active, old = self._active(), self._old()
        if len(active) > self._settings.workers and all(worker.listening for worker in active):
            (old or active)[0].stop(self._stop_timeout_s)

    def _replace_fork_server(self) -> None:
        """Start the fork server, and again if it ends. Raises CtrError if it ends before it has imported anything."""
        if self._fork_server is not None:
            imported, exit_code = self._fork_server.imported(), self._fork_server.exit_code()
            if exit_code is None:
                return
            if not imported and not self._has_listened:
                raise CtrError(f"{self._factory} cannot be imported; why is said above")
            log.error("fork_server_died", pid=self._fork_server.pid, exit_code=exit_code)
            self._fork_server.kill()
        self._fork_server = ForkServer(self._settings, self._factory)

    def _own_children(self) -> set[int]:
        children = {worker.pid for worker in self._workers if worker.pid is not None}
        return children | ({self._fork_server.pid} if self._fork_server is not None else set())

    @property
    def _stop_timeout_s(self) -> float:
        return self._settings.shutdown_grace_s + KILL_AFTER_GRACE_S

    def _drain(self, signals: StopSignals) -> None:
        """Have the workers say that they are not ready, and go on until whoever sends traffic has noticed."""
        for worker in self._workers:
            worker.drain()
        due = time.monotonic() + self._settings.drain_s
        if self._settings.drain_s:
            log.info("draining", seconds=self._settings.drain_s)
        while time.monotonic() < due and not signals.hurry and any(worker.listening for worker in self._workers):
            self._tick()

    def _stop(self, signals: StopSignals) -> None:
        """Stop the workers, which finish their requests within the grace, and wait until all have ended."""
        if self._fork_server is not None:
            self._fork_server.kill()
            self._fork_server = None
        signals.hurry = False
        for worker in self._workers:
            worker.stop(self._stop_timeout_s)
        while self._workers:
            if signals.hurry:
                for worker in self._workers:
                    worker.kill()
            self._tick()
