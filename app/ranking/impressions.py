"""`ImpressionLog` puts what was answered into the event log, with the features as they were scored.

The ranker says which slots were scored before anything else can change the item cache's rows; as an observer of
rankings the log then puts a record into its queue. Both together take some microseconds of a request; nothing is
written to disk here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.events.event_queue import EventQueue
from app.events.impression_id import ImpressionIds
from app.events.records import IMPRESSIONS, Impression
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.registry.artifact.manifest import Manifest


class ImpressionLog:
    """Records rankings; its method is a `RankObserver`. One per process, for the thread of its event loop."""

    def __init__(
        self, queue: EventQueue, top: int, on_schema: Callable[[Manifest], None] = lambda manifest: None
    ) -> None:
        """
        Args:
            top: how many items of an answer are recorded at most.
            on_schema: told of each schema that answers come by, with the manifest of a version that has it.
        """
        self._on_schema = on_schema
        self._schemas: set[str] = set()
        self._queue = queue
        self._top = top
        self._ids = ImpressionIds()

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Give a ranking the id of its impression, and record it."""
        at_us, artifact = time.time_ns() // 1000, ranking.artifact
        ranking.impression_id = self._ids.next(at_us // 1000, artifact.version, ranking.label)
        if artifact.schema_hash not in self._schemas:
            self._schemas.add(artifact.schema_hash)
            self._on_schema(artifact.manifest)
        scored = ranking.scored
        if scored is None or scored.item_references is None:
            self._queue.dropped[IMPRESSIONS] += 1
            return
        self._queue.put(
            Impression(
                ranking.impression_id,
                request.request_id,
                at_us,
                request.user_id,
                artifact.manifest.name,
                artifact.version,
                ranking.label,
                artifact.schema_hash,
                "",
                0.0,
                ranking.degraded,
                len(ranking.candidates),
                *scored.user_slots,
                scored.item_references,
                ranking.scores[: self._top].copy(),  # a view would keep the scores of all candidates
                None,
            )
        )
