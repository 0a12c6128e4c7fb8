"""`WorkerProcess`: one worker as the supervisor sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass

from app.runtime.processes.channel import Drain, Heartbeat, Refused, Started, Stop, receive_from_worker, send


@dataclass(eq=False)
class WorkerProcess:
    """A worker from the moment that it was asked for until its process has been waited for."""

    number: int
    channel: socket.socket
    generation: int
    """How often the service had been told to restart its workers when this one was asked for."""
    pid: int | None = None
    """None until it has said its own."""
    listening: bool = False
    ready: bool = False
    """Whether its application wanted traffic at the last heartbeat."""
    refusal: str | None = None
    """What is wrong with the settings, if that ended it."""
    silent_s: float = 0.0
    """How long its event loop has not turned, as far as is known."""
    kill_at: float | None = None
    """When it is killed, by time.monotonic, if it was told to stop and has not ended."""
    killed: bool = False
    exit_code: int | None = None
    """Its exit status, or the negative number of the signal that ended it; None where it is not known."""
    ended: bool = False

    def receive(self) -> None:
        """Take in what it has said, and whether it has ended."""
        messages, is_open = receive_from_worker(self.channel)
        for message in messages:
            self.silent_s = 0.0
            match message:
                case Started(pid):
                    self.pid = pid
                    if self.killed:
                        self.kill()
                case Heartbeat(ready, listening):
                    self.ready, self.listening = ready, listening
                case Refused(problem):
                    self.refusal = problem
        if self.pid is None:
            self.ended = not is_open
            return
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # it was never adopted
            self.ended = not is_open
            return
        if pid:
            self.exit_code, self.ended = os.waitstatus_to_exitcode(status), True

    @property
    def stopping(self) -> bool:
        return self.kill_at is not None

    def drain(self) -> None:
        """Have it say that it is not ready, and go on."""
        send(self.channel, Drain())

    def stop(self, allowed_s: float) -> None:
        """Have it finish its requests and end, and note when it is killed otherwise; kill it if it has none yet."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + allowed_s
            if self.listening:
                send(self.channel, Stop())
            else:
                self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        if self.pid is not None:  # else as soon as it is known
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
