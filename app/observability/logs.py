"""The log of a process: structured lines, for people or for machines. No code on the hot path logs."""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal

import structlog

from app.observability.request_context import add_request_ids

Level = Literal["debug", "info", "warning", "error"]


def configure_logging(level: Level = "info", json: bool | None = None) -> None:
    """Send the log of this process, libraries and warnings included, to standard error.

    Args:
        level: the least severe line to write.
        json: write one JSON object a line instead of coloured text; None chooses JSON unless it is a terminal.
    """
    if json is None:
        json = not sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_request_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks without local variables: those hold ids and features of users.
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


class LogThrottle:
    """Lets one line a second through, for faults that every request may have."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._logged_at = float("-inf")

    def admits(self) -> bool:
        """Return whether a line may be logged now, and count it as logged."""
        now = time.monotonic()
        if now - self._logged_at < self._every_s:
            return False
        self._logged_at = now
        return True
