"""Tests of which rows are evicted next, against a list that is sorted anew for each."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.features.eviction_queue import EvictionQueue

ROWS, LENGTH = 40, 10


class Rows:
    """Rows that are used, freed and taken at random, and the queue of those that are evicted next."""

    def __init__(self, dice: random.Random) -> None:
        self.used_C = np.zeros(ROWS, np.int64)
        self.queue = EvictionQueue(self.used_C, LENGTH)
        self.held: set[int] = set()
        self.pinned: set[int] = set()
        self.looked_through = 0
        self._dice = dice
        self._uses = 0

    def use(self, rows: set[int]) -> None:
        for row in self._dice.sample(sorted(rows), len(rows)):
            self._uses += 1
            self.used_C[row] = self._uses
        self.held |= rows

    def evict(self, count: int) -> list[int]:
        evicted = self.queue.take(count, self._evictable, lambda row: row not in self.held)
        self.held -= set(evicted)
        return evicted

    def oldest(self, count: int) -> list[int]:
        return sorted(self.held, key=lambda row: self.used_C[row])[:count]

    def some(self, rows: set[int]) -> set[int]:
        return set(self._dice.sample(sorted(rows), self._dice.randint(0, len(rows))))

    def _evictable(self) -> np.ndarray:
        self.looked_through += 1
        return np.array(sorted(self.held - self.pinned), np.int64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_least_recently_used_are_evicted_whatever_was_used_since_they_were_queued(seed: int) -> None:
    dice = random.Random(seed)
    rows = Rows(dice)
    rows.use(set(range(ROWS)))
    for _ in range(40):
        rows.use(rows.some(rows.held))
        rows.held -= rows.some(rows.held) if dice.random() < 0.1 else set()  # evicted by others
        expected = rows.oldest(dice.randint(1, 2 * LENGTH))
        assert rows.evict(len(expected)) == expected
        rows.use(rows.some(set(range(ROWS)) - rows.held))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_used_and_pinned_is_not_evicted(seed: int) -> None:
    dice = random.Random(seed)
    rows = Rows(dice)
    rows.use(set(range(ROWS)))
    for _ in range(40):
        rows.pinned = rows.pinned - rows.some(rows.pinned) | (used := rows.some(rows.held))
        rows.use(used)
        assert not rows.pinned & set(rows.evict(dice.randint(1, ROWS)))
        rows.use(rows.some(set(range(ROWS)) - rows.held))


def test_all_rows_are_looked_through_once_for_many_evictions() -> None:
    rows = Rows(random.Random(1))
    rows.use(set(range(ROWS)))
    for _ in range(LENGTH):
        assert len(rows.evict(1)) == 1
    assert rows.looked_through == 1


def test_there_may_be_fewer_than_are_needed() -> None:
    rows = Rows(random.Random(2))
    rows.use({3, 4})
    assert sorted(rows.evict(5)) == [3, 4]
    assert rows.evict(5) == []
