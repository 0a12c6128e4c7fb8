"""`ImpressionLog` puts what was answered into the event log, with the features as they were scored.

As an observer of rankings it only copies some numbers to the end of a block. A full block is recorded whole: answer by
answer that takes ten times as long, because each step finds its code and data out of the processor's caches. What a
ranking's rows of the item cache hold has to be found out before it changes, so the cache has what was noted recorded
before it does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from app.events.event_queue import EventQueue
from app.events.item_references import ItemReferences
from app.events.records import IMPRESSIONS
from app.ranking.noted_answers import NotedAnswers
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking_policy import RankingPolicy
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import Manifest

AT_ONCE = 32
"""Answers recorded together: in a twentieth of a millisecond."""
LONGEST_S = 0.1
"""How long an answer waits for others at most."""


class ImpressionLog:
    """Records rankings. One per process, for the thread of its event loop."""

    def __init__(
        self,
        queue: EventQueue,
        references: ItemReferences,
        top: int,
        on_schema: Callable[[Manifest], None] = lambda manifest: None,
        recorded_id: Callable[[str], str] = str,
    ) -> None:
        """
        Args:
            references: number the slots of the item cache, which calls `record_noted` before it changes.
            top: how many items of an answer are recorded at most.
            recorded_id: returns what is recorded in place of a user's id.
            on_schema: told of each schema that answers come by, with the manifest of a version that has it.
        """
        self._queue = queue
        self._references = references
        self._top = top
        self._on_schema = on_schema
        self._recorded_id = recorded_id
        self._schemas: set[str] = set()
        self._noted: dict[tuple[Artifact, str, RankingPolicy | None, bool], NotedAnswers] = {}
        """By version, label and policy, and by whether the items still have to be numbered."""
        self._count = 0
        """Of all that are noted."""
        self._timer: asyncio.TimerHandle | None = None

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Note a ranking; this is a `RankObserver`."""
        at_us = time.time_ns() // 1000
        scored, exploration = ranking.scored, ranking.exploration
        if scored is None or (scored.row_N is None and scored.item_references is None):
            self._queue.dropped[IMPRESSIONS] += 1
            return
        user_id = None if request.user_id is None else self._recorded_id(request.user_id)
        group = ranking.artifact, ranking.label, exploration and exploration.policy, scored.row_N is not None
        noted = self._noted.get(group)
        if noted is None:
            noted = self._noted[group] = self._begin(ranking)
        noted.add(at_us, user_id, request, ranking, scored)
        self._count += 1
        if self._count >= AT_ONCE:
            self.record_noted()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LONGEST_S, self._on_timer)

    def record_noted(self) -> None:
        """Put the noted answers into the queue."""
        groups, self._noted, self._count = self._noted, {}, 0
        for noted in groups.values():
            block = noted.to_block(self._references)
            if block is None:
                self._queue.dropped[IMPRESSIONS] += len(noted)
            else:
                self._queue.put(block)

    def _on_timer(self) -> None:
        self._timer = None
        self.record_noted()

    def _begin(self, ranking: Ranking) -> NotedAnswers:
        artifact = ranking.artifact
        if artifact.schema_hash not in self._schemas:
            self._schemas.add(artifact.schema_hash)
            self._on_schema(artifact.manifest)
        return NotedAnswers(ranking, AT_ONCE, self._top)
