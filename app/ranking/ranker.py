"""One request, no HTTP: features, encoding, scores, order.

    [one round trip: the user, and items not cached] -> user slots -> user state; item rows gathered -> score -> sort

Every stage has a way on when it fails: defaults for what the store did not give, stale items before none. What was
lacking is named in `degraded`; only a missing model, a bad request and a passed deadline are errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import DeadlinePassed, StoreError
from app.features.item_cache import FRESH, KNOWN, CacheLookup, ItemCache
from app.features.item_index import ABSENT, Rows
from app.features.request_ids import RequestIds
from app.features.slots import Slots
from app.features.store import FeatureStore, RawFeatures
from app.ranking.batcher import Batcher
from app.ranking.explain import Explanation, explain
from app.ranking.request import RankRequest
from app.ranking.routing import Route, route
from app.registry.artifact.artifact import Artifact, sort_descending
from app.registry.lifecycle.snapshot import LiveSnapshot

USER_UNAVAILABLE = "user_features_unavailable"
ITEMS_UNAVAILABLE = "item_features_unavailable"
STALE_ITEMS = "stale_item_features"
INVALID_FEATURES = "invalid_stored_features"
NOT_FINITE = "non_finite_scores"
MODEL_FALLBACK = "model_fallback"
DEGRADED = (USER_UNAVAILABLE, ITEMS_UNAVAILABLE, STALE_ITEMS, INVALID_FEATURES, NOT_FINITE, MODEL_FALLBACK)
"""Every word `degraded` can hold."""

MAX_EXPLAINED = 10


@dataclass(slots=True)
class Ranking:
    """The answer to a request: items with their probabilities, best first, and what was lacking."""

    artifact: Artifact
    label: str
    candidates: RequestIds
    """[N] item ids of the request, each once."""
    order: npt.NDArray[np.int64]
    """[K] indices into `candidates`, best first."""
    scores: npt.NDArray[np.float32]
    """[K] probabilities, descending."""
    degraded: list[str]
    missing_user: bool
    missing_items: list[str]
    explanations: list[list[Explanation]]
    request_id: str | None = None
    """The request's own."""
    decode_s: float = 0.0
    """Seconds that each stage took."""
    features_s: float = 0.0
    encode_s: float = 0.0
    score_s: float = 0.0

    @property
    def item_ids(self) -> list[str]:
        """Return the ids [K] of the ranked items, best first."""
        ids = self.candidates.to_list()
        return [ids[index] for index in self.order.tolist()]


@dataclass(slots=True)
class _Features:
    """What is known of the user and of N candidates once the store has answered, or has failed to."""

    user: RawFeatures
    rows_N: Rows
    """The candidates' rows in the cache, ABSENT where it has none."""
    uncached: Sequence[int] = ()
    """Indices of the candidates without a row."""
    read: Mapping[int, RawFeatures] = field(default_factory=dict)
    """Features read by this request: index of the candidate to features."""
    missing_items: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    user_missing: bool = False


