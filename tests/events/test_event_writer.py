"""What is put into the queue is in the segments, whatever happens to the worker or the disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import ConfigError, DataError  # noqa: E402
from app.events.event_log import EventLog  # noqa: E402
from app.events.event_queue import EventQueue  # noqa: E402
from app.events.event_writer import EventWriter, finish_orphans  # noqa: E402
from app.events.record_frames import to_frame  # noqa: E402
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Feedback, ImpressionBlock  # noqa: E402
from app.events.retention import Retention  # noqa: E402
from app.events.segment import SegmentName, parse_segment_name, segments  # noqa: E402
from app.events.spool import SPOOL, SpoolFile, read_spool  # noqa: E402
from app.settings import Settings  # noqa: E402
from tests.events.records import AT_US, block, click, impression, item  # noqa: E402
from tests.waiting import until  # noqa: E402

ROOT = Path(__file__).parents[2]


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return all records of one kind in finished segments."""
    return [row for _, path in segments(folder, kind) for row in pq.read_table(path).to_pylist()]


def test_an_observer_that_fails_costs_no_record_and_the_next_is_told(tmp_path: Path) -> None:
    told: list[str] = []

    def fail(records: Sequence[ImpressionBlock | Feedback]) -> None:
        raise ValueError("a fault of its own")

    writer = EventWriter(queue := EventQueue(100), tmp_path)
    writer.observers = [fail, lambda records: told.extend(type(record).__name__ for record in records)]
    for record in (item(1), block(impression(1)), click(1), click(1)):
        queue.put(record)
    with capture_logs() as lines:
        writer.start()
        writer.stop()
    assert told == ["ImpressionBlock", "Feedback"], "no slots, and no click that was sent before"
    assert [len(rows(tmp_path, kind)) for kind in (ITEMS, IMPRESSIONS, FEEDBACK)] == [1, 1, 2]
    assert {line["event"] for line in lines if line["log_level"] == "error"} == {"events_observer_failed"}
    assert writer.problem == ""


def test_every_record_is_in_a_segment_once_the_writer_has_stopped(tmp_path: Path) -> None:
    queue = EventQueue(10_000)
    writer = EventWriter(queue, tmp_path)
    writer.start()
    for number in range(1300):
        queue.put(item(number))
        queue.put(block(impression(number, items=number % 4, propensities=number % 7 == 0)))
    queue.put(click(1))
    writer.stop()
    shown = rows(tmp_path, IMPRESSIONS)
    assert [row["impression_id"] for row in shown] == [f"impression-{number}" for number in range(1300)]
    for number in (0, 7, 10, 1299):
        record, row = impression(number, items=number % 4, propensities=number % 7 == 0), shown[number]
        assert row["caller_id"] == record.caller_id
        assert row["user_id"] == record.user_id
        assert int(row["at"].timestamp() * 1e6) == pytest.approx(record.at_us, abs=1)
        assert row["degraded"] == record.degraded
        assert row["user_keys"] == record.user_keys.tolist()
        assert row["items"] == record.item_references.tolist()
        assert row["scores"] == record.scores.tolist()
        assert row["propensities"] == (None if record.propensities is None else record.propensities.tolist())
    assert [row["reference"] for row in rows(tmp_path, ITEMS)] == list(range(1300))
    assert rows(tmp_path, FEEDBACK)[0]["feedback_id"] == "click-1"
    assert writer.written == {ITEMS: 1300, IMPRESSIONS: 1300, FEEDBACK: 1}
    assert not list((tmp_path / SPOOL).iterdir())


def test_segments_lie_by_kind_date_and_hour_and_have_a_name_once_they_are_whole(tmp_path: Path) -> None:
    queue = EventQueue(100)
    writer = EventWriter(queue, tmp_path)
    queue.put(item(1))
    writer.start()
    writer.stop()
    [(name, path)] = segments(tmp_path, ITEMS)
    assert path.relative_to(tmp_path).as_posix().startswith("items/date=2026-09-21/hour=14/")
    assert parse_segment_name(path.relative_to(tmp_path).as_posix()) == name
    assert isinstance(name, SegmentName)
    assert name.hour.timestamp() == AT_US // 3_600_000_000 * 3600
    assert parse_segment_name("items/date=2026-09-21/hour=14/.tmp-x") is None
    for impossible in ("date=2026-13-45/hour=05", "date=2026-09-21/hour=99"):
        assert parse_segment_name(f"items/{impossible}/x.parquet") is None


def test_old_or_large_files_become_segments_while_the_writer_runs(tmp_path: Path) -> None:
    queue = EventQueue(10_000)
    writer = EventWriter(queue, tmp_path, segment_s=1e9, segment_bytes=1)
    writer.start()
    try:
        for number in range(3):
            queue.put(block(impression(number)))
            until(lambda count=number + 1: len(rows(tmp_path, IMPRESSIONS)) == count)  # type: ignore[misc]
    finally:
        writer.stop()
    assert len(list(segments(tmp_path, IMPRESSIONS))) == 3


