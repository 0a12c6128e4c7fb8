"""`ForkServer`: the supervisor's handle on the process that has imported the application and forks workers."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
from dataclasses import dataclass

from app.runtime.processes.channel import open_channel
from app.settings import Settings

MODULE = "app.runtime.processes.fork_server_process"


@dataclass(frozen=True)
class ForkServerTask:
    """What the process is told at its start."""

    settings: Settings
    factory: str
    supervisor: int
    """The supervisor's process id."""


class ForkServer:
    """One process of the fork server; after it has ended, a new one takes its place."""

    def __init__(self, settings: Settings, factory: str) -> None:
        """Start it; it imports the application, which takes seconds, while workers can be asked for already."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._imported = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                    # BLAS would start threads when it is imported; a worker computes on one.
                    "OPENBLAS_NUM_THREADS": "1",
                },
            )
        self._control.send(pickle.dumps(ForkServerTask(settings, factory, os.getpid())))

    @property
    def pid(self) -> int:
        return self._process.pid

    def imported(self) -> bool:
        """Return whether it has imported the application and forks at once."""
        with contextlib.suppress(OSError):
            self._imported = self._imported or bool(self._control.recv(64))
        return self._imported

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._process.poll()

    def fork_worker(self, number: int) -> socket.socket:
        """Ask for a worker and return the supervisor's end of its channel.

        The channel ends without a message where no worker comes of it.
        """
        ours, theirs = open_channel()
        with theirs, contextlib.suppress(OSError):
            socket.send_fds(self._control, [b"%d" % number], [theirs.fileno()])
        return ours

    def kill(self) -> None:
        """End the process; the workers that it forked go on."""
        self._process.kill()
        self._process.wait()
        self._control.close()
