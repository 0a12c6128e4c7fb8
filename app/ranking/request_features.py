"""`FeatureReader`: from the ids of a request to their features, in one round trip to the store where it can.

A row number is valid only until something is awaited, because any row may be evicted and given to another item
meanwhile. So the rows that a request found are pinned while it waits for the store; an item without a row afterwards,
evicted again or never cached because no row could be evicted for it, is encoded for this request from what was read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.errors import StoreError
from app.features.item_cache import CacheLookup, ItemCache
from app.features.item_index import ABSENT, Rows
from app.features.request_ids import RequestIds
from app.features.row_flags import DOUBTED, FRESH, KNOWN, VALID
from app.features.store import FeatureStore, RawFeatures
from app.ranking.degraded import INVALID_FEATURES, ITEMS_UNAVAILABLE, STALE_ITEMS, USER_UNAVAILABLE
from app.runtime.loop_pacer import SliceTurns

READ_AT_ONCE, READ_IN_SLICE = 64, 16
"""Most items that one round trip reads: the cache encodes them as they are read, which takes a millisecond. A request
in slices, which has time, reads fewer: a quarter of one."""
MAX_DOUBTED = 64
"""Most items that a request reads because reports of them may have been missed, a millisecond. After a lost connection
all items are so, and requests that read all of theirs would take twenty times as long, and many be refused; the rest
is used as it is, marked as stale, until the refresher or another request has read it."""


@dataclass(slots=True)
class RequestFeatures:
    """The features of a user and N candidates, after the store has answered or failed to answer.

    `rows_N` is valid until something is awaited.
    """

    item_ids: RequestIds
    """[N], each once."""
    rows_N: Rows
    """The candidates' rows in the cache, ABSENT for those that are not cached."""
    user: RawFeatures
    """Empty for an unknown user, and if the store did not answer."""
    degraded: list[str]
    missing_items: list[str]
    """Ids that the store does not know."""
    missing_user: bool = False
    invalid_fields: Sequence[str] = ()
    """Fields of the user of which the stored value fits no slot."""
    uncached: Sequence[int] = ()
    """Indices of the candidates that are not cached."""
    items_read: Mapping[int, RawFeatures] = field(default_factory=dict)
    """The features that this request read of candidates, by their index; none of those that the store does not know."""

    def degrade(self, reason: str) -> None:
        """Name a reason once."""
        if reason not in self.degraded:
            self.degraded.append(reason)


class ItemsRead:
    """What the store has answered of a request's candidates, by their index."""

    def __init__(self) -> None:
        self.features: dict[int, RawFeatures] = {}
        self.unknown: list[int] = []
        """Of which the store has nothing."""
        self.unanswered: list[int] = []
        """Of which it did not say, as one node of a cluster failed, say."""

    def add(self, indices: Sequence[int], items: Sequence[RawFeatures | None]) -> None:
        """Take the answer of one round trip."""
        for index, item in zip(indices, items, strict=True):
            if item:
                self.features[index] = item
            else:
                (self.unanswered if item is None else self.unknown).append(index)


NOTHING_READ = ItemsRead()
"""Of a request whose items are all cached."""


