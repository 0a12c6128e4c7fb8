"""`FieldDrift` compares the values of fields that stable scores with those that it was trained on, field by field.

It looks at users and items of some of the recorded answers, on the thread that writes the event log.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from random import random
from typing import NamedTuple, Protocol

import numpy as np

from app.events.impression_id import arm_code, arm_of
from app.events.records import ImpressionBlock, Record
from app.features.field_histogram import Counts, SideBins
from app.features.item_index import Rows
from app.features.item_tables import ItemModel
from app.features.slots import Keys, Slots, Values
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest
from app.ranking.routing import STABLE
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.stats import population_stability

WINDOW = 5000
"""Answers that are compared at once: a change is seen whole in the second window from then at the latest."""
USERS_EVERY = 2
"""One of so many answers is looked at for its user."""
AT_ONCE = 1000
"""Users whose slots are counted at once."""
ITEMS_EVERY, ITEMS = 32, 16
"""Of one answer in so many, so many items are looked at, spread over its order."""
MIN_VALUES = 1000
"""Of a field with fewer values in a window, those of the next are added: chance alone would be taken for a change."""
MAX_WAITING = 512


class CachedSlots(Protocol):
    """The part of `ItemCache` that this needs."""

    def slots(self, model: ItemModel, rows: Rows) -> Slots:
        """Return the slots [N, S] of rows."""


class FieldState(NamedTuple):
    """How a field was in the last window."""

    psi: float
    """The population stability index against the training rows."""
    missing: float
    """The share of missing values, in [0, 1]."""


class FieldDrift:
    """Follows the fields of stable. `on_ranked` is for the event loop's thread, `add` for the writer's."""

    def __init__(self, live: Callable[[], LiveSnapshot], cache: CachedSlots, top: int, *, window: int = WINDOW) -> None:
        """
        Args:
            top: the best items of an answer, from which some are looked at.
            window: answers that are compared at once.
        """
        self._live = live
        self._cache = cache
        self._top = top
        self._window = window
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Slots]] = deque(maxlen=MAX_WAITING)
        self._next_user = 0
        self._until_items = 1
        self._manifest_sha256 = ""
        self._arm = ""
        """What ids of stable's answers have in the place of version and label."""
        self._bins: dict[str, SideBins] = {}
        self._shares: dict[str, tuple[float, ...]] = {}
        self._answers = 0
        self._users: list[tuple[Keys, Values]] = []
        """[n, S] of users of stable's answers that are not counted yet."""
        self._counts: dict[str, Counts] = {}
        self._states: dict[str, FieldState] = {}

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Take the slots of some items of an answer that are in the cache; this is a `RankObserver`."""
        self._until_items -= 1
        if self._until_items > 0:
            return
        self._until_items = ITEMS_EVERY
        if ranking.label != STABLE or ranking.scored is None or ranking.scored.row_N is None:
            return
        if request.model is not None or not ranking.artifact.manifest.histograms:
            return
        best_K = ranking.order[: self._top]
        step = max(1, len(best_K) // ITEMS)
        chosen = best_K[int(random() * step) :: step]
        slots = self._cache.slots(ranking.artifact, ranking.scored.row_N[chosen])
        self._waiting.append((ranking.artifact.manifest_sha256, slots))

    def add(self, records: Sequence[Record]) -> None:
        """Count users of stable's answers among these records, and the items that were taken."""
        with self._lock:
            self._follow()
            if not self._bins:
                self._waiting.clear()
                return
            for record in records:
                if isinstance(record, ImpressionBlock):
                    self._take_users(record)
            if sum(len(keys) for keys, _ in self._users) >= AT_ONCE or self._answers >= self._window:
                self._count_taken()
            if self._answers >= self._window:
                self._compare()

    def states(self) -> dict[str, FieldState]:
        """Return how the fields of stable were in the last window; nothing before the first is over."""
        with self._lock:
            self._follow()
            return dict(self._states)

    def _follow(self) -> None:
        """Begin again where stable has changed."""
        stable = self._live().stable
        manifest_sha256 = "" if stable is None else stable.manifest_sha256
        if manifest_sha256 == self._manifest_sha256:
            return
        self._manifest_sha256, self._answers, self._users = manifest_sha256, 0, []
        self._bins, self._shares, self._counts, self._states = {}, {}, {}, {}
        if stable is not None and stable.manifest.histograms:
            self._arm = arm_code(stable.version, STABLE)
            histograms = stable.manifest.histograms
            self._shares = {name: histogram.shares for name, histogram in histograms.items()}
            self._bins = {side: SideBins(stable.schema, side, histograms) for side in ("user", "item")}

    def _take_users(self, block: ImpressionBlock) -> None:
        """Take the users of every other answer of stable."""
        ids, first = block.impression_ids, self._next_user
        self._next_user = (first - len(ids)) % USERS_EVERY
        taken = [place for place in range(first, len(ids), USERS_EVERY) if arm_of(ids[place]) == self._arm]
        if taken:
            self._users.append((block.user_keys[taken], block.user_values[taken]))
            self._answers += USERS_EVERY * len(taken)

    def _count_taken(self) -> None:
        """Count the users and items that were taken, many at once: that costs hardly more than one."""
        if self._users:
            keys, values = zip(*self._users, strict=True)
            self._count("user", Slots(np.concatenate(keys), np.concatenate(values)))
            self._users = []
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        items = [slots for manifest_sha256, slots in taken if manifest_sha256 == self._manifest_sha256]
        if items:
            keys, values = zip(*items, strict=True)
            self._count("item", Slots(np.concatenate(keys), np.concatenate(values)))

    def _count(self, side: str, slots: Slots) -> None:
        for name, count_B in self._bins[side].counts(slots).items():
            before = self._counts.get(name)
            self._counts[name] = count_B if before is None else before + count_B

    def _compare(self) -> None:
        """Compare the fields of which there are enough values, and begin to count them anew."""
        for name, count_B in self._counts.items():
            values = int(count_B.sum())
            if values >= MIN_VALUES:
                psi = population_stability(self._shares[name], count_B)
                self._states[name] = FieldState(psi, float(count_B[-1] / values))
                count_B[:] = 0
        self._answers = 0
