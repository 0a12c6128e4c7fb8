"""Swap events, as lines of the log and for who counts them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.registry.lifecycle.snapshot import SwapEvent

log = structlog.get_logger(__name__)
WARNINGS = ("refused", "fallback", "withdrawn")
"""Outcomes that are logged as warnings."""


class SwapLog:
    """Where the events of one model go."""

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
