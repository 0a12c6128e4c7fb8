"""File descriptors: how many this process may have, and how many connections fit in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource

RESERVE = 64
"""Descriptors that connections leave to everything else: a connection to the store, the files of a version that is
loaded, the process that checks it; and connections that are closed but not gone."""
MAX_RAISED = 1_048_576
"""Some systems have a hard limit of a thousand million, by which programs that walk over all of them take minutes."""


def raise_limit() -> None:
    """Raise the soft limit on descriptors to the hard one; processes that are started inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_RAISED if hard == resource.RLIM_INFINITY else min(hard, MAX_RAISED)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connections_that_fit() -> int:
    """Return how many connections this process can hold beside what it has open and the reserve; at least one."""
    return max(1, _soft_limit() - len(os.listdir("/dev/fd")) - RESERVE)


def make_room(connections: int) -> None:
    """Have the kernel's table of this process's descriptors hold so many connections from now on.

    The table doubles when it is full, and in a process with threads it does so only once every processor has passed a
    point of rest (RCU in fs/file.c of Linux): accept() took 9 to 16 ms for the 256th, 512th, 1,024th and 2,048th
    connection, and all others waited. It never shrinks.
    """
    most = min(connections + len(os.listdir("/dev/fd")) + RESERVE, _soft_limit()) - 1
    with open(os.devnull, "rb") as file, contextlib.suppress(OSError):  # one more may be out of reach, which is no harm
        os.close(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, most))


def _soft_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_RAISED if soft == resource.RLIM_INFINITY else soft