@pytest.mark.parametrize("deleted", ["the folder", "a file"])
def test_what_is_deleted_while_the_writer_runs_is_counted_and_it_goes_on(tmp_path: Path, deleted: str) -> None:
    queue, folder = EventQueue(1000), tmp_path / "events"
    writer = EventWriter(queue, folder, segment_s=3600)
    writer.put_file("schemas/a.json", b"{}")
    writer.start()
    try:
        queue.put(click(0))
        until(lambda: writer.written[FEEDBACK] == 1)
        if deleted == "the folder":
            shutil.rmtree(folder)
        else:
            next((folder / SPOOL).glob("*.frames")).unlink()
        until(lambda: writer.lost[FEEDBACK] == 1)
        queue.put(click(1))
        until(lambda: writer.written[FEEDBACK] == 2)
        assert not writer.problem
        assert queue.items_are_lost == (deleted == "the folder")
    finally:
        writer.stop()
    assert [row["item_id"] for row in rows(folder, FEEDBACK)] == [click(1).item_id]
    assert (folder / "schemas" / "a.json").read_bytes() == b"{}"
    assert not list((folder / SPOOL).iterdir())


def test_a_closed_file_that_is_deleted_keeps_no_other_from_being_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    queue = EventQueue(1000)
    writer = EventWriter(queue, tmp_path, segment_s=0)
    with monkeypatch.context() as patched:
        patched.setattr("app.events.event_writer.write_segment", no_space)
        writer.start()
        queue.put(click(0))
        until(lambda: writer.problem)
    (file,) = (tmp_path / SPOOL).glob("*.frames")
    file.unlink()
    queue.put(click(1))
    until(lambda: rows(tmp_path, FEEDBACK))
    writer.stop()
    assert writer.lost[FEEDBACK] == 1


def test_a_full_queue_drops_and_counts() -> None:
    queue = EventQueue(2)
    assert [queue.put(click(number)) for number in range(5)] == [True, True, False, False, False]
    assert queue.dropped == {FEEDBACK: 3}
    assert len(queue.take(10)) == 2


def test_a_full_disk_loses_nothing_that_the_queue_still_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = EventQueue(1000)
    writer = EventWriter(queue, tmp_path)
    full = True
    write: Callable[..., int] = os.write

    def write_if_there_is_room(descriptor: int, data: Any) -> int:
        if full and len(data) > 40:
            write(descriptor, data[:40])  # a disk that fills up takes the beginning
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_if_there_is_room)
    monkeypatch.setattr("app.events.event_writer.RETRY_EVERY_S", 0.05)
    queue.put(block(impression(1)))
    writer.start()
    until(lambda: "space" in writer.problem)
    queue.put(block(impression(2)))
    full = False
    until(lambda: not writer.problem)
    writer.stop()
    assert [row["impression_id"] for row in rows(tmp_path, IMPRESSIONS)] == ["impression-1", "impression-2"]