class FeatureReader:
    """Reads users and items for requests."""

    def __init__(self, store: FeatureStore, cache: ItemCache, timeout_s: float, turns: SliceTurns) -> None:
        """
        Args:
            cache: the store's listener.
            timeout_s: seconds that a round trip may take, if the request has twice as long.
        """
        self._store = store
        self._cache = cache
        self._timeout_s = timeout_s
        self._turns = turns

    async def read(
        self, user_id: str | None, item_ids: Sequence[str], due: float, *, in_slices: bool = False
    ) -> RequestFeatures:
        """Read the user, if it is no guest, and the items of which the cache holds nothing fresh.

        That is one round trip, unless there are more than READ_AT_ONCE such items (READ_IN_SLICE for `in_slices`). Of
        those that are not fresh because reports may have been missed, MAX_DOUBTED at most are read. Items that were
        fresh when the request began are not read again, whatever is written meanwhile: they are as fresh as the
        beginning of the request, and the user and the items read are as fresh as the store's reply.

        Args:
            due: `time.perf_counter()` at which the answer is no longer wanted. A store that does not answer takes half
                of what is left until then at most, so that there is time to score from defaults.
            in_slices: read fewer items at once, for a request that lets others go first.

        Returns:
            The features of the user and of the distinct ids, in their order; `degraded` names what could not be read.
        """
        cache = self._cache
        ids = RequestIds.from_strings(item_ids)
        lookup = cache.find(ids)
        if not lookup.distinct and len(set(ids)) != len(ids):
            ids = RequestIds.from_strings(list(dict.fromkeys(ids)))
            lookup = cache.find(ids)
        unread, doubted = self._unread(lookup)
        unread_ids = ids.at(unread)
        cache.counts.hits += len(ids) - len(unread) - doubted
        cache.counts.misses += len(unread)
        rows_N = lookup.rows
        at_once = READ_IN_SLICE if in_slices else READ_AT_ONCE
        cache.pin(rows_N)
        user: RawFeatures | None = None
        read = ItemsRead() if unread else NOTHING_READ
        try:
            with contextlib.nullcontext() if in_slices else self._turns.replies:
                user, first = await self._store.fetch(user_id, unread_ids[:at_once], self._wait_s(due))
            if unread:
                read.add(unread[:at_once], first)
            for start in range(at_once, len(unread), at_once):
                some = slice(start, start + at_once)
                async with self._turns.turn():  # the work comes with the reply: those of several would come together
                    read.add(unread[some], (await self._store.fetch(None, unread_ids[some], self._wait_s(due))).items)
            if len(unread) > at_once:
                await self._turns.next()  # to look so many up takes some tenths of a millisecond
        except StoreError:
            return self._from_cache(ids, {} if user_id is None else user)
        finally:
            cache.unpin(rows_N)
        features = RequestFeatures(ids, rows_N, user or {}, [], [], user is not None and not user)
        if user is None:
            features.degrade(USER_UNAVAILABLE)
        if doubted:
            features.degrade(STALE_ITEMS)
        if unread:  # the cache was given these, and may not have taken them, or have evicted them again
            rows_N = features.rows_N = cache.find(ids).rows
            features.uncached = np.flatnonzero(rows_N == ABSENT).tolist()
            features.items_read = read.features
        if unread or lookup.flags_all & (KNOWN | VALID) != KNOWN | VALID:
            flags_N = cache.flags(rows_N)
            known_N = flags_N & KNOWN != 0
            if unread:
                known_N[read.unknown] = False
                known_N[list(read.features)] = True
            for index in read.unanswered:
                if rows_N[index] == ABSENT:
                    features.degrade(ITEMS_UNAVAILABLE)
                    known_N[index] = True  # nobody knows
                elif not (self._may_be_fresh and flags_N[index] & FRESH):  # no other request has read it meanwhile
                    features.degrade(STALE_ITEMS)
            features.missing_items = ids.at(np.flatnonzero(~known_N).tolist())
            if ((rows_N != ABSENT) & (flags_N & VALID == 0)).any():
                features.degrade(INVALID_FEATURES)
        return features

    @property
    def _may_be_fresh(self) -> bool:
        """Whether what is cached and flagged as fresh is: the store reports changes, or what is old is stale."""
        return self._store.tracking or self._cache.aged

    def _unread(self, lookup: CacheLookup) -> tuple[list[int], int]:
        """Return the indices of the candidates to read, and how many others are used though reports may be missed."""
        if not self._may_be_fresh:
            return list(range(len(lookup.rows))), 0
        if lookup.flags_all & FRESH:
            return [], 0
        flags_N = self._cache.flags(lookup.rows)
        doubted = np.flatnonzero(flags_N & DOUBTED)[MAX_DOUBTED:]
        flags_N[doubted] |= FRESH
        return np.flatnonzero(flags_N & FRESH == 0).tolist(), len(doubted)

    def _wait_s(self, due: float) -> float:
        return min(self._timeout_s, (due - time.perf_counter()) / 2)

    def _from_cache(self, ids: RequestIds, user: RawFeatures | None) -> RequestFeatures:
        """Return what the cache holds after the store has failed; `degraded` names what is absent or may be stale.

        Args:
            user: empty for a guest, None if the user could not be read.
        """
        rows_N = self._cache.find(ids).rows
        flags_N, cached_N = self._cache.flags(rows_N), rows_N != ABSENT
        fresh_N = flags_N & FRESH != 0 if self._may_be_fresh else np.zeros(len(rows_N), np.bool_)
        degraded = [USER_UNAVAILABLE] if user is None else []
        features = RequestFeatures(ids, rows_N, user or {}, degraded, [], user is not None and not user)
        features.uncached = np.flatnonzero(~cached_N).tolist()
        if features.uncached:
            features.degraded.append(ITEMS_UNAVAILABLE)
        else:
            features.missing_items = ids.at(np.flatnonzero(flags_N & KNOWN == 0).tolist())
        if (cached_N & ~fresh_N).any():
            features.degraded.append(STALE_ITEMS)
        if (cached_N & (flags_N & VALID == 0)).any():
            features.degrade(INVALID_FEATURES)
        return features
