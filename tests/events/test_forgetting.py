"""A forgotten user is nowhere in the log, and nobody else misses anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import DataError  # noqa: E402
from app.events import forgetting  # noqa: E402
from app.events.event_writer import finish  # noqa: E402
from app.events.forgetting import forget  # noqa: E402
from app.events.hashed_id import hashed_id  # noqa: E402
from app.events.records import FEEDBACK, IMPRESSIONS, Feedback  # noqa: E402
from app.events.segment import segment_name, segments, write_segment  # noqa: E402
from app.events.segment_columns import to_batch  # noqa: E402
from app.events.spool import SPOOL, SpoolFile  # noqa: E402
from tests.events.records import AT_US, Impression, blocks, click, impression  # noqa: E402

MINUTE_US = 60_000_000


def write(folder: Path, shown: list[Impression], sent: list[Feedback], part: int = 0) -> None:
    for kind, records in ((IMPRESSIONS, blocks(shown)), (FEEDBACK, sent)):
        if records:
            write_segment(folder, segment_name(kind, AT_US + part, f"w-{part}"), [to_batch(kind, records)])


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
        write(tmp_path, shown, sent, part)
    forgotten = {row["impression_id"] for row in rows(tmp_path, IMPRESSIONS) if row["user_id"] == "42"}
    assert forget(tmp_path, "42").answers == len(forgotten) == 9
    kept = rows(tmp_path, IMPRESSIONS)
    assert len(kept) == 21
    assert all(row["user_id"] != "42" for row in kept)
    assert not forgotten & {row["request_id"] for row in rows(tmp_path, FEEDBACK)}
    assert len(rows(tmp_path, FEEDBACK)) == 33 - 9
    assert forget(tmp_path, "42") == (0, 0)


def test_a_segment_with_nothing_else_is_deleted(tmp_path: Path) -> None:
    write(tmp_path, [impression(1)._replace(user_id="42")], [])
    assert forget(tmp_path, "42") == (1, 0)
    assert not list(segments(tmp_path, IMPRESSIONS))


def test_a_segment_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, [impression(1)], [])
    next(tmp_path.rglob("*.parquet")).write_bytes(b"no")
    with pytest.raises(DataError, match=r"w-0\.parquet"):
        forget(tmp_path, "42")


def test_feedback_by_an_id_that_callers_share_is_on_what_was_shown_last_before_it(tmp_path: Path) -> None:
    shown = [
        impression(number, at_us=AT_US + number * MINUTE_US)._replace(caller_id="session", user_id=user)
        for number, user in enumerate(["42", "43", "42"])
    ]
    sent = [
        click(number, at_us=AT_US + round(minute * MINUTE_US))._replace(request_id="session")
        for number, minute in enumerate([-1, 0.1, 0.5, 1.1, 1.5, 2.1, 99])
    ]
    write(tmp_path, shown[:2], sent)
    write(tmp_path, shown[2:], [], part=1)
    assert forget(tmp_path, "42") == (2, 0)
    assert [row["user_id"] for row in rows(tmp_path, IMPRESSIONS)] == ["43"]
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-3", "click-4"]


def test_an_id_of_ours_that_a_caller_named_a_later_request_by_is_on_what_was_shown_last_too(tmp_path: Path) -> None:
    first = impression(7, at_us=AT_US)._replace(user_id="7")
    second = impression(8, at_us=AT_US + MINUTE_US)._replace(user_id="42", caller_id=first.impression_id)
    sent = [click(n, at_us=AT_US + n * MINUTE_US + 1000)._replace(request_id=first.impression_id) for n in range(2)]
    write(tmp_path, [first, second], sent)
    assert forget(tmp_path, "42") == (1, 0)
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-0"]
    write(tmp_path, [second], sent, part=1)
    assert forget(tmp_path, "7") == (1, 0)
    assert {row["feedback_id"] for row in rows(tmp_path, FEEDBACK)} == {"click-1"}


def test_an_answer_that_is_finished_meanwhile_keeps_the_feedback_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = [impression(n, at_us=AT_US + n * MINUTE_US)._replace(caller_id="session") for n in range(2)]
    sent = [click(n, at_us=AT_US + n * MINUTE_US + 1000)._replace(request_id="session") for n in range(2)]
    write(tmp_path, [shared[0]._replace(user_id="42")], sent)

    def finished_meanwhile(folder: Path, kind: str) -> Iterator[Any]:
        if kind == IMPRESSIONS:
            write(folder, [shared[1]._replace(user_id="43")], [], part=1)
        yield from ()

    monkeypatch.setattr(forgetting, "unfinished", finished_meanwhile)
    assert forget(tmp_path, "42") == (1, 0)
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-1"]


def test_an_answer_that_is_not_finished_keeps_the_feedback_on_it(tmp_path: Path) -> None:
    shared = [impression(n, at_us=AT_US + n * MINUTE_US)._replace(caller_id="session") for n in range(2)]
    sent = [click(n, at_us=AT_US + n * MINUTE_US + 1000)._replace(request_id="session") for n in range(2)]
    write(tmp_path, [shared[0]._replace(user_id="42")], sent)
    (tmp_path / SPOOL).mkdir()
    spooled = SpoolFile(tmp_path / SPOOL / "W-1.impressions.frames", IMPRESSIONS)
    spooled.append(blocks([shared[1]._replace(user_id="43")]))
    spooled.close()
    assert forget(tmp_path, "42") == (1, 0)
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-1"]


def test_an_answer_stays_until_the_feedback_on_it_is_in_a_finished_file(tmp_path: Path) -> None:
    write(tmp_path, [impression(number)._replace(user_id="42") for number in (1, 2, 4)], [])
    (tmp_path / SPOOL).mkdir()
    spooled = SpoolFile(tmp_path / SPOOL / "W-1.feedback.frames", FEEDBACK)
    spooled.append([click(1), click(9), click(4)._replace(request_id="own-4", at_us=AT_US + MINUTE_US)])
    spooled.close()
    assert forget(tmp_path, "42") == (1, 2)
    assert [row["impression_id"] for row in rows(tmp_path, IMPRESSIONS)] == ["impression-1", "impression-4"]
    finish(tmp_path, spooled.path, FEEDBACK, AT_US)
    assert forget(tmp_path, "42") == (2, 0)
    assert rows(tmp_path, IMPRESSIONS) == []
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-9"]


def test_what_an_error_has_kept_from_being_forgotten_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [impression(1)._replace(user_id="42"), impression(2)], [click(1), click(2)])

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("app.events.forgetting.write_segment", fail)
        with pytest.raises(DataError, match="No space left"):
            forget(tmp_path, "42")
    assert forget(tmp_path, "42") == (1, 0)
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-2"]


def test_a_hash_needs_the_key() -> None:
    assert hashed_id("42", "a") == hashed_id("42", "a") != hashed_id("42", "b")
    assert hashed_id("42", "a") != hashed_id("43", "a")
    assert len(hashed_id("42", "x" * 500)) == 32
