"""`RequestItems`: candidates whose item states a request computes itself, because the cache does not have them.

Those are candidates that are not cached, or that the request sent values for. They are encoded in slices, between which
other requests have their turn: two thousand of them take as long as twenty usual requests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from app.errors import DeadlinePassed
from app.features.item_cache import ItemCache
from app.features.item_index import ABSENT, Rows
from app.features.slots import Slots
from app.features.store import RawFeatures
from app.native.scorer import Positions
from app.ranking.degraded import INVALID_FEATURES
from app.ranking.request import RankRequest
from app.ranking.request_features import RequestFeatures
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import SliceTurns

SLICE = 64
"""Candidates encoded at a time: half a millisecond."""


class RequestItems:
    """A table of item states for one request, [N, D], a row for each candidate."""

    def __init__(
        self,
        artifact: Artifact,
        cache: ItemCache,
        states_CD: Tensor,
        features: RequestFeatures,
        request: RankRequest,
        *,
        hold: bool = False,
    ) -> None:
        """Copy what the cache has of the candidates; afterwards its rows may become other items'.

        Args:
            hold: keep the slots of all candidates if this request computes the states of some.
        """
        self._artifact = artifact
        self._features = features
        self._count_invalid = cache.counts.count_invalid
        self._overrides = overrides_of(artifact, features, request)
        self.own: list[int] = sorted({*features.uncached, *self._overrides})
        """Indices of the candidates whose states are computed here."""
        self.rows_N: Rows = features.rows_N
        """The candidates' rows in `states`."""
        self.states: Tensor = states_CD
        cached_N = np.maximum(features.rows_N, 0)
        if self.own:
            self.states = states_CD.index_select(0, torch.from_numpy(cached_N).to(states_CD.device))
            self.rows_N = np.arange(len(cached_N))
        self._held = range(len(cached_N)) if request.explain or (hold and self.own) else self.own
        """Indices of the candidates whose slots are held: all of them, if some are to be explained or logged."""
        self._slots = cache.slots(artifact, cached_N[self._held])

    def slots_of(self, index: int) -> Slots:
        """Return the slots [S] of one candidate of a request that is to be explained, once `encode` is done."""
        return Slots(self._slots.keys[index], self._slots.values[index])

    def slots_of_all(self, indices: Positions) -> Slots:
        """Return the slots [K, S] of candidates of a request for which those of all are held, once `encode` is done."""
        return Slots(self._slots.keys[indices], self._slots.values[indices])

    async def encode(self, turns: SliceTurns, due: float) -> None:
        """Compute the states of `own` in slices, with a turn before and behind each where there are several.

        Raises:
            EncodingError: a value that was sent fits no slot.
            DeadlinePassed: `time.perf_counter()` reached `due` before all states were there.
        """
        for start in range(0, len(self.own), SLICE):
            if len(self.own) > SLICE:
                await turns.next()
            own = self.own[start : start + SLICE]
            held = own if self._held is not self.own else list(range(start, start + len(own)))
            slots = Slots(self._slots.keys[held], self._slots.values[held])
            self._encode_features(slots, own)
            self._slots.keys[held], self._slots.values[held] = slots
            with torch.inference_mode():
                self.states[own] = self._artifact.encode_items(slots).to(self.states.dtype)
            if time.perf_counter() >= due:
                raise DeadlinePassed("the time was over before scoring")
        if len(self.own) > SLICE:
            await turns.next()

    def _on_invalid(self, field: str) -> None:
        self._count_invalid(field)
        self._features.degrade(INVALID_FEATURES)

    def _encode_features(self, slots: Slots, own: Sequence[int]) -> None:
        """Write the slots [M, S] of M candidates: as cached, as read or of an unknown item, with overrides on top."""
        features, encoder = self._features, self._artifact.item_encoder
        uncached = [row for row, index in enumerate(own) if features.rows_N[index] == ABSENT]
        if uncached:
            read = features.items_read or {}
            slots.keys[uncached], slots.values[uncached] = encoder.encode_many(
                [read.get(own[row], {}) for row in uncached],
                [features.item_ids[own[row]] for row in uncached],
                self._on_invalid,
            )
        overrides = self._overrides
        patches = {row: overrides[index] for row, index in enumerate(own) if index in overrides}
        if patches:
            encoder.patch_many(slots, patches)


def overrides_of(artifact: Artifact, features: RequestFeatures, request: RankRequest) -> Mapping[int, RawFeatures]:
    """Return the values sent for items of which a field of the version reads some, by the index of the candidate."""
    of_item, sent = artifact.item_encoder.overridable, request.item_features
    if not sent:
        return {}
    read = {item_id for item_id, values in sent.items() if not of_item.isdisjoint(values)}
    if not read:
        return {}
    item_ids: Sequence[str] = features.item_ids
    return {index: sent[item_id] for index, item_id in enumerate(item_ids) if item_id in read}
