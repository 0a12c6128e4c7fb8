"""What the processes of a service ask of the Linux kernel by prctl(2): a name, an end with the parent, adoption."""

from __future__ import annotations

import ctypes
import os
import signal
import time

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
ADOPTION_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def set_process_name(name: str) -> None:
    """Set the name that `ps -o comm`, `top` and `pgrep` show; the kernel keeps 15 characters."""
    _prctl(PR_SET_NAME, name.encode())


def adopt_orphans() -> None:
    """Make this process the parent of each descendant whose own parent ends, in the place of init."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with(parent: int) -> None:
    """Have the kernel kill this process as soon as `parent` has ended, even where this process is stopped.

    Waits first until `parent` is the parent: a process that another one forked for it is adopted a moment later.
    """
    due = time.monotonic() + ADOPTION_S
    while os.getppid() != parent and time.monotonic() < due:
        time.sleep(0.001)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Take `end_with` back."""
    _prctl(PR_SET_PDEATHSIG, 0)


def _prctl(option: int, argument: int | bytes) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
