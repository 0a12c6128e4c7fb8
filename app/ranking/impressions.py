"""`ImpressionLog` puts what was answered into the event log, with the features as they were scored.

As an observer of rankings it only notes them. Some at a time become records: one by one that takes ten times as long,
because each step finds its code and data out of the processor's caches. What a ranking's rows of the item cache hold
has to be found out before it changes, so the cache has the noted ones recorded before it does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from app.events.event_queue import EventQueue
from app.events.impression_id import ImpressionIds
from app.events.item_references import ItemReferences
from app.events.records import IMPRESSIONS, Impression, References
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import Manifest

AT_ONCE = 16
"""Rankings recorded together: a twentieth of a millisecond."""
LONGEST_S = 0.1
"""How long a ranking waits for others at most."""


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
        self._ids = ImpressionIds()
        self._noted: list[tuple[int, RankRequest, Ranking]] = []

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Give a ranking the id of its impression, if it has none yet, and note it; this is a `RankObserver`."""
        at_us = time.time_ns() // 1000
        if ranking.impression_id is None:
            ranking.impression_id = self._ids.next(
                at_us // 1000,
                ranking.artifact.version,
                ranking.label,
                pinned=request.model is not None,
                user_id=request.user_id,
            )
        noted = self._noted
        noted.append((at_us, request, ranking))
        if len(noted) >= AT_ONCE:
            self.record_noted()
        elif len(noted) == 1:
            asyncio.get_running_loop().call_later(LONGEST_S, self.record_noted)

    def record_noted(self) -> None:
        """Put the noted rankings into the queue."""
        noted, self._noted = self._noted, []
        by_version: dict[Artifact, list[Ranking]] = {}
        for _, _, ranking in noted:
            if ranking.scored is not None and ranking.scored.row_N is not None:
                by_version.setdefault(ranking.artifact, []).append(ranking)
        found = {
            id(ranking): references
            for artifact, rankings in by_version.items()
            for ranking, references in self._of_rows(artifact, rankings)
        }
        for at_us, request, ranking in noted:
            if ranking.artifact.schema_hash not in self._schemas:
                self._schemas.add(ranking.artifact.schema_hash)
                self._on_schema(ranking.artifact.manifest)
            self._record(at_us, request, ranking, found.get(id(ranking)))

    def _of_rows(self, artifact: Artifact, rankings: list[Ranking]) -> list[tuple[Ranking, References]]:
        """Return the references of the best items of rankings by one version; nothing if there is no room for them."""
        rows = [r.scored.row_N[r.order[: self._top]] for r in rankings if r.scored and r.scored.row_N is not None]
        references = self._references.of_rows(artifact, np.concatenate(rows))
        if references is None:
            return []
        stops = np.cumsum([len(row_K) for row_K in rows])
        return list(zip(rankings, np.split(references, stops[:-1]), strict=True))

    def _record(self, at_us: int, request: RankRequest, ranking: Ranking, references: References | None) -> None:
        scored, artifact, exploration = ranking.scored, ranking.artifact, ranking.exploration
        if references is None and scored is not None:
            references = scored.item_references
        if scored is None or references is None:
            self._queue.dropped[IMPRESSIONS] += 1
            return
        assert ranking.impression_id is not None
        self._queue.put(
            Impression(
                ranking.impression_id,
                request.request_id,
                at_us,
                None if request.user_id is None else self._recorded_id(request.user_id),
                artifact.manifest.name,
                artifact.version,
                ranking.label,
                artifact.schema_hash,
                *(("", 0.0) if exploration is None else exploration.policy),
                ranking.degraded,
                len(ranking.candidates),
                *scored.user_slots,
                references,
                ranking.scores[: self._top].copy(),  # a view would keep the scores of all candidates
                None if exploration is None else exploration.propensities[: self._top].copy(),
            )
        )
