"""`Ranker`: one request without HTTP, from features to an order.

    [one round trip: the user, and items not cached] -> user slots -> user state; item rows gathered -> score -> sort

A failing store does not fail the request: features that it did not give are defaults, and cached items are used though
they may be stale. `degraded` says so; only a missing model, a bad request and a passed deadline are errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.errors import DeadlinePassed, EncodingError
from app.events.impression_id import ImpressionIds, now_ms
from app.events.item_references import ItemReferences
from app.events.records import References
from app.features.item_cache import ItemCache
from app.features.item_index import Rows
from app.features.request_ids import RequestIds
from app.features.slots import Slots
from app.features.store import FeatureStore
from app.native.scorer import Floats, Positions
from app.ranking.batcher import Batcher
from app.ranking.candidate_scorer import CandidateScorer, Scored, StateRows
from app.ranking.degraded import INVALID_FEATURES, MODEL_FALLBACK, NOT_FINITE
from app.ranking.encoding_errors import locate_user_error
from app.ranking.explain import ITEM_SLICES, MAX_EXPLAINED, Explainer, Explanation
from app.ranking.exploration import Exploration, Explorer
from app.ranking.ignored import ignored_features
from app.ranking.request import RankRequest
from app.ranking.request_features import FeatureReader, RequestFeatures
from app.ranking.request_items import RequestItems
from app.ranking.routing import Route, route_request
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.runtime.loop_pacer import MOST_WAIT_S, SliceTurns


class ScoredSlots(NamedTuple):
    """Which slots were scored, for the event log."""

    user_slots: Slots
    """[S]."""
    row_N: Rows | None
    """The candidates' rows in the item cache, as long as nothing changes there; None where `item_references` are."""
    item_references: References | None = None
    """[K] of the best items, best first; None if the log had no room for the slots that they refer to."""


@dataclass(slots=True)
class Ranking:
    """The answer to a request: items with their probabilities, best first, and why it is degraded, if it is."""

    artifact: Artifact
    label: str
    candidates: RequestIds
    """[N] item ids of the request, each once."""
    order: Positions
    """[K] indices into `candidates`, best first, unless the order was drawn."""
    scores: Floats
    """[K] their probabilities."""
    degraded: list[str]
    missing_user: bool
    missing_items: list[str]
    explanations: Sequence[Explanation] = ()
    """Why the best items got their scores, if the request asked."""
    ignored: Sequence[str] = ()
    """Where the request sent something that no field reads."""
    invalid_fields: Sequence[str] = ()
    """Fields of the user of which the stored value fits no slot."""
    request_id: str | None = None
    """The caller's name for the request; None if it gave none."""
    scored: ScoredSlots | None = None
    """Which slots were scored; None where nothing is logged."""
    impression_id: str | None = None
    """The name of this answer in the event log; None where nothing is logged and no order was drawn."""
    exploration: Exploration | None = None
    """How the order was drawn; None where it is that of the scores."""
    decode_s: float = 0.0
    """Seconds that each stage took."""
    features_s: float = 0.0
    encode_s: float = 0.0
    score_s: float = 0.0

    @property
    def best_scores(self) -> Floats:
        """Return the highest scores [K], descending, whatever the order."""
        return self.scores if self.exploration is None else self.exploration.best_scores

    @property
    def item_ids(self) -> list[str]:
        """Return the ids [K] of the ranked items, best first."""
        return self.candidates.at(self.order.tolist())


