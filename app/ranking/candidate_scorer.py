"""`CandidateScorer` scores the candidates of one request: at once, in slices, or in one batch with other requests'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.events.item_references import ItemReferences
from app.events.records import References
from app.features.item_cache import ItemCache
from app.features.item_index import Rows
from app.native.scorer import Floats, Positions
from app.ranking.batcher import Batcher
from app.registry.artifact.artifact import Artifact, sort_descending
from app.runtime.loop_pacer import SliceTurns

SLICE = 128
"""Candidates scored at a time where others have their turn between: with caches that others have used 0.15 ms."""


class StateRows(NamedTuple):
    """Where the states of N candidates are."""

    states_CD: Tensor
    """A table of item states."""
    row_N: Rows
    """The candidates' rows in it."""
    are_cached: bool
    """Whether the table is the item cache's, so that its rows may be other items' once something was awaited."""


class Scored(NamedTuple):
    """The scores of N candidates."""

    score_N: Floats
    """Highest first."""
    position_N: Positions
    """The position that each had among the candidates."""
    reference_N: References | None = None
    """By which references the event log has what was scored, in the candidates' order, 0 for what is none of the best.
    None where the rows still tell, the states are not the cache's, nothing is logged, the log has no room, or the
    version was retired meanwhile."""


class CandidateScorer:
    """Scores with a version's states. One per process, for use on its event loop."""

    def __init__(
        self,
        cache: ItemCache,
        turns: SliceTurns,
        batcher: Batcher | None = None,
        references: ItemReferences | None = None,
        references_top: int | None = None,
    ) -> None:
        """
        Args:
            batcher: scores several requests' candidates together; None scores each request alone.
            references: number what was scored, where a request waits before the event log sees its rows.
            references_top: how many of the best of a slice are numbered; None where any may be shown.
        """
        self._cache = cache
        self._turns = turns
        self._batcher = batcher
        self._references = references
        self._references_top = references_top

    def score(
        self,
        artifact: Artifact,
        user_D: Tensor,
        candidates: StateRows,
        due: float,
        *,
        in_slices: bool,
        hold: Callable[[slice], None] | None = None,
    ) -> Scored | Awaitable[Scored]:
        """Return the scores, or what to await for them.

        Args:
            due: `time.perf_counter()` at which no more slices are begun.
            in_slices: let others have their turn after every SLICE candidates, unless there is a batcher.
            hold: called before some of the candidates are scored, while the item cache has what they are scored by.

        What is awaited raises DeadlinePassed.
        """
        states_CD, row_N, are_cached = candidates
        if in_slices and len(row_N) > SLICE and self._batcher is None:
            return self._in_slices(artifact, user_D, candidates, due, hold)
        if hold is not None:
            hold(slice(len(row_N)))
        if self._batcher is not None:
            items_ND = states_CD.index_select(0, torch.from_numpy(row_N).to(states_CD.device))
            references = self._references_of(artifact, row_N) if are_cached else None
            return _in_batch(self._batcher, artifact, user_D, items_ND, references)
        return Scored(*artifact.ranked(user_D, states_CD, row_N))

    async def _in_slices(
        self,
        artifact: Artifact,
        user_D: Tensor,
        candidates: StateRows,
        due: float,
        hold: Callable[[slice], None] | None,
    ) -> Scored:
        states_CD, row_N, are_cached = candidates
        slices = [slice(start, start + SLICE) for start in range(0, len(row_N), SLICE)]
        scores: list[Floats] = []
        positions: list[Positions] = []
        is_logged = are_cached and self._references is not None
        reference_N: References | None = np.zeros(len(row_N), np.int64) if is_logged else None
        if are_cached:
            self._cache.pin(row_N)
        try:
            for some in slices:
                if some.start:
                    await self._turns.next_before(due, "all candidates were scored")
                if hold is not None:
                    hold(some)
                with torch.inference_mode():
                    score_S, position_S = artifact.ranked(user_D, states_CD, row_N[some])
                scores.append(score_S)
                positions.append(position_S + some.start)
                if reference_N is not None:  # an item that is written meanwhile is logged as it was scored
                    best = positions[-1][: self._references_top]
                    numbered = self._references_of(artifact, row_N[best])
                    if numbered is None:
                        reference_N = None
                    else:
                        reference_N[best] = numbered
        finally:
            if are_cached:
                self._cache.unpin(row_N)
        await self._turns.next_before(due, "all candidates were scored")
        # The slices are sorted, and one behind the other, so that a stable sort leaves ties in the candidates' order.
        score_N, sorted_N = sort_descending(torch.from_numpy(np.concatenate(scores)))
        return Scored(score_N, np.concatenate(positions)[sorted_N], reference_N)

    def _references_of(self, artifact: Artifact, row_N: Rows) -> References | None:
        if self._references is None:
            return None
        try:
            return self._references.of_rows(artifact, row_N)
        except KeyError:  # the version was retired between two slices
            return None


async def _in_batch(
    batcher: Batcher, artifact: Artifact, user_D: Tensor, items_ND: Tensor, references: References | None
) -> Scored:
    return Scored(*sort_descending(await batcher.probabilities(artifact, user_D, items_ND)), references)