class Ranker:
    def __init__(
        self,
        store: FeatureStore,
        cache: ItemCache,
        live: Callable[[], LiveSnapshot],
        *,
        store_timeout_s: float,
        batcher: Batcher | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._live = live
        self._store_timeout_s = store_timeout_s
        self._batcher = batcher

    async def rank(self, request: RankRequest, due: float) -> Ranking:
        """Rank the candidates of one request.

        Args:
            due: `time.perf_counter()` at which the answer is no longer wanted.

        Raises:
            RequestError: no model is live, the model asked for is not live, a feature sent with the request cannot
                be encoded, or the deadline passed.
        """
        began = time.perf_counter()
        chosen = route(self._live(), request.user_id, request.model)
        item_ids = RequestIds.from_strings(request.item_ids)
        found = self._cache.find(item_ids)
        if not found.distinct and len(set(item_ids)) != len(item_ids):
            item_ids = RequestIds.from_strings(list(dict.fromkeys(item_ids)))
            found = self._cache.find(item_ids)
        features = await self._features(request.user_id, item_ids, found, min(self._store_timeout_s, due - began))
        fetched = time.perf_counter()
        if fetched >= due:
            raise DeadlinePassed(f"{(fetched - began) * 1000:.0f} ms went by before scoring")
        # Nothing is awaited while rows are in use: they stay what they are, and the version stays attached.
        if not self._cache.attached(chosen.artifact):  # it was retired while the store was slow to answer
            chosen = route(self._live(), request.user_id, request.model)
        artifact, batcher = chosen.artifact, None if request.explain else self._batcher
        with torch.inference_mode():  # once a request: entering it costs as much as an operator
            user_slots, user_D = self._user(artifact, request, features)
            encoded = time.perf_counter()
            states_CD, rows_N = self._candidates(artifact, item_ids, features, request.item_features)
            if batcher is None:
                score_N, place_N = artifact.ranked(user_D, states_CD, rows_N)
            else:
                items_ND = states_CD.index_select(0, torch.from_numpy(rows_N).to(states_CD.device))
        if batcher is not None:  # rows may change hands from here on
            score_N, place_N = sort_descending(await batcher.probabilities(artifact, user_D, items_ND))
        ranking = self._ranking(chosen, request, item_ids, features, user_slots, score_N, place_N)
        ranking.features_s = fetched - began
        ranking.encode_s = encoded - fetched
        ranking.score_s = time.perf_counter() - encoded
        return ranking

    async def _features(self, user_id: str, item_ids: RequestIds, found: CacheLookup, timeout_s: float) -> _Features:
        """Read the user, and the items of which `found` holds nothing fresh, in one round trip.

        The rows of `found` are pinned meanwhile. What was fresh when the request began is not read again, whatever is
        written while it waits: the answer is as fresh as its begin, and one round trip is all that it can take.
        """
        cache = self._cache
        unread = self._unread(found)
        unread_ids = [item_ids[index] for index in unread]
        cache.counts.hits += len(item_ids) - len(unread)
        cache.counts.misses += len(unread)
        cache.pin(found.rows)
        try:
            user, items = await self._store.fetch(user_id, unread_ids, timeout_s)
        except StoreError:
            return self._without_store(item_ids)
        finally:
            cache.unpin(found.rows)
        features = _Features(user, found.rows, user_missing=not user)
        if unread_ids:
            # The cache was given them, and may have dropped them again since.
            features.rows_N[unread] = cache.find(unread_ids).rows
            features.uncached = np.flatnonzero(features.rows_N == ABSENT).tolist()
            features.read = dict(zip(unread, items, strict=True))
        if unread_ids or not found.flags_all & KNOWN:
            known_N = cache.flags(found.rows) & KNOWN != 0
            known_N[unread] = [bool(raw) for raw in items]
            features.missing_items = [item_ids[index] for index in np.flatnonzero(~known_N).tolist()]
        return features

    def _unread(self, found: CacheLookup) -> list[int]:
        """Indices of the candidates that have to be read."""
        if not self._store.tracking:  # the server does not report changes, so nothing kept can be called fresh
            return list(range(len(found.rows)))
        if found.flags_all & FRESH:
            return []
        return np.flatnonzero(self._cache.flags(found.rows) & FRESH == 0).tolist()

    def _without_store(self, item_ids: RequestIds) -> _Features:
        """What the cache alone knows, and words for what is lacking."""
        rows_N = self._cache.find(item_ids).rows
        flags_N, cached_N = self._cache.flags(rows_N), rows_N != ABSENT
        fresh_N = flags_N & FRESH != 0 if self._store.tracking else np.zeros(len(rows_N), np.bool_)
        features = _Features({}, rows_N, np.flatnonzero(~cached_N).tolist(), degraded=[USER_UNAVAILABLE])
        if features.uncached:
            features.degraded.append(ITEMS_UNAVAILABLE)
        else:
            unknown = np.flatnonzero(flags_N & KNOWN == 0).tolist()
            features.missing_items = [item_ids[index] for index in unknown]
        if (cached_N & ~fresh_N).any():
            features.degraded.append(STALE_ITEMS)
        return features

    def _user(self, artifact: Artifact, request: RankRequest, features: _Features) -> tuple[Slots, Tensor]:
        def invalid(_: str) -> None:
            if INVALID_FEATURES not in features.degraded:
                features.degraded.append(INVALID_FEATURES)

        encoder = artifact.user_encoder
        slots = encoder.encode(features.user, request.user_id, invalid)
        if request.context or request.user_features:
            slots = encoder.patch(slots, {**request.user_features, **request.context})
        return slots, artifact.encode_user(slots)

    def _ranking(
        self,
        chosen: Route,
        request: RankRequest,
        item_ids: RequestIds,
        features: _Features,
        user_slots: Slots,
        score_N: npt.NDArray[np.float32],
        place_N: npt.NDArray[np.int64],
    ) -> Ranking:
        artifact, degraded = chosen.artifact, features.degraded
        if score_N[0] != score_N[0]:  # NaN sorts first, so one look finds any
            degraded.append(NOT_FINITE)
            first = int(np.isnan(score_N).sum())
            score_N = np.concatenate([score_N[first:], np.zeros(first, np.float32)])
            place_N = np.concatenate([place_N[first:], place_N[:first]])
        if chosen.fallback:
            degraded.append(MODEL_FALLBACK)
        score_K, place_K = score_N[: request.top_k], place_N[: request.top_k]
        explanations: list[list[Explanation]] = []
        if request.explain:
            explained = place_K[:MAX_EXPLAINED].tolist()
            keys_ES, values_ES = self._item_slots(artifact, item_ids, explained, features, request.item_features)
            for keys_S, values_S in zip(keys_ES, values_ES, strict=True):
                explanations.append(explain(artifact, user_slots, Slots(keys_S, values_S)))
        return Ranking(
            artifact=artifact,
            label=chosen.label,
            candidates=item_ids,
            order=place_K,
            scores=score_K,
            degraded=degraded,
            missing_user=features.user_missing,
            missing_items=features.missing_items,
            explanations=explanations,
            request_id=request.request_id,
        )

    def _candidates(
        self,
        artifact: Artifact,
        item_ids: RequestIds,
        features: _Features,
        overrides: Mapping[str, Mapping[str, Any]],
    ) -> tuple[Tensor, Rows]:
        """A table of item states [C, D] and the candidates' rows [N] in it.

        That is the cache's own table, unless items have no row there or were sent with features: these are encoded
        here, for this request.
        """
        states_CD, rows_N, special = self._cache.states(artifact), features.rows_N, features.uncached
        if overrides:
            special = sorted({*special, *(index for index, item_id in enumerate(item_ids) if item_id in overrides)})
        if not special:
            return states_CD, rows_N
        encoded = artifact.encode_items(self._item_slots(artifact, item_ids, special, features, overrides))
        gathered = torch.from_numpy(np.maximum(rows_N, 0)).to(states_CD.device)
        states_ND = torch.index_select(states_CD, 0, gathered)
        states_ND[special] = encoded.to(states_ND.dtype)
        return states_ND, np.arange(len(item_ids))

    def _item_slots(
        self,
        artifact: Artifact,
        item_ids: RequestIds,
        indices: Sequence[int],
        features: _Features,
        overrides: Mapping[str, Mapping[str, Any]],
    ) -> Slots:
        """Slots [M, S] of some candidates: as cached, as read or from defaults, with what the request says on top."""
        encoder, rows_M = artifact.item_encoder, features.rows_N[indices]
        slots = self._cache.slots(artifact, np.maximum(rows_M, 0))
        for position, index in enumerate(indices):
            item_id = item_ids[index]
            own = Slots(slots.keys[position], slots.values[position])
            if rows_M[position] == ABSENT:
                own = encoder.encode(features.read.get(index, {}), item_id, self._cache.count_invalid)
            if override := overrides.get(item_id):
                own = encoder.patch(own, override)
            slots.keys[position], slots.values[position] = own
        return slots
