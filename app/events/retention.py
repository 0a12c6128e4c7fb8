"""`Retention` deletes old segments of the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS
from app.events.segment import segments

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Retention:
    """How long and how much is kept."""

    days: float = 0.0
    """Days after which answers and feedback are deleted; 0 keeps them."""
    size: int = 0
    """Bytes beyond which the oldest are; 0 keeps them."""

    def apply(self, folder: Path, now: datetime) -> int:
        """Delete finished segments that are too old or too many, and return how many.

        Items go a day after the last answers that may refer to them.
        """
        if not self.days and not self.size:
            return 0
        answers = sorted([*segments(folder, IMPRESSIONS), *segments(folder, FEEDBACK)], key=lambda found: found[0].hour)
        items = list(segments(folder, ITEMS))
        sizes = {path: _size(path) for _, path in [*answers, *items]}
        excess = sum(sizes.values()) - self.size if self.size else 0
        deleted = 0
        while answers:
            name, path = answers[0]
            old = self.days > 0 and name.hour + timedelta(hours=1) < now - timedelta(days=self.days)
            if not old and excess <= 0:
                break
            deleted += _delete(path)
            excess -= sizes[path]
            del answers[0]
        needed_from = (answers[0][0].hour if answers else now) - DAY
        unneeded = [path for name, path in items if name.hour.date() < needed_from.date()]
        return deleted + sum(_delete(path) for path in unneeded)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another worker has deleted it
        return 0


def _delete(path: Path) -> int:
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1
