"""Memory that cannot change once it is filled, shared by the processes of one user: sealed memfds (docs/adr/0023).

A process finds what another one made by its name, among the open descriptors that /proc shows of processes of the same
user. So nothing has to be passed on, and memory is released when the last process that uses it lets go or ends.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import mmap
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVarTuple

import numpy as np
import structlog

from app.runtime.thread_pacer import throttle

log = structlog.get_logger(__name__)
Arguments = TypeVarTuple("Arguments")

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MFD_NOEXEC_SEAL = 0x8
"""The memory is never executable: some systems allow no other. Kernels before 6.3 do not know the flag."""
_RETRY_S = 0.01


def write_sealed(name: str, parts: Iterable[memoryview]) -> int:
    """Write the parts to new memory, seal it, and return its descriptor.

    Raises:
        OSError: the system gives no such memory, or this process may not write so much.
    """
    descriptor = _new_memory(name)
    try:
        for part in parts:
            written = 0
            while written < len(part):
                written += os.write(descriptor, part[written:])
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        _run_elsewhere(os.close, descriptor)
        raise
    return descriptor


def find_sealed(name: str, size: int) -> int | None:
    """Open sealed memory of this name and size that a process of this user has; None if there is none.

    Its content is for the caller to verify: any process can give its memory any name.
    """
    link = f"/memfd:{name} (deleted)"
    for folder in _descriptor_folders():
        with contextlib.suppress(OSError):  # the process has ended, or does not let others look
            for number in os.listdir(folder):
                descriptor = _open_if_linked(f"{folder}/{number}", link)
                if descriptor is None:
                    continue
                if _is_sealed(descriptor) and os.fstat(descriptor).st_size == size:
                    return descriptor
                os.close(descriptor)
        throttle()
    return None


def map_sealed(descriptor: int) -> memoryview:
    """Map sealed memory and keep its descriptor, by which others find it, until the last use of the bytes has ended."""
    # Private, so writable as torch wants it; never written to, so its pages are shared with other processes.
    pages = mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    with contextlib.suppress(OSError, AttributeError):  # granted where the system is set so for shared memory
        pages.madvise(mmap.MADV_HUGEPAGE)
    content = np.frombuffer(pages, np.uint8)
    weakref.finalize(content, _run_elsewhere, _unmap_and_close, pages, descriptor).atexit = False
    return content.data


def _new_memory(name: str) -> int:
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memfd")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    with contextlib.suppress(OSError):
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    return os.memfd_create(name, flags)


def _descriptor_folders() -> Iterator[str]:
    user = os.geteuid()
    with contextlib.suppress(OSError):  # there is no /proc
        for process in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if process.isdigit() and os.stat(f"/proc/{process}").st_uid == user:
                    yield f"/proc/{process}/fd"


def _open_if_linked(path: str, link: str) -> int | None:
    with contextlib.suppress(OSError):  # it was closed meanwhile
        if os.readlink(path) == link:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def _is_sealed(descriptor: int) -> bool:
    with contextlib.suppress(OSError):  # it is no memfd, whatever its name
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    return False


def _unmap_and_close(pages: mmap.mmap, descriptor: int) -> None:
    """Unmap first, which holds the interpreter for a moment; the memory is freed by the close, which does not."""
    while True:
        try:
            pages.close()
            break
        except BufferError:  # the last use of the bytes is just ending
            time.sleep(_RETRY_S)
    os.close(descriptor)


def _run_elsewhere(function: Callable[[*Arguments], None], *args: *Arguments) -> None:
    """Call a function on a thread of its own: to free large memory takes 0.1 s and more."""
    try:
        _thread.start_new_thread(function, args)
    except RuntimeError:  # no more threads: it is freed when the process ends
        log.warning("memory_not_freed", reason="no thread can be started")
