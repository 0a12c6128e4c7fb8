"""`OrphanReaper`: waits for processes that the supervisor has adopted and nobody else waits for."""

from __future__ import annotations

import contextlib
import os


class OrphanReaper:
    """Reaps what workers had started and left when they were killed, such as the gate's process.

    One is reaped when it is seen for the second time: a child of another part of this process, which waits for it
    itself, is gone by then.
    """

    def __init__(self) -> None:
        self._seen: int | None = None

    def reap(self, own: set[int]) -> None:
        """Reap an orphan that has ended, if there is one.

        Args:
            own: process ids that somebody waits for.
        """
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return
        if ended.si_pid == self._seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._seen, os.WNOHANG)
        self._seen = ended.si_pid
