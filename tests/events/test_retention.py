"""Old answers leave the log, and items once nothing may refer to them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS
from app.events.retention import Retention
from app.events.segment import segment_name, segments, write_segment
from app.events.segment_columns import to_batch
from tests.events.records import AT_US, block, click, impression, item

DAY_US = 86_400_000_000
NOW = datetime.fromtimestamp(AT_US / 1e6, UTC)


def write_days(folder: Path, days: int) -> None:
    """Write a segment of each kind for each of the days before now."""
    for day in range(days):
        at_us = AT_US - day * DAY_US
        for kind, record in (
            (ITEMS, item(day, at_us=at_us)),
            (IMPRESSIONS, block(impression(day, at_us=at_us))),
            (FEEDBACK, click(day, at_us=at_us)),
        ):
            write_segment(folder, segment_name(kind, at_us, f"worker-{day}"), [to_batch(kind, [record])])


def days_of(folder: Path, kind: str) -> list[int]:
    return sorted((NOW.date() - name.hour.date()).days for name, _ in segments(folder, kind))


def test_without_bounds_everything_is_kept(tmp_path: Path) -> None:
    write_days(tmp_path, 5)
    assert Retention().apply(tmp_path, NOW) == 0
    assert days_of(tmp_path, IMPRESSIONS) == [0, 1, 2, 3, 4]


def test_what_is_too_old_goes_and_items_a_day_later(tmp_path: Path) -> None:
    write_days(tmp_path, 8)
    assert Retention(days=2.5).apply(tmp_path, NOW) == 5 + 5 + 4
    assert days_of(tmp_path, IMPRESSIONS) == days_of(tmp_path, FEEDBACK) == [0, 1, 2]
    assert days_of(tmp_path, ITEMS) == [0, 1, 2, 3]
    assert Retention(days=2.5).apply(tmp_path, NOW) == 0


def test_what_is_too_much_goes_oldest_first(tmp_path: Path) -> None:
    write_days(tmp_path, 6)
    total = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    Retention(size=total * 2 // 3).apply(tmp_path, NOW)
    kept = days_of(tmp_path, IMPRESSIONS)
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 6
    oldest = max(kept + days_of(tmp_path, FEEDBACK))
    assert days_of(tmp_path, ITEMS) == list(range(min(6, oldest + 2)))
    Retention(size=1).apply(tmp_path, NOW)
    assert days_of(tmp_path, IMPRESSIONS) == []