class Ranker:
    """Scores requests with what is live."""

    def __init__(
        self,
        store: FeatureStore,
        cache: ItemCache,
        live: Callable[[], LiveSnapshot],
        *,
        store_timeout_s: float,
        turns: SliceTurns | None = None,
        batcher: Batcher | None = None,
        references: ItemReferences | None = None,
        references_top: int = 0,
        explorer: Explorer | None = None,
    ) -> None:
        """
        Args:
            cache: the store's listener; every live version is attached to it.
            store_timeout_s: seconds that a request waits for the store at most.
            turns: of the slices of requests that take long; by default those of this ranker alone.
            batcher: scores several requests' candidates together; None scores each request alone.
            references: numbers the slots of the `references_top` best items for the event log; None where nothing is
                logged.
            explorer: draws the order of answers; None leaves that of the scores.
        """
        self._turns = turns or SliceTurns()
        self._features = FeatureReader(store, cache, store_timeout_s, self._turns)
        # Where orders are drawn, any candidate may be shown.
        self._scorer = CandidateScorer(cache, self._turns, batcher, references, None if explorer else references_top)
        self._cache = cache
        self._live = live
        self._references = references
        self._references_top = references_top
        self._explorer = explorer
        self._ids = ImpressionIds() if references is not None or explorer is not None else None

    async def rank(self, request: RankRequest, due: float) -> Ranking:
        """Rank the candidates of one request.

        Args:
            due: `time.perf_counter()` at which the answer is no longer wanted.

        Raises:
            RequestError: no model is live, the model asked for is not live, a feature sent with the request cannot
                be encoded, or the deadline passed.
        """
        began = time.perf_counter()
        chosen, impression_id = self._route(request)
        features = await self._features.read(request.user_id, request.item_ids, due, in_slices=request.in_slices)
        fetched = time.perf_counter()
        if fetched >= due:
            raise DeadlinePassed(f"{(fetched - began) * 1000:.0f} ms went by before scoring")
        try:
            states_CD = self._cache.states(chosen.artifact)
        except KeyError:  # the version was retired while the store was slow to answer
            chosen, impression_id = self._route(request)
            states_CD = self._cache.states(chosen.artifact)
        # Nothing is awaited between the look-up and what scores, copies or pins the rows, nor before they are noted.
        artifact, items = chosen.artifact, None
        if features.uncached or request.item_features or request.explain:
            items = RequestItems(artifact, self._cache, states_CD, features, request, self._references)
        with torch.inference_mode():  # once a usual request: entering it costs as much as an operator
            user_slots, user_D = self._encode_user(artifact, request, features)
            encoded = time.perf_counter()
            if items is None:
                rows = StateRows(states_CD, features.rows_N, are_cached=True)
                scoring = self._scorer.score(artifact, user_D, rows, due, in_slices=request.in_slices)
        if items is not None:
            await items.encode(self._turns, due)
            hold = items.hold if request.explain and not items.own else None
            with torch.inference_mode():
                scoring = self._scorer.score(artifact, user_D, items.rows, due, in_slices=request.in_slices, hold=hold)
        scored = scoring if isinstance(scoring, Scored) else await scoring
        ranking = self._ranking(chosen, request, impression_id, features, scored)
        if self._references is not None:
            best_K = ranking.order[: self._references_top]
            if items is not None and items.own:
                ranking.scored = ScoredSlots(user_slots, None, items.references_of(best_K))
            elif scored is not scoring:  # it has waited, so that the rows may be other items'
                reference_K = None if scored.reference_N is None else scored.reference_N[best_K]
                if reference_K is not None and not reference_K.all():  # scores that are no numbers came before them
                    reference_K = None
                ranking.scored = ScoredSlots(user_slots, None, reference_K)
            elif request.explain or request.item_features:  # which may wait again
                of_best = self._references.of_rows(artifact, features.rows_N[best_K])
                ranking.scored = ScoredSlots(user_slots, None, of_best)
            else:
                ranking.scored = ScoredSlots(user_slots, features.rows_N)
        if request.context or request.user_features or request.item_features:
            ranking.ignored = await ignored_features(artifact, request, self._turns, due)
        if items is not None and request.explain:
            ranking.explanations = await self._explanations(artifact, user_slots, items, ranking.order, due)
        ranking.features_s = fetched - began
        ranking.encode_s = encoded - fetched
        ranking.score_s = time.perf_counter() - encoded
        return ranking

    def _route(self, request: RankRequest) -> tuple[Route, str | None]:
        """Return the version that answers, and a new id for its impression; no id if nothing is logged or drawn.

        The id is made before scoring, which drives what makes it out of the processor's caches: afterwards it takes
        twice as long (docs/adr/0028).
        """
        chosen = route_request(self._live(), request)
        if self._ids is None:
            return chosen, None
        version, pinned = chosen.artifact.version, request.model is not None
        return chosen, self._ids.next(now_ms(), version, chosen.label, pinned=pinned, user_id=request.user_id)

    def _encode_user(self, artifact: Artifact, request: RankRequest, features: RequestFeatures) -> tuple[Slots, Tensor]:
        """Return the user's slots [S] and user state [D]."""

        def on_invalid(field: str) -> None:
            features.degrade(INVALID_FEATURES)
            features.invalid_fields = [*features.invalid_fields, field]

        encoder = artifact.user_encoder
        slots = encoder.encode(features.user, request.user_id, on_invalid)
        if request.context or request.user_features:
            try:
                slots = encoder.patch(slots, {**request.user_features, **request.context})
            except EncodingError as error:
                raise locate_user_error(encoder, request, error) from None
        return slots, artifact.encode_user(slots)

    async def _explanations(
        self, artifact: Artifact, user_slots: Slots, items: RequestItems, order_K: Positions, due: float
    ) -> list[Explanation]:
        """Explain the scores of the best items, and let other requests have their turn between two of them.

        Raises DeadlinePassed if `time.perf_counter()` reaches `due` before the last of them is begun.
        """
        explainer = Explainer(artifact, user_slots, self._turns)
        explanations: list[Explanation] = []
        explained_K = order_K[:MAX_EXPLAINED].tolist()
        for index in explained_K:
            left_s = due - time.perf_counter()
            if left_s <= 0:
                raise DeadlinePassed(f"the time was over with {len(explanations)} items explained")
            slices = ITEM_SLICES * (len(explained_K) - len(explanations))
            # Half of what is left may go by with waiting: on a busy loop each slice waits for as long as it may.
            most_wait_s = min(MOST_WAIT_S, left_s / (2 * slices))
            explanations.append(await explainer.explain(items.slots_of(index), most_wait_s))
        return explanations

    def _ranking(
        self,
        chosen: Route,
        request: RankRequest,
        impression_id: str | None,
        features: RequestFeatures,
        scored: Scored,
    ) -> Ranking:
        artifact, degraded, explorer = chosen.artifact, features.degraded, self._explorer
        score_N, order_N = scored.score_N, scored.position_N
        if score_N[0] != score_N[0]:  # NaN sorts first, so the first score tells whether there is any
            degraded.append(NOT_FINITE)
            count = int(np.isnan(score_N).sum())
            score_N = np.concatenate([score_N[count:], np.zeros(count, np.float32)])
            order_N = np.concatenate([order_N[count:], order_N[:count]])
            explorer = None
        if chosen.fallback:
            degraded.append(MODEL_FALLBACK)
        score_K, order_K = score_N[: request.top_k], order_N[: request.top_k]
        exploration = None
        if explorer is not None and impression_id is not None:
            drawn = explorer.explore(request, chosen, impression_id, score_N, order_N, score_K)
            if drawn is not None:
                exploration, order_K, score_K = drawn
        has_impression = self._references is not None or exploration is not None
        return Ranking(
            artifact=artifact,
            label=chosen.label,
            candidates=features.item_ids,
            order=order_K,
            scores=score_K,
            degraded=degraded,
            invalid_fields=features.invalid_fields,
            missing_user=features.missing_user,
            missing_items=features.missing_items,
            request_id=request.request_id,
            impression_id=impression_id if has_impression else None,
            exploration=exploration,
        )
