"""`EventLog`: the parts of the event log that one process runs, from the queue to the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from app.errors import ConfigError
from app.events.event_queue import EventQueue
from app.events.logged_schema import logged_schema, schema_file
from app.events.outcome_counts import Outcomes
from app.events.records import Feedback, Impression
from app.registry.artifact.manifest import Manifest
from app.settings import Settings


class EventLog:
    """Takes records from the event loop and has a thread write them."""

    def __init__(
        self,
        queue: EventQueue,
        folder: Path,
        *,
        segment_s: float,
        segment_bytes: int,
        keep_days: float = 0.0,
        keep_bytes: int = 0,
    ) -> None:
        """
        Args:
            folder: of the log.
            segment_s, segment_bytes: as for `EventWriter`.
            keep_days, keep_bytes: as for `Retention`.

        Raises ConfigError if a package is not installed that only the log needs.
        """
        try:
            from app.events.event_writer import EventWriter
            from app.events.retention import Retention
        except ImportError as error:
            raise ConfigError("CTR_EVENTS needs `pip install ctr-serving[events]`") from error
        self.queue = queue
        retention = Retention(keep_days, keep_bytes)
        self._writer = EventWriter(queue, folder, segment_s=segment_s, segment_bytes=segment_bytes, retention=retention)

    @classmethod
    def from_settings(cls, settings: Settings) -> EventLog:
        """Build the log that CTR_EVENTS names. Raises ConfigError."""
        return cls(
            EventQueue(settings.events_buffer),
            Path(settings.events),
            segment_s=settings.events_segment_s,
            segment_bytes=int(settings.events_segment_mb * 2**20),
            keep_days=settings.events_keep_days,
            keep_bytes=int(settings.events_keep_mb * 2**20),
        )

    @property
    def problem(self) -> str:
        """Why nothing can be written now; empty while it can."""
        return self._writer.problem

    def start(self) -> None:
        """Start the writer's thread."""
        self._writer.start()

    def stop(self) -> None:
        """Write what is in the queue, and end the thread."""
        self._writer.stop()

    def observe(self, observer: Callable[[Sequence[Impression | Feedback]], None]) -> None:
        """Have an observer told, on the writer's thread, of impressions and new feedback once they are written."""
        self._writer.observers.append(observer)

    def put_schema(self, manifest: Manifest) -> None:
        """Have the schema of a version written beside the records."""
        self._writer.put_file(schema_file(manifest.schema_hash), logged_schema(manifest))

    def written(self) -> Counter[str]:
        """Return the records written so far, by kind."""
        return self._writer.written

    def outcomes(self) -> Outcomes:
        """Return what was shown, expected and sent so far, by version and label."""
        return self._writer.outcomes.totals()

    def lost(self) -> Counter[str]:
        """Return the records lost so far, by kind: there was no room for them, or a file was damaged."""
        return self.queue.dropped + self._writer.lost
