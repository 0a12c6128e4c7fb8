"""`Shipper` is the thread that delivers finished files of the spool, the oldest first, and deletes them here.

One process of a machine does it for all, the holder of a lock; if it ends, another takes over, with what it has left.
While the destination is away it tries again, at growing distances; what has no room in the spool meanwhile is dropped
by the queue and counted there.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from app.events.delivery.log_destination import DeliveryError, LogDestination
from app.events.logged_schema import SCHEMAS
from app.events.records import KINDS
from app.events.segment import segments
from app.runtime.file_lock import try_lock
from app.runtime.thread_priority import yield_to_requests

LOCK = ".delivering.lock"
LOOK_EVERY_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
LAST_S = 5.0
"""Time for what is left when the process ends; the next one delivers the rest."""
EMPTY_AFTER = timedelta(days=2)
"""Age from which on the empty folder of an hour is deleted: nobody writes into it any more."""

log = structlog.get_logger(__name__)


class Shipper:
    """Delivers the finished files below a folder. One per process."""

    def __init__(
        self,
        folder: Path,
        open_destination: Callable[[], LogDestination],
        *,
        place: str = "",
        look_every_s: float = LOOK_EVERY_S,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        """
        Args:
            folder: the spool, laid out as a log.
            open_destination: called once there is something to deliver, and again after a failure.
            place: where it goes, in words for the log.
        """
        self.outcomes: Counter[str] = Counter()
        """Files `delivered`, and attempts that `failed`."""
        self.problem = ""
        """Why nothing can be delivered now; empty while it can."""
        self._folder = folder
        self._open = open_destination
        self._place = place
        self._look_every_s = look_every_s
        self._first_wait_s = first_wait_s
        self._destination: LogDestination | None = None
        self._lock: int | None = None
        self._failures = 0
        self._stopping = threading.Event()
        self._last_s = float("inf")
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="event-shipper", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = LAST_S) -> None:
        """Deliver what is left, for so long at most, and end the thread."""
        self._last_s = time.monotonic() + timeout_s
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        yield_to_requests()
        while not self._stopping.wait(self._wait_s()):
            self._attempt()
        self._attempt()
        self._close()
        if self._lock is not None:
            os.close(self._lock)

    def _wait_s(self) -> float:
        if not self._failures:
            return self._look_every_s
        longest: float = min(self._first_wait_s * 2.0 ** min(self._failures - 1, 20), LONGEST_WAIT_S)
        return longest * (0.5 + random.random() / 2)

    def _attempt(self) -> None:
        try:
            if self._may_deliver():
                self._deliver_all()
        except Exception as error:  # of whatever kind: the thread lives on, and the spool is bounded
            self._failures += 1
            self.outcomes["failed"] += 1
            if not self.problem:
                known = isinstance(error, DeliveryError | OSError)
                log.error("events_not_delivered", place=self._place, error=str(error), exc_info=not known)
            self.problem = str(error) or type(error).__name__
            self._close()
        else:
            if self.problem:
                log.info("events_delivered_again", place=self._place)
            self._failures, self.problem = 0, ""

    def _may_deliver(self) -> bool:
        """Tell whether this process is the one that delivers."""
        if self._lock is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not try_lock(descriptor):
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def _deliver_all(self) -> None:
        for name, path in self._files():
            if time.monotonic() > self._last_s:
                return
            if self._destination is None:
                self._destination = self._open()
            try:
                self._destination.deliver(name, path)
            except FileNotFoundError:  # it was taken out, by hand say
                continue
            path.unlink(missing_ok=True)
            self.outcomes["delivered"] += 1
        self._delete_empty()

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Yield names and paths: schemas, items, and then what refers to them."""
        for path in sorted((self._folder / SCHEMAS).glob("*.json")):
            yield f"{SCHEMAS}/{path.name}", path
        for kind in KINDS:
            for name, path in segments(self._folder, kind):
                yield str(name), path

    def _delete_empty(self) -> None:
        oldest = datetime.now(UTC) - EMPTY_AFTER
        for folder in (hour for kind in KINDS for hour in (self._folder / kind).glob("date=*/hour=*")):
            with contextlib.suppress(OSError):
                if datetime.fromtimestamp(folder.stat().st_mtime, UTC) < oldest:
                    folder.rmdir()
                    folder.parent.rmdir()

    def _close(self) -> None:
        if self._destination is not None:
            with contextlib.suppress(Exception):
                self._destination.close()
            self._destination = None