KILLED = """
import os, sys
from pathlib import Path
from app.events.event_queue import EventQueue
from app.events.event_writer import EventWriter
from tests.events.records import block, impression, item
from tests.waiting import until
queue = EventQueue(1000)
writer = EventWriter(queue, Path(sys.argv[1]))
writer.start()
for number in range(100):
    queue.put(item(number))
    queue.put(block(impression(number)))
until(lambda: writer.written["impressions"] == 100)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_worker_had_appended_is_finished_by_the_next(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert ended.returncode == -9
    assert not list(segments(tmp_path, IMPRESSIONS))
    writer = EventWriter(EventQueue(10), tmp_path)
    writer.start()
    writer.stop()
    assert len(rows(tmp_path, IMPRESSIONS)) == 100
    assert len(rows(tmp_path, ITEMS)) == 100
    assert not list((tmp_path / SPOOL).iterdir())


def leave_behind(folder: Path, worker: str, number: int) -> SpoolFile:
    """Leave an item and what refers to it, as a killed worker does; return the file of the items."""
    spool = folder / SPOOL
    spool.mkdir(exist_ok=True)
    (spool / f"{worker}.lock").touch()
    for kind, record in ((ITEMS, item(number)), (IMPRESSIONS, block(impression(number)))):
        file = SpoolFile(spool / f"{worker}-1.{kind}.frames", kind)
        file.append([record])
        file.close()
        if kind == ITEMS:
            items = file
    return items


def test_a_damaged_file_of_one_killed_worker_keeps_nobody_from_finishing_the_others(tmp_path: Path) -> None:
    damaged = leave_behind(tmp_path, "A", 1)
    content = damaged.path.read_bytes()
    damaged.path.write_bytes(content[:-20] + bytes(20))
    leave_behind(tmp_path, "B", 2)
    (tmp_path / SPOOL / "C.lock").mkdir()
    with capture_logs() as lines:
        assert finish_orphans(tmp_path) == 3
    assert [(line["event"], line["file"], line["bytes"]) for line in lines] == [
        ("events_cut_off", str(damaged.path), len(content))
    ]
    (tmp_path / SPOOL / "C.lock").rmdir()
    assert [row["impression_id"] for row in rows(tmp_path, IMPRESSIONS)] == ["impression-1", "impression-2"]
    assert [row["reference"] for row in rows(tmp_path, ITEMS)] == [2]
    assert not list((tmp_path / SPOOL).iterdir())


def test_a_file_of_another_format_is_named_and_keeps_nobody_from_finishing_the_others(tmp_path: Path) -> None:
    file = leave_behind(tmp_path, "A", 1)
    file.path.write_bytes(to_frame([click(1)]))
    leave_behind(tmp_path, "B", 2).path.with_name("B-1 copy.feedback.frames").touch()
    with pytest.raises(DataError, match=r"A-1\.items\.frames: records of items in another format"):
        finish_orphans(tmp_path)
    assert [row["impression_id"] for row in rows(tmp_path, IMPRESSIONS)] == ["impression-2"]
    assert file.path.exists()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert list(segments(tmp_path, ITEMS)) == []
    (tmp_path / ITEMS).touch()
    with pytest.raises(DataError, match=f"{tmp_path / ITEMS} cannot be read"):
        list(segments(tmp_path, ITEMS))


def test_what_could_not_be_finished_at_first_is_tried_again(tmp_path: Path) -> None:
    file = leave_behind(tmp_path, "A", 1)
    leave_behind(tmp_path, "B", 2)
    moved = file.path.rename(tmp_path / "elsewhere")
    file.path.mkdir()
    writer = EventWriter(queue := EventQueue(10), tmp_path, segment_s=0.5)
    queue.put(block(impression(3)))
    with capture_logs() as lines:
        writer.start()
        until(lambda: any(line["event"] == "events_left_unfinished" for line in lines))
        assert len(rows(tmp_path, ITEMS)) == 1
        names = {row["impression_id"] for row in rows(tmp_path, IMPRESSIONS)}
        assert "impression-2" in names
        assert "impression-1" not in names, "not before its items"
        assert writer.problem == "", "its own records are written"
        file.path.rmdir()
        moved.rename(file.path)
        until(lambda: len(rows(tmp_path, ITEMS)) == 2)
        writer.stop()
    assert len(rows(tmp_path, IMPRESSIONS)) == 3
    assert not list((tmp_path / SPOOL).iterdir())


def test_a_sender_who_names_an_old_time_has_nothing_deleted(tmp_path: Path) -> None:
    now_s, days_s = AT_US / 1e6, 86_400
    retention = Retention(days=2)
    writer = EventWriter(queue := EventQueue(10), tmp_path, retention=retention, now_s=lambda: now_s)
    queue.put(click(1)._replace(at_us=AT_US - 5 * days_s * 1_000_000))
    queue.put(click(2))
    writer.start()
    writer.stop()
    assert [row["feedback_id"] for row in rows(tmp_path, FEEDBACK)] == ["click-1", "click-2"]
    assert retention.apply(tmp_path, datetime.fromtimestamp(now_s + 3 * days_s, UTC)) == 1


def test_the_files_of_a_worker_that_lives_are_left_alone(tmp_path: Path) -> None:
    queue = EventQueue(10)
    writer = EventWriter(queue, tmp_path)
    writer.start()
    try:
        queue.put(block(impression(1)))
        until(lambda: writer.written[IMPRESSIONS] == 1)
        assert finish_orphans(tmp_path) == 0
    finally:
        writer.stop()
    assert len(rows(tmp_path, IMPRESSIONS)) == 1


@pytest.mark.parametrize("cut", [1, 9, 100, 10_000])
def test_a_file_that_breaks_off_is_read_up_to_its_last_whole_frame(tmp_path: Path, cut: int) -> None:
    file = SpoolFile(tmp_path / "x-1.items.frames", ITEMS)
    for number in range(3):
        assert file.append([item(100 * number + one) for one in range(50)]) == 50
    file.close()
    os.truncate(file.path, max(0, file.size - cut))
    read = np.concatenate([batch["reference"].to_numpy() for batch in read_spool(file.path, ITEMS)] or [np.array([])])
    whole = len(read) // 50
    assert len(read) == 50 * whole
    assert whole == (2 if cut <= 100 else whole)
    assert read.tolist() == [100 * number + one for number in range(whole) for one in range(50)]


def test_a_log_that_is_a_file_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("")
    with pytest.raises(ConfigError, match=r"events: is a file; the event log needs a folder"):
        EventLog.from_settings(Settings(_env_file=None, events=str(tmp_path / "events")))
