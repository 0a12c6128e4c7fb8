"""`EventLog`: the parts of the event log that one process runs, from the queue to the files."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from app.errors import ConfigError
from app.events.delivery.log_destination import LogDestination
from app.events.delivery.log_destination import open_destination as open_destination_of
from app.events.delivery.log_place import log_place
from app.events.delivery.spool_limit import SpoolLimit
from app.events.event_queue import EventQueue
from app.events.logged_schema import logged_schema, schema_file
from app.events.outcome_counts import Outcomes
from app.events.records import Feedback, ImpressionBlock
from app.registry.artifact.manifest import Manifest
from app.settings import Settings

KEEP = "a bucket has lifecycle rules for that, a stream keeps CTR_EVENTS_STREAM_LENGTH files"
STREAM_SEGMENT_BYTES = 8 << 20
"""A file is one entry of a stream, which the server holds in memory."""


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
        spool_bytes: int = 0,
        open_destination: Callable[[], LogDestination] | None = None,
        place: str = "",
    ) -> None:
        """
        Args:
            folder: of the log, or the spool of one that is elsewhere.
            segment_s, segment_bytes: as for `EventWriter`.
            keep_days, keep_bytes: as for `Retention`.
            spool_bytes, open_destination, place: of a log that is elsewhere, as for `SpoolLimit` and `Shipper`.

        Raises ConfigError if a package is not installed that only the log needs, or the folder is a file.
        """
        try:
            from app.events.delivery.shipper import Shipper
            from app.events.event_writer import EventWriter
            from app.events.retention import Retention
        except ImportError as error:
            raise ConfigError("CTR_EVENTS needs `pip install ctr-serving[events]`") from error
        self.queue = queue
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; the event log needs a folder, which it makes")
        retention = Retention(keep_days, keep_bytes)
        self._limit = SpoolLimit(folder, spool_bytes) if open_destination else None
        self._writer = EventWriter(
            queue,
            folder,
            segment_s=segment_s,
            segment_bytes=segment_bytes,
            retention=retention,
            limit=self._limit,
        )
        self._shipper = Shipper(folder, open_destination, place=place) if open_destination else None

    @classmethod
    def from_settings(cls, settings: Settings) -> EventLog:
        """Build the log that CTR_EVENTS names. Raises ConfigError."""
        place = log_place(settings.events)
        queue, segment_bytes = EventQueue(settings.events_buffer), int(settings.events_segment_mb * 2**20)
        if place.kind == "folder":
            return cls(
                queue,
                place.folder,
                segment_s=settings.events_segment_s,
                segment_bytes=segment_bytes,
                keep_days=settings.events_keep_days,
                keep_bytes=int(settings.events_keep_mb * 2**20),
            )
        if settings.events_keep_days or settings.events_keep_mb:
            raise ConfigError(f"{place}: CTR_EVENTS_KEEP_DAYS and CTR_EVENTS_KEEP_MB are for a log in a folder; {KEEP}")
        open_destination = functools.partial(open_destination_of, place, settings.events_stream_length)
        open_destination().close()  # connects to nothing, and says what is not installed
        return cls(
            queue,
            settings.events_spool,
            segment_s=settings.events_segment_s,
            segment_bytes=segment_bytes if place.kind == "bucket" else min(segment_bytes, STREAM_SEGMENT_BYTES),
            spool_bytes=int(settings.events_spool_mb * 2**20),
            open_destination=open_destination,
            place=str(place),
        )

    @property
    def problem(self) -> str:
        """Why nothing can be written now; empty while it can."""
        return self._writer.problem

    @property
    def delivery_problem(self) -> str:
        """Why nothing can be delivered from the spool now; empty while it can, and where the folder is the log."""
        return "" if self._shipper is None else self._shipper.problem

    def deliveries(self) -> Counter[str]:
        """Return the files delivered from the spool so far, and the attempts that failed."""
        return Counter() if self._shipper is None else self._shipper.outcomes

    def spool_bytes(self) -> int:
        """Return how much waits in the spool to be delivered; 0 where the folder is the log."""
        return 0 if self._limit is None else self._limit.size

    def start(self) -> None:
        """Start the writer's thread."""
        self._writer.start()
        if self._shipper is not None:
            self._shipper.start()

    def stop(self) -> None:
        """Write what is in the queue, deliver what can be within seconds, and end the threads."""
        self._writer.stop()
        if self._shipper is not None:
            self._shipper.stop()

    def observe(self, observer: Callable[[Sequence[ImpressionBlock | Feedback]], None]) -> None:
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
