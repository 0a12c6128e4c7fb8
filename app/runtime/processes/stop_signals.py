"""`StopSignals`: what the signals of a supervisor have asked for."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class StopSignals:
    """Follows SIGTERM, SIGINT and SIGHUP while the block lasts; they only set what the supervisor's loop reads.

    SIGHUP asks for a rolling restart, except where it says that the terminal has gone: then it stops the service.
    """

    def __init__(self) -> None:
        self.stop = False
        """Whether the service shall stop."""
        self.hurry = False
        """Whether it shall not wait for what it waits for: somebody sits before it (SIGINT), or has asked again."""
        self._restart = False
        self._has_terminal = _terminal_is_open()
        self._before: dict[int, Any] = {}

    def take_restart(self) -> bool:
        """Return whether a restart was asked for since the last call."""
        asked, self._restart = self._restart, False
        return asked

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            before = signal.getsignal(number)
            if number == signal.SIGHUP and before == signal.SIG_IGN:
                continue  # nohup
            self._before[number] = before
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not (self._has_terminal and not _terminal_is_open()):
            self._restart = True
            return
        self.hurry = self.stop or number == signal.SIGINT
        self.stop = True


def _terminal_is_open() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
