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
from app.features.item_cache import FRESH, KNOWN, Found, ItemCache
from app.features.item_index import ABSENT, Rows
from app.features.request_ids import WireIds
from app.features.slots import Slots
from app.features.store import FeatureStore, Raw
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

MAX_FETCHES = 3
"""Round trips of a request whose items are written to while it reads them; normally one."""

MAX_EXPLAINED = 10


@dataclass(slots=True)
class Ranking:
    """The answer to a request: items with their probabilities, best first, and what was lacking."""

    artifact: Artifact
    label: str
    candidates: WireIds
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
        ids = self.candidates.listed()
        return [ids[index] for index in self.order.tolist()]


@dataclass(slots=True)
class _Features:
    """What one request's round trip brought."""

    found: Found
    user: Raw
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
        item_ids = WireIds.of(request.item_ids)
        epoch, found = self._cache.epoch, self._cache.find(item_ids)
        if not found.distinct and len(set(item_ids)) != len(item_ids):
            item_ids = WireIds.of(list(dict.fromkeys(item_ids)))
            found = self._cache.find(item_ids)
        timeout_s = min(self._store_timeout_s, due - began)
        features = await self._features(request.user_id, item_ids, found, epoch, timeout_s)
        fetched = time.perf_counter()
        if fetched >= due:
            raise DeadlinePassed(f"{(fetched - began) * 1000:.0f} ms went by before scoring")
        # Nothing is awaited while rows are in use: they stay what they are, and the version stays attached.
        artifact, batcher = chosen.artifact, None if request.explain else self._batcher
        with torch.inference_mode():  # once a request: entering it costs as much as an operator
            user_slots, user_D = self._user(artifact, request, features)
            encoded = time.perf_counter()
            states_CD, rows_N = self._candidates(artifact, item_ids, features.found, request.item_features)
            if batcher is None:
                score_N, place_N = artifact.ranked(user_D, states_CD, rows_N)
            else:
                items_ND = states_CD.index_select(0, torch.from_numpy(rows_N).to(states_CD.device))
        missing = [] if ITEMS_UNAVAILABLE in features.degraded else self._missing(item_ids, features.found)
        if batcher is not None:
            score_N, place_N = sort_descending(await batcher.probabilities(artifact, user_D, items_ND))
        ranking = self._ranking(chosen, request, item_ids, features, missing, user_slots, score_N, place_N)
        ranking.features_s = fetched - began
        ranking.encode_s = encoded - fetched
        ranking.score_s = time.perf_counter() - encoded
        return ranking

    async def _features(
        self, user_id: str, item_ids: Sequence[str], found: Found, epoch: int, timeout_s: float
    ) -> _Features:
        """The round trip; `found` is what the cache had at `epoch`."""
        cache = self._cache
        tracking = self._store.tracking
        wanted = self._wanted(item_ids, found, tracking)
        cache.counts.hits += len(item_ids) - len(wanted)
        cache.counts.misses += len(wanted)
        try:
            user = await self._store.fetch(user_id, wanted, timeout_s)
            for _ in range(MAX_FETCHES - 1):
                if not wanted and cache.epoch == epoch:
                    break
                epoch = cache.epoch
                found = cache.find(item_ids)
                wanted = self._wanted(item_ids, found, tracking) if tracking else []
                if wanted:
                    await self._store.fetch(None, wanted, timeout_s)
        except StoreError:
            features = _Features(cache.find(item_ids), {}, [USER_UNAVAILABLE])
            if (features.found.rows == ABSENT).any():
                features.degraded.append(ITEMS_UNAVAILABLE)
            if ((features.found.rows != ABSENT) & (cache.flags(features.found) & FRESH == 0)).any():
                features.degraded.append(STALE_ITEMS)
            return features
        return _Features(found, user, user_missing=not user)

    def _wanted(self, item_ids: Sequence[str], found: Found, tracking: bool) -> Sequence[str]:
        if not tracking:  # the server does not report changes, so nothing kept can be called fresh
            return item_ids
        if found.common & FRESH:
            return ()
        return [item_ids[index] for index in np.flatnonzero(self._cache.flags(found) & FRESH == 0).tolist()]

    def _missing(self, item_ids: Sequence[str], found: Found) -> list[str]:
        """Ids the store was asked for and does not know."""
        if found.common & KNOWN:
            return []
        return [item_ids[index] for index in np.flatnonzero(self._cache.flags(found) & KNOWN == 0).tolist()]

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
        item_ids: WireIds,
        features: _Features,
        missing: list[str],
        user_slots: Slots,
        score_N: npt.NDArray[np.float32],
        place_N: npt.NDArray[np.int64],
    ) -> Ranking:
        artifact, found, degraded = chosen.artifact, features.found, features.degraded
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
            for index in place_K[:MAX_EXPLAINED].tolist():
                slots = self._item_slots(artifact, item_ids[index], int(found.rows[index]), request.item_features)
                explanations.append(explain(artifact, user_slots, slots))
        return Ranking(
            artifact=artifact,
            label=chosen.label,
            candidates=item_ids,
            order=place_K,
            scores=score_K,
            degraded=degraded,
            missing_user=features.user_missing,
            missing_items=missing,
            explanations=explanations,
            request_id=request.request_id,
        )

    def _candidates(
        self, artifact: Artifact, item_ids: Sequence[str], found: Found, overrides: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Tensor, Rows]:
        """A table of item states [C, D] and the candidates' rows [N] in it.

        That is the cache's own table, unless items are not cached or were sent with features: these are encoded here.
        """
        states_CD = self._cache.states(artifact)
        special = [] if found.common & FRESH else np.flatnonzero(found.rows < 0).tolist()
        if overrides:
            position = {item_id: index for index, item_id in enumerate(item_ids)}
            special = sorted({*special, *(position[item_id] for item_id in overrides if item_id in position)})
        if not special:
            return states_CD, found.rows
        slots = [self._item_slots(artifact, item_ids[i], int(found.rows[i]), overrides) for i in special]
        encoded = artifact.encode_items(Slots(np.stack([s.keys for s in slots]), np.stack([s.values for s in slots])))
        rows_N = torch.from_numpy(np.maximum(found.rows, 0)).to(states_CD.device)
        states_ND = torch.index_select(states_CD, 0, rows_N)
        states_ND[special] = encoded.to(states_ND.dtype)
        return states_ND, np.arange(len(item_ids))

    def _item_slots(
        self, artifact: Artifact, item_id: str, row: int, overrides: Mapping[str, Mapping[str, Any]]
    ) -> Slots:
        """One item's slots [S]: as cached or from defaults, with what the request says on top."""
        if row == ABSENT:
            slots = artifact.item_encoder.encode({}, item_id)
        else:
            keys, values = self._cache.slots(artifact, np.array([row]))
            slots = Slots(keys[0], values[0])
        override = overrides.get(item_id)
        return artifact.item_encoder.patch(slots, override) if override else slots
