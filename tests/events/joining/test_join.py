"""The join is the one that a few loops over all records give, in whatever steps it is made."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import ConfigError, DataError
from app.events.event_queue import EventQueue
from app.events.event_writer import EventWriter
from app.events.impression_id import ImpressionIds
from app.events.joining.bucket_join import NOT_SHOWN, JoinCounts
from app.events.joining.join import join, parts, read_state
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Feedback, ImpressionBlock, ItemSlots
from app.events.segment import segment_name, write_segment
from app.events.segment_columns import to_batch
from tests.events.records import Impression, block, impression, item
from tests.waiting import until

Record = Impression | ItemSlots | Feedback
TYPES: dict[str, type[Record]] = {ITEMS: ItemSlots, IMPRESSIONS: Impression, FEEDBACK: Feedback}

BEGAN_US = 1_790_000_000_000_000 // 3_600_000_000 * 3_600_000_000
WINDOW, EVERY = timedelta(minutes=30), timedelta(hours=1)
HOUR_US = 3_600_000_000


def at(hours: float) -> datetime:
    return datetime.fromtimestamp(BEGAN_US / 1e6 + 3600 * hours, UTC)


def write(folder: Path, records: list[Record]) -> None:
    """Write records to segments of some minutes each."""
    for kind, type_ in TYPES.items():
        mine = sorted((record for record in records if isinstance(record, type_)), key=lambda record: record.at_us)
        by_segment: dict[int, list[Record]] = {}
        for record in mine:
            by_segment.setdefault(record.at_us // (17 * 60_000_000), []).append(record)
        for number, part in by_segment.items():
            batch = to_batch(kind, [_recorded(record) for record in part])
            write_segment(folder, segment_name(kind, part[0].at_us, f"worker-{number}"), [batch])


def _recorded(record: Record) -> ImpressionBlock | ItemSlots | Feedback:
    return block(record) if isinstance(record, Impression) else record


def log_of(seed: int, answers: int = 200, hours: float = 3) -> list[Record]:
    """Make answers with three items each, and feedback of every sort on them."""
    dice, ids = random.Random(seed), ImpressionIds()
    records: list[Record] = []
    for number in range(answers):
        at_us = BEGAN_US + int(dice.random() * hours * HOUR_US)
        made = ids.next(at_us // 1000, 7, "stable")
        shown = impression(number, at_us=at_us)._replace(impression_id=made, at_us=at_us)
        records.append(shown)
        records += [item(reference, at_us=at_us - 1000) for reference in shown.item_references.tolist()]
        for _ in range(dice.choice([0, 0, 1, 1, 2, 5])):
            delay_us = int(dice.choice([-60, 5, 600, 1799, 1801, 4000]) * 1e6)
            named = shown.caller_id if shown.caller_id and dice.random() < 0.5 else made
            item_id = f"item-{10 * number + dice.choice([0, 1, 2, 9])}"
            kind = dice.choice(["click", "click", "shown", "conversion"])
            feedback_id = dice.choice([None, f"f{number}", f"f{number}-{dice.random()}"])
            records.append(Feedback(named, item_id, kind, at_us + delay_us, at_us + delay_us, None, feedback_id))
    for number in range(20):
        at_us = BEGAN_US + int(dice.random() * hours * HOUR_US)
        lost = ids.next(at_us // 1000 - 1000, 7, "stable") if number % 2 else f"elsewhere-{number}"
        records.append(Feedback(lost, "item-1", "click", at_us, at_us, None, None))
    return records


def name(record: Feedback) -> str:
    return record.feedback_id or f"{record.request_id}\x1f{record.item_id}\x1f{record.type}"


def order(record: Feedback) -> tuple[object, ...]:
    return record.received_at_us, record.at_us, name(record), record.request_id, record.item_id, record.type


def expected(records: list[Record], stop_us: int, label: str = "click") -> dict[str, list[int]]:
    """Join by loops: the labels of each answer before `stop_us`, by its id."""
    feedback = sorted(
        (record for record in records if isinstance(record, Feedback)),
        key=order,
    )
    seen: set[str] = set()
    once = []
    for record in feedback:
        if name(record) not in seen:
            seen.add(name(record))
            once.append(record)
    joined = {}
    for answer in (record for record in records if isinstance(record, Impression) and record.at_us < stop_us):
        mine = [
            record
            for record in once
            if record.request_id in (answer.impression_id, answer.caller_id)
            and -300e6 <= record.at_us - answer.at_us <= WINDOW.total_seconds() * 1e6
        ]
        ids = [f"item-{reference}" for reference in answer.item_references.tolist()]
        types = [{record.type for record in mine if record.item_id == item_id} for item_id in ids]
        any_shown = any("shown" in kinds for kinds in types)
        joined[answer.impression_id] = [
            1 if label in kinds else 0 if "shown" in kinds or not any_shown else NOT_SHOWN for kinds in types
        ]
    return joined


def labels(out: Path) -> dict[str, list[int]]:
    return {
        row["impression_id"]: row["labels"] for answers, _ in parts(out) for row in pl.read_parquet(answers).to_dicts()
    }


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_join_is_that_of_loops_over_all_records(tmp_path: Path, seed: int) -> None:
    records = log_of(seed)
    write(tmp_path / "events", records)
    result = join(tmp_path / "events", tmp_path / "out", until=at(2.75))
    wanted = expected(records, BEGAN_US + 2 * HOUR_US)
    assert labels(tmp_path / "out") == wanted
    flat = Counter(label for each in wanted.values() for label in each)
    assert result.counts.answers == len(wanted)
    assert (result.counts.positives, result.counts.impressions) == (flat[1], flat[0] + flat[1])
    assert result.joined_until == at(2)
    assert result.counts.late > 0
    assert result.counts.duplicates > 0
    assert result.counts.not_recorded > 0
    assert result.counts.orphans >= 5


def test_increments_write_what_one_run_writes(tmp_path: Path) -> None:
    write(tmp_path / "events", log_of(7))
    join(tmp_path / "events", tmp_path / "whole", until=at(4))
    for hours in (0.2, 1.4, 1.6, 1.7, 2.9, 4):
        join(tmp_path / "events", tmp_path / "steps", until=at(hours))
    join(tmp_path / "events", tmp_path / "again", until=at(4))
    assert contents(tmp_path / "steps") == contents(tmp_path / "whole") == contents(tmp_path / "again")
    assert len(parts(tmp_path / "whole")) == 3


def test_every_item_of_a_part_has_its_slots(tmp_path: Path) -> None:
    write(tmp_path / "events", log_of(1))
    join(tmp_path / "events", tmp_path / "out", until=at(4))
    for answers, items in parts(tmp_path / "out"):
        referred = set(pl.read_parquet(answers)["items"].explode().to_list())
        there = pl.read_parquet(items)
        assert referred == set(there["reference"].to_list())
        assert len(there) == len(referred)
        assert there.row(0, named=True)["keys"] == item(there["reference"][0]).keys.tolist()


def test_slots_are_found_that_were_recorded_after_the_answer_and_in_another_part(tmp_path: Path) -> None:
    answers = [impression(number, at_us=BEGAN_US + number * HOUR_US - 10_000) for number in range(1, 4)]
    slots = [item(one, at_us=answer.at_us + 90_000) for answer in answers for one in answer.item_references.tolist()]
    write(tmp_path / "events", [*answers, *slots])
    result = join(tmp_path / "events", tmp_path / "out", until=at(4))
    assert (result.counts.answers, result.counts.without_slots) == (3, 0)


def test_an_answer_whose_slots_are_not_there_is_left_out_and_counted(tmp_path: Path) -> None:
    records = [record for record in log_of(2) if not (isinstance(record, ItemSlots) and record.reference == 31)]
    write(tmp_path / "events", records)
    result = join(tmp_path / "events", tmp_path / "out", until=at(4))
    assert result.counts.without_slots == 1
    assert result.counts.answers == 199


def test_what_is_still_in_the_spool_of_a_living_worker_is_joined(tmp_path: Path) -> None:
    queue = EventQueue(10_000)
    writer = EventWriter(queue, tmp_path / "events")
    writer.start()
    try:
        records = log_of(3, answers=20)
        for record in records:
            queue.put(_recorded(record))
        until(lambda: sum(writer.written.values()) == len(records))
        join(tmp_path / "events", tmp_path / "out", until=at(4))
        assert labels(tmp_path / "out") == expected(records, BEGAN_US + 4 * HOUR_US)
    finally:
        writer.stop()


def test_another_way_of_joining_takes_another_folder(tmp_path: Path) -> None:
    write(tmp_path / "events", log_of(1, answers=5))
    join(tmp_path / "events", tmp_path / "out", until=at(4))
    before = contents(tmp_path / "out")
    for changed in ({"window": timedelta(minutes=5)}, {"every": timedelta(minutes=5)}, {"label": "conversion"}):
        with pytest.raises(ConfigError, match="another folder"):
            join(tmp_path / "events", tmp_path / "out", until=at(4), **changed)  # type: ignore[arg-type]
    assert contents(tmp_path / "out") == before


def _truncated(folder: Path) -> None:
    path = next(folder.glob("impressions/*/*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])


def _foreign(folder: Path) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(next(folder.glob("impressions/*/*/*.parquet")))


@pytest.mark.parametrize("damage", [_truncated, _foreign])
def test_a_damaged_segment_is_named_and_nothing_written(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write(tmp_path / "events", log_of(1, answers=5))
    damage(tmp_path / "events")
    with pytest.raises(DataError, match=r"worker-\d+\.parquet"):
        join(tmp_path / "events", tmp_path / "out", until=at(4))
    assert not parts(tmp_path / "out")


@pytest.mark.parametrize("kind", [IMPRESSIONS, ITEMS, FEEDBACK])
def test_a_segment_with_a_damaged_page_is_named_and_joining_goes_on_without_it(tmp_path: Path, kind: str) -> None:
    events, out = tmp_path / "events", tmp_path / "out"
    write(events, log_of(1, answers=5))
    path = next(events.glob(f"{kind}/*/*/*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 64 + content[68:])  # the end, which says where pages are, is whole
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: is damaged .*take it out"):
        join(events, out, until=at(4))
    path.unlink()
    assert join(events, out, until=at(4)).joined_until == at(3)


def test_without_a_log_or_answers_nothing_is_joined(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CTR_EVENTS"):
        join(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "events").mkdir()
    result = join(tmp_path / "events", tmp_path / "out")
    assert (result.spans, result.joined_until, result.counts) == (0, None, JoinCounts())
    assert read_state(tmp_path / "out") is None


def test_a_state_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    write(tmp_path / "events", log_of(1, answers=5))
    join(tmp_path / "events", tmp_path / "out", until=at(4))
    (tmp_path / "out" / "join.json").write_text("{")
    with pytest.raises(DataError, match=r"join\.json"):
        join(tmp_path / "events", tmp_path / "out", until=at(4))


def test_of_requests_with_one_name_the_last_before_the_click_is_clicked(tmp_path: Path) -> None:
    first, second = (impression(2, at_us=BEGAN_US + 1_000_000 * n)._replace(impression_id=f"i{n}") for n in (10, 20))
    records: list[Any] = [first, second, *(item(reference, at_us=BEGAN_US) for reference in (20, 21, 22))]
    records.append(Feedback("own-2", "item-21", "click", BEGAN_US + 15_000_000, BEGAN_US + 15_000_000, None, None))
    write(tmp_path / "events", records)
    join(tmp_path / "events", tmp_path / "out", until=at(4))
    assert labels(tmp_path / "out") == {"i10": [0, 1, 0], "i20": [0, 0, 0]}
