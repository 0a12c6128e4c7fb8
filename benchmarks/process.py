"""`Process`: a process under test, which is started on its core, waited for, stopped and continued."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.machine import core_seconds, cpu_seconds, pinned

START_S = 180.0
"""Long, because a machine that does much else takes a minute where a quiet one takes five seconds."""
STOP_S = 15.0


def ctr() -> str:
    """Return the path of this environment's console script."""
    script = Path(sys.executable).with_name("ctr")
    return str(script) if script.exists() else shutil.which("ctr") or "ctr"


class Process:
    """A service and all processes that it starts, in a session of their own."""

    def __init__(
        self, command: list[str], log: Path, *, core: set[int], environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self.name = log.stem
        self.core = core
        with pinned(core), log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The ids of this process and its descendants."""
        pids = [self.pid]
        for pid in pids:  # grows meanwhile
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    pids += map(int, (task / "children").read_text().split())
        return pids

    def resident_mb(self) -> float:
        """Return the resident memory of all its processes, file pages included."""
        return sum(_resident_kb(pid) for pid in self.pids) / 1024

    def descriptors(self) -> int:
        """Return the number of open descriptors of all its processes."""
        return sum(len(listed(f"/proc/{pid}/fd")) for pid in self.pids)

    def threads(self) -> int:
        """Return the number of threads of all its processes."""
        return sum(len(listed(f"/proc/{pid}/task")) for pid in self.pids)

    def cpu_seconds(self) -> float:
        """Return the processor time of all its processes."""
        return sum(cpu_seconds(pid) for pid in self.pids)

    def delayed_seconds(self) -> float:
        """Return for how long its core worked for other programs: by one rule for all, so that ratios are fair."""
        return core_seconds(self.core) - self.cpu_seconds() if self.core else 0.0

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = START_S) -> None:
        """Wait until `ready`. Raises SystemExit, with the end of the log, if it dies or is not ready in time."""
        due = time.monotonic() + timeout_s
        while not ready():
            died = self._process.poll() is not None
            if died or time.monotonic() > due:
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
                raise SystemExit(f"error: {self.name} {'died' if died else 'does not become ready'}:\n{tail}")
            time.sleep(0.05)

    def pause(self) -> None:
        """Stop all its processes until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let all its processes go on."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let this process go on for the block, within `in_turn`."""
        self.resume()
        try:
            yield
        finally:
            self.pause()

    def stop(self) -> None:
        """Terminate all its processes, and kill them if they do not end within STOP_S."""
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def kill(self) -> None:
        """End all its processes as `kill -9` does, stopped ones too."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def exit_code(self, timeout_s: float) -> int | None:
        """Wait for the process to end by itself and return its status; None if it still runs after that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def listed(folder: str) -> list[str]:
    """Return the names in a folder of /proc; none for a process that has ended."""
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def open_files(pid: int) -> list[str]:
    """Return what the descriptors of a process stand for: paths, and names such as `socket:[1234]`."""
    names = []
    for number in listed(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # it was closed meanwhile
            names.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return names


def _resident_kb(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return 0


@contextlib.contextmanager
def running(process: Process) -> Iterator[Process]:
    """Stop the process when the block ends."""
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def in_turn(processes: Iterable[Process]) -> Iterator[None]:
    """Stop all processes for the block, in which each has its `turn()`."""
    stopped = list(processes)
    for process in stopped:
        process.pause()
    try:
        yield
    finally:
        for process in stopped:
            process.resume()
