"""`EventWriter` is the thread of a worker that takes records from the queue and writes them to segments.

Several times a second it appends what there is to spool files, which outlive the worker; about once a minute these
become finished segments. What it cannot write, because the disk is full say, stays in the queue, which is bounded.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from app.events.delivery.spool_limit import SpoolLimit
from app.events.event_queue import EventQueue
from app.events.impression_id import encode, now_ms
from app.events.outcome_counts import OutcomeCounts
from app.events.records import ITEMS, KINDS, Feedback, ImpressionBlock, Record, kind_of, recorded_at_us
from app.events.retention import Retention
from app.events.segment import segment_name, write_segment
from app.events.spool import SPOOL, SUFFIX, SpoolFile, first_record, hold_lock, orphans, read_spool, unread_bytes
from app.observability.logs import LogThrottle
from app.runtime.durable_file import replace_file
from app.runtime.thread_priority import yield_to_requests

APPEND_EVERY_S = 0.4
"""A worker that is killed loses the records of so many seconds at most, while the disk keeps up."""
APPEND_AT_ONCE = 512
"""Records that are appended at once, after which requests may take the interpreter."""
RETRY_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class EventWriter:
    """Writes records below a folder. One per process."""

    def __init__(
        self,
        queue: EventQueue,
        folder: Path,
        *,
        segment_s: float = 60.0,
        segment_bytes: int = 64 << 20,
        retention: Retention | None = None,
        limit: SpoolLimit | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            queue: where the records come from.
            folder: of the log; it is created.
            segment_s, segment_bytes: the age and the size from which on spool files become finished segments.
            retention: which finished segments are deleted again.
            limit: of what waits in the folder to be delivered elsewhere; None where the folder is the log.
        """
        self.written: Counter[str] = Counter()
        """Records in finished segments or spool files, by kind."""
        self.lost: Counter[str] = Counter()
        """Records that could not be read back from a spool file, or were deleted with one, by kind."""
        self.outcomes = OutcomeCounts()
        self.observers: list[Callable[[Sequence[ImpressionBlock | Feedback]], None]] = []
        """Told, on the writer's thread, of impressions and new feedback once they are written."""
        self._throttle = LogThrottle()
        self.problem = ""
        """Why nothing can be written now; empty while it can."""
        self._queue = queue
        self._folder = folder
        self._spool = folder / SPOOL
        self._segment_s = segment_s
        self._segment_bytes = segment_bytes
        self._retention = retention or Retention()
        self._limit = limit
        self._now_s = now_s
        self._worker = encode(now_ms(), 10) + encode(int.from_bytes(os.urandom(5)), 8)
        self._lock = self._spool / f"{self._worker}.lock"
        self._number = 0
        self._open: dict[str, SpoolFile] = {}
        self._opened_s = 0.0
        self._first_us: dict[Path, int] = {}
        self._closed: list[SpoolFile] = []
        self._left: dict[str, list[Record]] = {}
        """Taken from the queue and not written yet, by kind."""
        self._beside: deque[tuple[str, bytes]] = deque()
        """Small files to write beside the records, with their names below the folder."""
        self._written_beside: dict[str, bytes] = {}
        """Those that were written, to be written again where the folder is deleted."""
        self._lock_descriptor: int | None = None
        self._adopts_at_s: float | None = 0.0
        """When what killed workers left is finished, or tried again; None once it is."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="event-writer", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Write what is in the queue, finish the segments and end the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)

    def put_file(self, name: str, content: bytes) -> None:
        """Have a small file written below the folder, unless it is there already."""
        self._beside.append((name, content))

    def _run(self) -> None:
        yield_to_requests()
        while not self._stopping.wait(RETRY_EVERY_S if self.problem else APPEND_EVERY_S):
            self._attempt(self._turn)
        self._attempt(lambda: self._turn(last=True))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # of whatever kind: the thread lives on, and the queue is bounded
            if not self.problem:
                log.error(
                    "events_not_written",
                    folder=str(self._folder),
                    error=str(error),
                    exc_info=not isinstance(error, OSError),
                )
            self.problem = str(error) or type(error).__name__
        else:
            if self.problem:
                log.info("events_written_again", folder=str(self._folder))
            self.problem = ""

    def _turn(self, *, last: bool = False) -> None:
        """Append what is in the queue; finish the segments that are old or large enough, or all of them."""
        self._hold_spool()
        while self._beside:
            self._write_beside(*self._beside[0])
            self._beside.popleft()
        self._give_up_deleted()
        full = self._limit is not None and self._limit.is_full
        if not full:
            self._append_all()
        if self._open and (last or full or self._is_due()):
            self._close()
        self._finish_closed()
        if last:
            self._lock.unlink(missing_ok=True)
        if self._adopts_at_s is not None and self._now_s() >= self._adopts_at_s:
            self._adopt()
        if full:
            raise OSError("the spool is full of files that are not delivered yet: see events_not_delivered")

    def _hold_spool(self) -> None:
        """Make the spool and hold this worker's lock in it; again where somebody has deleted them."""
        if self._lock_descriptor is not None:
            if self._lock.exists():
                return
            os.close(self._lock_descriptor)
            self._lock_descriptor = None
            self._beside.extendleft(self._written_beside.items())
            self._queue.items_are_lost = True
        self._spool.mkdir(parents=True, exist_ok=True)
        self._lock_descriptor = hold_lock(self._spool, self._worker)

    def _give_up_deleted(self) -> None:
        """Count the records of spool files that somebody has deleted as lost, and go on without these files."""
        for file in [*self._open.values(), *self._closed]:
            if file.path.exists():
                continue
            if self._open.get(file.kind) is file:
                self._open.pop(file.kind).close()
            else:
                self._closed.remove(file)
            del self._first_us[file.path]
            self.lost[file.kind] += file.rows
            self._queue.items_are_lost |= file.kind == ITEMS
            log.error("events_deleted", file=str(file.path), records=file.rows)

    def _adopt(self) -> None:
        """Finish what killed workers left; what cannot be finished keeps nobody's records from being written."""
        self._adopts_at_s = None
        try:
            finish_orphans(self._folder)
        except Exception as error:  # of whatever kind, as in `_attempt`
            self._adopts_at_s = self._now_s() + self._segment_s
            log.error("events_left_unfinished", folder=str(self._folder), error=str(error) or type(error).__name__)

    def _is_due(self) -> bool:
        age_s = self._now_s() - self._opened_s
        return age_s >= self._segment_s or sum(file.size for file in self._open.values()) >= self._segment_bytes

    def _append_all(self) -> None:
        for _ in range(self._queue.limit // APPEND_AT_ONCE + 1):
            if not self._left:
                by_kind: dict[str, list[Record]] = defaultdict(list)
                for record in self._queue.take(APPEND_AT_ONCE):
                    by_kind[kind_of(record)].append(record)
                self._left = dict(by_kind)
            if not self._left:
                return
            for kind in KINDS:
                records = self._left.get(kind)
                if records:
                    self.written[kind] += self._file(kind, recorded_at_us(records[0])).append(records)
                    del self._left[kind]
                    if counted := self.outcomes.add(records):
                        self._tell(counted)
            time.sleep(0)  # others may have the interpreter

    def _tell(self, counted: Sequence[ImpressionBlock | Feedback]) -> None:
        for observer in self.observers:
            try:
                observer(counted)
            except Exception as error:  # what is written is written, and the other observers are told
                if self._throttle.admits():
                    log.error("events_observer_failed", exc_info=error)

    def _file(self, kind: str, first_at_us: int) -> SpoolFile:
        file = self._open.get(kind)
        if file is None:
            if not self._open:
                self._number += 1
                self._opened_s = self._now_s()
            path = self._spool / f"{self._worker}-{self._number}.{kind}{SUFFIX}"
            file = self._open[kind] = SpoolFile(path, kind)
            self._first_us[path] = first_at_us
        return file

    def _close(self) -> None:
        """Close the open files; `_finish_closed` makes segments of them."""
        for kind in KINDS:
            if (file := self._open.pop(kind, None)) is not None:
                file.close()
                self._closed.append(file)

    def _finish_closed(self) -> None:
        finished = bool(self._closed)
        while self._closed:
            file = self._closed[0]
            rows = finish(self._folder, file.path, file.kind, self._first_us[file.path])
            self.lost[file.kind] += file.rows - rows
            del self._first_us[file.path], self._closed[0]
        if finished:
            self._retention.apply(self._folder, datetime.fromtimestamp(self._now_s(), UTC))

    def _write_beside(self, name: str, content: bytes) -> None:
        path = self._folder / name
        self._written_beside[name] = content
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            replace_file(path, content)


def finish(folder: Path, path: Path, kind: str, first_at_us: int) -> int:
    """Make a finished segment of a spool file and delete the file; returns the records. Raises OSError."""
    file = path.name.removesuffix(f".{kind}{SUFFIX}")
    rows = write_segment(folder, segment_name(kind, first_at_us, file), read_spool(path, kind))
    path.unlink()
    return rows


def finish_orphans(folder: Path) -> int:
    """Make finished segments of what killed workers have left below a folder; return the records.

    Raises the error of a worker whose files could not be finished, once those of the others are.
    """
    rows = 0
    spool = folder / SPOOL
    if not spool.is_dir():
        return 0
    failed: Exception | None = None
    with orphans(spool) as found:
        for files in found:
            try:
                rows += sum(_finish_orphan(folder, path, kind) for path, kind in files)
            except Exception as error:  # of whatever kind; what refers to items is not finished before them
                failed = error
    if failed is not None:
        raise failed
    return rows


def _finish_orphan(folder: Path, path: Path, kind: str) -> int:
    if lost := unread_bytes(path):
        log.warning("events_cut_off", file=str(path), bytes=lost)
    first = first_record(path, kind)
    if first is None:
        path.unlink()
        return 0
    return finish(folder, path, kind, recorded_at_us(first))
