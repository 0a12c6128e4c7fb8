"""`Ranker`: one request without HTTP, from features to an order.

    [one round trip: the user, and items not cached] -> user slots -> user state; item rows gathered -> score -> sort

A failing store does not fail the request: features that it did not give are defaults, and cached items are used though
they may be stale. `degraded` says so; only a missing model, a bad request and a passed deadline are errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import DeadlinePassed
from app.features.item_cache import ItemCache
from app.features.item_index import Rows
from app.features.request_ids import RequestIds
from app.features.slots import Slots
from app.features.store import FeatureStore, RawFeatures
from app.ranking.batcher import Batcher
from app.ranking.degraded import INVALID_FEATURES, MODEL_FALLBACK, NOT_FINITE
from app.ranking.explain import Explanation, explain
from app.ranking.ignored import ignored_features
from app.ranking.request import RankRequest
from app.ranking.request_features import FeatureReader, RequestFeatures
from app.ranking.routing import Route, route_request
from app.registry.artifact.artifact import Artifact, sort_descending
from app.registry.lifecycle.snapshot import LiveSnapshot

MAX_EXPLAINED = 10


@dataclass(slots=True)
class Ranking:
    """The answer to a request: items with their probabilities, best first, and why it is degraded, if it is."""

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
    ignored: Sequence[str] = ()
    """Where the request sent something that no field reads."""
    request_id: str | None = None
    """The caller's name for the request; None if it gave none."""
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


class Ranker:
    """Scores requests with what is live."""

    def __init__(
        self,
        store: FeatureStore,
        cache: ItemCache,
        live: Callable[[], LiveSnapshot],
        *,
        store_timeout_s: float,
        batcher: Batcher | None = None,
    ) -> None:
        """
        Args:
            cache: the store's listener; every live version is attached to it.
            store_timeout_s: seconds that a request waits for the store at most.
            batcher: scores several requests' candidates together; None scores each request alone.
        """
        self._features = FeatureReader(store, cache)
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
        chosen = route_request(self._live(), request)
        timeout_s = min(self._store_timeout_s, due - began)
        features = await self._features.read(request.user_id, request.item_ids, timeout_s)
        fetched = time.perf_counter()
        if fetched >= due:
            raise DeadlinePassed(f"{(fetched - began) * 1000:.0f} ms went by before scoring")
        try:
            states_CD = self._cache.states(chosen.artifact)
        except KeyError:  # the version was retired while the store was slow to answer
            chosen = route_request(self._live(), request)
            states_CD = self._cache.states(chosen.artifact)
        # Nothing is awaited while rows are in use: they stay what they are, and the version stays attached.
        artifact, batcher = chosen.artifact, None if request.explain else self._batcher
        with torch.inference_mode():  # once a request: entering it costs as much as an operator
            user_slots, user_D = self._encode_user(artifact, request, features)
            encoded = time.perf_counter()
            states_CD, rows_N = self._item_states(artifact, states_CD, features, request.item_features)
            if batcher is None:
                score_N, order_N = artifact.ranked(user_D, states_CD, rows_N)
            else:
                items_ND = states_CD.index_select(0, torch.from_numpy(rows_N).to(states_CD.device))
        if batcher is not None:  # from here on rows may become other items'
            score_N, order_N = sort_descending(await batcher.probabilities(artifact, user_D, items_ND))
        ranking = self._ranking(chosen, request, features, user_slots, score_N, order_N)
        ranking.features_s = fetched - began
        ranking.encode_s = encoded - fetched
        ranking.score_s = time.perf_counter() - encoded
        return ranking

    def _encode_user(self, artifact: Artifact, request: RankRequest, features: RequestFeatures) -> tuple[Slots, Tensor]:
        """Return the user's slots [S] and user state [D]."""

        def on_invalid(field: str) -> None:
            if INVALID_FEATURES not in features.degraded:
                features.degraded.append(INVALID_FEATURES)

        encoder = artifact.user_encoder
        slots = encoder.encode(features.user, request.user_id, on_invalid)
        if request.context or request.user_features:
            slots = encoder.patch(slots, {**request.user_features, **request.context})
        return slots, artifact.encode_user(slots)

    def _item_states(
        self,
        artifact: Artifact,
        states_CD: Tensor,
        features: RequestFeatures,
        overrides: Mapping[str, RawFeatures],
    ) -> tuple[Tensor, Rows]:
        """Return a table of item states [C, D] and the candidates' rows [N] in it.

        That is the cache's own table `states_CD`, unless candidates are not cached or were sent with features: then
        their states are computed here, in a table for this request.
        """
        rows_N, special = features.rows_N, features.uncached
        if overrides:
            overridden = [index for index, item_id in enumerate(features.item_ids) if item_id in overrides]
            special = sorted({*special, *overridden})
        if not special:
            return states_CD, rows_N
        encoded_MD = artifact.encode_items(self._features.encode(artifact, features, special, overrides))
        states_ND = states_CD.index_select(0, torch.from_numpy(np.maximum(rows_N, 0)).to(states_CD.device))
        states_ND[special] = encoded_MD.to(states_ND.dtype)
        return states_ND, np.arange(len(rows_N))

    def _ranking(
        self,
        chosen: Route,
        request: RankRequest,
        features: RequestFeatures,
        user_slots: Slots,
        score_N: npt.NDArray[np.float32],
        order_N: npt.NDArray[np.int64],
    ) -> Ranking:
        artifact, degraded = chosen.artifact, features.degraded
        if score_N[0] != score_N[0]:  # NaN sorts first, so the first score tells whether there is any
            degraded.append(NOT_FINITE)
            count = int(np.isnan(score_N).sum())
            score_N = np.concatenate([score_N[count:], np.zeros(count, np.float32)])
            order_N = np.concatenate([order_N[count:], order_N[:count]])
        if chosen.fallback:
            degraded.append(MODEL_FALLBACK)
        score_K, order_K = score_N[: request.top_k], order_N[: request.top_k]
        explanations: list[list[Explanation]] = []
        if request.explain:
            explained = order_K[:MAX_EXPLAINED].tolist()
            items = self._features.encode(artifact, features, explained, request.item_features)
            for keys_S, values_S in zip(*items, strict=True):
                explanations.append(explain(artifact, user_slots, Slots(keys_S, values_S)))
        sent = request.context or request.user_features or request.item_features
        return Ranking(
            artifact=artifact,
            label=chosen.label,
            candidates=features.item_ids,
            order=order_K,
            scores=score_K,
            degraded=degraded,
            missing_user=features.missing_user,
            missing_items=features.missing_items,
            explanations=explanations,
            ignored=ignored_features(artifact, request) if sent else [],
            request_id=request.request_id,
        )
