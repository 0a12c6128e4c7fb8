"""The process of the fork server: it imports the application once and forks a worker whenever one is asked for.

It is started as `python -m`, with the descriptor of its control socket. It has one thread and never runs torch, so that
a fork of it can: threads of an OpenMP pool and a CUDA context would not survive the fork (docs/adr/0022).
"""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import signal
import socket
import sys

from uvicorn.importer import import_from_string

from app.runtime.processes.fork_server import ForkServerTask
from app.runtime.processes.kernel import end_with, outlive_parent, set_process_name
from app.runtime.processes.worker import run_worker

MAX_MESSAGE_BYTES = 1 << 20


def main() -> None:
    """Import the application and fork workers until the control socket ends, which it does with the supervisor.

    The supervisor kills this process when it stops. Only if it was killed itself does this one come to its last line,
    and removes the workers' metrics, which nobody else is left to do.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    task: ForkServerTask = pickle.loads(control.recv(MAX_MESSAGE_BYTES))
    end_with(task.supervisor)
    set_process_name("ctr-fork-server")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes, for the supervisor alone
        signal.signal(number, lambda *_: None)
    gc.disable()  # looking for garbage ever again takes a sixth of the time of importing
    import_from_string(task.factory)
    gc.collect()
    gc.freeze()  # a collection in a worker would write to every object, and so copy the pages that all share
    gc.enable()
    control.send(b"imported")
    outlive_parent()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
        if not message:
            break
        with socket.socket(fileno=descriptors[0]) as channel:
            _fork_worker(task, int(message), control, channel)
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
    os._exit(0)  # the end of an interpreter that has imported torch takes its time


def _fork_worker(task: ForkServerTask, number: int, control: socket.socket, channel: socket.socket) -> None:
    """Fork a worker whose parent is the supervisor: the process between the two ends at once."""
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            control.close()
            os._exit(run_worker(task.settings, task.factory, number, channel, task.supervisor))
        os._exit(0)
    os.waitpid(between, 0)


if __name__ == "__main__":
    main()
