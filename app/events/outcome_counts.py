"""`OutcomeCounts` counts what was shown, how many clicks its scores make expect, and what came, by version and label.

Clicks over expected clicks are 1 where the probabilities are true. The id of an impression says which version gave it,
so a click counts for that version in whichever worker it arrives.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from app.errors import InvalidRequest
from app.events.impression_id import parse_impression_id
from app.events.records import Feedback, ImpressionBlock, Record

REMEMBERED = 100_000
"""Names of feedback that are known again, so that what is sent twice counts once."""
UNKNOWN = ("", "")
"""Version and label of feedback that names an answer by the caller's own id."""

Arm = tuple[str, str]
"""Version and label."""


@dataclass
class Outcomes:
    """Totals by version and label."""

    impressions: Counter[Arm] = field(default_factory=Counter)
    """Items that were shown, as far as they are recorded."""
    expected: defaultdict[Arm, float] = field(default_factory=lambda: defaultdict(float))
    """The sum of their click probabilities."""
    feedback: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Feedback by version, label and type."""


class OutcomeCounts:
    """Counts records as they are written; safe to use from any thread."""

    def __init__(self) -> None:
        self._totals = Outcomes()
        self._seen: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, records: Iterable[Record]) -> list[ImpressionBlock | Feedback]:
        """Count records and return those that counted: not items' slots, and not feedback that was sent before."""
        counted: list[ImpressionBlock | Feedback] = []
        with self._lock:
            for record in records:
                if isinstance(record, ImpressionBlock):
                    arm = str(record.version), record.label
                    self._totals.impressions[arm] += len(record.scores)
                    self._totals.expected[arm] += float(record.scores.sum(dtype=np.float64))
                    counted.append(record)
                elif isinstance(record, Feedback) and self._is_new(record):
                    self._totals.feedback[*_arm_of(record.request_id), record.type] += 1
                    counted.append(record)
        return counted

    def totals(self) -> Outcomes:
        """Return what was counted so far."""
        with self._lock:
            totals = self._totals
            return Outcomes(totals.impressions.copy(), totals.expected.copy(), totals.feedback.copy())

    def _is_new(self, record: Feedback) -> bool:
        named = (record.feedback_id,) if record.feedback_id else (record.request_id, record.item_id, record.type)
        if named in self._seen:
            return False
        self._seen[named] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


def _arm_of(request_id: str) -> Arm:
    try:
        answered = parse_impression_id(request_id)
    except InvalidRequest:
        return UNKNOWN
    return str(answered.version), answered.label
