"""`EventQueue` holds records between the event loop, which adds them, and the writer's thread, which takes them.

It is bounded: a record that finds it full is dropped and counted. A request neither waits for it nor fails for it.
"""

from __future__ import annotations

from collections import Counter, deque

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Feedback, Impression, ItemSlots, Record


class EventQueue:
    """A bounded queue of records. One thread puts, one takes."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: records held at most; about two kilobytes each.
        """
        self.limit = limit
        self.dropped: Counter[str] = Counter()
        """Records that found the queue full, by kind."""
        self._records: deque[Record] = deque()

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: Record) -> bool:
        """Add a record; return False if there was no room."""
        if len(self._records) >= self.limit:
            self.dropped[kind_of(record)] += 1
            return False
        self._records.append(record)
        return True

    def take(self, count: int) -> list[Record]:
        """Take the oldest records, `count` of them or all there are."""
        records = self._records
        return [records.popleft() for _ in range(min(count, len(records)))]


def kind_of(record: Record) -> str:
    """Return the kind of a record."""
    return _KINDS[type(record)]


_KINDS = {Impression: IMPRESSIONS, ItemSlots: ITEMS, Feedback: FEEDBACK}
