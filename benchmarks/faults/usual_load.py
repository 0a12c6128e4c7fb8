"""`UsualLoad`: honest requests at a fixed rate from a process of its own, which no fault's injection slows down.

`python -m benchmarks.faults.usual_load` is that process: it reads one line, its task, sends until its input ends, and
then writes the rows of a `Timeline`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.faults.timeline import COLUMNS, Timeline

BEGIN_S = 20.0
SENDING = b"sending\n"


class LoadTask(msgspec.Struct):
    """What the process sends, and where."""

    url: str
    bodies: list[bytes]
    headers: dict[str, str]
    rate: float
    connections: int
    goes_first: bool
    """Whether the load goes before all other work of its core, where the system allows."""
    store_pids: list[int]
    """Processes that do so too."""
    secrets: list[bytes]
    """What no answer may hold."""


class UsualLoad:
    """Sends for as long as the block lasts: `with UsualLoad(task) as load: ...; load.timeline`."""

    def __init__(self, task: LoadTask) -> None:
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        self.timeline = Timeline.of_rows(np.empty((0, COLUMNS)))
        """What came back; there once the block has ended."""
        self.leaks = 0
        """Number of answers that held a secret."""

    @property
    def rate(self) -> float:
        return self._task.rate

    def __enter__(self) -> UsualLoad:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.usual_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(self._task) + b"\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != SENDING:
            raise SystemExit("error: the usual load does not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self.leaks = int(self._process.stdout.readline() or b"0")
        rows = np.frombuffer(self._process.stdout.read(), np.float64).reshape(-1, COLUMNS)
        self.timeline = Timeline.of_rows(rows)
        if self._process.wait(60) and kind is None:
            raise SystemExit("error: the usual load failed")


def _send(task: LoadTask) -> None:
    import uvloop

    from benchmarks.machine import realtime_priority
    from benchmarks.soak.recording import RecordedLoad, Recording

    class Watched(Recording):
        leaks = 0

        def add(self, due: float, status: int, body: bytes) -> None:
            super().add(due, status, body)
            if any(secret in body for secret in task.secrets):
                self.leaks += 1

    stop = threading.Event()
    recording = Watched()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        stop.set()

    def tell_that_it_sends() -> None:
        due = time.monotonic() + BEGIN_S
        while not recording.due_s and time.monotonic() < due and not stop.is_set():
            time.sleep(0.01)
        sys.stdout.buffer.write(SENDING)
        sys.stdout.buffer.flush()

    for target in (wait_for_the_end, tell_that_it_sends):
        threading.Thread(target=target, daemon=True).start()
    load = RecordedLoad(task.url, task.bodies, headers=task.headers)
    with realtime_priority(*task.store_pids) if task.goes_first else contextlib.nullcontext():
        uvloop.run(load.recorded(task.rate, stop.is_set, connections=task.connections, recording=recording))
    rows = np.array([recording.due_s, recording.done_s, recording.status, recording.is_degraded], np.float64).T
    # A file of its own: with PYTHONUNBUFFERED standard output writes as much as a pipe takes at once, and no more.
    with open(1, "wb", closefd=False) as output:
        output.write(b"%d\n" % recording.leaks)
        output.write(np.ascontiguousarray(rows).tobytes())


if __name__ == "__main__":
    _send(msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadTask))
