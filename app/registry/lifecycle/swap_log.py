"""`SwapLog` logs swap events and hands them to a callback that counts them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.registry.lifecycle.snapshot import SwapEvent

log = structlog.get_logger(__name__)
WARNINGS = ("refused", "fallback", "withdrawn")
"""Outcomes that are logged as warnings."""


class SwapLog:
    """Logs the events of one model, and hands them on."""

    def __init__(self, model: str, on_event: Callable[[SwapEvent], None]) -> None:
        self._model, self._on_event = model, on_event

    def emit(self, event: SwapEvent) -> None:
        """Log an event and hand it on; a callback that fails does not stop a swap."""
        write = log.warning if event.outcome in WARNINGS else log.info
        write("model_" + event.outcome, model=self._model, label=event.label, version=event.version,
              reason=event.reason, detail=event.detail, seconds=round(event.seconds, 4))  # fmt: skip
        try:
            self._on_event(event)
        except Exception:
            log.exception("model_event_not_counted", outcome=event.outcome)
