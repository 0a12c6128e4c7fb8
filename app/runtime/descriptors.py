"""File descriptors: how many this process may have, and how many connections fit in them."""

from __future__ import annotations

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
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = MAX_RAISED
    return max(1, soft - len(os.listdir("/dev/fd")) - RESERVE)
