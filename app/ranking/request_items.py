"""`RequestItems`: candidates whose item states a request computes itself, because the cache does not have them.

Those are candidates that are not cached, or that the request sent values for. They are encoded in slices, between which
other requests have their turn: two thousand of them take as long as twenty usual requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from app.errors import DeadlinePassed, EncodingError
from app.events.item_references import ItemReferences
from app.events.records import References
from app.features.item_cache import ItemCache
from app.features.item_index import ABSENT
from app.features.slots import Slots
from app.features.store import RawFeatures
from app.native.scorer import Positions
from app.ranking.candidate_scorer import StateRows
from app.ranking.degraded import INVALID_FEATURES
from app.ranking.encoding_errors import locate_item_error
from app.ranking.request import RankRequest
from app.ranking.request_features import RequestFeatures
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import SliceTurns

SLICE = 32
"""Candidates encoded at a time: a quarter of a millisecond, half of one on an old core."""
SMALL_SLICE, COPIED_AT_ONCE = 16, 128
"""Candidates of a request in slices, which has time, that are encoded and copied from the cache at a time: with caches
that others have used 0.2 ms, on an old core twice that."""
LOOKED_UP_AT_ONCE = 256
"""Candidates of a request in slices whose overrides are looked up at a time: 0.1 ms."""


class RequestItems:
    """The item states of the candidates of one request, and the slots of those that it computes or explains."""

    def __init__(
        self,
        artifact: Artifact,
        cache: ItemCache,
        states_CD: Tensor,
        features: RequestFeatures,
        request: RankRequest,
        references: ItemReferences | None = None,
    ) -> None:
        """
        Args:
            references: number the slots of candidates for the event log; None where nothing is logged.
        """
        self._artifact = artifact
        self._cache = cache
        self._features = features
        self._request = request
        self._overrides: dict[int, RawFeatures] = {}
        """The values sent for candidates of which a field of the version reads some, by index; found by `encode`."""
        self.own: Sequence[int] = features.uncached
        """Indices of the candidates whose states are computed here; found by `encode`."""
        self._states_CD = states_CD
        self.rows = StateRows(states_CD, features.rows_N, are_cached=True)
        """Where the candidates' states are; in a table of the request's own, once `encode` is done, if it computes
        some of them."""
        self._holds_all = False
        """Whether the slots of all candidates are held, as some are to be explained or logged."""
        self._held: Positions = np.empty(0, np.int64)
        """Indices of the candidates whose slots are held."""
        self._slots = Slots(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        self._references = references
        self._reference_N: References | None = np.zeros(len(features.rows_N), np.int64)
        """By which references the event log has candidates' slots, 0 for none; None where they cannot be told."""
        # Bound here, because a version may be retired while a request of it is worked on in slices.
        self._slots_of_rows = cache.slot_table(artifact).slots

    def hold(self, some: slice) -> None:
        """Copy the slots of some candidates of a request that is to be explained and computes none itself."""
        self._slots.keys[some], self._slots.values[some] = self._slots_of_rows(self._features.rows_N[some])

    def slots_of(self, index: int) -> Slots:
        """Return the slots [S] of one candidate of a request that is to be explained, once all are scored."""
        return Slots(self._slots.keys[index], self._slots.values[index])

    def references_of(self, best_K: Positions) -> References | None:
        """Return the references [K] by which the log has the slots of some candidates, once `encode` is done.

        Those that it does not have are written. None if it has no room for them, or the version was retired meanwhile.
        """
        assert self._references is not None
        if self._reference_N is None:
            return None
        reference_K = self._reference_N[best_K]
        unknown = np.flatnonzero(reference_K == 0)
        if len(unknown):
            indices = best_K[unknown]
            ids = self._features.item_ids.at(indices.tolist())
            slots = Slots(self._slots.keys[indices], self._slots.values[indices])
            written = self._references.of_slots(self._artifact, ids, slots)
            if written is None:
                return None
            reference_K[unknown] = written
        return reference_K

    async def encode(self, turns: SliceTurns, due: float) -> None:
        """Look up overrides, copy what the cache has of the candidates, and compute the states of those of `own`.

        A request in slices lets others have a turn between the slices of each; one that computes few or none waits for
        nobody. Nothing is copied where nothing is computed: the candidates' rows are still theirs then.

        Raises:
            EncodingError: a value that was sent fits no slot.
            DeadlinePassed: `time.perf_counter()` reached `due` before all states were there.
        """
        rows_N = self._features.rows_N
        self._cache.pin(rows_N)
        try:
            await self._find_overrides(turns, due)
            self._allocate_tables()
            if self.own:
                await self._copy_cached(turns)
        finally:
            self._cache.unpin(rows_N)
        at_once = SMALL_SLICE if self._request.in_slices else SLICE
        for start in range(0, len(self.own), at_once):
            if len(self.own) > at_once:
                await turns.next()
            own = self.own[start : start + at_once]
            held = np.searchsorted(self._held, own)
            slots = Slots(self._slots.keys[held], self._slots.values[held])
            self._encode_features(slots, own)
            self._slots.keys[held], self._slots.values[held] = slots
            with torch.inference_mode():
                self.rows.states_CD[own] = self._artifact.encode_items(slots).to(self.rows.states_CD.dtype)
            if time.perf_counter() >= due:
                raise DeadlinePassed("the time was over before scoring")
        if len(self.own) > at_once:
            await turns.next()

    async def _find_overrides(self, turns: SliceTurns, due: float) -> None:
        if not self._request.item_features:
            return
        numbered = enumerate(self._features.item_ids)
        if not self._request.in_slices:
            self._overrides = self._overrides_of(numbered)
        else:
            while some := list(islice(numbered, LOOKED_UP_AT_ONCE)):
                await turns.next_before(due, "the values sent for items were looked up")
                self._overrides |= self._overrides_of(some)
        if self._overrides:
            self.own = sorted({*self.own, *self._overrides})

    def _overrides_of(self, numbered: Iterable[tuple[int, str]]) -> dict[int, RawFeatures]:
        """Return the values sent for some candidates, given by index and id, of which a field of the version reads."""
        fields, sent = self._artifact.item_encoder.overridable, self._request.item_features
        return {
            index: values
            for index, item_id in numbered
            if (values := sent.get(item_id)) and not fields.isdisjoint(values)
        }

    def _allocate_tables(self) -> None:
        """Make the tables for the states computed here and for the slots that are held."""
        count = len(self._features.rows_N)
        if self.own:
            own_states_ND = self._states_CD.new_empty((count, self._states_CD.shape[1]))
            self.rows = StateRows(own_states_ND, np.arange(count), are_cached=False)
        self._holds_all = self._request.explain or (self._references is not None and bool(self.own))
        self._held = np.arange(count) if self._holds_all else np.array(self.own, np.int64)
        shape = len(self._held), self._artifact.item_encoder.width
        self._slots = Slots(np.empty(shape, np.int64), np.empty(shape, np.float32))

    async def _copy_cached(self, turns: SliceTurns) -> None:
        cached = np.flatnonzero(self._features.rows_N != ABSENT)
        at_once = COPIED_AT_ONCE if self._request.in_slices else max(len(cached), 1)
        for start in range(0, len(cached), at_once):
            if start:
                await turns.next()
            self._copy(cached[start : start + at_once])
        if self._reference_N is not None:
            self._reference_N[self.own] = 0

    def _copy(self, cached: Positions) -> None:
        """Copy the states, slots and references of some candidates together: an item may be written between two."""
        row_M, device = self._features.rows_N[cached], self._states_CD.device
        with torch.inference_mode():
            states_MD = self._states_CD.index_select(0, torch.from_numpy(row_M).to(device))
            self.rows.states_CD.index_copy_(0, torch.from_numpy(cached).to(device), states_MD)
        if self._holds_all:
            self._slots.keys[cached], self._slots.values[cached] = self._slots_of_rows(row_M)
        elif self._overrides:
            is_held_M = np.isin(cached, self._held)
            held = np.searchsorted(self._held, cached[is_held_M])
            self._slots.keys[held], self._slots.values[held] = self._slots_of_rows(row_M[is_held_M])
        if self._references is not None and self._reference_N is not None:
            try:
                self._reference_N[cached] = self._references.known(self._artifact, row_M)
            except KeyError:  # the version was retired between two slices
                self._reference_N = None

    def _on_invalid(self, field: str) -> None:
        self._cache.counts.count_invalid(field)
        self._features.degrade(INVALID_FEATURES)

    def _encode_features(self, slots: Slots, own: Sequence[int]) -> None:
        """Write the slots [M, S] of M candidates: as cached, as read or of an unknown item, with overrides on top."""
        features, encoder = self._features, self._artifact.item_encoder
        uncached = [row for row, index in enumerate(own) if features.rows_N[index] == ABSENT]
        if uncached:
            slots.keys[uncached], slots.values[uncached] = encoder.encode_many(
                [features.items_read.get(own[row], {}) for row in uncached],
                features.item_ids.at([own[row] for row in uncached]),
                self._on_invalid,
            )
        overrides = self._overrides
        patches = {row: overrides[index] for row, index in enumerate(own) if index in overrides}
        if not patches:
            return
        try:
            encoder.patch_many(slots, patches)
        except EncodingError as error:
            ids = features.item_ids.at([own[row] for row in patches])
            raise locate_item_error(encoder, dict(zip(ids, patches.values(), strict=True)), error) from None
