"""Run a module of this package in a process of its own, with limits: one JSON request in, JSON lines out.

What the module runs may never end, take all memory, print or crash. It does that to its own process; the caller gets
the answers that were complete, and why there are no more. The process is started by `subprocess`, which does not copy
the page tables of a caller that has mapped large tables, and in a session of its own, so that whatever it starts ends
with it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

PACKAGE_ROOT = str(Path(__file__).parents[2])
MAX_REASON = 300
_RUN = """
import runpy, sys
from app.runtime.garbage_collection import collect_rarely
collect_rarely()
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class IsolatedResult(Generic[T]):
    """The answers of a process, and how it ended."""

    answers: list[T]
    """The lines on its standard output that were whole and of the expected type, in order."""
    exit_status: int
    """The exit status as in `subprocess`: the negative number of the signal that ended it, if one did."""
    timed_out: bool
    reason: str
    """The last line on its standard error, at most MAX_REASON characters, or its exit status."""


class IsolatedModule:
    """One call of `python -m MODULE`. `run` blocks; `interrupt` may be called from any thread meanwhile."""

    def __init__(
        self,
        module: str,
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        interrupt_grace_s: float = 0.0,
    ) -> None:
        """
        Args:
            module: full name of a module of this package that calls `read_request` and `answer_stream`.
            timeout_s: the process is ended if it takes longer.
            environment: added to that of this process, of which `CTR_*` and the folder of this process's metrics are
                left out.
            interrupt_grace_s: how long a process that is out of time may clear up after SIGINT before it is killed;
                0 kills it at once.
        """
        self._command = [sys.executable, "-P", "-W", "ignore", "-c", _RUN, module]
        self._timeout_s, self._interrupt_grace_s = timeout_s, interrupt_grace_s
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
        inherited.pop("PROMETHEUS_MULTIPROC_DIR", None)
        self.environment = {**inherited, "PYTHONPATH": PACKAGE_ROOT, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    def run(self, request: object, answer_type: type[T]) -> IsolatedResult[T]:
        """Start the process, give it the request as JSON and wait for its end; nothing of it is left afterwards."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, start_new_session=True
        ) as process:
            self._process = process
            if self._interrupted:  # before there was a process to interrupt
                _signal_session(process, signal.SIGINT)
            timed_out = False
            try:
                output, errors = process.communicate(msgspec.json.encode(request), self._timeout_s)
            except subprocess.TimeoutExpired:
                timed_out = True
                output, errors = self._end(process)
            finally:
                self._process = None
                _signal_session(process, signal.SIGKILL)
        return IsolatedResult(
            list(_decoded(output, answer_type)), process.returncode, timed_out, _reason(errors, process.returncode)
        )

    def interrupt(self) -> None:
        """Ask the process to end, as Ctrl-C does, so that it can end what it has started in other sessions."""
        self._interrupted = True
        process = self._process
        if process is not None:
            _signal_session(process, signal.SIGINT)

    def _end(self, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        if self._interrupt_grace_s:
            _signal_session(process, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=self._interrupt_grace_s)
        _signal_session(process, signal.SIGKILL)
        return process.communicate()


def _signal_session(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # a zombie alone in its group, on some systems
        os.killpg(process.pid, number)


def _decoded(output: bytes, answer_type: type[T]) -> Iterator[T]:
    for line in output.splitlines():
        # The last line of a killed process is cut short.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield msgspec.json.decode(line, type=answer_type)


def _reason(errors: bytes, exit_status: int) -> str:
    lines = errors.decode(errors="replace").strip().splitlines() or [f"exit status {exit_status}"]
    return lines[-1][:MAX_REASON]


# In the process that was started:


def read_request(request_type: type[T]) -> T:
    """Read the request from standard input."""
    return msgspec.json.decode(sys.stdin.buffer.read(), type=request_type)


@contextlib.contextmanager
def answer_stream() -> Iterator[Callable[[object], None]]:
    """Yield a function that writes one answer as a line of JSON; what else is printed goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)

        def answer(document: object) -> None:
            stream.write(msgspec.json.encode(document) + b"\n")
            stream.flush()

        yield answer


def limit_resources(*, memory_mb: int, processor_s: float) -> None:
    """Bound this process: address space beyond what is taken now, processor time, and no file may be written."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    seconds = int(processor_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
