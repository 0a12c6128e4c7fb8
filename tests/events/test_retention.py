"""Old answers leave the log, and items once nothing may refer to them; a forgotten user is nowhere in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import DataError  # noqa: E402
from app.events.hashed_id import hashed_id  # noqa: E402
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS  # noqa: E402
from app.events.retention import Retention, forget  # noqa: E402
from app.events.segment import segment_name, segments, write_segment  # noqa: E402
from app.events.segment_columns import to_batch  # noqa: E402
from tests.events.records import AT_US, block, blocks, click, impression, item  # noqa: E402

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


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for _, path in segments(folder, kind) for row in pq.read_table(path).to_pylist()]


def test_a_forgotten_user_is_in_no_answer_and_no_feedback(tmp_path: Path) -> None:
    for part in range(3):
        shown = [impression(number) for number in range(10 * part, 10 * part + 10)]
        shown = [
            record._replace(user_id="42" if index % 4 == 1 else record.user_id) for index, record in enumerate(shown)
        ]
        by_own_id = click(10 * part + 1)._replace(request_id=f"own-{10 * part + 1}")
        sent = [click(number) for number in range(10 * part, 10 * part + 10)] + [by_own_id]
        for kind, records in ((IMPRESSIONS, blocks(shown)), (FEEDBACK, sent)):
            write_segment(tmp_path, segment_name(kind, AT_US + part, f"w-{part}"), [to_batch(kind, records)])
    forgotten = {row["impression_id"] for row in rows(tmp_path, IMPRESSIONS) if row["user_id"] == "42"}
    assert forget(tmp_path, "42") == len(forgotten) == 9
    kept = rows(tmp_path, IMPRESSIONS)
    assert len(kept) == 21
    assert all(row["user_id"] != "42" for row in kept)
    assert not forgotten & {row["request_id"] for row in rows(tmp_path, FEEDBACK)}
    assert len(rows(tmp_path, FEEDBACK)) == 33 - 9
    assert forget(tmp_path, "42") == 0


def test_a_segment_with_nothing_else_is_deleted(tmp_path: Path) -> None:
    record = impression(1)._replace(user_id="42")
    write_segment(tmp_path, segment_name(IMPRESSIONS, AT_US, "w"), [to_batch(IMPRESSIONS, blocks([record]))])
    assert forget(tmp_path, "42") == 1
    assert not list(segments(tmp_path, IMPRESSIONS))


def test_a_segment_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_segment(tmp_path, segment_name(IMPRESSIONS, AT_US, "w"), [to_batch(IMPRESSIONS, blocks([impression(1)]))])
    next(tmp_path.rglob("*.parquet")).write_bytes(b"no")
    with pytest.raises(DataError, match=r"w\.parquet"):
        forget(tmp_path, "42")


def test_a_hash_needs_the_key() -> None:
    assert hashed_id("42", "a") == hashed_id("42", "a") != hashed_id("42", "b")
    assert hashed_id("42", "a") != hashed_id("43", "a")
    assert len(hashed_id("42", "x" * 500)) == 32
