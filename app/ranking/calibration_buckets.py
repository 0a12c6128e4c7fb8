"""`CalibrationBuckets` counts items that were shown, clicks that their scores make expect, and clicks, by their scores.

A click names an item of an answer and not its score, which only the process that gave the answer can know. So a sample
of the answers is remembered, and clicks on it that come to this process count; what came to others is missing alike
for every score. So the counts say how clicks over expected clicks differ from score to score, and the totals of all
answers (`OutcomeCounts`) say how many there are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.events.records import CLICK, Feedback, Record
from app.features.request_ids import RequestIds, id_hash
from app.native.scorer import Floats, Positions
from app.ranking.ranker import Ranking
from app.ranking.request import RankRequest

LOGITS = tuple(float(logit) for logit in np.arange(-7.0, 2.5, 0.5))
"""Upper bounds of all buckets but the last: probabilities from 0.0009 to 0.88."""
BUCKETS = len(LOGITS) + 1
BUCKET_NAMES = (*(f"{logit:g}" for logit in LOGITS), "+Inf")
"""Their upper bounds."""
_BOUNDS = (1 / (1 + np.exp(-np.array(LOGITS)))).astype(np.float32)
MAX_TOP = 50
"""Best items of an answer that are counted at most."""
REMEMBERED = 16_384
"""Answers that are remembered, in about 5 MB."""
SPAN_S = 1800.0
"""Seconds in which the sample fills the memory at most: of more answers, so many are taken a second as do."""
BURST = 1 / 8
"""Share of the memory that may be filled at once, after a start or a quiet time."""


class BucketTotals(NamedTuple):
    """Totals of the sampled answers under one label, by bucket of scores [BUCKETS]."""

    impressions: npt.NDArray[np.float64]
    expected: npt.NDArray[np.float64]
    clicks: npt.NDArray[np.float64]


class _Sampled(NamedTuple):
    """An answer as the event loop notes it: nothing is copied or computed."""

    impression_id: str
    label: str
    candidates: RequestIds
    order: Positions
    scores: Floats


@dataclass
class _Memory:
    """The last answers of the sample, in a ring."""

    top: int
    size: int
    slot_of: dict[str, int] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Halves of the hashes: among 50 items one in 86 million clicks is taken for another item's.
        self.hashes = np.zeros((self.size, self.top), np.uint32)
        self.buckets = np.zeros((self.size, self.top), np.uint8)
        self.next = 0

    def add(self, sampled: _Sampled, hash_K: npt.NDArray[np.uint32], bucket_K: npt.NDArray[np.intp]) -> None:
        slot = self.next
        self.next = (slot + 1) % self.size
        if slot < len(self.ids):
            self.slot_of.pop(self.ids[slot], None)
            self.ids[slot], self.labels[slot] = sampled.impression_id, sampled.label
        else:
            self.ids.append(sampled.impression_id)
            self.labels.append(sampled.label)
        self.slot_of[sampled.impression_id] = slot
        self.hashes[slot] = 0
        self.hashes[slot, : len(hash_K)] = hash_K
        self.buckets[slot, : len(bucket_K)] = bucket_K

    def find(self, impression_id: str, item_id: str) -> tuple[str, int] | None:
        """Return the label and the bucket of an item; None where the answer or the item is not remembered."""
        slot = self.slot_of.get(impression_id)
        if slot is None:
            return None
        found = np.flatnonzero(self.hashes[slot] == np.uint32(id_hash(item_id) & 0xFFFFFFFF))
        return (self.labels[slot], int(self.buckets[slot, found[0]])) if len(found) else None


class CalibrationBuckets:
    """Counts a sample of answers, and clicks on them, by score. `on_ranked` is for the event loop's thread."""

    def __init__(self, top: int, now_s: Callable[[], float] = time.monotonic, *, remembered: int = REMEMBERED) -> None:
        """
        Args:
            top: how many items of an answer are counted, as many as are recorded.
            remembered: answers that clicks are looked for in.
        """
        self._top = top
        self._now_s = now_s
        self._lock = threading.Lock()
        self._memory = _Memory(top, remembered)
        self._totals: dict[str, BucketTotals] = {}
        burst = max(1.0, remembered * BURST)
        self._interval_s = SPAN_S / remembered
        self._burst_s = (burst - 1.0) * self._interval_s
        self._next_at_s = now_s() - self._burst_s
        """When the next answer may be taken; after a quiet time up to `_burst_s` ago, so that many may be at once."""
        self._waiting: deque[_Sampled] = deque(maxlen=round(burst))

    def on_ranked(self, request: RankRequest, ranking: Ranking) -> None:
        """Note an answer if it is of the sample; this is a `RankObserver`."""
        now_s = self._now_s()
        if now_s < self._next_at_s or ranking.impression_id is None:
            return
        self._next_at_s = max(self._next_at_s, now_s - self._burst_s) + self._interval_s
        top = self._top
        self._waiting.append(
            _Sampled(
                ranking.impression_id, ranking.label, ranking.candidates, ranking.order[:top], ranking.scores[:top]
            )
        )

    def add(self, records: Iterable[Record]) -> None:
        """Count the answers that were noted, and clicks among these records; for the writer's thread."""
        with self._lock:
            while self._waiting:
                self._remember(self._waiting.popleft())
            for record in records:
                if isinstance(record, Feedback) and record.type == CLICK:
                    found = self._memory.find(record.request_id, record.item_id)
                    if found is not None:
                        label, bucket = found
                        self._totals[label].clicks[bucket] += 1

    def totals(self) -> dict[str, BucketTotals]:
        """Return the totals by label."""
        with self._lock:
            return {label: BucketTotals(*(part.copy() for part in parts)) for label, parts in self._totals.items()}

    def _remember(self, sampled: _Sampled) -> None:
        bucket_K = np.searchsorted(_BOUNDS, sampled.scores)
        hash_K = sampled.candidates.hash_N[sampled.order].astype(np.uint32)
        totals = self._totals.get(sampled.label)
        if totals is None:
            totals = self._totals[sampled.label] = BucketTotals(*(np.zeros(BUCKETS) for _ in range(3)))
        totals.impressions[:] += np.bincount(bucket_K, minlength=BUCKETS)
        totals.expected[:] += np.bincount(bucket_K, sampled.scores, BUCKETS)
        self._memory.add(sampled, hash_K, bucket_K)
