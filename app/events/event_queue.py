"""`EventQueue` holds records between the event loop, which adds them, and the writer's thread, which takes them.

It is bounded: a record that finds it full is dropped and counted. A request neither waits for it nor fails for it.
"""

from __future__ import annotations

from collections import Counter, deque

from app.events.records import Record, kind_of, size_of


class EventQueue:
    """A bounded queue of records. One thread puts, one takes."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: records held at most, of two kilobytes or less; the last block may exceed it.
        """
        self.limit = limit
        self.dropped: Counter[str] = Counter()
        """Records that found the queue full, by kind."""
        self.items_are_lost = False
        """Set by the writer where slots that it wrote are gone, so that they are put again."""
        self._records: deque[Record] = deque()
        self._put = self._taken = 0  # each is written by one thread alone

    def __len__(self) -> int:
        return self._put - self._taken

    def put(self, record: Record) -> bool:
        """Add a record, or a block of them; return False if there was no room."""
        if len(self) >= self.limit:
            self.dropped[kind_of(record)] += size_of(record)
            return False
        self._put += size_of(record)
        self._records.append(record)
        return True

    def take(self, count: int) -> list[Record]:
        """Take the oldest records, until there are `count` of them, or a few more of a block, or none is left."""
        taken: list[Record] = []
        size = 0
        while self._records and size < count:
            taken.append(self._records.popleft())
            size += size_of(taken[-1])
        self._taken += size
        return taken
