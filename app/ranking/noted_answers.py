"""`NotedAnswers` copies what the event log wants of an answer to the end of columns, and makes a block of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.events.item_references import ItemReferences
from app.events.records import ImpressionBlock, References
from app.features.item_index import Rows
from app.features.slots import Keys, Values
from app.ranking.ranker import Ranking, ScoredSlots
from app.ranking.request import RankRequest


class NotedAnswers:
    """Answers by one version under one label and policy, either all with rows of the item cache or all without.

    Of a ranking the user's slots alone are kept: larger arrays would drive others out of the processor's caches.
    """

    def __init__(self, first: Ranking, limit: int, top: int) -> None:
        """
        Args:
            first: the answer that these have version, label and policy of.
            limit: answers at most.
            top: items of an answer at most.
        """
        assert first.scored is not None
        self._artifact, self._label = first.artifact, first.label
        self._policy = None if first.exploration is None else first.exploration.policy
        self._has_rows = first.scored.row_N is not None
        self._top = top
        # A list a column, of objects that the garbage collector does not follow: tuples of them would make it run.
        self._impression_ids: list[str] = []
        self._caller_ids: list[str | None] = []
        self._at_us: list[int] = []
        self._user_ids: list[str | None] = []
        self._degraded: list[Sequence[str]] = []
        self._candidates: list[int] = []
        self._items: list[int] = []
        self._user_keys: list[Keys] = []
        self._user_values: list[Values] = []
        self._item_count = 0
        """I, of all answers so far."""
        self._item_I: Rows | References = np.empty(limit * top, np.int64)
        """Rows of the cache, if they have them; otherwise references."""
        self._score_I = np.empty(limit * top, np.float32)
        self._propensity_I = None if self._policy is None else np.empty(limit * top, np.float32)

    def __len__(self) -> int:
        return len(self._impression_ids)

    def add(self, at_us: int, user_id: str | None, request: RankRequest, ranking: Ranking, scored: ScoredSlots) -> None:
        """Copy what is wanted of an answer; of `limit` answers at most."""
        assert ranking.impression_id is not None
        start = self._item_count
        best_K = ranking.order[: self._top]
        stop = start + len(best_K)
        self._user_keys.append(scored.user_slots.keys)
        self._user_values.append(scored.user_slots.values)
        if scored.row_N is not None:
            self._item_I[start:stop] = scored.row_N[best_K]  # `take` would wait for the interpreter's lock again
        elif scored.item_references is not None:
            self._item_I[start:stop] = scored.item_references
        self._score_I[start:stop] = ranking.scores[: self._top]
        if self._propensity_I is not None and ranking.exploration is not None:
            self._propensity_I[start:stop] = ranking.exploration.propensities[: self._top]
        self._impression_ids.append(ranking.impression_id)
        self._caller_ids.append(request.request_id)
        self._at_us.append(at_us)
        self._user_ids.append(user_id)
        self._degraded.append(ranking.degraded or ())
        self._candidates.append(len(ranking.candidates))
        self._items.append(len(best_K))
        self._item_count = stop

    def to_block(self, references: ItemReferences) -> ImpressionBlock | None:
        """Return the answers; None if the log has no room for the slots of their items."""
        stop = self._item_count
        item_I = self._item_I[:stop]
        reference_I = references.of_rows(self._artifact, item_I) if self._has_rows else item_I.copy()
        if reference_I is None:
            return None
        policy, parameter = ("", 0.0) if self._policy is None else self._policy
        return ImpressionBlock(
            self._artifact.manifest.name,
            self._artifact.version,
            self._label,
            self._artifact.schema_hash,
            policy,
            parameter,
            self._impression_ids,
            self._caller_ids,
            self._at_us,
            self._user_ids,
            self._degraded,
            self._candidates,
            self._items,
            np.concatenate(self._user_keys).reshape(len(self), -1),  # `np.stack` takes three times as long
            np.concatenate(self._user_values).reshape(len(self), -1),
            reference_I,
            self._score_I[:stop].copy(),
            None if self._propensity_I is None else self._propensity_I[:stop].copy(),
        )
