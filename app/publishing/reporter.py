"""How a use case tells its caller what it does: the command line prints it, a service or a test leaves it out."""

from __future__ import annotations

import contextlib
from typing import Protocol


class Reporter(Protocol):
    """Told about progress by the use cases; it must not raise."""

    def notify(self, message: str) -> None:
        """Take a line of plain text about something that was done or left out."""
        ...

    def busy(self, message: str) -> contextlib.AbstractContextManager[object]:
        """Return a context that lasts as long as the work the message names."""
        ...


class SilentReporter:
    """A reporter that tells nobody."""

    def notify(self, message: str) -> None:
        """Drop the message."""

    def busy(self, message: str) -> contextlib.AbstractContextManager[object]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()


SILENT = SilentReporter()
